"""Scanning ahead: which instructions a guest's kernel will execute, before it does.

Two-level paging has no execute permission, so nobody sees code run for the first time. The scanner
follows control flow from each place where the hypervisor lets the kernel in, and from the handlers
of gates: along direct jumps and calls. Where it goes on after an indirect jump, a call's return
included, is not certain. Under --strict such a transfer asks, so nothing is guessed: what is
scanned is reached; and zeros, of which a guest may have megabytes, are scanned a little way, to an
instruction that asks. By default nothing asks, so what is behind a call is taken for code, if it
reads like code; a constant in scanned code is taken for a target; and so is each entry of a table
that code indexes, if it points into a page that code is known to be in.

Places that code leads to where no instruction is (yet) are known as well: bytes that are none, and
pages that are not there. Who writes or maps something there changes code.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from hypervisor.guest_memory import PAGE
from hypervisor.patcher.sites import INDIRECT, is_site
from hypervisor.translator.builder import Source, decode_at, read_source
from hypervisor.translator.forms import ENDS
from hypervisor.translator.unit import Context
from isa.decoder import MAXIMUM_LENGTH
from isa.errors import DecodeError
from isa.operands import Immediate, Memory, Relative
from isa.table import ROWS

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine
    from isa.decoder import Instruction

MOST_RUN: Final = 200  #: instructions that are read to see whether they are code
ENOUGH: Final = 8  #: so many in a row are code, if x87 ends them, which raises #NM or #UD
X87: Final = range(0xD8, 0xE0)
MOST_ENTRIES: Final = 1024  #: of a table that is looked at
MOST_ZEROS: Final = 8  #: instructions in a row without a bit set: data, not code
WORD: Final = 4
#: Sources of a target that are no instructions: a gate of the guest's; the hypervisor let it in.
GATE, ENTERED = -1, -2
NO_CONTEXT: Final = Context(False, -1, 0, 0)
_CALLS: Final = frozenset({"call", "call_indirect"})
#: INTO seldom interrupts.
_ENDS: Final = frozenset(row for row in ENDS if ROWS[row].body != "into")


def _loaded_target(before: Instruction | None, instruction: Instruction) -> list[int]:
    """Where an indirect jump or call leads whose register the instruction before it has loaded.

    So kernels go from where they are loaded to where they are linked.
    """
    if before is None or instruction.row.body not in ("jmp_indirect", "call_indirect"):
        return []
    if before.row.body != "mov" or before.operands[0] != instruction.operands[0]:
        return []
    value = before.operands[1]
    return [value.value & 0xFFFF_FFFF] if isinstance(value, Immediate) else []


class Scanner:
    """What is known of the kernel's code in one address space of one guest, by EIP."""

    def __init__(self, vm: VirtualMachine, *, strict: bool = False) -> None:
        """strict: indirect jumps, calls and returns are sites too."""
        self._vm = vm
        self._strict = strict
        self.context = NO_CONTEXT
        self.instructions: dict[int, Instruction] = {}
        #: Where code leads to what is no instruction: the bytes there, as far as there are any.
        self.broken: dict[int, bytes] = {}
        self.sites: set[int] = set()
        #: What is jumped to, called or returned to, or may be: from where.
        self.targets: dict[int, set[int]] = defaultdict(set)
        self.pages: dict[int, int | None] = {}  #: linear page that code leads to -> guest page
        self.linear: dict[int, set[int]] = defaultdict(set)  #: guest page -> its linear pages
        self._starts: dict[int, set[int]] = defaultdict(set)  #: by linear page they have bytes in
        self._new: list[int] = []  #: instructions, and what is none, found by this scan
        self._sure: set[int] = set()  #: linear pages that control flow alone has led to
        self._constants: dict[int, int] = {}  #: that point to no page of code yet: from where
        self.scanned = 0  #: instructions, and what is none
        self.overlaps = 0  #: of them, sites only because they have a byte of another one

    def linear_page(self, eip: int) -> int:
        """The linear page that an EIP is in."""
        return (self.context.base + eip) & 0xFFFF_F000

    def knows(self, eip: int) -> bool:
        """Has it been scanned, or is it known that there is nothing?"""
        return eip in self.instructions or eip in self.broken

    def sources(self, eip: int) -> set[int]:
        """Where what leads to an EIP stands, as far as that is still there."""
        found = self.targets.get(eip, ())
        return {source for source in found if source < 0 or source in self.instructions}

    # -- scanning ----------------------------------------------------------------------------------

    def scan(self, entries: Iterable[int]) -> set[int]:
        """Follow control flow from some entries; the sites that are new."""
        before = set(self.sites)
        waiting = list(entries)
        for eip in () if self._strict else waiting:
            self.targets[eip].add(ENTERED)
        sure = True
        while waiting:
            waiting += self._run(waiting.pop(), sure)
            if not waiting and not self._strict:
                waiting = self._guess()
                sure = False
        self._find_overlaps()
        return self.sites - before

    def _guess(self) -> list[int]:
        """Constants that point into pages of code, where what they point to reads like code."""
        known = {at: by for at, by in self._constants.items() if at & -PAGE in self._sure}
        found = []
        for at, source in known.items():
            del self._constants[at]
            if self._reads_like_code(at):
                self.targets[at].add(source)
                found += [] if self.knows(at) else [at]
        return found

    def _reads_like_code(self, eip: int, *, called: bool = False) -> bool:
        """Does a run of instructions begin there, to a proper end, or a long one?

        called: it is behind a call. A run there may have no end, but for that of the machine.
        """
        for count in range(MOST_RUN):
            if eip in self.instructions:
                return True
            source = self._source(eip)
            instruction = None if source is None else decode_at(source, 0, eip)
            if instruction is None or isinstance(instruction, DecodeError):
                return count >= ENOUGH and source is not None and source.code[0] in X87
            if instruction.row.body == "wait":
                return False  # kernels have it seldom, data as often as any other byte
            if not any(instruction.bytes):
                return called and count > 0  # nothing has been put there
            if instruction.row.id in _ENDS:
                return True
            eip = (eip + instruction.length) & 0xFFFF_FFFF
        return True

    def decode(self, eip: int) -> Instruction | None:
        """The guest's instruction at an EIP; None if there is none."""
        source = self._source(eip)
        found = None if source is None else decode_at(source, 0, eip)
        return None if isinstance(found, DecodeError) else found

    def bytes_at(self, eip: int, context: Context | None = None) -> bytes:
        """The guest's bytes at an EIP, as the guest wrote them, as many as an instruction has."""
        source = self._source(eip, context)
        return b"" if source is None else (source.code + source.beyond)[:MAXIMUM_LENGTH]

    def _source(self, eip: int, context: Context | None = None) -> Source | None:
        """The guest's code at an EIP, as the guest wrote it."""
        context = context or self.context
        source = read_source(self._vm, context, eip)
        if source is None:
            return None
        view, offset = self._vm.view_page, (context.base + eip) % PAGE
        first, *rest = (
            view(page * PAGE, self._vm.memory.read(page * PAGE, PAGE)) for page in source.pages
        )
        code = first[offset : offset + len(source.code)]
        return Source(source.pages, code, rest[0][: len(source.beyond)] if rest else b"")

    def _run(self, eip: int, sure: bool) -> list[int]:
        """Scan straight on from an EIP; where else control goes from there."""
        found: list[int] = []
        source: Source | None = None
        before: Instruction | None = None
        start, zeros = eip, 0
        while not self.knows(eip):
            if source is None or eip - start >= len(source.code):
                source, start = self._source(eip), eip
            instruction = None if source is None else decode_at(source, eip - start, eip)
            if source is None or instruction is None or isinstance(instruction, DecodeError):
                self._break(eip, source, eip - start)
                break
            zeros = 0 if any(instruction.bytes) else zeros + 1
            at_end = zeros > (MOST_ZEROS if sure else 0)
            if at_end and not self._strict:
                break
            self._note(eip, instruction.length, source, eip - start)
            if sure:
                self._sure.add(eip & -PAGE)
            self.instructions[eip] = instruction
            if at_end or self._is_site(instruction):
                self.sites.add(eip)
            if at_end:  # who comes here asks, and is led on by a scan from behind it
                break
            found += self._leads_to(eip, instruction)
            for target in _loaded_target(before, instruction):
                self.targets[target].add(eip)
                found.append(target)
            before = instruction
            eip = (eip + instruction.length) & 0xFFFF_FFFF
            if instruction.row.id in _ENDS:
                break
        return found

    def _is_site(self, instruction: Instruction) -> bool:
        return is_site(instruction) or (self._strict and instruction.row.body in INDIRECT)

    def _break(self, eip: int, source: Source | None, at: int) -> None:
        """There is no instruction."""
        code = b"" if source is None else (source.code[at:] + source.beyond)[:MAXIMUM_LENGTH]
        self._note(eip, len(code) or 1, source, at)
        if source is not None and not source.beyond and len(code) < MAXIMUM_LENGTH:
            self._map((self.linear_page(eip) + PAGE) & 0xFFFF_FFFF, None)
            self._starts[(self.linear_page(eip) + PAGE) & 0xFFFF_FFFF].add(eip)
        self.broken[eip] = code

    def _note(self, eip: int, length: int, source: Source | None, at: int) -> None:
        """Something begins at an EIP, `at` bytes into its source."""
        self._new.append(eip)
        pages = (None,) if source is None else source.pages
        crosses = source is not None and at + length > len(source.code)
        for number, page in enumerate(pages[: 1 + crosses]):
            linear = (self.linear_page(eip) + number * PAGE) & 0xFFFF_FFFF
            self._map(linear, page)
            self._starts[linear].add(eip)

    def _map(self, linear: int, page: int | None) -> None:
        before = self.pages.get(linear)
        if before is not None:
            self.linear[before].discard(linear)
        self.pages[linear] = page
        if page is not None:
            self.linear[page].add(linear)

    def _leads_to(self, eip: int, instruction: Instruction) -> list[int]:
        """Targets of an instruction: sure ones, and those that are only likely."""
        found = []
        for operand in instruction.operands:
            if isinstance(operand, Relative):
                self.targets[operand.target].add(eip)
                found.append(operand.target)
            elif self._strict:
                continue
            elif isinstance(operand, Immediate):
                self._constants[operand.value & 0xFFFF_FFFF] = eip
            elif isinstance(operand, Memory) and operand.scale == WORD:
                self._constants.update(dict.fromkeys(self._table(operand.displacement), eip))
        behind = (eip + instruction.length) & 0xFFFF_FFFF
        returns = instruction.row.body in _CALLS and not self._strict
        if returns and self._reads_like_code(behind, called=True):
            self.targets[behind].add(eip)
            found.append(behind)
        return found

    def _table(self, at: int) -> Iterator[int]:
        """Entries of a table, while they are in pages of code that are known."""
        for number in range(MOST_ENTRIES):
            place = self.context.base + at + number * WORD & 0xFFFF_FFFF
            data = self._vm.cpu.read_linear(place, WORD)
            value = int.from_bytes(data, "little")
            if len(data) < WORD or value & -PAGE not in self._sure:
                return
            yield value

    # -- overlaps ----------------------------------------------------------------------------------

    def _find_overlaps(self) -> None:
        """An instruction that reads the first byte of a site otherwise is a site as well: it must
        not run with that byte overwritten. So are bytes that are no instruction."""
        waiting = []
        for start in self._new:
            if start not in self.sites and any(map(self._is_overwritten, self._bytes(start))):
                self.sites.add(start)
                self.overlaps += 1
            if start in self.sites:
                waiting.append(start)
        self.scanned += len(self._new)
        self._new.clear()
        while waiting:
            for start in self._covering(waiting.pop()):
                if start not in self.sites:
                    self.sites.add(start)
                    self.overlaps += 1
                    waiting.append(start)

    def _bytes(self, start: int) -> range:
        """EIPs of the bytes of what begins at an EIP."""
        instruction = self.instructions.get(start)
        length = len(self.broken.get(start, b"")) if instruction is None else instruction.length
        return range(start, start + length)

    def _is_overwritten(self, eip: int) -> bool:
        return any(alias in self.sites for alias in self.aliases(eip))

    def aliases(self, eip: int) -> list[int]:
        """EIPs of the byte at an EIP: itself, and where else code is known to be mapped."""
        page = self.pages.get(self.linear_page(eip))
        linear = self.linear.get(page, ()) if page is not None else ()
        if len(linear) < 2:
            return [eip]
        offset = (self.context.base + eip) % PAGE
        return [(other + offset - self.context.base) & 0xFFFF_FFFF for other in linear]

    def _covering(self, eip: int) -> Iterator[int]:
        """What begins elsewhere and has the byte at an EIP among its own."""
        for alias in self.aliases(eip):
            for start in range(alias - MAXIMUM_LENGTH + 1, alias + 1):
                if start != eip and alias in self._bytes(start):
                    yield start

    # -- forgetting --------------------------------------------------------------------------------

    def covered(self, eip: int) -> bool:
        """Is there an instruction, or what is none, with a byte at an EIP?"""
        starts = range(eip - MAXIMUM_LENGTH + 1, eip + 1)
        return any(start == eip or eip in self._bytes(start) for start in starts
                   if self.knows(start))  # fmt: skip

    def forget_page(self, linear: int) -> tuple[set[int], set[int]]:
        """Forget what has bytes in a page: what that was, and from where to scan it again."""
        gone = self._starts.pop(linear, set())
        for eip in gone:
            for starts in self._starts.values() if self._crosses(eip, linear) else ():
                starts.discard(eip)
            self.instructions.pop(eip, None)
            self.broken.pop(eip, None)
        self.sites -= gone
        page = self.pages.pop(linear, None)
        if page is not None:
            self.linear[page].discard(linear)
        self._sure.discard(linear)
        led_to = {eip: self.sources(eip) for eip in gone}
        guessed = [eip for eip, sources in led_to.items() if sources == {ENTERED}]
        self._constants.update(dict.fromkeys(guessed, ENTERED))
        entered = {
            eip for eip, sources in led_to.items()
            if sources - {ENTERED} or self.linear_page(eip) != linear
        }  # fmt: skip
        return gone, entered | self._runs_into(linear)

    def _crosses(self, eip: int, linear: int) -> bool:
        last = self._bytes(eip)[-1:]
        return self.linear_page(eip) != linear or any(self.linear_page(at) != linear for at in last)

    def _runs_into(self, linear: int) -> set[int]:
        """Where a page begins, if an instruction before it goes on there."""
        first = (linear - self.context.base) & 0xFFFF_FFFF
        for start in range(first - MAXIMUM_LENGTH, first):
            instruction = self.instructions.get(start)
            if instruction is not None and start + instruction.length == first:
                return set() if instruction.row.id in _ENDS else {first}
        return set()

    def clear(self, context: Context = NO_CONTEXT) -> None:
        """Nothing is known; code runs in this context from now on."""
        self.context = context
        for known in (self.instructions, self.broken, self.targets, self.pages, self.linear,
                      self._starts, self._constants):  # fmt: skip
            known.clear()
        self.sites.clear()
        self._sure.clear()
        self._new.clear()
