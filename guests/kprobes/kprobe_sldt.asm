; kprobe_sldt - SLDT in a kernel: does it find the selector that it loaded?
;
; First none, then slot 0x30, then none again. LLDT is privileged, so a hypervisor knows of each;
; what it puts into the real LDTR is its own affair, until SLDT reads it.

%include "kprobe.inc"

start:
    call install_kernel_probe
    mov ebx, 0xFFFF
    sldt bx
    judge ebx, 0
    yes "SLDT in the kernel: none, as none was loaded."
    no "SLDT in the kernel: an LDT, though none was loaded."

    mov edi, SPARE_ONE
    mov eax, ldt
    mov ebx, 7
    mov ecx, 0x82                       ; present, LDT
    call write_system_descriptor
    mov eax, SPARE_ONE
    lldt ax
    mov ebx, 0
    sldt bx
    judge ebx, SPARE_ONE
    yes "SLDT in the kernel: the selector that LLDT loaded."
    no "SLDT in the kernel: another selector than LLDT loaded."
    exit 0

section .bss
alignb 8
ldt: resb 8
