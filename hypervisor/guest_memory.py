"""A guest's memory: machine frames that the guest takes for one piece of RAM.

Addresses are guest-physical. `frames` says which machine page stands for each guest page; the core
reads the same array when it walks the guest's page tables (cpu_set_frames). Where a PC has no
memory, there is no frame. The interface is that of emulator/memory.py. Read vm.py next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from emulator.core import PageFlag, ffi
from emulator.memory import HOLE, HOLE_MEMORY, Memory

if TYPE_CHECKING:
    from hypervisor.host import Host

PAGE: Final = 4096
NO_FRAME: Final = 0xFFFFF  #: machine page beyond all memory: reads are all ones, writes are lost


def _pages_of(ranges: Iterable[range]) -> frozenset[int]:
    """The pages of ranges of addresses."""
    return frozenset(
        page for each in ranges for page in range(each.start // PAGE, each.stop // PAGE)
    )


class GuestMemory(Memory):
    """`size` bytes of guest-physical memory in frames of the host's."""

    def __init__(self, host: Host, size: int, *, direct: bool = False) -> None:
        """direct: each page is to be the machine page of the same number; and where a PC has no
        RAM, the machine has none either then."""
        # Not Memory.__init__: the bytes are the host's.
        self.size = size
        self._weighted = set()
        self._host, self._direct = host, direct
        self._machine_memory = host.memory
        self.count = size // PAGE
        self.frames: Any = ffi.new("uint32_t[]", [NO_FRAME] * self.count)
        self.guest_page: dict[int, int] = {}  #: machine page -> guest page
        #: Address and bytes of a page -> as the guest wrote them, if a technique has changed them.
        self.view_page: Callable[[int, bytes], bytes] = lambda address, data: data
        self.devices: set[int] = set()  #: guest pages of devices, beyond all RAM
        self.lent: set[int] = set()  #: those of them that are the real CPU's own to answer
        hole = {page // PAGE for page in HOLE[::PAGE]}
        hole -= {page // PAGE for memory in HOLE_MEMORY for page in memory[::PAGE]}
        if direct:
            host.take(range(self.count))
            host.memory.leave_hole()
        for page in (page for page in range(self.count) if page not in hole):
            frame = page if direct else host.allocate()
            self.frames[page] = frame
            self.guest_page[frame] = page

    def frame(self, page: int) -> int:
        """The machine page of a guest page; NO_FRAME where there is none.

        A device's is the machine's of the same number, a device's too (csrc/paging.c).
        """
        if page < self.count:
            return int(self.frames[page])
        return page if page in self.devices else NO_FRAME

    def is_memory(self, page: int) -> bool:
        """Is there memory at a guest page?"""
        return page < self.count and self.frames[page] != NO_FRAME

    def is_barred(self, page: int) -> bool:
        """Is it a device's that the real CPU must not reach? The virtual one makes the access."""
        return page in self.devices and page not in self.lent

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes; all ones where there is no memory."""
        pieces = []
        while size > 0:
            step = min(size, PAGE - address % PAGE)
            frame = self.frame((address & 0xFFFF_FFFF) // PAGE)
            pieces.append(self._machine_memory.read(frame << 12 | address % PAGE, step))
            address, size = address + step, size - step
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, address: int, data: bytes) -> None:
        """Write through the page flags; what meets no memory is lost."""
        done = 0
        while done < len(data):
            at = address + done
            step = min(len(data) - done, PAGE - at % PAGE)
            frame = self.frame((at & 0xFFFF_FFFF) // PAGE)
            self._machine_memory.write(frame << 12 | at % PAGE, data[done : done + step])
            done += step

    def set_weights(self, page: int, bits: bytes | None) -> None:
        """Give instructions of a guest page retire weight 0, a bit a byte."""
        self._weighted.add(page)
        self._machine_memory.set_weights(self.frame(page), bits)

    def leave_device(self, page: int) -> None:
        self.devices.add(page)
        self._machine_memory.leave_device(page)

    def set_flags(self, addresses: range, *, set_: int = 0, clear: int = 0) -> None:
        for page in (address // PAGE for address in addresses[::PAGE]):
            frame = self.frame(page) * PAGE
            self._machine_memory.set_flags(range(frame, frame + PAGE), set_=set_, clear=clear)

    def watch(self, page: int, watched: bool) -> None:
        """Have stores to a guest page reported, whoever's they are; or no more."""
        flag = PageFlag.WATCHED
        self.set_flags(
            range(page * PAGE, (page + 1) * PAGE),
            set_=flag if watched else 0,
            clear=0 if watched else flag,
        )

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """The (guest-physical address, bytes) of every page that is not all zero."""
        zero = bytes(PAGE)
        for page in range(self.count):
            if self.frames[page] != NO_FRAME:
                data = self._machine_memory.read(self.frames[page] << 12, PAGE)
                seen = data if data == zero else self.view_page(page * PAGE, data)
                if seen != zero:
                    yield page * PAGE, seen

    def restore(self, pages: Mapping[int, bytes]) -> None:
        """Make memory what `pages` yielded."""
        zero = bytes(PAGE)
        for offset in {offset for offset, _ in self.pages()} | set(pages):
            self.write(offset, pages.get(offset, zero))

    def free(self) -> None:
        """Give the frames back."""
        self.forget_weights()
        for memory in HOLE_MEMORY:
            self.set_flags(memory, clear=PageFlag.ROM)
        frames = [*self.guest_page]
        if self._direct:
            self._machine_memory.map(HOLE)
            frames = [*range(self.count)]
        for frame in frames:
            self._host.free(frame)
        self.guest_page.clear()
