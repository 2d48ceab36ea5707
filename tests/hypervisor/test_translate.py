"""What a translation must be, at any point within it: the guest's own code, as far as it can tell.

Small kernels in kernel_world.py's frame, with steps that are written out here. Each runs natively
and translated, and all that a guest can tell of it must be the same: so a fault in the middle of
what has become of one instruction shows in the frame that its handler sees, a lost register in what
the handler pushes, and a store below ESP in the memory that is left. That nothing of the kernel
runs outside the cache is read from what the real CPU says it executed.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Any, Final

import pytest

from hypervisor.experiments.observe import Difference, MachineRun, NativeRun, compare
from hypervisor.techniques.translate import Translate
from hypervisor.translator import layout
from hypervisor.translator.cache import LEAST_BYTES, Cache
from hypervisor.vm import VirtualMachine
from tests.hypervisor.kernel_guests import MAX_TICKS, RAM, KernelGuest
from tests.hypervisor.kernel_memory import enable
from tests.hypervisor.kernel_rings import timer_writes
from tests.hypervisor.kernel_world import (
    DATA,
    GDT,
    IDT,
    KCODE,
    KDATA,
    LEAVE,
    LEFT,
    LOW_TABLES,
    RECOVER,
    SOFTWARE,
    SPARE,
    UCODE,
    UDATA,
    USER_STACK_TOP,
    WINDOW,
)  # fmt: skip

WAYS: Final[tuple[dict[str, Any], ...]] = (
    {}, {"user": True}, {"cache_bytes": LEAST_BYTES}, {"link_back": True},
)  # fmt: skip
each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: next(iter(way), "plain"))


class WrittenGuest(KernelGuest):
    """A kernel guest of steps that are given as text, in place of a feature's name."""

    @cached_property
    def steps_source(self) -> str:
        text = ""
        for number, (step, _) in enumerate(self.steps):
            text += f"step_{number}:\nmov dword [{RECOVER}], step_{number + 1}\n"
            text += f"mov dword [{LEFT}], .finished\n{step}\n.finished: cli\n"
        return text + f"step_{len(self.steps)}:\nmov al, 1\nout 0xF4, al\ncli\nhlt\n"


def guest_of(*steps: str) -> KernelGuest:
    return WrittenGuest(tuple((step, 0) for step in steps))


def translated(guest: KernelGuest, way: dict[str, Any]) -> tuple[MachineRun, Translate]:
    technique = Translate(**way)
    run = MachineRun(VirtualMachine(technique=technique, ram=RAM), guest.program)
    run.run(MAX_TICKS)
    return run, technique


def differs(guest: KernelGuest, way: dict[str, Any]) -> Difference | None:
    native = NativeRun(guest.program, ram=RAM)
    native.run(MAX_TICKS)
    return compare(native.observe(), translated(guest, way)[0].observe())


def in_ring_3(*code: str, flags: int = 2) -> str:
    """A step that runs code in ring 3."""
    return "\n".join((
        f"push {UDATA}\npush {USER_STACK_TOP}\npush {flags}\npush {UCODE}\npush .ring_3\niret",
        f".ring_3:\n%pragma seventeen user\nmov ecx, {UDATA}\nmov ds, cx\nmov es, cx",
        *code,
        f"int {LEAVE}\n%pragma seventeen kernel",
    ))  # fmt: skip


# -- The cache -------------------------------------------------------------------------------------


def test_units_are_chained_thrown_out_and_found_again() -> None:
    guest = guest_of(enable(0), *reaching_steps()[:60])
    _, roomy = translated(guest, {})
    _, tiny = translated(guest, {"cache_bytes": LEAST_BYTES})
    caches: list[Cache] = [technique.translator.cache for technique in (roomy, tiny)]
    assert caches[0].evicted == 0 < caches[1].evicted
    assert caches[1].translated > caches[0].translated > 0
    assert min(cache.chained for cache in caches) > 0
    for cache in caches:
        units = list(cache)
        assert all(one.end <= other.start for one, other in pairwise(units))
        for unit in units:
            assert unit.end <= layout.CODE + cache.size
            for link in unit.links:
                assert link.target is None or link.target.start
                assert link.target is None or link in link.target.incoming


# -- Faults in the middle --------------------------------------------------------------------------

