"""Replace a marked table of a page of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r1_reward.store.files import write_text

END = "<!-- end -->\n"


def fill(page: Path, mark: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table between ``<!-- mark -->`` and ``<!-- end -->``; exit if the page lacks one of them."""
    begin = f"<!-- {mark} -->\n"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, end, after = rest.partition(END)
    if not (found and end):
        raise SystemExit(f"{page}: has no table between {begin.strip()} and {END.strip()}.")
    lines = [headings, ["---"] * len(headings), *rows]
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    write_text(page, f"{before}{begin}{table}{end}{after}")
