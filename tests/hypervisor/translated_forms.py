"""Kernels that show what instructions of the kernel's become, each by its results.

Written as translated_kernels.py's are, which has them in its list: what is sensitive is done with
operands, prefixes and privileges that are not the usual ones, and what it did is kept in memory, or
in registers that a fault's handler pushes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.hypervisor.kernel_guests import KernelGuest
from tests.hypervisor.kernel_memory import enable
from tests.hypervisor.kernel_steps import restore
from tests.hypervisor.kernel_world import (
    CONFORMING,
    DATA,
    EXPAND_DOWN,
    GDT,
    KCODE,
    KDATA,
    LDT_DATA,
    RING_1_DATA,
    SOFTWARE,
    SPARE,
    STACK_TOP,
    UCODE,
    UDATA,
    descriptor,
)
from tests.hypervisor.test_translate import guest_of, in_ring_3
from tests.hypervisor.written_tables import NT, RF, store

#: Where what was seen is kept.
KEPT: Final = DATA + 0x400
RESTORE: Final = "\n".join(restore())
#: DS and SS of the kernel's, by a register that nothing is kept in.
DATA_AGAIN: Final = f"mov edx, {KDATA}\nmov ss, dx\nmov ds, dx"
SEGMENTS: Final = ("ds", "es", "fs", "gs", "ss")
SHOWN: Final = ("cs", "ss", "gs", "ds")
IF: Final = 0x200
LOW: Final = 0x600  #: in reach of 16 bits


def keep(*sources: str, at: int = 0) -> str:
    """Registers of 32 bits, one behind another."""
    return "\n".join(f"mov [@ + {at + 4 * n}], {source}" for n, source in enumerate(sources))


def apart(*steps: str, room: int = 16) -> list[str]:
    """Steps that keep what they see apart from each other: `@` stands for where."""
    return [step.replace("@", f"{KEPT + room * number}") for number, step in enumerate(steps)]


def questions() -> KernelGuest:
    """What ring 1 would say of descriptors, tables and CR0 is not what ring 0 has."""
    asks = [
        f"mov eax, {selector}\nmov ecx, 0\n{name}\npushf\npop edx\n{keep('ecx', 'edx')}"
        for name in ("lar ecx, eax", "lsl ecx, eax", "verr ax", "verw ax")
        for selector in (KDATA, KCODE, CONFORMING, EXPAND_DOWN, RING_1_DATA, UDATA, LDT_DATA)
    ]
    tables = f"sidt [@]\nsgdt [@ + 8]\nsmsw eax\nsmsw bx\n{keep('eax', 'ebx', at=16)}"
    return guest_of(*apart(*asks, tables, enable(0), *asks, tables, room=32))


def far_transfers() -> KernelGuest:
    """Far jumps, calls and returns within the kernel, by immediates and through memory."""
    memory = DATA + 0x300
    pointer = f"mov dword [{memory}], .there\nmov dword [{memory + 4}], {KCODE}\n"
    look = "pushf\npush cs\nmov eax, cs\nmov ebx, [esp + 8]\nmov ecx, [esp + 12]\n"
    look += keep("eax", "esp", "ebx", "ecx")
    steps = [
        f"{pointer}push 7\n{code.format(code=code_selector)}\n.there: {look}"
        for code_selector in (KCODE, CONFORMING, KCODE | 1)
        for code in (
            "jmp {code}:.there", f"jmp far [{memory}]", "call {code}:.there",
            f"call far [{memory}]", "push {code}\npush .there\nretf",
            "push 5\npush 6\npush {code}\npush .there\nretf 4",
        )
    ]  # fmt: skip
    around = f"call {KCODE}:.there\njmp .finished\n.there: {look}\nadd esp, 8\nretf"
    return guest_of(*apart(*steps, around, enable(0), *steps, around))


def breakpoints() -> KernelGuest:
    """INT3 and INTO, which have opcodes of their own."""
    codes = ("int3", "mov al, 0x7F\nadd al, 1\ninto", "xor eax, eax\ninto", f"int {SOFTWARE}")
    steps = (f"mov ecx, 5\n{code}\nmov edx, 6\n{keep('ecx', 'edx')}" for code in codes)
    return guest_of(*apart(*steps))


def far_pointers() -> KernelGuest:
    """LDS and its like, good ones and such as ring 1 may load but ring 0 must not."""
    memory = DATA + 0x300
    steps = [
        f"mov dword [{memory}], {STACK_TOP - 64}\nmov dword [{memory + 4}], {selector}\n"
        f"mov eax, 1\nmov ebx, 2\nl{name} ecx, [{memory}]\nmov ebx, {name}\nmov eax, gs\n"
        f"{DATA_AGAIN}\n{keep('eax', 'ebx', 'ecx')}\n{RESTORE}"
        for name in SEGMENTS
        for selector in (KDATA, 0, KDATA | 1, UDATA, RING_1_DATA | 1)
    ]
    return guest_of(*apart(*steps, enable(0), *steps))


def shown() -> KernelGuest:
    """CS, SS and GS as they are read, in 16 bits and 32, to registers, memory and the stack."""
    moves = (
        f"mov ebx, -1\nmov {to}, {name}\n{keep('ebx')}" for name in SHOWN for to in ("ebx", "bx")
    )
    pushes = (
        f"push -1\n{push} {name}\nmov ecx, esp\nmov edx, [esp]\nmov esp, {STACK_TOP}\n"
        f"{keep('ecx', 'edx')}"
        for name in SHOWN
        for push in ("push", "o16 push")
    )
    steps = (*moves, *pushes)
    faults = [
        f"mov eax, 0xA5A5A5A5\nmov ecx, 0x5A5A5A5A\nmov ebx, {at}\nstc\n{code}"
        for at in (DATA + 0x4000, DATA + 0x4FFE, DATA + 0x3FFF)
        for code in ("mov [ebx], gs", "mov [ebx], ss", "mov [ebx], cs", "smsw [ebx]", "str [ebx]")
    ]  # fmt: skip
    return guest_of(*apart(*steps, enable(0), *steps, *faults))


def loads(*names: str) -> KernelGuest:
    """Segment registers loaded with odd selectors, in odd sizes, and where the load faults."""
    registers = "mov ecx, 0x12345678\nstc"
    selectors = (KDATA | 1, KDATA | 2, 0xFFE0, 0xFFE1, 0xFFE2, 0xFFE3, 0xFFE8, 0xFFD8,
                 RING_1_DATA | 1, RING_1_DATA, UDATA, 0x90, 1, 2)  # fmt: skip
    steps = []
    for name in names:
        end = f"mov ebx, {name}\n{DATA_AGAIN}\n{keep('ebx', 'ecx')}\n{RESTORE}"
        steps += [f"mov eax, {s}\n{registers}\nmov {name}, ax\n{end}" for s in selectors]
        steps += [f"push {s}\n{registers}\npop {name}\n{end}" for s in selectors]
        steps += [
            f"mov ebx, esp\npush -1\npush {s}\no16 pop {name}\nmov ecx, esp\nmov esp, ebx\n{end}"
            for s in (KDATA, 0)
        ]
        steps += [f"{registers}\nmov {name}, [{at}]" for at in (DATA + 0x4000, DATA + 0x3FFF)]
        steps.append(f"mov ecx, {DATA + 0x4000}\nmov {name}, [ecx]")
    return guest_of(enable(0), *apart(*steps, room=8))


def prefixed() -> KernelGuest:
    """What a prefix makes of flags: 16 bits of them, or the same."""
    seen = f"pushf\npop eax\nmov ebx, esp\n{keep('eax', 'ebx')}\nmov esp, {STACK_TOP}"
    steps = [f"stc\npush 0x12340000\no16 pushf\nmov ecx, [esp]\n{keep('ecx', at=8)}\n{seen}"]
    for prefix in ("o16", "a16", "db 0x3E\n"):
        for value in (2, 0x202, 0x8D7, 0x3202, 0x3002, 0x240202):
            steps.append(f"push {value}\n{prefix} popf\n{seen}\npush 2\npopf")
        steps += [f"{prefix} {name}\n{seen}" for name in ("sti", "cli", "pushf")]
        steps.append(f"sti\n{prefix} cli\n{seen}")
        steps.append(f"cli\n{prefix} sti\n{seen}\ncli")
    steps += [
        f"push {value}\npush cs\npush .there\ndb 0x3E\niret\n.there: {seen}"
        for value in (2, 0x202, 0x3002)
    ]
    # In 16 bits, frames of the kernel's, a good one and one for ring 1; in 32, one of ring 3's.
    for code in (KCODE, KCODE | 1):
        frame = f"push {IF}\npush 3\npush {code << 16 | LOW}\n"
        steps.append(f"mov dword [{LOW}], 0x0B0F43\n{frame}o16 iret")  # inc ebx; ud2
    # A page of which nothing is read or written but by 32 bits.
    fresh = DATA + 0x1000
    steps += [
        f"{enable(0)}\nmov esp, {fresh - 2}\no16 popf\n{seen}",
        f"mov esp, {fresh}\no16 pushf\n{seen}",
        f"mov esp, {DATA + 0x4000}\no16 pushf\n{seen}",
    ]
    return guest_of(*apart(*steps))


def popped_flags() -> KernelGuest:
    """POPF and IRET with each bit of EFLAGS, and what there is of it afterwards."""
    bits = (2, IF, 0x3002, 0x1002, NT, NT | IF, RF, 0x40002, 0x200002, 0xCD7, 0x203202)
    seen = f"pushf\npop eax\nmov ebx, esp\n{keep('eax', 'ebx')}\npush 2\npopf"
    pops = [
        f"{before}push {value | 2}\npopf\n{seen}"
        for value in bits
        for before in ("", "sti\n", "push 0x3002\npopf\n")
    ]
    irets = [
        f"push {value | 2}\npush cs\npush .there\nstc\niret\n.there: {seen}"
        for value in bits
        if not value & NT
    ]
    return guest_of(*apart(*pops, *irets, enable(0), *pops, *irets, room=8))


def to_ring_3() -> KernelGuest:
    """IRET to ring 3 with each bit of EFLAGS, with flags set where it faults."""
    bits = (2, IF, 0x3002, 0x3202, RF | IF, 0x40202, 0x200202, 0xCD7, 0xED7)
    trips = [in_ring_3(f"int {SOFTWARE}", "inc eax", flags=value) for value in bits]
    odd = [
        f"push {UDATA}\npush {STACK_TOP}\npush {value | 2}\npush {code}\npush .finished\n"
        "mov eax, 0x7FFFFFFF\nmov ecx, 0x5555\nadd eax, 1\nstc\niret"
        for value in (2, IF, 0x3202)
        for code in (UCODE | 0x70, UDATA, KCODE | 3, UCODE & ~3)
    ]
    return guest_of(*trips, *odd, enable(0), *trips, *odd)


def transfers() -> KernelGuest:
    """Jumps, calls and returns of 16 bits, by ESP, and with a stack in a page of code."""
    seen = f"mov edx, esp\n{keep('ebx', 'ecx', 'edx')}\nmov esp, {STACK_TOP}"
    low = f"mov dword [{LOW}], 0x0B0F43\nmov ebx, 5\n"  # inc ebx; ud2
    steps = [
        f"push 1\npush 2\npush .there\nret 8\n.there: {seen}",
        f"mov ecx, 0x10003\n.more: inc ebx\na16 loop .more\n{seen}",
        f"mov ecx, 0x10000\na16 jecxz .there\ninc ebx\n.there: {seen}",
        "sub esp, 64\nmov dword [esp], 0x0B0F43\ncall esp",
        "sub esp, 64\nmov dword [esp], 0x0B0F43\njmp esp",
        *(low + code for code in (
            f"push {LOW}\no16 ret", f"mov eax, {LOW | 0x120000}\no16 jmp eax",
            f"mov eax, {LOW | 0x120000}\no16 call eax", f"push {LOW}\npush {LOW}\no16 ret 2",
        )),
    ]  # fmt: skip
    beside = f"mov esp, .there + 96\nmov dword [{DATA}], .there\nmov ecx, 0x1234\n"
    room = f"mov edx, esp\n{keep('ecx', 'edx')}\nmov esp, {STACK_TOP}\njmp .finished\ntimes 128 nop"
    calls = [f"{beside}{code}\n.there: {room}" for code in (
        f"call [{DATA}]", "mov eax, .there\ncall eax", "call .there", f"jmp [{DATA}]",
        "push .there\nret",
    )]  # fmt: skip
    users = [
        in_ring_3(f"mov esp, {DATA + 0x4000 + offset}", "mov ecx, 0x4321", code)
        for offset in (0x800, 2)
        for code in (f"call [{DATA}]", "mov eax, .ring_3\ncall eax", "call .ring_3", "ret", "ret 4")
    ]
    return guest_of(*apart(*steps, *calls, enable(0), *steps, *calls, *users))


def in_a_segment_that_ends() -> KernelGuest:
    """Jumps beyond the end of CS fault where they are, not where they lead."""
    end, beyond = 0x104000, 0x108000
    into = f"jmp {SPARE}:.inside\n.inside: mov ecx, 3\n"
    codes = (
        f"jmp {beyond}", f"mov eax, {beyond}\njmp eax", f"call {beyond}", f"push {beyond}\nret",
        f"mov eax, {beyond}\ncall eax", f"stc\njc {beyond}", f"push {beyond}\nret 4",
        f"push 2\npush cs\npush {beyond}\niret", f"mov dword [{DATA}], {beyond}\njmp [{DATA}]",
    )  # fmt: skip
    # The end itself: an instruction that lies across it, and one that lies behind.
    last = f"mov dword [{end - 4}], 0xB8404040\nmov dword [{end}], 0xC3\n"
    ends = [f"{last}{into}jmp {end - 3 + n}" for n in range(4)]
    edit = store(GDT + SPARE, descriptor(0, end - 1 >> 12, 0x9B))
    exact = store(GDT + SPARE, descriptor(0, end - 1 & 0xFFFFF, 0x9B, 4))
    steps = [into + code for code in codes]
    return guest_of(edit, *steps, *ends, enable(0), *steps, *ends, exact)


def forms_of_ring_3() -> KernelGuest:
    """What only the kernel may do, done by ring 3, and what it may not, done there as well."""
    codes = (
        "cli", "sti", f"push {IF | 0x3002}\npopf", "push 2\npopf", f"push {UDATA}\npop es",
        f"mov eax, {KDATA}\nmov es, ax", f"mov eax, {KDATA}\nmov gs, ax", "mov eax, 0\nmov gs, ax",
        "pushf\npush cs\npush .there\niret\n.there: inc eax", "hlt", "smsw ax", "in al, 0x21",
        "mov ax, ss\nmov ss, ax\ninc edx", "push ss\npop ss\ninc edx", f"lss esp, [{DATA}]",
    )  # fmt: skip
    steps = [
        in_ring_3(f"mov ecx, 0x1111\n{code}", f"int {SOFTWARE}", flags=flags)
        for code in codes
        for flags in (2, IF | 2)
    ]
    return guest_of(enable(0), *steps)


def stale_gs() -> KernelGuest:
    """GS holds what its descriptor says no more; then others are loaded, and read."""
    spare = store(GDT + SPARE, descriptor(DATA, 0xFFFFF, 0x93))
    other = store(GDT + SPARE, descriptor(DATA + 0x1000, 0xFFFFF, 0x93))
    steps = [
        f"{spare}\nmov eax, {SPARE}\nmov gs, ax\n{other}\nmov eax, {selector}\nmov gs, ax\n"
        f"mov ecx, gs\n{keep('ecx')}\nmov ecx, [gs:0]\n{keep('ecx', at=4)}"
        for selector in (0, 1, SPARE, 3, KDATA, SPARE)
    ]
    irets = f"{spare}\nmov eax, {SPARE}\nmov gs, ax\n{other}\npush 2\npush 0\npush .finished\niret"
    return guest_of(*apart(*steps, irets))


FORM_KERNELS: Final[dict[str, Callable[[], KernelGuest]]] = {
    "questions": questions,
    "far transfers": far_transfers,
    "breakpoint instructions": breakpoints,
    "far pointers": far_pointers,
    "selectors shown": shown,
    "loads of data segments": lambda: loads("ds", "es", "fs"),
    "loads of GS and SS": lambda: loads("gs", "ss"),
    "flags with a prefix": prefixed,
    "popped flags": popped_flags,
    "to ring 3": to_ring_3,
    "odd transfers": transfers,
    "in a segment that ends": in_a_segment_that_ends,
    "forms of ring 3": forms_of_ring_3,
    "stale GS": stale_gs,
}
