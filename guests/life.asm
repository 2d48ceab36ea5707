; life - Conway's game of life: a glider on a board that wraps around.
;
; A cell with three living neighbours lives, one with two stays as it is, every other dies. Two
; boards take turns: the next generation is computed from one into the other. Both sides are powers
; of two, so that AND takes a position off one edge and onto the opposite one.

%include "guest.inc"

WIDTH       equ 16
HEIGHT      equ 8
CELLS       equ WIDTH * HEIGHT
GENERATIONS equ 12
SHOWN_EACH  equ 4                       ; after four a glider is itself again, one cell on

section .data
board:
    db 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    db 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    db 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    times CELLS - 3 * WIDTH db 0

; The distances to the eight neighbours.
neighbours:
    dd -WIDTH - 1, -WIDTH, -WIDTH + 1, -1, 1, WIDTH - 1, WIDTH, WIDTH + 1

section .bss
next_board: resb CELLS

section .text
start:
    mov ebp, 0                          ; generation
.generation:
    mov eax, ebp
    and eax, SHOWN_EACH - 1
    jnz .unseen
    call show
.unseen:
    call step
    inc ebp
    cmp ebp, GENERATIONS
    jbe .generation
    exit 0

step:
    mov esi, 0                          ; the cell
.cell:
    call count
    cmp eax, 3
    je .lives
    cmp eax, 2
    jne .dies
    mov bl, [board + esi]
    jmp .decided
.lives:
    mov bl, 1
    jmp .decided
.dies:
    mov bl, 0
.decided:
    mov [next_board + esi], bl
    inc esi
    cmp esi, CELLS
    jb .cell

    mov esi, next_board
    mov edi, board
    mov ecx, CELLS / 4
    rep movsd
    ret

; Counts the living neighbours of cell ESI into EAX. Clobbers EBX, ECX, EDX. The rows lie end to
; end, so a step off the right edge lands one row down; with a whole board of cells to go round, a
; glider does not mind.
count:
    mov eax, 0
    mov ecx, 8
.neighbour:
    mov edx, [neighbours + ecx * 4 - 4]
    add edx, esi
    and edx, CELLS - 1
    movzx ebx, byte [board + edx]
    add eax, ebx
    loop .neighbour
    ret

show:
    print "generation "
    print_decimal ebp
    newline
    mov esi, 0
.cell:
    mov eax, '.'
    cmp byte [board + esi], 0
    je .dead
    mov eax, '#'
.dead:
    print_character eax
    inc esi
    mov eax, esi
    and eax, WIDTH - 1
    jnz .same_row
    newline
.same_row:
    cmp esi, CELLS
    jb .cell
    ret
