"""Read README.md: its console blocks as commands with the output they promise.

A console block is fenced as ```console. A line that begins with "$ " is a command for bash, the
lines up to the next one what it prints, stdout and stderr together. A line of "..." alone stands
for any lines, or none; "..." inside a line for any text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).resolve().parent.parent.parent / "README.md"
FENCE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A command line, and what README says that it prints."""

    text: str
    output: str


def commands() -> list[Command]:
    """All commands of README's console blocks, in order."""
    found = []
    for block in FENCE.findall(README.read_text(encoding="utf-8")):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            text, _, output = part.partition("\n")
            found.append(Command(text, output))
    return found


def matches(promised: str, printed: str) -> bool:
    """Whether `printed` is what was promised, `...` standing for anything."""
    lines = []
    for line in promised.rstrip("\n").split("\n"):
        if line.strip() == "...":
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(r"[^\n]*".join(map(re.escape, line.rstrip().split("..."))) + r"[ \t]*\n")
    return re.fullmatch("".join(lines), printed.rstrip("\n") + "\n") is not None
