"""Rows: moving data: mov in all its forms, the stack, far pointers, exchanges.

`isa/table.py` says how rows are written; they are laid out as a table, not as code.
"""
# fmt: off

from __future__ import annotations

from isa.rows.group import Rows

rows = Rows()
group = rows.group

group("mov", "copy", """
    88 /r      | Eb,Gb *
    89 /r      | Ev,Gv *
    8A /r      | Gb,Eb *
    8B /r      | Gv,Ev *
    A0 mo      | AL,Ob
    A1 mo      | eAX,Ov
    A2 mo      | Ob,AL
    A3 mo      | Ov,eAX
    B0+r ib    | Zb,Ib *
    B8+r iz    | Zv,Iz *
    C6 /0 ib   | Eb,Ib *
    C7 /0 iz   | Ev,Iz *
""", access="wr", inline=True)
group("mov", "read a segment selector", """
    8C /r      | Evw,Sw *
""", access="cc", sensitive="behaviour", cite="3B MOV", cost="segment_read",
    body="mov_from_sreg", translation="code",
    leaks="shows the real selector: in CS and SS the ring, in all the slot of the descriptor")
group("mov", "load a segment register", """
    8E /r      | Sw,Ew *
""", access="cc", sensitive="both", cite="3B MOV", cost="segment_load", ends=True,
    body="mov_to_sreg", translation="code",
    leaks="checked against the real CPL: a selector good in ring 0 faults, and it shows")
group("mov", "read a control register", """
    0F 20 /r   | Rd,Cd *
""", access="cc", privilege="cpl0", sensitive="behaviour", cost="cr_read",
    body="mov_from_cr", translation="code")
group("mov", "write a control register", """
    0F 22 /r   | Cd,Rd *
""", access="cc", privilege="cpl0", sensitive="control", cost="cr_write", ends=True,
    body="mov_to_cr")
group("mov", "read a debug register", """
    0F 21 /r   | Rd,Dd
""", access="cc", privilege="cpl0", sensitive="behaviour", cost="cr_read",
    body="mov_from_dr")
group("mov", "write a debug register", """
    0F 23 /r   | Dd,Rd
""", access="cc", privilege="cpl0", sensitive="control", cost="cr_write", ends=True,
    body="mov_to_dr")
group("movzx", "copy, extend with zeros", """
    0F B6 /r   | Gv,Eb *
    0F B7 /r   | Gv,Ew
""", access="wr", inline=True)
group("movsx", "copy a byte, extend the sign", """
    0F BE /r   | Gv,Eb
""", access="wr", inline=True, body="movsx_byte")
group("movsx", "copy a word, extend the sign", """
    0F BF /r   | Gv,Ew
""", access="wr", inline=True, body="movsx_word")
group("lea", "load the effective address", """
    8D /r      | Gv,M *
""", access="wa", inline=True)
group("push", "push a general operand", """
    50+r       | Zv *
    68 iz      | Iz *
    6A ib      | Ibs
    FF /6      | Ev
""", access="r", inline=True, cost="stack")
group("push", "push a segment selector", """
    06         | ES
    0E         | CS
    16         | SS
    1E         | DS *
    0F A0      | FS
    0F A8      | GS
""", access="c", sensitive="behaviour", cite="3B PUSH", cost="stack", body="push_sreg",
    translation="code",
    leaks="shows the real selector: in CS and SS the ring, in all the slot of the descriptor")
group("pop", "pop a general operand", """
    58+r       | Zv *
    8F /0      | Ev
""", access="c", inline=True, cost="stack")
group("pop", "pop into a segment register", """
    07         | ES
    17         | SS
    1F         | DS *
    0F A1      | FS
    0F A9      | GS
""", access="c", sensitive="both", cite="3B POP", cost="segment_load", ends=True,
    body="pop_sreg", translation="code",
    leaks="checked against the real CPL: a selector good in ring 0 faults, and it shows")
group("pusha", "push all general registers", "60 |", cost="stack_all")
group("popa", "pop all general registers", "61 |", cost="stack_all")
group("xchg", "exchange", """
    86 /r      | Eb,Gb
    87 /r      | Ev,Gv
    90+r       | eAX,Zv
""", access="uu", lock=True, cost="xchg", order="reversed")
group("cmovcc", "copy if the condition holds", """
    0F 40+cc /r | Gv,Ev
""", access="ur", reads="oszpc")
group("cbw", "sign-extend AL into AX", "o16 98 |")
group("cwde", "sign-extend AX into EAX", "o32 98 |")
group("cwd", "sign-extend AX into DX:AX", "o16 99 |")
group("cdq", "sign-extend EAX into EDX:EAX", "o32 99 |", inline=True)
group("bswap", "reverse the bytes", """
    0F C8+r    | Zv
""", access="u", undefined="*:size=16")
group("xlat", "AL = [EBX + AL]", "D7 |", cost="load")
group("lahf", "flags into AH", "9F |", reads="szapc")
group("sahf", "AH into flags", "9E |", writes="szapc")
group("cmpxchg", "compare with the accumulator and exchange", """
    0F B0 /r   | Eb,Gb
    0F B1 /r   | Ev,Gv
""", access="cc", writes="oszapc", lock=True, cost="locked")
group("cmpxchg8b", "compare EDX:EAX and exchange with ECX:EBX", """
    0F C7 /1   | Mq
""", access="c", writes="z", lock=True, cost="locked")
group("xadd", "exchange and add", """
    0F C0 /r   | Eb,Gb
    0F C1 /r   | Ev,Gv
""", access="uu", writes="oszapc", lock=True, cost="xchg")
for _name, _opcode in (("lds", "C5"), ("les", "C4"), ("lss", "0F B2"), ("lfs", "0F B4"),
                       ("lgs", "0F B5")):
    group(_name, f"load a far pointer into {_name[1:].upper()} and a register", f"""
    {_opcode} /r | Gv,Mp
""", access="cc", sensitive="both", cite="3B MOV", cost="segment_load", ends=True,
        leaks="checked against the real CPL, as a move into the segment register is")
group("enter", "make a stack frame", """
    C8 iw ib   | Iw,Ib
""", access="rr", cost="enter")
group("leave", "undo a stack frame", "C9 |", inline=True, cost="stack")
