"""Which variant of a paravirtual source a program is, and where its sites are.

A program from the assembler knows; an ELF has a note. What has none is a plain program. The native
twin pads its sites with instructions that are no guest instructions, and a hypervisor's image takes
several for one: `set_weights` says so to the core (csrc/api.h, machine_set_weights). Read
isa/sites.py for what a site is.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hypervisor.elf import read_sections, read_sites
from hypervisor.errors import HypervisorError, ImageError
from isa.paravirt import HYPERVISOR
from isa.sites import Site

if TYPE_CHECKING:
    from emulator.machine import Machine
    from emulator.memory import Memory

PAGE: Final = 4096
ELF_MAGIC: Final = b"\x7fELF"


def sites_of(program: Any) -> tuple[str | None, Sequence[Site]]:
    """The variant, None for a plain program, and the sites; ImageError if its note is broken."""
    if isinstance(program, (str, os.PathLike)):
        try:
            program = Path(program).read_bytes()
        except OSError:
            return None, ()  # the loader will say what is wrong
    if not isinstance(program, (bytes, bytearray, memoryview)):
        return program.paravirt, program.sites
    data = bytes(program)
    if not data.startswith(ELF_MAGIC):
        return None, ()
    try:
        sections = read_sections(data)
    except ImageError:
        return None, ()
    found = read_sites(sections)
    return (None, ()) if found is None else found


def weightless(sites: Sequence[Site]) -> dict[int, bytes]:
    """By page of addresses: a bitmap of the bytes at which an instruction of weight 0 begins."""
    pages: dict[int, bytearray] = defaultdict(lambda: bytearray(PAGE // 8))
    for site in sites:
        for offset in site.weightless:
            address = site.address + offset
            pages[address // PAGE][address % PAGE // 8] |= 1 << address % 8
    return {page: bytes(bits) for page, bits in pages.items()}


def set_weights(memory: Memory, sites: Sequence[Site]) -> None:
    """Tell the core what does not count in a loaded program."""
    for page, bits in weightless(sites).items():
        memory.set_weights(page, bits)


def load_natively(machine: Machine, program: Any, **options: Any) -> None:
    """Load a program on the bare machine: any but a hypervisor's image, which needs one."""
    variant, sites = sites_of(program)
    if variant == HYPERVISOR:
        raise HypervisorError(
            "a paravirtual image cannot run natively: expected a plain one or its native twin "
            "(asm --paravirt=native), or --technique paravirt"
        )
    machine.load(program, **options)
    set_weights(machine.memory, sites)
