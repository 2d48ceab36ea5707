"""Rows: logic, shifts, rotates and bits.

`isa/table.py` says how rows are written; they are laid out as a table, not as code.
"""
# fmt: off

from __future__ import annotations

from isa.rows.group import Rows

rows = Rows()
group = rows.group

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
""", access="ur", writes="oszapc", undefined="a", lock=True, inline=True)
group("not", "bitwise not", """
    F6 /2      | Eb
    F7 /2      | Ev *
""", access="u", lock=True, inline=True)
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
    order="any")
for _digit, _name, _title in ((4, "shl", "shift left"), (5, "shr", "shift right"),
                              (6, "shl", "shift left (alias)"),
                              (7, "sar", "shift right, keep the sign")):
    _star = "" if _digit == 6 else "*"
    group(_name, _title, f"""
    C0 /{_digit} ib | Eb,Ib {_star}
    C1 /{_digit} ib | Ev,Ib {_star}
    D0 /{_digit}    | Eb,1 {_star}
    D1 /{_digit}    | Ev,1 {_star}
    D2 /{_digit}    | Eb,CL {_star}
    D3 /{_digit}    | Ev,CL {_star}
""", access="ur", writes="oszapc", reads="oszapc", counted="", cost="shift", inline=True,
        undefined="a:count!=0 o:count>1" + ("" if _name == "sar" else " c:count>=size"))
for _digit, _name, _title in ((0, "rol", "rotate left"), (1, "ror", "rotate right"),
                              (2, "rcl", "rotate left through carry"),
                              (3, "rcr", "rotate right through carry")):
    group(_name, _title, f"""
    C0 /{_digit} ib | Eb,Ib
    C1 /{_digit} ib | Ev,Ib
    D0 /{_digit}    | Eb,1
    D1 /{_digit}    | Ev,1
    D2 /{_digit}    | Eb,CL
    D3 /{_digit}    | Ev,CL
""", access="ur", writes="oc", reads="oszapc", counted="c" if _digit > 1 else "", cost="shift",
        inline=_digit < 2, undefined="o:count>1")
for _byte, _name, _title in (("A4", "shld", "shift left, filling from a register"),
                             ("AC", "shrd", "shift right, filling from a register")):
    _with_cl = f"{int(_byte, 16) + 1:02X}"
    group(_name, _title, f"""
    0F {_byte} /r ib  | Ev,Gv,Ib
    0F {_with_cl} /r  | Ev,Gv,CL
""", access="urr", writes="oszapc", reads="oszapc", counted="", cost="shift", inline=True,
        undefined="a:count!=0 o:count>1 *oszpc:count>size")
for _digit, _byte, _name, _title in ((4, "A3", "bt", "test a bit"),
                                     (5, "AB", "bts", "test and set a bit"),
                                     (6, "B3", "btr", "test and reset a bit"),
                                     (7, "BB", "btc", "test and complement a bit")):
    for _opcode, _operands, _body in ((f"0F {_byte} /r", "Ev,Gv", _name),
                                      (f"0F BA /{_digit} ib", "Ev,Ib", _name + "_imm")):
        group(_name, _title, f"{_opcode} | {_operands}", access="cr", writes="oszapc", reads="z",
              undefined="osap", lock=_name != "bt", body=_body)
group("bsf", "lowest set bit", """
    0F BC /r   | Gv,Ev
""", access="ur", writes="oszapc", undefined="osapc *:source=0", cost="shift", inline=True)
group("bsr", "highest set bit", """
    0F BD /r   | Gv,Ev
""", access="ur", writes="oszapc", undefined="osapc *:source=0", cost="shift", inline=True)
group("setcc", "one if the condition holds, else zero", """
    0F 90+cc /r | Eb
""", access="w", reads="oszpc", inline=True)
