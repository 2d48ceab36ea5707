; probe_smsw - SMSW reads the low half of CR0, which MOV from CR0 refuses to ring 3.
;
; The kernel sets CR0.TS, as an operating system does that saves floating-point registers lazily. A
; hypervisor plays with the same bit; SMSW shows its setting, not the guest's.

%include "probe.inc"

CR0_PE equ 1
CR0_TS equ 8

start:
    call install_rings
    mov eax, cr0
    or eax, CR0_TS
    mov cr0, eax
    smsw bx
    judge_bit ebx, CR0_TS
    yes "SMSW in ring 0: TS = 1, as the kernel set it."
    no "SMSW in ring 0: TS = 0, though the kernel set it."

    attempt .ring_3, "SMSW"
    jc .end
    judge_bit [left_frame + FRAME_EBX], CR0_PE
    yes "It leaked PE = 1: protected mode."
    no "PE = 0."
    judge_bit [left_frame + FRAME_EBX], CR0_TS
    yes "It leaked TS = 1, as the kernel set it."
    no "It leaked TS = 0, though the kernel set it."
    clts
.end:
    exit 0

ring_3_code
.ring_3:
    smsw bx
    leave_ring_3
