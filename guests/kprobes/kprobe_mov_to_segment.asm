; kprobe_mov_to_segment - MOV to a segment register in a kernel: what may be loaded?
;
; As with POP: not ring 0's segments with RPL 1. A load also marks the descriptor as accessed, in
; the table that the processor knows; the kernel looks into its own.

%include "kprobe.inc"

start:
    call install_kernel_probe
    try .own, "MOV to ES of the user's data segment"
    judge_bit [gdt + (USER_DATA & ~3) + 4], 0x100
    yes "Its descriptor in the kernel's table is marked as accessed."
    no "Its descriptor in the kernel's table is not marked as accessed."
    try .less, "MOV to ES of the kernel's with RPL 1"
    try .stack, "MOV to SS of the kernel's with RPL 1"
    exit 0

.own:
    mov eax, USER_DATA
    mov es, ax
    ret

.less:
    mov eax, KERNEL_DATA | RING_1
    mov es, ax
    ret

.stack:
    mov eax, KERNEL_DATA | RING_1
    mov ss, ax
    ret
