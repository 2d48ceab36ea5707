"""The instruction table: every encoding of the slice, one line each, and nothing listed twice.

Each `group` names a mnemonic, its title and the columns its encodings share; the lines below are
its encodings: opcode, operand codes, and ``*`` on the rows of the newcomer's card. `isa/row.py`
says what the words mean. Assembler, decoders, C tables, reference page and test generators are
derived from this table; to add an instruction, add a line here and its `op_` in csrc.

Where the slice departs from a whole IA-32 (SDM volume 2):

* protected mode with 32-bit code segments only: no real mode, V86 or 16-bit code;
* no x87, MMX, SSE: their opcodes raise #NM when CR0.EM or CR0.TS is set, else #UD;
* no hardware task switch: task gates, far transfers to a TSS and IRET with NT=1 stop the machine;
* CR4 has TSD, PSE and DE only; UMIP, PVI, VME and PGE are absent, CPUID says so;
* an undocumented alias is a row where processors agree on it: SHL as /6, TEST as /1.

The unsafe rows - sensitive, not privileged - cite their place in J. S. Robin and C. E. Irvine,
"Analysis of the Intel Pentium's Ability to Support a Secure Virtual Machine Monitor" (2000):
"3A" is section 3.2.1, sensitive register instructions; "3B" section 3.2.2, protection system
references. They count SGDT SIDT SLDT SMSW PUSHF POPF | LAR LSL VERR VERW POP PUSH CALL JMP INT RET
STR MOV: seventeen or eighteen names, as one counts; IRET and MOV-from-segment come under the
same reasoning.
"""

from __future__ import annotations

from typing import Any, Final

from isa.row import Row, Undefined, check_rows

_rows: list[Row] = []


def _undefined(text: str) -> tuple[Undefined, ...]:
    """``"a o:count>1"`` -> AF undefined always, OF when the masked count exceeds one."""
    parts = (part.partition(":") for part in text.split())
    return tuple(Undefined(what, condition or "always") for what, _, condition in parts)


def group(mnemonic: str, title: str, encodings: str, *, undefined: str = "", **columns: Any) -> None:
    """Add the encodings of one mnemonic, one a line: opcode | operands [| access] [*]."""
    for line in encodings.strip().splitlines():
        tour = line.rstrip().endswith("*")
        opcode, operands, *own_access = (p.strip() for p in line.rstrip(" *").split("|"))
        names = tuple(operands.split(",")) if operands else ()
        access = own_access[0] if own_access else columns.get("access", "")
        own = columns | {"access": access if names else "", "tour": tour}
        _rows.append(
            Row(
                id=len(_rows),
                mnemonic=mnemonic,
                opcode=" ".join(opcode.split()),
                operands=names,
                title=title,
                undefined=_undefined(undefined),
                **own,
            )
        )


# -- Data movement -----------------------------------------------------------------------------

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
""", access="wr", inline=True)  # fmt: skip
group("mov", "read a segment selector", """
    8C /r      | Evw,Sw *
""", access="cc", sensitive="behaviour", cite="3B MOV", cost="segment_read",
    body="mov_from_sreg",
    leaks="shows the real CS and SS: their RPL is the ring the guest kernel really runs in")  # fmt: skip
group("mov", "load a segment register", """
    8E /r      | Sw,Ew *
""", access="cc", sensitive="behaviour", cite="3B MOV", cost="segment_load", ends=True,
    body="mov_to_sreg",
    leaks="checked against the real CPL: a selector good in ring 0 faults, RPL and DPL show the ring")  # fmt: skip
group("mov", "read a control register", """
    0F 20 /r   | Rd,Cd *
""", access="cc", privilege="cpl0", sensitive="behaviour", cost="cr_read",
    body="mov_from_cr")  # fmt: skip
group("mov", "write a control register", """
    0F 22 /r   | Cd,Rd *
""", access="cc", privilege="cpl0", sensitive="control", cost="cr_write", ends=True,
    body="mov_to_cr")  # fmt: skip
group("mov", "read a debug register", """
    0F 21 /r   | Rd,Dd
""", access="cc", privilege="cpl0", sensitive="behaviour", cost="cr_read",
    body="mov_from_dr")  # fmt: skip
group("mov", "write a debug register", """
    0F 23 /r   | Dd,Rd
