"""C headers rendered from the instruction table: text in, exact text out.

One module a header: `rows.py` (what each row is), `decode.py` (opcode bytes to rows), `execute.py`
(cases and functions around the instruction bodies), `costs.py` (cycles), `exceptions.py` (classes
of exceptions). setup.py writes them into the build directory; they are never checked in.
`isa/fingerprint.py` ties a built core to its table.
"""

from __future__ import annotations

import hashlib

from isa.fingerprint import fingerprint as full_fingerprint
from isa.generate import costs, decode, exceptions, execute, rows


def headers() -> dict[str, str]:
    """File name -> text of every generated header."""
    return {
        "isa_rows.h": rows.render(full_fingerprint()),
        "isa_decode.h": decode.render(),
        "isa_ops.h": execute.render_ops(),
        "isa_labels.h": execute.render_labels(),
        "isa_cases.h": execute.render_cases(),
        "isa_cold.h": execute.render_cold(),
        "isa_cost.h": costs.render(),
        "isa_exceptions.h": exceptions.render(),
    }


def fingerprint() -> str:
    """A digest of the table and of what is rendered from it."""
    texts = (
        rows.render(""),
        decode.render(),
        execute.render_ops(),
        costs.render(),
        exceptions.render(),
    )
    digest = hashlib.sha256("".join(texts).encode())
    return digest.hexdigest()[:16]
