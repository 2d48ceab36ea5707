; probe_verw - VERW asks whether a segment may be written from here.
;
; The answer depends on the ring the asker really runs in, and comes as a flag, without a trap.
; Its sister VERR asks about reading. A deprivileged kernel asks from ring 1.

%include "probe.inc"

start:
    call install_rings
    mov eax, KERNEL_DATA
    verw ax
    call flags
    judge_bit ebx, EFLAGS_ZERO
    yes "VERW in ring 0: the kernel's data may be written."
    no "VERW in ring 0: the kernel's data may not be written."

    attempt own, "VERW of its own data segment"
    jc .end
    judge_bit [left_frame + FRAME_EFLAGS], EFLAGS_ZERO
    yes "It leaked: may be written."
    no "It leaked: may not be written."

    attempt kernel, "VERW of the kernel's data segment"
    jc .end
    judge_bit [left_frame + FRAME_EFLAGS], EFLAGS_ZERO
    yes "It leaked: may be written."
    no "It leaked: may not be written."
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
    verw ax
    leave_ring_3

kernel:
    mov eax, KERNEL_DATA
    verw ax
    leave_ring_3
