; probe_int_n - INT n goes through the real IDT.
;
; Ring 3 reaches the gates whose DPL allows it; the others are refused with #GP, whose error code
; names the vector. Both are decided by the table the processor holds, not by the one a guest kernel
; believes to have loaded.

%include "probe.inc"

start:
    call install_rings
    on_vector 3, breakpoint
    mov ebx, 0
    int 3
    judge ebx, 1
    yes "INT 3 in ring 0: came to the kernel's handler and back."
    no "INT 3 in ring 0: never came to the kernel's handler."

    attempt gate_open, "INT 0x80, a gate with DPL 3,"
    attempt gate_closed, "INT 0x20, a gate with DPL 0,"
    mov eax, [left_frame + FRAME_ERROR]
    shr eax, 3
    judge eax, IRQ_BASE
    yes "The error code names vector 0x20."
    no "The error code names another vector."
    attempt gate_absent, "INT 0xF0, no gate at all,"
    exit 0

; EBX = frame: the interrupted program's EBX becomes 1.
breakpoint:
    mov dword [ebx + FRAME_EBX], 1
    ret

ring_3_code
gate_open:
    int 0x80

gate_closed:
    int 0x20
    leave_ring_3

gate_absent:
    int 0xF0
    leave_ring_3
