; probe_lsl - LSL reads a segment's limit.
;
; A hypervisor that hides itself behind segment limits cuts the guest's segments short; LSL tells
; the guest by how much.

%include "probe.inc"

start:
    call install_rings
    mov eax, KERNEL_DATA
    lsl ebx, eax
    judge ebx, 0xFFFFFFFF
    yes "LSL in ring 0: the kernel's data segment is 4 GiB long."
    no "LSL in ring 0: the kernel's data segment was cut."

    attempt .own, "LSL of its own data segment"
    jc .end
    judge [left_frame + FRAME_EBX], 0xFFFFFFFF
    yes "It leaked the limit: 4 GiB."
    no "It leaked a limit the kernel did not write."

    attempt .kernel, "LSL of the kernel's data segment"
    jc .end
    judge_bit [left_frame + FRAME_EFLAGS], EFLAGS_ZERO
    yes "It leaked the limit."
    no "Refused by ZF = 0, not by a fault: nobody else noticed."
.end:
    exit 0

ring_3_code
.own:
    mov eax, USER_DATA
    lsl ebx, eax
    leave_ring_3

.kernel:
    mov eax, KERNEL_DATA
    lsl ebx, eax
    leave_ring_3
