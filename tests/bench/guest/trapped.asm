; trapped.asm - one instruction, COUNT times: what tests/bench/virtual.py defines as INSTRUCTION.
;
; BEFORE is done once; EBP counts. ESP, EBX (a buffer) and DX (a port that does nothing) are kept.

%include "guest.inc"
%include "hypercall.inc"

start:
    mov ebp, COUNT
    mov ebx, buffer
    mov dx, 0x80
.again:
    INSTRUCTION
    dec ebp
    jnz .again
    exit 0

section .bss
alignb 16
buffer: resb 64
