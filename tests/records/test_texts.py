"""What a reader sees of a text decides what is blank and what is equal."""

import pytest

from r1_reward.records.texts import is_blank, same_text, visible

UNSEEN = {
    "zero-width space": "\u200b", "zero-width joiner": "\u200d", "word joiner": "\u2060", "soft hyphen": "\u00ad",
    "byte order mark": "\ufeff", "variation selector": "\ufe0f", "supplementary selector": "\U000e0101",
    "left-to-right mark": "\u200e", "isolate": "\u2068", "Arabic letter mark": "\u061c", "Hangul filler": "\u3164",
    "Mongolian vowel separator": "\u180e", "Braille blank": "\u2800", "tag": "\U000e0041", "control": "\x07",
    "grapheme joiner": "\u034f", "annotation": "\ufff9",
}  # fmt: skip
SPACES = {"no-break": "\u00a0", "ideographic": "\u3000", "thin": "\u2009", "figure": "\u2007", "narrow": "\u202f"}


@pytest.mark.parametrize("text", [*UNSEEN.values(), *SPACES.values(), "", " \t\r\n", "\u2028", "\x85"])
def test_what_shows_nothing_is_blank(text: str) -> None:
    assert is_blank(text)
    assert is_blank(f" {text}\n{text * 500}")
    assert not is_blank(f"{text}7{text}")
    assert not is_blank(text * 1000 + "7")


@pytest.mark.parametrize("text", UNSEEN.values())
def test_texts_that_differ_in_what_nobody_sees_are_the_same(text: str) -> None:
    assert same_text(f"An eight{text}.", "An eight.")
    assert same_text(f"{text}An eight.", f"An {text}eight.{text}")
    assert not same_text(f"An eight{text}.", "An eigth.")


@pytest.mark.parametrize("space", SPACES.values())
def test_all_spaces_look_alike(space: str) -> None:
    assert same_text(f"An{space}eight.", "An eight.")
    assert not same_text(f"An{space}eight.", "Aneight.")


@pytest.mark.parametrize(
    ("one", "other"),
    [("a\r\nb", "a\nb"), ("a\u2028b", "a\nb"), ("café", "cafe\u0301"), ("\u1ea1\u0301", "\u0061\u0323\u0301")],
)
def test_line_ends_and_accents_have_one_form(one: str, other: str) -> None:
    assert same_text(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("if a:\n    b\nc", "if a:\n    b\n    c"), ("a  b", "a b"), ("A", "a"), ("ﬁ", "fi"), ("ａ", "a"), ("x²", "x2"),
        ("\u0627\u06dd", "\u0627"), ("-", "–"), ("a\tb", "a b"),
    ],
)  # fmt: skip
def test_what_can_be_seen_makes_a_difference(one: str, other: str) -> None:
    assert not same_text(one, other)


def test_a_lone_surrogate_is_no_reason_to_fail() -> None:
    assert visible(" \ud800\u200b ") == "\ud800"
