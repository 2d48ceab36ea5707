"""Memory virtualizations: how a guest's linear addresses become machine addresses.

A registry: a module of this package is one way, with one class; `MEMORIES` names it. The interface
is base.py's. A technique says which ways it can go with (hypervisor/techniques/).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from hypervisor.errors import HypervisorError

if TYPE_CHECKING:
    from hypervisor.techniques.base import Technique

#: Name for --mmu -> (module, class).
MEMORIES: Final = {
    "shadow": ("hypervisor.memory.shadow", "ShadowPaging"),
    "shared": ("hypervisor.memory.shared", "SharedPaging"),
    "nested": ("hypervisor.memory.nested", "NestedPaging"),
}


def choose_memory(name: str | None, technique: Technique) -> str:
    """The name itself, or for None what the technique prefers; HypervisorError if it cannot be."""
    if name is None:
        return technique.memories[0]
    if name not in MEMORIES:
        raise HypervisorError(f"no memory virtualization {name!r}; there is {', '.join(MEMORIES)}")
    if name not in technique.memories:
        known = ", ".join(technique.memories)
        raise HypervisorError(f"{technique.name} does not go with --mmu {name}, but with {known}")
    return name


def find_memory(name: str) -> Any:
    """The class of that name, a `GuestPaging` each; KeyError if there is none."""
    module, member = MEMORIES[name]
    return getattr(import_module(module), member)
