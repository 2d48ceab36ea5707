; probe_far_return - a far RET may go to a less privileged ring, and nobody is told.
;
; It returns to whatever CS lies on the stack. Outwards it changes ring and stack without a trap:
; the kernel here leaves ring 0 by it. Inwards it is refused.

%include "probe.inc"

start:
    call install_rings
    attempt .ring_3, "RET to its own code segment"
    jc .inwards
    movzx ebx, word [left_frame + FRAME_EBX]
    judge ebx, USER_CODE
    yes "CS was loaded without notice."
    no "CS holds something else."
.inwards:
    attempt .direct, "RET into the kernel's code segment"

    call leave_by_retf
    movzx ebx, word [left_frame + FRAME_EBX]
    judge ebx, USER_CODE
    yes "RET in ring 0, outwards: ring 3, without a trap."
    no "RET in ring 0, outwards: elsewhere."
    exit 0

ring_3_code
.ring_3:
    push USER_CODE
    push .landed
    retf

.direct:
    push KERNEL_CODE
    push .landed
    retf

.landed:
    mov ebx, cs
    leave_ring_3

ring_0_code
; As call_ring_3 does, but with RETF for IRET. The data segments are not set: on the way out the
; processor itself takes away those that ring 3 may not use.
leave_by_retf:
    pusha
    mov [ring_0_stack], esp
    mov [tss + TSS_ESP0], esp
    push USER_DATA
    push user_stack_top
    push USER_CODE
    push start.landed
    retf
