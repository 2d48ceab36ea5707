"""Techniques: how a guest's kernel gets to run although it may not have ring 0.

A registry: a module of this package is one technique, with one class; `TECHNIQUES` names it. The
interface is in base.py. How linear addresses are translated is another choice (hypervisor/memory/).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from hypervisor.errors import HypervisorError

if TYPE_CHECKING:
    from hypervisor.techniques.base import Technique

NATIVE: Final = "native"  #: the bare machine, which is no technique of ours
#: Name for --technique -> (module, class).
TECHNIQUES: Final = {
    "interpret": ("hypervisor.techniques.interpret", "Interpret"),
    "trap": ("hypervisor.techniques.trap", "Trap"),
    "translate": ("hypervisor.techniques.translate", "Translate"),
    "patch": ("hypervisor.techniques.patch", "Patch"),
    "paravirt": ("hypervisor.techniques.paravirt", "Paravirt"),
    "hardware": ("hypervisor.techniques.hardware", "Hardware"),
}


def find_technique(words: str) -> Technique:
    """The technique of that name, with its switches: ``translate --user``.

    HypervisorError if there is none, or if it has no such switch.
    """
    name, *switches = words.split() or [""]
    if name == NATIVE:
        known = ", ".join(TECHNIQUES)
        raise HypervisorError(f"{NATIVE} is the bare machine, no technique; there is {known}")
    if name not in TECHNIQUES:
        known = ", ".join((NATIVE, *TECHNIQUES))
        raise HypervisorError(f"no technique {name!r}; there is {known}")
    kind = kind_of(name)
    for switch in switches:
        if switch not in kind.switches:
            known = ", ".join(kind.switches) or "none"
            raise HypervisorError(f"technique {name} has no switch {switch}; there is {known}")
    return kind(**dict(kind.switches[switch] for switch in switches))


def kind_of(name: str) -> type[Technique]:
    """The class of a technique that there is."""
    module, member = TECHNIQUES[name]
    kind: type[Technique] = getattr(import_module(module), member)
    return kind


def owner_of(switch: str) -> str:
    """The technique that has a switch."""
    return next(name for name in TECHNIQUES if switch in kind_of(name).switches)
