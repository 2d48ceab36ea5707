; probe_verr - VERR asks whether a segment may be read from here.
;
; The answer depends on the ring the asker really runs in, and comes as a flag, without a trap.
; Its sister VERW asks about writing. A deprivileged kernel asks from ring 1.

%include "probe.inc"

start:
    call install_rings
    mov eax, KERNEL_DATA
    verr ax
    call flags
    judge_bit ebx, EFLAGS_ZERO
    yes "VERR in ring 0: the kernel's data may be read."
    no "VERR in ring 0: the kernel's data may not be read."

    attempt own, "VERR of its own data segment"
    jc .end
    judge_bit [left_frame + FRAME_EFLAGS], EFLAGS_ZERO
    yes "It leaked: may be read."
    no "It leaked: may not be read."

    attempt kernel, "VERR of the kernel's data segment"
    jc .end
    judge_bit [left_frame + FRAME_EFLAGS], EFLAGS_ZERO
    yes "It leaked: may be read."
    no "It leaked: may not be read."
.end:
    exit 0

; The zero flag, as EFLAGS would show it, in EBX. LAHF reads it without PUSHF's surprises.
flags:
    lahf
    movzx ebx, ah
    ret

ring_3_code
own:
    mov eax, USER_DATA
    verr ax
    leave_ring_3

kernel:
    mov eax, KERNEL_DATA
    verr ax
    leave_ring_3
