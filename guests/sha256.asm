; sha256 - the hash function of FIPS 180-4.
;
; A message is cut into blocks of 64 bytes; each block stirs eight words of state through 64 rounds
; of rotations, additions and bit choices. The last block carries an end mark and the length. IA-32
; stores the low byte first and SHA-256 wants the high byte first: hence BSWAP.

%include "guest.inc"

LONG_LENGTH equ 20000

section .data
align 4
initial_state:
    dd 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a
    dd 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19

round_constants:
    dd 0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5
    dd 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5
    dd 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3
    dd 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174
    dd 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc
    dd 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da
    dd 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7
    dd 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967
    dd 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13
    dd 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85
    dd 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3
    dd 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070
    dd 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5
    dd 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3
    dd 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208
    dd 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2

short_text: db "abc"
short_text_end:

section .bss
alignb 4
state:      resd 8
work:       resd 8                      ; the eight working variables, a to h
schedule:   resd 64
last_block: resb 128                    ; the end mark may need a second block
long_text:  resb LONG_LENGTH

A equ work
B equ work + 4
C equ work + 8
D equ work + 12
E equ work + 16
F equ work + 20
G equ work + 24
H equ work + 28

section .text
start:
    print "nothing:    "
    mov esi, short_text
    mov ecx, 0
    call sha256
    print "abc:        "
    mov esi, short_text
    mov ecx, short_text_end - short_text
    call sha256

    mov edi, long_text
    mov ecx, LONG_LENGTH
    mov al, 'a'
    rep stosb
    print "20000 x a:  "
    mov esi, long_text
    mov ecx, LONG_LENGTH
    call sha256
    exit 0

; Hashes the ECX bytes at ESI and prints the digest. Clobbers everything.
sha256:
    push ecx
    push esi
    mov esi, initial_state
    mov edi, state
    mov ecx, 8
    rep movsd
    pop esi
    pop ecx
    push ecx
.whole_block:
    cmp ecx, 64
    jb .rest
    push ecx
    push esi
    call block
    pop esi
    pop ecx
    add esi, 64
    sub ecx, 64
    jmp .whole_block
.rest:
    pop edx                             ; the whole length
    call finish
    jmp show

; The last ECX < 64 bytes at ESI, the end mark, and the length EDX in bits.
finish:
    mov edi, last_block
    mov ebx, last_block + 64            ; the end of the padding
    cmp ecx, 56
    jb .one_block                       ; do mark and length still fit?
    add ebx, 64
.one_block:
    rep movsb
    mov al, 0x80
    stosb
    mov ecx, ebx
    sub ecx, edi
    mov al, 0
    rep stosb
    mov eax, edx
    shr eax, 29
    bswap eax
    mov [ebx - 8], eax
    shl edx, 3
    bswap edx
    mov [ebx - 4], edx
    mov esi, last_block
.block:
    push ebx
    push esi
    call block
    pop esi
    pop ebx
    add esi, 64
    cmp esi, ebx
    jb .block
    ret

; Stirs the block at ESI into the state. Clobbers everything.
block:
    call expand
    mov esi, state
    mov edi, work
    mov ecx, 8
    rep movsd
    mov ecx, 0
.round:
    call round
    inc ecx
    cmp ecx, 64
    jb .round
    mov ecx, 8
.add:
    mov eax, [work + ecx * 4 - 4]
    add [state + ecx * 4 - 4], eax
    loop .add
    ret

; The message schedule: the block's 16 words, and 48 more mixed from them.
expand:
    mov ecx, 0
.load:
    mov eax, [esi + ecx * 4]
    bswap eax
    mov [schedule + ecx * 4], eax
    inc ecx
    cmp ecx, 16
    jb .load
.mix:
    mov eax, [schedule + ecx * 4 - 60]
    mov ebx, eax
    mov edx, eax
    ror eax, 7
    ror ebx, 18
    shr edx, 3
    xor eax, ebx
    xor eax, edx
    mov edi, [schedule + ecx * 4 - 8]
    mov ebx, edi
    mov edx, edi
    ror edi, 17
    ror ebx, 19
    shr edx, 10
    xor edi, ebx
    xor edi, edx
    add eax, edi
    add eax, [schedule + ecx * 4 - 64]
    add eax, [schedule + ecx * 4 - 28]
    mov [schedule + ecx * 4], eax
    inc ecx
    cmp ecx, 64
    jb .mix
    ret

; One round, number ECX. Clobbers all but ECX.
round:
    mov eax, [E]
    mov ebx, eax
    mov edx, eax
    ror ebx, 6
    ror edx, 11
    xor ebx, edx
    ror edx, 14                         ; 25 in all
    xor ebx, edx
    mov edx, eax                        ; each bit of E chooses between F and G
    and edx, [F]
    not eax
    and eax, [G]
    xor eax, edx
    add eax, ebx
    add eax, [H]
    add eax, [round_constants + ecx * 4]
    add eax, [schedule + ecx * 4]
    mov esi, eax                        ; the first sum

    mov eax, [A]
    mov ebx, eax
    mov edx, eax
    ror ebx, 2
    ror edx, 13
    xor ebx, edx
    ror edx, 9                          ; 22 in all
    xor ebx, edx
    mov edx, eax                        ; the majority of A, B and C
    and edx, [B]
    mov edi, eax
    and edi, [C]
    xor edx, edi
    mov edi, [B]
    and edi, [C]
    xor edx, edi
    add ebx, edx                        ; the second sum

    mov eax, [G]
    mov [H], eax
    mov eax, [F]
    mov [G], eax
    mov eax, [E]
    mov [F], eax
    mov eax, [D]
    add eax, esi
    mov [E], eax
    mov eax, [C]
    mov [D], eax
    mov eax, [B]
    mov [C], eax
    mov eax, [A]
    mov [B], eax
    lea eax, [esi + ebx]
    mov [A], eax
    ret

; Prints the state as 64 hexadecimal digits.
show:
    mov esi, 0
.word:
    mov edx, [state + esi * 4]
    mov ecx, 8
.digit:
    rol edx, 4
    mov eax, edx
    and eax, 15
    mov al, [.digits + eax]
    call write_byte
    loop .digit
    inc esi
    cmp esi, 8
    jb .word
    newline
    ret
.digits: db "0123456789abcdef"
