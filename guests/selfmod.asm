; selfmod - a program that rewrites itself while it runs.
;
; To the processor, code is memory. Whoever keeps decoded or translated code must notice when the
; original changes: at once, even if the change hits the very next instruction. Three cases, each
; closer to home than the one before.

%include "guest.inc"

start:
    call fresh_routine
    call changing_loop
    call next_instruction
    exit 0

; A routine that did not exist when the program was loaded: B8 id is MOV EAX, imm32; C3 is RET. It
; is then made anew in the same place.
fresh_routine:
    mov edi, space
    mov byte [edi], 0xB8
    mov dword [edi + 1], 111
    mov byte [edi + 5], 0xC3
    call edi
    print "a routine made at run time returns "
    print_decimal eax
    mov dword [edi + 1], 222
    call edi
    print ", made again "
    print_decimal eax
    newline
    ret

; A loop whose one working instruction changes half way: 40 is INC EAX, 48 is DEC EAX. Seven steps
; up, five steps down.
changing_loop:
    mov byte [.step], 0x40
    mov eax, 0
    mov ecx, 12
.step:
    inc eax
    cmp ecx, 6
    jne .unchanged
    mov byte [.step], 0x48
.unchanged:
    loop .step
    print "seven steps up and five down end at "
    print_decimal eax
    newline
    ret

; The store and the instruction it changes stand side by side, in one straight run of code.
next_instruction:
    mov ecx, 3
    mov ebx, 0
.again:
    mov [.changed + 1], ecx
.changed:
    mov eax, 99                         ; B8 and its four immediate bytes
    add ebx, eax
    loop .again
    print "3 + 2 + 1 = "
    print_decimal ebx
    newline
    ret

section .bss
space: resb 16
