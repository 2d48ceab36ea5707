"""`seventeen asm`: a source in NASM's syntax to a flat binary, a multiboot ELF, a listing."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import click

from hypervisor.cli.files import read_file, write_file
from hypervisor.cli.options import BareOptionCommand
from hypervisor.cli.status import Stop, StopError

if TYPE_CHECKING:
    from isa.assembler import Program

FORMATS = {"bin": ".bin", "elf": ".elf"}
PARAVIRT = ("hypervisor", "native")  # isa.paravirt.VARIANTS; a test compares


def assemble_program(
    path: Path, include: Sequence[Path], defines: Mapping[str, str], paravirt: str | None = None
) -> Program:
    """Assemble a file; the guests' library is always on its search path. Warnings go to stderr."""
    from guests import LIB
    from isa.assembler import assemble_file
    from isa.errors import AssemblyError

    read_file(path)  # says what is missing, with the status for it
    try:
        program = assemble_file(path, include=[*include, LIB], defines=defines, paravirt=paravirt)
    except AssemblyError as error:
        # The report is the message: a paragraph an error, as an assembler's user expects it.
        print(error, file=sys.stderr)
        count = len(error.diagnostics) or 1
        errors = "1 error" if count == 1 else f"{count} errors"
        raise StopError(Stop.BAD_INPUT, f"{path}: {errors}") from None
    for warning in program.warnings:
        print(warning, file=sys.stderr)
    return program


def parse_defines(words: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE words; a name alone is defined as nothing, as NASM's -d does."""
    defines = {}
    for word in words:
        name, _, value = word.partition("=")
        if not name.isidentifier():
            raise click.UsageError(f"-D: expected NAME or NAME=VALUE, found {word!r}")
        defines[name] = value
    return defines


class AsmCommand(BareOptionCommand):
    """`--paravirt` alone is the image for a hypervisor."""

    bare: ClassVar[dict[str, str]] = {"--paravirt": f"--paravirt={PARAVIRT[0]}"}


def choose_format(given: str | None, output: Path | None, paravirt: str | None) -> str:
    """The format asked for, or else the one that fits."""
    if paravirt is not None and given == "bin":
        raise click.UsageError("-f bin: a flat binary cannot hold the list of sites; use -f elf")
    elf = paravirt is not None or (output is not None and output.suffix == ".elf")
    return given or ("elf" if elf else "bin")


@click.command(cls=AsmCommand, short_help="Assemble a source to a flat binary or a multiboot ELF.")
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write; SOURCE with another suffix if not given.",
)
@click.option(
    *("-f", "output_format"),
    type=click.Choice(list(FORMATS)),
    help="Format; elf if FILE ends in .elf or with --paravirt, else bin.",
)
@click.option(
    *("-l", "listing"), type=click.Path(path_type=Path), metavar="FILE", help="Write a listing."
)
@click.option(
    *("-I", "include"),
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where %include files are looked for; repeatable.",
)
@click.option(
    *("-D", "defines"), multiple=True, metavar="NAME=VALUE", help="Define a macro; repeatable."
)
@click.option(
    "--paravirt",
    type=click.Choice(PARAVIRT),
    metavar="[=native]",
    help="Replace what is sensitive in kernel code; native: its twin for the bare machine.",
)
def command(
    source: Path,
    output: Path | None,
    output_format: str | None,
    listing: Path | None,
    include: tuple[Path, ...],
    defines: tuple[str, ...],
    paravirt: str | None,
) -> None:
    """Assemble SOURCE, written in NASM's syntax, to the bytes that `nasm -Ox` makes of it.

    The guests' library (`%include "guest.inc"`) is always found. With --paravirt the bytes are not
    NASM's: sensitive instructions become sites, but for code under `%pragma seventeen user`.
    """
    output_format = choose_format(output_format, output, paravirt)
    program = assemble_program(source, include, parse_defines(defines), paravirt)
    target = output or source.with_suffix(FORMATS[output_format])
    if target.exists() and target.samefile(source):
        raise StopError(Stop.USAGE, f"{target}: would overwrite the source")
    write_file(target, program.elf() if output_format == "elf" else program.flat())
    if listing is not None:
        write_file(listing, program.listing().encode("utf-8", "surrogateescape"))
