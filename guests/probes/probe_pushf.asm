; probe_pushf - PUSHF stores all flags, the interrupt flag and IOPL among them.
;
; A hypervisor never lets a guest turn interrupts off in earnest: the real IF stays 1 while the
; guest's kernel believes it is 0. PUSHF stores the real one.

%include "probe.inc"

start:
    call install_rings
    pushf
    pop ebx
    judge_bit ebx, EFLAGS_IF
    yes "PUSHF in ring 0: IF = 1, though the kernel never set it."
    no "PUSHF in ring 0: IF = 0, as the kernel left it."
    judge_bit ebx, EFLAGS_IOPL
    yes "PUSHF in ring 0: IOPL is not 0."
    no "PUSHF in ring 0: IOPL = 0."

    attempt .ring_3, "PUSHF"
    jc .end
    judge_bit [left_frame + FRAME_EBX], EFLAGS_IF
    yes "It leaked IF = 1: interrupts are on."
    no "It leaked IF = 0: interrupts are off."
    judge_bit [left_frame + FRAME_EBX], EFLAGS_IOPL
    yes "It leaked an IOPL that is not 0."
    no "It leaked IOPL = 0: no port may be used."
.end:
    exit 0

ring_3_code
.ring_3:
    pushf
    pop ebx
    leave_ring_3
