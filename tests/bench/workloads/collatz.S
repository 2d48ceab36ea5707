# collatz.S - the steps of 3n+1 for all n below 2048: registers only, flags used at once.
#
# uint32_t workload(uint32_t iterations): the sum of all steps * iterations, modulo 2^32.

    .section .note.GNU-stack, "", @progbits
    .text
    .globl workload
workload:
    push %ebx
    push %esi
    mov 12(%esp), %esi
    xor %eax, %eax
    test %esi, %esi
    jz 5f
1:  mov $2047, %ecx
2:  mov %ecx, %edx
3:  cmp $1, %edx
    jbe 4f
    inc %eax
    shr $1, %edx
    jnc 3b
    lea 1(%edx,%edx), %edx          # it was odd: undo the shift, then 3n + 1
    lea 1(%edx,%edx,2), %edx
    jmp 3b
4:  dec %ecx
    jnz 2b
    dec %esi
    jnz 1b
5:  pop %esi
    pop %ebx
    ret
