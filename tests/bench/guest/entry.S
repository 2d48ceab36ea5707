# entry.S - from a multiboot loader to C: the header, a stack, and main(information).
#
# The loader leaves ring 0 with flat segments, paging off, interrupts off. Next: machine.c.

    .section .note.GNU-stack, "", @progbits
    .section .multiboot, "a"
    .balign 4
    .long 0x1BADB002, 2, -(0x1BADB002 + 2)

    .local stack
    .comm stack, 65536, 16
    .text
    .globl _start
_start:
    mov $stack + 65536, %esp
    xor %ebp, %ebp
    cld
    push %ebx
    call main
    push %eax
    call machine_exit
