"""Kernels whose patched code is read, by ring 3 or through other pages than it is executed by.

There the page tables allow to hide patches. test_patch.py runs these with those of
patched_sources.py.
"""

from __future__ import annotations

from typing import Final

from tests.hypervisor.patched_sources import END, SHOW

#: Identical, for all rings, but that {other} of the directory is the program's, too.
_PAGING: Final = """
        mov edi, pages
        mov eax, 7
        mov ecx, 1024
    fill: mov [edi], eax
        add eax, 4096
        add edi, 4
        loop fill
        mov dword [directory], pages + 7
        mov dword [directory + 4], {other}
        mov eax, cr4
        or eax, 0x10
        mov cr4, eax
        mov eax, directory
        mov cr3, eax
        mov eax, cr0
        or eax, {bits}
        mov cr0, eax
        jmp on
    align 16
    on:
"""
_TABLES: Final = """
    align 4096
    pages: times 1024 dd 0
    directory: times 1024 dd 0
    others: times 1024 dd 0
"""
#: Sums up what it reads of `site`, as bytes, words and strings, `at` bytes from there.
_READ: Final = """
        movzx eax, byte [site + {at}]
        rol ebx, 5
        add ebx, eax
        add ebx, [site + {at} + 1]
        mov esi, site + {at} - 2
        mov edi, 0x70000
        mov ecx, 12
        cld
        rep movsb
        mov esi, site + {at}
        mov edi, site + {at} + 1
        cmpsb
        sbb edx, edx
        sub ebx, edx
        mov esi, site + {at}
        lodsd
        sub ebx, eax
"""
_SITE: Final = """
    site: pushf
        mov eax, 5
        pop ecx
        add ebx, ecx
"""
_TO_RING_3: Final = """
        lgdt [table]
        mov esp, 0x90000
        push 0x23
        push 0x80000
        push {flags}
        push 0x1B
        push {user}
        mov eax, 0x23
        mov ds, ax
        mov es, ax
        iret
"""
_RINGS: Final = """
    align 4096
    table: dw 47
        dd entries
    align 8
    entries: dq 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFFB000000FFFF, 0x00CFF3000000FFFF
"""
_ON: Final = "1 << 31"
_USER: Final = "align 4096\nuser:"


def _in_ring_3(paging: str, at: str, user: str = "user") -> str:
    """Ring 3 reads what has been patched, `at` bytes from where that is executed."""
    return f"""
        mov esp, 0x90000
        {paging}{_SITE}
        mov eax, cs
        test al, 3
        jnz user
        {_TO_RING_3.format(user=user, flags="0x3002")}
        {_USER} {_READ.format(at=at)}{END}
        {_RINGS}{_TABLES}"""


def _in_ring_0(other: str, at: str, bits: str = _ON) -> str:
    """The kernel reads it through another page, changes it there, executes it, and reads again."""
    return f"""
        mov esp, 0x90000
        mov dword [others + 4 * 0x101], routine + 3
        mov dword [others + 4 * 0x70], 0x70003
        {_PAGING.format(other=other, bits=bits)}
        mov ebp, 2
    again: call routine
        add ebx, [0x470000]             ; the table is in use there, too
        {_READ.format(at=at)}
        mov byte [site + {at}], 0xF9            ; STC in place of PUSHF,
        mov byte [site + {at} + 1], 0x9C        ; which moves on
        mov dword [site + {at} + 2], 0x90909090
        dec ebp
        jnz again
        {END}
    align 4096
    routine: times 20 nop
        {_SITE}
        ret
        {_TABLES}"""


def _before(reads: str, call: str) -> str:
    """What is read through other pages before the kernel comes to execute it, and after."""
    return f"""
        mov esp, 0x90000
        mov dword [others + 4 * 0x100], 0x70023
        mov dword [others + 4 * 0x101], routine + 0x23
        {_PAGING.format(other="others + 0x23", bits=_ON)}
        {reads}
        {call}
        {reads}
        add ebx, [site + 0x400000]
        {END}
    align 4096
    routine: {_SITE}
        ret
        {_TABLES}"""


