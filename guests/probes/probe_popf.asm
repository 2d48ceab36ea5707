; probe_popf - POPF changes the flags it may change and silently forgets the others.
;
; The most famous of the seventeen. Above IOPL, POPF does not trap when it is asked to change IF:
; it just does not. A kernel run in ring 1 turns interrupts off with it, and they stay on. So the
; kernel here tries too.

%include "probe.inc"

start:
    call install_rings
    push EFLAGS_IF
    popf
    pushf
    pop ebx
    cli
    judge_bit ebx, EFLAGS_IF
    yes "POPF in ring 0: asked for IF = 1 and got it."
    no "POPF in ring 0: asked for IF = 1, silently dropped."
    sti
    push 0
    popf
    pushf
    pop ebx
    cli
    judge_bit ebx, EFLAGS_IF
    yes "POPF in ring 0: asked for IF = 0, silently dropped."
    no "POPF in ring 0: asked for IF = 0 and got it."

    attempt .ring_3, "POPF"
    jc .end
    judge_bit [left_frame + FRAME_EBX], EFLAGS_IF
    yes "It asked for IF = 0: silently dropped."
    no "It asked for IF = 0 and got it."
    judge_bit [left_frame + FRAME_EBX], EFLAGS_IOPL
    yes "It asked for IOPL = 3 and got it."
    no "It asked for IOPL = 3: silently dropped."
    judge_bit [left_frame + FRAME_EBX], EFLAGS_CARRY
    yes "It asked for CF = 1 and got it."
    no "It asked for CF = 1: silently dropped."
.end:
    exit 0

ring_3_code
.ring_3:
    push EFLAGS_IOPL | EFLAGS_CARRY     ; IF is not among them
    popf
    pushf
    pop ebx
    leave_ring_3
