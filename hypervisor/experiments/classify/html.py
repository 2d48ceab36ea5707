"""A survey as one self-contained page: the sets drawn, the theorems, every row and its witness.

Nothing is loaded from anywhere; it is readable in light and dark, on paper and without a script.
The drawing is venn.py's.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from hypervisor.experiments.classify.report import (
    COLUMNS,
    cells,
    check_lines,
    label,
    remaining,
    summary,
)
from hypervisor.experiments.classify.survey import CLASSES, Finding, Survey
from hypervisor.experiments.classify.theorems import Theorem, count_note, theorems
from hypervisor.experiments.classify.venn import Name, draw

STYLE: Final = """
:root { color-scheme: light dark; --back: #fff; --text: #1c1e21; --dim: #5c6470; --line: #d5d9df;
  --privileged: #2f6fb5; --sensitive: #a87400; --bad: #b3261e; --badback: #fbe9e7; }
@media (prefers-color-scheme: dark) { :root { --back: #15181c; --text: #e4e7eb; --dim: #9aa3af;
  --line: #343a42; --privileged: #76aee8; --sensitive: #e0b050; --bad: #ff8a80;
  --badback: #3a1d1b; } }
body { background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
svg { width: 100%; height: auto; }
svg .privileged { fill: var(--privileged); fill-opacity: .13; stroke: var(--privileged); }
svg .sensitive { fill: var(--bad); fill-opacity: .13; stroke: none; }
svg .edge { fill: none; stroke: var(--sensitive); }
svg text { fill: var(--text); font: 13px ui-monospace, monospace; }
svg .head { font: 600 15px system-ui, sans-serif; text-anchor: middle; }
svg .note { font: 14px system-ui, sans-serif; fill: var(--dim); }
svg .bad, .bad { fill: var(--bad); color: var(--bad); }
svg a:hover text, svg a:focus text { text-decoration: underline; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid var(--line); }
code, .code { font-family: ui-monospace, monospace; }
tr:target, tr:target + tr.witness { background: var(--badback); }
tr.witness td { color: var(--bad); padding-left: 1.2rem; }
tr.witnessed td { border-bottom: none; }
.dim { color: var(--dim); }
"""


def page(survey: Survey) -> str:
    """The whole page."""
    parts = [
        "<h1>Safe, privileged, sensitive, unsafe</h1>",
        "<p>Every row of the instruction table was run on the bare core in pairs of states that "
        "differ only in what a guest must not notice.</p>",
        f"<p><b>{escape(summary(survey))}.</b></p>",
    ]
    if survey.repaired:
        parts.append(f"<p>{escape(remaining(survey))}</p>")
    parts.append(_drawing(survey))
    if survey.complete:
        parts += ["<h2>Popek and Goldberg's theorems</h2>", *map(_theorem, theorems(survey))]
    if survey.complete and not survey.repaired:
        parts += ["<h2>Seventeen?</h2>", f"<p>{escape(count_note(survey))}</p>"]
    for name, meaning in reversed(CLASSES.items()):
        parts += _section(name, meaning, survey.of(name))
    parts += [f'<p class="dim">{escape(line)}</p>' for line in check_lines(survey)]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>seventeen classify</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _drawing(survey: Survey) -> str:
    split: dict[str, set[str]] = {}  #: mnemonics of several classes want their operands shown
    for finding in survey.findings:
        split.setdefault(finding.row.mnemonic, set()).add(finding.verdict.name)

    def names(class_name: str) -> list[Name]:
        found: dict[str, Name] = {}
        for finding in survey.of(class_name):
            mnemonic = finding.row.mnemonic
            text = mnemonic if len(split[mnemonic]) == 1 else label(finding)
            title = str(finding.witness) if finding.witness else finding.row.title
            found.setdefault(text, Name(text, _anchor(finding), title))
        return list(found.values())

    safe = len(survey.of("safe"))
    return draw(names("privileged"), names("sensitive"), names("unsafe"), safe)


def _anchor(finding: Finding) -> str:
    return f"row-{finding.row.id}"


def _theorem(theorem: Theorem) -> str:
    verdict = "holds" if theorem.holds else '<span class="bad">fails</span>'
    against = f" Against it: {escape(', '.join(theorem.against))}." if theorem.against else ""
    return (
        f"<p><b>Theorem {theorem.number}.</b> {escape(theorem.statement)}<br>"
        f"<b>It {verdict}</b>: {escape(theorem.because)}.{against}</p>"
    )


def _section(name: str, meaning: str, findings: tuple[Finding, ...]) -> Iterable[str]:
    if not findings:
        return
    yield f"<h2>{name.capitalize()}: {escape(meaning)} ({len(findings)})</h2>"
    yield '<div class="wide"><table>'
    yield f"<tr>{''.join(f'<th>{column}</th>' for column in _columns(COLUMNS))}</tr>"
    for finding in findings:
        style = ' class="witnessed"' if finding.witness else ""
        first, second, *rest = (escape(cell) for cell in _columns(cells(finding)))
        yield (
            f'<tr id="{_anchor(finding)}"{style}><td class="code">{first}</td>'
            f'<td class="code">{second}</td>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        )
        if finding.witness:
            yield f'<tr class="witness"><td colspan="5">{escape(str(finding.witness))}</td></tr>'
    yield "</table></div>"


def _columns(line: tuple[str, ...]) -> tuple[str, ...]:
    """Without the class: it is the section's."""
    return (*line[:2], *line[3:])