ABSENT, READ_ONLY = DATA + 0x4000, DATA + 0x3000
#: Stacks on which the handler's frame finds room below, but what is read above may be absent.
STACKS: Final = (ABSENT, ABSENT - 4, ABSENT - 8, DATA + 0x800)
#: Of these none has a fault's frame either: a triple fault. The last crosses into absent memory.
NO_STACKS: Final = (ABSENT + 0x1000, ABSENT + 0x800, ABSENT + 0x1004)
POPPING: Final = (
    "popf", "popfw", "iret", "ret", "ret 8", "retf", "popa", "leave",
    *(f"pop {name}" for name in ("ds", "es", "fs", "gs", "ss", "eax", "ecx")),
)  # fmt: skip
PUSHING: Final = (
    "pushf", "pushfw", "pusha", "call .finished", f"int {SOFTWARE}", "enter 8, 1",
    f"call {KCODE}:.finished", "mov eax, .finished\ncall eax",
    *(f"push {name}" for name in ("cs", "ss", "ds", "gs", "eax")),
)  # fmt: skip
#: With a memory operand that is in place of the `@`.
REACHING: Final = (
    *(f"mov {name}, @" for name in ("ds", "es", "fs", "gs", "ss")),
    *(f"mov @, {name}" for name in ("cs", "ss", "ds", "gs")),
    *(f"{name} @" for name in ("sldt", "str", "smsw", "lmsw", "lldt", "ltr", "verr", "verw")),
    *(f"{name} @" for name in ("sgdt", "sidt", "lgdt", "lidt", "invlpg")),
    "lar eax, @", "lsl ecx, @", "call dword @", "jmp dword @", "pop dword @", "push dword @",
    "call far @", "jmp far @", "lds eax, @", "lgs ecx, @", "mov eax, [gs:.finished]",
    "mov [cs:.finished], eax", "in al, dx\nmov @, al", "xchg eax, @", "inc dword @",
)  # fmt: skip
PLACES: Final = (
    f"[{ABSENT}]", f"[{READ_ONLY}]", f"[{ABSENT - 2}]", "[eax]", "[ecx + 4]", "[ebp]",
    "[eax + ecx]",
)  # fmt: skip
REGISTERS: Final = (
    f"mov eax, {ABSENT}\nmov ecx, {ABSENT - 4}\nmov edx, 0x80\nmov ebp, {ABSENT}\nmov ebx, 3\nstc"
)
WRITE_PROTECTED: Final = "mov eax, cr0\nor eax, 0x10000\nmov cr0, eax"


@pytest.mark.parametrize(
    "code",
    ["mov al, [{}:ebx + 4]", "{} xlatb", "{} lodsb", "{} movsb", "{} cmpsb", "{} scasb",
     "{} mov al, [ebx + 4]"],
)  # fmt: skip
def test_what_reads_through_cs_or_gs_reads_the_guests(code: str) -> None:
    """In the cache both are the translator's, whose GS is short."""
    store = "mov dword [0x500], 0x44332211\nmov dword [0x504], 0x88776655"
    point = "mov ebx, 0x500\nmov esi, ebx\nlea edi, [ebx + 16]\nmov eax, 6"
    steps = [f"{store}\n{point}\n{code.format(name)}\nmov [edi], eax" for name in ("cs", "gs")]
    for way in WAYS:
        assert differs(guest_of(*steps), way) is None, way


def popping_steps() -> list[str]:
    return [f"{REGISTERS}\nmov esp, {stack}\n{code}" for code in POPPING for stack in STACKS]


def test_what_pops_faults_precisely() -> None:
    for way in WAYS:
        assert differs(guest_of(enable(0), *popping_steps()), way) is None, way


def reaching_steps() -> list[str]:
    return [
        f"{REGISTERS}\n{code.replace('@', place)}"
        for code in REACHING
        for place in (PLACES if "@" in code else PLACES[:1])
    ]


#: Tables and task registers that one step loads are in another's way.
GROUP: Final = 8


@pytest.mark.deep
@pytest.mark.parametrize("protect", [False, True])
def test_what_reaches_memory_faults_precisely(protect: bool) -> None:
    steps = reaching_steps()
    start = (enable(0), WRITE_PROTECTED) if protect else (enable(0),)
    for at in range(0, len(steps), GROUP):
        guest = guest_of(*start, *steps[at : at + GROUP])
        for way in WAYS:
            assert differs(guest, way) is None, (way, steps[at : at + GROUP])


def test_what_reaches_memory_faults_precisely_at_some() -> None:
    """A share of the same."""
    guest = guest_of(enable(0), WRITE_PROTECTED, *reaching_steps()[::5])
    for way in WAYS[:2]:
        assert differs(guest, way) is None, way


@pytest.mark.parametrize("stack", NO_STACKS)
def test_what_pushes_onto_no_stack_ends_the_same(stack: int) -> None:
    for code in PUSHING:
        guest = guest_of(enable(0), f"{REGISTERS}\nmov esp, {stack}\n{code}")
        assert differs(guest, {}) is None, code


def test_what_ring_3_pushes_and_pops_faults_precisely() -> None:
    steps = [
        in_ring_3(REGISTERS, f"mov esp, {stack}", code)
        for stack in (*STACKS, *NO_STACKS)
        for code in ("pushf", "push eax", "push cs", "call .ring_3", "ret", "popf", "pop es")
    ]
    for at in range(0, len(steps), GROUP):
        guest = guest_of(enable(0), *steps[at : at + GROUP])
        assert differs(guest, {"user": True}) is None, steps[at : at + GROUP]


