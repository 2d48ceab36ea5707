"""Kernels written to show what a translator may get wrong, by name.

Most are test_translate.py's own; the others are for mutants that nothing else noticed. Read
killers_translate.py for who runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypervisor.translator import layout
from tests.hypervisor import test_translate as written
from tests.hypervisor.kernel_code import FRAMES, SLOTS, entry_of, prepare
from tests.hypervisor.kernel_guests import KernelGuest
from tests.hypervisor.kernel_memory import enable
from tests.hypervisor.kernel_steps import IF
from tests.hypervisor.kernel_world import (
    DATA,
    GDT,
    IDT,
    KCODE,
    KDATA,
    SCRATCH,
    SOFTWARE,
    SPARE,
    STACK_TOP,
    TRACE_LEFT,
    UDATA,
    descriptor,
)
from tests.hypervisor.test_translate import guest_of, in_ring_3
from tests.hypervisor.translated_cache import CACHE_KERNELS
from tests.hypervisor.translated_code import CODE_KERNELS
from tests.hypervisor.translated_forms import FORM_KERNELS
from tests.hypervisor.translated_gates import GATE_KERNELS
from tests.hypervisor.translated_stores import STORE_KERNELS
from tests.hypervisor.written_tables import GATE, TF, install, store, visit


def into_the_cache() -> KernelGuest:
    """Jumps to where the cache and the translator's words lie: nothing is there for a guest."""
    places = (layout.CODE, layout.CODE + 0x10, layout.AREA, layout.KERNEL_TARGETS, 0xFFFF_FFF0)
    steps = [f"mov eax, {place}\njmp eax" for place in places]
    stores = [f"mov eax, {place}\nmov [eax], eax" for place in places]
    calls = [in_ring_3(step) for step in (*steps, *stores)]
    return guest_of(enable(0), *stores, *calls, *steps)


#: A loop that can run in place, as a procedure: its RET is an edge.
LOOP: Final = (
    "jmp .begin\n.loop: mov ecx, 12\n.more: add edx, ecx\ndec ecx\njnz .more\nret\n.begin:"
)


def regions() -> KernelGuest:
    """A loop runs in place; then ring 3 executes its edge, steps through it, and raises INT 1."""
    int_1 = f"mov byte [{IDT + 8 + 5}], 0xEE"
    call = "call .loop\ncall .loop"
    stepped = f"mov dword [{TRACE_LEFT}], 30"
    return guest_of(
        f"{enable(0)}\n{LOOP}\n{call}\n{in_ring_3(call)}\n{call}",
        f"{LOOP}\n{call}\n{int_1}\n{in_ring_3('mov edx, 5', 'int 1', call)}\n{call}",
        f"{LOOP}\n{call}\n{stepped}\n{in_ring_3(f'push {TF | 2}', 'popf', call, 'push 2', 'popf')}",
        f"{LOOP}\n{call}\nmov eax, {DATA}\nmov dr0, eax\nmov eax, 0xD0402\nmov dr7, eax\n{call}\n"
        f"mov [{DATA}], eax\nmov ebx, dr0\nmov ebp, dr6\nmov [{DATA + 8}], ebx\n"
        f"mov [{DATA + 12}], ebp\nmov eax, 0x400\nmov dr7, eax\n{call}\nmov ebx, dr0\n"
        f"mov ebp, dr6\nmov [{DATA + 16}], ebx\nmov [{DATA + 20}], ebp",
        f"{LOOP}\n{call}\nmov byte [.more], 0x11\n{call}",  # adc, from now on
    )


def gs_again() -> KernelGuest:
    """GS loaded with what it has, with what it had, and after its descriptor has changed."""
    load = "mov eax, {0}\nmov gs, ax\nmov [{1}], gs\n"
    plain = [load.format(s, DATA + 4 * n) for n, s in enumerate((KDATA, 0, KDATA, KDATA, 0, 3, 0))]
    spare = [
        store(GDT + SPARE, descriptor(base, 0xFFFFF, 0x93))
        + "\n" + load.format(SPARE, DATA + 64)
        + f"mov eax, [gs:{0x400}]\nadd [{DATA + 68}], eax"
        for base in (DATA, DATA + 0x1000, DATA)
    ]  # fmt: skip
    return guest_of(enable(0), "\n".join(plain), *spare, "\n".join(spare), *plain)


