# bulk.S - rep stosl, then rep movsl, of 1 MiB: bandwidth, not instructions. Not part of the mean.
#
# uint32_t workload(uint32_t iterations): the last words of all copies, summed.

    .section .note.GNU-stack, "", @progbits
    .equ WORDS, 262144
    .local source, target
    .comm source, WORDS * 4, 4096
    .comm target, WORDS * 4, 4096
    .text
    .globl workload
workload:
    push %ebx
    push %esi
    push %edi
    mov 16(%esp), %ebx
    xor %edx, %edx
    test %ebx, %ebx
    jz 2f
    cld
1:  mov %ebx, %eax
    mov $source, %edi
    mov $WORDS, %ecx
    rep stosl
    mov $source, %esi
    mov $target, %edi
    mov $WORDS, %ecx
    rep movsl
    add target + WORDS * 4 - 4, %edx
    dec %ebx
    jnz 1b
2:  mov %edx, %eax
    pop %edi
    pop %esi
    pop %ebx
    ret
