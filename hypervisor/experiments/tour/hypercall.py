"""The stop about paravirtualization: one source, two images, and what each instruction costs."""

from __future__ import annotations

from typing import Final

from hypervisor.experiments.tour.screen import Line, blank, paragraph, table
from hypervisor.experiments.tour.steps import RAM, Exits, build, first_tick, text_of, walk
from hypervisor.vm import VirtualMachine
from isa import Program
from isa.disassembler import disassemble
from isa.paravirt import HYPERVISOR
from isa.sites import Site

SOURCE: Final = """\
; A kernel's critical section, and a look at a control register.
start:  push 0                  ; touch the stack and the code once
        pop ebx
show:   cli
        inc ebx                 ; not to be interrupted
        sti
        mov eax, cr0
show_end:
        cli
        hlt
"""


def show() -> list[Line]:
    """Bytes and exits of a plain image beside those of a paravirtual one."""
    plain, changed = build(SOURCE), build(SOURCE, HYPERVISOR)
    start = first_tick(plain)
    steps = {}
    for name, program in (("trap", plain), ("paravirt", changed)):
        vm = VirtualMachine(technique=name, ram=RAM)
        steps[name] = walk(vm, program, Exits(vm), start).steps
    sites = {site_line(changed, site): site for site in changed.sites}
    rows = [
        (
            text_of(plain, ours.number),
            bytes_of(plain, ours.number).hex(" "),
            ours.seen,
            bytes_of(changed, theirs.number).hex(" "),
            theirs.seen,
        )
        for ours, theirs in zip(steps["trap"], steps["paravirt"], strict=True)
    ]
    marked = [n for n, step in enumerate(steps["paravirt"]) if step.number in sites]
    lines = paragraph(
        "The same source twice. With --paravirt the assembler puts a site where a sensitive "
        "instruction stands; the virtual IF is a byte of a page that kernel and hypervisor share."
    )
    columns = ("source", "plain", "under trap", "--paravirt", "under paravirt")
    lines += [blank(), *table(columns, rows, marked), blank()]
    for step in steps["paravirt"]:
        if step.number in sites:
            lines += paragraph(
                f"{text_of(plain, step.number)} is now {code_of(sites[step.number])}"
            )
    total = {name: sum(step.seen != "-" for step in steps[name]) for name in steps}
    lines += [blank()]
    lines += paragraph(
        f"Lines with an exit, of {len(rows)}: {total['trap']} under trap, {total['paravirt']} "
        "under paravirt. The INT is the hypercall; behind it stands what it asks for."
    )
    return lines


def site_line(program: Program, site: Site) -> int:
    """The source line of a site."""
    found = program.source_line(site.address)
    assert found is not None
    return found[1]


def bytes_of(program: Program, number: int) -> bytes:
    """What a line of the source has become."""
    (entry,) = (line for line in program.lines if line.line == number)
    at = entry.address - program.origin
    return program.flat()[at : at + entry.size]


def code_of(site: Site) -> str:
    """A site as instructions."""
    lines = disassemble(site.code, site.address)
    return "; ".join(line.text for line in lines)
