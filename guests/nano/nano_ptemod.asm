; nano_ptemod - a page table entry changed.
;
; A store like any other, natively. A hypervisor whose shadow tables follow the guest's has made the
; guest's tables read-only, and each store faults - unless it has learned to expect it. What is
; toggled is a bit that is left to software, so no translation changes and no INVLPG is due.

%include "nano.inc"
%include "paging.inc"

MAPPED      equ 0x00300000
SOFTWARES   equ 0x200                   ; bit 9 of an entry

start:
    call read_command_line
    call start_paging
    mov eax, [MAPPED]                   ; the translation is in use
    mov edx, MAPPED
    call page_entry
    mov edi, eax
    mov eax, [edi]
    mov ecx, [count]
    mov edx, 0
.again:
    xor eax, SOFTWARES
    mov [edi], eax
    inc edx
    dec ecx
    jnz .again
    report "ptemod"