# -- Interrupts ------------------------------------------------------------------------------------

#: All kinds of forms, in a loop that interrupts find in each of its places by and by.
BODY: Final = f"""
    mov edi, {{count}}
.again:
    pushf
    popf
    cli
    push cs
    pop eax
    stc
    sti
    mov ecx, {KDATA}
    mov gs, cx
    push ds
    pop ds
    push gs
    pop gs
    call .inner
    mov eax, .there
    jmp eax
.there:
    pushf
    push cs
    push .behind
    iret
.behind:
    smsw [{DATA + 0x20}]
    mov [{DATA + 0x24}], ss
    mov ecx, 2
.loop:
    add [{DATA + 0x28}], ecx
    loop .loop
    jecxz .on
    ud2
.on:
    mov eax, .inner
    call eax
    int {SOFTWARE}
    dec edi
    jnz .again
    cli
    jmp .finished
.inner:
    push 0x246
    popf
    std
    cld
    ret 0
"""
PERIOD: Final = 128  #: ticks of the timer at most


def interrupted(shift: int) -> KernelGuest:
    """The timer strikes every few ticks, for `shift` ticks later than it would."""
    start = "\n".join((*timer_writes(2, 2), *["nop"] * shift))
    return guest_of(f"{enable(0)}\n{start}\n{BODY.format(count=30)}")


@pytest.mark.parametrize("shift", range(0, PERIOD, 16))
def test_interrupts_find_the_guest_where_it_is(shift: int) -> None:
    assert differs(interrupted(shift), {}) is None


@pytest.mark.deep
@pytest.mark.parametrize("shift", range(PERIOD))
def test_interrupts_find_the_guest_where_it_is_at_any_tick(shift: int) -> None:
    for way in WAYS:
        assert differs(interrupted(shift), way) is None, way


@each_way
def test_the_guest_stands_nowhere_else_at_any_tick(way: dict[str, Any]) -> None:
    """Stopped at every tick: registers, flags and EIP are those of the bare machine."""
    guest = guest_of(f"{enable(0)}\n{BODY.format(count=3)}")
    native = NativeRun(guest.program, ram=RAM)
    run = MachineRun(VirtualMachine(technique=Translate(**way), ram=RAM), guest.program)
    for tick in range(1, 250):
        results = [each.run(tick).registers for each in (native, run)]
        assert results[0] == results[1], tick


# -- Gates and vectors -----------------------------------------------------------------------------

OWN_IDT: Final = 0x128000


def own_gate(access: int) -> str:
    """Give the vector that translations use a gate of the guest's, like that of SOFTWARE + 1."""
    gate = OWN_IDT + 8 * layout.OWN_VECTOR
    return f"""
    cld
    mov esi, {IDT}
    mov edi, {OWN_IDT}
    mov ecx, {2 * 0x48}
    rep movsd
    mov eax, [{IDT + 8 * (SOFTWARE + 1)}]
    mov [{gate}], eax
    mov eax, [{IDT + 8 * (SOFTWARE + 1) + 4}]
    and eax, 0xFFFF00FF
    or eax, {access << 8}
    mov [{gate + 4}], eax
    push {OWN_IDT}
    sub esp, 2
    mov word [esp], 0x7FF
    lidt [esp]
    add esp, 6
    """


def vector_guest(access: int) -> KernelGuest:
    asks = f"stc\nint {layout.OWN_VECTOR}\nmov eax, 1\nint {layout.OWN_VECTOR}"
    steps = own_gate(access), asks, in_ring_3(asks), f"{enable(0)}\n{asks}", in_ring_3(asks)
    return guest_of(*steps)


@each_way
@pytest.mark.parametrize("access", [0x8E, 0x8F, 0xEE, 0x0E])
def test_the_vector_of_translations_is_the_guests_own(access: int, way: dict[str, Any]) -> None:
    assert differs(vector_guest(access), way) is None


GS_SELECTORS: Final = (0, 3, KDATA, UDATA, UDATA & ~3, WINDOW, SPARE | 3, 0xFFE0, 0xFFE1, 0xFFE3,
                       0xFFEB)  # fmt: skip


def with_gs(selector: int) -> tuple[str, str]:
    """Ring 3 loads GS between two calls of the kernel's, then uses it; the kernel does, too."""
    load = f"mov eax, {selector}\nmov gs, ax\n"
    use = f"int {SOFTWARE}\nmov [{DATA}], gs\nmov eax, [gs:{DATA}]\n"
    edit = (
        f"mov dword [{GDT + SPARE}], 0x0000FFFF\nmov dword [{GDT + SPARE + 4}], "
        f"{0x00CFF200 + selector % 7}\n"
    )
    return (
        edit + in_ring_3(f"int {SOFTWARE}", load, use, f"int {SOFTWARE}", flags=0x202),
        f"{load}int {SOFTWARE}\npush gs\npop gs\nmov [{DATA}], gs",
    )


