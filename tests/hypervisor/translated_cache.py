"""Kernels for the cache and for what runs in place: chains, targets, sleepers, regions.

Written as translated_kernels.py's are, which has them in its list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.hypervisor.kernel_code import FRAMES, SLOTS, entry_of, prepare
from tests.hypervisor.kernel_guests import KernelGuest
from tests.hypervisor.kernel_memory import enable
from tests.hypervisor.kernel_rings import timer_writes
from tests.hypervisor.kernel_steps import IF
from tests.hypervisor.kernel_world import DATA, GDT, KCODE, SPARE, descriptor
from tests.hypervisor.test_translate import guest_of, in_ring_3
from tests.hypervisor.translated_code import SECOND, adds, call
from tests.hypervisor.written_tables import GATE, install, store, visit

TARGETS_APART: Final = 0x10000  #: EIPs so far apart have the same target


def two_of_one_target() -> KernelGuest:
    """Two routines whose EIPs have the same low bits, called by turns, then changed."""
    first, second = FRAMES, FRAMES + TARGETS_APART
    calls = [call(frame + 0x40, 4 * n) for n, frame in enumerate((first, second, first, second))]
    return guest_of(
        "\n".join((adds(first, 3), adds(second, 5), *calls)),
        "\n".join((adds(first, 4), *calls, adds(second, 6), *calls)),
        "\n".join((adds(second, 7), adds(first, 8), *calls)),
    )


def targets_of_two_contexts() -> KernelGuest:
    """The same EIP, called in one code segment and in another with a base."""
    base = 0x100
    other = store(GDT + SPARE, descriptor(base, 0xFFFFF, 0x9B))
    code = (
        "jmp .begin\n.same: add eax, 7\nret\ntimes 252 nop\n"
        ".adds: add eax, 5\nret\n.begin: mov ebx, .same\n"
    )
    calls = "mov eax, 0\ncall ebx\ncall ebx\ncall ebx\n"
    return guest_of(
        f"{other}\n{code}{calls}mov [{DATA}], eax\njmp {SPARE}:.inside - {base}\n.inside:\n{calls}"
        f"mov [{DATA + 4}], eax\njmp {KCODE}:.outside\n.outside: {calls}mov [{DATA + 8}], eax"
    )


def _set(linear: int, frame: int) -> str:
    return f"mov dword [{entry_of(0, linear)}], {frame | 7}\ninvlpg [{linear}]"


def sleepers() -> KernelGuest:
    """Code in a slot sleeps, is changed or thrown out, and wakes; so does what it leads to."""
    there = FRAMES + 0x3000 + 0x40  # mov al, n; ret
    jumps = "\n".join(  # jmp there; from SLOTS + 0x40, in either frame
        f"mov byte [{frame + 0x40}], 0xE9\n"
        f"mov dword [{frame + 0x41}], {there - SLOTS - 0x45 & 0xFFFFFFFF}"
        for frame in (FRAMES, SECOND)
    )
    first, second = _set(SLOTS, FRAMES), _set(SLOTS, SECOND)
    calls = [call(SLOTS + 0x40, 4 * n) for n in range(6)]
    return guest_of(
        f"{prepare()}\n{jumps}\n{adds(FRAMES + 0x3000, 3)}\n{calls[0]}",
        # One that sleeps is changed; then that which it led to.
        f"{second}\n{calls[1]}\nmov byte [{FRAMES + 0x40}], 0xC3\n{adds(FRAMES + 0x3000, 4)}\n"
        f"{calls[2]}",
        f"{first}\n{calls[3]}\n{adds(FRAMES + 0x3000, 5)}\n{second}\n{calls[4]}\n{calls[5]}",
    )


def across_what_moves() -> KernelGuest:
    """An instruction lies across two slots, of which the second is mapped elsewhere."""
    at = SLOTS + 0xFFF
    words = "\n".join(
        f"mov byte [{FRAMES + 0xFFF}], 0xB8\nmov dword [{frame}], {n}\nmov byte [{frame + 4}], 0xC3"
        for n, frame in ((3, FRAMES + 0x1000), (5, FRAMES + 0x2000))
    )
    turns = [
        f"{_set(SLOTS + 0x1000, frame)}\n{call(at, 4 * n)}"
        for n, frame in enumerate(
            (FRAMES + 0x2000, FRAMES + 0x1000, FRAMES + 0x2000, FRAMES + 0x1000)
        )
    ]
    return guest_of(f"{prepare()}\n{words}\n{call(at, 32)}", *turns)


def gates_and_much_code() -> KernelGuest:
    """A gate's unit is thrown out by what else the kernel runs."""
    handler = "jmp .begin\n.adds: add eax, 5\niret\n.begin:"
    much = "\n".join(f"pushf\npopf\ncli\nadd edx, {n}\njmp .on_{n}\n.on_{n}:" for n in range(150))

    def trip() -> str:
        return visit(IF, f"int {GATE}", f"int {GATE}", f"add [{DATA}], eax")

    return guest_of(
        f"{enable(0)}\n{handler}\n{install('.adds')}\n{trip()}\n{much}\n{trip()}",
        f"{trip()}\n{much}\n{trip()}",
    )