""", access="cc", privilege="cpl0", sensitive="control", cost="cr_write", ends=True,
    body="mov_to_dr")  # fmt: skip
group("movzx", "copy, extend with zeros", """
    0F B6 /r   | Gv,Eb *
    0F B7 /r   | Gv,Ew
""", access="wr", inline=True)  # fmt: skip
group("movsx", "copy a byte, extend the sign", """
    0F BE /r   | Gv,Eb
""", access="wr", inline=True, body="movsx_byte")  # fmt: skip
group("movsx", "copy a word, extend the sign", """
    0F BF /r   | Gv,Ew
""", access="wr", inline=True, body="movsx_word")  # fmt: skip
group("lea", "load the effective address", """
    8D /r      | Gv,M *
""", access="wa", inline=True)  # fmt: skip
group("push", "push a general operand", """
    50+r       | Zv *
    68 iz      | Iz *
    6A ib      | Ibs
    FF /6      | Ev
""", access="r", inline=True, cost="stack")  # fmt: skip
group("push", "push a segment selector", """
    06         | ES
    0E         | CS
    16         | SS
    1E         | DS *
    0F A0      | FS
    0F A8      | GS
""", access="c", sensitive="behaviour", cite="3B PUSH", cost="stack", body="push_sreg",
    leaks="shows the real CS and SS: their RPL is the ring the guest kernel really runs in")  # fmt: skip
group("pop", "pop a general operand", """
    58+r       | Zv *
    8F /0      | Ev
""", access="c", inline=True, cost="stack")  # fmt: skip
group("pop", "pop into a segment register", """
    07         | ES
    17         | SS
    1F         | DS *
    0F A1      | FS
    0F A9      | GS
""", access="c", sensitive="behaviour", cite="3B POP", cost="segment_load", ends=True,
    body="pop_sreg",
    leaks="checked against the real CPL: a selector good in ring 0 faults, RPL and DPL show the ring")  # fmt: skip
group("pusha", "push all general registers", "60 |", cost="stack_all")
group("popa", "pop all general registers", "61 |", cost="stack_all")
group("xchg", "exchange", """
    86 /r      | Eb,Gb
    87 /r      | Ev,Gv
    90+r       | eAX,Zv
""", access="uu", lock=True, cost="xchg", order="reversed")  # fmt: skip
group("cmovcc", "copy if the condition holds", """
    0F 40+cc /r | Gv,Ev
""", access="ur", reads="oszpc")  # fmt: skip
group("cbw", "sign-extend AL into AX", "o16 98 |")
group("cwde", "sign-extend AX into EAX", "o32 98 |")
group("cwd", "sign-extend AX into DX:AX", "o16 99 |")
group("cdq", "sign-extend EAX into EDX:EAX", "o32 99 |", inline=True)
group("bswap", "reverse the bytes", """
    0F C8+r    | Zv
""", access="u", undefined="*:size=16")  # fmt: skip
group("xlat", "AL = [EBX + AL]", "D7 |", cost="load")
group("lahf", "flags into AH", "9F |", reads="szapc")
group("sahf", "AH into flags", "9E |", writes="szapc")
group("cmpxchg", "compare with the accumulator and exchange", """
    0F B0 /r   | Eb,Gb
    0F B1 /r   | Ev,Gv
""", access="cc", writes="oszapc", lock=True, cost="locked")  # fmt: skip
group("cmpxchg8b", "compare EDX:EAX and exchange with ECX:EBX", """
    0F C7 /1   | Mq
""", access="c", writes="z", lock=True, cost="locked")  # fmt: skip
group("xadd", "exchange and add", """
    0F C0 /r   | Eb,Gb
    0F C1 /r   | Ev,Gv
""", access="uu", writes="oszapc", lock=True, cost="xchg")  # fmt: skip
for _name, _opcode in (("lds", "C5"), ("les", "C4"), ("lss", "0F B2"), ("lfs", "0F B4"),
                       ("lgs", "0F B5")):  # fmt: skip
    group(_name, f"load a far pointer into {_name[1:].upper()} and a register", f"""
    {_opcode} /r | Gv,Mp
