; quicksort - sorts 1000 pseudo-random numbers in place.
;
; Divide by a pivot, sort both sides: the recursion needs no memory but the stack. The numbers come
; from a linear congruential generator, so every run sorts the same ones. Afterwards the program
; looks for itself whether they are in order.

%include "guest.inc"

COUNT equ 1000

section .bss
alignb 4
numbers: resd COUNT

section .text
start:
    mov edi, numbers
    mov ecx, COUNT
    mov eax, 12345
.generate:
    imul eax, eax, 1103515245
    add eax, 12345
    mov edx, eax
    shr edx, 12                         ; the low bits are the least random
    mov [edi], edx
    add edi, 4
    loop .generate

    mov esi, numbers
    mov edi, numbers + (COUNT - 1) * 4
    call sort
    call check

    mov ebx, numbers
    print "smallest:"
    call show_five
    mov ebx, numbers + (COUNT - 5) * 4
    print "largest: "
    call show_five
    exit 0

; Sorts the numbers from address ESI to EDI, both included. Clobbers EAX, EBX, ECX, EDX, EBP.
sort:
    cmp esi, edi
    jae .done
    mov eax, [edi]                      ; the pivot
    mov ebx, esi                        ; all below EBX are smaller than the pivot
    mov ecx, esi
.partition:
    mov edx, [ecx]
    cmp edx, eax
    jae .large
    mov ebp, [ebx]                      ; exchange the two
    mov [ebx], edx
    mov [ecx], ebp
    add ebx, 4
.large:
    add ecx, 4
    cmp ecx, edi
    jb .partition
    mov edx, [ebx]                      ; the pivot goes between the two sides
    mov [ebx], eax
    mov [edi], edx

    push edi
    push ebx
    lea edi, [ebx - 4]
    call sort
    pop ebx
    pop edi
    push esi
    lea esi, [ebx + 4]
    call sort
    pop esi
.done:
    ret

check:
    mov esi, numbers
    mov ecx, COUNT - 1
.pair:
    mov eax, [esi]
    cmp eax, [esi + 4]
    ja .wrong
    add esi, 4
    loop .pair
    print_decimal COUNT
    print_line " numbers in order"
    ret
.wrong:
    print_line "not in order"
    exit 1

; Prints the five numbers at EBX.
show_five:
    mov ecx, 5
.number:
    print " "
    print_decimal [ebx]
    add ebx, 4
    loop .number
    newline
    ret