def gs_guest() -> KernelGuest:
    steps = [step for selector in GS_SELECTORS for step in with_gs(selector)]
    trap_gate = f"mov byte [{IDT + 8 * SOFTWARE + 5}], 0xEF"
    return guest_of(f"{enable(0)}\n{trap_gate}", *steps)


@each_way
def test_gs_comes_through_gates_as_the_program_left_it(way: dict[str, Any]) -> None:
    guest = gs_guest()
    assert differs(guest, way) is None
    _, technique = translated(guest, way)
    gates = [unit for unit in technique.translator.cache if unit.is_gate]
    assert bool(gates) is technique.kernel_in_ring_1 or "cache_bytes" in way


# -- IRET within the kernel ------------------------------------------------------------------------

#: Flags, CS and what precedes the frame: each taken alone by an IRET to the kernel.
FRAMES: Final = (
    *((flags, KCODE, "") for flags in (2, 0x202, 0x8D7, 0xED7, 0x102, 0x3002, 2, 0x10002,
                                       0x40002, 0x200002, 0x240ED7)),
    (2, KCODE | 0xABCD0000, ""),  # the upper half is nobody's
    (2, KDATA, ""), (2, 0, ""), (2, KCODE | 1, ""), (2, UCODE, ""), (0x202, UCODE, ""),
    (2, KCODE, f"and byte [{GDT + KCODE + 5}], 0xFE"),  # accessed is set again
    (2, KCODE, f"mov byte [{GDT + KCODE + 6}], 0xC7"),  # ends at 2 GiB from now on
    (0x202, KCODE, "push 0x202\npopf"),
)  # fmt: skip


def iret_step(number: int, flags: int, code: int, before: str = "") -> str:
    """An IRET with such a frame, and what it left."""
    cell = DATA + 0x100 + 12 * number
    return (
        f"{before}\npush {flags}\npush {code}\npush .there\nmov eax, 0x1234\n"
        f"mov ecx, 0x5678\nstd\nstc\niret\n"
        f".there: pushf\npop dword [{cell}]\nmov [{cell + 4}], eax\nmov [{cell + 8}], ecx\ncld"
    )


def iret_guest(*last: str) -> KernelGuest:
    steps = [iret_step(number, *frame) for number, frame in enumerate(FRAMES)]
    mend = f"mov dword [{GDT + KCODE}], 0xFFFF\nmov dword [{GDT + KCODE + 4}], 0x00CF9B00\n"
    # Whose handler's IRET is to ring 3, while the next step's is not.
    user = in_ring_3(f"int {SOFTWARE}")
    return guest_of(enable(0), *steps[:3], user, *steps, mend, *last)


#: What the guest does not survive: NT, with which IRET is another, and a CS that is absent.
IRET_ENDS: Final = (
    (iret_step(40, 0x4002, KCODE), iret_step(41, 2, KCODE)),
    (iret_step(40, 2, KCODE, f"and byte [{GDT + KCODE + 5}], 0x7F"),),
)


@each_way
def test_iret_within_the_kernel(way: dict[str, Any]) -> None:
    for end in IRET_ENDS:
        assert differs(iret_guest(*end), way) is None, end


def test_iret_within_the_kernel_is_no_exit() -> None:
    guest = guest_of(enable(0), "mov edx, 100\n.more: pushf\npush cs\npush .there\niret\n"
                     ".there: dec edx\njnz .more")  # fmt: skip
    run, _ = translated(guest, {})
    assert run.machine.counts["iret"] == 0


# -- Ring 3's pages --------------------------------------------------------------------------------


def pages_guest() -> KernelGuest:
    page = DATA + 0x1000
    entry = LOW_TABLES[0] + 4 * (page >> 12)
    code = f"mov byte [{page}], 0x40\nmov byte [{page + 1}], 0xC3"  # inc eax; ret
    call = f"mov ecx, 3\n.more: call {page}\nloop .more"
    return guest_of(
        f"{enable(0)}\n{code}\ncall {page}",
        in_ring_3(call),
        f"and dword [{entry}], ~4\ninvlpg [{page}]\ncall {page}",
        in_ring_3(call),
        f"or dword [{entry}], 4\ninvlpg [{page}]",
        in_ring_3(call),
        in_ring_3(f"mov eax, {DATA + 0x2000}\njmp eax"),
    )


def test_ring_3_fetches_from_no_page_of_the_kernels() -> None:
    """Neither at once, nor from code that has been its own, nor through an old chain."""
    for way in WAYS:
        assert differs(pages_guest(), way) is None, way
