; nano_pgfault - a page fault that is the guest's own.
;
; A load from a page that is not there; the handler steps over it. With shadow page tables every
; fault goes to the hypervisor first, which has to find out whose it is.

%include "nano.inc"
%include "interrupts.inc"
%include "paging.inc"

NOWHERE     equ 0x00C00000
LOAD_LENGTH equ 2                       ; mov eax, [edi]

start:
    call read_command_line
    call install_gdt
    call install_interrupts
    call start_paging
    handle_vector VECTOR_PAGE_FAULT, on_page_fault
    mov edi, NOWHERE
    mov ecx, [count]
    mov edx, 0
.again:
    mov eax, [edi]
    dec ecx
    jnz .again
    report "pgfault"

on_page_fault:
    inc edx
    add dword [esp + 4], LOAD_LENGTH    ; above the error code
    add esp, 4
    iret
