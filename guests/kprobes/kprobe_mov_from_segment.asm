; kprobe_mov_from_segment - MOV from CS in a kernel: which ring does it show?
;
; As PUSH does: the low two bits of CS and SS are the current privilege level.

%include "kprobe.inc"

start:
    call install_kernel_probe
    mov ebx, cs
    movzx ebx, bx
    judge ebx, KERNEL_CODE
    yes "MOV from CS in the kernel: the selector it loaded, ring 0."
    no "MOV from CS in the kernel: not ring 0, or not the selector it loaded."
    mov ebx, ss
    movzx ebx, bx
    judge ebx, KERNEL_DATA
    yes "MOV from SS in the kernel: the selector it loaded, ring 0."
    no "MOV from SS in the kernel: not ring 0, or not the selector it loaded."
    exit 0
