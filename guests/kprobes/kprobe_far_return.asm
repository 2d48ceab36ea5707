; kprobe_far_return - far RET in a kernel: which rings may it return to?
;
; To its own, and outwards. RPL 1 would be outwards, into a ring that ring 0's code is not for; but
; a kernel that is really in ring 1 just stays there.

%include "kprobe.inc"

start:
    call install_kernel_probe
    try .own, "RET to the kernel's code segment"
    try .less, "RET to the same with RPL 1"
    exit 0

.own:
    push KERNEL_CODE
    push .arrived
    retf

.less:
    push KERNEL_DATA | RING_1           ; the stack outside, if it were outwards
    push stack_top
    push KERNEL_CODE | RING_1
    push .arrived
    retf

.arrived:
    end_try
