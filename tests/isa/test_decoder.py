"""The decoder's rules one by one: prefixes, ModRM, and every way to be no instruction.

That it reads operands right is held against other disassemblers in `test_oracles.py`.
"""

from __future__ import annotations

import pytest

from isa.decoder import MAXIMUM_LENGTH, Instruction, decode
from isa.errors import DecodeError
from isa.operands import (
    CS,
    DEBUGS,
    DS,
    EBP,
    EBX,
    ES,
    ESP,
    GENERAL,
    SEGMENTS,
    SS,
    FarPointer,
    Immediate,
    Memory,
    Relative,
)

EAX = GENERAL[32][0]


def dec(text: str, address: int = 0) -> Instruction:
    return decode(bytes.fromhex(text), address)


def refused(text: str) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        dec(text)
    return caught.value


# -- Prefixes ----------------------------------------------------------------------------------


def test_prefixes_stand_in_any_order() -> None:
    first, second = dec("66 67 2e f0 01 00"), dec("f0 2e 67 66 01 00")
    assert first.operands == second.operands
    assert first.prefixes == second.prefixes
    assert first.prefixes.count == 4


@pytest.mark.parametrize(
    ("code", "segment"), [("2e 3e 8b 00", DS), ("3e 2e 8b 00", CS), ("26 36 26 8b 00", ES)]
)
def test_last_segment_override_wins(code: str, segment: int) -> None:
    (_, place) = dec(code).operands
    assert isinstance(place, Memory)
    assert place.segment == segment


def test_last_repeat_prefix_wins() -> None:
    assert dec("f2 f3 a6").prefixes.repeat == 0xF3
    assert dec("f3 f2 a6").prefixes.repeat == 0xF2
    assert dec("f2 f3 90").mnemonic == "pause"
    assert dec("f3 f2 90").mnemonic == "nop"


def test_operand_size_prefix_counts_once() -> None:
    assert dec("66 66 b8 34 12").operands == (GENERAL[16][0], Immediate(0x1234, 16))


def test_fifteen_bytes_and_no_more() -> None:
    assert dec("66 " * 14 + "90").length == MAXIMUM_LENGTH
    error = refused("66 " * 15 + "90")
    assert error.vector == 13
    assert "15 bytes" in str(error)


def test_length_is_checked_before_the_bytes_run_out() -> None:
    assert refused("66 " * 12 + "c7 00").vector == 13
    assert refused("66 " * 10 + "c7 00").vector is None


@pytest.mark.parametrize("code", ["f0 01 00", "f0 0f c7 08", "f0 87 00", "f0 0f ba 28 01"])
def test_lock_on_a_memory_destination(code: str) -> None:
    assert dec(code).prefixes.lock


@pytest.mark.parametrize(
    "code",
    ["f0 01 c0", "f0 03 00", "f0 89 00", "f0 39 00", "f0 0f a3 00", "f0 91", "f0 90", "f0 a4"],
)
def test_lock_elsewhere_is_invalid(code: str) -> None:
    error = refused(code)
    assert error.vector == 6
    assert "LOCK" in str(error)


# -- Addressing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "place"),
    [
        ("8b 00", Memory(0, None, 1, 0, 32, None, 32, 0)),
        ("8b 05 78 56 34 12", Memory(None, None, 1, 0x12345678, 32, None, 32, 32)),
        ("8b 45 fc", Memory(EBP, None, 1, 0xFFFFFFFC, 32, None, 32, 8)),
        ("8b 04 24", Memory(ESP, None, 1, 0, 32, None, 32, 0)),
        ("8b 04 e4", Memory(ESP, None, 1, 0, 32, None, 32, 0)),
        ("8b 04 9d 04 00 00 00", Memory(None, EBX, 4, 4, 32, None, 32, 32)),
        ("8b 44 1d 01", Memory(EBP, EBX, 1, 1, 32, None, 32, 8)),
        ("8b 84 c5 00 00 00 80", Memory(EBP, 0, 8, 0x80000000, 32, None, 32, 32)),
        ("67 8b 00", Memory(EBX, 6, 1, 0, 32, None, 16, 0)),
        ("67 8b 03", Memory(EBP, 7, 1, 0, 32, None, 16, 0)),
        ("67 8b 06 34 12", Memory(None, None, 1, 0x1234, 32, None, 16, 16)),
        ("67 8b 46 ff", Memory(EBP, None, 1, 0xFFFF, 32, None, 16, 8)),
        ("67 8b 87 00 80", Memory(EBX, None, 1, 0x8000, 32, None, 16, 16)),
        ("a1 78 56 34 12", Memory(None, None, 1, 0x12345678, 32, None, 32, 32)),
        ("67 a1 34 12", Memory(None, None, 1, 0x1234, 32, None, 16, 16)),
    ],
)
def test_memory_operands(code: str, place: Memory) -> None:
    assert dec(code).operands == (EAX, place)


def test_the_stack_segment_is_the_default_of_its_registers() -> None:
    for code, segment in (
        ("8b 45 00", SS),
        ("8b 04 24", SS),
        ("8b 04 2b", DS),
        ("67 8b 02", SS),
        ("8b 04 6d 00 00 00 00", DS),
    ):
        place = dec(code).operands[1]
        assert isinstance(place, Memory)
        assert place.effective_segment == segment, code


