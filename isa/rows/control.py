"""Rows: transfers of control: near, far, and through the IDT.

`isa/table.py` says how rows are written; they are laid out as a table, not as code.
"""
# fmt: off

from __future__ import annotations

from isa.rows.group import Rows

rows = Rows()
group = rows.group

group("jcc", "jump if the condition holds", """
    70+cc cb      | Jb *
    0F 80+cc cz   | Jz *
""", access="c", reads="oszpc", ends=True, translation="code", cost="branch",
    inline=True)
group("jmp", "jump", """
    EB cb      | Jb *
    E9 cz      | Jz *
""", access="c", ends=True, translation="code", cost="branch",
    inline=True)
group("jmp", "jump to an address in a register or memory", """
    FF /4      | Ev
""", access="r", ends=True, translation="code", cost="branch",
    inline=True, body="jmp_indirect")
group("call", "call a procedure", """
    E8 cz      | Jz *
""", access="c", ends=True, translation="code", cost="call",
    inline=True)
group("call", "call a procedure by its address", """
    FF /2      | Ev *
""", access="r", ends=True, translation="code", cost="call",
    inline=True, body="call_indirect")
group("ret", "return from a procedure", """
    C3         | *
    C2 iw      | Iw
""", access="c", ends=True, translation="code", cost="call",
    inline=True)
group("loopnz", "decrement ECX, jump if not zero and ZF=0", """
    E0 cb      | Jb
""", access="c", reads="z", ends=True, translation="code", cost="branch",
    inline=True)
group("loopz", "decrement ECX, jump if not zero and ZF=1", """
    E1 cb      | Jb
""", access="c", reads="z", ends=True, translation="code", cost="branch",
    inline=True)
group("loop", "decrement ECX, jump if not zero", """
    E2 cb      | Jb *
""", access="c", ends=True, translation="code", cost="branch",
    inline=True)
group("jecxz", "jump if ECX is zero", """
    E3 cb      | Jb
""", access="c", ends=True, translation="code", cost="branch",
    inline=True)
group("nop", "nothing", """
    90         | *
    0F 1F /0   | Ev
""", access="c")
group("pause", "nothing, in a spin loop", "F3 90 |")
group("hint_nop55", "nothing; F3 before it and EBX make it ENDBR32, which compilers emit", """
    0F 1E /7   | Ev
""", access="c", body="nop")
group("int3", "breakpoint trap", "CC |", ends=True, sensitive="behaviour", cite="3B INT n",
    cost="interrupt", access="",
    leaks="the gate's DPL is held against the real CPL, not the guest's")
group("int", "software interrupt", """
    CD ib      | Ib *
""", access="c", ends=True, sensitive="behaviour", cite="3B INT n", cost="interrupt",
    leaks="the gate's DPL is held against the real CPL, not the guest's")
group("into", "trap if overflow", "CE |", ends=True, reads="o", sensitive="behaviour",
    cite="3B INT n", cost="interrupt",
    leaks="the gate's DPL is held against the real CPL, not the guest's")
group("bound", "trap if the index is out of bounds", """
    62 /r      | Gv,Ma
""", access="rc", cost="load")
group("ud2", "raise #UD", "0F 0B |", ends=True)
group("jmp", "far jump", """
    EA cp      | Ap *
""", access="c", ends=True, sensitive="both", cite="3B JMP", cost="far", body="jmp_far",
    leaks="checked against the real CPL: a segment or gate of the guest kernel's ring faults")
group("jmp", "far jump through memory", """
    FF /5      | Mp
""", access="c", ends=True, sensitive="both", cite="3B JMP", cost="far", body="jmp_far_mem",
    leaks="checked against the real CPL: a segment or gate of the guest kernel's ring faults")
group("call", "far call, also through a call gate", """
    9A cp      | Ap
""", access="c", ends=True, sensitive="both", cite="3B CALL", cost="far", body="call_far",
    leaks="pushes the real CS; checked against the real CPL")
group("call", "far call through memory", """
    FF /3      | Mp
""", access="c", ends=True, sensitive="both", cite="3B CALL", cost="far",
    body="call_far_mem", leaks="pushes the real CS; checked against the real CPL")
group("retf", "far return", """
    CB         |
""", ends=True, sensitive="both", cite="3B RET", cost="far",
    leaks="a return to ring 0 faults when the guest kernel runs in another ring")
group("retf", "far return, releasing parameters", """
    CA iw      | Iw
""", access="c", ends=True, sensitive="both", cite="3B RET", cost="far", body="retf_imm",
    leaks="a return to ring 0 faults when the guest kernel runs in another ring")
group("iret", "return from an interrupt", """
    CF         | *
""", ends=True, writes="oszapctidlnrkx", sensitive="both", cite="3B RET (as IRET)", cost="iret",
    translation="code",
    leaks="IF and IOPL of the image are silently dropped; a return to ring 0 faults")
