"""Random kernels that reach devices by every kind of instruction, for test_device_fuzz.py.

A program is a list of steps. Most access a device once: through a port, or by an operand that lies
on a device's page, across its edge, or where nothing is. Others open lines, set timers, let
interrupts in. Some put on a device's page what the processor itself reads and writes: the stack, a
descriptor table, the IDT, a TSS, page tables, the code. A fault of a step leads to the next one,
with what the processor needs put back; so a program ends at its end, unless it has taken its own
floor away.
"""

from __future__ import annotations

from random import Random
from typing import Final

from emulator.board import Board

IO_APIC: Final = 0xFEC0_0000
LOCAL_APIC: Final = 0xFEE0_0000
SCREEN: Final = 0xB_8000
#: Devices' pages, the screen, firmware, a hole, and above all where a hypervisor keeps its own.
PAGES: Final = (
    *(IO_APIC, IO_APIC, LOCAL_APIC, LOCAL_APIC, LOCAL_APIC),
    *(SCREEN, 0xF_0000, 0xA_0000, 0xFED0_0000, 0xFFC0_8000, 0xFFFF_F000),
)
#: Offsets where something is.
REGISTERS: Final = (
    *(0x00, 0x10, 0x20, 0x30, 0x80, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0, 0x100, 0x210, 0x280),
    *(0x300, 0x310, 0x320, 0x350, 0x360, 0x370, 0x380, 0x390, 0x3E0),
)
EDGES: Final = (-3, -2, -1, 0, 1, 2, 3, 0xFF8, 0xFFC, 0xFFD, 0xFFE, 0xFFF, 0x1000)
SIZES: Final = (("byte", "al"), ("word", "ax"), ("dword", "eax"))
BUFFER: Final = 0x14_0000
STACK: Final = 0x16_0000
TABLES: Final = 0x18_0000  #: a page directory; behind it a table for WINDOW
WINDOW: Final = 0x4000_0000
RAM: Final = "2M"
WILD: Final = 5  #: steps at the end

PREAMBLE: Final = f"""
org 0x100000
STACK equ {STACK}
BUFFER equ {BUFFER}
TABLES equ {TABLES}
    lgdt [gdt_pointer]
    jmp 8:begin
fault:
    lgdt [cs:gdt_pointer]
    lidt [cs:idt_pointer]
    mov eax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, STACK
    mov eax, TABLES
    mov cr3, eax
    cld
    jmp [resume]
interrupt:
    push eax
    mov dword [{LOCAL_APIC + 0xB0}], 0
    mov al, 0x20
    out 0xA0, al
    out 0x20, al
    pop eax
    iret
user:
    int 0x41
    jmp user

align 8
gdt:
    dq 0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF, 0x00CFFA000000FFFF, 0x00CFF2000000FFFF
task_on_device: dq 0xFE0089C00000FFFF
task: dw 0x67, tss & 0xFFFF, 0x8910, 0
gdt_pointer: dw 55
    dd gdt
idt:
    times 32 dw fault - $$, 8, 0x8E00, 0x10
    times 0x41 - 32 dw interrupt - $$, 8, 0x8E00, 0x10
    dw interrupt - $$, 8, 0xEE00, 0x10
    times 255 - 0x41 dw interrupt - $$, 8, 0x8E00, 0x10
idt_pointer: dw 2047
    dd idt
pointer: dw 2047
    dd 0
resume: dd fault
align 4
tss equ 0x10B000
begin:
    mov eax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, STACK
    lidt [idt_pointer]
    mov dword [TABLES], 0x00000087
    mov dword [TABLES + 0xFEC00000 / 0x400000 * 4], 0xFEC0009B
    mov dword [TABLES + {WINDOW} / 0x400000 * 4], TABLES + 0x1007
    mov dword [LOCAL + 0xF0], 0x1FF
LOCAL equ {LOCAL_APIC}
"""
PAGING: Final = """
    mov eax, cr4
    or eax, 0x10
    mov cr4, eax
    mov eax, TABLES
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
"""
END: Final = "    cli\n    hlt\n"


def ports() -> list[int]:
    """All that the devices of a machine claim."""
    board = Board(ram=2 << 20, console_out=len, debug_out=len, apic=True)
    return sorted(set(board.bus.ports) - {0xF4})


PORTS: Final = ports()


