; kprobe_iret - IRET in a kernel: are all flags of the frame loaded?
;
; Outwards it loads IF and IOPL as ring 0 may, so that ring 3 with IOPL 3 may use CLI. From ring 1
; it leaves both as they are. And RPL 1 is refused by ring 0's code, but not by ring 1's.

%include "kprobe.inc"

start:
    call install_kernel_probe
    try .own, "IRET to the kernel's code segment with IF = 1"
    judge_bit [seen], EFLAGS_IF
    yes "It got IF = 1."
    no "It asked for IF = 1: silently dropped."
    try .less, "IRET to the same with RPL 1"
    call iret_to_ring_3
    judge [left_frame + FRAME_VECTOR], SYSTEM_CALL
    yes "IRET in the kernel, to ring 3 with IOPL 3: CLI is allowed there."
    no "IRET in the kernel, to ring 3 with IOPL 3: CLI is refused there."
    exit 0

.own:
    push EFLAGS_IF
    push KERNEL_CODE
    push .landed
    iret

.less:
    push 0
    push KERNEL_CODE | RING_1
    push .landed
    iret

.landed:
    see_flags
    cli
    mov [seen], ebx
    end_try

; As call_ring_3 does, with other flags; the data segments are those that IRET leaves.
iret_to_ring_3:
    pusha
    mov [ring_0_stack], esp
    mov [tss + TSS_ESP0], esp
    push USER_DATA
    push user_stack_top
    push EFLAGS_IF | EFLAGS_IOPL
    push USER_CODE
    push .ring_3
    iret
ring_3_code
.ring_3:
    cli
    leave_ring_3
ring_0_code

section .bss
alignb 4
seen: resd 1
