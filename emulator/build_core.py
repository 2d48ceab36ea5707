"""What the C core is built from: the interface for cffi, sources, flags, generated headers.

Run by setup.py alone. csrc/api.h and its two parts are the one source of the interface: less their
preprocessor lines they are the cdef. `isa.generate` renders the headers of the table. Two variables
of the environment change the flags: SEVENTEEN_DEBUG=1 keeps assertions and debug information,
SEVENTEEN_SANITIZE=1 adds the address and undefined-behaviour sanitizers to that. Read core.py next.
"""

from __future__ import annotations

import os
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
#: setuptools wants paths relative to setup.py.
SOURCES = sorted(f"csrc/{path.name}" for path in (ROOT / "csrc").glob("*.c"))
HEADERS = sorted(f"csrc/{path.name}" for path in (ROOT / "csrc").glob("*.h"))
#: In this order, for cffi reads no #include; the last one includes the others.
INTERFACE = ("apic_api.h", "api.h", "guest_api.h")
#: Checks at every use of a pointer: with them gcc takes minutes and 3 GB for execute.c alone. The
#: address sanitizer sees what most of them would; misaligned accesses go unchecked.
UNCHECKED = ["-fno-sanitize=null,alignment,object-size,pointer-overflow"]


def interface() -> str:
    """The interface's headers without their preprocessor lines, which is what cffi can read."""
    text = "".join((ROOT / "csrc" / name).read_text(encoding="utf-8") for name in INTERFACE)
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def flags() -> tuple[list[str], list[str]]:
    """Flags of the compiler and of the linker, as the environment asks."""
    common = ["-std=c11", "-Wall", "-Wextra"]
    sanitize = os.environ.get("SEVENTEEN_SANITIZE") == "1"
    if not sanitize and os.environ.get("SEVENTEEN_DEBUG") != "1":
        # Packing two flag operands into a vector to store them at once costs more than it saves.
        # Python asks for -g; but to follow variables through execute.c takes minutes and 2 GB.
        return [*common, "-O2", "-g0", "-fno-tree-slp-vectorize"], []
    # Python's own flags define NDEBUG: a debug build is for the assertions.
    debug = [*common, "-O1", "-g", "-fno-var-tracking", "-UNDEBUG"]
    if not sanitize:
        return debug, []
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    return [*debug, *sanitizers, *UNCHECKED, "-fno-omit-frame-pointer"], sanitizers


def write_headers(folder: Path) -> list[str]:
    """Write the table's headers to `folder` where their text has changed; returns their paths.

    The flags lie beside them as a text: to build with others is to build again.
    """
    from isa import generate

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in {**generate.headers(), "flags.txt": repr(flags())}.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
        paths.append(str(path))
    return paths


ffibuilder = FFI()
ffibuilder.cdef(interface())
_compile_flags, _link_flags = flags()
ffibuilder.set_source(
    "emulator._core",
    f'#include "{INTERFACE[-1]}"',
    sources=SOURCES,
    depends=HEADERS,
    include_dirs=["csrc"],
    extra_compile_args=_compile_flags,
    extra_link_args=_link_flags,
)
