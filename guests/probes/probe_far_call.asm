; probe_far_call - a far CALL through a call gate enters ring 0 without a trap.
;
; The gate is the kernel's: ring 3 may use it, and the code behind it runs in ring 0. On a shadow
; table a hypervisor must decide what that gate leads to; the call itself never tells it.

%include "probe.inc"

GATE equ SPARE_TWO | 3

start:
    call install_rings
    call install_call_gate
    attempt .ring_3, "CALL through a call gate"
    jc .end
    movzx ebx, word [left_frame + FRAME_ECX]
    judge ebx, KERNEL_CODE
    yes "Behind the gate: the kernel's code segment, ring 0."
    no "Behind the gate: not ring 0, or not the kernel's code segment."
    movzx ebx, word [left_frame + FRAME_EBX]
    judge ebx, USER_CODE
    yes "After the far return: ring 3 again."
    no "After the far return: elsewhere."

    attempt .direct, "CALL into the kernel's code segment"
.end:
    exit 0

ring_3_code
.ring_3:
    call GATE:0                         ; the offset is the gate's business
    mov ebx, cs
    leave_ring_3

.direct:
    call KERNEL_CODE:behind_the_gate
    leave_ring_3

ring_0_code
; Ring 0, on the stack the TSS names; the caller's CS and EIP lie on it.
behind_the_gate:
    mov ecx, cs
    retf

install_call_gate:
    mov eax, behind_the_gate
    mov [gdt + SPARE_TWO], ax
    mov word [gdt + SPARE_TWO + 2], KERNEL_CODE
    mov word [gdt + SPARE_TWO + 4], 0xEC00      ; present, DPL 3, 32-bit call gate, no parameters
    shr eax, 16
    mov [gdt + SPARE_TWO + 6], ax
    ret
