"""One self-contained HTML page, for the experiments that have a table to show.

Nothing is loaded from anywhere; it is readable in light and dark, on paper and without a script.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --back: #fff; --text: #1c1e21; --dim: #5c6470; --line: #d5d9df;
  --good: #1b7f4b; --bad: #b3261e; --badback: #fbe9e7; --bar: #2f6fb5; --bar2: #c98a1b; }
@media (prefers-color-scheme: dark) { :root { --back: #15181c; --text: #e4e7eb; --dim: #9aa3af;
  --line: #343a42; --good: #6fcf97; --bad: #ff8a80; --badback: #3a1d1b; --bar: #76aee8;
  --bar2: #e0b050; } }
body { background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif;
  max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.name { white-space: nowrap; }
td.cross, td.cross a { color: var(--bad); } td.equal { color: var(--good); }
tr:target { background: var(--badback); }
code { font-family: ui-monospace, monospace; }
svg { width: 100%; height: auto; } svg text { fill: var(--text); font: 13px system-ui, sans-serif; }
svg .executed { fill: var(--bar); } svg .modelled { fill: var(--bar2); }
svg .axis { stroke: var(--line); } svg .dim { fill: var(--dim); }
.dim { color: var(--dim); }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """The whole page; `parts` are HTML."""
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def cell(text: str, kind: str = "", *, target: str = "") -> str:
    """A table cell of text, with a CSS class and a link within the page."""
    inner = escape(text)
    if target:
        inner = f'<a href="#{escape(target)}">{inner}</a>'
    return f'<td class="{kind}">{inner}</td>' if kind else f"<td>{inner}</td>"


def table(columns: Sequence[str], rows: Iterable[str], right: frozenset[str] = frozenset()) -> str:
    """A table; `rows` are whole <tr> elements, the columns in `right` hold numbers."""
    head = "".join(
        f'<th class="number">{escape(c)}</th>' if c in right else f"<th>{escape(c)}</th>"
        for c in columns
    )
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n' + "\n".join(rows) + "\n</table></div>"