""", access="cc", sensitive="behaviour", cite="3B MOV", cost="segment_load", ends=True,
        leaks="checked against the real CPL, as a move into the segment register is")  # fmt: skip
group("enter", "make a stack frame", """
    C8 iw ib   | Iw,Ib
""", access="rr", cost="enter")  # fmt: skip
group("leave", "undo a stack frame", "C9 |", inline=True, cost="stack")

# -- Arithmetic --------------------------------------------------------------------------------

for _number, _name, _title in ((0, "add", "add"), (2, "adc", "add with carry"),
                               (3, "sbb", "subtract with borrow"), (5, "sub", "subtract")):  # fmt: skip
    _carry = "c" if _name in ("adc", "sbb") else ""
    group(_name, _title, f"""
    {_number * 8 + 0:02X} /r  | Eb,Gb *
    {_number * 8 + 1:02X} /r  | Ev,Gv *
    {_number * 8 + 2:02X} /r  | Gb,Eb *
    {_number * 8 + 3:02X} /r  | Gv,Ev *
    {_number * 8 + 4:02X} ib  | AL,Ib *
    {_number * 8 + 5:02X} iz  | eAX,Iz *
    80 /{_number} ib          | Eb,Ib *
    81 /{_number} iz          | Ev,Iz *
    83 /{_number} ib          | Ev,Ibs *
""", access="ur", writes="oszapc", reads=_carry, lock=True, inline=True)  # fmt: skip
group("cmp", "compare", """
    38 /r      | Eb,Gb *
    39 /r      | Ev,Gv *
    3A /r      | Gb,Eb *
    3B /r      | Gv,Ev *
    3C ib      | AL,Ib *
    3D iz      | eAX,Iz *
    80 /7 ib   | Eb,Ib *
    81 /7 iz   | Ev,Iz *
    83 /7 ib   | Ev,Ibs *
""", access="rr", writes="oszapc", inline=True, fuses=True)  # fmt: skip
group("inc", "add one", """
    40+r       | Zv *
    FE /0      | Eb *
    FF /0      | Ev *
""", access="u", writes="oszap", lock=True, inline=True)  # fmt: skip
group("dec", "subtract one", """
    48+r       | Zv *
    FE /1      | Eb *
    FF /1      | Ev *
""", access="u", writes="oszap", lock=True, inline=True)  # fmt: skip
group("neg", "negate", """
    F6 /3      | Eb
    F7 /3      | Ev *
""", access="u", writes="oszapc", lock=True, inline=True)  # fmt: skip
group("mul", "multiply unsigned: accumulator by operand", """
    F6 /4      | Eb
    F7 /4      | Ev *
""", access="r", writes="oszapc", undefined="szap", cost="mul")  # fmt: skip
group("imul", "multiply signed: accumulator by operand", """
    F6 /5      | Eb
    F7 /5      | Ev
""", access="r", writes="oszapc", undefined="szap", cost="mul", body="imul_wide")  # fmt: skip
group("imul", "multiply signed", """
    0F AF /r     | Gv,Ev    | ur *
    69 /r iz     | Gv,Ev,Iz | wrr *
    6B /r ib     | Gv,Ev,Ibs| wrr *
""", writes="oszapc", undefined="szap", cost="mul", inline=True)  # fmt: skip
group("div", "divide unsigned: accumulator by operand", """
    F6 /6      | Eb
    F7 /6      | Ev *
""", access="r", writes="oszapc", undefined="oszapc", cost="div")  # fmt: skip
group("idiv", "divide signed: accumulator by operand", """
    F6 /7      | Eb
    F7 /7      | Ev
""", access="r", writes="oszapc", undefined="oszapc", cost="div")  # fmt: skip
group("daa", "decimal adjust after addition", "27 |", writes="oszapc", reads="ac", undefined="o")
group("das", "decimal adjust after subtraction", "2F |", writes="oszapc", reads="ac",
    undefined="o")  # fmt: skip
group("aaa", "ASCII adjust after addition", "37 |", writes="oszapc", reads="a", undefined="oszp")
group("aas", "ASCII adjust after subtraction", "3F |", writes="oszapc", reads="a",
    undefined="oszp")  # fmt: skip
group("aam", "ASCII adjust after multiplication", """
    D4 ib      | Ib
