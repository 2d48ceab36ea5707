; kprobe_verw - VERW in a kernel: may its segments be written, and by whom?
;
; With RPL 0 in any case. With RPL 1 they may not, for they are ring 0's; but where they are really
; ring 1's, they may. VERR asks about reading in the same way.

%include "kprobe.inc"

start:
    call install_kernel_probe
    mov eax, KERNEL_DATA
    verw ax
    see_zero_flag
    judge_bit ebx, EFLAGS_ZERO
    yes "VERW in the kernel: its data may be written."
    no "VERW in the kernel: its data may not be written."
    mov eax, KERNEL_DATA | RING_1
    verw ax
    see_zero_flag
    judge_bit ebx, EFLAGS_ZERO
    yes "VERW in the kernel: its data may be written with RPL 1 as well."
    no "VERW in the kernel: its data may not be written with RPL 1."
    exit 0
