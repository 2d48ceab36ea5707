; probe_far_jump - a far JMP loads CS, and nobody is told.
;
; Within the same ring it is silent; into another ring's segment it is refused. The processor
; decides by the real ring and the real table.

%include "probe.inc"

start:
    call install_rings
    jmp KERNEL_CODE:.ring_0
.ring_0:
    mov ebx, cs
    movzx ebx, bx
    judge ebx, KERNEL_CODE
    yes "JMP in ring 0: in the kernel's code segment, ring 0."
    no "JMP in ring 0: not ring 0, or not the kernel's code segment."

    attempt .ring_3, "JMP to its own code segment"
    jc .kernel
    movzx ebx, word [left_frame + FRAME_EBX]
    judge ebx, USER_CODE
    yes "CS was loaded without notice; its RPL 0 became 3, the real ring."
    no "CS holds something else."
.kernel:
    attempt .direct, "JMP to the kernel's code segment"
    exit 0

ring_3_code
.ring_3:
    jmp USER_CODE & ~3:.landed
.landed:
    mov ebx, cs
    leave_ring_3

.direct:
    jmp KERNEL_CODE:.landed
