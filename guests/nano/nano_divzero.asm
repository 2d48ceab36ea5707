; nano_divzero - an exception that is nobody's but the guest's.
;
; A division by zero; the handler steps over it. No hypervisor has any interest in it, but where the
; guest's kernel is not in ring 0 the exception goes to the hypervisor first.

%include "nano.inc"
%include "interrupts.inc"

VECTOR_DIVIDE   equ 0
DIV_LENGTH      equ 2                   ; div ebx

start:
    call read_command_line
    call install_gdt
    call install_interrupts
    handle_vector VECTOR_DIVIDE, on_divide_error
    mov ebx, 0
    mov ecx, [count]
    mov ebp, 0
.again:
    div ebx
    dec ecx
    jnz .again
    mov edx, ebp
    report "divzero"

on_divide_error:
    inc ebp
    add dword [esp], DIV_LENGTH
    iret
