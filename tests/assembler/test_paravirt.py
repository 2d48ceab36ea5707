"""Paravirtual images: which instructions are replaced, equal layouts, and the list of sites."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from emulator import Machine, elf
from emulator.result import Stop
from guests import GUESTS, Guest
from hypervisor.cli import asm
from hypervisor.elf import read_sections, read_sites
from hypervisor.errors import ImageError
from isa import Program, assemble, assemble_file
from isa.decoder import decode
from isa.errors import AssemblyError, DecodeError, SiteError
from isa.operands import CS, SS, Memory, SegmentRegister
from isa.paravirt import HYPERCALL_VECTOR, HYPERVISOR, NATIVE, VARIANTS
from isa.row import Row
from isa.sampling import random_instruction
from isa.site_forms import (
    FORM_BY_NAME,
    GENERIC,
    MAXIMUM_LENGTH,
    form_of,
    replaced,
)
from isa.sites import Site, read_note, write_note
from isa.table import ROWS
from tests.assembler import nasm
from tests.cli.support import seventeen, write_source

#: Kernel and user code, of each kind of site.
SOURCE = """
start:
    cli
    pushf
    popf
.again:
    in al, dx
    mov ds, ax
    mov ax, ss
    jmp .again
    times 3 hlt
    iret
%pragma seventeen user
    cli
    iret
%pragma seventeen kernel
    sti
"""
SAFE_MNEMONICS = ("int3", "into")  # unsafe, but they leave ring 1 by themselves
each_guest = pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.name)


def samples(row: Row, count: int = 40) -> list[bytes]:
    """Encodings of a row that decode."""
    rng = random.Random(row.id)
    found = []
    for _ in range(count):
        data = random_instruction(rng, row)
        try:
            found.append(decode(data).bytes)
        except DecodeError:
            continue
    return found


# -- Which instructions, and what for --------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_rows_are_replaced_by_their_columns(row: Row) -> None:
    wanted = (row.unsafe and row.mnemonic not in SAFE_MNEMONICS) or row.privilege in (
        "cpl0", "iopl", "io",
    )  # fmt: skip
    assert replaced(row) == wanted
    for data in samples(row):
        stays = only_reads_data_segments(data) or is_hypercall(data)
        assert (form_of(data) is not None) == (wanted and not stays)


def is_hypercall(data: bytes) -> bool:
    return data[-2:] == bytes([0xCD, HYPERCALL_VECTOR])


def test_only_the_int_of_hypercalls_stays() -> None:
    forms = {vector: form_of(bytes([0xCD, vector])) for vector in range(256)}
    assert {vector for vector, form in forms.items() if form is None} == {HYPERCALL_VECTOR}
    assert set(forms.values()) == {None, GENERIC}


def only_reads_data_segments(data: bytes) -> bool:
    """Does an instruction show a selector that is the guest's own in every ring?"""
    done = decode(data)
    shown = [o for o in done.operands if isinstance(o, SegmentRegister)]
    reads = done.mnemonic == "push" or (done.mnemonic == "mov" and done.operands[-1] in shown)
    return bool(shown) and reads and shown[0].number not in (CS, SS)


SENSITIVE = [row for row in ROWS if replaced(row)]


@pytest.mark.parametrize("row", SENSITIVE, ids=str)
def test_sites_are_what_they_claim(row: Row) -> None:
    for data in samples(row):
        form = form_of(data)
        if form is None:
            assert only_reads_data_segments(data) or is_hypercall(data)
            continue
        hypervisor, native = (Site(0x1000, form.name, data, variant) for variant in VARIANTS)
        assert hypervisor.size == native.size
        for site in (hypervisor, native):
            check_steps(site)
        check_twin(native)


