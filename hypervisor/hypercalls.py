"""The hypercalls: what a paravirtual kernel may ask of its hypervisor by name. One table.

A kernel puts a call's number into EAX, its arguments into EBX, ECX, EDX and ESI, and executes
`int HYPERCALL_VECTOR` (isa/paravirt.py) outside of any site; the result is in EAX, all other
registers and the flags are kept. From this table are rendered what guests include
(`guests/lib/hypercall.inc`) and the page that people read (`hypervisor/HYPERCALLS.md`):
``python -m hypervisor.hypercalls --write``; a test fails while they are stale.

A row's handler is a method in calls.py. No argument is
trusted: a handler checks all of them before it changes anything, and answers with an error of the
table.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isa.paravirt import HYPERCALL_VECTOR

#: The registers of the arguments, in order.
ARGUMENT_REGISTERS: Final = ("ebx", "ecx", "edx", "esi")
#: The version of this table: one more with each change that an older kernel would notice.
VERSION: Final = 1
PAGE: Final = Path(__file__).with_name("HYPERCALLS.md")
INCLUDE: Final = Path(__file__).parents[1] / "guests" / "lib" / "hypercall.inc"


@dataclass(frozen=True, slots=True)
class Error:
    """A result that says why nothing was done."""

    name: str
    value: int  #: negative
    meaning: str


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument: its register, and what its 32 bits mean."""

    name: str
    register: str
    meaning: str
    unit: str  #: address (guest-virtual, linear), bytes, entries, selector, number


@dataclass(frozen=True, slots=True)
class Word:
    """A field of a structure in guest memory: offset and size in bytes."""

    name: str
    offset: int
    size: int
    meaning: str


@dataclass(frozen=True, slots=True)
class Structure:
    """A structure that a call reads or writes."""

    name: str
    title: str
    words: tuple[Word, ...]

    @property
    def size(self) -> int:
        last = self.words[-1]
        return last.offset + last.size


@dataclass(frozen=True, slots=True)
class Hypercall:
    """One call."""

    number: int
    name: str
    title: str
    arguments: tuple[Argument, ...]
    result: str  #: EAX if there was no error
    errors: tuple[str, ...]  #: names of ERRORS, beside those that any call may return
    notes: str = ""

    @property
    def handler(self) -> str:
        """The name of the method in calls.py."""
        return f"hypercall_{self.name}"


ERRORS: Final = (
    Error("EFAULT", -14, "the guest memory named is not there, or may not be written"),
    Error("EINVAL", -22, "an argument is out of range"),
    Error("ENOSYS", -38, "no such call, or none that this VM offers"),
)
#: What every call may return.
COMMON_ERRORS: Final = ("ENOSYS",)


def _structure(name: str, title: str, *rows: tuple[str, int, str]) -> Structure:
    words, offset = [], 0
    for word, size, meaning in rows:
        words.append(Word(word, offset, size, meaning))
        offset += size
    return Structure(name, title, tuple(words))


STRUCTURES: Final = (
    _structure(
        "vm_info", "what `vm_info` tells",
        ("version", 4, f"of this table: {VERSION}"),
        ("calls", 4, "how many calls there are: numbers from 0 up"),
        ("memory", 4, "bytes of guest-physical memory"),
        ("tick_rate", 4, "ticks of guest time in a second"),
    ),
    _structure(
        "mmu_update", "an entry of `mmu_update`",
        ("entry", 4, "guest-physical address of a directory or table entry"),
        ("value", 4, "what it becomes"),
    ),
    _structure(
        "multicall", "an entry of `multicall`",
        ("number", 4, "of the call"),
        ("ebx", 4, "its first argument"),
        ("ecx", 4, "its second"),
        ("edx", 4, "its third"),
        ("esi", 4, "its fourth"),
        ("result", 4, "written: what it returned"),
    ),
)  # fmt: skip


