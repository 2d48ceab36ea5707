"""The only place where the fidelity matrix meets the table's class columns.

The matrix comes from runs alone. The table says which instructions are unsafe, and theory says
what follows: only these can be the reason for a cross, and none is left on a CPU that traps them
all. Whatever speaks against that is reported, not mended. Under `patch` a guest may also find the
patches, which has a reason of its own (patch_reasons.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from hypervisor.experiments.fidelity import Cell, Matrix
from isa.decoder import decode
from isa.errors import DecodeError


def surprises(matrix: Matrix) -> tuple[str, ...]:
    """Crosses that the table does not expect, a line each."""
    return tuple(line for cell in matrix.crosses for line in _of(cell))


def _of(cell: Cell) -> Iterable[str]:
    if cell.reason:
        return
    where = f"{cell.guest} under {cell.column}"
    if cell.cross is None:
        yield f"{where}: differs at its end, but at no tick before"
        return
    try:
        row = decode(cell.cross.code, cell.cross.eip).row
    except DecodeError:
        yield f"{where}: the cross is no instruction: {cell.cross}"
        return
    if not row.unsafe:
        yield f"{where}: the cross is {row.mnemonic}, which the table does not call unsafe"
    elif cell.column.virtualizable is True:
        yield f"{where}: the cross is {row.mnemonic}, which the CPU was to trap"


def summary(matrix: Matrix) -> str:
    """The check in one line."""
    found = surprises(matrix)
    if found:
        which = "1 cross is" if len(found) == 1 else f"{len(found)} crosses are"
        return f"{which} not what the instruction table says."
    count = len(matrix.crosses)
    noun = "crosses" if count > 1 else "cross"
    patched = sum(bool(cell.reason) for cell in matrix.crosses)
    found_out = f", but for {patched} by which a guest has found its patches" if patched else ""
    said = f"each is an instruction that the table calls unsafe{found_out}."
    return f"{count} {noun}: {said}" if count else ""
