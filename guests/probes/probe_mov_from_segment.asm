; probe_mov_from_segment - MOV from a segment register shows the ring.
;
; As PUSH does: CS and SS carry the current privilege level in their low two bits.

%include "probe.inc"

start:
    call install_rings
    mov ebx, cs
    movzx ebx, bx
    judge ebx, KERNEL_CODE
    yes "MOV from CS in ring 0: the selector the kernel loaded, ring 0."
    no "MOV from CS in ring 0: not ring 0, or not the kernel's selector."

    attempt .ring_3, "MOV from CS and SS"
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
    mov ebx, cs
    mov ecx, ss
    leave_ring_3
