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
    "paravirt": ("hypervisor.techniques.paravirt", "Paravirt"),
}


def find_technique(name: str) -> Technique:
    """The technique of that name; HypervisorError if there is none."""
    if name not in TECHNIQUES:
        known = ", ".join((NATIVE, *TECHNIQUES))
        raise HypervisorError(f"no technique {name!r}; there is {known}")
    module, member = TECHNIQUES[name]
    technique: Technique = getattr(import_module(module), member)()
    return technique
