"""Comparison tables as terminal output, Markdown, LaTeX and HTML.

Names of models and categories come from untrusted files and are escaped for each format. Every section is a separate
table with its own header, because columns of different groupings are not comparable::

    to_markdown(build_tables(runs))            # r1_reward.bench.overview
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from r1_reward.bench.table import PROTOCOL, Row, Section, Table

if TYPE_CHECKING:
    from rich.console import Console

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        # After a line break, "[" and "*" would be read as its options.
        "[": "{[}",
        "]": "{]}",
        "*": "{*}",
        "–": r"\textendash{}",
    }
)

_STYLE = (
    ".r1-table table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.5em 0 1em}"
    ".r1-table th,.r1-table td{padding:.25em .6em;border-bottom:1px solid #ccc;text-align:left}"
    ".r1-table .number{text-align:right;white-space:nowrap}"
    ".r1-table .run td{font-weight:600}"
    ".r1-table .doubt{color:#a00}"
    ".r1-table figcaption{font-weight:700}"
)


_LONGEST_WORD = 24
"""Maximum characters of a word before it is broken in a narrow terminal."""


def to_terminal(tables: Sequence[Table], console: Console) -> None:
    """Print the tables; lines may exceed the terminal's width, but numbers are never broken."""
    from rich.text import Text

    for table in tables:
        console.print(Text(table.title, style="bold"))
        for section in table.sections:
            _print_section(table, section, console)
        for text in _remarks(table):
            console.print(Text(text))
        console.print()


def _print_section(table: Table, section: Section, console: Console) -> None:
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(title=Text(section.heading), title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    lines = [_header(table), *map(_texts, section.rows)]
    widths = _terminal_widths(list(zip(*lines, strict=True)), _numeric(table), console.width)
    for heading, number, width in zip(lines[0], _numeric(table), widths, strict=True):
        grid.add_column(Text(heading), justify="right" if number else "left", overflow="fold", width=width)
    for row, texts in zip(section.rows, lines[1:], strict=True):
        grid.add_row(*map(Text, texts), style=None if row.published else "bold")
    grid.width = sum(widths) + _borders(len(widths))
    console.print(grid, soft_wrap=True)


def _borders(columns: int) -> int:
    """Return the total width of padding, column dividers and edges."""
    return columns + (columns - 1) + 2


def _terminal_widths(columns: Sequence[Sequence[str]], numeric: Sequence[bool], available: int) -> list[int]:
    """Return column widths that break no number: full texts if they fit, else one word per line, spare to the model."""
    from rich.cells import cell_len

    whole = [max(map(cell_len, column)) for column in columns]
    words = [max(cell_len(word) for text in column for word in text.split() or [""]) for column in columns]
    spare = available - _borders(len(columns))
    if sum(whole) <= spare:
        return whole
    widths = [w if number else min(word, _LONGEST_WORD) for w, word, number in zip(whole, words, numeric, strict=True)]
    widths[0] += max(0, min(whole[0] - widths[0], spare - sum(widths)))
    return widths


def to_markdown(tables: Sequence[Table]) -> str:
    """Return the tables in GitHub's Markdown."""
    lines: list[str] = []
    for table in tables:
        lines += [f"## {_markdown(table.title)}", ""]
        for section in table.sections:
            header = _header(table)
            rules = ["---:" if number else "---" for number in _numeric(table)]
            lines += [f"### {_markdown(section.heading)}", "", _markdown_row(header, _markdown), _markdown_row(rules)]
            lines += [_markdown_row(_texts(row), _markdown) for row in section.rows]
            lines.append("")
        # As list items, because plain lines would be joined into one paragraph.
        lines += [f"- {_markdown(text)}" for text in _remarks(table)]
        lines.append("")
    return "\n".join(lines)


def _markdown_row(cells: Sequence[str], escape: Callable[[str], str] = str) -> str:
    return f"| {' | '.join(escape(cell) for cell in cells)} |"


def _markdown(text: str) -> str:
    """Escape text for Markdown; uses entities where renderers treat backslashes differently."""
    entities = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "\\": "&#92;", "$": "&#36;", "`": "&#96;"}
    return re.sub(r"[&<>|\\$`]|[*_\[\]~#!]", lambda m: entities.get(m.group(), "\\" + m.group()), text)


def to_latex(tables: Sequence[Table]) -> str:
    """Return LaTeX table environments, one per benchmark; the document needs the package booktabs."""
    return "\n".join(_latex_table(table) for table in tables)


def _latex_table(table: Table) -> str:
    header = _header(table)
    layout = "".join("r" if number else "l" for number in _numeric(table))
    lines = [r"\begin{table*}", r"\centering", rf"\caption{{{_latex(table.title)}}}"]
    for section in table.sections:
        lines += [rf"\textbf{{{_latex(section.heading)}}}\par", rf"\begin{{tabular}}{{{layout}}}", r"\toprule"]
        lines += [_latex_row(header), r"\midrule"]
        lines += [_latex_row(_texts(row)) for row in section.rows]
        lines += [r"\bottomrule", r"\end{tabular}\par\medskip"]
    lines += [rf"{{\footnotesize {_latex(text)}\par}}" for text in _remarks(table)]
    return "\n".join([*lines, r"\end{table*}", ""])


def _latex_row(cells: Sequence[str]) -> str:
    return f"{' & '.join(map(_latex, cells))} \\\\"


def _latex(text: str) -> str:
    # Two hyphens would be typeset as a dash.
    return re.sub("-(?=-)", "-{}", text.translate(_LATEX))


def to_html(tables: Sequence[Table]) -> str:
    """Return a self-contained HTML fragment without scripts."""
    parts = ['<div class="r1-table">', f"<style>{_STYLE}</style>"]
    for table in tables:
        parts.append(f"<h2>{html.escape(table.title)}</h2>")
        parts += [_html_section(table, section) for section in table.sections]
        parts += [f"<p>{html.escape(text)}</p>" for text in _remarks(table)]
    return "\n".join([*parts, "</div>", ""])


def _html_section(table: Table, section: Section) -> str:
    header = _header(table)
    kinds = [' class="number"' if number else "" for number in _numeric(table)]
    heads = "".join(f"<th{kind}>{html.escape(text)}</th>" for kind, text in zip(kinds, header, strict=True))
    lines = ["<figure>", f"<figcaption>{html.escape(section.heading)}</figcaption>"]
    lines += ["<table>", f"<thead><tr>{heads}</tr></thead>", "<tbody>"]
    for row in section.rows:
        cells = "".join(f"<td{kind}>{html.escape(text)}</td>" for kind, text in zip(kinds, _texts(row), strict=True))
        doubtful = " doubt" if row.mark.startswith(("impossible", "below chance", "partial")) else ""
        lines.append(f'<tr class="{"published" if row.published else "run"}{doubtful}">{cells}</tr>')
    return "\n".join([*lines, "</tbody>", "</table>", "</figure>"])


def _header(table: Table) -> list[str]:
    return ["model", *PROTOCOL, *table.columns, "see"]


def _numeric(table: Table) -> list[bool]:
    """Return which columns of the header contain numbers."""
    return [False] * (1 + len(PROTOCOL)) + [True] * len(table.columns) + [False]


def _texts(row: Row) -> list[str]:
    return [row.model, *row.protocol, *row.cells, row.mark]


def _remarks(table: Table) -> list[str]:
    """Return the numbered footnotes, then the notes on the whole table."""
    return [*(f"({number}) {text}" for number, text in enumerate(table.footnotes, start=1)), *table.notes]