""", access="r", writes="oszapc", undefined="oac", cost="div", omitted=10)  # fmt: skip
group("aad", "ASCII adjust before division", """
    D5 ib      | Ib
""", access="r", writes="oszapc", undefined="oac", cost="mul", omitted=10)  # fmt: skip

# -- Logic -------------------------------------------------------------------------------------

for _number, _name in ((1, "or"), (4, "and"), (6, "xor")):
    group(_name, f"bitwise {_name}", f"""
    {_number * 8 + 0:02X} /r  | Eb,Gb *
    {_number * 8 + 1:02X} /r  | Ev,Gv *
    {_number * 8 + 2:02X} /r  | Gb,Eb *
    {_number * 8 + 3:02X} /r  | Gv,Ev *
    {_number * 8 + 4:02X} ib  | AL,Ib *
    {_number * 8 + 5:02X} iz  | eAX,Iz *
    80 /{_number} ib          | Eb,Ib *
    81 /{_number} iz          | Ev,Iz *
    83 /{_number} ib          | Ev,Ibs *
""", access="ur", writes="oszapc", undefined="a", lock=True, inline=True)  # fmt: skip
group("not", "bitwise not", """
    F6 /2      | Eb
    F7 /2      | Ev *
""", access="u", lock=True, inline=True)  # fmt: skip
group("test", "and, flags only", """
    84 /r      | Eb,Gb *
    85 /r      | Ev,Gv *
    A8 ib      | AL,Ib *
    A9 iz      | eAX,Iz *
    F6 /0 ib   | Eb,Ib *
    F7 /0 iz   | Ev,Iz *
    F6 /1 ib   | Eb,Ib
    F7 /1 iz   | Ev,Iz
""", access="rr", writes="oszapc", undefined="a", inline=True, fuses=True,
    order="any")  # fmt: skip
for _digit, _name, _title in ((4, "shl", "shift left"), (5, "shr", "shift right"),
                              (6, "shl", "shift left (alias)"),
                              (7, "sar", "shift right, keep the sign")):  # fmt: skip
    _star = "" if _digit == 6 else "*"
    group(_name, _title, f"""
    C0 /{_digit} ib | Eb,Ib {_star}
    C1 /{_digit} ib | Ev,Ib {_star}
    D0 /{_digit}    | Eb,1 {_star}
    D1 /{_digit}    | Ev,1 {_star}
    D2 /{_digit}    | Eb,CL {_star}
    D3 /{_digit}    | Ev,CL {_star}
""", access="ur", writes="oszapc", reads="oszapc", cost="shift", inline=True,
        undefined="a:count!=0 o:count>1" + ("" if _name == "sar" else " c:count>=size"))  # fmt: skip
for _digit, _name, _title in ((0, "rol", "rotate left"), (1, "ror", "rotate right"),
                              (2, "rcl", "rotate left through carry"),
                              (3, "rcr", "rotate right through carry")):  # fmt: skip
    group(_name, _title, f"""
    C0 /{_digit} ib | Eb,Ib
    C1 /{_digit} ib | Ev,Ib
    D0 /{_digit}    | Eb,1
    D1 /{_digit}    | Ev,1
    D2 /{_digit}    | Eb,CL
    D3 /{_digit}    | Ev,CL
""", access="ur", writes="oc", reads="oszapc", cost="shift", undefined="o:count>1")  # fmt: skip
for _byte, _name, _title in (("A4", "shld", "shift left, filling from a register"),
                             ("AC", "shrd", "shift right, filling from a register")):  # fmt: skip
    _with_cl = f"{int(_byte, 16) + 1:02X}"
    group(_name, _title, f"""
    0F {_byte} /r ib  | Ev,Gv,Ib
    0F {_with_cl} /r  | Ev,Gv,CL
""", access="urr", writes="oszapc", reads="oszapc", cost="shift",
        undefined="a:count!=0 o:count>1 *oszpc:count>size")  # fmt: skip
for _digit, _byte, _name, _title in ((4, "A3", "bt", "test a bit"),
                                     (5, "AB", "bts", "test and set a bit"),
                                     (6, "B3", "btr", "test and reset a bit"),
                                     (7, "BB", "btc", "test and complement a bit")):  # fmt: skip
    for _opcode, _operands, _body in ((f"0F {_byte} /r", "Ev,Gv", _name),
                                      (f"0F BA /{_digit} ib", "Ev,Ib", _name + "_imm")):
        group(_name, _title, f"{_opcode} | {_operands}", access="cr", writes="oszapc", reads="z",
              undefined="osap", lock=_name != "bt", body=_body)  # fmt: skip
group("bsf", "lowest set bit", """
    0F BC /r   | Gv,Ev