def sti_at_a_target(*ways: str) -> KernelGuest:
    """STI is what calls lead to, which TARGETS may have another routine for; the timer is busy."""
    first, second = FRAMES + 0x40, FRAMES + TARGETS_APART + 0x40
    codes = [
        f"mov byte [{at + n}], {byte}"
        for at, code in (
            (first, (0xFB, 0x40, 0x40, 0xFA, 0xC3)),  # sti; inc eax; inc eax; cli; ret
            (second, (0x90, 0x42, 0x42, 0xFA, 0xC3)),
        )
        for n, byte in enumerate(code)
    ]  # fmt: skip
    calls = "\n".join(way.format(first=first, second=second) for way in ways)
    loops = [
        f"mov esi, 30\nsti\nnop\ncli\ntimes {shift} nop\n.more: {calls}\ndec esi\njnz .more"
        for shift in range(0, 40, 2)
    ]
    return guest_of("\n".join((*codes, *timer_writes(2, 2))), *loops)


# -- What runs in place ----------------------------------------------------------------------------


def loop(body: str, exit_by: str = "ret") -> str:
    """A procedure with a loop in it, called twice by the same call."""
    return (
        f"jmp .begin\n.loop: mov ecx, 12\n.more: {body}\nadd edx, ebx\ndec ecx\njnz .more\n"
        f"{exit_by}\n.go: call .loop\nret\n.begin: call .go\ncall .go"
    )


UNSAFE: Final = ("mov ebx, cs", "smsw ebx", "pushf\npop ebx", "push cs\npop ebx", "sidt [esp - 8]",
                 "cli\nmov ebx, 1", "lar ebx, ebx", f"int {GATE}")  # fmt: skip


def unsafe_loops() -> KernelGuest:
    """Loops with something in them that needs translation."""
    steps = [f"{loop(code, 'jmp .out')}\n.out: mov [{DATA + 4 * n}], edx\nud2"
             for n, code in enumerate(UNSAFE)]  # fmt: skip
    return guest_of(*steps, enable(0), *steps)


def safe_until_changed() -> KernelGuest:
    """A loop's MOV becomes one from CS: through its own page, and where the page is its own."""
    change = (
        "mov word [.more], 0xCB8C\ncall .go\nmov [{0}], edx\nmov word [.more], 0xC389\ncall .go"
    )
    plain = f"{loop('mov ebx, eax')}\n{change.format(DATA)}"
    # mov ecx, 12; mov ebx, eax; add edx, ebx; dec ecx; jnz; jmp to the next page, where a RET is.
    code = (0xB9, 12, 0, 0, 0, 0x89, 0xC3, 0x01, 0xDA, 0x49, 0x75, 0xF9)
    to = SECOND + 0x80 - (FRAMES + 0x40 + len(code) + 5)
    data = bytes(code) + b"\xe9" + to.to_bytes(4, "little")
    write = "\n".join(f"mov byte [{FRAMES + 0x40 + n}], {byte}" for n, byte in enumerate(data))
    calls = f"call {FRAMES + 0x40}\ncall {FRAMES + 0x40}"
    apart = (
        f"{write}\nmov byte [{SECOND + 0x80}], 0xC3\nmov eax, 3\n{calls}\n"
        f"mov word [{FRAMES + 0x45}], 0xCB8C\n{calls}\nmov [{DATA + 4}], edx"
    )
    moved = (
        f"mov eax, 3\ncall {SLOTS + 0x40}\ncall {SLOTS + 0x40}\nmov dword [{entry_of(0, SLOTS)}], "
        f"{FRAMES + 0x2000 | 7}\ninvlpg [{SLOTS}]\ncall {SLOTS + 0x40}\nmov [{DATA + 8}], edx"
    )
    other = "\n".join(
        f"mov byte [{frame + 0x40 + n}], {byte}"
        for frame, start in ((FRAMES, 0x89), (FRAMES + 0x2000, 0x8C))
        for n, byte in enumerate(
            (0xB9, 12, 0, 0, 0, start, 0xC3 if start == 0x89 else 0xCB, *code[7:], 0xC3)
        )
    )
    return guest_of(plain, apart, f"{prepare()}\n{other}", moved, plain)


