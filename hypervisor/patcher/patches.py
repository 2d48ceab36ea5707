"""Patches: guest memory overwritten, and patch memory behind it.

A site, with as many instructions after it as make five bytes, becomes a jump to patch memory, where
the site's code and the moved instructions stand - if these may be moved, lie in one page, and
nobody is known to jump to one of them. Else its first byte becomes INT3, which asks the hypervisor;
that goes on in patch memory too, if the site has a form. All jumps of ours take no tick: what
counts is the guest's instruction, wherever it stands.

Pages with scanned code are traced. Before a store changes a patch, the original is put back; after
it, the page is scanned again. A target found later within a jump undoes that jump.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from hypervisor.guest_memory import PAGE
from hypervisor.patcher.sites import PatchWriter, form_for, is_site
from hypervisor.translator.unit import Context, Place, Site
from hypervisor.translator.writer import JUMP_LENGTH, encoded_jump

if TYPE_CHECKING:
    from hypervisor.patcher.memory import PatchMemory
    from hypervisor.patcher.scanner import Scanner
    from hypervisor.vm import VirtualMachine
    from isa.decoder import Instruction

INT3: Final = b"\xcc"
JUMP: Final = "jump"
TRAP: Final = "int3"
#: Why a site is no jump, in words that are counted.
SHORT: Final = "too near the end of its run"
TARGET: Final = "a jump leads into it"
NO_FORM: Final = "only the hypervisor can do it"
NOT_MOVED: Final = "what follows cannot be moved"
FULL: Final = "patch memory is full"
OVERLAPS: Final = "another patch is in the way"
CROSSES: Final = "it crosses into another page"
CODE: Final = "code"  #: whom pages are traced for


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
        self.weightless: tuple[int, ...] = ()
        self.inside: dict[int, int] = {}  #: EIP -> offset
        self.executed = 0  #: exits through it, of an INT3

    @property
    def end(self) -> int:
        """EIP behind what it has overwritten."""
        return self.eip + len(self.original)


class Patches:
    """The patches of one virtual machine, and the pages they are in."""

    def __init__(self, vm: VirtualMachine, scanner: Scanner, memory: PatchMemory) -> None:
        self._vm, self._scanner, self._memory = vm, scanner, memory
        self.by_eip: dict[int, Patch] = {}
        self._inside: dict[int, Patch] = {}  #: by each EIP that a jump has overwritten
        self._of_page: dict[int, set[Patch]] = defaultdict(set)  #: by guest page
        self._seen: dict[int, bytes] = {}  #: by guest page of scanned code: as it was left
        self.counts: Counter[str] = Counter()

    # -- making ----------------------------------------------------------------------------------

    def make(self, context: Context, sites: set[int]) -> None:
        """Patch new sites, and undo the jumps that new targets lead into."""
        for patch in {self._inside[at] for at in self._entered_within()}:
            self._downgrade(context, patch)
        for eip in sorted(sites):
            if eip not in self._inside and eip not in self.by_eip:
                self._patch(context, eip)
        for page in self._scanner.pages.values():
            if page not in self._seen:
                self._vm.paging.trace(page, CODE)
            self._look(page)

    def _entered_within(self) -> list[int]:
        """EIPs within jumps that something leads to, or where the bytes are read otherwise."""
        scanner = self._scanner
        return [
            at for at, patch in self._inside.items() if at != patch.eip
            and (at in scanner.targets or (at in scanner.instructions and at not in patch.sites))
        ]  # fmt: skip

    def _look(self, page: int) -> None:
        self._seen[page] = self._vm.memory.read(page * PAGE, PAGE)

    def _downgrade(self, context: Context, patch: Patch) -> None:
        self.counts["downgraded"] += 1
        self.remove(patch)
        for eip in sorted(patch.sites):
            if eip in self._scanner.sites:
                self._patch(context, eip, TARGET)

    def _patch(self, context: Context, eip: int, reason: str = "") -> None:
        instruction = self._scanner.instructions[eip]
        run, reason = ([instruction], reason) if reason else self._run(context, instruction)
        patch = Patch(eip, TRAP if reason else JUMP, reason)
        linear = context.base + eip
        page = self._scanner.pages[linear & -PAGE]
        patch.physical = page * PAGE + linear % PAGE
        self._write_code(context, patch, run)
        if not reason and not patch.start:
            self._patch(context, eip, FULL)
            return
        self.counts[reason or JUMP] += 1
        size = 1 if reason else JUMP_LENGTH
        patch.original = self._vm.memory.read(patch.physical, size)
        if patch.kind == JUMP:
            distance = (patch.start - eip - JUMP_LENGTH) & 0xFFFF_FFFF
            patch.bytes = encoded_jump("jmp")[:1] + distance.to_bytes(4, "little")
        else:
            patch.bytes = INT3
        self._vm.memory.write(patch.physical, patch.bytes)
        self.by_eip[eip] = patch
        self._of_page[page].add(patch)
        if patch.kind == JUMP:
            self._inside |= dict.fromkeys(range(eip, patch.end), patch)
        self._set_weights(page)

    def _run(self, context: Context, first: Instruction) -> tuple[list[Instruction], str]:
        """The instructions that a jump would overwrite; or the site alone, and why not."""
        alone = [first]
        if not is_site(first) or form_for(first) is None:
            return alone, NO_FORM
        if context.base:
            return alone, NOT_MOVED
        run, size = [first], first.length
        while size < JUMP_LENGTH:
            if run[-1].row.body in ("iret", "ret"):
                return alone, SHORT
            following = self._scanner.instructions.get(first.address + size)
            if following is None:
                return alone, SHORT
            if following.address in self._scanner.targets:
                return alone, TARGET
            is_other = following.address in self._scanner.sites and not is_site(following)
            if following.address in self.by_eip or is_other or not _can_move(following):
                return alone, NOT_MOVED
            run.append(following)
            size += following.length
        if (first.address & (PAGE - 1)) + size > PAGE:
            return alone, CROSSES
        overwritten = range(first.address, first.address + JUMP_LENGTH)
        starts = {instruction.address for instruction in run}
        if any(self.at(eip) for eip in overwritten) or any(
            eip in self._scanner.instructions and eip not in starts for eip in overwritten
        ):
            return alone, OVERLAPS
        return run, ""

    def _write_code(self, context: Context, patch: Patch, run: list[Instruction]) -> None:
        """The code in patch memory."""
        for instruction in run:
            site = Site(instruction.address, instruction.bytes, instruction.row)
            patch.sites[site.eip] = site
        if not is_site(run[0]) or form_for(run[0]) is None or context.base:
            return
        w = PatchWriter(context)
        for instruction in run:
            w.begin(patch.sites[instruction.address])
            patch.inside[instruction.address] = len(w.data)
            form = form_for(instruction) if is_site(instruction) else None
            if form is None:
                w.identical(instruction.bytes)
            else:
                form(w)
        if run[-1].row.body not in ("iret", "ret"):
            w.glue(encoded_jump("jmp"), w.site.end)
        patch.code, patch.places = bytes(w.data), w.places
        patch.weightless = tuple(w.weightless)
        self._memory.add(patch, w.site.end)

    def _set_weights(self, page: int) -> None:
        bits = bytearray(PAGE // 8)
        for patch in self._of_page[page]:
            if patch.kind == JUMP:
                bits[patch.physical % PAGE >> 3] |= 1 << (patch.physical & 7)
        self._vm.memory.set_weights(page, bytes(bits))

    # -- finding ---------------------------------------------------------------------------------

    def at(self, eip: int) -> Patch | None:
        """The patch that has overwritten the instruction at an EIP."""
        return self._inside.get(eip) or self.by_eip.get(eip)

    def original_at(self, eip: int) -> Site | None:
        """The instruction that a patch stands for; None if what stands there is the guest's."""
        patch = self.at(eip)
        return None if patch is None else patch.sites.get(eip)

    def unpatched(self, address: int, data: bytes) -> bytes:
        """Guest memory as the guest wrote it."""
        patches = self._of_page.get(address // PAGE)
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
        for number, byte in enumerate(patch.original):
            if number not in keep:
                self._vm.memory.write(patch.physical + number, bytes([byte]))
        del self.by_eip[patch.eip]
        for eip in range(patch.eip, patch.end):
            if self._inside.get(eip) is patch:
                del self._inside[eip]
        page = patch.physical // PAGE
        self._of_page[page].discard(patch)
        self._memory.free(patch)
        self._set_weights(page)
        self.counts["removed"] += 1

    def before_store(self, physical: int) -> None:
        """A store near a guest-physical address is about to be interpreted."""
        for patch in list(self._of_page.get(physical // PAGE, ())):
            if -NEAR < patch.physical - physical < NEAR:
                self.remove(patch)

    def written(self, page: int) -> set[int]:
        """A traced page has been stored to: the linear pages whose code is not what it was."""
        before = self._seen.get(page)
        if before is None:
            return set()
        now = self._vm.memory.read(page * PAGE, PAGE)
        changed = {at for at in range(PAGE) if before[at] != now[at]} if before != now else set()
        for patch in list(self._of_page[page]):
            start = patch.physical % PAGE
            hit = {at - start for at in changed if 0 <= at - start < len(patch.original)}
            if hit and self._vm.memory.read(patch.physical, len(patch.bytes)) != patch.bytes:
                self.remove(patch, hit)
        self._seen[page] = self._vm.memory.read(page * PAGE, PAGE)
        return {linear for linear, mapped in self._scanner.pages.items() if mapped == page}

    def clear(self) -> None:
        """Put all originals back."""
        for patch in list(self.by_eip.values()):
            self.remove(patch)
        self._seen.clear()

    def forget(self) -> None:
        """The guest is another one: what stands in its memory is its own."""
        for patch in self.by_eip.values():
            self._memory.free(patch)
        for known in (self.by_eip, self._inside, self._of_page, self._seen):
            known.clear()


def _can_move(instruction: Instruction) -> bool:
    """Does it do the same in patch memory?"""
    if is_site(instruction):
        return form_for(instruction) is not None
    row = instruction.row
    if row.body == "ret":
        return True
    return row.translation == "identical" and row.body != "ud2"


NEAR: Final = 64  #: bytes: more than any store writes at once
