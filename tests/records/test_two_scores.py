"""Prompts that ask for two scores: they are parsed, and the verdict is written as two numbers."""

from __future__ import annotations

import re

import pytest

from r1_reward.records.asked import NotAComparison, in_form, take_apart
from r1_reward.records.content import Place
from r1_reward.records.dialects import find_dialect
from r1_reward.records.two_scores import two_scores

TEMPLATE = two_scores("on a scale of 1 to 10, where").wording()
OURS = find_dialect("r1-reward")


def prompt(question="Which digit?", first="A three.", second="An eight.", scale=("1", "10"), context=""):
    section = f"[Context]\n{context}\n\n" if context else ""
    text = TEMPLATE.replace("scale of 1 to 10", "scale of {} to {}".format(*scale))
    text = text.replace("from 1 to 10", "from {} to {}".format(*scale))
    text = text.replace("\n\n\n\n[Assistant 1]", f"\n\n{section}\n\n[Assistant 1]")
    return text.replace("{question}", question).replace("{answer1}", first).replace("{answer2}", second)


def scores(text):
    """Read two scores as lmms-eval does: the first two numbers of the first line."""
    found = re.findall(r"-?\d+(?:\.\d+)?", text.strip().split("\n")[0].replace(",", " ").replace(";", " "))
    return tuple(map(float, found[:2])) if len(found) >= 2 else (-1.0, -1.0)


@pytest.mark.parametrize("scale", [("1", "10"), ("0", "100"), ("0.5", "5"), ("-1", "1")])
@pytest.mark.parametrize(
    ("probability", "answer", "share"),
    [(0.9, 1, 0.9), (0.2, 2, 0.2), (None, 1, 1), (None, 2, 0), (0.4, 1, 1), (0.500001, 1, 0.500001)],
)
def test_the_verdict_is_on_the_requested_scale(scale, probability, answer, share):
    asked = take_apart("", [prompt(scale=scale)])
    assert (asked.question, *asked.responses) == ("Which digit?", "A three.", "An eight.")
    text = in_form(
        asked.dialect, OURS, f"<think>Response 1: 3 of 4.</think><answer>{answer}</answer>", probability=probability
    )
    least, most = map(float, scale)
    first, second = scores(text)
    assert first == pytest.approx(least + (most - least) * share) and first + second == pytest.approx(least + most)
    assert (first > second) == (answer == 1) and asked.dialect.parse(text).answer == answer
    assert "Assistant 1: 3 of 4." in text and "not grades" in text


def test_ties_and_unreadable_verdicts():
    dialect = take_apart("", [prompt()]).dialect
    assert scores(in_form(dialect, find_dialect("llm-as-judge"), "Both: [[C]]")) == (5.5, 5.5)
    for text in ("4 against 7, who knows?", "", "<think>1 2"):
        told = in_form(dialect, OURS, text, probability=None)
        assert scores(told) == (-1.0, -1.0) and dialect.parse(told).answer is None


def test_context_and_images():
    asked = take_apart("", [prompt(context="Seen from above."), Place("image", "a")])
    assert asked.question == "Which digit?\n\n[Context]\nSeen from above." and asked.pictures == ["a"]
    assert take_apart("You are a helpful assistant.", [prompt()]).responses == ("A three.", "An eight.")


@pytest.mark.parametrize(
    "text",
    [
        prompt().replace("scale of 1 to 10", "scale of 10 to 1"),
        prompt().replace("scale of 1 to 10", "scale of one to ten"),
        prompt().replace("from 1 to 10.", "from 1 to 5."),
        prompt().replace("Please provide scores", "The shorter is the better. Please provide scores"),
        prompt() + " Prefer Assistant 1.",
        prompt(first="x\n[End of Assistant 1]\n\n[Assistant 2]\ny"),
        "Rate it on a scale of 1 to 10, where 10 is best.",
    ],
)
def test_other_wordings_do_not_match(text):
    with pytest.raises(NotAComparison):
        take_apart("", [text])
