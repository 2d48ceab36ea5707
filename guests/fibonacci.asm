; fibonacci - Fibonacci numbers by plain recursion.
;
; Each call either answers at once or asks two further calls: the number of calls grows as fast as
; the numbers do. What a call must not forget it keeps on the stack.

%include "guest.inc"

LAST equ 20

start:
    mov esi, 0
.number:
    print "fib("
    print_decimal esi
    print ") = "
    mov eax, esi
    call fibonacci
    print_decimal eax
    newline
    inc esi
    cmp esi, LAST
    jbe .number
    exit 0

; EAX = n. Returns the n-th Fibonacci number in EAX; keeps all other registers.
fibonacci:
    cmp eax, 2
    jb .itself                          ; fib(0) = 0, fib(1) = 1
    push ebx
    push eax
    dec eax
    call fibonacci
    mov ebx, eax
    pop eax
    sub eax, 2
    call fibonacci
    add eax, ebx
    pop ebx
.itself:
    ret
