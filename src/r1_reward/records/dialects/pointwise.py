r"""Judges that score one response at a time, such as LLaVA-Critic: "Score: 85". The higher score wins.

Equal scores are a tie. The score is read after the thought: the last "Final Score", else a "Score" or "Rating" if all
of them agree, else "I rate it 85/100". A number alone on the first line is a score, too; if another one differs, which
may come from the picture, neither counts. Denominators count: 8/10, 8 (out of 10), 8 points out of 10, 8 on a scale of
10 and 8 on a scale of 1 to 10 are 80. A negative number, a number above its scale and a range (80-90) are not scores;
without two readable scores the judge gave no verdict. Two judgments become one text, which is parsed like any other::

    <think>[Response 1]: ...
    [Response 2]: ...</think>
    Score of response 1: 85
    Score of response 2: 70
"""

from __future__ import annotations

import re

from r1_reward.records.dialect import NOTHING, Dialect, Found
from r1_reward.records.schema import Label

_NUMBER = r"(?<![\d.])(\d{1,6}(?:\.\d{1,6})?)(?!\s*[-–—]\s*\d|\s*to\s+\d|[.,]?\d)"
_OF = (
    r"(?:[^\S\n]|[*\[\]()])*(?:points?[\s(]*)?"
    r"(?:/|out\s+of|on\s+(?:a|the)\s+scale\s+(?:of|from)(?:\s+\d{1,6}\s*(?:to|[-–—]))?)[\s*\[(]*"
)
"""What stands between a score and its denominator."""
_SCALE = rf"(?:{_OF}(\d{{1,6}}))?"
_FILL = r"[\"'\s*_:=\[(]{0,12}"
_WORD = rf"{_FILL}(?:(?:of|is|for\s+(?:this|the)\s+response(?:\s+is)?)\b)?{_FILL}"
_FINAL = re.compile(rf"\b(?:final|overall|total)[\s*_]+(?:score|rating)\b{_WORD}{_NUMBER}{_SCALE}", re.IGNORECASE)
_LABELLED = re.compile(rf"\b(?:score|rating|rate(?=[\s*_]*[:=]))\b{_WORD}{_NUMBER}{_SCALE}", re.IGNORECASE)
_RATED = re.compile(  # not the noun: "the success rate is 9 out of 10"
    rf"\b(?:rate(?!\s+(?:of|is|was)\b)|give|award|assign)\b[^.\n]{{0,60}}?{_NUMBER}{_OF}(\d{{1,6}})", re.IGNORECASE
)
_ALONE = re.compile(rf"\A[\s*\[(\"']*{_NUMBER}{_SCALE}[\s*\])\"'%.]*(?:\Z|\n)", re.IGNORECASE)
_BOTH = re.compile(r"\A\s*Score of response 1: (none|[\d.]+)\nScore of response 2: (none|[\d.]+)\s*\Z")
_FULL = 100.0


def read_score(spoken: str) -> float | None:
    """Return the score of one response, in [0, 1]; None if there is none, or scores contradict each other."""
    labelled = _FINAL.findall(spoken)[-1:] or _LABELLED.findall(spoken) or _RATED.findall(spoken)
    same = {float(value) for value, _ in labelled}  # "8" before "Score: 8/10" is the same score
    alone = [found for found in _ALONE.findall(spoken) if found[1] or float(found[0]) not in same]
    said = {_share(found) for found in [*alone, *labelled]}
    return said.pop() if len(said) == 1 else None


def _share(found: tuple[str, str]) -> float | None:
    value, scale = float(found[0]), float(found[1] or _FULL)
    return round(value / scale, 6) if scale > 0 and value <= scale else None


def scores_in_words(first: float | None, second: float | None) -> str:
    """Write two scores in [0, 1] as the verdict that :func:`read` parses, out of 100; None becomes ``none``."""
    shown = ("none" if score is None else f"{round(score * _FULL, 4):g}" for score in (first, second))
    return "\n".join(f"Score of response {number}: {score}" for number, score in enumerate(shown, 1))


def read(spoken: str) -> Found:
    """Compare two scores written by :func:`scores_in_words`."""
    match = _BOTH.match(spoken)
    if match is None or "none" in match.groups():
        return NOTHING
    first, second = (float(score) for score in match.groups())
    answer: Label = 0 if first == second else 1 if first > second else 2
    return Found(answer, (match.span(),))


DIALECT = Dialect(
    name="pointwise",
    title="a score for each response, LLaVA-Critic",
    form="Score: 85",
    read=read,
    score=read_score,
    template="pointwise.txt",
    source="huggingface.co/lmms-lab/llava-critic-7b, README: the authors' wording, Apache-2.0",
    verdicts=None,
    ties=True,
    hostile=(
        r"(?i:(?:score|rating)\b[\s*_\"']*(?:of response [12][\s*_]*)?(?:[:=]|is\b|of\b|\d|\[))",
        rf"(?i:(?:rate|give|award|assign)\b[^.\n]{{0,60}}?\d(?:\.\d{{1,6}})?{_OF}\d)",
        r"(?i:(?:question|the lmm response|assistant)[ \t]*:)",
    ),
    models=(r"llava[-_]critic(?![-_]r1)",),
)
