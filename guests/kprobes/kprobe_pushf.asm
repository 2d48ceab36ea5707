; kprobe_pushf - PUSHF in a kernel: does it find IF as it left it?
;
; The real IF stays 1 while a guest's kernel believes that it has turned interrupts off. CLI and STI
; trap in ring 1, so the hypervisor knows; PUSHF asks the processor.

%include "kprobe.inc"

start:
    call install_kernel_probe
    cli
    pushf
    pop ebx
    judge_bit ebx, EFLAGS_IF
    yes "PUSHF in the kernel: IF is 1 after CLI."
    no "PUSHF in the kernel: IF is 0 after CLI."
    sti
    pushf
    pop ebx
    cli
    judge_bit ebx, EFLAGS_IF
    yes "PUSHF in the kernel: IF is 1 after STI."
    no "PUSHF in the kernel: IF is 0 after STI."
    judge_bit ebx, EFLAGS_IOPL
    yes "PUSHF in the kernel: IOPL is not 0."
    no "PUSHF in the kernel: IOPL is 0."
    exit 0