""", access="ur", writes="oszapc", undefined="osapc *:source=0", cost="shift")  # fmt: skip
group("bsr", "highest set bit", """
    0F BD /r   | Gv,Ev
""", access="ur", writes="oszapc", undefined="osapc *:source=0", cost="shift")  # fmt: skip
group("setcc", "one if the condition holds, else zero", """
    0F 90+cc /r | Eb
""", access="w", reads="oszpc", inline=True)  # fmt: skip

# -- Control -----------------------------------------------------------------------------------

group("jcc", "jump if the condition holds", """
    70+cc cb      | Jb *
    0F 80+cc cz   | Jz *
""", access="c", reads="oszpc", ends=True, cost="branch", inline=True)  # fmt: skip
group("jmp", "jump", """
    EB cb      | Jb *
    E9 cz      | Jz *
""", access="c", ends=True, cost="branch", inline=True)  # fmt: skip
group("jmp", "jump to an address in a register or memory", """
    FF /4      | Ev
""", access="r", ends=True, cost="branch", inline=True, body="jmp_indirect")  # fmt: skip
group("call", "call a procedure", """
    E8 cz      | Jz *
""", access="c", ends=True, cost="call", inline=True)  # fmt: skip
group("call", "call a procedure by its address", """
    FF /2      | Ev *
""", access="r", ends=True, cost="call", inline=True, body="call_indirect")  # fmt: skip
group("ret", "return from a procedure", """
    C3         | *
    C2 iw      | Iw
""", access="c", ends=True, cost="call", inline=True)  # fmt: skip
group("loopnz", "decrement ECX, jump if not zero and ZF=0", """
    E0 cb      | Jb
""", access="c", reads="z", ends=True, cost="branch", inline=True)  # fmt: skip
group("loopz", "decrement ECX, jump if not zero and ZF=1", """
    E1 cb      | Jb
""", access="c", reads="z", ends=True, cost="branch", inline=True)  # fmt: skip
group("loop", "decrement ECX, jump if not zero", """
    E2 cb      | Jb *
""", access="c", ends=True, cost="branch", inline=True)  # fmt: skip
group("jecxz", "jump if ECX is zero", """
    E3 cb      | Jb
""", access="c", ends=True, cost="branch", inline=True)  # fmt: skip
group("nop", "nothing", """
    90         | *
    0F 1F /0   | Ev
""", access="c")  # fmt: skip
group("pause", "nothing, in a spin loop", "F3 90 |")
group("hint_nop55", "nothing; F3 before it and EBX make it ENDBR32, which compilers emit", """
    0F 1E /7   | Ev
""", access="c", body="nop")  # fmt: skip
group("int3", "breakpoint trap", "CC |", ends=True, sensitive="behaviour", cite="3B INT n",
    cost="interrupt", access="",
    leaks="the gate's DPL is held against the real CPL, not the guest's")  # fmt: skip
group("int", "software interrupt", """
    CD ib      | Ib *
""", access="c", ends=True, sensitive="behaviour", cite="3B INT n", cost="interrupt",
    leaks="the gate's DPL is held against the real CPL, not the guest's")  # fmt: skip
group("into", "trap if overflow", "CE |", ends=True, reads="o", sensitive="behaviour",
    cite="3B INT n", cost="interrupt",
    leaks="the gate's DPL is held against the real CPL, not the guest's")  # fmt: skip
group("bound", "trap if the index is out of bounds", """
    62 /r      | Gv,Ma
""", access="rc", cost="load")  # fmt: skip
group("ud2", "raise #UD", "0F 0B |", ends=True)
group("jmp", "far jump", """
    EA cp      | Ap *
""", access="c", ends=True, sensitive="behaviour", cite="3B JMP", cost="far", body="jmp_far",
    leaks="checked against the real CPL: a segment or gate of the guest kernel's ring faults")  # fmt: skip
group("jmp", "far jump through memory", """
    FF /5      | Mp
