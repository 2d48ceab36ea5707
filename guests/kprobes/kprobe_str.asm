; kprobe_str - STR in a kernel: does it find the task register that it loaded?
;
; The real task register must be the hypervisor's: its TSS names the stacks on which exits arrive.

%include "kprobe.inc"

start:
    call install_kernel_probe
    mov ebx, 0
    str bx
    judge ebx, TSS_SELECTOR
    yes "STR in the kernel: the selector that LTR loaded."
    no "STR in the kernel: another selector than LTR loaded."
    movzx ebx, byte [gdt + TSS_SELECTOR + 5]
    judge ebx, 0x8B
    yes "The kernel's own descriptor says: busy."
    no "The kernel's own descriptor does not say that it is busy."
    exit 0