def check_steps(site: Site) -> None:
    """Steps decode one by one; what no step covers is the argument of an `int`."""
    position = 0
    for step in site.steps:
        if step.offset != position:
            assert site.code[position : step.offset] == site.original
            position = step.offset
        assert decode(site.code, site.address + position, position).bytes == step.code
        position += step.length
    assert site.code[position:] in (b"", site.original)
    calls = [step for step in site.steps if step.code == bytes([0xCD, HYPERCALL_VECTOR])]
    weights = [step.weight for step in site.steps]
    assert sum(weights) == (0 if site.form == GENERIC.name and calls else 1)
    for call in calls:
        behind = call.offset + call.length
        assert site.code[behind : behind + len(site.original)] == site.original
        assert call.weight == 0


def check_twin(site: Site) -> None:
    """The twin executes the original, alone or among no-operations."""
    done = [decode(step.code) for step in site.steps]
    real = [i for i in done if i.row.mnemonic != "nop"]
    assert len(real) == 1
    original = decode(site.original)
    assert real[0].row is original.row
    assert site.step_at(site.restart) is not None
    assert decode(site.code, site.restart, site.restart - site.address).row is original.row
    for ours, theirs in zip(real[0].operands, original.operands, strict=True):
        if isinstance(ours, Memory) and isinstance(theirs, Memory):
            assert ours.effective_segment == theirs.effective_segment
            assert (ours.base, ours.index, ours.scale, ours.displacement) == (
                theirs.base, theirs.index, theirs.scale, theirs.displacement,
            )  # fmt: skip
        else:
            assert ours == theirs
    kept = (original.prefixes.repeat, original.prefixes.lock, original.prefixes.operand_size)
    assert (real[0].prefixes.repeat, real[0].prefixes.lock, real[0].prefixes.operand_size) == kept


def test_what_shows_or_loads_the_real_ring_is_always_asked_for() -> None:
    for row in SENSITIVE:
        for data in samples(row):
            segments = [o for o in decode(data).operands if isinstance(o, SegmentRegister)]
            if row.mnemonic == "lss" or any(o.number in (CS, SS) for o in segments):
                assert form_of(data) is GENERIC


def test_prefixes_make_a_hypercall_of_a_short_form() -> None:
    assert form_of(b"\x9c") is FORM_BY_NAME["pushf"]
    assert form_of(b"\x66\x9c") is GENERIC
    assert form_of(b"\x66\xcf") is GENERIC
    assert form_of(b"\x2e\xfa") is GENERIC


def test_what_is_too_long_is_refused() -> None:
    with pytest.raises(SiteError, match="14 bytes"):
        form_of(b"\x3e" * 13 + b"\xf4")
    assert form_of(b"\x3e" * 12 + b"\xf4") is GENERIC
    assert len(Site(0, GENERIC.name, b"\x3e" * 12 + b"\xf4", NATIVE).code) == MAXIMUM_LENGTH


# -- Sources ---------------------------------------------------------------------------------------


def test_kernel_code_is_replaced_and_user_code_is_not() -> None:
    program = assemble(SOURCE, paravirt=HYPERVISOR)
    forms = [site.form for site in program.sites]
    assert forms == ["cli", "pushf", "popf", "hypercall", "load", "hypercall",
                     *["hypercall"] * 3, "iret", "sti"]  # fmt: skip
    data = program.flat()
    end = program.sites[-2].end - program.origin
    assert data[end : end + 2] == b"\xfa\xcf"


def test_nothing_changes_without_being_asked() -> None:
    plain = assemble(SOURCE)
    assert plain.paravirt is None
    assert plain.sites == ()
    marked = [line for line in SOURCE.splitlines() if "%pragma" not in line]
    assert assemble("\n".join(marked)).flat() == plain.flat()


@pytest.mark.skipif(not nasm.available, reason=nasm.MISSING)
def test_nasm_ignores_the_pragma() -> None:
    macros = "%macro user 0\n%pragma seventeen user\n%endmacro\nuser\n"
    theirs, said = nasm.run("bits 32\n" + macros + SOURCE)
    assert not said
    assert assemble("bits 32\n" + macros + SOURCE, origin=0).flat() == theirs


