"""The kernel of apic_guest.asm: it lives by its local APIC."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from guests import LIB
from isa import assemble

PROGRAM: Final = assemble(Path(__file__).with_suffix(".asm").read_text("utf-8"), include=[LIB])
RAM: Final = "4M"
TICKS: Final = 2_000_000  #: it ends long before
