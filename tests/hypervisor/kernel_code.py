"""Steps of generated kernels that change code: written, run, remapped, rewritten, used as data.

Four linear pages, the SLOTS, have routines in them. Which frame a slot is, is the page tables' to
say, and differs between the address spaces; a frame can be reached through its slots, at its own
address, and through the alias of that. Routines change EAX and EDX, count in DATA, and return; what
is no routine is filled with RET. As elsewhere, an entry that loses something is invalidated. See
kernel_steps.py for what a step is, and test_code_changes.py for who runs them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Final

from isa import assemble
from tests.hypervisor.kernel_memory import enable
from tests.hypervisor.kernel_rings import timer_writes
from tests.hypervisor.kernel_steps import LEAVE_RING_3, Step, into_ring_3, lines
from tests.hypervisor.kernel_world import (
    ALIAS,
    DATA,
    LEFT,
    LOW_TABLES,
    STACK_TOP,
    P,
    U,
    W,
)  # fmt: skip

PAGE: Final = 4096
SLOTS: Final = 0x140000  #: linear; 4 MiB pages and no paging have frames of their own there
SLOT_COUNT: Final = 4
FRAMES: Final = 0x130000
FRAME_COUNT: Final = 4
COUNTERS: Final = DATA + 0x100
DEPTH: Final = COUNTERS + 64  #: of routines that call another
RET: Final = 0xC3
LABEL: Final = re.compile(r"\.(?!finished)([a-z]\w*)")
#: Offsets of routines; the last crosses into the next page.
OFFSETS: Final = (0x40, 0x200, 0x800, PAGE - 9)
RIGHTS: Final = (P | W | U, P | W | U, P | W | U, P | W, P | U, P, 0)


def entry_of(space: int, linear: int) -> int:
    """Where the page-table entry of a page below 4 MiB lies."""
    return LOW_TABLES[space] + 4 * (linear >> 12)


def prepare() -> str:
    """The slots of two spaces, in another order each, and paging on; ring 3 may have the frames."""
    edits = []
    for space in range(2):
        for number in range(SLOT_COUNT):
            frame = FRAMES + PAGE * ((number + space) % FRAME_COUNT)
            slot = entry_of(space, SLOTS + PAGE * number)
            own = entry_of(space, FRAMES + PAGE * number)
            edits.append(f"mov dword [{slot}], {frame | P | W | U}")
            edits.append(f"mov dword [{own}], {FRAMES + PAGE * number | P | W | U}")
    return lines(*edits, enable(0))


# -- Routines -------------------------------------------------------------------------------------


def _counting(rng: Random, at: int) -> str:
    del at
    return f"mov eax, {rng.randrange(1 << 32)}\nadd [{COUNTERS}], eax\nret"


def _looping(rng: Random, at: int) -> str:
    del at
    return f"mov edx, {rng.randrange(1, 9)}\n.l: inc dword [{COUNTERS + 4}]\ndec edx\njnz .l\nret"


def _sensitive(rng: Random, at: int) -> str:
    del at
    what = rng.choice(
        (
            "pushf\npop eax",
            "mov eax, cr0",
            "cli",
            "mov eax, cs",
            "push 0x202\npopf\ncli",
            "smsw eax",
            "sti\nnop\ncli",
            f"int {rng.choice((0x30, 0x31))}",
            "mov eax, ds\nmov es, ax",
        )
    )
    return f"{what}\nadd [{COUNTERS + 8}], eax\nret"


def _branching(rng: Random, at: int) -> str:
    del at
    return (
        f"test byte [{COUNTERS}], {1 << rng.randrange(8)}\njz .a\ninc dword [{COUNTERS}]\n.a: ret"
    )


def _writes_itself(rng: Random, at: int) -> str:
    """Into its own next instruction, which has run before the second time; or the one after."""
    del at
    gap = rng.choice(("", "nop\n", "jmp .n\n"))
    store = rng.choice((f"mov byte [.n + 1], {rng.randrange(256)}", "inc byte [.n + 1]"))
    return f"{store}\n{gap}.n: mov eax, 0x11\nadd [{COUNTERS + 12}], eax\nret"


def _becomes_ret(rng: Random, at: int) -> str:
    """It ends itself earlier the next time."""
    del rng, at
    return f"inc dword [{COUNTERS + 16}]\n.n: mov byte [.n], {RET}\nret"


def _calls_on(rng: Random, at: int) -> str:
    """Another routine, or what is there by now; not for ever."""
    del at
    return lines(
        f"inc dword [{DEPTH}]\ncmp dword [{DEPTH}], 4\nja .r",
        f"mov eax, {_place(rng)}\ncall eax",
        f".r: dec dword [{DEPTH}]\nret",
    )


ROUTINES: Final[tuple[Callable[[Random, int], str], ...]] = (
    _counting, _looping, _sensitive, _branching, _writes_itself, _becomes_ret, _calls_on,
)  # fmt: skip


def _place(rng: Random) -> int:
    """The linear address of a routine."""
    return SLOTS + PAGE * rng.randrange(SLOT_COUNT) + rng.choice(OFFSETS)


def _routine(rng: Random, at: int) -> bytes:
    return assemble(rng.choice(ROUTINES)(rng, at), origin=at).flat()


def _through(rng: Random, at: int) -> int:
    """One of the ways to write to a routine: as it is called, by its frame, or by an alias."""
    inside = PAGE * rng.randrange(FRAME_COUNT) + at % PAGE
    return rng.choice((at, at, FRAMES + inside, ALIAS + FRAMES + inside))


def _store_bytes(at: int, code: bytes) -> str:
    return lines(*(f"mov byte [{at + n}], {byte}" for n, byte in enumerate(code)))


def _store(rng: Random, at: int, code: bytes) -> str:
    """Bytes, words, or a string instruction."""
    way = rng.randrange(3)
    if way == 0:
        return _store_bytes(at, code)
    if way == 1:
        code += bytes([RET]) * (-len(code) % 4)
        words = (int.from_bytes(code[n : n + 4], "little") for n in range(0, len(code), 4))
        return lines(*(f"mov dword [{at + 4 * n}], {word}" for n, word in enumerate(words)))
    return lines(
        "jmp .over",
        f".code: db {','.join(map(str, code))}",
        f".over: cld\nmov esi, .code\nmov edi, {at}\nmov ecx, {len(code)}",
        rng.choice(("rep movsb", ".next: movsb\nloop .next")),
    )


def _call(rng: Random, at: int, times: int | None = None) -> str:
    """A routine, once or more, by an address known or not."""
    times = rng.choice((1, 1, 2, 10)) if times is None else times
    how = rng.choice((f"call {at}", f"mov eax, {at}\ncall eax", f"push .on\npush {at}\nret\n.on:"))
    return lines(f"mov ecx, {times}", ".calls:", how, "loop .calls")


def _apart(*parts: str) -> str:
    """Parts that use the same local labels, each with labels of its own."""
    own = (LABEL.sub(rf".p{number}_\1", part) for number, part in enumerate(parts))
    return lines(*own)


# -- Steps ----------------------------------------------------------------------------------------


def write_and_run(rng: Random) -> str:
    at = _place(rng)
    return _apart(_store(rng, _through(rng, at), _routine(rng, at)), _call(rng, at))


def write_twice(rng: Random) -> str:
    """Run, rewritten in place, and run again."""
    at = _place(rng)
    parts = []
    for _ in range(2):
        parts += [_store(rng, at, _routine(rng, at)), _call(rng, at)]
    return _apart(*parts)


def patch_often(rng: Random) -> str:
    """A byte of a routine changes each time around."""
    at = _place(rng)
    to = _through(rng, at) + 1
    change = rng.choice((f"inc byte [{to}]", f"mov [{to}], cl", f"xor byte [{to}], 1"))
    loop = f"mov ecx, {rng.randrange(2, 20)}\n.again:\n{change}\ncall {at}\nloop .again"
    return _apart(_store(rng, at, assemble(_counting(rng, at)).flat()), loop)


def data_beside(rng: Random) -> str:
    """Counters in the page of a routine, stored to again and again."""
    at = _place(rng)
    to = (_through(rng, at) & -PAGE) + rng.choice((0x300, 0x304, 0xC00))
    change = rng.choice((f"inc dword [{to}]", f"mov [{to}], ecx", f"add [{to}], cl"))
    loop = f"mov ecx, {rng.randrange(5, 30)}\n.again:\n{change}\ncall {at}\nloop .again"
    return _apart(_store(rng, at, _routine(rng, at)), loop)


def stack_beside(rng: Random) -> str:
    """The stack lies in the page of a routine."""
    at = _place(rng)
    call = f"mov ecx, {rng.randrange(2, 15)}\n.again: call {at}\nloop .again"
    stack = (_through(rng, at) & -PAGE) + 0x780
    run = lines(f"mov esp, {stack}", call, f"mov esp, {STACK_TOP}")
    return _apart(_store(rng, at, _routine(rng, at)), run)


def freed(rng: Random) -> str:
    """A page of code becomes data, and code again."""
    at = _place(rng)
    page = _through(rng, at) & -PAGE
    fill = f"cld\nmov edi, {page}\nmov eax, {RET * 0x1010101}\nmov ecx, 1024\nrep stosd"
    return _apart(_call(rng, at), fill, _call(rng, at), write_and_run(rng))


def remap(rng: Random) -> str:
    """Another frame, or other rights, for a slot; sometimes of the space that is not in use."""
    at = _place(rng)
    slot = at & -PAGE
    value = FRAMES + PAGE * rng.randrange(FRAME_COUNT) | rng.choice(RIGHTS)
    flush = rng.choice((f"invlpg [{slot}]", "mov eax, cr3\nmov cr3, eax"))
    edit = f"mov dword [{entry_of(rng.randrange(2), slot)}], {value}\n{flush}"
    return _apart(_call(rng, at), edit, _call(rng, at))


def remap_often(rng: Random) -> str:
    """Two frames take turns in a slot."""
    at = _place(rng)
    slot = at & -PAGE
    one, other = (FRAMES + PAGE * number | P | W | U for number in rng.sample(range(4), 2))
    edits = lines(
        *(
            f"mov dword [{entry_of(space, slot)}], {one}\nmov dword [{entry_of(space, slot)}], ebx"
            for space in range(2)
        )
    )
    loop = lines(
        f"mov ebx, {one}",
        f"mov ecx, {rng.randrange(2, 20)}",
        ".again:",
        edits,
        f"invlpg [{slot}]",
        f"call {at}",
        f"xor ebx, {one ^ other}",
        "loop .again",
    )
    return _apart(loop)


def switch(rng: Random) -> str:
    """Code at one linear address, in two address spaces or three."""
    at = _place(rng)
    parts = [_call(rng, at)]
    for _ in range(rng.randrange(1, 4)):
        parts += [enable(rng.choice((0, 1, 0, 1, 2))), _call(rng, at, 1)]
    return _apart(*parts, _store(rng, _through(rng, at), _routine(rng, at)), _call(rng, at))


def two_addresses(rng: Random) -> str:
    """One frame in two slots, written by one and run by both."""
    first, second = rng.sample(range(SLOT_COUNT), 2)
    frame = FRAMES + PAGE * rng.randrange(FRAME_COUNT) | P | W | U
    offset = rng.choice(OFFSETS[:-1])
    places = [SLOTS + PAGE * number for number in (first, second)]
    edits = [f"mov dword [{entry_of(n, p)}], {frame}\ninvlpg [{p}]" for p in places for n in (0, 1)]
    parts = [lines(*edits)]
    for place in rng.choices(places, k=3):
        code = assemble(_counting(rng, place)).flat()
        parts += [_store(rng, place + offset, code)]
        parts += [_call(rng, other + offset, 1) for other in places]
    return _apart(*parts)


def from_ring_3(rng: Random) -> str:
    """Ring 3 stores into code that it shares with the kernel, and runs it: never the kernel's own,
    whose unsafe instructions tell it what no technique hides from code that runs as it is."""
    at = _place(rng)
    code = assemble(_counting(rng, at)).flat()
    inside = [_store(rng, _through(rng, at), code)]
    if rng.randrange(2):
        inside += [_store_bytes(at, code), _call(rng, at)]
    trip = lines(
        f"mov dword [{LEFT}], .back",
        *into_ring_3(rng, 0),
        _apart(*inside),
        LEAVE_RING_3,
        ".back:",
        f"mov dword [{LEFT}], .finished",
    )
    return _apart(_call(rng, at), trip, _call(rng, at))


def interrupted(rng: Random) -> str:
    """Interrupts while a routine runs and is rewritten."""
    start = lines(*timer_writes(rng.randrange(1, 4), 2), "sti")
    return _apart(start, patch_often(rng), "cli")


CODE_STEPS: Final[dict[str, Step]] = {
    step.__name__: step
    for step in (
        write_and_run, write_twice, patch_often, data_beside, stack_beside, freed, remap,
        remap_often, switch, two_addresses, from_ring_3, interrupted,
    )
}  # fmt: skip
