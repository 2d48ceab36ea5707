"""Rows: the string instructions, ports included.

`isa/table.py` says how rows are written; they are laid out as a table, not as code.
"""
# fmt: off

from __future__ import annotations

from isa.rows.group import Rows

rows = Rows()
group = rows.group

for _byte, _name, _title, _operands in (("A4", "movs", "copy a string element", "Y,X"),
                                        ("AA", "stos", "store the accumulator", "Y"),
                                        ("AC", "lods", "load the accumulator", "X")):
    for _suffix, _opcode in (("b", _byte), ("w", f"o16 {int(_byte, 16) + 1:02X}"),
                             ("d", f"o32 {int(_byte, 16) + 1:02X}")):
        _codes = ",".join(o + _suffix for o in _operands.split(","))
        _star = "*" if _suffix != "w" else ""
        group(_name + _suffix, _title, f"{_opcode} | {_codes} {_star}",
            access="c" * len(_operands.split(",")), reads="d", rep="rep", cost="string",
            body=_name)
for _byte, _name, _title, _operands in (("A6", "cmps", "compare string elements", "X,Y"),
                                        ("AE", "scas", "compare the accumulator", "Y")):
    for _suffix, _opcode in (("b", _byte), ("w", f"o16 {int(_byte, 16) + 1:02X}"),
                             ("d", f"o32 {int(_byte, 16) + 1:02X}")):
        _codes = ",".join(o + _suffix for o in _operands.split(","))
        group(_name + _suffix, _title, f"{_opcode} | {_codes}",
            access="c" * len(_operands.split(",")), reads="d", writes="oszapc", rep="repz",
            cost="string", body=_name)
for _byte, _name, _title, _operand, _sensitive in (
    ("6C", "ins", "input a string element", "Y", "both"),
    ("6E", "outs", "output a string element", "X", "control"),
):
    for _suffix, _opcode in (("b", _byte), ("w", f"o16 {int(_byte, 16) + 1:02X}"),
                             ("d", f"o32 {int(_byte, 16) + 1:02X}")):
        group(_name + _suffix, _title, f"{_opcode} | {_operand}{_suffix}", access="c", reads="d",
            rep="rep", privilege="io", sensitive=_sensitive, cost="io", body=_name)
