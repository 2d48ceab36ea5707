"""Imports point down only: hypervisor -> emulator -> isa, guests -> isa (design, section 2).

Beside that, only the command line and the experiments may know the guests by name: a hypervisor
that knows its guests proves nothing.
"""

from __future__ import annotations

import ast

from tests.style.sources import PACKAGES, named, relative, tree

#: Package -> the packages of ours that it may import.
BELOW = {
    "isa": {"isa"},
    "guests": {"guests", "isa"},
    "emulator": {"emulator", "isa"},
    "hypervisor": {"hypervisor", "emulator", "isa"},
}
#: Parts of the hypervisor that may import guests as well.
KNOW_GUESTS = ("hypervisor/cli/", "hypervisor/experiments/")


def imported(module: ast.Module, package: str) -> set[str]:
    """Top-level names of all modules imported anywhere in a module of `package`."""
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(package if node.level else (node.module or "").split(".")[0])
    return names


def test_every_package_has_a_rule() -> None:
    assert set(PACKAGES) == set(BELOW)


def test_imports_point_down() -> None:
    upwards = {}
    for path in named(".py", below=PACKAGES):
        package = relative(path).split("/")[0]
        allowed = set(BELOW[package])
        if relative(path).startswith(KNOW_GUESTS):
            allowed.add("guests")
        wrong = imported(tree(path), package) & {*PACKAGES, "tests"} - allowed
        if wrong:
            upwards[relative(path)] = wrong
    assert not upwards


def test_an_import_inside_a_function_is_seen() -> None:
    text = "def f():\n    import hypervisor.cli\n    from guests.manifest import GUESTS\n"
    assert imported(ast.parse(text), "isa") == {"hypervisor", "guests"}
