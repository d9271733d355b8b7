"""The visible content of a text decides whether it is blank and whether two are equal."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_reward.records.texts import SEEN, is_blank, same_text, visible

UNSEEN = {
    "zero-width space": "\u200b", "zero-width joiner": "\u200d", "word joiner": "\u2060", "soft hyphen": "\u00ad",
    "byte order mark": "\ufeff", "variation selector": "\ufe0f", "supplementary selector": "\U000e0101",
    "left-to-right mark": "\u200e", "isolate": "\u2068", "Arabic letter mark": "\u061c", "Hangul filler": "\u3164",
    "Mongolian vowel separator": "\u180e", "Braille blank": "\u2800", "tag": "\U000e0041", "control": "\x07",
    "grapheme joiner": "\u034f", "annotation": "\ufff9", "non-joiner": "\u200c", "null note head": "\U0001d159",
    "hieroglyph blank": "\U00013441", "Khitan filler": "\U00016fe4", "half filler": "\uffa0", "end tag": "\U000e007f",
}  # fmt: skip
SPACES = {"no-break": "\u00a0", "ideographic": "\u3000", "thin": "\u2009", "figure": "\u2007", "narrow": "\u202f"}


@pytest.mark.parametrize("text", [*UNSEEN.values(), *SPACES.values(), "", " \t\r\n", "\u2028", "\x85"])
def test_invisible_texts_are_blank(text: str) -> None:
    assert is_blank(text)
    assert is_blank(f" {text}\n{text * 500}")
    assert not is_blank(f"{text}7{text}")
    assert not is_blank(text * 1000 + "7")


@pytest.mark.parametrize("text", UNSEEN.values())
def test_invisible_differences_do_not_count(text: str) -> None:
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
def test_visible_differences_count(one: str, other: str) -> None:
    assert not same_text(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\U0001f469\U0001f467"),  # one family, three people
        ("\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f3f3\ufe0f\U0001f308"),  # a rainbow flag; a white flag, a rainbow
        ("\U0001f469\U0001f3fd\u200d\U0001f4bb", "\U0001f469\U0001f3fd\U0001f4bb"),
        ("\U0001f408\u200d\u2b1b", "\U0001f408\u2b1b"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u062e\u0648\u0627\u0647\u0645"),  # Persian
        ("\u0915\u094d\u200d\u0937", "\u0915\u094d\u0937"),  # Hindi: half form, conjunct
        ("\u0915\u094d\u200c\u0937", "\u0915\u094d\u200d\u0937"),
        ("\u0dc1\u0dca\u200d\u0dbb\u0dd3", "\u0dc1\u0dca\u0dbb\u0dd3"),  # Sinhala
        (
            "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # England
            "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # Scotland
        ),
    ],
)
def test_joiners_and_tags_count_where_they_change_glyphs(one: str, other: str) -> None:
    assert not same_text(one, other) and not same_text(f"It is {one}.", f"It is {other}.")
    assert same_text(f"{one}\u200d \u200b{one}\ufe0f", f"{one} {one}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\u200c\u0645\u06cc\u200d", "\u0645\u06cc"),
        ("\U0001f468\u200d", "\U0001f468"),
        ("\U0001f468\u200c\U0001f469", "\U0001f468\U0001f469"),
        ("a\u200db\u200cc", "abc"),
        ("\u2764\ufe0f", "\u2764"),
        ("\u061c\u200c\u061c", ""),
        ("\u180b\u200d\u180c", ""),
    ],
)
def test_joiners_that_join_nothing_are_invisible(one: str, other: str) -> None:
    assert same_text(one, other)


@pytest.mark.parametrize("text", ["&nbsp;", "<br>", "&#8203;", "---", "\ufffd", "\u0301"])
def test_what_a_judge_is_shown_is_not_blank(text: str) -> None:
    assert not is_blank(text)


def test_a_lone_surrogate_does_not_raise() -> None:
    assert visible(" \ud800\u200b ") == "\ud800"


@given(
    st.text(st.characters(max_codepoint=0xFFFF), max_size=6) | st.text("\x04\x1c\x85\u00a0\u00ad\u200c\u200d\u2800a")
)
def test_the_schema_pattern_agrees_with_is_blank(text: str) -> None:
    assert bool(re.search(SEEN, text)) is not is_blank(text)
