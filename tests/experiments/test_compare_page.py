"""The report in a real browser: no errors, plots have a size, nothing sticks out."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from hypervisor.experiments.compare import Comparison, compare
from hypervisor.experiments.compare_page import as_page
from hypervisor.experiments.fidelity import Column, default_columns
from hypervisor.experiments.plots import room
from hypervisor.experiments.sweeps import CALLS, PAGES, Sweep, sweeps
from hypervisor.experiments.timeline import record
from hypervisor.experiments.timeline_page import as_page as timeline_page
from hypervisor.experiments.workloads import COUNTED
from isa.cost import PENTIUM4
from tests.experiments.test_fidelity import check_html

WIDTH, HEIGHT = 1280, 800
TIME_LIMIT = 60
#: Browsers by the names that distributions give them.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
#: Run in the page: what a person would see at once.
PROBE = """
<pre id="probe"></pre><script>
const out = {overflow: [], empty: [], untitled: 0, outside: []};
const say = (list, what) => list.push(what.slice(0, 80));
out.width = document.documentElement.scrollWidth;
for (const e of document.querySelectorAll("body *")) {
  const box = e.getBoundingClientRect();
  if (box.right > window.innerWidth + 1 && !e.closest(".wide")) say(out.overflow, e.outerHTML);
}
for (const wide of document.querySelectorAll(".wide"))
  if (wide.scrollWidth > wide.clientWidth + 1) say(out.overflow, wide.innerText);
for (const svg of document.querySelectorAll("svg")) {
  const box = svg.getBoundingClientRect();
  if (box.width < 200 || box.height < 20) say(out.empty, box.width + "x" + box.height);
  for (const words of ["title", "desc"])
    if (!svg.querySelector(words).textContent) out.untitled++;
  for (const text of svg.querySelectorAll("text")) {
    const at = text.getBoundingClientRect();
    if (at.left < box.left - 2 || at.right > box.right + 2 || at.bottom > box.bottom + 4)
      say(out.outside, text.textContent);
  }
}
out.plots = document.querySelectorAll("svg").length;
out.back = getComputedStyle(document.body).backgroundColor;
out.loads = performance.getEntriesByType("resource").length;
document.getElementById("probe").textContent = JSON.stringify(out);
</script></body>"""


@cache
def small() -> tuple[Comparison, tuple[Sweep, ...]]:
    names = ["in", "ptemod", "forkwait", "hello"]
    columns = [Column("interpret"), Column("trap", True), Column("translate --user")]
    return compare(names, columns, repeat=1), sweeps(columns)


@cache
def every_name() -> tuple[Comparison, tuple[Sweep, ...]]:
    """Something small under all that `compare` runs by itself: the report's longest labels."""
    return compare(["hello", "in"], repeat=1), small()[1]


def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"not installed: {BROWSERS[0]}")
    return found


def see(text: str, folder: Path, *options: str) -> dict[str, object]:
    """What the probe finds in a page; no script may have complained."""
    path = folder / "page.html"
    path.write_text(text.replace("</body>", PROBE), encoding="utf-8")
    done = run(path, folder, "--dump-dom", "--enable-logging=stderr", *options)
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    seen: dict[str, object] = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">"))
    return seen


def run(path: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--window-size={WIDTH},{HEIGHT}", f"--user-data-dir={folder / 'profile'}", *options,
        path.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT)


def test_the_report_renders(tmp_path: Path) -> None:
    text = as_page(*small())
    check_html(text)
    seen = see(text, tmp_path)
    assert seen["plots"] == text.count("<svg") > 8
    for trouble in ("overflow", "empty", "outside"):
        assert seen[trouble] == [], trouble
    assert seen["untitled"] == seen["loads"] == 0
    assert isinstance(seen["width"], int)
    assert seen["width"] <= WIDTH


def test_every_technique_has_room_for_its_name(tmp_path: Path) -> None:
    text = as_page(*every_name())
    for column in default_columns():
        assert text.count(f">{column}</text>") >= 2, column
    seen = see(text, tmp_path)
    assert (seen["overflow"], seen["outside"]) == ([], [])


def test_a_margin_fits_its_longest_label() -> None:
    assert room([], 40) == 40
    assert room(["hardware --mmu shadow"], 40) > 150


def test_the_probe_sees_what_sticks_out(tmp_path: Path) -> None:
    bad = '<svg><title></title><desc>x</desc></svg><p style="width:1400px">wide</p>'
    seen = see(as_page(*small()).replace("<h1>", f"{bad}<h1>"), tmp_path)
    assert seen["overflow"]
    assert seen["untitled"] == 1


def test_light_and_dark(tmp_path: Path) -> None:
    text = as_page(*small())
    light = see(text, tmp_path)["back"]
    dark = see(text, tmp_path, "--blink-settings=preferredColorScheme=0")["back"]
    assert light == "rgb(255, 255, 255)"
    assert dark == "rgb(21, 24, 28)"


def test_on_paper(tmp_path: Path) -> None:
    """All of it is printed, on pages with text."""
    path, paper = tmp_path / "page.html", tmp_path / "page.pdf"
    path.write_text(as_page(*small()), encoding="utf-8")
    run(path, tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    pages = re.findall(rb"/Type\s*/Page\b", paper.read_bytes())
    assert 3 <= len(pages) <= 20


def test_the_timeline_renders(tmp_path: Path) -> None:
    line = record(COUNTED["forkwait"].subject(2), Column("translate"), PENTIUM4.name)
    text = timeline_page(line, "forkwait", PENTIUM4)
    check_html(text)
    seen = see(text, tmp_path)
    assert seen["plots"] == 4
    for trouble in ("overflow", "empty", "outside"):
        assert seen[trouble] == [], trouble


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = as_page(*small())
    assert "http" not in text.replace("http://www.w3.org", "")
    assert "<script" not in text
    assert "<link" not in text
    assert "@media print" in text
    assert "prefers-color-scheme: dark" in text


def test_sweeps_rise_with_what_is_asked_for() -> None:
    calls, faults = small()[1]
    assert (calls.points, faults.points) == (CALLS, PAGES)
    assert set(calls.curves) == {"native", "trap --virtualizable", "translate --user"}
    for curve in calls.curves.values():
        assert list(curve) == sorted(curve)
        assert curve[-1] / curve[0] == pytest.approx(CALLS[-1] / CALLS[0], rel=0.25)
    native = faults.curves["native"]
    for name, curve in faults.curves.items():
        assert name == "native" or min(curve) > max(native)