def test_the_pragma_counts_where_it_is_expanded() -> None:
    source = """
%macro user 0
%pragma seventeen user
%endmacro
%if 0
%pragma seventeen user
%endif
    cli
    user
    cli
%pragma other kernel
    cli
"""
    assert len(assemble(source, paravirt=HYPERVISOR).sites) == 1


@pytest.mark.parametrize("rest", ["", "guest", "user mode", "kernel user"])
def test_a_pragma_that_says_neither_is_refused(rest: str) -> None:
    with pytest.raises(AssemblyError, match="expected 'user' or 'kernel'"):
        assemble(f"%pragma seventeen {rest}")


def test_filling_is_left_alone() -> None:
    program = assemble("nop\nalign 16, hlt\nlabel: cli", paravirt=HYPERVISOR)
    assert program.flat()[:16] == b"\x90" + b"\xf4" * 15
    assert [site.address for site in program.sites] == [program.symbols["label"].value]


def test_a_prefix_on_a_line_of_its_own_is_refused() -> None:
    with pytest.raises(AssemblyError, match="prefix must stand on its line"):
        assemble("rep\ninsb", paravirt=HYPERVISOR)
    assert assemble("rep insb", paravirt=HYPERVISOR).sites[0].original == b"\xf3\x6c"
    assert assemble("rep\ninsb").flat() == b"\xf3\x6c"


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="paravirt"):
        assemble("cli", paravirt="xen")


# -- Equal layouts ---------------------------------------------------------------------------------


def outside(program: Program, sites: Sequence[Site]) -> dict[str, bytes]:
    """The contents of each segment with its sites blanked."""
    contents = {}
    for segment in program.segments:
        data = bytearray(segment.data)
        for site in sites:
            start = site.address - segment.linked_address
            if 0 <= start < len(data):
                assert bytes(data[start : start + site.size]) == site.code
                data[start : start + site.size] = bytes(site.size)
        contents[segment.name] = bytes(data)
    return contents


def check_layout(hypervisor: Program, native: Program) -> None:
    assert (hypervisor.paravirt, native.paravirt) == VARIANTS
    assert hypervisor.symbols == native.symbols
    assert hypervisor.entry == native.entry
    assert hypervisor.lines == native.lines
    strip = [(site.address, site.form, site.original, site.size) for site in hypervisor.sites]
    assert strip == [(site.address, site.form, site.original, site.size) for site in native.sites]
    assert all(a.end <= b.address for a, b in pairwise(hypervisor.sites))
    assert outside(hypervisor, hypervisor.sites) == outside(native, native.sites)


@each_guest
def test_layouts_of_guests_are_equal(guest: Guest) -> None:
    hypervisor, native = (
        assemble_file(guest.source, include=guest.includes, paravirt=variant)
        for variant in VARIANTS
    )
    check_layout(hypervisor, native)
    assert hypervisor.sites
    for site in (*hypervisor.sites, *native.sites):
        check_steps(site)


@pytest.mark.parametrize("seed", range(20))
def test_jumps_across_sites_keep_layouts_equal(seed: int) -> None:
    rng = random.Random(seed)
    lines = ["start:"]
    for number in range(60):
        target = f"l{rng.randrange(60)}"
        statement = rng.choice(["cli", "pushf", "popf", "iret", "in al, dx", f"jmp {target}",
                                f"jz {target}", f"align {1 << rng.randrange(5)}",
                                f"mov eax, [{target}]", f"lgdt [{target}]", "nop"])  # fmt: skip
        lines += [f"l{number}:", f"    {statement}"]
    source = "\n".join(lines)
    hypervisor, native = (assemble(source, paravirt=variant) for variant in VARIANTS)
    check_layout(hypervisor, native)


