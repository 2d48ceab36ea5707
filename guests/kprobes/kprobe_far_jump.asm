; kprobe_far_jump - far JMP in a kernel: which code may it name?
;
; Its own code segment; not with RPL 1, for RPL must not be above the ring. In ring 1 it is not.

%include "kprobe.inc"

start:
    call install_kernel_probe
    try .own, "JMP to the kernel's code segment"
    try .less, "JMP to the same with RPL 1"
    exit 0

.own:
    jmp KERNEL_CODE:.arrived

.less:
    jmp KERNEL_CODE | RING_1:.arrived

.arrived:
    end_try