""", access="c", ends=True, sensitive="behaviour", cite="3B JMP", cost="far", body="jmp_far_mem",
    leaks="checked against the real CPL: a segment or gate of the guest kernel's ring faults")  # fmt: skip
group("call", "far call, also through a call gate", """
    9A cp      | Ap
""", access="c", ends=True, sensitive="behaviour", cite="3B CALL", cost="far", body="call_far",
    leaks="pushes the real CS; checked against the real CPL")  # fmt: skip
group("call", "far call through memory", """
    FF /3      | Mp
""", access="c", ends=True, sensitive="behaviour", cite="3B CALL", cost="far",
    body="call_far_mem", leaks="pushes the real CS; checked against the real CPL")  # fmt: skip
group("retf", "far return", """
    CB         |
""", ends=True, sensitive="behaviour", cite="3B RET", cost="far",
    leaks="a return to ring 0 faults when the guest kernel runs in another ring")  # fmt: skip
group("retf", "far return, releasing parameters", """
    CA iw      | Iw
""", access="c", ends=True, sensitive="behaviour", cite="3B RET", cost="far", body="retf_imm",
    leaks="a return to ring 0 faults when the guest kernel runs in another ring")  # fmt: skip
group("iret", "return from an interrupt", """
    CF         | *
""", ends=True, writes="oszapctidlnrkx", sensitive="both", cite="3B RET (as IRET)", cost="iret",
    leaks="IF and IOPL of the image are silently dropped; a return to ring 0 faults")  # fmt: skip

# -- Strings -----------------------------------------------------------------------------------

for _byte, _name, _title, _operands in (("A4", "movs", "copy a string element", "Y,X"),
                                        ("AA", "stos", "store the accumulator", "Y"),
                                        ("AC", "lods", "load the accumulator", "X")):  # fmt: skip
    for _suffix, _opcode in (("b", _byte), ("w", f"o16 {int(_byte, 16) + 1:02X}"),
                             ("d", f"o32 {int(_byte, 16) + 1:02X}")):  # fmt: skip
        _codes = ",".join(o + _suffix for o in _operands.split(","))
        _star = "*" if _suffix != "w" else ""
        group(_name + _suffix, _title, f"{_opcode} | {_codes} {_star}",
            access="c" * len(_operands.split(",")), reads="d", rep="rep", cost="string",
            body=_name)  # fmt: skip
for _byte, _name, _title, _operands in (("A6", "cmps", "compare string elements", "X,Y"),
                                        ("AE", "scas", "compare the accumulator", "Y")):  # fmt: skip
    for _suffix, _opcode in (("b", _byte), ("w", f"o16 {int(_byte, 16) + 1:02X}"),
                             ("d", f"o32 {int(_byte, 16) + 1:02X}")):  # fmt: skip
        _codes = ",".join(o + _suffix for o in _operands.split(","))
        group(_name + _suffix, _title, f"{_opcode} | {_codes}",
            access="c" * len(_operands.split(",")), reads="d", writes="oszapc", rep="repz",
            cost="string", body=_name)  # fmt: skip
for _byte, _name, _title, _operand in (("6C", "ins", "input a string element", "Y"),
                                       ("6E", "outs", "output a string element", "X")):  # fmt: skip
    for _suffix, _opcode in (("b", _byte), ("w", f"o16 {int(_byte, 16) + 1:02X}"),
                             ("d", f"o32 {int(_byte, 16) + 1:02X}")):  # fmt: skip
        group(_name + _suffix, _title, f"{_opcode} | {_operand}{_suffix}", access="c", reads="d",
            rep="rep", privilege="io", sensitive="both", cost="io", body=_name)  # fmt: skip

# -- Flags -------------------------------------------------------------------------------------

group("cld", "clear the direction flag", "FC | *", writes="d")
group("std", "set the direction flag", "FD |", writes="d")
group("clc", "clear the carry flag", "F8 |", writes="c")
group("stc", "set the carry flag", "F9 |", writes="c")
group("cmc", "complement the carry flag", "F5 |", writes="c", reads="c")
group("cli", "clear the interrupt flag", "FA | *", writes="i", privilege="iopl",
    sensitive="control", ends=True, cost="flags")  # fmt: skip
group("sti", "set the interrupt flag after the next instruction", "FB | *", writes="i",
    privilege="iopl", sensitive="control", ends=True, cost="flags")  # fmt: skip
group("pushf", "push EFLAGS", "9C | *", reads="oszapctidlnrkx", sensitive="behaviour",
    cite="3A PUSHF", cost="stack",
    leaks="shows the real IF and IOPL, not the guest's")  # fmt: skip
group("popf", "pop EFLAGS", "9D | *", writes="oszapctidlnkx", sensitive="both", ends=True,
    cite="3A POPF", cost="flags",
    leaks="IF (unless CPL <= IOPL) and IOPL (unless CPL = 0) are silently dropped")  # fmt: skip

# -- System ------------------------------------------------------------------------------------

group("sgdt", "store GDTR", """
    0F 01 /0   | Ms