def test_four_rows_store_a_word_whatever_the_operand_size() -> None:
    for code in ("0f 00 00", "0f 00 08", "0f 01 20", "8c 18"):
        place = dec(code).operands[0]
        assert isinstance(place, Memory)
        assert place.size == 16, code
    assert dec("8c d8").operands == (EAX, SEGMENTS[DS])
    assert dec("66 8c d8").operands == (GENERAL[16][0], SEGMENTS[DS])


# -- Operands ----------------------------------------------------------------------------------


def test_sign_extended_bytes_are_extended() -> None:
    assert dec("83 c0 ff").operands[1] == Immediate(0xFFFFFFFF, 32)
    assert dec("66 83 c0 ff").operands[1] == Immediate(0xFFFF, 16)
    assert dec("6a 80").operands[0] == Immediate(0xFFFFFF80, 32)


def test_jump_targets() -> None:
    assert dec("eb fe", 0x1000).operands == (Relative(0x1000, 8),)
    assert dec("e9 00 00 00 80", 0x1000).operands == (Relative(0x80001005, 32),)
    assert dec("e8 fb ff ff ff", 0).operands == (Relative(0, 32),)
    assert dec("eb 80", 0).operands == (Relative(0xFFFFFF82, 8),)
    assert dec("66 eb 10", 0x12340000).operands == (Relative(0x13, 8),)
    assert dec("66 e9 00 10", 0x12340000).operands == (Relative(0x1004, 16),)


def test_far_pointers() -> None:
    assert dec("ea 78 56 34 12 08 00").operands == (FarPointer(8, 0x12345678, 32),)
    assert dec("66 9a 34 12 08 00").operands == (FarPointer(8, 0x1234, 16),)


def test_conditions_are_in_the_mnemonic() -> None:
    assert [dec(f"{0x70 + n:02x} 00").mnemonic for n in (0, 4, 5, 15)] == ["jo", "jz", "jnz", "jg"]
    assert dec("0f 94 c0").mnemonic == "setz"
    assert dec("0f 4f c1").mnemonic == "cmovg"


@pytest.mark.parametrize(
    ("code", "mnemonic"),
    [("98", "cwde"), ("66 98", "cbw"), ("a5", "movsd"), ("66 a5", "movsw"), ("66 99", "cwd")],
)
def test_operand_size_chooses_the_row(code: str, mnemonic: str) -> None:
    assert dec(code).mnemonic == mnemonic


@pytest.mark.parametrize("mod", range(4))
def test_control_and_debug_moves_ignore_mod(mod: int) -> None:
    """SDM vol. 2, MOV: the 2 bits of mod are ignored; no SIB, no displacement follows."""
    instruction = decode(bytes([0x0F, 0x22, mod << 6 | 3 << 3 | 4]))
    assert instruction.operands[1] == GENERAL[32][4]
    assert instruction.length == 3
    instruction = decode(bytes([0x0F, 0x21, mod << 6 | 7 << 3 | 5]))
    assert instruction.operands == (GENERAL[32][5], DEBUGS[7])


def test_debug_registers_4_and_5_decode() -> None:
    assert dec("0f 23 e0").operands[0] == DEBUGS[4]
    assert dec("0f 23 e8").operands[0] == DEBUGS[5]


# -- No instruction ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("8d c0", "memory is expected"),
        ("0f 01 d0", "memory is expected"),
        ("0f c7 c8", "memory is expected"),
        ("c5 c0", "memory is expected"),
        ("62 c0", "memory is expected"),
        ("ff d8", "memory is expected"),
        ("8e c8", "CS is loaded"),
        ("8e f0", "no segment register 6"),
        ("8c f8", "no segment register 7"),
        ("0f 20 c8", "no control register 1"),
        ("0f 22 e8", "no control register 5"),
        ("0f 22 f8", "no control register 7"),
        ("0f ff", "0F FF is no instruction"),
        ("d8 c0", "D8 is no instruction"),
        ("ff f8", "FF /7 is no instruction"),
        ("c6 48 00 00", "C6 /1 is no instruction"),
        ("f1", "F1 is no instruction"),
    ],
)
def test_invalid_opcodes(code: str, reason: str) -> None:
    error = refused(code)
    assert error.vector == 6
    assert reason in str(error)


@pytest.mark.parametrize("code", ["", "66", "0f", "8b", "8b 04", "8b 40", "b8 00 00 00", "ea 00"])
def test_bytes_that_end_too_early(code: str) -> None:
    error = refused(code)
    assert error.vector is None
    assert "end inside" in str(error)


def test_decoding_at_an_offset() -> None:
    found = decode(bytes.fromhex("9090ebfe"), 0x1002, 2)
    assert found.operands == (Relative(0x1002, 8),)
    assert found.bytes == b"\xeb\xfe"


def outcome(code: bytes) -> int | None:
    """The length, or minus the vector."""
    try:
        return decode(code).length
    except DecodeError as error:
        return None if error.vector is None else -error.vector


def test_every_byte_sequence_decodes_or_says_why() -> None:
    """All two-byte beginnings: an instruction of at most 15 bytes, or a vector; nothing else."""
    expected = {*range(1, 16), -6, -13}
    for first in range(256):
        for second in range(256):
            code = bytes([first, second]) + bytes(13)
            assert outcome(code) in expected, code.hex()
