; kprobe_pop_segment - POP of a segment register in a kernel: what may be loaded?
;
; Its own data segment; but not with RPL 1, which asks for less than ring 0's descriptors grant.
; Ring 1's grant it, and nobody is told.

%include "kprobe.inc"

start:
    call install_kernel_probe
    try .own, "POP ES of the kernel's data segment"
    try .less, "POP ES of the same with RPL 1"
    try .stack, "POP SS of the same with RPL 1"
    exit 0

.own:
    push KERNEL_DATA
    pop es
    ret

.less:
    push KERNEL_DATA | RING_1
    pop es
    ret

.stack:
    push KERNEL_DATA | RING_1
    pop ss
    ret
