"""One self-contained HTML page, for the experiments that have a table to show.

Nothing is loaded from anywhere; it is readable in light and dark, on paper and without a script.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

STYLE: Final = (
    """
:root { color-scheme: light dark; --back: #fff; --text: #1c1e21; --dim: #5c6470; --line: #d5d9df;
  --good: #1b7f4b; --bad: #b3261e; --badback: #fbe9e7; --bar: #2f6fb5; --bar2: #c98a1b;
  --s0: #2f6fb5; --s1: #c98a1b; --s2: #1b7f4b; --s3: #b3261e; --s4: #7a4fb5; --s5: #4f8f9b;
  --s6: #b5568c; --s7: #6b6f2a; --s8: #8a5a3c; --s9: #7c8592; }
@media (prefers-color-scheme: dark) { :root { --back: #15181c; --text: #e4e7eb; --dim: #9aa3af;
  --line: #343a42; --good: #6fcf97; --bad: #ff8a80; --badback: #3a1d1b; --bar: #76aee8;
  --bar2: #e0b050; --s0: #76aee8; --s1: #e0b050; --s2: #6fcf97; --s3: #ff8a80; --s4: #b79bf0;
  --s5: #7fc4d1; --s6: #f0a0cc; --s7: #c5ca6a; --s8: #d3a184; --s9: #a9b2bf; } }
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
svg .mark { stroke: var(--text); stroke-width: 1.5; stroke-dasharray: 3 3; }
svg text.dim { paint-order: stroke; stroke: var(--back); stroke-width: 3px; }
svg text.on { fill: var(--back); font-size: 11px; }
svg .curve { fill: none; stroke-width: 2.2; }
svg .dash1 { stroke-dasharray: 7 3; } svg .dash2 { stroke-dasharray: 2 3; }
svg .dash3 { stroke-dasharray: 9 3 2 3; }
"""
    + "".join(
        f"svg .s{n} {{ fill: var(--s{n}); }} svg .c{n} {{ stroke: var(--s{n}); }} "
        f"i.s{n} {{ background: var(--s{n}); }}\n"
        for n in range(10)
    )
    + """
figure { margin: 1rem 0; } figcaption { font-size: .85rem; color: var(--dim); }
.grid { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .4rem 2rem; }
.grid figure { margin: .4rem 0; } .grid h3 { margin: .2rem 0; font-size: 1rem; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .85rem; margin: .4rem 0; }
.legend i { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem; }
@media (max-width: 60rem) { .grid { grid-template-columns: minmax(0, 1fr); } }
@media print {
  :root { color-scheme: light; --back: #fff; --text: #000; --dim: #444; --line: #bbb;
    --bar: #2f6fb5; --bar2: #c98a1b; --good: #1b7f4b; --bad: #b3261e; --badback: #fff; }
  body { max-width: none; margin: 0; font-size: 10pt; }
  figure, tr, svg { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .wide { overflow: visible; } table { font-size: 7.5pt; }
  th, td { padding: .15rem .4rem .15rem 0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
)


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
