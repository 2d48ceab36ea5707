# entry.S - from a multiboot loader to C, and from any vector to C.
#
# The loader leaves ring 0 with flat segments, paging off, interrupts off; nothing is known of its
# stack and its GDT, so both are replaced. Each of the 256 vectors has a stub of 16 bytes, which
# makes all frames alike (struct frame in kernel.h) and meets the others in `enter`. Next: kernel.h.

    .section .note.GNU-stack, "", @progbits
    .section .multiboot, "a"
    .balign 4
    .long 0x1BADB002, 2, -(0x1BADB002 + 2)

    .local stack
    .comm stack, 65536, 4096
    .text
    .globl _start
_start:
    cld
    lgdt gdt_pointer
    mov $0x10, %ecx
    mov %ecx, %ds
    mov %ecx, %es
    mov %ecx, %ss
    mov $stack + 65536, %esp
    ljmp $0x08, $1f
1:  xor %ebp, %ebp
    push %ebx
    push %eax
    call main
    push %eax
    call end

    .balign 16
    .globl stubs
stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if vector != 8 && !(vector >= 10 && vector <= 14) && vector != 17
    push $0
    .endif
    push $vector
    jmp enter
    .set vector, vector + 1
    .endr

enter:
    pusha
    cld
    push %esp
    call dispatch
    pop %eax
    popa
    add $8, %esp
    iret

    .data
    .balign 8
gdt:
    .quad 0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF
gdt_pointer:
    .word 23
    .long gdt
