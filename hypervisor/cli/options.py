"""Types of options that several commands share."""

from __future__ import annotations

from typing import Any

import click


class Number(click.ParamType):
    """A number as an assembler's user writes one: 4096, 0x1000, 1_000_000."""

    name = "NUMBER"

    def __init__(self, most: int) -> None:
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            number = int(value, 0)
        except ValueError:
            self.fail(f"expected a number such as 4096 or 0x1000, found {value!r}", param, ctx)
        if not 0 <= number <= self.most:
            self.fail(f"expected 0 to {self.most:#x}, found {value}", param, ctx)
        return number


NUMBER = Number(0xFFFF_FFFF)
TICKS = Number((1 << 63) - 1)
