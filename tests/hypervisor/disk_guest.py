"""A guest with a disk driver of its own: by interrupt, sector by sector or several at once.

It identifies the drive and takes its size, writes a pattern to two sectors with REP OUTSD, reads
four with REP INSD - through READ MULTIPLE, two a block - and leaves with the number of bytes that
are wrong, or 63. Between the commands it halts: only the drive's interrupt wakes it.
"""

from __future__ import annotations

from typing import Final

from emulator.disk import SECTOR
from isa import assemble

SECTORS: Final = 64
IMAGE: Final = bytes(n * 7 + n // SECTOR & 0xFF for n in range(SECTORS * SECTOR))
FIRST: Final = 33  #: the first sector written
BUFFER: Final = 0x300000

SOURCE: Final = f"""
org 0x100000
FIRST equ {FIRST}
BUFFER equ {BUFFER}
    lgdt [gdt_pointer]
    mov eax, 0x10
    mov ss, ax
    mov ds, ax
    mov es, ax
    mov esp, 0x90000
    jmp 8:.code
.code:
    mov ecx, 256
    mov edi, idt
.gate:
    mov eax, handler
    mov [edi], ax
    mov word [edi + 2], 8
    mov word [edi + 4], 0x8e00
    shr eax, 16
    mov [edi + 6], ax
    add edi, 8
    loop .gate
    lidt [idt_pointer]
    mov esi, init
.next:
    lodsb
    movzx edx, al
    lodsb
    out dx, al
    cmp esi, init_end
    jb .next
    sti

    mov al, 0xec                ; IDENTIFY DEVICE
    call command
    call wait_for_drive
    mov edi, BUFFER
    mov ecx, 128
    mov edx, 0x1f0
    cld
    rep insd
    mov eax, [BUFFER + 120]
    cmp eax, {SECTORS}
    mov al, 63
    jne leave

    mov edi, BUFFER             ; the pattern
    mov ecx, 1024
.fill:
    mov eax, ecx
    stosb
    loop .fill

    mov ecx, 2
    call address
    mov al, 0x30                ; WRITE SECTORS
    call command
    mov esi, BUFFER
    mov edx, 0x1f0
    mov ecx, 128
    rep outsd
    call wait_for_drive
    mov edx, 0x1f0
    mov ecx, 256
    rep outsw
    call wait_for_drive
    mov al, 0xe7                ; FLUSH CACHE
    call command
    call wait_for_drive

    mov ecx, 2
    call address
    mov al, 0xc6                ; SET MULTIPLE MODE
    call command
    call wait_for_drive
    mov ecx, 4
    call address
    mov al, 0xc4                ; READ MULTIPLE
    call command
    mov edi, BUFFER + 0x1000 - 88   ; the block crosses a page
    call wait_for_drive
    mov edx, 0x1f0
    mov ecx, 256
    rep insd
    call wait_for_drive
    mov edx, 0x1f0
    mov ecx, 512
    rep insw

    mov esi, BUFFER
    mov edi, BUFFER + 0x1000 - 88
    mov ecx, 1024
    xor eax, eax
.compare:
    cmpsb
    je .same
    inc eax
.same:
    loop .compare
leave:
    out 0xf4, al
    hlt

address:                        ; ECX sectors from FIRST on
    mov edx, 0x1f2
    mov al, cl
    out dx, al
    inc edx
    mov al, FIRST
    out dx, al
    inc edx
    mov al, 0
    out dx, al
    inc edx
    out dx, al
    inc edx
    mov al, 0xe0
    out dx, al
    ret
command:
    mov dword [done], 0
    mov edx, 0x1f7
    out dx, al
    ret
wait_for_drive:
    cli
    cmp dword [done], 0
    jne .over
    sti
    hlt
    jmp wait_for_drive
.over:
    mov dword [done], 0
    sti
    ret
handler:
    push eax
    push edx
    mov edx, 0x1f7
    in al, dx                   ; takes the interrupt back
    mov [done], eax
    mov al, 0x20
    out 0xa0, al
    out 0x20, al
    pop edx
    pop eax
    iret
done: dd 0
init:                           ; ports and values: line 14 alone, at vector 0x2e
    db 0x20, 0x11, 0x21, 0x20, 0x21, 4, 0x21, 1
    db 0xa0, 0x11, 0xa1, 0x28, 0xa1, 2, 0xa1, 1
    db 0x21, 0xfb, 0xa1, 0xbf
init_end:
align 8
gdt: dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer: dw 23
    dd gdt
idt_pointer: dw 0x7ff
    dd idt
idt equ 0x80000
"""

PROGRAM: Final = assemble(SOURCE)
#: What the guest has written.
WRITTEN: Final = bytes(n & 0xFF for n in range(1024, 0, -1))
AFTERWARDS: Final = IMAGE[: FIRST * SECTOR] + WRITTEN + IMAGE[(FIRST + 2) * SECTOR :]
