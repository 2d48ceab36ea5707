"""Patches: guest memory overwritten, and patch memory behind it.

A site, with as many instructions after it as make five bytes, becomes a jump to patch memory, where
the site's code and the moved instructions stand - if these may be moved, lie in one page that is
mapped once, and nobody is known to jump to one of them but from among them: a small loop is moved
as a whole. Else its first byte becomes INT3, which asks the hypervisor; that goes on in patch
memory too, if the site has a form. All jumps of ours take no tick: what counts is the guest's
instruction, wherever it stands.

Two linear pages may be one page of the guest's memory. A byte that both have as a site's first is
overwritten for both, and given back with the second. A target found later within a jump, or another
address of its page, undoes that jump. coherence.py says what else ends a patch.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from hypervisor.guest_memory import PAGE
from hypervisor.patcher.sites import PatchWriter, branch_form, form_for, is_site
from hypervisor.translator.forms import FLAT_LIMIT
from hypervisor.translator.unit import Link, Place, Site
from hypervisor.translator.writer import JUMP_LENGTH, encoded_jump

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypervisor.patcher.memory import PatchMemory
    from hypervisor.patcher.scanner import Scanner
    from hypervisor.vm import VirtualMachine
    from isa.decoder import Instruction

INT3: Final = b"\xcc"
JUMP: Final = "jump"
TRAP: Final = "int3"
#: Why a site is no jump, in words that are counted.
UNREAD: Final = "zeros, which are not scanned on"
SHORT: Final = "too near the end of its run"
TARGET: Final = "a jump leads into it"
NO_FORM: Final = "only the hypervisor can do it"
NOT_MOVED: Final = "what follows cannot be moved"
FULL: Final = "patch memory is full"
OVERLAPS: Final = "another patch is in the way"
CROSSES: Final = "it crosses into another page"
SHARED: Final = "its page is mapped twice"
#: What else is counted.
REMOVED: Final = "removed"
DOWNGRADED: Final = "downgraded"
#: Instructions that move together at most, so that a loop among them is whole.
MOST_MOVED: Final = 16
#: Behind these nothing of ours follows.
_ENDING: Final = frozenset({"call", "iret", "ret", "jmp"})


class Patch:
    """One site's patch."""

    def __init__(self, eip: int, kind: str, reason: str) -> None:
        self.eip = eip
        self.kind = kind  #: JUMP or TRAP
        self.reason = reason  #: why it is no jump; empty if it is one
        self.sites: dict[int, Site] = {}  #: by EIP: the instructions it stands for
        self.original = b""  #: what the patch has overwritten
        self.bytes = b""  #: what stands there now
        self.physical = 0  #: guest-physical address
        self.code = b""  #: in patch memory; empty if it has none
        self.start = 0  #: its linear address there
        self.places: dict[int, Place] = {}  #: by offset
        self.links: list[Link] = []  #: its jumps
        self.weightless: tuple[int, ...] = ()
        self.inside: dict[int, int] = {}  #: EIP -> offset
        self.executed = 0  #: exits through it, of an INT3

    @property
    def end(self) -> int:
        """EIP behind what it has overwritten."""
        return self.eip + len(self.original)


