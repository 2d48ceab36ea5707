"""Sizes that keep a file readable in one sitting, and a head that says why it exists."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.style.sources import PACKAGES, named, relative, tree

PYTHON_MODULE = 500  # lines
PYTHON_FUNCTION = 40
C_FILE = 800

PYTHON = named(".py")
C_SOURCES = named(".c", ".h", ".S", below=("csrc", "tests"))
ASSEMBLY = named(".asm", ".inc", below=("guests",))

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> list[Function]:
    """All functions of a file, methods included."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree(path)) if isinstance(node, kinds)]


def length(node: Function) -> int:
    """Lines of a function's body without its docstring."""
    first = node.body[0]
    lines = (node.end_lineno or node.lineno) - first.lineno + 1
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def too_long(paths: list[Path], limit: int) -> dict[str, int]:
    """The files of `limit` lines or more."""
    lines = {relative(path): len(path.read_text("utf-8").splitlines()) for path in paths}
    return {name: count for name, count in lines.items() if count >= limit}


def test_there_is_something_to_look_at() -> None:
    assert len(PYTHON) > 20
    assert len(C_SOURCES) > 10
    assert len(ASSEMBLY) > 10


def test_python_modules_are_short() -> None:
    assert not too_long(PYTHON, PYTHON_MODULE)


def test_functions_are_short() -> None:
    lengths = {
        f"{relative(path)}:{node.lineno} {node.name}": length(node)
        for path in PYTHON
        for node in functions(path)
    }
    assert not {name: lines for name, lines in lengths.items() if lines >= PYTHON_FUNCTION}


def test_c_files_are_short() -> None:
    assert not too_long(C_SOURCES, C_FILE)


def test_python_modules_open_with_a_docstring() -> None:
    assert not [relative(path) for path in PYTHON if not ast.get_docstring(tree(path))]


def test_c_files_open_with_a_comment() -> None:
    heads = {relative(path): path.read_text("utf-8").lstrip()[:9] for path in C_SOURCES}
    assert not {name: head for name, head in heads.items() if not head.startswith(("/*", "# "))}


def test_guests_open_with_a_comment() -> None:
    heads = {relative(path): path.read_text("utf-8").split("\n")[0] for path in ASSEMBLY}
    assert not {n: head for n, head in heads.items() if head[:1] != ";" or len(head) < 10}


def test_functions_are_typed() -> None:
    assert not [
        f"{relative(path)}:{node.lineno} {node.name}"
        for path in named(".py", below=PACKAGES)
        for node in functions(path)
        if node.returns is None
    ]
