"""Kernels for the patcher's hard cases, each about one of them; who runs them is test_patch.py.

What a patch gets wrong must be seen: PUSHF in ring 1 shows IF = 1, while the guest's is 0.
"""

from __future__ import annotations

from typing import Final

#: No code is reached behind it, and data may follow.
END: Final = "mov al, 0\nout 0xF4, al\njmp $\n"
#: Eight gates, all to `handler`.
_GATES: Final = """
        lgdt [table]
        mov esp, 0x90000
        mov edi, idt
        mov ecx, 8
    gates: mov eax, handler
        mov [edi], ax
        mov word [edi + 2], 8
        mov word [edi + 4], 0x8E00
        shr eax, 16
        mov [edi + 6], ax
        add edi, 8
        loop gates
        lidt [pointer]
"""
_IDT: Final = """
    align 4096
    pointer: dw 63
        dd idt
    table: dw 31
        dd entries
    align 8
    idt: times 8 dq 0
    entries: dq 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00C1930000000FFF
"""
SHOW: Final = "pushf\npop eax\nadd ebx, eax\n"

SOURCES: Final[dict[str, str]] = {
    "led into later": f"""
        mov ecx, 2
        pushf
    inside: pop eax
        mov ebx, eax
        mov edx, 7
        dec ecx
        jz done
        push eax
        mov eax, later + 0x1234567
        sub eax, 0x1234567
        jmp eax
    done: {END}
    later: jmp inside""",
    "led into": f"""
        push eax
        jecxz back
        pop eax
        mov ecx, 3
        pushf
    back: pop eax
        push eax
        inc ecx
        cmp ecx, 5
        jb back
        pop eax
        {END}""",
    "a loop that is moved": f"""
        mov ecx, 3
    again: cli
        sti
        loop again
        {SHOW}{END}""",
    "read in two ways": f"""
        mov ecx, 3
    over: db 0xB8, 0x9C, 0x58, 0x90, 0x90       ; MOV EAX, or behind it PUSHF, POP EAX, NOP, NOP
        add ebx, eax
        dec ecx
        jz done
        test ecx, 1
        jnz over
        jmp over + 1
    done: {END}""",
    "found after what it overlaps": f"""
        mov edi, 2
    again: dec edi
        js done
        lea eax, [edi + over]           ; PUSHF first
        jmp eax
    over: db 0xB8, 0x9C, 0x58, 0x90, 0x90
        add ebx, eax
        jmp again
    done: {END}""",
    "read and written": f"""
        mov edi, 2
    again: {SHOW}
        jmp on
        align 16
    on: test edi, edi
        jz done
        inc byte [site]         ; PUSHF becomes POPF, whose flags are those of what it pops
        dec byte [site]
        dec edi
    site: pushf
        pop eax
        add ebx, eax
        jmp again
    done: {END}""",
    "written across pages": f"""
        mov ecx, 2
        jmp again
        align 4096, db 0x90
        times 4090 nop
    again: jmp site
        times 4 nop
    site: pushf
        pop eax
        add ebx, eax
        add dword [site - 2], 0x01000000
        sub dword [site - 2], 0x01000000
        dec ecx
        jnz again
        {END}""",
    "written and read": f"""
        mov ecx, 3
    again: {SHOW}
        inc byte [data]
        add ebx, [data]
        mov [data + 4], ebx
        dec ecx
        jnz again
        {END}
    data: dd 0, 0""",
    "data beside": f"""
        mov ecx, 3
    again: {SHOW}
        inc byte [data]
        dec ecx
        jnz again
        {END}
    data: db 0""",
    "undecodable, and a site within": f"""
        {_GATES}
        jecxz second
        jmp first
    first: db 0xF0                      ; LOCK: with what follows no instruction
    second: pushf
        pop eax
        add ebx, eax
        dec ecx
        jmp first
    handler: add esp, 12
        {SHOW}{END}
        {_IDT}""",
    "another code segment": f"""
        lgdt [table]
        mov edi, 2
    again: mov eax, cs
        add ebx, eax
        push cs
        pop eax
        add ebx, eax
        dec edi
        jz done
        jmp 0x18:again
    done: {END}
    align 4096
    table: dw 31
        dd entries
    align 8
    entries: dq 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00CF9B000000FFFF""",
    "into the next page": f"""
        mov ecx, 2
    again: jmp before
        align 4096, db 0x90
        times 4095 nop
    before: nop
    site: pushf
        pop eax
        add ebx, eax
        mov byte [site], 0x9C
        mov byte [site + 3], 0x29       ; SUB in place of ADD
        db 0xEB, 0
        sub ebx, eax
        dec ecx
        jnz again
        {END}""",
    "what is moved, read otherwise": f"""
        mov ecx, 3
    again: dec ecx
        jz done
        mov esp, 0x90000
        push 0x1234
        push 0x5678
        test ecx, 1
        jnz within + 1
        pushf
    within: db 0xB8, 0x90, 0x90, 0x90, 0x58     ; MOV EAX; or behind it NOP, NOP, NOP, POP EAX
        pop edx
        add ebx, edx
        add ebx, eax
        jmp again
    done: {END}""",
    "a stack that ends": f"""
        {_GATES}
        mov ecx, 0x18
        mov ss, cx
        cli
        times 4 nop
        {SHOW}{END}
    handler: mov ebx, 1
        {END}
        {_IDT}""",
    "watched": f"""
        {_GATES}
        mov eax, moved
        mov dr0, eax
        mov eax, 0x401                  ; its execution
        mov dr7, eax
        jmp site
    site: pushf
    moved: pop eax
        times 4 nop
        add ebx, eax
        {END}
    handler: inc ebx
        xor eax, eax
        mov dr7, eax
        iret
        {_IDT}""",
    "mapped at two places, then at one": f"""
        mov edi, pages
        mov eax, 3
        mov ecx, 1024
    fill: mov [edi], eax
        add eax, 4096
        add edi, 4
        loop fill
        mov dword [directory], pages + 3
        mov dword [pages + 4 * 0x300], routine + 3
        mov dword [pages + 4 * 0x301], routine + 3
        mov eax, directory
        mov cr3, eax
        mov eax, cr0
        or eax, 1 << 31
        mov cr0, eax
        call 0x300000
        call 0x301000
        mov dword [pages + 4 * 0x301], 3
        invlpg [0x301000]
        call 0x300000
        {END}
    align 4096
    routine: pushf
        pop eax
        add ebx, eax
        ret
    align 4096
    pages: times 1024 dd 0
    directory: times 1024 dd 0""",
}
