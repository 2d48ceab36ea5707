"""Memory virtualizations: how a guest's linear addresses become machine addresses.

A registry: a module of this package is one way, with one class; `MEMORIES` names it. The interface
is in base.py. A technique says which ways it can go with (hypervisor/techniques/).
"""

from __future__ import annotations

from typing import Final

#: Name for --mmu -> (module, class).
MEMORIES: Final = {
    "shadow": ("hypervisor.memory.shadow", "ShadowPaging"),
}
