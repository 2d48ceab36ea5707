"""The table as people read it: the reference page, the newcomer's card, one mnemonic explained.

All text is made from the columns of `isa/table.py`, `isa/exceptions.py` and `isa/cost.py`, so that
no page can say what the machine does not do. ``python -m isa.reference --write`` renders
`isa/REFERENCE.md` anew; a test fails while it is stale. `card` is what ``seventeen isa`` prints,
`describe` what ``seventeen isa popf`` does.
"""

from __future__ import annotations

import argparse
import difflib
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from isa.cost import INSTRUCTION_CYCLES, MODELS, Cost, CostModel
from isa.errors import MnemonicError
from isa.exceptions import EXCEPTIONS, Contribution
from isa.row import Row, Undefined
from isa.table import ALIASES, CONDITION_NAMES, ROWS, rows_of

PAGE: Final = Path(__file__).with_name("REFERENCE.md")
WIDTH: Final = 80  #: columns of `card` and `describe`

#: The SDM's names of the flags, by the letters of `isa.row.FLAG_BITS`.
FLAG_NAMES: Final = {
    "o": "OF", "d": "DF", "i": "IF", "t": "TF", "s": "SF", "z": "ZF", "a": "AF", "p": "PF",
    "c": "CF", "l": "IOPL", "n": "NT", "r": "RF", "k": "AC", "v": "VM", "x": "ID",
}  # fmt: skip

#: Whether a privileged row traps, by its `privilege` column.
TRAPS: Final = {
    "cpl0": "#GP(0) if CPL > 0",
    "iopl": "#GP(0) if CPL > IOPL",
    "io": "#GP(0) if CPL > IOPL and the TSS's bitmap does not allow the port",
    "tsd": "#GP(0) if CPL > 0 and CR4.TSD = 1",
}
#: What a translator makes of a kernel's instruction, by the `translation` column.
TRANSLATED: Final = {
    "identical": "",
    "code": "code without an exit, in a translation",
    "callout": "a callout, in a translation",
}
#: Sections of Robin and Irvine (2000) as the `cite` column abbreviates them.
SECTIONS: Final = {
    "3A": "3.2.1, sensitive register instructions",
    "3B": "3.2.2, protection system references",
}
SENSITIVITIES: Final = {
    "control": "control-sensitive",
    "behaviour": "behaviour-sensitive",
    "both": "control- and behaviour-sensitive",
}
VERDICTS: Final = {
    "safe": "In every ring alike",
    "privileged": "Trap when not allowed",
    "sensitive": "Sensitive, and trap when not allowed",
    "unsafe": "Unsafe: sensitive, and do not trap",
}

#: Operand codes in the SDM's other notation, by code; a width follows from the operand size.
_SPELLED: Final = {
    "Eb": "r/m8", "Ew": "r/m16", "Ev": "r/m16/32", "Evw": "r16/32/m16", "Gb": "r8",
    "Gv": "r16/32", "Rd": "r32", "Zb": "r8", "Zv": "r16/32", "Sw": "sreg", "Cd": "cr", "Dd": "dr",
    "Ib": "imm8", "Iw": "imm16", "Iz": "imm16/32", "Ibs": "imm8 (signed)", "Jb": "rel8",
    "Jz": "rel16/32", "Ap": "ptr16:16/32", "M": "m", "Mp": "m16:16/32", "Ms": "m16&32",
    "Ma": "m16/32&16/32", "Mq": "m64", "Ob": "moffs8", "Ov": "moffs16/32", "eAX": "(e)ax",
}  # fmt: skip


def spell_operand(code: str) -> str:
    """An operand code in the words of the SDM's instruction pages: ``Ev`` -> ``r/m16/32``."""
    if code[0] in "XY":
        return "[ds:esi]" if code[0] == "X" else "[es:edi]"
    return _SPELLED.get(code, code.lower())


def flag_names(letters: str) -> str:
    """``oszapc`` -> ``OF SF ZF AF PF CF``, in the order of `FLAG_NAMES`."""
    return " ".join(name for letter, name in FLAG_NAMES.items() if letter in letters)


def _undefined_text(undefined: Iterable[Undefined]) -> str:
    parts = []
    for entry in undefined:
        names = ["result"] * ("*" in entry.what) + flag_names(entry.what).split()
        condition = "" if entry.condition == "always" else f" if {entry.condition}"
        parts.append(" ".join(names) + condition)
    return "; ".join(parts)


