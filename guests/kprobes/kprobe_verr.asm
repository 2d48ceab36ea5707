; kprobe_verr - VERR in a kernel: may its segments be read, and by whom?
;
; With RPL 0 in any case. With RPL 1 they may not, for they are ring 0's; but where they are really
; ring 1's, they may. VERW asks about writing in the same way.

%include "kprobe.inc"

start:
    call install_kernel_probe
    mov eax, KERNEL_DATA
    verr ax
    see_zero_flag
    judge_bit ebx, EFLAGS_ZERO
    yes "VERR in the kernel: its data may be read."
    no "VERR in the kernel: its data may not be read."
    mov eax, KERNEL_DATA | RING_1
    verr ax
    see_zero_flag
    judge_bit ebx, EFLAGS_ZERO
    yes "VERR in the kernel: its data may be read with RPL 1 as well."
    no "VERR in the kernel: its data may not be read with RPL 1."
    exit 0
