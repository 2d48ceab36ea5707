"""What the options of several commands share."""

from __future__ import annotations

from typing import Any, ClassVar

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
PORT = Number(0xFFFF)


class BareOptionCommand(click.Command):
    """Lets an option stand without its value, which click cannot do before an argument."""

    #: Option -> what it means then.
    bare: ClassVar[dict[str, str]] = {"--virtualizable": "--virtualizable=all"}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [self.bare.get(arg, arg) for arg in args])
