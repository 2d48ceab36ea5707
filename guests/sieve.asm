; sieve - the primes below 1000 by the sieve of Eratosthenes.
;
; One byte for each number, zero while it may still be prime. From each number not yet struck out
; all its multiples are struck out, beginning at its square: smaller ones have a smaller factor.

%include "guest.inc"

LIMIT equ 1000

section .bss
struck: resb LIMIT

section .text
start:
    mov ebx, 0                          ; primes found
    mov esi, 2                          ; the number looked at
.number:
    cmp byte [struck + esi], 0
    jne .composite
    inc ebx
    call show
    mov edi, esi
    imul edi, esi
.multiple:
    cmp edi, LIMIT
    jae .composite
    mov byte [struck + edi], 1
    add edi, esi
    jmp .multiple
.composite:
    inc esi
    cmp esi, LIMIT
    jb .number

    newline
    print_decimal ebx
    print_line " primes below 1000"
    exit 0

; Prints the prime in ESI, fourteen to a line. EBX = primes so far, this one included.
show:
    mov edx, 0
    mov eax, ebx
    dec eax
    jz .first
    mov ecx, 14
    div ecx
    test edx, edx
    jnz .same_line
    newline
    jmp .first
.same_line:
    print " "
.first:
    print_decimal esi
    ret