""", access="c", sensitive="behaviour", cite="3A SGDT", cost="system",
    leaks="shows the real GDT's base and limit")  # fmt: skip
group("sidt", "store IDTR", """
    0F 01 /1   | Ms *
""", access="c", sensitive="behaviour", cite="3A SIDT", cost="system",
    leaks="shows the real IDT's base and limit")  # fmt: skip
group("sldt", "store the LDT selector", """
    0F 00 /0   | Evw
""", access="c", sensitive="behaviour", cite="3A SLDT", cost="system",
    leaks="shows the real LDTR")  # fmt: skip
group("str", "store the task register", """
    0F 00 /1   | Evw
""", access="c", sensitive="behaviour", cite="3B STR", cost="system",
    leaks="shows the real TR, the hypervisor's")  # fmt: skip
group("smsw", "store the low word of CR0", """
    0F 01 /4   | Evw *
""", access="c", sensitive="behaviour", cite="3A SMSW", cost="system",
    leaks="shows the real CR0: paging, TS and EM as the hypervisor set them")  # fmt: skip
group("lar", "load a descriptor's access rights", """
    0F 02 /r   | Gv,Ew
""", access="cc", writes="z", sensitive="behaviour", cite="3B LAR", cost="system",
    leaks="reads the real descriptor table and holds its DPL against the real CPL")  # fmt: skip
group("lsl", "load a segment limit", """
    0F 03 /r   | Gv,Ew
""", access="cc", writes="z", sensitive="behaviour", cite="3B LSL", cost="system",
    leaks="reads the real descriptor table and holds its DPL against the real CPL")  # fmt: skip
group("verr", "verify a segment for reading", """
    0F 00 /4   | Ew
""", access="c", writes="z", sensitive="behaviour", cite="3B VERR", cost="system",
    leaks="reads the real descriptor table and holds its DPL against the real CPL")  # fmt: skip
group("verw", "verify a segment for writing", """
    0F 00 /5   | Ew
""", access="c", writes="z", sensitive="behaviour", cite="3B VERW", cost="system",
    leaks="reads the real descriptor table and holds its DPL against the real CPL")  # fmt: skip
group("lgdt", "load GDTR", """
    0F 01 /2   | Ms *
""", access="c", privilege="cpl0", sensitive="control", cost="system", ends=True)  # fmt: skip
group("lidt", "load IDTR", """
    0F 01 /3   | Ms *
""", access="c", privilege="cpl0", sensitive="control", cost="system", ends=True)  # fmt: skip
group("lldt", "load LDTR", """
    0F 00 /2   | Ew
""", access="c", privilege="cpl0", sensitive="control", cost="system", ends=True)  # fmt: skip
group("ltr", "load the task register", """
    0F 00 /3   | Ew
""", access="c", privilege="cpl0", sensitive="control", cost="system", ends=True)  # fmt: skip
group("lmsw", "load the low word of CR0", """
    0F 01 /6   | Ew
""", access="c", privilege="cpl0", sensitive="control", cost="cr_write", ends=True)  # fmt: skip
group("clts", "clear CR0.TS", "0F 06 |", privilege="cpl0", sensitive="control", cost="cr_read",
    ends=True)  # fmt: skip
group("invlpg", "invalidate a TLB entry", """
    0F 01 /7   | M
