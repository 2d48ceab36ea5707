; bytecode - an interpreter for a small stack machine.
;
; The machine below is to this program what this program is to the processor: fetch a byte, look
; up what it means, do it. ESI is its program counter, EDI its stack pointer, and each operation is
; a routine. The program it runs prints factorials.

%include "guest.inc"

; The operations; `operations` below lists their routines in the same order.
PUSH_BYTE   equ 0                       ; push the byte that follows
DUPLICATE   equ 1                       ; push the top once more
OVER        equ 2                       ; push what lies below the top
SWAP_TOP    equ 3
MULTIPLY    equ 4
SUBTRACT    equ 5
JUMP_IF     equ 6                       ; pop; if not zero, go back by the byte that follows
SHOW        equ 7                       ; pop and print
SHOW_BYTE   equ 8                       ; print the byte that follows as a character
DROP        equ 9
STOP        equ 10

section .data
align 4
operations:
    dd op_push, op_duplicate, op_over, op_swap, op_multiply, op_subtract
    dd op_jump_if, op_show, op_show_byte, op_drop, op_stop

; Counts n down from 12; for each n multiplies 1 by n, n - 1, ... 1.
program:
    db PUSH_BYTE, 12
.next_number:                           ; n
    db DUPLICATE, SHOW, SHOW_BYTE, '!', SHOW_BYTE, ' ', SHOW_BYTE, '=', SHOW_BYTE, ' '
    db DUPLICATE, PUSH_BYTE, 1, SWAP_TOP
.next_factor:                           ; n, product, factor
    db SWAP_TOP, OVER, MULTIPLY, SWAP_TOP
    db PUSH_BYTE, 1, SUBTRACT, DUPLICATE
    db JUMP_IF, .factor_end - .next_factor
.factor_end:
    db DROP, SHOW, SHOW_BYTE, 10        ; n
    db PUSH_BYTE, 1, SUBTRACT, DUPLICATE
    db JUMP_IF, .number_end - .next_number
.number_end:
    db STOP

section .bss
alignb 4
cells: resd 64
cells_end:                              ; the stack grows down from here

section .text
start:
    mov esi, program
    mov edi, cells_end
    mov ebp, 0                          ; operations done
next:
    movzx eax, byte [esi]
    inc esi
    inc ebp
    call [operations + eax * 4]
    jmp next

op_push:
    movzx eax, byte [esi]
    inc esi
    sub edi, 4
    mov [edi], eax
    ret

op_duplicate:
    mov eax, [edi]
    sub edi, 4
    mov [edi], eax
    ret

op_over:
    mov eax, [edi + 4]
    sub edi, 4
    mov [edi], eax
    ret

op_swap:
    mov eax, [edi]
    mov ebx, [edi + 4]
    mov [edi], ebx
    mov [edi + 4], eax
    ret

op_multiply:
    mov eax, [edi]
    add edi, 4
    imul eax, [edi]
    mov [edi], eax
    ret

op_subtract:
    mov eax, [edi]
    add edi, 4
    sub [edi], eax
    ret

op_jump_if:
    movzx eax, byte [esi]
    inc esi
    mov ebx, [edi]
    add edi, 4
    test ebx, ebx
    jz .go_on
    sub esi, eax
.go_on:
    ret

op_show:
    print_decimal [edi]
    add edi, 4
    ret

op_show_byte:
    movzx eax, byte [esi]
    inc esi
    print_character eax
    ret

op_drop:
    add edi, 4
    ret

op_stop:
    print_decimal ebp
    print_line " operations"
    exit 0
