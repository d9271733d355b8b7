"""Render a verdict as HTML for the web page: who wins, by how much, and each vote's reasoning.

All outside text (answers, reasoning, messages) goes through ``html.escape``, so none of it becomes markup.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from r1_reward.judge.comparisons import Comparison, net_win_rates
from r1_reward.judge.voting import Verdict
from r1_reward.records.content import Shown
from r1_reward.records.dialect import Dialect
from r1_reward.records.schema import Judgment

if TYPE_CHECKING:
    from PIL import Image

_THUMBNAIL = (320, 320)  # pixels; the page shows them at half this size
_HEADING = re.compile(r"^[ \t]*\[Response ([12])\][ \t]*:?", re.MULTILINE)

CSS = """
.gradio-container { max-width: 1320px !important; }
.rr-label { font-size: .85rem; opacity: .75; }
.rr-head h1 { font-size: 1.35rem; font-weight: 650; margin: 0; }
.rr-head p { margin: .1rem 0 0; opacity: .75; font-size: .9rem; overflow-wrap: anywhere; }
.rr-thumb { display: flex; justify-content: center; align-items: center; height: 64px; }
.rr-thumb img { max-height: 56px; max-width: 100%; min-width: 0; width: auto;
  image-rendering: pixelated; border: 1px solid var(--border-color-primary); }
.rr-pictures { display: flex; flex-wrap: wrap; gap: 6px; }
.rr-pictures img { max-height: 160px; max-width: 100%; border: 1px solid var(--border-color-primary);
  border-radius: 4px; margin: 4px 0 0; background: white; }
.rr-shown { margin: 0 0 10px; }
.rr-rank .rr-pictures img { max-height: 44px; max-width: 88px; margin: 0; }
.rr-answer .input-container { border: var(--input-border-width) solid var(--input-border-color);
  border-radius: var(--input-radius); background: var(--input-background-fill); box-shadow: var(--input-shadow);
  padding: 0 6px; }
.rr-answer .input-container:focus-within { border-color: var(--input-border-color-focus); }
#pictures img { image-rendering: pixelated; }
#pictures .grid-wrap { overflow-y: auto; padding-top: 32px; }
.rr-box { border: 1px solid var(--border-color-primary); border-radius: 10px; padding: 14px 16px; margin: 0 0 12px;
  background: var(--background-fill-primary); color: var(--body-text-color); }
