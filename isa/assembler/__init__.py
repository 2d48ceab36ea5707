"""The assembler: NASM's Intel syntax in, the bytes of `nasm -Ox` out.

Text goes through these modules in this order: `source` (files, logical lines), `preprocess` (all
that begins with %), `parser` (one line to one statement, by grammar.lark), `passes` (sizes to a
fixed point), `layout` (addresses), `program` (the result; `elf`, `dwarf` and `listing` write it
out). Errors of all stages are `diagnostics`. Read `api` next.
"""

from isa.assembler.api import assemble, assemble_file
from isa.assembler.program import Program

__all__ = ["Program", "assemble", "assemble_file"]
