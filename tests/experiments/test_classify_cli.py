"""`seventeen classify` as a user meets it: the table, the files, the errors."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hypervisor.cli.classify import show
from hypervisor.experiments.classify import classify
from hypervisor.experiments.classify.html import page
from hypervisor.experiments.classify.report import as_json, check_lines
from hypervisor.experiments.classify.venn import Name, both, draw, only_privileged, unsafe
from tests.cli.support import seventeen
from tests.experiments.surveys import whole


def test_a_selection_with_its_witness(tmp_path: Path) -> None:
    done = seventeen("classify", "popf", "cli", "add", "--json", tmp_path / "out.json")
    assert done.status == 0
    assert re.search(r"^popf +9D +unsafe +IF, IOPL +CPL", done.text, re.MULTILINE)
    assert re.search(r"^cli +FA +sensitive +CPL > IOPL +IF$", done.text, re.MULTILINE)
    assert "popf at CPL 1 with 0x0 on the stack: IF stayed 1" in done.text
    assert "The table says the same of all" in done.text
    assert "Theorem" not in done.text  # it takes the whole table
    data = json.loads((tmp_path / "out.json").read_text())
    rows = {row["mnemonic"]: row for row in data["rows"]}
    assert rows["popf"]["witness"]["real"] == "IF stayed 1"
    assert rows["cli"]["trap_depends_on"] == ["IOPL"]
    assert not data["disagreements"]


def test_repairs_from_the_command_line() -> None:
    done = seventeen("classify", "popf", "pushf", "--virtualizable=popf")
    assert done.status == 0
    assert "Repaired: popf; still unsafe: pushf." in done.text
    bare = seventeen("classify", "--virtualizable", "popf")  # no value: all that are unsafe
    assert "Repaired: popf; nothing unsafe is left." in bare.text


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["popff"], 65, "did you mean popf"),
        (["popf", "--virtualizable=add"], 65, "virtualizable add: expected unsafe"),
        (["popf", "--virtualizable=nonsense"], 65, "no instruction 'nonsense'"),
        (["popf", "--virtualizable="], 64, "expected mnemonics, or all"),
        (["popf", "--json", "/nowhere/at/all"], 65, "cannot write"),
        (["--frobnicate"], 64, "--frobnicate"),
    ],
)
def test_errors_are_one_line(arguments: list[str], status: int, words: str) -> None:
    done = seventeen("classify", *arguments)
    assert done.status == status
    assert len(done.error_lines) == 1
    assert words in done.errors


def test_it_is_listed() -> None:
    assert "classify" in seventeen("--help").text


@pytest.mark.deep
def test_the_whole_report(capsys: pytest.CaptureFixture[str]) -> None:
    show(whole())
    text = capsys.readouterr().out
    assert "326 rows: 255 safe, 1 privileged, 31 sensitive, 39 unsafe" in text
    for number in (1, 2, 3):
        assert f"Theorem {number} fails." in text
    assert max(map(len, text.splitlines())) <= 140
    assert not re.search(r"^add ", text, re.MULTILINE)


def test_disagreement_is_said() -> None:
    from dataclasses import replace

    from isa.table import rows_of

    (popf,) = rows_of("popf")
    survey = classify(rows=[replace(popf, sensitive="", leaks="")], witnesses=False)
    lines = check_lines(survey)
    assert len(lines) == 2
    assert "popf" in lines[0]


def test_json_is_plain_and_whole() -> None:
    data = json.loads(json.dumps(as_json(whole())))
    assert sum(data["counts"].values()) == len(data["rows"]) == 326
    assert [theorem["holds"] for theorem in data["theorems"]] == [False] * 3
    assert all(bool(row["witness"]) == (row["class"] == "unsafe") for row in data["rows"])


# -- The page -------------------------------------------------------------------------------------

VOID = {"meta", "circle", "br"}


class Reader(HTMLParser):
    """Collects ids and links, and checks that elements nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.links += [values["href"] or ""] if "href" in values else []
        self.outside += [tag] if "src" in values or tag in ("script", "link", "img") else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_its_links_lead_somewhere() -> None:
    text = page(whole())
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    assert reader.outside == []
    assert "url(" not in text
    assert "@import" not in text
    assert len(reader.ids) == len(set(reader.ids)) == 326
    assert len(reader.links) > 60
    assert {link.lstrip("#") for link in reader.links} <= set(reader.ids)
    assert "prefers-color-scheme: dark" in text
    assert "popf at CPL 1 with 0x0 on the stack: IF stayed 1" in text


def test_a_repaired_page_says_so() -> None:
    text = page(classify(["popf", "pushf"], virtualizable=["popf"]))
    assert "Repaired: popf; still unsafe: pushf." in text


def test_names_stay_in_their_part_of_the_circles() -> None:
    names = [Name(f"name{number}", "row-1", "") for number in range(40)]
    for part, arguments in (
        (only_privileged, (names[:5], [], [])),
        (both, ([], names[:30], [])),
        (unsafe, ([], [], names)),
    ):
        svg = draw(*arguments, safe=0)
        places = re.findall(r'<text x="(\d+)" y="(\d+)" class="name[^>]*>(\w+)', svg)
        assert len(places) == sum(map(len, arguments))
        for x, y, text in places:
            room = part(float(y))
            assert room is not None
            assert room[0] - 1 <= int(x)
            assert int(x) + len(text) * 7.9 <= room[1] + 1
