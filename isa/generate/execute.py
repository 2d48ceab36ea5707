"""The executor's cases: each instruction body, with its operands fetched and stored around it.

A *case* is a body at one operand size, one form of its memory operand and, for hot rows, with its
flags wanted or dead. Rows that differ only in encoding share their cases. Hot rows (column
`inline`) become labels of the dispatch loop, isa_cases.h; all others become functions behind one
label, isa_cold.h; isa_ops.h numbers them and says which case a decoded row takes.

A body whose operands are all plain (access r, w, u, a) is a function of their values: it returns
what it writes, or takes pointers where it writes two. Any other body fetches its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from isa.generate.slots import (
    bits,
    has_memory_form,
    has_register_form,
    kind,
    row_bits,
    slots,
)
from isa.row import Row
from isa.table import ROWS

FORMS = ("REG", "BASE", "INDEX", "FIXED", "ANY")
#: Suffix of the access functions where a form's limit has been checked; csrc/tlb.h.
CHECKED = {"BASE": "", "INDEX": "", "FIXED": "_any", "ANY": "_any"}
SIZES = (32, 16)
CONDITIONS = 16
#: Suffix of the name of a case that is fused with the conditional jump after it.
FUSED = "_jcc"


@dataclass(frozen=True, slots=True)
class Case:
    """One instance of a body."""

    name: str
    code: str
    hot: bool
    ends: bool
    count: int = 1  #: sixteen for a conditional jump: one for each condition


def _is_value(row: Row) -> bool:
    return bool(row.access) and set(row.access) <= set("rwua") and "number" not in slots(row)


def _is_branch(row: Row) -> bool:
    return any(kind(o) == "J" for o in row.operands)


def _forms(row: Row, size: int) -> tuple[str, ...]:
    """The forms a row has cases for at an operand size, first to last resort."""
    forms = ["REG"] if has_register_form(row) else []
    if has_memory_form(row):
        fast = row.inline and _is_value(row) and row_bits(row, size) != 16
        forms += ["BASE", "INDEX"] if fast else []
        # Of what moves data, for words that a kernel or a program's thread has through FS or GS.
        forms += ["FIXED", "ANY"] if fast and not row.writes else ["ANY"]
    return tuple(forms)


def _read(row: Row, i: int, size: int, form: str) -> str:
    """A C expression of operand i's value."""
    operand, slot, access = row.operands[i], slots(row)[i], row.access[i]
    width = bits(operand, size)
    if access == "a":
        return f"form_offset(cpu, in, FORM_{form})"
    if slot == "cl":
        return "get_gpr(cpu, ECX, 8)"
    if slot in ("imm", "imm2"):
        return "in->immediate" if slot == "imm" else "in->immediate2"
    if slot == "rm" and form != "REG":
        load = "load_update" if access == "u" else f"load{CHECKED[form]}"
        return f"{load}(cpu, in, at, {width // 8})"
    return f"get_reg(cpu, in->{slot}, {width})"


def _write(row: Row, i: int, size: int, form: str, value: str) -> str:
    slot, width = slots(row)[i], bits(row.operands[i], size)
    if slot == "rm" and form != "REG":
        return f"store{CHECKED[form]}(cpu, in, at, {width // 8}, {value});"
    return f"set_reg(cpu, in->{slot}, {width}, {value});"


def _memory(row: Row, size: int, form: str) -> list[str]:
    """The statement that finds the memory operand, if it is accessed."""
    for operand, slot, access in zip(row.operands, slots(row), row.access, strict=True):
        if slot == "rm" and form != "REG" and access != "a":
            write = "true" if access in "wu" else "false"
            bytes_ = bits(operand, size) // 8
            return [f"u32 at = form_linear(cpu, in, FORM_{form}, {bytes_}, {write});"]
    return []


def _value_code(row: Row, size: int, form: str, shape: str) -> str:
    """Fetch, call, store: for a body that is a function of values."""
    lines = _memory(row, size, form)
    arguments = ["cpu", "in", shape]
    written = [i for i, access in enumerate(row.access) if access in "wu"]
    for i, access in enumerate(row.access):
        if access == "w" and len(written) < 2:
            continue
        lines.append(f"u32 v{i} = {_read(row, i, size, form)};")
        arguments.append(f"&v{i}" if len(written) > 1 else f"v{i}")
    call = f"op_{row.body}({', '.join(arguments)})"
    if len(written) == 1:
        lines += [f"u32 result = {call};", _write(row, written[0], size, form, "result")]
    else:
        lines.append(f"{call};")
        # The destination last, as XADD of a register with itself shows.
        order = sorted(written, reverse=form == "REG")
        lines += [_write(row, i, size, form, f"v{i}") for i in order]
    return " ".join(lines)


