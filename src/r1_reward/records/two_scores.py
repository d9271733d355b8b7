r"""The prompt of lmms-eval's judge client, which asks for two scores ("8 6"), and a pairwise judge's answer to it.

We never prompt a judge this way; the prompt is recognized when clients send it. The judge's verdict becomes two numbers
on the prompt's scale: each is the probability that the response is the better one, not a grade::

    7.75 3.25
    Assistant 1 counts right.
    ...

>>> write(1, 0.75, "Assistant 1 counts right.", 1, 10).splitlines()[0]
'7.75 3.25'
>>> two_scores("each on a scale of 1 to 10, where").read("8 6\nThe first.").answer
1
"""

from __future__ import annotations

import re
from functools import partial
from importlib import resources

from r1_reward.records.dialect import NOTHING, Dialect, Found
from r1_reward.records.schema import Label

_NUMBER = r"-?\d{1,6}(?:\.\d{1,6})?"
_SCALE = re.compile(rf"on a scale of ({_NUMBER}) to ({_NUMBER}), where")
_SCORES = re.compile(rf"\s*({_NUMBER})[\s,;]+({_NUMBER})\s*(?:\n|\Z)")
_EXPLAINED = (
    "Each score is the probability that the response is the better one, on the requested scale: this judge compares, "
    "so its scores are not grades."
)


def two_scores(text: str) -> Dialect | None:
    """Return the dialect of a prompt that asks for two scores, with the prompt's scale; None if it names no scale."""
    found = _SCALE.search(text)
    if found is None or float(found[1]) >= float(found[2]):
        return None
    template = (resources.files("r1_reward.records") / "templates" / "two_scores.txt").read_text(encoding="utf-8")
    return Dialect(
        name="two-scores",
        title="two scores, as lmms-eval asks for",
        form="",
        read=read,
        template=template.replace("{least}", found[1]).replace("{most}", found[2]),
        source="lmms-eval 0.7.3, lmms_eval/llm_judge/prompt.py, MIT",
        verdicts=None,
        ties=True,
        labels=("Assistant 1", "Assistant 2"),
        write=partial(write, least=float(found[1]), most=float(found[2])),
    )


def read(spoken: str) -> Found:
    """Compare the two numbers on the first line."""
    match = _SCORES.match(spoken)
    if match is None:
        return NOTHING
    first, second = float(match[1]), float(match[2])
    answer: Label = 0 if first == second else 1 if first > second else 2
    return Found(answer, (match.span(),))


def write(answer: Label | None, probability: float | None, reasoning: str, least: float, most: float) -> str:
    """Write a judgment as two scores; without a verdict, its first line has no numbers.

    Args:
        answer: The better response, in the order shown.
        probability: Probability that the first is better, in [0, 1]; if it is None or contradicts the answer, the
            answer counts as certain.
        reasoning: The reasoning before the verdict.
        least: Lowest score.
        most: Highest score.
    """
    if answer is None:
        return f"No verdict: the judge's answer cannot be read.\n{reasoning}"
    share = {0: 0.5, 1: 1.0, 2: 0.0}[answer]
    if answer and probability is not None and (probability - 0.5) * (share - 0.5) > 0:
        share = probability
    scores = (f"{least + (most - least) * one:.6f}".rstrip("0").rstrip(".") for one in (share, 1 - share))
    return "\n".join([" ".join(scores), *([reasoning] if reasoning else []), _EXPLAINED])
