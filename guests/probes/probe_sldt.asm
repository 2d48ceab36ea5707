; probe_sldt - SLDT reads the selector of the local descriptor table.
;
; The kernel here loads an empty LDT from slot 0x30. A hypervisor that keeps an LDT of its own, or
; none, shows through.

%include "probe.inc"

start:
    call install_rings
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
    yes "SLDT in ring 0: the selector the kernel loaded."
    no "SLDT in ring 0: not what the kernel loaded."

    attempt .ring_3, "SLDT"
    jc .end
    judge [left_frame + FRAME_EBX], SPARE_ONE
    yes "It leaked the kernel's LDT selector."
    no "It leaked an LDT selector the kernel did not load."
.end:
    exit 0

ring_3_code
.ring_3:
    mov ebx, 0
    sldt bx
    leave_ring_3

section .bss
alignb 8
ldt: resb 8
