"""Scanning ahead: which instructions a guest's kernel will execute, before it does.

Two-level paging has no execute permission, so nobody sees code run for the first time. The scanner
follows control flow from each place where the hypervisor lets the kernel in, and from the handlers
of gates: along direct jumps and calls, and behind calls, where they return to. Where a jump or call
is indirect, its targets are what a table or a constant says: a constant in scanned code is taken
for a target, and so is each entry of a table that code indexes, if it points into a page that code
is known to be in, and if what stands there reads like code up to its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from hypervisor.guest_memory import PAGE
from hypervisor.patcher.sites import INDIRECT, is_site
from hypervisor.translator.builder import Source, decode_at, read_source
from hypervisor.translator.forms import ENDS
from isa.decoder import MAXIMUM_LENGTH
from isa.errors import DecodeError
from isa.operands import Immediate, Memory, Relative

if TYPE_CHECKING:
    from hypervisor.translator.unit import Context
    from hypervisor.vm import VirtualMachine
    from isa.decoder import Instruction

MOST_RUN: Final = 200  #: instructions
ENOUGH: Final = 8  #: so many in a row are code, if x87 ends them, which raises #NM or #UD
X87: Final = range(0xD8, 0xE0)
MOST_ENTRIES: Final = 1024  #: of a table that is looked at
WORD: Final = 4


class Scanner:
    """What is known of the kernel's code in one address space of one guest, by EIP."""

    def __init__(self, vm: VirtualMachine, *, strict: bool = False) -> None:
        """strict: indirect jumps, calls and returns are sites too."""
        self._vm = vm
        self._strict = strict
        self.instructions: dict[int, Instruction] = {}
        self.targets: set[int] = set()  #: what is jumped to, called, returned to, or entered
        self.pages: dict[int, int] = {}  #: linear page of code -> guest page
        self.sites: set[int] = set()
        self._sure: set[int] = set()  #: linear pages that control flow alone has led to
        self._constants: set[int] = set()  #: point to no page of code yet
        self.scans = 0

    def scan(self, context: Context, entries: Iterator[int] | set[int]) -> set[int]:
        """Follow control flow from some entries; the sites that are new."""
        self.scans += 1
        before = set(self.sites)
        waiting = [eip for eip in entries if eip not in self.instructions]
        self.targets.update(entries)
        sure = True
        while waiting:
            waiting += self._run(context, waiting.pop(), sure)
            if not waiting:
                known = {at for at in self._constants if at & -PAGE in self._sure}
                self._constants -= known
                known = {at for at in known if self._reads_like_code(context, at)}
                self.targets |= known
                waiting = [at for at in known if at not in self.instructions]
                sure = False
        self._find_overlaps()
        return self.sites - before

    def _find_overlaps(self) -> None:
        """An instruction that reads the first byte of a site otherwise is a site as well: it must
        not run with that byte overwritten."""
        waiting = list(self.sites)
        while waiting:
            site = waiting.pop()
            for start in range(site - MAXIMUM_LENGTH + 1, site):
                instruction = self.instructions.get(start)
                ends = start if instruction is None else start + instruction.length
                if ends > site and start not in self.sites:
                    self.sites.add(start)
                    waiting.append(start)

    def _reads_like_code(self, context: Context, eip: int) -> bool:
        """Does a run of instructions begin there, to a proper end, or a long one?"""
        for count in range(MOST_RUN):
            if eip in self.instructions:
                return True
            source = self._source(context, eip)
            instruction = None if source is None else decode_at(source, 0, eip)
            if instruction is None or isinstance(instruction, DecodeError):
                return count >= ENOUGH and source is not None and source.code[0] in X87
            if not any(instruction.bytes):
                return False
            if instruction.row.id in ENDS:
                return True
            eip = (eip + instruction.length) & 0xFFFF_FFFF
        return True

    def decode(self, context: Context, eip: int) -> Instruction | None:
        """The guest's instruction at an EIP; None if there is none."""
        source = self._source(context, eip)
        found = None if source is None else decode_at(source, 0, eip)
        return None if isinstance(found, DecodeError) else found

    def _source(self, context: Context, eip: int) -> Source | None:
        """The guest's code at an EIP, as the guest wrote it."""
        source = read_source(self._vm, context, eip)
        if source is None:
            return None
        view, offset = self._vm.view_page, (context.base + eip) % PAGE
        first, *rest = (
            view(page * PAGE, self._vm.memory.read(page * PAGE, PAGE)) for page in source.pages
        )
        code = first[offset : offset + len(source.code)]
        return Source(source.pages, code, rest[0][: len(source.beyond)] if rest else b"")

    def _run(self, context: Context, eip: int, sure: bool) -> list[int]:
        """Scan straight on from an EIP; where else control goes from there."""
        found: list[int] = []
        source: Source | None = None
        start = eip
        while eip not in self.instructions:
            if source is None or eip - start >= len(source.code):
                source, start = self._source(context, eip), eip
            if source is None:
                break
            instruction = decode_at(source, eip - start, eip)
            if instruction is None or isinstance(instruction, DecodeError):
                break
            if not any(instruction.bytes):
                break  # nothing has been put there: behind a call that does not return, say
            crosses = eip - start + instruction.length > len(source.code)
            for number, page in enumerate(source.pages[: 1 + crosses]):
                self.pages[(eip & -PAGE) + number * PAGE & 0xFFFF_FFFF] = page
            if sure:
                self._sure.add(eip & -PAGE)
            self.instructions[eip] = instruction
            if is_site(instruction) or (self._strict and instruction.row.body in INDIRECT):
                self.sites.add(eip)
            found += self._leads_to(context, instruction)
            eip = (eip + instruction.length) & 0xFFFF_FFFF
            if instruction.row.id in ENDS and instruction.row.body not in _RETURNED_TO:
                break
            if instruction.row.body in _RETURNED_TO:
                self.targets.add(eip)
        return found

    def _leads_to(self, context: Context, instruction: Instruction) -> list[int]:
        """Targets of an instruction, sure ones and such as its constants may be."""
        found = []
        for operand in instruction.operands:
            if isinstance(operand, Relative):
                self.targets.add(operand.target)
                found.append(operand.target)
            elif isinstance(operand, Immediate):
                self._constants.add(operand.value & 0xFFFF_FFFF)
            elif isinstance(operand, Memory) and operand.scale == WORD:
                self._constants.update(self._table(context, operand.displacement))
        return found

    def _table(self, context: Context, at: int) -> list[int]:
        """Entries of a table, while they are in pages of code that are known."""
        entries: list[int] = []
        while len(entries) < MOST_ENTRIES:
            data = self._vm.cpu.read_linear(context.base + at + len(entries) * WORD, WORD)
            value = int.from_bytes(data, "little")
            if len(data) < WORD or value & -PAGE not in self._sure:
                return entries
            entries.append(value)
        return entries

    def forget_page(self, linear: int) -> set[int]:
        """Forget the instructions with bytes in a page; the targets that were among them."""
        gone = [
            eip for eip, instruction in self.instructions.items()
            if eip & -PAGE == linear or (eip + instruction.length - 1) & -PAGE == linear
        ]  # fmt: skip
        for eip in gone:
            del self.instructions[eip]
        self.sites.difference_update(gone)
        return self.targets.intersection(gone)

    def clear(self) -> None:
        """Nothing is known."""
        for known in (self.instructions, self.targets, self.pages, self.sites, self._sure):
            known.clear()
        self._constants.clear()


#: The guest may come back behind these, though they end a run of code.
_RETURNED_TO: Final = frozenset({"call", "call_indirect", "call_far", "call_far_mem", "int", "int3",
                                 "into", "hlt"})  # fmt: skip
