; probe_str - STR reads the selector of the task register.
;
; Under a hypervisor the real TSS is the hypervisor's, for it holds the stack of ring 0; its
; selector is what STR reads. LTR is privileged.

%include "probe.inc"

start:
    call install_rings
    mov ebx, 0
    str bx
    judge ebx, TSS_SELECTOR
    yes "STR in ring 0: the selector the kernel loaded."
    no "STR in ring 0: not what the kernel loaded."

    attempt .ring_3, "STR"
    jc .end
    judge [left_frame + FRAME_EBX], TSS_SELECTOR
    yes "It leaked the kernel's TSS selector."
    no "It leaked a TSS selector the kernel did not load."
.end:
    exit 0

ring_3_code
.ring_3:
    mov ebx, 0
    str bx
    leave_ring_3
