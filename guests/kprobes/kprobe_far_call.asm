; kprobe_far_call - far CALL in a kernel: which ring does it leave on the stack?
;
; It pushes the CS it comes from, whose low bits are the ring. And it may not name ring 0's code
; with RPL 1, unless that code is really ring 1's.

%include "kprobe.inc"

start:
    call install_kernel_probe
    try .own, "CALL of the kernel's code segment"
    movzx ebx, word [pushed]
    judge ebx, KERNEL_CODE
    yes "It pushed the selector the kernel loaded, ring 0."
    no "It pushed another selector than the kernel loaded."
    try .less, "CALL of the same with RPL 1"
    exit 0

.own:
    call KERNEL_CODE:.arrived

.less:
    call KERNEL_CODE | RING_1:.arrived

.arrived:
    mov eax, [esp + 4]
    mov [pushed], eax
    end_try

section .bss
alignb 4
pushed: resd 1
