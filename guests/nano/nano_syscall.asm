; nano_syscall - a system call that does nothing.
;
; INT n from ring 3 through a gate, and IRET back: two ring changes and no work. A hypervisor that
; must step in on either pays for it twice a call.

%include "nano.inc"
%include "ring3.inc"

EMPTY_CALL equ 0x81

start:
    call read_command_line
    call install_rings
    handle_vector EMPTY_CALL, on_empty_call
    mov byte [idt + EMPTY_CALL * 8 + GATE_TYPE], GATE_INTERRUPT | GATE_DPL_3
    mov ecx, [count]
    mov edx, 0
    mov eax, program
    call call_ring_3
    mov edx, [left_frame + FRAME_EDX]
    report "syscall"

on_empty_call:
    inc edx
    iret

ring_3_code
program:
    int EMPTY_CALL
    dec ecx
    jnz program
    int SYSTEM_CALL