def _call(
    name: str,
    title: str,
    *arguments: tuple[str, str, str],
    result: str = "0",
    errors: Sequence[str] = (),
    notes: str = "",
) -> Hypercall:
    rows = tuple(
        Argument(argument, register, meaning, unit)
        for register, (argument, meaning, unit) in zip(ARGUMENT_REGISTERS, arguments, strict=False)
    )
    return Hypercall(0, name, title, rows, result, tuple(errors), notes)


_CALLS: Final = (
    _call(
        "vm_info", "say what this virtual machine is",
        ("to", "where the structure `vm_info` goes", "address"),
        errors=("EFAULT",),
    ),
    _call(
        "console_write", "write bytes to the console, as COM1 would",
        ("from", "the bytes", "address"),
        ("count", "how many; at most 65536", "bytes"),
        result="the bytes written", errors=("EFAULT", "EINVAL"),
    ),
    _call(
        "yield", "let other virtual machines run first",
    ),
    _call(
        "get_time", "read guest time",
        ("to", "where 64 bits of ticks since the start go", "address"),
        errors=("EFAULT",),
    ),
    _call(
        "mmu_update", "change page table entries",
        ("entries", "entries of the structure `mmu_update`", "address"),
        ("count", "how many; at most 1024", "entries"),
        result="the entries done", errors=("EFAULT", "EINVAL"),
        notes="All entries are read and checked first: on an error none has been changed. What the "
        "TLB holds of them is flushed.",
    ),
    _call(
        "set_kernel_stack", "set the stack on which events in ring 3 begin",
        ("ss", "the kernel's data segment", "selector"),
        ("esp", "its stack pointer", "address"),
        errors=("EFAULT", "EINVAL"),
        notes="Writes SS0 and ESP0 of the guest's TSS, and tells the hypervisor at once.",
    ),
    _call(
        "multicall", "make several calls in one exit",
        ("calls", "entries of the structure `multicall`", "address"),
        ("count", "how many; at most 256", "entries"),
        result="the calls made", errors=("EFAULT", "EINVAL"),
        notes="Each entry gets its own result, an error included, and the next is made all the "
        "same. An entry cannot be a `multicall` itself: its result is EINVAL. Ends early behind "
        "`yield` or `shutdown`.",
    ),
    _call(
        "shutdown", "end this virtual machine",
        ("status", "its exit status, 0 to 63", "number"),
        result="none: it does not return", errors=("EINVAL",),
    ),
)  # fmt: skip


def _numbered(calls: Sequence[Hypercall]) -> tuple[Hypercall, ...]:
    return tuple(
        Hypercall(number, c.name, c.title, c.arguments, c.result, c.errors, c.notes)
        for number, c in enumerate(calls)
    )


#: The table. Index is the number.
HYPERCALLS: Final = _numbered(_CALLS)
BY_NAME: Final = {call.name: call for call in HYPERCALLS}
ERROR_VALUES: Final = {error.name: error.value for error in ERRORS}


# -- What is rendered ------------------------------------------------------------------------------

_INCLUDE_HEAD: Final = """\
; hypercall.inc - what a paravirtual kernel may ask of its hypervisor, by name.
;
; The problem: kernel and hypervisor must not drift apart. This file is rendered from the table in
; hypervisor/hypercalls.py (make reference); hypervisor/HYPERCALLS.md says what each call does.
;
;     mov ebx, text
;     mov ecx, length
;     hypercall console_write       result in EAX, negative: an error; keeps all other registers
;
; On a bare machine there is nobody to ask: there the vector is one of the guest's own IDT.

%ifndef HYPERCALL_INC
%define HYPERCALL_INC

%macro hypercall 1
    mov eax, HYPERCALL_%1
    int HYPERCALL_VECTOR
%endmacro
"""


_WIDTH: Final = 100  #: columns of the include file
_COMMENTS: Final = 40  #: where its comments begin