class Patches:
    """The patches of one virtual machine."""

    def __init__(self, vm: VirtualMachine, scanner: Scanner, memory: PatchMemory) -> None:
        self._vm, self._scanner, self._memory = vm, scanner, memory
        self.by_eip: dict[int, Patch] = {}
        self._inside: dict[int, Patch] = {}  #: by each EIP that a jump has overwritten or moved
        self.of_page: dict[int, set[Patch]] = defaultdict(set)  #: by guest page
        self.counts: Counter[str] = Counter()
        self.moved_along = 0  #: instructions behind a site that a jump stands for as well

    # -- making ----------------------------------------------------------------------------------

    def make(self, sites: Iterable[int]) -> None:
        """Patch sites, and undo the jumps that new targets lead into."""
        for patch, reason in self._undone():
            self._downgrade(patch, reason)
        for eip in sorted(sites):
            if self.at(eip) is None:
                self._patch(eip)

    def _undone(self) -> list[tuple[Patch, str]]:
        """Jumps that may stand no longer, and why."""
        found = []
        for patch in list(self.by_eip.values()):
            if patch.kind != JUMP:
                continue
            if self._is_shared(patch.eip):
                found.append((patch, SHARED))
            elif self._is_entered(patch):
                found.append((patch, TARGET))
        return found

    def _is_entered(self, patch: Patch) -> bool:
        """Does anything lead into a jump, or is it read otherwise?"""
        scanner = self._scanner
        return any(
            eip != patch.eip and scanner.sources(eip) - patch.sites.keys() for eip in patch.sites
        ) or any(
            scanner.knows(eip) and eip not in patch.sites for eip in range(patch.eip, patch.end)
        )

    def _downgrade(self, patch: Patch, reason: str) -> None:
        self.counts[DOWNGRADED] += 1
        self.remove(patch)
        for eip in sorted(patch.sites):
            if eip in self._scanner.sites:
                self._patch(eip, reason)

    def _patch(self, eip: int, reason: str = "") -> None:
        scanner = self._scanner
        instruction = scanner.instructions.get(eip)
        run = [] if instruction is None else [instruction]
        if instruction is None:
            reason = NO_FORM
        elif not reason:
            run, reason = self._run(instruction)
        patch = Patch(eip, TRAP if reason else JUMP, reason)
        page = scanner.pages[scanner.linear_page(eip)]
        if page is None:
            return  # nothing is there
        patch.physical = page * PAGE + (scanner.context.base + eip) % PAGE
        if instruction is None:
            patch.sites[eip] = Site(eip, scanner.broken[eip], None)
        self._write_code(patch, run)
        if not reason and not patch.start:
            self._patch(eip, FULL)
            return
        self.counts[reason or JUMP] += 1
        self.moved_along += len(run) - 1 if patch.kind == JUMP else 0
        self._overwrite(patch, page)

    def _overwrite(self, patch: Patch, page: int) -> None:
        size = 1 if patch.kind == TRAP else JUMP_LENGTH
        here = self._vm.memory.read(page * PAGE, PAGE)
        at = patch.physical % PAGE
        patch.original = self.unpatched(page * PAGE, here)[at : at + size]
        if patch.kind == JUMP:
            distance = (patch.start - patch.eip - JUMP_LENGTH) & 0xFFFF_FFFF
            patch.bytes = encoded_jump("jmp")[:1] + distance.to_bytes(4, "little")
            self._inside |= dict.fromkeys((*range(patch.eip, patch.end), *patch.sites), patch)
        else:
            patch.bytes = INT3
        self._vm.memory.write(patch.physical, patch.bytes)
        self.by_eip[patch.eip] = patch
        self.of_page[page].add(patch)
        self._set_weights(page)

    # -- which instructions go together ------------------------------------------------------------

    def _run(self, first: Instruction) -> tuple[list[Instruction], str]:
        """The instructions that a jump would stand for; or the site alone, and why not."""
        alone, context = [first], self._scanner.context
        if not any(first.bytes):
            return alone, UNREAD
        if not is_site(first) or form_for(first) is None:
            return alone, NO_FORM
        if context.base or context.limit != FLAT_LIMIT:
            return alone, NOT_MOVED
        if self._is_shared(first.address):
            return alone, SHARED
        run, reason = [first], ""
        while not reason:
            size = run[-1].address + run[-1].length - first.address
            if (first.address & (PAGE - 1)) + max(size, JUMP_LENGTH) > PAGE:
                return alone, CROSSES
            reason = self._entered(run)
            if size >= JUMP_LENGTH and not reason:
                break
            reason = self._append(run, reason)
        reason = reason or self._overlapped(run)
        return (alone, reason) if reason else (run, "")

    def _entered(self, run: list[Instruction]) -> str:
        """Why a run is no run yet: something else leads into it."""
        own = {instruction.address for instruction in run}
        others = any(self._scanner.sources(eip) - own for eip in own if eip != run[0].address)
        return TARGET if others else ""

    def _append(self, run: list[Instruction], reason: str) -> str:
        """Let a run go on, perhaps to the branch that leads into it; why it cannot."""
        last = run[-1]
        if last.row.body in _ENDING or len(run) == MOST_MOVED:
            return reason or SHORT
        following = self._scanner.instructions.get(last.address + last.length)
        if following is None:
            return reason or SHORT
        eip = following.address
        is_other = eip in self._scanner.sites and not is_site(following)
        if self.at(eip) is not None or is_other or not _can_move(following):
            return reason or NOT_MOVED
        run.append(following)
        return ""

    def _overlapped(self, run: list[Instruction]) -> str:
        """Whether what a jump would overwrite is another's."""
        first = run[0].address
        starts = {instruction.address for instruction in run}
        overwritten = {*range(first, first + JUMP_LENGTH), *starts}
        taken = any(self.at(eip) for eip in overwritten) or any(
            self._scanner.knows(eip) and eip not in starts
            for eip in range(first, first + JUMP_LENGTH)
        )
        return OVERLAPS if taken else ""

    def _is_shared(self, eip: int) -> bool:
        return len(self._scanner.aliases(eip)) > 1

    def _write_code(self, patch: Patch, run: list[Instruction]) -> None:
        """The code in patch memory."""
        for instruction in run:
            site = Site(instruction.address, instruction.bytes, instruction.row)
            patch.sites[site.eip] = site
        context = self._scanner.context
        if not run or not is_site(run[0]) or form_for(run[0]) is None:
            return
        if context.base or context.limit != FLAT_LIMIT:
            return
        w = PatchWriter(context)
        for instruction in run:
            w.begin(patch.sites[instruction.address])
            patch.inside[instruction.address] = len(w.data)
            form = form_for(instruction) if is_site(instruction) else branch_form(instruction)
            if form is None:
                w.identical(instruction.bytes)
            else:
                form(w)
        if run[-1].row.body not in _ENDING:
            w.go_on(w.site.end)
        patch.code, patch.places, patch.links = bytes(w.data), w.places, w.links
        patch.weightless = tuple(w.weightless)
        self._memory.add(patch)

    def _set_weights(self, page: int) -> None:
        bits = bytearray(PAGE // 8)
        for patch in self.of_page[page]:
            if patch.kind == JUMP:
                bits[patch.physical % PAGE >> 3] |= 1 << (patch.physical & 7)
        self._vm.memory.set_weights(page, bytes(bits))

    # -- finding ---------------------------------------------------------------------------------

    def at(self, eip: int) -> Patch | None:
        """The patch that stands for the instruction at an EIP."""
        return self._inside.get(eip) or self.by_eip.get(eip)

    def original_at(self, eip: int) -> Site | None:
        """The instruction that a patch stands for; None if what stands there is the guest's."""
        patch = self.at(eip)
        return None if patch is None else patch.sites.get(eip)

    def overwrites(self, page: int, offset: int, size: int) -> bool:
        """Has any of so many bytes in a guest page been overwritten?"""
        first = page * PAGE + offset
        return any(
            patch.physical < first + size and first < patch.physical + len(patch.bytes)
            for patch in self.of_page.get(page, ())
        )

    def unpatched(self, address: int, data: bytes) -> bytes:
        """Guest memory as the guest wrote it."""
        patches = self.of_page.get(address // PAGE)
        if not patches:
            return data
        page = bytearray(data)
        for patch in patches:
            offset = patch.physical - address
            page[offset : offset + len(patch.original)] = patch.original
        return bytes(page)

    # -- undoing ---------------------------------------------------------------------------------

    def remove(self, patch: Patch, keep: frozenset[int] | set[int] = frozenset()) -> None:
        """Put the original back, but for the bytes at offsets that the guest has just written."""
        page = patch.physical // PAGE
        self.of_page[page].discard(patch)
        others = {other.physical for other in self.of_page[page]}
        for number, byte in enumerate(patch.original):
            if number not in keep and patch.physical + number not in others:
                self._vm.memory.write(patch.physical + number, bytes([byte]))
        del self.by_eip[patch.eip]
        for eip in (*range(patch.eip, patch.end), *patch.sites):
            if self._inside.get(eip) is patch:
                del self._inside[eip]
        self._memory.free(patch)
        self._set_weights(page)
        self.counts[REMOVED] += 1

    def clear(self) -> None:
        """Put all originals back."""
        for patch in list(self.by_eip.values()):
            self.remove(patch)

    def forget(self) -> None:
        """The guest is another one: what stands in its memory is its own."""
        for patch in self.by_eip.values():
            self._memory.free(patch)
        for known in (self.by_eip, self._inside, self.of_page):
            known.clear()


def _can_move(instruction: Instruction) -> bool:
    """Does it do the same in patch memory?"""
    if is_site(instruction):
        return form_for(instruction) is not None
    row = instruction.row
    if row.body == "ret" or branch_form(instruction) is not None:
        return True
    return row.translation == "identical" and row.body != "ud2"
