; compute.asm - nothing but computing: a checksum over a buffer, bit by bit, and a recursion.
;
; For tests/bench/virtual.py, which defines PASSES. A technique should not be felt here at all.

%include "guest.inc"

BUFFER_BYTES    equ 16384
DEPTH           equ 12
POLYNOMIAL      equ 0xEDB88320

start:
    mov ebp, PASSES
.pass:
    mov esi, buffer
    mov ecx, BUFFER_BYTES
    mov edx, -1
.byte:
    movzx eax, byte [esi]
    add byte [esi], cl
    xor edx, eax
    mov ebx, 8
.bit:
    shr edx, 1
    jnc .even
    xor edx, POLYNOMIAL
.even:
    dec ebx
    jnz .bit
    inc esi
    dec ecx
    jnz .byte
    mov eax, DEPTH
    call recurse
    dec ebp
    jnz .pass
    exit 0

; EAX = depth; calls itself twice for each level.
recurse:
    dec eax
    jz .done
    push eax
    call recurse
    mov eax, [esp]
    call recurse
    pop eax
.done:
    ret

section .bss
buffer: resb BUFFER_BYTES