def by_mnemonic(rows: Iterable[Row] = ROWS) -> dict[str, list[Row]]:
    """Rows under their mnemonics, in the table's order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.mnemonic, []).append(row)
    return found


# -- The reference page ------------------------------------------------------------------------


def _table(header: str, lines: Iterable[Iterable[object]]) -> Iterator[str]:
    """A Markdown table; `header` names the columns, separated by bars."""
    names = [name.strip() for name in header.split("|")]
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)
    for line in lines:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |"
    yield ""


def _instruction_line(row: Row, first: bool) -> list[str]:
    return [
        f"**{row.mnemonic}**" if first else "",
        f"`{row.opcode}`",
        " ".join(["`" + ",".join(row.operands) + "`"] * bool(row.operands)),
        row.title,
        flag_names(row.writes),
        _undefined_text(row.undefined),
        TRAPS.get(row.privilege, ""),
        row.verdict + (f" ({row.sensitive})" if row.sensitive else ""),
        str(INSTRUCTION_CYCLES[row.cost]),
        "" if row.translation == "identical" else row.translation,
    ]


def _instruction_lines() -> Iterator[str]:
    header = "mnemonic|opcode|operands|what|writes|undefined|traps|class|cycles|translated"
    yield from _table(
        header,
        (
            _instruction_line(row, first=row is rows[0])
            for rows in by_mnemonic().values()
            for row in rows
        ),
    )


def _unsafe_lines() -> Iterator[str]:
    """One line for each name Robin and Irvine give, with our rows and what they leak."""
    cited: dict[str, list[Row]] = {}
    for row in ROWS:
        if row.unsafe:
            cited.setdefault(row.cite, []).append(row)
    for short, section in SECTIONS.items():
        yield f"Section {section}:\n"
        lines = []
        for cite in sorted(c for c in cited if c.startswith(short)):
            for leak in dict.fromkeys(row.leaks for row in cited[cite]):
                rows = [row for row in cited[cite] if row.leaks == leak]
                names = ", ".join(f"`{name}`" for name in by_mnemonic(rows))
                opcodes = ", ".join(f"`{row.opcode}`" for row in rows)
                lines.append([cite.split(" ", 1)[1], names, opcodes, leak])
        yield from _table("their name|here|encodings|what leaks or is silently dropped", lines)


def _exception_lines() -> Iterator[str]:
    yield from _table(
        "vector|mnemonic|name|kind|error code|in double faults",
        (
            [
                row.vector, row.mnemonic, row.name, row.kind.value,
                "yes" if row.error_code else "",
                "" if row.contribution is Contribution.BENIGN else row.contribution.value,
            ]
            for row in EXCEPTIONS
            if row.vector < 20
        ),
    )  # fmt: skip
    yield "Vectors 20-31 are reserved.\n"


def _cost_lines(model: CostModel) -> Iterator[str]:
    def lines(costs: Iterable[Cost]) -> Iterator[list[object]]:
        return ([f"`{c.key}`", c.cycles, c.what, c.source] for c in costs)

    yield f"### {model.title}\n"
    yield "Instructions, by the table's `cost` column:\n"
    yield from _table("key|cycles|what|source", lines(model.instructions))
    yield "Events, charged where they happen:\n"
    yield from _table("key|cycles|what|source", lines(model.events))


_HEAD: Final = """\
# The instruction set

Rendered from `isa/table.py`, `isa/exceptions.py` and `isa/cost.py` by `make reference`; edit those.

{count} encodings of {names} mnemonics. Opcodes and operand codes are the SDM's (volume 2, appendix
A); `isa/row.py` explains both. A flag "undefined" is not compared with silicon. Classes are Popek
and Goldberg's (1974): a sensitive instruction reads (behaviour) or changes (control) the machine's
configuration; a privileged one traps where it is not allowed; an unsafe one is sensitive and does
not trap. "Translated" says what the technique `translate` makes of a kernel's instruction, if not
the same bytes: code that needs no exit (for usual operands, and not to load SS), or a callout;
`make bench` times them.
"""

_UNSAFE: Final = """\
## The unsafe instructions

