; kprobe_popf - POPF in a kernel: does it change IF and IOPL?
;
; In ring 1, above IOPL, it does not, and does not say so either: the most famous of the seventeen.
; The flags are then seen as an interrupt pushes them, for PUSHF has troubles of its own.

%include "kprobe.inc"

start:
    call install_kernel_probe
    push EFLAGS_IF
    popf
    see_flags
    judge_bit ebx, EFLAGS_IF
    yes "POPF in the kernel: asked for IF = 1 and got it."
    no "POPF in the kernel: asked for IF = 1, silently dropped."
    push 0
    popf
    see_flags
    judge_bit ebx, EFLAGS_IF
    yes "POPF in the kernel: asked for IF = 0, silently dropped."
    no "POPF in the kernel: asked for IF = 0 and got it."
    push EFLAGS_IOPL | EFLAGS_CARRY
    popf
    see_flags
    judge_bit ebx, EFLAGS_IOPL
    yes "POPF in the kernel: asked for IOPL = 3 and got it."
    no "POPF in the kernel: asked for IOPL = 3, silently dropped."
    judge_bit ebx, EFLAGS_CARRY
    yes "POPF in the kernel: asked for CF = 1 and got it."
    no "POPF in the kernel: asked for CF = 1, silently dropped."
    exit 0
