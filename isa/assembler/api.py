"""`assemble`: text to `Program`, through all stages; the package's docstring has their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from isa.assembler.diagnostics import Location, Reporter, SourceError, TooManyErrors
from isa.assembler.expressions import absolute
from isa.assembler.passes import Assembly, Emission
from isa.assembler.preprocess import Preprocessor
from isa.assembler.program import (
    DEFAULT_ORIGIN,
    LineEntry,
    ListingEntry,
    Program,
    Segment,
    Symbol,
)
from isa.assembler.source import SearchPath, read_text
from isa.paravirt import VARIANTS
from isa.sites import Site

#: What a source can ask about its assembler. It is told the NASM whose bytes these are.
_PREDEFINED = {
    name: value
    for stem, value in (
        ("BITS", "32"),
        ("OUTPUT_FORMAT", "bin"),
        ("NASM_MAJOR", "2"),
        ("NASM_MINOR", "16"),
        ("NASM_SUBMINOR", "1"),
        ("NASM_VER", '"2.16.01"'),
        ("NASM_VERSION_ID", "0x02100100"),
    )
    for name in (f"__{stem}__", f"__?{stem}?__")
}
_ENTRIES = ("_start", "start")


def assemble(
    source: str,
    *,
    name: str = "<string>",
    include: Sequence[Path] = (),
    defines: Mapping[str, str] | None = None,
    origin: int = DEFAULT_ORIGIN,
    paravirt: str | None = None,
) -> Program:
    """Assemble a source text, to lie at `origin` unless the source itself says `org`.

    `name` is what errors call the text; included files are looked for beside it, then in
    `include`. `paravirt` is None, or the variant of a paravirtual image that is wanted:
    "hypervisor" or "native" (`isa/sites.py`). Raises `AssemblyError` with every error found.
    """
    if paravirt is not None and paravirt not in VARIANTS:
        raise ValueError(f"paravirt: expected one of {VARIANTS} or None, found {paravirt!r}")
    reporter = Reporter()
    search = SearchPath(tuple(include), name)
    assembly = Assembly(reporter, search, origin, paravirt)
    preprocessor = Preprocessor(reporter, search, assembly.evaluate_text)
    preprocessor.predefine({**_PREDEFINED, "__FILE__": f'"{name}"', **(defines or {})})
    with suppress(TooManyErrors):
        assembly.run(preprocessor.run(name, source.removeprefix("\ufeff")))
    reporter.raise_if_errors()
    return _program(assembly, name, source)


def assemble_file(
    path: Path | str,
    *,
    include: Sequence[Path] = (),
    defines: Mapping[str, str] | None = None,
    origin: int = DEFAULT_ORIGIN,
    paravirt: str | None = None,
) -> Program:
    """Assemble a file; as `assemble`. A file that cannot be read is an `AssemblyError` too."""
    reporter = Reporter()
    try:
        text = read_text(Path(path))
    except SourceError as error:
        reporter.error(Location(str(path), 0), 0, error.message)
        reporter.raise_if_errors()
        raise AssertionError from None
    return assemble(
        text, name=str(path), include=include, defines=defines, origin=origin, paravirt=paravirt
    )


def _program(assembly: Assembly, name: str, source: str) -> Program:
    segments = tuple(
        Segment(
            section.name, section.load_address, bytes(section.data), section.size,
            section.writable, section.executable, section.align, section.address,
        )
        for section in assembly.sections.values()
        if section.size or section.name == ".text"
    )  # fmt: skip
    symbols = _symbols(assembly)
    entry = next((symbols[n].value for n in _ENTRIES if n in symbols and symbols[n].segment), None)
    return Program(
        name=name,
        source=source,
        segments=tuple(sorted(segments, key=lambda segment: segment.address)),
        entry=assembly.sections[".text"].address if entry is None else entry,
        symbols=symbols,
        lines=_lines(assembly),
        listing_entries=tuple(_listing(assembly)),
        warnings=tuple(assembly.reporter.warnings),
        paravirt=assembly.paravirt,
        sites=_sites(assembly),
    )


def _symbols(assembly: Assembly) -> dict[str, Symbol]:
    symbols = {}
    for name, state in assembly.symbols.items():
        value = state.value
        segment = ""
        if not isinstance(value, int) and value.terms:
            segment = getattr(value.terms[0][0], "name", "")
        symbols[name] = Symbol(name, absolute(value), segment, name in assembly.exports)
    return symbols


def _lines(assembly: Assembly) -> tuple[LineEntry, ...]:
    entries = []
    for emission in assembly.emissions:
        if emission.section.absolute or not (emission.data or emission.reserved):
            continue
        file, line = emission.placed.source.location.outermost
        size = len(emission.data) or emission.reserved
        entries.append(LineEntry(emission.section.address + emission.offset, size, file, line))
    return tuple(sorted(entries, key=lambda entry: entry.address))


def _site(assembly: Assembly, emission: Emission) -> Site:
    site, variant = emission.site, assembly.paravirt
    assert site is not None
    assert variant is not None
    address = emission.section.address + emission.offset
    return Site(address, site.form.name, site.original, variant)


def _sites(assembly: Assembly) -> tuple[Site, ...]:
    sites = [_site(assembly, emission) for emission in assembly.emissions if emission.site]
    return tuple(sorted(sites, key=lambda site: site.address))


def _listing(assembly: Assembly) -> list[ListingEntry]:
    made: dict[int, list[Emission]] = {}
    for emission in assembly.emissions:
        made.setdefault(id(emission.placed), []).append(emission)
    entries = []
    for placed in assembly.listed:
        source = placed.source
        pieces = made.get(id(placed), [])
        offset = pieces[0].offset if pieces else None
        data = b"".join(piece.data for piece in pieces)
        reserved = sum(piece.reserved for piece in pieces)
        sites = tuple((piece.offset, _site(assembly, piece)) for piece in pieces if piece.site)
        entries.append(
            ListingEntry(source.location.line, source.written, offset, data, reserved,
                         len(source.location.calls), sites)
        )  # fmt: skip
    return entries
