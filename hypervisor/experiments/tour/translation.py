"""Three stops about the translator: a block, how blocks are chained, and code that changes.

The translation is read where it is, in the cache; exits are counted from turn to turn of a loop.
Each loop's machine is stopped where the bare one first is in every turn, at the label `show`, which
is never where a block begins: what leads from block to block is so left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from emulator.result import Stop as End
from hypervisor.experiments.lockstep import first_difference
from hypervisor.experiments.observe import MachineRun, NativeRun
from hypervisor.experiments.tour.screen import Line, blank, paragraph, table
from hypervisor.experiments.tour.steps import RAM, TICKS, Exits, bare, build, text_of, walk
from hypervisor.translator.listing import code_rows
from hypervisor.translator.unit import Unit
from hypervisor.vm import VirtualMachine
from isa import Program
from isa.disassembler import disassemble

BLOCK: Final = """\
; A kernel turns interrupts off and, with POPF, on again.
start:  push 0                  ; touch the stack and the code once
        pop ebx
show:   cli
        inc ebx
        push 0x202              ; IF = 1
        popf
        mov eax, cr0
show_end:
        cli
        mov al, 0
        out 0xF4, al
        hlt                     ; not reached
"""

LOOP: Final = """\
; A loop calls a routine, four times.
start:  mov ecx, 4
again:  call routine
        dec ecx
        jnz again
        mov al, 0
        out 0xF4, al
routine:
        add ebx, ecx
show:   ret
show_end:
"""

SELF: Final = """\
; A loop that writes the number of its turn into its own next instruction.
start:  mov ecx, 10
again:  mov [patch + 1], ecx
patch:  mov eax, 99             ; B8 and its four bytes
show:   dec ecx
        jnz again
show_end:
        mov al, 0
        out 0xF4, al
"""
PLAIN: Final = "--no-adaptive"  #: one thing at a time
PREFIX: Final = "translation: "  #: of exits from the cache that no instruction of the guest's asks


def translator(technique: str = "translate") -> tuple[VirtualMachine, list[Unit]]:
    """A machine, and where its units are put when they are made."""
    vm = VirtualMachine(technique=technique, ram=RAM)
    made: list[Unit] = []
    vm.technique.on_code(made.append)
    return vm, made


# -- A block ---------------------------------------------------------------------------------------


def show_block() -> list[Line]:
    """Each instruction of a block, what it has become, and its exits while it ran."""
    program = build(BLOCK)
    vm, made = translator()
    steps = walk(vm, program, Exits(vm)).steps
    exits = {address_of(program, step.number): step.seen for step in steps}
    place = range(program.symbols["show"].value, program.symbols["show_end"].value)
    unit = next(unit for unit in made if place.start in unit.inside)
    rows, before = [], None
    for row in code_rows(unit):
        if row.eip in place:
            new = row.eip != before
            text = text_of(program, line_at(program, row.eip or 0)) if new else ""
            seen = exits[row.eip or 0] if new else ""
            rows.append((text, row.line.text, row.comment, seen))
        before = row.eip
    found = first_difference(
        lambda: NativeRun(program, ram=RAM),
        lambda: MachineRun(translator()[0], program),
        max_ticks=TICKS,
        name="translate",
    )
    lines = paragraph(
        "Of the kernel only a translation runs, in ring 1. What is safe is copied. The virtual IF "
        "is a byte in reach of GS, which is the translator's."
    )
    lines += [blank(), *table(("guest", "translation", "", "exits"), rows), blank()]
    equal = "no difference from native" if found is None else f"a difference: {found}"
    return lines + paragraph(
        f"{len(unit.source)} bytes became {len(unit.code)}, with the ways in and out. Lockstep "
        f"finds {equal}. INT 0x83 asks the hypervisor; here it was not needed."
    )


def line_at(program: Program, address: int) -> int:
    """The source line of an instruction."""
    found = program.source_line(address)
    assert found is not None, hex(address)
    return found[1]


def address_of(program: Program, number: int) -> int:
    """Where a source line's instruction stands."""
    return next(line.address for line in program.lines if line.line == number)


# -- From turn to turn -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Turn:
    """What has happened until `show` was reached once more."""

    native: int  #: EAX
    virtual: int
    exits: Counter[str]
    made: tuple[Unit, ...]


