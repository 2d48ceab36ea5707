; crc32 - the checksum of Ethernet, gzip and PNG.
;
; A message is a polynomial over two elements, its checksum the remainder of a division. Dividing
; bit by bit is slow, so the remainders of all 256 bytes are worked out first; then each byte of a
; message costs one look into the table. The well-known check: "123456789" gives cbf43926.

%include "guest.inc"

POLYNOMIAL equ 0xEDB88320               ; written with the lowest power on the left

BLOCK equ 65536

section .data
message: db "123456789"
message_end:

section .bss
alignb 4
table: resd 256
block: resb BLOCK

section .text
start:
    call make_table
    print "crc32 of 123456789: "
    mov esi, message
    mov ecx, message_end - message
    call crc32
    print_hex eax
    newline

    mov edi, block                      ; 64 KiB of 0, 1, 2, ... 255, 0, 1, ...
    mov ecx, BLOCK
    mov eax, 0
.fill:
    mov [edi], al
    inc edi
    inc eax
    loop .fill
    print "crc32 of 64 KiB: "
    mov esi, block
    mov ecx, BLOCK
    call crc32
    print_hex eax
    newline
    exit 0

make_table:
    mov ebx, 0                          ; the byte
.byte:
    mov eax, ebx
    mov ecx, 8
.bit:
    shr eax, 1
    jnc .zero                           ; the bit that fell out
    xor eax, POLYNOMIAL
.zero:
    loop .bit
    mov [table + ebx * 4], eax
    inc ebx
    cmp ebx, 256
    jb .byte
    ret

; The checksum of the ECX bytes at ESI, in EAX. Clobbers EBX, ECX, ESI.
crc32:
    mov eax, -1
.byte:
    movzx ebx, byte [esi]
    inc esi
    xor bl, al
    shr eax, 8
    xor eax, [table + ebx * 4]
    loop .byte
    not eax
    ret
