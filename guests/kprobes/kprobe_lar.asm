; kprobe_lar - LAR in a kernel: which rights has its own code segment?
;
; It wrote DPL 0; the descriptor that a hypervisor lets ring 1 run on has DPL 1. And a selector with
; RPL 1 is refused by ring 0's descriptors, but not by ring 1's.

%include "kprobe.inc"

RIGHTS_DPL equ 0x6000

start:
    call install_kernel_probe
    mov ebx, RIGHTS_DPL
    mov eax, KERNEL_CODE
    lar ebx, eax
    and ebx, RIGHTS_DPL
    judge ebx, 0
    yes "LAR in the kernel: its code segment has DPL 0."
    no "LAR in the kernel: its code segment has another DPL than 0."
    mov eax, KERNEL_DATA | RING_1
    lar ecx, eax
    see_zero_flag
    judge_bit ebx, EFLAGS_ZERO
    yes "LAR in the kernel: with RPL 1 its data segment can be seen."
    no "LAR in the kernel: with RPL 1 its data segment cannot be seen."
    exit 0
