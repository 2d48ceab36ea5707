; matrix - the product of two integer matrices.
;
; Three loops, one inside the other: row of A, column of B, and the sum of products along both.
; A[i][j] = i + 2j and B[i][j] = 3i - j are made on the spot. A and B are SIZE by SIZE and lie row
; after row, so that a step down a column is a step of one row's length.

%include "guest.inc"

SIZE equ 32
ROW  equ SIZE * 4

section .bss
alignb 4
a: resd SIZE * SIZE
b: resd SIZE * SIZE
c: resd SIZE * SIZE

section .text
start:
    call fill
    call multiply
    print_line "the corner of the product:"
    call show_corner

    mov eax, 0                          ; the trace: sum along the diagonal
    mov esi, c
    mov ecx, SIZE
.trace:
    add eax, [esi]
    add esi, ROW + 4
    loop .trace
    print "its trace: "
    print_decimal eax
    newline
    exit 0

fill:
    mov edi, 0                          ; position in both, in bytes
    mov eax, 0                          ; i
.row:
    mov ebx, 0                          ; j
.column:
    lea edx, [eax + ebx * 2]
    mov [a + edi], edx
    lea edx, [eax + eax * 2]
    sub edx, ebx
    mov [b + edi], edx
    add edi, 4
    inc ebx
    cmp ebx, SIZE
    jb .column
    inc eax
    cmp eax, SIZE
    jb .row
    ret

multiply:
    mov esi, a                          ; a row of A
    mov edi, c                          ; where the next element of the product goes
.row:
    mov ebx, b                          ; the top of a column of B
.column:
    push esi
    push ebx
    mov eax, 0
    mov ecx, SIZE
.sum:
    mov edx, [esi]
    imul edx, [ebx]
    add eax, edx
    add esi, 4
    add ebx, ROW
    loop .sum
    pop ebx
    pop esi
    mov [edi], eax
    add edi, 4
    add ebx, 4
    cmp ebx, b + ROW
    jb .column
    add esi, ROW
    cmp esi, a + SIZE * ROW
    jb .row
    ret

; Prints the first four columns of the first four rows.
show_corner:
    mov esi, c
    mov ecx, 4
.row:
    push ecx
    push esi
    mov ecx, 4
.column:
    print " "
    print_decimal [esi]
    add esi, 4
    loop .column
    newline
    pop esi
    pop ecx
    add esi, ROW
    loop .row
    ret