def watched_in_ring_3() -> KernelGuest:
    """A loop has run in place; then ring 3 touches what a breakpoint of the guest's watches."""
    watch = f"mov eax, {DATA}\nmov dr0, eax\nmov eax, 0xD0402\nmov dr7, eax"
    touch = in_ring_3(f"mov [{DATA}], eax", "inc eax")
    return guest_of(f"{enable(0)}\n{loop('mov ebx, eax')}\n{watch}\n{touch}", "mov eax, dr6")


def loops_of_ring_3() -> KernelGuest:
    """Loops of ring 3, of what a kernel would run in place."""
    ends = ("ret", "mov ebx, cs\nadd edx, ebx\nret")
    steps = [in_ring_3("mov edx, 0", loop("mov ebx, eax", end)) for end in ends]
    return guest_of(enable(0), *steps)


def loops_of_16_bits() -> KernelGuest:
    """A jump of 16 bits leads out of a loop to low memory, where code needs translation."""
    low = "mov dword [.more - 0x100000], 0x0B0FCB8C"  # mov ebx, cs; ud2
    steps = [
        f"{low}\nmov ecx, 5\njmp .more\ntimes 8 nop\n.more: add edx, ecx\ndec ecx\n"
        f"o16 {jump} .more\nnop\njmp .more"
        for jump in ("jz", "jnz")
    ]
    return guest_of(*steps)


# -- Machines that become other ones ---------------------------------------------------------------

_WAITS: Final = "mov edi, 1000\n.waits: dec edi\njnz .waits"


def waits_in(code: str) -> KernelGuest:
    """A long loop of one instruction and what is safe."""
    return guest_of(
        f"mov edi, 1000\n.more: {code}\nadd edx, ebx\ndec edi\njnz .more\nmov [{DATA}], edx"
    )


def waits_with_gs(*changes: str) -> KernelGuest:
    """GS is flat; then something changes, a long loop, and GS is loaded with the same again."""
    flat = store(GDT + SPARE, descriptor(0, 0xFFFFF, 0x93))
    load = f"mov eax, {SPARE}\nmov gs, ax"
    return guest_of(
        "\n".join((
            flat, load, *changes, _WAITS, load,
            f"mov dword [{DATA}], 0x11\nmov ebx, [gs:{DATA}]\nmov [{DATA + 4}], ebx",
        ))
    )  # fmt: skip


#: A way of following code, and two kernels: a machine that has run the first becomes one that is
#: within the second's loop.
RESTORED: Final[dict[str, tuple[str, Callable[[], KernelGuest], Callable[[], KernelGuest]]]] = {
    "with regions": (
        "link back", lambda: waits_in("mov ebx, eax"), lambda: waits_in("mov ebx, cs"),
    ),
    "with GS": (
        "plain", waits_with_gs,
        lambda: waits_with_gs(store(GDT + SPARE, descriptor(0x1000, 0xFFFFF, 0x93))),
    ),
}  # fmt: skip

CACHE_KERNELS: Final[dict[str, Callable[[], KernelGuest]]] = {
    "two of one target": two_of_one_target,
    "targets of two contexts": targets_of_two_contexts,
    "sleepers": sleepers,
    "across what moves": across_what_moves,
    "gates and much code": gates_and_much_code,
    "STI at a target": lambda: sti_at_a_target(
        "mov ebx, {first}\ncall ebx", "mov ebx, {second}\ncall ebx"
    ),
    "STI behind IRET": lambda: sti_at_a_target(
        f"push .back\npush 2\npush {KCODE}\npush {{first}}\niret\n.back:"
    ),
    "unsafe loops": unsafe_loops,
    "loops safe until changed": safe_until_changed,
    "watched in ring 3": watched_in_ring_3,
    "loops of ring 3": loops_of_ring_3,
    "loops of 16 bits": loops_of_16_bits,
}
