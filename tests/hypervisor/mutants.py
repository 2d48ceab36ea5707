"""Mutants: one small thing of the hypervisor disabled, to see whether a test notices.

A fidelity test proves little unless it can fail. So each handler, each condition and each bit of
state that a world switch carries is taken away in turn: a `Mutant` is a name and a change to the
running code, undone afterwards. One that no check can notice must say why in `survives`. The rows
are in mutants_exits.py, mutants_state.py and mutants_memory.py; killers.py has the checks, and
test_sensitivity.py holds that each mutant falls to one.
"""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from types import CodeType
from typing import Any, Final

import pytest

from hypervisor.world import World

Change = Callable[[pytest.MonkeyPatch], None]
ALL: Final = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True)
class Mutant:
    """What is disabled."""

    name: str  #: unique; before the colon, the file or function that it is about
    change: Change
    survives: str = ""  #: why no check can notice; empty: one must


def edit(function: Callable[..., Any], old: str, new: str) -> Change:
    """A function with a piece of its source replaced; whoever holds the function has it so."""

    def change(patch: pytest.MonkeyPatch) -> None:
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count(old) == 1, f"{function.__qualname__} has not one {old!r}"
        flags = __future__.annotations.compiler_flag
        module = compile(source.replace(old, new), __file__, "exec", flags, True)
        code = _code_in(module, function.__name__)
        patch.setattr(function, "__code__", code.replace(co_filename=inspect.getfile(function)))

    return change


def _code_in(outer: CodeType, name: str) -> CodeType:
    return next(c for c in outer.co_consts if isinstance(c, CodeType) and c.co_name == name)


def both(*changes: Change) -> Change:
    """Several changes at once."""

    def change(patch: pytest.MonkeyPatch) -> None:
        for one in changes:
            one(patch)

    return change


def value(owner: object, name: str, other: object) -> Change:
    """Another value for a constant, or another function."""
    return lambda patch: patch.setattr(owner, name, other)


def entry(table: MutableMapping[Any, Any], key: object, other: object) -> Change:
    """Another entry of a table."""
    return lambda patch: patch.setitem(table, key, other)


def without(table: MutableMapping[Any, Any], key: object) -> Change:
    """A table without an entry."""
    return lambda patch: patch.delitem(table, key)


def lost(way: str, place: str, mask: int = ALL) -> Change:
    """A field of CpuState, or bits of it, that the world switch does not carry.

    way: "enter", to the real CPU, or "leave". place: "eip", "gpr 3", "seg 1 base".
    """

    def change(patch: pytest.MonkeyPatch) -> None:
        switch = getattr(World, way)

        def forgetful(world: World) -> None:
            if world.entered is (way == "enter"):
                return
            state = world._real if way == "enter" else world._virtual
            before = read(state, place)
            switch(world)
            write(state, place, read(state, place) & ~mask & ALL | before & mask)

        patch.setattr(World, way, forgetful)

    return change


def _owner(state: Any, place: str) -> tuple[Any, int | str]:
    """What holds a field, and the field's name or index."""
    owner, *parts = state, *place.split()
    keys = [int(part) if part.isdigit() else part for part in parts]
    for key in keys[:-1]:
        owner = owner[key] if isinstance(key, int) else getattr(owner, key)
    return owner, keys[-1]


def read(state: Any, place: str) -> int:
    """A field of CpuState by its words."""
    owner, key = _owner(state, place)
    found: int = owner[key] if isinstance(key, int) else getattr(owner, key)
    return found


def write(state: Any, place: str, new: int) -> None:
    """Set such a field."""
    owner, key = _owner(state, place)
    if isinstance(key, int):
        owner[key] = new
    else:
        setattr(owner, key, new)
