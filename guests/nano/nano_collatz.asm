; nano_collatz - arithmetic and branches, and nothing else.
;
; How long 27 takes to come down to 1 by Collatz's rule: 111 steps. Nothing in it concerns a
; hypervisor, so it should cost the same under every one of them.

%include "nano.inc"

STEPS equ 111                           ; from 27

start:
    call read_command_line
    mov ecx, [count]
    mov edx, 0
.again:
    mov eax, 27
    mov ebx, 0
.step:
    inc ebx
    test eax, 1
    jnz .odd
    shr eax, 1
    jmp .next
.odd:
    lea eax, [eax + eax * 2 + 1]
.next:
    cmp eax, 1
    jne .step
    cmp ebx, STEPS
    jne .end
    inc edx
    dec ecx
    jnz .again
.end:
    report "collatz"
