; flat_loader - starts a flat binary under a multiboot loader.
;
; QEMU starts multiboot kernels only. This one is linked at 2 MiB; it takes its first module, puts it
; where a flat binary belongs, with zeros behind it, and jumps to its first byte: ring 0, flat
; segments, paging off, interrupts off, a valid stack, and no multiboot magic in EAX.

bits 32

MAGIC   equ 0x1BADB002
LOAD    equ 0x100000
END     equ 0x200000

section .text
global _start
_start:
    jmp start

align 4
    dd MAGIC, 0, -MAGIC

start:
    mov ebx, [ebx + 24]                 ; mods_addr
    mov edi, LOAD
    mov esi, [ebx]                      ; mod_start
    mov ecx, [ebx + 4]                  ; mod_end
    sub ecx, esi
    rep movsb
    mov ecx, END
    sub ecx, edi
    mov al, 0
    rep stosb
    mov esp, LOAD
    mov eax, LOAD
    jmp eax
