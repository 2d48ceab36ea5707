; probe_lar - LAR reads a descriptor's access rights, its privilege level among them.
;
; It answers through the zero flag instead of a fault. A deprivileged kernel that asks about its own
; code segment reads DPL 1 where it wrote DPL 0.

%include "probe.inc"

RIGHTS_DPL      equ 0x6000
RIGHTS_PRESENT  equ 0x8000

start:
    call install_rings
    mov eax, KERNEL_CODE
    lar ebx, eax
    and ebx, RIGHTS_DPL
    judge ebx, 0
    yes "LAR in ring 0: the kernel's code segment has DPL 0."
    no "LAR in ring 0: the kernel's code segment has another DPL than 0."

    attempt .own, "LAR of its own code segment"
    jc .end
    mov ebx, [left_frame + FRAME_EBX]
    and ebx, RIGHTS_DPL | RIGHTS_PRESENT
    judge ebx, RIGHTS_DPL | RIGHTS_PRESENT
    yes "It leaked the rights: present, DPL 3."
    no "It leaked other rights than the kernel wrote."

    attempt .kernel, "LAR of the kernel's code segment"
    jc .end
    judge_bit [left_frame + FRAME_EFLAGS], EFLAGS_ZERO
    yes "It leaked the rights."
    no "Refused by ZF = 0, not by a fault: nobody else noticed."
.end:
    exit 0

ring_3_code
.own:
    mov eax, USER_CODE
    lar ebx, eax
    leave_ring_3

.kernel:
    mov eax, KERNEL_CODE
    lar ebx, eax
    leave_ring_3