def checked_under_a_short_stack() -> KernelGuest:
    """Code that checks itself, beyond the end of the stack's segment or in one with a base."""
    write = f"mov byte [{FRAMES + 0x40}], 0x42\nmov byte [{FRAMES + 0x41}], 0xC3\n"
    mix = "\n".join(f"mov byte [{FRAMES + 0x800 + n}], {n}\ncall .there" for n in range(24))
    there = f"jmp .begin\n.there: mov eax, {FRAMES + 0x40}\ncall eax\nret\n.begin:\n"

    def under(base: int, limit: int) -> str:
        return (
            f"{store(GDT + SPARE, descriptor(base, limit, 0x93))}\nmov eax, {SPARE}\n"
            f"mov ss, ax\nmov esp, {STACK_TOP - base}\n{write}{mix}\n"
            f"mov byte [{FRAMES + 0x40}], 0x43\ncall .there\nmov eax, {KDATA}\nmov ss, ax\n"
            f"mov esp, {STACK_TOP}"
        )

    return guest_of(
        prepare(),
        f"{there}{write}{mix}\n{under(0, STACK_TOP >> 12)}",
        f"{there}{under(0, STACK_TOP >> 12)}",
        f"{there}{under(0x1000, 0xFFFFF)}",
    )


def behind_a_gate() -> KernelGuest:
    """What a handler sees, and leaves, that was entered without an exit."""
    keep = f"push cs\npop dword [ss:{SCRATCH}]\nmov [ss:{SCRATCH + 4}], gs\nsmsw [ss:{SCRATCH + 8}]"
    reads = f"mov eax, [gs:0x1010]\nadd [ss:{SCRATCH + 12}], eax"
    handlers = "\n".join((
        "jmp .begin",
        ".clears: and dword [esp + 8], ~0x200\niret",
        f".looks: sgdt [ss:{DATA + 0x40}]\n{keep}\n{reads}\nint {SOFTWARE}\n{keep}\niret",
        f".stays: pushf\npush cs\npush .here\niret\n.here: {keep}\niret",
        ".begin:",
    ))  # fmt: skip
    edit = store(GDT + SPARE, descriptor(DATA, 0xFFFFF, 0xF3))
    loads = [f"mov eax, {s}\nmov gs, ax\nint {GATE}" for s in (SPARE | 3, UDATA, 0, SPARE | 3)]
    calls = (f"int {GATE}", f"int {GATE}", *loads, f"int {GATE}", "inc edx")
    steps = [
        "\n".join((edit, handlers, install(name), visit(IF, *calls), visit(IF, *calls)))
        for name in (".looks", ".stays", ".clears")
    ]
    return guest_of(enable(0), *steps, f"mov dword [{DATA + 0x1010}], 5", *steps)


def changes_in_a_segment() -> KernelGuest:
    """Code that rewrites itself where CS has a base, and no page begins at offset 0."""
    base, inside = 0x1010, "mov ecx, 4"
    change = f".again: mov eax, 1\nadd edx, eax\ninc byte [cs:.again + 1 - {base}]"
    by_ds = ".again: mov eax, 1\nadd edx, eax\ninc byte [.again + 1]"
    return guest_of(
        store(GDT + SPARE, descriptor(base, 0xFFFFF, 0x9B)) + "\nmov edx, 0",
        *(
            f"jmp {SPARE}:.inside - {base}\n.inside: {inside}\n{code}\nloop .again\n"
            f"jmp {KCODE}:.outside\n.outside: mov [{DATA + 0x80}], edx"
            for code in (by_ds, change)
        ),
    )


#: A store to tables that is done again and again, so that it becomes adaptive.
SET: Final = "jmp .begin\n.set: mov [ebx], eax\nret\n.begin:"


_ENTRY, _FAR = entry_of(0, SLOTS), entry_of(0, SLOTS + 0x20000)
_OTHER: Final = FRAMES + 0x1000
_READS: Final = f"mov eax, [{SLOTS + 0x20000}]\nadd [{DATA + 0x24}], eax"


