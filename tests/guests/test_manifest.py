"""The manifest and the sources belong together: nothing missing, nothing over, nothing too long."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guests import GUESTS, LIB, Guest, GuestError, find
from guests.manifest import FOLDER
from isa import assemble_file
from isa.decoder import decode

LINE_LENGTH = 100
FILE_LENGTH = 500
ROUTINE_LENGTH = 60
TOUR_LENGTH = 10
#: The library promises that a guest of one's own needs fewer lines.
SMALLEST_GUEST = 20

SOURCES = sorted(path for path in FOLDER.rglob("*") if path.suffix in (".asm", ".inc"))

each_guest = pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.name)
each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)


def test_names_and_sources_are_unique() -> None:
    assert len({guest.name for guest in GUESTS}) == len(GUESTS)
    assert len({guest.path for guest in GUESTS}) == len(GUESTS)


def test_find_gives_the_guest_or_says_what_there_is() -> None:
    assert find("hello").path == "hello.asm"
    with pytest.raises(GuestError, match=r"no guest is named 'helo'; there are hello, .*os"):
        find("helo")


def test_every_program_is_in_the_manifest() -> None:
    programs = {path for path in SOURCES if path.suffix == ".asm"}
    assert programs == {guest.source for guest in GUESTS}


@pytest.mark.parametrize("folder", ["prints", "input"])
def test_every_recorded_text_belongs_to_a_guest(folder: str) -> None:
    names = {path.stem for path in (FOLDER / folder).iterdir()}
    assert names <= {guest.name for guest in GUESTS}


@each_guest
def test_row_is_complete(guest: Guest) -> None:
    assert guest.source.is_file()
    assert guest.prints.endswith(b"\n") or guest.input
    assert guest.prints.isascii()
    assert 0 <= guest.status < 60, "60 and up are the library's and the hypervisor's own"
    assert guest.ticks > 0
    assert set(guest.rings) <= {0, 3}
    assert 0 < len(guest.about) <= 60


@each_guest
def test_source_opens_with_its_name_and_idea(guest: Guest) -> None:
    first, second, third, *_ = guest.source.read_text("ascii").splitlines()
    assert first.startswith(f"; {guest.name} - ")
    assert second == ";"
    assert third.startswith("; ")


@each_source
def test_source_keeps_its_measures(source: Path) -> None:
    text = source.read_text("ascii")
    lines = text.split("\n")
    assert lines[0].startswith("; ")
    assert lines[0].startswith(f"; {source.name} - ") or source.suffix == ".asm"
    assert max(len(line) for line in lines) <= LINE_LENGTH
    assert len(lines) <= FILE_LENGTH
    assert not re.search(r"[ \t]+$", text, re.MULTILINE), "white space at the end of a line"
    assert "\t" not in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def routines(text: str) -> Iterator[tuple[str, int]]:
    """Each global label and the number of instruction lines below it, up to the next one."""
    name, length = "", 0
    for line in text.splitlines():
        label = re.match(r"(\w+):", line)
        if label:
            yield name, length
            name, length = label[1], 0
        elif re.match(r"    [a-z]", line):
            length += 1
    yield name, length


@each_source
def test_routines_are_short(source: Path) -> None:
    long = {
        name: length
        for name, length in routines(source.read_text("ascii"))
        if length > ROUTINE_LENGTH
    }
    assert not long


def test_hello_is_short() -> None:
    assert len(find("hello").source.read_text("ascii").splitlines()) < SMALLEST_GUEST


def test_library_is_where_guests_look_for_it() -> None:
    assert (LIB / "guest.inc").is_file()
    for guest in GUESTS:
        assert guest.includes == (guest.source.parent, LIB)


def test_first_guests_are_the_tour() -> None:
    assert [guest.tour for guest in GUESTS[:TOUR_LENGTH]] == [True] * TOUR_LENGTH


@pytest.mark.parametrize("guest", [g for g in GUESTS if g.tour], ids=lambda guest: guest.name)
def test_tour_uses_only_the_newcomers_card(guest: Guest) -> None:
    unknown = {
        f"{address:#x}: {mnemonic}" for address, mnemonic, tour in instructions(guest) if not tour
    }
    assert not unknown


def instructions(guest: Guest) -> Iterator[tuple[int, str, bool]]:
    """Address, mnemonic and tour column of everything in .text but the multiboot header."""
    program = assemble_file(guest.source, include=guest.includes)
    text = next(segment for segment in program.segments if segment.name == ".text")
    header = program.symbols["multiboot_header"].value
    address = text.address
    while address < text.address + len(text.data):
        if address == header:
            address += 12
            continue
        offset = address - text.address
        instruction = decode(text.data[offset : offset + 15])
        yield address, instruction.row.mnemonic, instruction.row.tour
        address += instruction.length


@each_guest
def test_flat_binary_begins_with_its_first_instruction(
    guest: Guest, build_flat: Callable[[Guest], Path]
) -> None:
    image = build_flat(guest).read_bytes()
    assert image[0] == 0xFC  # CLD: a flat binary starts at its first byte
    magic = image.find((0x1BADB002).to_bytes(4, "little"), 0, 8192)
    assert magic > 0
    assert magic % 4 == 0
    words = [int.from_bytes(image[magic + at : magic + at + 4], "little") for at in (0, 4, 8)]
    assert sum(words) % 2**32 == 0
