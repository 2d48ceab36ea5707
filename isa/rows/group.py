"""How rows are written: a group of encodings under one mnemonic, with the columns they share."""

from __future__ import annotations

from typing import Any

from isa.row import Row, Undefined


def _undefined(text: str) -> tuple[Undefined, ...]:
    """``"a o:count>1"`` -> AF undefined always, OF when the masked count exceeds one."""
    parts = (part.partition(":") for part in text.split())
    return tuple(Undefined(what, condition or "always") for what, _, condition in parts)


class Rows(list[Row]):
    """The rows of one module, in order; `isa/table.py` numbers them."""

    def group(
        self, mnemonic: str, title: str, encodings: str, *, undefined: str = "", **columns: Any
    ) -> None:
        """Add the encodings of one mnemonic, one a line: opcode | operands [| access] [*]."""
        for line in encodings.strip().splitlines():
            opcode, operands, *own_access = (p.strip() for p in line.rstrip(" *").split("|"))
            names = tuple(operands.split(",")) if operands else ()
            access = own_access[0] if own_access else columns.get("access", "")
            own = columns | {
                "access": access if names else "",
                "tour": line.rstrip().endswith("*"),
                "undefined": _undefined(undefined),
            }
            self.append(Row(0, mnemonic, " ".join(opcode.split()), names, title=title, **own))
