"""`seventeen disasm`: bytes back to text, by the same table that assembled them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click

from hypervisor.cli.files import read_file
from hypervisor.cli.options import NUMBER
from hypervisor.elf import MAGIC, read_sections
from hypervisor.symbols import ImageSymbols

FLAT_ORIGIN = 0x100000  # where a flat binary is loaded


def chunks(data: bytes, symbols: ImageSymbols, address: int) -> Iterator[tuple[int, bytes]]:
    """The bytes cut where symbols stand, so that each symbol starts an instruction."""
    starts = [at for at in symbols.addresses if address < at < address + len(data)]
    bounds = [address, *starts, address + len(data)]
    for start, end in pairwise(bounds):
        yield start, data[start - address : end - address]


def print_code(data: bytes, address: int, symbols: ImageSymbols) -> None:
    """One line an instruction, a heading a symbol."""
    from isa.disassembler import disassemble

    for start, piece in chunks(data, symbols, address):
        name = symbols.exact(start)
        if name:
            click.echo(f"{name}:")
        for line in disassemble(piece, start, symbols.exact):
            click.echo(str(line))


@click.command(short_help="Disassemble a flat binary or an ELF.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--origin",
    type=NUMBER,
    default=None,
    help="Address of a flat binary's first byte (default 0x100000, where it is loaded).",
)
def command(file: Path, origin: int | None) -> None:
    """Disassemble FILE: all of a flat binary, the code sections of an ELF32 with its symbols.

    Bytes that are no instruction of the slice are shown as db, one by one.
    """
    data = read_file(file)
    if not data.startswith(MAGIC):
        print_code(data, FLAT_ORIGIN if origin is None else origin, ImageSymbols(bytes))
        return
    read_sections(data)  # says what is wrong with a broken file
    symbols = ImageSymbols(lambda: data)
    for section in symbols.sections:
        if section.code and section.data:
            click.echo(f"section {section.name}")
            print_code(section.data, section.address, symbols)