def _check(row: Row) -> str:
    return {"cpl0": "check_cpl0(cpu); ", "iopl": "check_iopl(cpu); "}.get(row.privilege, "")


def _case(row: Row, size: int, form: str, dead: bool) -> Case:
    width = row_bits(row, size)
    operands = "_".join(
        slot + str(bits(o, size)) for o, slot in zip(row.operands, slots(row), strict=True)
    )
    name = f"{row.body}_{width}_{operands or 'none'}_{form.lower()}" + ("_dead" if dead else "")
    shape = f"((Shape){{{width}, FORM_{form}, {'false' if dead else 'true'}}})"
    if _is_branch(row):
        condition = "CC" if row.parsed.low == "cc" else "in->cc"
        code = f"if (op_{row.body}(cpu, in, {shape}, {condition})) TAKE(0); else TAKE(1);"
        return Case(row.body, code, True, True, CONDITIONS if row.parsed.low == "cc" else 1)
    if _is_value(row):
        code = _check(row) + _value_code(row, size, form, shape)
    else:
        code = _check(row) + f"op_{row.body}(cpu, in, {shape});"
    return Case(name, code, row.inline, row.ends)


def _fused(row: Row, form: str, case: Case) -> Case:
    """A comparison and the conditional jump after it: EIP's instruction is the jump at the end."""
    size = row_bits(row, 32)
    fetch = case.code.rsplit(f"op_{row.body}(", 1)[0]
    code = f"{case.code} in++; if ({row.body}_condition(v0, v1, {size}, CC)) TAKE(0); else TAKE(1);"
    assert fetch.count("u32 v") == 2, row
    return Case(case.name + FUSED, code, True, True, CONDITIONS)


def cases() -> tuple[dict[str, Case], dict[tuple[int, int, str, bool], str]]:
    """All cases by name, and which a row takes: (row, size, form, flags dead) -> name."""
    by_name: dict[str, Case] = {}
    chosen: dict[tuple[int, int, str, bool], str] = {}
    for row in ROWS:
        for size in SIZES:
            forms = _forms(row, size)
            may_die = row.inline and row.writes != "" and not row.ends and size == 32
            for form in FORMS:
                for dead in (False, True):
                    if form == "REG" and "REG" not in forms:
                        continue
                    own = form if form in forms else "ANY" if "ANY" in forms else forms[0]
                    case = _case(row, size, own, dead and may_die)
                    by_name.setdefault(case.name, case)
                    if row.fuses and own != "INDEX" and not dead and row_bits(row, size) != 16:
                        fused = _fused(row, own, case)
                        by_name.setdefault(fused.name, fused)
                    chosen[row.id, size, form, dead] = case.name
    return by_name, chosen


def numbers() -> dict[str, int]:
    """Case name -> op id: hot cases first, those that end a block last among the cold."""
    by_name, _ = cases()
    order = sorted(by_name.values(), key=lambda c: (not c.hot, not c.hot and c.ends))
    result: dict[str, int] = {}
    following = FIRST_CASE
    for case in order:
        result[case.name] = following
        following += case.count
    return result


#: Ops of the executor's own, and their code. They come first: see enum special_op in isa_ops.h.
SPECIAL = {
    "OP_END": "TAKE(0);",
    "OP_REPEAT": "INDIRECT;",
    "OP_STOP": "(void)in; resume_at_stop(cpu); return;",
    "OP_GUARD": "guard(cpu, in); NEXT;",
    "OP_POLL": "if (unlikely(cpu->left <= 0 || cpu->request)) { hold(cpu); return; } NEXT;",
    "OP_BREAK": "report_breakpoint(cpu, in); NEXT;",
}
FIRST_CASE = len(SPECIAL)


