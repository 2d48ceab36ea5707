"""The build of the core: what is compiled, with which flags, and headers only when they change."""

from __future__ import annotations

import pytest

from emulator import build_core
from isa import generate


def test_the_interface_has_no_preprocessor_lines():
    assert not any(line.startswith("#") for line in build_core.interface().splitlines())
    assert "int cpu_run(Cpu *cpu, uint64_t until_tick);" in build_core.interface()


def test_all_sources_are_compiled():
    here = {f"csrc/{path.name}" for path in (build_core.ROOT / "csrc").glob("*.c")}
    assert set(build_core.SOURCES) == here
    assert "csrc/api.h" in build_core.HEADERS


@pytest.mark.parametrize(
    ("environment", "wanted", "unwanted"),
    [
        ({}, {"-O2", "-Wall", "-Wextra", "-std=c11"}, {"-g", "-Werror"}),
        ({"SEVENTEEN_DEBUG": "1"}, {"-O1", "-g", "-UNDEBUG"}, {"-O2"}),
        ({"SEVENTEEN_SANITIZE": "1"}, {"-UNDEBUG", "-fsanitize=address,undefined"}, {"-O2"}),
    ],
)
def test_flags(monkeypatch, environment, wanted, unwanted):
    for name in ("SEVENTEEN_DEBUG", "SEVENTEEN_SANITIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    compile_flags, link_flags = build_core.flags()
    assert wanted <= set(compile_flags)
    assert not unwanted & set(compile_flags)
    assert bool(link_flags) == ("SEVENTEEN_SANITIZE" in environment)


def test_headers_are_written_only_when_their_text_changes(tmp_path, monkeypatch):
    texts = {"one.h": "1", "two.h": "2"}
    monkeypatch.setattr(generate, "headers", lambda: texts)
    paths = build_core.write_headers(tmp_path)
    assert {"one.h", "two.h", "flags.txt"} == {path.rpartition("/")[2] for path in paths}
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    texts["two.h"] = "3"
    build_core.write_headers(tmp_path)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert (tmp_path / "two.h").read_text() == "3"
    assert [name for name in before if before[name] != after[name]] == ["two.h"]


def test_other_flags_are_another_build(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "headers", dict)
    monkeypatch.delenv("SEVENTEEN_SANITIZE", raising=False)
    monkeypatch.delenv("SEVENTEEN_DEBUG", raising=False)
    build_core.write_headers(tmp_path)
    before = (tmp_path / "flags.txt").read_text()
    monkeypatch.setenv("SEVENTEEN_DEBUG", "1")
    build_core.write_headers(tmp_path)
    assert (tmp_path / "flags.txt").read_text() != before
