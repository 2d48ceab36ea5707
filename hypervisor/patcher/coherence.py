"""What ends a patch: the code under it changes, or is not where it was.

Guest pages that code leads to are traced: a store to one is interpreted. Before it, patches near
are put back, so that a store which reads as well, such as INC, finds the guest's own bytes; after
it, the page is scanned again if scanned code has changed. Which guest page each linear page of code
is, is looked at again after a store to a traced page, a change of control registers, and whenever
the shadows take in a page of code. Read patches.py first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypervisor.guest_memory import PAGE
from hypervisor.memory.shadow import PREFETCH
from hypervisor.translator.builder import moved_pages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hypervisor.patcher.patches import Patches
    from hypervisor.patcher.scanner import Scanner
    from hypervisor.translator.unit import Context
    from hypervisor.vm import VirtualMachine

CODE: Final = "code"  #: whom pages are traced for
NEAR: Final = 64  #: bytes: more than any store reads at once


class Coherence:
    """Keeps the patches of one virtual machine true to its code."""

    def __init__(self, vm: VirtualMachine, scanner: Scanner, patches: Patches) -> None:
        self._vm, self._scanner, self._patches = vm, scanner, patches
        self._seen: dict[int, bytes] = {}  #: by traced guest page: as the guest left it
        self._lost: set[int] = set()  #: sites without their patches, for a store's sake
        self.rescanned = 0  #: pages whose code has changed
        self.moved = 0  #: pages that have become others

    def scan(self, entries: Iterable[int] = ()) -> None:
        """Follow control flow from entries, patch what is found, and watch its pages."""
        sites = self._scanner.scan(entries) | (self._lost & self._scanner.sites)
        self._lost.clear()
        self._patches.make(sites)
        for page, linear in list(self._scanner.linear.items()):
            if linear and page not in self._seen:
                self._vm.paging.trace(page, CODE)
                self._seen[page] = self._view(page)
            elif not linear:
                del self._scanner.linear[page]
                if self._seen.pop(page, None) is not None:
                    self._vm.paging.untrace(page, CODE)
        self._veil()

    def _veil(self) -> None:
        """Hide the pages with patches, but from who executes them."""
        linear, pages = self._scanner.linear, self._patches.of_page
        self._vm.paging.veil({
            page: frozenset(linear.get(page, ())) for page, here in pages.items() if here
        })  # fmt: skip

    def _view(self, page: int) -> bytes:
        """A page as the guest wrote it."""
        return self._patches.unpatched(page * PAGE, self._vm.memory.read(page * PAGE, PAGE))

    # -- stores ----------------------------------------------------------------------------------

    def before_store(self, physical: int) -> None:
        """A store near a guest-physical address, in one page, is about to be interpreted."""
        for patch in list(self._patches.of_page.get(physical // PAGE, ())):
            if -NEAR < patch.physical - physical < NEAR:
                self._patches.remove(patch)
                self._lost.update(patch.sites)

    def put_back(self, pages: Iterable[int]) -> bool:
        """The guest's own bytes are about to be read in some pages. Whether patches were there."""
        patches = [patch for page in pages for patch in self._patches.of_page.get(page, ())]
        for patch in patches:
            self._patches.remove(patch)
            self._lost.update(patch.sites)
        return bool(patches)

    @property
    def incomplete(self) -> bool:
        """Are there patches to be made again?"""
        return bool(self._lost)

    def written(self, page: int) -> None:
        """A traced page has been stored to."""
        before = self._seen.get(page)
        if before is not None:
            self._changed(page, before)
        self.check()

    def _changed(self, page: int, before: bytes) -> None:
        now = self._vm.memory.read(page * PAGE, PAGE)
        for patch in list(self._patches.of_page.get(page, ())):
            start = patch.physical % PAGE
            here = now[start : start + len(patch.bytes)]
            hit = {n for n, byte in enumerate(here) if byte != patch.bytes[n]}
            if hit:
                self._patches.remove(patch, hit)
                self._lost.update(patch.sites)
        now = self._seen[page] = self._view(page)
        scanner, changed = self._scanner, _differences(before, now)
        base = scanner.context.base
        dirty = {
            linear for linear in scanner.linear.get(page, ())
            if any(scanner.covered((linear + at - base) & 0xFFFF_FFFF) for at in changed)
        }  # fmt: skip
        self.rescanned += len(dirty)
        if dirty or self._lost:
            self._forget(dirty)

    def _forget(self, pages: Iterable[int]) -> None:
        """Forget the code in linear pages, and scan again what leads there."""
        roots: set[int] = set()
        for linear in pages:
            gone, again = self._scanner.forget_page(linear)
            roots |= again
            for eip in gone:
                patch = self._patches.at(eip)
                if patch is not None:
                    self._patches.remove(patch)
                    self._lost.update(patch.sites)
        self.scan(eip for eip in roots if not self._scanner.knows(eip))

    # -- mappings --------------------------------------------------------------------------------

    def check(self) -> None:
        """What linear addresses mean may have changed."""
        self._check(self._scanner.pages)

    def check_near(self, linear: int) -> bool:
        """The same of what the shadows take in with a linear address; whether something has."""
        first = linear & -PAGE
        near = (first + number * PAGE & 0xFFFF_FFFF for number in range(PREFETCH + 1))
        known = self._scanner.pages
        return self._check({page: known[page] for page in near if page in known})

    def _check(self, pages: Mapping[int, int | None]) -> bool:
        moved = moved_pages(self._vm, pages)
        if moved:
            self.moved += len(moved)
            self._forget(moved)
        return bool(moved)

    # -- everything ------------------------------------------------------------------------------

    def clear(self, context: Context) -> None:
        """Put all originals back; code runs in this context from now on."""
        self._patches.clear()
        self._scanner.clear(context)
        self._lost.clear()
        self._veil()

    def forget(self) -> None:
        """The guest is another one: what stands in its memory is its own."""
        self._patches.forget()
        self._scanner.clear()
        self._seen.clear()
        self._lost.clear()
        self._veil()


def _differences(before: bytes, now: bytes) -> list[int]:
    """Offsets at which two pages differ."""
    difference = int.from_bytes(before, "little") ^ int.from_bytes(now, "little")
    found = []
    while difference:
        at = ((difference & -difference).bit_length() - 1) // 8
        found.append(at)
        difference &= -1 << 8 * (at + 1)
    return found