J. S. Robin and C. E. Irvine, "Analysis of the Intel Pentium's Ability to Support a Secure Virtual
Machine Monitor" (2000), name SGDT SIDT SLDT SMSW PUSHF POPF and LAR LSL VERR VERW POP PUSH CALL JMP
INT RET STR MOV: seventeen or eighteen, as one counts. IRET, INT3, INTO and the far-pointer loads
(LDS and its like) come under the same reasoning, and so they are listed under the nearest name.
"""


def render() -> str:
    """The text of `REFERENCE.md`."""
    parts = [
        _HEAD.format(count=len(ROWS), names=len(by_mnemonic())),
        "## Instructions\n",
        *_instruction_lines(),
        _UNSAFE,
        *_unsafe_lines(),
        "## Exceptions\n",
        *_exception_lines(),
        "## Cycle costs\n",
        "Approximate; `isa/cost.py` says what the model leaves out and how to read it.\n",
    ]
    for model in MODELS:
        parts += _cost_lines(model)
    return "\n".join(parts).rstrip() + "\n"


# -- The newcomer's card -----------------------------------------------------------------------


def _card_entries() -> dict[str, list[str]]:
    """Verdict -> entries; string instructions of several sizes share one: ``movsb/d``."""
    merged: dict[tuple[str, str, str], list[str]] = {}
    for row in ROWS:
        if row.tour:
            string = row.operands and row.operands[0][0] in "XY"
            name, size = (row.mnemonic[:-1], row.mnemonic[-1]) if string else (row.mnemonic, "")
            sizes = merged.setdefault((row.verdict, name, row.title), [])
            if size not in sizes:
                sizes.append(size)
    entries: dict[str, list[str]] = {}
    for (verdict, name, title), sizes in merged.items():
        entries.setdefault(verdict, []).append(f"{name + '/'.join(sizes):<7} {_short(title)}")
    return entries


def _short(title: str) -> str:
    """A title cut to half a line: first what follows a colon goes, then the articles."""
    room = WIDTH // 2 - 9
    for change in ((r":.*", ""), (r"\b(an?|the) ", "")):
        if len(title) > room:
            title = re.sub(*change, title)
    return textwrap.shorten(title, room, placeholder="...")


def card() -> str:
    """The rows of the tour on one screen, by class; at most 80 columns wide."""
    tour = by_mnemonic(row for row in ROWS if row.tour)
    lines = [f"The newcomer's card: {len(tour)} of {len(by_mnemonic())} mnemonics."]
    entries = _card_entries()
    for verdict, title in VERDICTS.items():
        found = entries.get(verdict, [])
        if not found:
            continue
        lines.append(f"{title}:")
        half = (len(found) + 1) // 2
        for left, right in zip(found[:half], [*found[half:], ""], strict=False):
            lines.append(f"  {left:<{WIDTH // 2 - 1}}{right}".rstrip())
    lines.append("`seventeen isa popf` explains one mnemonic; isa/REFERENCE.md has them all.")
    return "\n".join(lines) + "\n"


# -- One mnemonic ------------------------------------------------------------------------------


def _encodings(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        operands = ", ".join(map(spell_operand, row.operands))
        text = f"{row.mnemonic} {operands}".rstrip()
        line = f"  {row.opcode:<12} {text:<32} "
        yield (line + textwrap.shorten(row.title, WIDTH - len(line), placeholder="...")).rstrip()


def _traps_text(row: Row) -> str:
    if row.privileged:
        return TRAPS[row.privilege]
    if row.unsafe:
        return "no privilege check: outside ring 0 it runs, and no hypervisor is told"
    return "no privilege check: it does the same in every ring"


def _prefixes_text(row: Row) -> str:
    lock = ["LOCK where the destination is memory"] * row.lock
    repeats = {"": [], "rep": ["REP"], "repz": ["REPZ REPNZ"]}[row.rep]
    return "; ".join(lock + repeats)


def _class_text(row: Row) -> str:
    if not row.sensitive:
        return row.verdict
    return f"{row.verdict} ({SENSITIVITIES[row.sensitive]})"


def _facts(row: Row) -> dict[str, str]:
    """What is worth saying of a row beside its encoding; equal rows say the same."""
    section, _, name = row.cite.partition(" ")
    return {
        "class": _class_text(row),
        "leaks": row.leaks,
        "traps": _traps_text(row),
        "prefixes": _prefixes_text(row),
        "writes": flag_names(row.writes),
        "reads": flag_names(row.reads),
        "undefined": _undefined_text(row.undefined),
        "cycles": str(INSTRUCTION_CYCLES[row.cost]),
        "becomes": TRANSLATED[row.translation],
        "source": f"Robin and Irvine 2000, {SECTIONS[section]}: {name}" if row.cite else "",
    }


def _conditions(rows: Iterable[Row]) -> Iterator[str]:
    if any(row.parsed.low == "cc" for row in rows):
        names = " ".join("/".join(names) for names in CONDITION_NAMES)
        yield "Conditions, by number:"
        yield textwrap.fill(names, WIDTH, initial_indent="  ", subsequent_indent="  ")


def describe(mnemonic: str) -> str:
    """All that the table says of one mnemonic, alias or condition; `MnemonicError` if unknown."""
    rows = rows_of(mnemonic.lower())
    if not rows:
        known = sorted({row.mnemonic for row in ROWS} | set(ALIASES))
        close = difflib.get_close_matches(mnemonic.lower(), known, 3)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise MnemonicError(f"no instruction {mnemonic!r} in the table{hint}")
    same: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row in rows:
        same.setdefault(tuple(_facts(row).items()), []).append(row)
    lines: list[str] = []
    for facts, alike in same.items():
        lines += _encodings(alike)
        for name, text in facts:
            if text:
                indent = " " * 16
                head = f"      {name:<10}"
                lines.append(textwrap.fill(text, WIDTH, initial_indent=head,
                                           subsequent_indent=indent))  # fmt: skip
        lines.append("")
    lines += _conditions(rows)
    title = f"{rows[0].mnemonic}: {'; '.join(dict.fromkeys(row.title for row in rows))}"
    return "\n".join([*textwrap.wrap(title, WIDTH), *lines]).rstrip() + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Print the reference page, or write it to its file."""
    parser = argparse.ArgumentParser(prog="python -m isa.reference", description=main.__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    if parser.parse_args(arguments).write:
        PAGE.write_text(render(), encoding="utf-8")
    else:
        print(render(), end="")


if __name__ == "__main__":
    main()
