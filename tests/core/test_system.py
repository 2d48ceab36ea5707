"""CPUID, the time-stamp counter, privileged instructions, and what POPF may change."""

from __future__ import annotations

import pytest

from tests.core.lab import (
    GP,
    NM,
    UD,
    Lab,
)


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_cpuid(lab: Lab) -> None:
    lab.run("xor eax, eax\ncpuid\nhlt")
    name = b"".join(lab.cpu[r].to_bytes(4, "little") for r in ("ebx", "edx", "ecx"))
    assert (lab.cpu["eax"], name) == (1, b"SeventeenCPU")
    for leaf in (1, 2, 0x80000000):
        lab.run(f"mov eax, {leaf}\ncpuid\nhlt")
        assert lab.cpu["edx"] == 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 15
        assert (lab.cpu["ebx"], lab.cpu["ecx"]) == (0, 0)


def test_tsc_counts_ticks(lab: Lab) -> None:
    lab.run("nop\nnop\nrdtsc\nmov ebx, eax\nrdtsc\nhlt")
    assert (lab.cpu["ebx"], lab.cpu["eax"], lab.cpu["edx"]) == (2, 4, 0)
    lab.run("mov ecx, 0x10\nmov edx, 5\nxor eax, eax\nwrmsr\nnop\nrdtsc\nmov ebx, eax\nrdmsr\nhlt")
    assert (lab.cpu["ebx"], lab.cpu["eax"], lab.cpu["edx"]) == (2, 4, 5)


@pytest.mark.parametrize(
    ("cpl", "tsd", "allowed"), [(0, 4, True), (3, 0, True), (3, 4, False), (1, 4, False)]
)
def test_tsd(lab: Lab, cpl: int, tsd: int, allowed: bool) -> None:
    lab.cpu["cr4"] = tsd
    lab.ring(cpl)
    outcome = lab.run("rdtsc\nint 0x80") if cpl == 3 else lab.run("rdtsc\nhlt")
    assert (outcome.fault != (GP, 0)) is allowed


@pytest.mark.parametrize("source", ["rdmsr", "wrmsr"])
def test_unknown_msr(lab: Lab, source: str) -> None:
    assert lab.run(f"mov ecx, 0x1B\n{source}").fault == (GP, 0)


@pytest.mark.parametrize(
    "source", ["hlt", "wbinvd", "clts", "rdmsr", "mov eax, cr0", "mov cr3, eax"]
)
def test_privileged(lab: Lab, source: str) -> None:
    for level in (1, 2, 3):
        lab.ring(level)
        lab.cpu["eflags"] = 0x3002  # IOPL is no help
        assert lab.run(source).fault == (GP, 0)


@pytest.mark.parametrize("source", ["cli", "sti"])
@pytest.mark.parametrize(
    ("cpl", "iopl", "allowed"),
    [(0, 0, True), (1, 1, True), (1, 0, False), (3, 2, False), (3, 3, True)],
)
def test_cli_and_sti_need_iopl(lab: Lab, source: str, cpl: int, iopl: int, allowed: bool) -> None:
    lab.ring(cpl)
    lab.cpu["eflags"] = iopl << 12 | 2
    outcome = lab.run(f"{source}\nint 0x80") if cpl in (0, 3) else lab.run(f"{source}\nud2")
    assert (outcome.fault != (GP, 0)) is allowed
    if allowed and source == "sti":
        assert outcome.frame is not None
        assert outcome.frame.eflags & 0x200


POPF_CASES = [
    # CPL, IOPL before, bits of 0x257FD7 that POPF loads
    (0, 0, 0x247FD7),
    (0, 3, 0x247FD7),
    (1, 0, 0x244DD7),
    (1, 1, 0x244FD7),
    (3, 2, 0x244DD7),
    (3, 3, 0x244FD7),
]


@pytest.mark.parametrize(("cpl", "iopl", "loads"), POPF_CASES)
def test_popf(lab: Lab, cpl: int, iopl: int, loads: int) -> None:
    image = 0x257ED7  # everything but TF
    lab.ring(cpl)
    lab.cpu["eflags"] = iopl << 12 | 2
    outcome = lab.run(f"push dword {image}\npopf\npushf\npop ebx\nud2")
    assert outcome.vector == 6
    expected = image & loads | 2 | (0 if cpl == 0 else iopl << 12)
    assert lab.cpu["ebx"] == expected & ~0x10000
    lab.ring(cpl)
    lab.cpu["eflags"] = iopl << 12 | 0x240000 | 2
    lab.run("push word 0\no16 popf\npushf\npop ebx\nud2")
    assert lab.cpu["ebx"] == 0x240002 | (0 if cpl == 0 else iopl << 12)


def test_pushf_hides_rf_and_vm(lab: Lab) -> None:
    lab.cpu["eflags"] = 0x10202
    lab.run("pushf\npop ebx\nhlt")
    assert lab.cpu["ebx"] == 0x202


def test_lahf_sahf_and_carry(lab: Lab) -> None:
    lab.run("mov ah, 0xFF\nsahf\nlahf\nmov bl, ah\ncmc\nlahf\nmov bh, ah\nclc\nstc\nlahf\nhlt")
    assert lab.cpu["ebx"] == 0xD6D7
    assert lab.cpu["eax"] >> 8 & 0xFF == 0xD7


@pytest.mark.parametrize("ring", [0, 3])
@pytest.mark.parametrize("code", ["wait", "db 0xD9, 0xE8", "db 0x0F, 0x77"])
@pytest.mark.parametrize("bits", range(8))
def test_without_an_fpu(lab: Lab, code: str, bits: int, ring: int) -> None:
    """CR0.MP with TS is for WAIT, EM and TS are for x87; MMX is undefined whatever they say."""
    lab.ring(ring)
    lab.cpu["cr0"] |= bits << 1
    mp, em, ts = bits & 1, bits & 2, bits & 4
    expected = {"wait": NM if mp and ts else 0x80, "db 0xD9, 0xE8": NM if em or ts else UD}
    assert lab.run(f"{code}\nint 0x80").vector == expected.get(code, UD)
