; probe_push_segment - PUSH of a segment register shows the ring.
;
; The low two bits of CS are the current privilege level. A kernel in ring 1 that pushes CS finds
; that it is not where it believed to be.

%include "probe.inc"

start:
    call install_rings
    push cs
    pop ebx
    movzx ebx, bx                       ; of the four bytes the upper two are undefined
    judge ebx, KERNEL_CODE
    yes "PUSH CS in ring 0: the selector the kernel loaded, ring 0."
    no "PUSH CS in ring 0: not ring 0, or not the kernel's selector."

    attempt .ring_3, "PUSH CS and PUSH SS"
    jc .end
    movzx ebx, word [left_frame + FRAME_EBX]
    judge ebx, USER_CODE
    yes "CS leaked: the user's code segment, ring 3."
    no "CS leaked: not the selector the kernel gave."
    movzx ebx, word [left_frame + FRAME_ECX]
    judge ebx, USER_DATA
    yes "SS leaked: the user's data segment, ring 3."
    no "SS leaked: not the selector the kernel gave."
.end:
    exit 0

ring_3_code
.ring_3:
    push cs
    pop ebx
    push ss
    pop ecx
    leave_ring_3
