"""trap: trap-and-emulate, called trap-and-execute in some lecture notes.

The guest's kernel runs in ring 1 as it is. What is privileged traps, and is emulated (emulate.py)
or interpreted on the virtual CPU. Popek and Goldberg's Theorem 1 (1974) says when that is faithful:
when every sensitive instruction is privileged. On IA-32 seventeen or so are not (Robin and Irvine,
2000): POPF in ring 1 silently keeps IF, PUSHF shows the real one, SGDT tells where the monitor's
table is. Nothing here hides that. With --virtualizable they trap as well, and the same code is
faithful.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hypervisor.techniques.base import Technique

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine


class Trap(Technique):
    """The classical virtual machine monitor."""

    name: ClassVar[str] = "trap"
    steps_on: ClassVar[bool] = True

    def runs_directly(self, vm: VirtualMachine) -> bool:
        del vm
        return True