def _equ(name: str, value: str, comment: str = "") -> str:
    """A constant, with a comment behind it if there is room, or else above it."""
    text = f"{name:<26} equ {value}"
    line = f"{text:<{_COMMENTS}}; {comment}" if comment else text
    return line if len(line) <= _WIDTH else f"; {comment}\n{text}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def render_include() -> str:
    """The text of guests/lib/hypercall.inc."""
    lines = [_INCLUDE_HEAD, _equ("HYPERCALL_VECTOR", f"{HYPERCALL_VECTOR:#x}"), ""]
    for call in HYPERCALLS:
        lines.append(_equ(f"HYPERCALL_{call.name}", str(call.number), call.title))
        for argument in call.arguments:
            comment = f"   {argument.register.upper()}: {argument.meaning}"
            lines.append(" " * _COMMENTS + ";" + comment)
    lines.append("")
    lines += [_equ(f"HYPERCALL_{e.name}", str(e.value), e.meaning) for e in ERRORS]
    for structure in STRUCTURES:
        lines += ["", f"; {structure.title.replace('`', '')}"]
        for word in structure.words:
            name = f"{structure.name}_{word.name}".upper()
            lines.append(_equ(name, str(word.offset), word.meaning))
        lines.append(_equ(f"{structure.name}_size".upper(), str(structure.size)))
    return "\n".join([*lines, "", "%endif", ""])


_REGISTERS: Final = ", ".join(register.upper() for register in ARGUMENT_REGISTERS)
_PAGE_HEAD: Final = f"""\
# Hypercalls

What a paravirtual kernel may ask of its hypervisor: number in EAX, arguments in {_REGISTERS},
then `int {HYPERCALL_VECTOR:#x}`. The result is in EAX, an error if it is negative; all other
registers and the flags are kept. Addresses are guest-virtual and linear. Guests include
`guests/lib/hypercall.inc` and write `hypercall console_write`. From ring 3 the same INT goes
through the guest's own IDT.

Rendered from `hypervisor/hypercalls.py` by `make reference`.
"""


def _describe(call: Hypercall) -> list[str]:
    lines = [f"## {call.number} {call.name}", "", f"{_sentence(call.title)}.", ""]
    if call.arguments:
        lines += ["| register | argument | unit | meaning |", "|---|---|---|---|"]
        lines += [f"| {a.register.upper()} | {a.name} | {a.unit} | {a.meaning} |"
                  for a in call.arguments]  # fmt: skip
        lines.append("")
    errors = ", ".join((*call.errors, *COMMON_ERRORS))
    lines += [f"Result: {call.result}. Errors: {errors}.", ""]
    return [*lines, call.notes, ""] if call.notes else lines


def render_page() -> str:
    """The text of hypervisor/HYPERCALLS.md."""
    lines = [_PAGE_HEAD]
    for call in HYPERCALLS:
        lines += _describe(call)
    lines += ["## Errors", "", "| name | value | meaning |", "|---|---|---|"]
    lines += [f"| {e.name} | {e.value} | {e.meaning} |" for e in ERRORS]
    for structure in STRUCTURES:
        lines += ["", f"## Structure {structure.name}", ""]
        lines += [f"{_sentence(structure.title)}: {structure.size} bytes.", ""]
        lines += ["| offset | bytes | field | meaning |", "|---|---|---|---|"]
        lines += [f"| {w.offset} | {w.size} | {w.name} | {w.meaning} |" for w in structure.words]
    return "\n".join([*lines, ""])


#: Each file that is rendered, and its text.
RENDERED: Final = ((INCLUDE, render_include), (PAGE, render_page))


def main(arguments: list[str] | None = None) -> None:
    """Print what is rendered from the table, or write it to its files."""
    parser = argparse.ArgumentParser(
        prog="python -m hypervisor.hypercalls", description=main.__doc__
    )
    parser.add_argument("--write", action="store_true", help="write the files")
    write = parser.parse_args(arguments).write
    for path, render in RENDERED:
        if write:
            path.write_text(render(), encoding="utf-8")
        else:
            print(render(), end="")


if __name__ == "__main__":
    main()
