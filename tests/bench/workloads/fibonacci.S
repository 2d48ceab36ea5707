# fibonacci.S - fib(22), recursively: calls, returns and the stack, written by hand.
#
# uint32_t workload(uint32_t iterations): fib(22) * iterations, modulo 2^32.

    .section .note.GNU-stack, "", @progbits
    .text
    .globl workload
workload:
    push %ebx
    push %esi
    push %edi
    mov 16(%esp), %esi
    xor %edi, %edi
    test %esi, %esi
    jz 2f
1:  mov $22, %eax
    call fibonacci
    add %eax, %edi
    dec %esi
    jnz 1b
2:  mov %edi, %eax
    pop %edi
    pop %esi
    pop %ebx
    ret

# EAX = fib(EAX); keeps EBX.
fibonacci:
    cmp $2, %eax
    jb 1f
    push %ebx
    push %eax
    dec %eax
    call fibonacci
    mov %eax, %ebx
    pop %eax
    sub $2, %eax
    call fibonacci
    add %ebx, %eax
    pop %ebx
1:  ret
