"""The registers that gdb is shown, and the XML that describes them to it.

gdb's own feature for IA-32 (org.gnu.gdb.i386.core) comes first and has to have the x87 registers,
though there are none: they read as 0 and forget what they are told. Behind it stands a feature of
ours with what QEMU shows too: control registers and the bases of FS and GS. For the rest there is
`monitor segments`. Source: "Debugging with GDB", appendix G.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, NoReturn

from emulator.core import CONTROLS, GENERAL, SEGMENTS
from hypervisor.errors import HypervisorError

#: gdb's order of the segment registers.
SELECTORS: Final = ("cs", "ss", "ds", "es", "fs", "gs")
X87: Final = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
X87_BYTES: Final = 10
WORD: Final = 4

EFLAGS_ALWAYS: Final = 0x2
#: What may be written of EFLAGS: all but VM, VIF and VIP, and what is reserved.
EFLAGS_WRITABLE: Final = 0x257FD5
CR0_PE: Final = 0x1
CR0_ET: Final = 0x10
CR0_NW: Final = 0x20000000
CR0_CD: Final = 0x40000000
CR0_KNOWN: Final = 0xE005003F
CR4_KNOWN: Final = 0x1C  #: TSD, DE, PSE


class Register(NamedTuple):
    """One register. `read` and `write` take a CPU's state, as the core has it."""

    name: str
    read: Callable[[Any], int]
    write: Callable[[Any, int], None]
    size: int = WORD  #: bytes
    kind: str = "int"  #: gdb's type
    group: str = ""


def _refuse(name: str, value: int) -> NoReturn:
    raise HypervisorError(f"{name} cannot be set to {value:#x} by hand")


def _fixed(name: str, read: Callable[[Any], int]) -> Register:
    """What gdb may write back as it was, with all others, but not change."""

    def write(state: Any, value: int) -> None:
        if value != read(state):
            _refuse(name, value)

    return Register(name, read, write)


def _general(name: str) -> Register:
    number = GENERAL.index(name)

    def write(state: Any, value: int) -> None:
        state.gpr[number] = value

    kind = "data_ptr" if name in ("esp", "ebp") else "int"
    return Register(name, lambda state: int(state.gpr[number]), write, kind=kind)


def _field(name: str, kind: str = "int") -> Register:
    def write(state: Any, value: int) -> None:
        setattr(state, name, value)

    return Register(name, lambda state: int(getattr(state, name)), write, kind=kind)


def _write_eflags(state: Any, value: int) -> None:
    state.eflags = value & EFLAGS_WRITABLE | EFLAGS_ALWAYS


def _write_cr0(state: Any, value: int) -> None:
    if not value & CR0_PE or value & ~CR0_KNOWN or value & (CR0_NW | CR0_CD) == CR0_NW:
        _refuse("cr0", value)
    state.cr0 = value | CR0_ET


def _write_cr4(state: Any, value: int) -> None:
    if value & ~CR4_KNOWN:
        _refuse("cr4", value)
    state.cr4 = value


def _selector(name: str) -> Register:
    """A selector without its descriptor would be half a register: only the guest loads one."""
    number = SEGMENTS.index(name)
    return _fixed(name, lambda state: int(state.seg[number].selector))


def _base(name: str) -> Register:
    number = SEGMENTS.index(name)
    return _fixed(f"{name}_base", lambda state: int(state.seg[number].base))


def _absent(name: str, size: int, kind: str, group: str) -> Register:
    return Register(name, lambda state: 0, lambda state, value: None, size, kind, group)


CORE: Final = (
    *map(_general, GENERAL),
    _field("eip", "code_ptr"),
    _field("eflags", "i386_eflags")._replace(write=_write_eflags),
    *map(_selector, SELECTORS),
    *(_absent(f"st{number}", X87_BYTES, "i387_ext", "float") for number in range(8)),
    *(_absent(name, WORD, "int", "float") for name in X87),
)
_CONTROLS: Final = {
    "cr0": _field("cr0", "cr0_flags")._replace(write=_write_cr0),
    "cr4": _field("cr4", "cr4_flags")._replace(write=_write_cr4),
}
SYSTEM: Final = (
    *map(_base, ("fs", "gs")),
    *(_CONTROLS.get(name) or _field(name) for name in CONTROLS),
)
REGISTERS: Final = (*CORE, *SYSTEM)
#: What a `g` packet holds of them.
TOTAL_BYTES: Final = sum(register.size for register in REGISTERS)

_FLAGS: Final = {
    "i386_eflags": {
        0: "CF", 1: "", 2: "PF", 4: "AF", 6: "ZF", 7: "SF", 8: "TF", 9: "IF", 10: "DF", 11: "OF",
        14: "NT", 16: "RF", 17: "VM", 18: "AC", 19: "VIF", 20: "VIP", 21: "ID",
    },
    "cr0_flags": {
        0: "PE", 1: "MP", 2: "EM", 3: "TS", 4: "ET", 5: "NE", 16: "WP", 18: "AM", 29: "NW",
        30: "CD", 31: "PG",
    },
    "cr4_flags": {2: "TSD", 3: "DE", 4: "PSE"},
}  # fmt: skip


def _flags_xml(name: str) -> str:
    fields = "".join(
        f'<field name="{flag}" start="{bit}" end="{bit}"/>' for bit, flag in _FLAGS[name].items()
    )
    return f'<flags id="{name}" size="{WORD}">{fields}</flags>'


def _register_xml(register: Register) -> str:
    group = f' group="{register.group}"' if register.group else ""
    size, kind = register.size * 8, register.kind
    return f'<reg name="{register.name}" bitsize="{size}" type="{kind}"{group}/>'


def describe() -> str:
    """The target description."""
    core = _flags_xml("i386_eflags") + "".join(map(_register_xml, CORE))
    system = "".join(map(_flags_xml, ("cr0_flags", "cr4_flags")))
    system += "".join(map(_register_xml, SYSTEM))
    return (
        '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target>'
        "<architecture>i386</architecture>"
        f'<feature name="org.gnu.gdb.i386.core">{core}</feature>'
        f'<feature name="seventeen.system">{system}</feature></target>'
    )