@each_guest
def test_the_twin_prints_what_the_guest_does(guest: Guest) -> None:
    program = assemble_file(guest.source, include=guest.includes, paravirt=NATIVE)
    machine = Machine(**guest.options)
    machine.load(program.elf())
    result = machine.run(max_ticks=guest.ticks)
    assert result.stop == Stop.POWERED_OFF, result.reason
    assert result.output == guest.prints
    assert result.status == guest.status


# -- Files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_elf_holds_the_list(variant: str) -> None:
    program = assemble(SOURCE, paravirt=variant)
    image = program.elf()
    assert read_sites(read_sections(image)) == (variant, program.sites)
    assert read_note(elf.parse(image).notes) == (variant, program.sites)


def test_a_plain_elf_holds_none() -> None:
    image = assemble(SOURCE).elf()
    assert read_sites(read_sections(image)) is None
    assert read_note(elf.parse(image).notes) is None


def test_another_owners_note_is_passed_over() -> None:
    other = bytes.fromhex("04000000 02000000 01000000 474e5500 aabb0000")
    site = Site(0x1000, "cli", b"\xfa")
    assert read_note(other) is None
    assert read_note(other + write_note(HYPERVISOR, [site])) == (HYPERVISOR, (site,))


def test_a_list_that_does_not_fit_its_image_is_refused() -> None:
    program = assemble(SOURCE, paravirt=HYPERVISOR)
    image = bytearray(program.elf())
    at = image.index(program.sites[0].code)
    image[at] ^= 1
    with pytest.raises(ImageError, match="no site stands at 0x100000"):
        read_sites(read_sections(bytes(image)))


def test_a_broken_list_is_refused_whatever_is_broken() -> None:
    site = Site(0x1000, "cli", b"\xfa")
    note = write_note(HYPERVISOR, [site])
    refused = 0
    for at in range(len(note)):
        for value in (0, 0x7F, 0xFF):
            data = note[:at] + bytes([value]) + note[at + 1 :]
            try:
                found = read_note(data)
            except SiteError:
                refused += 1
            else:
                assert found is None or [s.original for s in found[1]] == [b"\xfa"]
    for size in range(len(note)):
        try:
            assert read_note(note[:size]) in (None, (HYPERVISOR, (site,)))
        except SiteError:
            refused += 1
    assert refused > 20


def test_the_listing_shows_each_instruction_of_a_site() -> None:
    listing = assemble("nop\npushf ; save\nhlt", paravirt=HYPERVISOR).listing().splitlines()
    assert listing[1].split(None, 2)[:2] == ["2", "00000001"]
    assert "<pushf 30h>" in listing[1]
    assert listing[1].endswith(" pushf ; save")
    assert listing[3].endswith("| pushf")
    assert listing[-1].endswith("| (hlt)")
    assert listing[-2].endswith(f"| int {HYPERCALL_VECTOR:#x}")


# -- The command -----------------------------------------------------------------------------------


def test_the_command_knows_the_variants() -> None:
    assert asm.PARAVIRT == VARIANTS


@pytest.mark.parametrize(("option", "variant"), [("--paravirt", HYPERVISOR),
                                                 ("--paravirt=native", NATIVE)])  # fmt: skip
def test_asm_writes_an_elf(option: str, variant: str, tmp_path: Path) -> None:
    source, target = write_source(tmp_path, SOURCE), tmp_path / "guest.elf"
    assert seventeen("asm", option, source).status == 0
    assert read_sites(read_sections(target.read_bytes())) == (
        variant, assemble(SOURCE, paravirt=variant).sites,
    )  # fmt: skip


@pytest.mark.parametrize("words", [["-f", "bin"], ["--paravirt=xen"]])
def test_asm_refuses_in_one_line(words: list[str], tmp_path: Path) -> None:
    done = seventeen("asm", "--paravirt", write_source(tmp_path, SOURCE), *words)
    assert done.status == 64
    assert len(done.error_lines) == 1
