; kprobe_push_segment - PUSH of CS in a kernel: which ring does it show?
;
; The low two bits of CS and SS are the current privilege level, whatever selector was loaded.

%include "kprobe.inc"

start:
    call install_kernel_probe
    push cs
    pop ebx
    movzx ebx, bx                       ; of the four bytes the upper two are undefined
    judge ebx, KERNEL_CODE
    yes "PUSH CS in the kernel: the selector it loaded, ring 0."
    no "PUSH CS in the kernel: not ring 0, or not the selector it loaded."
    push ss
    pop ebx
    movzx ebx, bx
    judge ebx, KERNEL_DATA
    yes "PUSH SS in the kernel: the selector it loaded, ring 0."
    no "PUSH SS in the kernel: not ring 0, or not the selector it loaded."
    exit 0
