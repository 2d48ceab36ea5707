"""The hypercall table: its own rules, and what is rendered from it is fresh and assembles."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypervisor.hypercalls import (
    ARGUMENT_REGISTERS,
    BY_NAME,
    COMMON_ERRORS,
    ERROR_VALUES,
    ERRORS,
    HYPERCALLS,
    INCLUDE,
    RENDERED,
    STRUCTURES,
    main,
    render_include,
    render_page,
)
from isa import assemble
from isa.paravirt import HYPERCALL_VECTOR
from tests.assembler import nasm

USES_ALL = '%include "hypercall.inc"\nstart:\n' + "".join(
    f"    hypercall {call.name}\n" for call in HYPERCALLS
)


@pytest.mark.parametrize(("path", "render"), RENDERED, ids=lambda value: getattr(value, "name", ""))
def test_what_is_rendered_is_fresh(path: Path, render: object) -> None:
    assert callable(render)
    assert path.read_text(encoding="utf-8") == render(), "stale: run `make reference`"


def test_main_prints_both(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert capsys.readouterr().out == render_include() + render_page()


def test_numbers_and_names_are_unique() -> None:
    assert [call.number for call in HYPERCALLS] == list(range(len(HYPERCALLS)))
    assert len(BY_NAME) == len(HYPERCALLS)
    assert len({call.handler for call in HYPERCALLS}) == len(HYPERCALLS)
    assert all(call.handler.isidentifier() for call in HYPERCALLS)


@pytest.mark.parametrize("call", HYPERCALLS, ids=lambda call: call.name)
def test_arguments_and_errors(call: object) -> None:
    row = BY_NAME[getattr(call, "name")]  # noqa: B009
    registers = tuple(argument.register for argument in row.arguments)
    assert registers == ARGUMENT_REGISTERS[: len(registers)]
    assert set(row.errors) <= set(ERROR_VALUES)
    assert not set(row.errors) & set(COMMON_ERRORS)
    named = {argument.unit for argument in row.arguments}
    assert ("EFAULT" in row.errors) == ("address" in named)


def test_errors_are_negative_and_differ() -> None:
    values = [error.value for error in ERRORS]
    assert all(value < 0 for value in values)
    assert len(set(values)) == len(values)


def test_structures_have_no_holes() -> None:
    for structure in STRUCTURES:
        ends = [word.offset + word.size for word in structure.words]
        assert [word.offset for word in structure.words] == [0, *ends[:-1]]
        assert structure.size == ends[-1]


def test_a_call_is_a_number_and_an_interrupt() -> None:
    for paravirt in (None, "hypervisor", "native"):
        program = assemble(USES_ALL, include=[INCLUDE.parent], paravirt=paravirt)
        wanted = b"".join(
            b"\xb8" + call.number.to_bytes(4, "little") + bytes([0xCD, HYPERCALL_VECTOR])
            for call in HYPERCALLS
        )
        assert program.flat() == wanted
        assert not program.sites  # `int` leaves ring 1 by itself


@pytest.mark.skipif(not nasm.available, reason=nasm.MISSING)
def test_nasm_takes_the_include_file() -> None:
    theirs, said = nasm.run("bits 32\n" + USES_ALL, include=[INCLUDE.parent])
    assert theirs == assemble("bits 32\n" + USES_ALL, include=[INCLUDE.parent]).flat(), said