HIDDEN_READS: Final[dict[str, str]] = {
    "ring 3 reads, without paging": _in_ring_3("", "0"),
    "ring 3 reads": _in_ring_3(_PAGING.format(other="pages + 7", bits=_ON), "0"),
    "ring 3 reads a 4 MiB page": _in_ring_3(
        _PAGING.format(other="0x87", bits=_ON) + "jmp $ + 0x400005\n", "0x400000"
    ),
    "ring 3 reads another page": _in_ring_3(
        _PAGING.format(other="pages + 7", bits=_ON), "0x400000"
    ),
    "ring 3 executes another page": _in_ring_3(
        _PAGING.format(other="pages + 7", bits=_ON), "0", "site + 0x400000"
    ),
    "read through another page": _in_ring_0("others + 3", "0x400000"),
    "read through the same table": _in_ring_0("pages + 7", "0x400000"),
    "read through a 4 MiB page": _in_ring_0("0x83", "0x400000"),
    "read with CR0.WP": _in_ring_0("others + 3", "0x400000", "0x80010000"),
    "read through another page, before": _before(
        "add ebx, [site + 0x400000]",
        "mov eax, routine + 0x1234567\nsub eax, 0x1234567\ncall eax",
    ),
    "read after the page before": _before("mov eax, [site + 0x3FF000]", "call routine"),
    "a gate that is open, after a read": f"""
        mov esp, 0x90000
        mov eax, handler
        mov [idt + 8 * 0x30], ax
        mov word [idt + 8 * 0x30 + 2], 8
        mov word [idt + 8 * 0x30 + 4], 0xEF00
        shr eax, 16
        mov [idt + 8 * 0x30 + 6], ax
        lidt [pointer]
        mov dword [tss + 4], 0x88000
        mov dword [tss + 8], 0x10
        mov eax, tss
        mov [task + 2], ax
        shr eax, 16
        mov [task + 4], al
        mov [task + 7], ah
        lgdt [table]
        mov ax, 0x28
        ltr ax
        xor edi, edi
        {_TO_RING_3.format(user="user", flags="0x202")}
    {_USER} int 0x30
        int 0x30
        add ebx, [handler]
        int 0x30
    align 4096
    handler: mov ecx, cs
        nop
        add ebx, ecx
        inc edi
        cmp edi, 3
        jb again
        {END}
    again: iret
        {_RINGS}
    task: dq 0x0000890000000067
    align 8
    pointer: dw 8 * 0x31 - 1
        dd idt
    align 4096
    idt: times 0x31 dq 0
    align 4096
    tss: times 32 dd 0""",
    "executed where it was read": f"""
        mov esp, 0x90000
        {_PAGING.format(other="pages + 3", bits=_ON)}
        call routine
        {_READ.format(at="0x400000")}
        mov eax, routine + 0x1234567
        add eax, 0x400000 - 0x1234567
        call eax
        {SHOW}
        {END}
    align 4096
    routine: {_SITE}
        ret
        {_TABLES}""",
}
#: Nothing is read here: what is executed by one address is another page in another space.
OTHER_SPACES: Final[dict[str, str]] = {
    "executed in another space": f"""
        mov esp, 0x90000
        {_PAGING.format(other="others + 3", bits=_ON)}
        mov dword [others + 4 * 0x101], first + 3
        mov eax, [directory]
        mov [other], eax
        mov dword [other + 4], more + 3
        mov dword [more + 4 * 0x101], second + 3
        mov edx, other
        mov cr3, edx
        mov ebx, [0x501000]             ; not known to be code
        mov edi, directory
        mov cr3, edi
        mov esi, 0x500FFF
        inc esi                         ; nor known then
        call esi
        mov cr3, edx
        call esi
        {END}
    align 4096
    first: {SHOW}
        ret
    align 4096
    second: nop
        {SHOW}
        ret
    align 4096
    other: times 1024 dd 0
    more: times 1024 dd 0
        {_TABLES}""",
}