def render_ops() -> str:
    """isa_ops.h: op ids, and the op of each row."""
    by_name, chosen = cases()
    ids = numbers()
    cold = [name for name in ids if not by_name[name].hot]
    ending = [name for name in cold if by_name[name].ends]
    first_cold = ids[cold[0]]
    lines = []
    for row in ROWS:
        cells = [
            "{" + ", ".join(_pair(ids, chosen, row, size, form) for form in FORMS) + "}"
            for size in SIZES
        ]
        lines.append(f"    {{{', '.join(cells)}}}, /* {row.id}: {row} */")
    text = "\n".join(lines)
    fused = ", ".join(f"[{ids[n.removesuffix(FUSED)]}] = {i}" for n, i in ids.items()
                      if n.endswith(FUSED))  # fmt: skip
    return f"""/* Generated from the instruction table by isa/generate/execute.py. */
#ifndef ISA_OPS_H
#define ISA_OPS_H
#include "isa_rows.h"
/* End of a block that nothing else ended, or a repeat; stop here; intercepts; may a block run that
   no tick ends; breakpoint. */
enum special_op {{ {", ".join(SPECIAL)} }};
enum {{
    OP_FIRST_COLD = {first_cold},
    OP_FIRST_COLD_END = {ids[ending[0]]},
    OP_COUNT = {first_cold + len(cold)},
    OP_CALL = {ids["call"]},
    OP_JCC = {ids["jcc"]} /* and the fifteen after it */
}};
/* [row][operand size: 0 is 32 bits, 1 is 16][form][0: flags wanted, 1: flags dead] */
static const uint16_t row_ops[ROW_COUNT][2][5][2] = {{
{text}
}};
/* By op: the first of the sixteen ops that it and a conditional jump after it become, or 0. */
static const uint16_t fused_ops[OP_FIRST_COLD] = {{{fused}}};
#endif
"""


def _pair(
    ids: dict[str, int],
    chosen: dict[tuple[int, int, str, bool], str],
    row: Row,
    size: int,
    form: str,
) -> str:
    names = [chosen.get((row.id, size, form, dead)) for dead in (False, True)]
    return "{" + ", ".join(str(ids[name]) if name else "0" for name in names) + "}"


def _finish(case: Case) -> str:
    """What follows the body: returns and indirect jumps have their targets checked once missed."""
    if not case.ends:
        return "NEXT;"
    if "TAKE(" in case.code:
        return ""
    if "op_ret(" in case.code:
        return "RETURN;"
    return "JUMP;" if "op_jmp_indirect(" in case.code else "INDIRECT;"


def _hot() -> list[tuple[str, str]]:
    """(label, code) of each op of the dispatch loop, in the order of op ids."""
    by_name, _ = cases()
    result = [(f"L_{name}", code) for name, code in SPECIAL.items()]
    for name in (n for n in numbers() if by_name[n].hot):
        case = by_name[name]
        finish = _finish(case)
        for cc in range(case.count):
            label = f"{name}_{cc}" if case.count > 1 else name
            code = case.code.replace(" CC)", f" {cc})")
            result.append((f"L_{label}", f"{code} {finish}".rstrip()))
    return result


def render_labels() -> str:
    """isa_labels.h: the labels of isa_cases.h by op id, then two for all that is cold."""
    text = "\n".join(f"LABEL({label})," for label, _ in _hot())
    return f"""/* Generated from the instruction table by isa/generate/execute.py. */
{text}
[OP_FIRST_COLD ... OP_FIRST_COLD_END - 1] = LABEL(cold),
[OP_FIRST_COLD_END ... OP_COUNT - 1] = LABEL(cold_end)
"""


def render_cases() -> str:
    """isa_cases.h: the code of these ops, each behind CASE(label), for the dispatch loop."""
    text = "\n".join(f"CASE({label}) {{ {code} }}" for label, code in _hot())
    return f"/* Generated from the instruction table by isa/generate/execute.py. */\n{text}\n"


def render_cold() -> str:
    """isa_cold.h: a function a case, and their table."""
    by_name, _ = cases()
    cold = [name for name in numbers() if not by_name[name].hot]
    functions = "\n".join(
        f"static void x_{name}(Cpu *cpu, const Insn *in) {{ (void)in; {by_name[name].code} }}"
        for name in cold
    )
    table = ",\n    ".join(f"x_{name}" for name in cold)
    return f"""/* Generated from the instruction table by isa/generate/execute.py. */
{functions}
void (*const cold_ops[OP_COUNT - OP_FIRST_COLD])(Cpu *, const Insn *) = {{
    {table}
}};
"""
