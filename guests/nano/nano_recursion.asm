; nano_recursion - Fibonacci's tenth number by plain recursion: calls and returns, pushes and pops.
;
; What a program of many small routines looks like to a translator, which has to look up where
; each return leads.

%include "nano.inc"

ARGUMENT    equ 10
RESULT      equ 55

start:
    call read_command_line
    mov ecx, [count]
    mov edx, 0
.again:
    mov eax, ARGUMENT
    call fibonacci
    cmp eax, RESULT
    jne .end
    inc edx
    dec ecx
    jnz .again
.end:
    report "recursion"

; EAX = n; returns EAX = the n-th number. Keeps all other registers.
fibonacci:
    cmp eax, 2
    jb .done
    push ebx
    mov ebx, eax
    dec eax
    call fibonacci
    lea ebx, [ebx - 2]
    xchg eax, ebx
    call fibonacci
    add eax, ebx
    pop ebx
.done:
    ret