.rr-empty { opacity: .7; text-align: center; padding: 40px 16px; }
.rr-notice { border-left: 4px solid #d97706; white-space: pre-wrap; overflow-wrap: anywhere; }
.rr-verdict { font-size: 1.3rem; font-weight: 650; margin: 0 0 8px; }
.rr-facts { font-size: .9rem; opacity: .85; margin: 8px 0 0; }
.rr-bar { display: flex; height: 26px; border-radius: 6px; overflow: hidden; font-size: .82rem; font-weight: 600; }
.rr-bar > span { display: flex; align-items: center; color: white; white-space: nowrap; overflow: hidden;
  transition: width .3s; }
.rr-bar i { font-style: normal; padding: 0 8px; color: white; }
.rr-one { background: #2563eb; }
.rr-two { background: #b45309; justify-content: flex-end; }
.rr-ends { display: flex; justify-content: space-between; gap: 12px; font-size: .82rem; margin-top: 3px; opacity: .85; }
.rr-rank { display: grid; grid-template-columns: auto 1fr auto; gap: 6px 10px; align-items: center; font-size: .9rem; }
.rr-rank { margin-top: 8px; }
.rr-rank .rr-track { background: var(--background-fill-secondary); border-radius: 5px; height: 16px; }
.rr-rank .rr-fill { background: #2563eb; border-radius: 5px; height: 16px; }
.rr-vote { font-size: .9rem; }
.rr-vote header { display: flex; flex-wrap: wrap; gap: 4px 12px; align-items: baseline; margin-bottom: 6px; }
.rr-vote header b { font-weight: 650; }
.rr-chip { font-size: .78rem; opacity: .8; }
.rr-text { white-space: pre-wrap; overflow-wrap: anywhere; }
.rr-sides { display: grid; grid-template-columns: 1fr 1fr; gap: 10px; margin: 6px 0; }
.rr-side { background: var(--background-fill-secondary); border-radius: 8px; padding: 8px 10px; border-top: 3px solid; }
.rr-side.rr-left { border-color: #2563eb; } .rr-side.rr-right { border-color: #b45309; }
.rr-side small { opacity: .75; }
.rr-pair > summary { cursor: pointer; font-weight: 600; margin: 4px 0 8px; }
@media (max-width: 560px) {
  .rr-sides:not(.rr-shown) { grid-template-columns: 1fr; }
  .rr-verdict { font-size: 1.1rem; }
}
"""


class Claims(NamedTuple):
    """Reasoning in parts: what it says about the first and the second response, and the text before and after."""

    before: str
    first: str
    second: str
    after: str


def split_claims(reasoning: str) -> Claims | None:
    """Return the parts of reasoning with one heading ``[Response 1]`` and then one ``[Response 2]``, else None.

    The second part ends at a blank line, or at the end of its line if the first part is a single line.
    """
    headings = list(_HEADING.finditer(reasoning))
    if [heading[1] for heading in headings] != ["1", "2"]:
        return None
    one, two = headings
    first, rest = reasoning[one.end() : two.start()].strip(), reasoning[two.end() :].lstrip()
    border = "\n" if "\n" not in first else "\n\n"
    second, _, after = rest.partition(border)
    return Claims(reasoning[: one.start()].strip(), first, second.strip(), after.strip())


def heading(name: str) -> str:
    """Return the head of the page."""
    return (
        '<div class="rr-head"><h1>Which answer is better?</h1>'
        f"<p>{escape(name)} looks at the pictures, compares the answers and explains its verdict.</p></div>"
    )


def waiting() -> str:
    """Return the placeholder shown before there is a verdict."""
    return '<div class="rr-box rr-empty">The verdict and every vote will appear here.</div>'


def notice(message: str) -> str:
    """Return a message to the user."""
    return f'<div class="rr-box rr-notice">{escape(message)}</div>'


def thumbnail(picture: Image.Image) -> str:
    """Return a small picture embedded in the page."""
    return f'<div class="rr-thumb"><img alt="handwritten digits" src="{_data_url(picture)}"></div>'


def thumbnails(pictures: Iterable[Image.Image]) -> str:
    """Return thumbnails of an answer's pictures, or an empty string if it has none."""
    small = ""
    for number, picture in enumerate(pictures, 1):
        reduced = picture.copy()
        reduced.thumbnail(_THUMBNAIL)
        small += f'<img alt="picture {number} of the answer" src="{_data_url(reduced)}">'
    return f'<div class="rr-pictures">{small}</div>' if small else ""


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def result(
    answers: Mapping[int, Shown],
    found: Mapping[tuple[int, int], Verdict],
    total: int,
    dialect: Dialect,
    pictures: Mapping[int, str] | None = None,
) -> str:
    """Return everything known so far.

    Args:
        answers: The answers by number.
        found: The verdict on each pair judged so far.
        total: How many votes will be drawn.
        dialect: The judge's dialect, in which its votes are written.
        pictures: The thumbnails of answers by number.
    """
    pictures = pictures or {}
    drawn = sum(len(verdict.votes) for verdict in found.values())
    progress = "" if drawn >= total else f'<div class="rr-facts">Vote {drawn + 1} of {total} is being drawn …</div>'
    if len(answers) == 2:
        (pair,) = [tuple(answers)]
        verdict = found.get((pair[0], pair[1]))
        both = _both_pictures(pair[0], pair[1], pictures)
        if verdict is None:
            return f'<div class="rr-box">{both}{progress}</div>'
        return _verdict_box(verdict, pair[0], pair[1], both + progress) + _votes(verdict, pair[0], pair[1], dialect)
    details = "".join(
        f'<details class="rr-pair"><summary>Answer {i} against answer {j}: {_says(verdict, i, j)}</summary>'
        f"{_votes(verdict, i, j, dialect)}</details>"
        for (i, j), verdict in found.items()
    )
    return _standings(list(answers), found, progress, pictures) + details


def _both_pictures(i: int, j: int, pictures: Mapping[int, str]) -> str:
    """Return the pictures of two answers side by side, or an empty string if neither has any."""
    if not pictures.get(i) and not pictures.get(j):
        return ""
    sides = "".join(
        f'<div class="rr-side {kind}"><small>answer {number}{"" if pictures.get(number) else ": no picture"}</small>'
        f"{pictures.get(number, '')}</div>"
        for kind, number in (("rr-left", i), ("rr-right", j))
    )
    return f'<div class="rr-sides rr-shown">{sides}</div>'


def _says(verdict: Verdict, i: int, j: int) -> str:
    if verdict.preferred is not None:
        return f"answer {i if verdict.preferred == 1 else j} is better"
    if verdict.says_tie:
        return "a tie: neither answer is better"
    return "the votes are tied" if verdict.readable else "no vote can be read"


def _verdict_box(verdict: Verdict, i: int, j: int, progress: str) -> str:
    """Return which of two answers wins, a bar with the probability, and the counts."""
    says = _says(verdict, i, j)
    decided = verdict.preferred is not None or verdict.says_tie
    title = says.capitalize() if decided else f"No verdict: {says}"
    probability = verdict.probability
    bar = ""
    if probability is not None:
        ends = (("rr-one", i, probability), ("rr-two", j, 1 - probability))
        parts = "".join(
            f'<span class="{kind}" style="width:{100 * share:.1f}%">{_label(share)}</span>' for kind, _, share in ends
        )
        labels = "".join(f"<span>answer {number} is better: {share:.0%}</span>" for _, number, share in ends)
        bar = f'<div class="rr-bar">{parts}</div><div class="rr-ends">{labels}</div>'
    facts = [f"{verdict.for_1} for answer {i}", f"{verdict.for_2} for answer {j}"]
    if verdict.ties:
        facts.append(f"{verdict.ties} for a tie")
    if verdict.unreadable:
        facts.append(f"{verdict.unreadable} unreadable")
    if verdict.flips is not None:
        changed = f"changes with the order in {verdict.flips:.0%} of the vote pairs"
        facts.append(changed if verdict.flips else "does not change with the order")
    body = f'<div class="rr-facts">Votes: {" · ".join(facts)} · {verdict.tokens} tokens</div>'
    return f'<div class="rr-box"><div class="rr-verdict" id="verdict">{title}</div>{bar}{body}{progress}</div>'


def _label(share: float) -> str:
    return f"<i>{share:.0%}</i>" if share >= 0.12 else ""  # no room in a narrow part


def _votes(verdict: Verdict, i: int, j: int, dialect: Dialect) -> str:
    return "".join(_vote(number, vote, i, j, dialect) for number, vote in enumerate(verdict.votes, 1))


def _vote(number: int, vote: Judgment, i: int, j: int, dialect: Dialect) -> str:
    """Return one vote: what it prefers, and its text, in parts if it has them."""
    says = {None: "cannot be read", 0: "says tie", 1: f"prefers answer {i}", 2: f"prefers answer {j}"}[vote.answer]
    shown_first = j if vote.swapped else i
    chips = [f"answer {shown_first} shown first, as Response 1", f"{vote.tokens} tokens"]
    if vote.probability is not None and vote.answer != 0:
        chips.insert(1, f"{max(vote.probability, 1 - vote.probability):.0%} certain")
    if vote.truncated:
        chips.append("truncated at the token limit")
    head = f"<header><b>Vote {number} {says}</b><span class='rr-chip'>{' · '.join(chips)}</span></header>"
    text = dialect.reasoning(vote) or vote.text
    claims = split_claims(text)
    if claims is None:
        body = f'<div class="rr-text">{escape(text) or "(no reasoning)"}</div>'
    else:
        of_i, of_j = (claims.second, claims.first) if vote.swapped else (claims.first, claims.second)
        body = (
            f'<div class="rr-text">{escape(claims.before)}</div><div class="rr-sides">'
            f"{_side('rr-left', i, of_i)}{_side('rr-right', j, of_j)}</div>"
            f'<div class="rr-text">{escape(claims.after)}</div>'
        )
    return f'<div class="rr-box rr-vote">{head}{body}</div>'


def _side(kind: str, number: int, claim: str) -> str:
    return (
        f'<div class="rr-side {kind}"><small>on answer {number}</small><div class="rr-text">{escape(claim)}</div></div>'
    )


def _standings(
    numbers: list[int], found: Mapping[tuple[int, int], Verdict], progress: str, pictures: Mapping[int, str]
) -> str:
    """Return several answers from best to worst by their mean probability of winning."""
    played = [Comparison(numbers.index(i), numbers.index(j), v.probability) for (i, j), v in found.items()]
    rates = dict(zip(numbers, net_win_rates(len(numbers), played), strict=True))
    known = {number: (rate + 1) / 2 for number, rate in rates.items() if rate is not None}
    best = sorted(known, key=lambda number: -known[number])
    rows = ""
    for number in [*best, *(number for number in numbers if number not in known)]:
        share = known.get(number)
        width = 0.0 if share is None else 100 * share
        rows += (
            f"<div>Answer {number}{pictures.get(number, '')}</div>"
            f'<div class="rr-track"><div class="rr-fill" style="width:{width:.1f}%"></div></div>'
            f"<div>{'-' if share is None else f'{share:.0%}'}</div>"
        )
    tied = len(best) > 1 and abs(known[best[0]] - known[best[1]]) < 1e-9
    title = "No verdict yet" if not best or progress else "No verdict: a tie" if tied else f"Answer {best[0]} is best"
    if not best and not progress:
        title = "No verdict: no vote can be read"
    return (
        f'<div class="rr-box"><div class="rr-verdict" id="verdict">{title}</div>'
        f'<div class="rr-label">Mean probability of winning against the others</div>'
        f'<div class="rr-rank">{rows}</div>{progress}</div>'
    )
