"""Bytes against NASM: every row of the table, every form of its operands.

Thousands of instructions, some NASM refuses; all it takes must come out the same here. Those that
it takes and we do not are listed with the reason, and only those.
"""

from __future__ import annotations

import re

import pytest

from isa.assembler import assemble
from isa.errors import AssemblyError
from tests.assembler import forms, nasm

pytestmark = pytest.mark.skipif(not nasm.available, reason=nasm.MISSING)

#: What NASM takes and we refuse, on purpose: pattern of line and error -> reason.
REFUSED = {
    r"^o32 .*o32 contradicts": "NASM drops the 66 and makes a 32-bit instruction of a 16-bit one",
    r"^o16 .*(short jump is out|o16 needs)": "NASM's near jump with o16 has two bytes too many",
}
#: What NASM makes something else of.
ODD = {r" f?wait$": "NASM takes WAIT for a prefix, and puts it before the others"}
BATCH = 2500


def ours(line: str) -> tuple[bytes | None, str]:
    try:
        return assemble(f"bits 32\n{line}", origin=0).flat(), ""
    except AssemblyError as error:
        return None, str(error)


def check(lines: list[str]) -> int:
    """Compare all lines; how many of them NASM takes."""
    wrong = []
    taken = 0
    for start in range(0, len(lines), BATCH):
        batch = lines[start : start + BATCH]
        for line, theirs in zip(batch, nasm.assemble_lines(batch), strict=True):
            if theirs is None or any(re.search(pattern, line) for pattern in ODD):
                continue
            taken += 1
            made, error = ours(line)
            if made is None and any(re.search(pattern, f"{line} {error}") for pattern in REFUSED):
                continue
            if made != theirs:
                found = made.hex() if made is not None else error.splitlines()[0]
                wrong.append(f"{line}: nasm {theirs.hex()}, ours {found}")
    assert not wrong, "\n".join(wrong[:40])
    return taken


def test_every_row_every_form() -> None:
    assert check(forms.every_line(seed=17, per_row=80)) > 5000


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(8))
def test_every_row_every_form_at_length(seed: int) -> None:
    assert check(forms.every_line(seed=seed, per_row=400)) > 20_000