def arrivals(program: Program) -> Iterator[tuple[int, int]]:
    """The ticks at which the bare machine is at `show`, and EAX then."""
    machine, place = bare(), program.symbols["show"].value
    machine.load(program)
    for tick in range(TICKS):
        if machine.run(max_ticks=tick).stop is not End.OUT_OF_TICKS:
            return
        if machine.cpu.state.eip == place:
            yield tick, machine.cpu["eax"]


def turns(vm: VirtualMachine, made: list[Unit], program: Program) -> Iterator[Turn]:
    """Run a loop, turn by turn."""
    vm.load(program)
    before: Counter[str] = Counter()
    for tick, native in arrivals(program):
        vm.run(max_ticks=tick)
        now = Counter(vm.counts)
        yield Turn(native, vm.cpu["eax"], now - before, tuple(made))
        before = now
        made.clear()


def exits_of(exits: Counter[str], *, of_cache: bool = False) -> str:
    """Exits in words; of_cache: only the cache's own."""
    chosen = {
        reason.removeprefix(PREFIX): count
        for reason, count in exits.items()
        if not of_cache or reason.startswith(PREFIX)
    }
    words = (f"{reason} {count}" if count > 1 else reason for reason, count in chosen.items())
    return ", ".join(words) or "-"


def show_chaining() -> list[Line]:
    """A loop's exits turn by turn, and a jump before and after it was chained."""
    program = build(LOOP)
    vm, made = translator()
    units: list[Unit] = []
    rows = []
    for number, turn in enumerate(turns(vm, made, program), 1):
        units += turn.made
        names = ", ".join(f"at {unit.eip:x}" for unit in turn.made) or "-"
        rows.append((str(number), exits_of(turn.exits, of_cache=True), names))
    lines = paragraph(
        "A block ends where control leaves it. At first its jump leads to a stub, which exits to "
        "ask where to go: a link. Once the next block is there, the jump is made to lead to it. "
        "A return looks in a table of targets, without an exit if its target is known there."
    )
    lines += [blank(), *table(("turn", "exits of the cache", "blocks made"), rows), blank()]
    caller = units[0]
    (link, *_) = caller.links
    size, offset = 5, link.displacement - 1
    was = text_at(caller.code[offset : offset + size], caller.start + offset)
    code = vm.monitor.read(caller.start + offset, size)
    now = text_at(code, caller.start + offset)
    lines += paragraph(
        f"The call's jump was made as `{was}`, to its stub; it is now `{now}`, which is the entry "
        f"of the block made of the code at {link.eip:x}."
    )
    total = exits_of(Counter(vm.counts), of_cache=True)
    return lines + paragraph(f"In all {len(rows)} turns: {total}.")


def text_at(code: bytes, address: int) -> str:
    """One instruction as text."""
    (line,) = disassemble(code, address)
    return line.text


def show_self_modifying() -> list[Line]:
    """Each turn's store, what it made of the units, and that no turn runs an old one."""
    found = list(turns(*translator(f"translate {PLAIN}"), build(SELF)))
    rows = [
        (str(number), eax_text(turn), exits_of(turn.exits), made_text(turn))
        for number, turn in enumerate(found, 1)
    ]
    lines = paragraph(
        "The translation of code that has changed must not run once more. Pages of code are write-"
        "protected: a store is seen, and done for the guest, and what was made of those bytes is "
        "dropped. A page that is written to all the time is better not watched; then each of its "
        "blocks checks its source when it is entered."
    )
    lines += [blank(), *table(("turn", "EAX", "exits", "blocks made"), rows), blank()]
    equal = sum(turn.native == turn.virtual for turn in found)
    return lines + paragraph(
        f"EAX is native's in {equal} of {len(found)} turns. The run was one with {PLAIN}."
    )


def eax_text(turn: Turn) -> str:
    """What the changed instruction has loaded."""
    if turn.native == turn.virtual:
        return str(turn.virtual)
    return f"{turn.virtual}, natively {turn.native}"


def made_text(turn: Turn) -> str:
    """How many units, and of which kind."""
    checked = sum(unit.checked for unit in turn.made)
    kinds = ((len(turn.made) - checked, "watched"), (checked, "checked"))
    return ", ".join(f"{count} {kind}" for count, kind in kinds if count) or "-"
