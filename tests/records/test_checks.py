"""Problems of a row, and how many of one kind are listed."""

from typing import Any

import pytest

from r1_reward.records.checks import (
    PairFileError,
    Problem,
    picture_problem,
    reasoning_problem,
    summarise,
    text_problems,
    to_pair,
)


def row(**changes: Any) -> dict[str, Any]:
    given = {"id": "7", "question": "Which digit?", "images": ["a.png"], "response_1": "A three.", "preferred": 1}
    return {**given, "response_2": "An eight.", **changes}


# ---- texts


@pytest.mark.parametrize(
    "text", ["\u200b", "\ufeff", "\u00ad\u200d\u00a0", "\u2066\u2069", "\ufe0f", "\u3164", " \u200e\n"]
)
@pytest.mark.parametrize("field", ["question", "response_1", "response_2"])
def test_an_invisible_text_is_blank(field: str, text: str) -> None:
    assert to_pair(row(**{field: text})) == (None, [(field, "is blank")])


@pytest.mark.parametrize(
    "text", ["A three\u200b.", "A\u00a0three.", "\ufeffA three.", "A th\u00adree.", " A three.\u2060"]
)
def test_answers_that_look_the_same_are_the_same(text: str) -> None:
    assert list(text_problems(row(response_2=text))) == [("response_2", "is the same as response_1")]


# ---- image placeholders


@pytest.mark.parametrize(
    ("question", "images"),
    [
        ("Is <image> taken after <image>?", 1),
        ("<image>\n<image>\nWhich is older?", 3),
        ("<|vision_start|><|image_pad|><|vision_end|> and <|vision_start|><|image_pad|><|vision_end|>?", 1),
        ("[IMG][IMG] Which?", 1),
        ("<start_of_image> or <start_of_image>?", 1),
        ("What differs between <image 1> and <image 2>?", 1),
        ("<image> Which digit?", 2),
        ("<video> What happens?", 0),
    ],
)
def test_placeholders_that_do_not_match_the_images(question: str, images: int) -> None:
    wrong = row(question=question, images=["a.png"] * images)
    reason = picture_problem(wrong)
    assert reason is not None and "place" in reason
    assert ("question", reason) in list(text_problems(wrong))


@pytest.mark.parametrize(
    ("question", "changes"),
    [
        ("Is <image> taken after <image>?", {"images": ["a.png", "b.png"]}),
        ("What does the < image> tag do?", {}),
        ("What is <image 1>?", {"images": ["a.png", "b.png"]}),
        ("<image>\nWhich digit?", {}),
        ("Which digit?", {"images": ["a.png"] * 5}),
        ("<video>\nWhat happens?", {"images": [], "video": "clip.mp4"}),
        ("<image>\nWhat happens?", {"images": [], "video": "clip.mp4"}),
        ("Frames: <image><image>", {"images": ["a.png"], "video": "clip.mp4"}),
    ],
)
def test_placeholders_that_match_the_images(question: str, changes: dict[str, Any]) -> None:
    assert picture_problem(row(question=question, **changes)) is None


def test_answers_may_mention_any_token() -> None:
    assert list(text_problems(row(response_1="Write <image> and <image>."))) == []


# ---- reasoning


@pytest.mark.parametrize(
    ("reasoning", "reason"),
    [
        ("<think>2 is right.</think><answer>2</answer>", "prefers response 2, but the row prefers 1"),
        ("<think>1</think><answer>1</answer><answer>2</answer>", "has no readable verdict"),
        ("Response 1 is better.", "has no readable verdict"),
        ("<think>x</think><answer>3</answer>", "has no readable verdict"),
        ("<answer></answer>", "has no readable verdict"),
        ("<think>Perhaps <answer>1</answer>? Let me count", "has no readable verdict"),
        ("<think>a</think><think><answer>1</answer>", "has no readable verdict"),
        ("", "is blank"),
        ("\u200b \n", "is blank"),
    ],
)
def test_reasoning_unfit_for_imitation(reasoning: str, reason: str) -> None:
    assert (reasoning_problem(row(reasoning=reasoning)) or "").startswith(reason)


@pytest.mark.parametrize(
    "reasoning", [None, "<think>1.</think><answer>1</answer>", "<think>1</think>\n<answer> 1</answer>"]
)
def test_reasoning_fit_for_imitation(reasoning: str | None) -> None:
    assert reasoning_problem(row(reasoning=reasoning)) is None


# ---- many problems


def problems(count: int, reason: str = "has {} characters", field: str = "response_1") -> list[Problem]:
    return [Problem("a.jsonl", line, field, reason.format(1000 + line)) for line in range(1, count + 1)]


def test_many_problems_of_a_kind_are_grouped_and_few_are_listed() -> None:
    many, few = problems(71_087), problems(3, "is blank", "question")
    shown = summarise([*many, *few])
    assert [(one.problem.line, one.problem.field, len(one.also)) for one in shown] == [
        (1, "question", 0), (1, "response_1", 71_086), (2, "question", 0), (3, "question", 0),
    ]  # fmt: skip
    message = str(PairFileError([*many, *few], 71_087))
    assert message.count("\n") == 4
    assert "line 1, response_1: has 1001 characters (71,086 more: lines 2, 3, 4, ...)" in message
    assert len(PairFileError(many, 71_087).problems) == 71_087


def test_problems_omitted_from_the_message_are_counted() -> None:
    kinds = [Problem("a.jsonl", line, f"field_{chr(96 + line)}", "is missing") for line in range(1, 26)]
    assert "... and 5 more." in str(PairFileError(kinds, 25))


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    ("question", "images"), [("Is <image> a two?", 1), ("Is <image> like <image>?", 2), ("<image 2>?", 2)]
)
def test_text_only_parts_count_as_a_text_with_placeholders(question, images, parts):
    """A plain question has this form in a column of parts."""
    texts = [question] if parts == 1 else ["See:", question]
    content = [{"type": "text", "text": text} for text in texts]
    named = [f"{number}.png" for number in range(images)]
    assert picture_problem(row(question=content, images=named)) is None
    assert "placeholders for" in str(picture_problem(row(question=content, images=[]))) or images == 1
    assert picture_problem(row(question=[*content, {"type": "image", "image": "x.png"}], images=named)) is not None
