; probe_iret - IRET loads flags as POPF does: what it may not change it silently forgets.
;
; In ring 3 it returns to ring 3, and the IF and IOPL it is given are ignored without a trap. A
; deprivileged kernel that returns from an interrupt with IRET loses its IF in just this way.

%include "probe.inc"

start:
    call install_rings
    push EFLAGS_IF
    push cs
    push .ring_0
    iret
.ring_0:
    pushf
    pop ebx
    cli
    judge_bit ebx, EFLAGS_IF
    yes "IRET in ring 0: asked for IF = 1 and got it."
    no "IRET in ring 0: asked for IF = 1, silently dropped."

    attempt .ring_3, "IRET to its own code segment"
    jc .inwards
    judge_bit [left_frame + FRAME_EBX], EFLAGS_IF
    yes "It asked for IF = 0: silently dropped."
    no "It asked for IF = 0 and got it."
    judge_bit [left_frame + FRAME_EBX], EFLAGS_IOPL
    yes "It asked for IOPL = 3 and got it."
    no "It asked for IOPL = 3: silently dropped."
.inwards:
    attempt .direct, "IRET into the kernel's code segment"
    exit 0

ring_3_code
.ring_3:
    push EFLAGS_IOPL
    push USER_CODE
    push .landed
    iret

.direct:
    push EFLAGS_IOPL
    push KERNEL_CODE
    push .landed
    iret

.landed:
    pushf
    pop ebx
    leave_ring_3