""", access="c", privilege="cpl0", sensitive="control", cost="invlpg", ends=True)  # fmt: skip
group("wbinvd", "write back and invalidate the caches", "0F 09 |", privilege="cpl0",
    sensitive="control", cost="system")  # fmt: skip
group("hlt", "halt until an interrupt", "F4 | *", privilege="cpl0", sensitive="control",
    ends=True, cost="system")  # fmt: skip
group("in", "input from a port", """
    E4 ib      | AL,Ib *
    E5 ib      | eAX,Ib
""", access="cc", privilege="io", sensitive="both", cost="io", ends=True, body="in_imm")  # fmt: skip
group("in", "input from the port in DX", """
    EC         | AL,DX *
    ED         | eAX,DX
""", access="cc", privilege="io", sensitive="both", cost="io", ends=True, body="in_dx")  # fmt: skip
group("out", "output to a port", """
    E6 ib      | Ib,AL *
    E7 ib      | Ib,eAX
""", access="cc", privilege="io", sensitive="both", cost="io", ends=True, body="out_imm")  # fmt: skip
group("out", "output to the port in DX", """
    EE         | DX,AL *
    EF         | DX,eAX
""", access="cc", privilege="io", sensitive="both", cost="io", ends=True, body="out_dx")  # fmt: skip
group("cpuid", "identify the processor", "0F A2 |", cost="cpuid")
group("rdtsc", "read the time-stamp counter (guest ticks)", "0F 31 |", privilege="tsd",
    sensitive="behaviour", cost="system", ends=True)  # fmt: skip
group("rdmsr", "read a model-specific register", "0F 32 |", privilege="cpl0",
    sensitive="behaviour", cost="msr")  # fmt: skip
group("wrmsr", "write a model-specific register", "0F 30 |", privilege="cpl0",
    sensitive="control", cost="msr", ends=True)  # fmt: skip

#: The table. Index is `Row.id`.
ROWS: Final[tuple[Row, ...]] = tuple(_rows)
check_rows(ROWS)

#: Condition codes by number (the low four opcode bits), with every spelling NASM takes; the first
#: is the disassembler's.
CONDITION_NAMES: Final[tuple[tuple[str, ...], ...]] = (
    ("o",), ("no",), ("b", "c", "nae"), ("nb", "nc", "ae"), ("z", "e"), ("nz", "ne"),
    ("be", "na"), ("a", "nbe"), ("s",), ("ns",), ("pe", "p"), ("po", "np"),
    ("l", "nge"), ("nl", "ge"), ("le", "ng"), ("g", "nle"),
)  # fmt: skip

#: Other spellings: name -> (mnemonic of the table, operand size it forces or None).
ALIASES: Final[dict[str, tuple[str, int | None]]] = {
    "pushad": ("pusha", 32), "pushaw": ("pusha", 16), "popad": ("popa", 32),
    "popaw": ("popa", 16), "pushfd": ("pushf", 32), "pushfw": ("pushf", 16),
    "popfd": ("popf", 32), "popfw": ("popf", 16), "iretd": ("iret", 32), "iretw": ("iret", 16),
    "sal": ("shl", None), "xlatb": ("xlat", None), "loope": ("loopz", None),
    "loopne": ("loopnz", None), "retn": ("ret", None), "int03": ("int3", None),
    "jcxz": ("jecxz", None),
}  # fmt: skip

#: Spellings that force an address size in bits: the count is then in CX.
ADDRESS_SIZE_ALIASES: Final[dict[str, int]] = {"jcxz": 16}


def rows_of(mnemonic: str) -> tuple[Row, ...]:
    """The rows of a mnemonic, alias or conditional spelling (``jz``); empty if unknown."""
    name = ALIASES.get(mnemonic, (mnemonic, None))[0]
    for prefix in ("set", "cmov", "j"):
        if name.startswith(prefix) and condition_number(name[len(prefix) :]) is not None:
            name = prefix + "cc"
    return tuple(row for row in ROWS if row.mnemonic == name)


def condition_number(suffix: str) -> int | None:
    """The condition code a suffix names (``nz`` -> 5), or None."""
    for number, names in enumerate(CONDITION_NAMES):
        if suffix in names:
            return number
    return None