def _put(at: int, value: int) -> str:
    return f"mov ebx, {at}\nmov eax, {value}\ncall .set"


def _through(base: int, limit: int, access: int, big: int) -> str:
    """Stores to a table through FS, in a loop and apart."""
    spare = descriptor(base, limit, access) & ~(1 << 55) | big << 55
    return "\n".join((
        store(GDT + SPARE, spare), f"mov eax, {SPARE}\nmov fs, ax",
        *(f"mov ebx, {at - base}\nmov dword [fs:ebx], {FRAMES | 7}" for at in (_FAR, _FAR + 8)),
        f"mov ecx, 12\n.more: mov ebx, {_FAR - base}\nlea ebx, [ebx + ecx * 4]\n"
        f"mov dword [fs:ebx], {_OTHER | 7}\nloop .more",
        f"mov ebx, {_FAR + 16 - base}\nmov dword [fs:ebx], {FRAMES | 7}",
        _READS,
    ))  # fmt: skip


def adaptive_stores() -> KernelGuest:
    """One store writes to tables: of data, of code that runs, and through all kinds of segments."""
    routines = "\n".join(  # add al, n; ret
        f"mov dword [{frame + 0x40}], {0xC3000000 | n << 8 | 0x04}\nmov byte [{frame + 0x42}], 0xC3"
        for n, frame in ((3, FRAMES), (5, _OTHER))
    )
    unused = "\n".join(_put(_FAR + 4 * n, FRAMES | 7) for n in range(12))
    look = f"mov eax, 0\ncall {SLOTS + 0x40}\nadd [{DATA + 0x20}], eax"
    moves = "\n".join(
        "\n".join((unused, _put(_ENTRY, frame | 7), flush, look))
        for flush in (f"invlpg [{SLOTS}]", "mov eax, cr3\nmov cr3, eax")
        for frame in (FRAMES, _OTHER, FRAMES)
    )
    touched = "\n".join(
        "\n".join((unused, _put(_FAR, frame | 7), f"invlpg [{SLOTS + 0x20000}]", _READS))
        for frame in (FRAMES, _OTHER, FRAMES)
    )
    end = _FAR + 20  # within the table's page, so that some stores are beyond
    segments = [
        _through(0, 0xFFFFF, 0x93, 1), _through(0x1000, 0xFFFFF, 0x93, 1),
        _through(0, end, 0x93, 0), _through(0, end, 0x97, 0), _through(0, 0xFFFFF, 0x91, 1),
    ]  # fmt: skip
    start = f"{prepare()}\n{routines}"
    return guest_of(start, f"{SET}\n{moves}", f"{SET}\n{touched}", *segments,
                    f"{SET}\n{moves}")  # fmt: skip


TRANSLATED: Final[dict[str, Callable[[], KernelGuest]]] = {
    "what pops": lambda: guest_of(enable(0), *written.popping_steps()),
    "what reaches": lambda: guest_of(enable(0), *written.reaching_steps()[::5]),
    "what reaches, write-protected": lambda: guest_of(
        enable(0), written.WRITE_PROTECTED, *written.reaching_steps()[::7]
    ),
    "the vector of translations": lambda: written.vector_guest(0xEE),
    "GS through gates": written.gs_guest,
    "IRET within the kernel": written.iret_guest,
    "IRET with NT": lambda: written.iret_guest(*written.IRET_ENDS[0]),
    "IRET to an absent CS": lambda: written.iret_guest(*written.IRET_ENDS[1]),
    "ring 3's pages": written.pages_guest,
    "into the cache": into_the_cache,
    "regions": regions,
    "GS again": gs_again,
    "adaptive stores": adaptive_stores,
    "behind a gate": behind_a_gate,
    "changes in a segment": changes_in_a_segment,
    "checked under a short stack": checked_under_a_short_stack,
    **FORM_KERNELS,
    **GATE_KERNELS,
    **CODE_KERNELS,
    **CACHE_KERNELS,
    **STORE_KERNELS,
    **{
        f"interrupts {shift} later": lambda shift=shift: written.interrupted(shift)  # type: ignore[misc]
        for shift in range(0, written.PERIOD, 16)
    },
}
