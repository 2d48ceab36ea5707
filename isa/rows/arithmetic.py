"""Rows: binary and decimal arithmetic.

`isa/table.py` says how rows are written; they are laid out as a table, not as code.
"""
# fmt: off

from __future__ import annotations

from isa.rows.group import Rows

rows = Rows()
group = rows.group

for _number, _name, _title in ((0, "add", "add"), (2, "adc", "add with carry"),
                               (3, "sbb", "subtract with borrow"), (5, "sub", "subtract")):
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
""", access="ur", writes="oszapc", reads=_carry, lock=True, inline=True)
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
""", access="rr", writes="oszapc", inline=True, fuses=True)
group("inc", "add one", """
    40+r       | Zv *
    FE /0      | Eb *
    FF /0      | Ev *
""", access="u", writes="oszap", lock=True, inline=True)
group("dec", "subtract one", """
    48+r       | Zv *
    FE /1      | Eb *
    FF /1      | Ev *
""", access="u", writes="oszap", lock=True, inline=True)
group("neg", "negate", """
    F6 /3      | Eb
    F7 /3      | Ev *
""", access="u", writes="oszapc", lock=True, inline=True)
group("mul", "multiply unsigned: accumulator by operand", """
    F6 /4      | Eb
    F7 /4      | Ev *
""", access="r", writes="oszapc", undefined="szap", cost="mul")
group("imul", "multiply signed: accumulator by operand", """
    F6 /5      | Eb
    F7 /5      | Ev
""", access="r", writes="oszapc", undefined="szap", cost="mul", body="imul_wide")
group("imul", "multiply signed", """
    0F AF /r     | Gv,Ev    | ur *
    69 /r iz     | Gv,Ev,Iz | wrr *
    6B /r ib     | Gv,Ev,Ibs| wrr *
""", writes="oszapc", undefined="szap", cost="mul", inline=True)
group("div", "divide unsigned: accumulator by operand", """
    F6 /6      | Eb
    F7 /6      | Ev *
""", access="r", writes="oszapc", undefined="oszapc", cost="div")
group("idiv", "divide signed: accumulator by operand", """
    F6 /7      | Eb
    F7 /7      | Ev
""", access="r", writes="oszapc", undefined="oszapc", cost="div")
group("daa", "decimal adjust after addition", "27 |", writes="oszapc", reads="ac", undefined="o")
group("das", "decimal adjust after subtraction", "2F |", writes="oszapc", reads="ac",
    undefined="o")
group("aaa", "ASCII adjust after addition", "37 |", writes="oszapc", reads="a", undefined="oszp")
group("aas", "ASCII adjust after subtraction", "3F |", writes="oszapc", reads="a",
    undefined="oszp")
group("aam", "ASCII adjust after multiplication", """
    D4 ib      | Ib
""", access="r", writes="oszapc", undefined="oac", cost="div", omitted=10)
group("aad", "ASCII adjust before division", """
    D5 ib      | Ib
""", access="r", writes="oszapc", undefined="oac", cost="mul", omitted=10)
