"""The disassembler's text: NASM takes it, and makes the same bytes or a shorter equal of them."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from isa.decoder import Instruction, decode
from isa.disassembler import disassemble, format_instruction
from isa.sampling import random_instruction
from isa.table import ROWS

ORIGIN, SLOT = 0x100000, 16

#: What NASM cannot write at all (see `deviations.py` for the same in its disassembler), and what it
#: makes a nop of.
UNWRITABLE = re.compile(
    r"bswap [a-z]{2}$|(movzx|movsx) [a-z]{2}, (word|[a-z]{2}$)|xchg (e?ax), \3$"
)


def text(code: str, address: int = 0) -> str:
    return format_instruction(decode(bytes.fromhex(code), address))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("89 d8", "mov eax, ebx"),
        ("8b 44 8b fc", "mov eax, [ebx+ecx*4-4]"),
        ("c7 00 01 00 00 00", "mov dword [eax], 1"),
        ("66 c7 00 01 00", "mov word [eax], 1"),
        ("64 a1 10 00 00 00", "mov eax, [fs:0x10]"),
        ("67 8b 47 08", "mov eax, [bx+8]"),
        ("67 8b 06 34 12", "mov eax, [word 0x1234]"),
        ("8b 40 00", "mov eax, [byte eax+0]"),
        ("8b 04 40", "mov eax, [eax+eax*2]"),
        ("8b 04 4d 00 00 00 00", "mov eax, [nosplit ecx*2]"),
        ("83 c0 ff", "add eax, -1"),
        ("0f b6 00", "movzx eax, byte [eax]"),
        ("f0 0f b1 0b", "lock cmpxchg [ebx], ecx"),
        ("f3 a4", "rep movsb"),
        ("f2 ae", "repne scasb"),
        ("f3 66 a7", "repe cmpsw"),
        ("26 ac", "es lodsb"),
        ("67 ac", "a16 lodsb"),
        ("d7", "xlatb"),
        ("66 9d", "popfw"),
        ("9d", "popf"),
        ("66 c3", "o16 ret"),
        ("6a ff", "push byte -1"),
        ("68 00 10 00 00", "push dword 0x1000"),
        ("eb fe", "jmp short 0x0"),
        ("e9 fb ff ff ff", "jmp 0x0"),
        ("0f 84 fa ff ff ff", "jz near 0x0"),
        ("e2 fe", "loop 0x0"),
        ("67 e3 fd", "jcxz 0x0"),
        ("ea 00 10 00 00 08 00", "jmp 8:0x1000"),
        ("66 ea 00 10 08 00", "jmp word 8:0x1000"),
        ("ff 28", "jmp far [eax]"),
        ("ff 10", "call dword [eax]"),
        ("0f 22 d8", "mov cr3, eax"),
        ("0f 01 10", "lgdt [eax]"),
        ("0f 01 38", "invlpg [eax]"),
        ("8d 48 01", "lea ecx, [eax+1]"),
        ("87 cb", "xchg ecx, ebx"),
        ("cd 80", "int 0x80"),
        ("e4 60", "in al, 0x60"),
        ("ef", "out dx, eax"),
        ("0f c7 08", "cmpxchg8b qword [eax]"),
        ("8c 18", "mov word [eax], ds"),
        ("c8 10 00 00", "enter 0x10, 0"),
        ("d1 e0", "shl eax, 1"),
        ("0f 1f 40 00", "nop dword [byte eax+0]"),
    ],
)
def test_text(code: str, expected: str) -> None:
    assert text(code) == expected


def test_symbols_name_targets() -> None:
    names: dict[int, str] = {0x1000: "start"}
    instruction = decode(bytes.fromhex("ebfe"), 0x1000)
    assert format_instruction(instruction, names.get) == "jmp short start"
    assert format_instruction(instruction, lambda _: None) == "jmp short 0x1000"


def test_bytes_that_are_no_code() -> None:
    lines = list(disassemble(bytes.fromhex("90 0fff 8b"), 0x1000))
    assert [(line.address, line.text) for line in lines] == [
        (0x1000, "nop"), (0x1001, "db 0x0f"), (0x1002, "db 0xff"), (0x1003, "db 0x8b"),
    ]  # fmt: skip
    assert str(lines[0]) == "00001000  90                    nop"
    assert lines[1].instruction is None


def test_random_bytes_are_covered_once() -> None:
    data = random.Random(5).randbytes(5000)
    lines = list(disassemble(data, 0x1000))
    assert b"".join(line.bytes for line in lines) == data
    assert [line.address for line in lines[:2]] == [0x1000, 0x1000 + len(lines[0].bytes)]


# -- NASM --------------------------------------------------------------------------------------


def assemble_with_nasm(texts: list[str], folder: Path) -> bytes:
    """The bytes of each text at ORIGIN + n * SLOT, padded with int3."""
    source = folder / "texts.asm"
    body = "\n".join(f"{line}\nalign {SLOT}, db 0xCC" for line in texts)
    source.write_text(f"bits 32\norg {ORIGIN:#x}\n{body}\n")
    output = folder / "texts.bin"
    result = subprocess.run(
        ["nasm", "-f", "bin", "-w-all", "-o", str(output), str(source)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    errors = [
        f"{texts[(int(line.split(':')[1]) - 3) // 2]}: {line.split(':', 2)[2]}"
        for line in result.stderr.splitlines()
        if re.match(r".*:\d+:", line)
    ]
    assert result.returncode == 0, f"{len(errors)} refused\n" + "\n".join(errors[:20])
    return output.read_bytes()


def equal(one: Instruction, other: Instruction) -> bool:
    """The same instruction, though perhaps in another encoding."""
    mine, theirs = (
        [replace_size(o) for o in sorted(map(str, i.operands))] if i.row.order else
        [replace_size(str(o)) for o in i.operands] for i in (one, other)
    )  # fmt: skip
    return one.mnemonic == other.mnemonic and mine == theirs


def replace_size(operand: str) -> str:
    """An operand without how it was encoded: the displacement's size, or the jump's."""
    operand = re.sub(r"displacement_size=\d+", "", operand)
    return re.sub(r"(Relative\(target=\d+), size=\d+", r"\1", operand)


def round_trip(seed: int, per_row: int, folder: Path) -> float:
    """Disassemble, assemble with NASM, decode again; the share of equal bytes."""
    if shutil.which("nasm") is None:
        pytest.skip("nasm is not installed")
    rng = random.Random(seed)
    instructions: list[Instruction] = []
    for row in ROWS:
        for _ in range(per_row):
            code = random_instruction(rng, row)
            instruction = decode(code, ORIGIN + SLOT * len(instructions))
            if not UNWRITABLE.search(format_instruction(instruction)):
                instructions.append(instruction)
    image = assemble_with_nasm([format_instruction(i) for i in instructions], folder)
    same = 0
    for number, instruction in enumerate(instructions):
        slot = image[number * SLOT : (number + 1) * SLOT]
        again = decode(slot, instruction.address)
        if again.bytes == instruction.bytes:
            same += 1
            continue
        what = f"{instruction.bytes.hex()} {format_instruction(instruction)}: {again.bytes.hex()}"
        assert equal(instruction, again), what
        assert again.length <= instruction.length, what
    return same / len(instructions)


def test_nasm_makes_the_same_instruction(tmp_path: Path) -> None:
    """Most bytes are equal too; the rest are longer encodings, which canonical text drops."""
    assert round_trip(17, 15, tmp_path) > 0.8


@pytest.mark.deep
def test_nasm_makes_the_same_instruction_deep(tmp_path: Path) -> None:
    for seed in range(5):
        assert round_trip(170 + seed, 100, tmp_path) > 0.8