class Writer:
    """Draws steps."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def place(self) -> int:
        """An address: most often a register's."""
        rng = self.rng
        kind = rng.randrange(4)
        if kind == 0:
            offset = rng.choice(EDGES)
        else:
            offset = rng.choice(REGISTERS) if kind < 3 else rng.randrange(0x1000)
        return (rng.choice(PAGES) + offset) & 0xFFFF_FFFF

    def value(self) -> int:
        rng = self.rng
        few = (0, 1, 0x31, 0x42, 0x10042, 0x20042, 0x8042, 0x40042, 0x700, 11, 5000, 0x1FF)
        return rng.choice([rng.choice(few), rng.randrange(256), rng.randrange(1 << 32)])

    def port(self) -> int:
        return (self.rng.choice(PORTS) + self.rng.choice((0, 0, 0, 0, -1, 1))) & 0xFFFF

    # -- steps ------------------------------------------------------------------------------------

    def load(self) -> str:
        size, register = self.rng.choice(SIZES)
        return self.rng.choice((
            f"mov {register}, [{self.place()}]",
            f"cmp {size} [{self.place()}], 1",
            f"test [{self.place()}], {register}",
            f"push {'dword' if size == 'byte' else size} [{self.place()}]",
            f"movzx eax, byte [{self.place()}]",
            f"imul eax, [{self.place()}]",
            f"bt [{self.place()}], eax",
            f"bound eax, [{self.place()}]",
        ))  # fmt: skip

    def store(self) -> str:
        size, _ = self.rng.choice(SIZES)
        value = self.value() & (0xFF if size == "byte" else 0xFFFF if size == "word" else ~0)
        return f"mov {size} [{self.place()}], {value}"

    def change(self) -> str:
        """Read and write at once, locked or not."""
        size, register = self.rng.choice(SIZES)
        lock = self.rng.choice(("", "lock "))
        return lock + self.rng.choice((
            f"add [{self.place()}], {register}",
            f"xor {size} [{self.place()}], 1",
            f"inc {size} [{self.place()}]",
            f"not {size} [{self.place()}]",
            f"xchg [{self.place()}], {register}",
            f"cmpxchg [{self.place()}], {register}",
            f"xadd [{self.place()}], {register}",
            f"bts dword [{self.place()}], 3",
            f"cmpxchg8b [{self.place()}]",
        ))  # fmt: skip

    def string(self) -> str:
        here, there = self.rng.sample((self.place(), self.place(), BUFFER, BUFFER + 0xFFD), 2)
        count = self.rng.choice((0, 1, 2, 7, 40, 1500))
        step = self.rng.choice(("b", "w", "d"))
        what = self.rng.choice(
            ("rep movs", "rep stos", "rep lods", "repe cmps", "repne scas", "movs", "stos", "cmps")
        )
        return f"mov esi, {here}\nmov edi, {there}\nmov ecx, {count}\n{self.way()}\n{what}{step}"

    def way(self) -> str:
        return self.rng.choice(("cld", "cld", "std"))

    def port_access(self) -> str:
        register = self.rng.choice(("al", "ax", "eax"))
        what = self.rng.choice((f"in {register}, dx", f"out dx, {register}", f"out dx, {register}"))
        return f"mov edx, {self.port()}\nmov eax, {self.value()}\n{what}"

    def port_string(self) -> str:
        at = self.rng.choice((BUFFER, BUFFER + 0xFFE, self.place()))
        count = self.rng.choice((1, 3, 20, 600))
        what = self.rng.choice(("insb", "insw", "insd", "outsb", "outsw", "outsd"))
        start = f"mov edx, {self.port()}\nmov esi, {at}\nmov edi, {at}\nmov ecx, {count}\n"
        return f"{start}{self.way()}\nrep {what}"

    def stack(self) -> str:
        """The stack on a device's page, for an instruction or two."""
        what = self.rng.choice((
            "push eax", "pop eax", "pusha", "popa", "pushf", "call near_by\nnear_by:", "ret",
            "enter 8, 2", "leave", "push eax\npop ebx", "int 0x41", "iret", "popf", "retf",
            "ud2", "call 8:near_by\nnear_by:", "pop es", "push ds",
        )).replace("near_by", f".near{self.rng.getrandbits(40)}")  # fmt: skip
        base = "mov ebp, esp\n" if what == "leave" else ""
        return f"mov esp, {self.place()}\n{base}{what}"

    def table(self) -> str:
        """What the processor reads by itself, on a device's page."""
        at = self.place()
        return f"mov dword [pointer + 2], {at}\n" + self.rng.choice((
            f"lgdt [pointer]\nmov eax, {self.rng.choice((8, 0x10, 0x33))}\nmov es, ax",
            "lidt [pointer]\nint 0x41",
            "lidt [pointer]\nud2",
            "lidt [pointer]\nsti\nnop\nnop\nnop",
            f"lgdt [{at}]", f"lidt [{at}]", f"sgdt [{at}]", f"sidt [{at}]",
            f"les eax, [{at}]", f"lss esp, [{at}]", f"jmp far [{at}]", f"call far [{at}]",
            f"jmp [{at}]", f"call [{at}]", f"mov eax, {at}\njmp eax",
            f"lldt [{at}]", f"ltr [{at}]", f"verr [{at}]", f"str [{at}]", f"smsw [{at}]",
            f"mov es, [{at}]", f"mov [{at}], ds",
        ))  # fmt: skip

    def paging(self) -> str:
        at = self.place()
        entry = f"mov dword [TABLES + 0x1000], {at & ~0xFFF | 7}\ninvlpg [{WINDOW}]\n"
        directory = f"mov dword [TABLES + {(WINDOW >> 22) * 4}], {at & ~0xFFF | 7}\n"
        reload = "mov eax, TABLES\nmov cr3, eax\n"
        touch = self.rng.choice((f"mov eax, [{WINDOW + at % 4096}]", f"inc dword [{WINDOW}]"))
        return self.rng.choice((
            entry + touch,
            directory + reload + touch,
            f"mov eax, {at}\nmov cr3, eax\n{touch}",
            f"mov dword [TABLES + {(WINDOW >> 22) * 4}], TABLES + 0x1007\n{reload}{entry}{touch}",
        ))  # fmt: skip

    def task(self) -> str:
        """To ring 3 and back, over a stack that the TSS names; or one on a device's page."""
        selector = self.rng.choice((0x28, 0x30, 0x30))
        clear = "and byte [gdt + 0x2D], 0xFD\nand byte [gdt + 0x35], 0xFD\n"
        stack = f"mov dword [tss + 4], {self.rng.choice((STACK, self.place()))}\n"
        leave = "push 0x23\npush BUFFER\npush 2\npush 0x1B\npush user\niret"
        return f"{clear}{stack}mov dword [tss + 8], 0x10\nmov eax, {selector}\nltr ax\n{leave}"

    def lines(self) -> str:
        """Something that will interrupt."""
        mode = self.rng.choice((0, 0, 1 << 15, 7 << 8, 1 << 16))
        pin = self.rng.choice((0, 2, 4, 8, 14))
        count = self.rng.choice((3, 40, 1000))
        divide = self.rng.choice((0, 3, 11))
        return self.rng.choice((
            f"mov dword [{IO_APIC}], {0x10 + 2 * pin}\nmov dword [{IO_APIC + 16}], {mode | 0x41}",
            f"mov dword [LOCAL + 0x320], {self.rng.choice((0x42, 0x20042))}\n"
            f"mov dword [LOCAL + 0x3E0], {divide}\nmov dword [LOCAL + 0x380], {count}",
            f"mov dword [LOCAL + 0x300], {0x40000 | self.rng.randrange(256)}",
            "mov al, 0x34\nout 0x43, al\nmov al, 9\nout 0x40, al\nmov al, 0\nout 0x40, al",
            "mov al, 0x11\nout 0x20, al\nmov al, 0x20\nout 0x21, al\nmov al, 4\nout 0x21, al\n"
            "mov al, 1\nout 0x21, al\nmov al, 0\nout 0x21, al",
            "mov edx, 0x3FC\nmov al, 0x18\nout dx, al\nmov edx, 0x3F9\nmov al, 7\nout dx, al\n"
            "mov edx, 0x3F8\nout dx, al",
            "sti", "sti", "cli", "pushf\nor dword [esp], 0x200\npopf", "mov ecx, 50\nloop $",
            "mov dword [LOCAL + 0x380], 90\nmov dword [LOCAL + 0x320], 0x42\nsti\nhlt",
            "mov ecx, 0x1B\nrdmsr\nxor eax, 0x800\nwrmsr",
        ))  # fmt: skip

    def step(self, wild: bool) -> str:
        """One step; a wild one may be the last."""
        if wild:
            return self.rng.choice((self.table, self.table, self.paging, self.stack, self.task))()
        kinds = [
            *(3 * [self.load], 4 * [self.store], 3 * [self.change], 3 * [self.string]),
            *(3 * [self.port_access], 2 * [self.port_string], 5 * [self.lines]),
        ]
        return self.rng.choice([kind for group in kinds for kind in group])()


def program(seed: str, length: int) -> str:
    """The source of a kernel of so many steps; the wildest come at its end."""
    rng = Random(seed)
    writer = Writer(rng)
    lines = [PREAMBLE, PAGING if rng.randrange(2) else ""]
    for number in range(length):
        wild = number > length - WILD or rng.randrange(length) == 0
        lines += [f"mov dword [resume], step_{number}", writer.step(wild), f"step_{number}:"]
    return "\n".join([*lines, END])
