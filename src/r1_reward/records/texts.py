r"""The visible content of a text: is it blank, and do two texts look the same?

Answers contain invisible characters: zero-width spaces and joiners, soft hyphens, byte order marks, variation
selectors, direction marks. Between texts that differ only in these, a judge cannot choose. Elsewhere the same
characters are visible: a joiner combines three emoji into one family and shapes Persian and Hindi words. Markup counts
as text: the judge sees ``&nbsp;`` and ``<br>``, so they are not blank.

>>> is_blank("\u200b\u00a0\ufeff")
True
>>> same_text("\U0001f468\u200d\U0001f469", "\U0001f468\U0001f469")
False
>>> visible("An\u00a0eight\u200b.\r\n") == visible("An eight.")
True
"""

from __future__ import annotations

import re
import unicodedata

# Between letters of joining or stacking scripts, and between emoji, a joiner changes the glyphs; so do the tags of a
# flag (England's, Scotland's).
_JOINING = r"\u0620-\u0dff\u1000-\u109f\u1780-\u17b3\u17b6-\u17ff\u1820-\u18af\ua840-\ua877\ufb50-\ufdff\ufe70-\ufefc"
_EMOJI = r"\u2190-\u21ff\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"
_FLAG = r"\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f"
# Unicode's Default_Ignorable_Code_Point, annotation marks, blank symbols (Braille, note head, hieroglyphs), and control
# characters other than white space.
_SHOWS_NOTHING = (
    r"\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
)
_UNSEEN = re.compile(
    rf"({_FLAG})"
    rf"|[\u200c\u200d](?!(?<=[{_JOINING}].)[{_JOINING}]|(?<=[{_EMOJI}\ufe0f]\u200d)[{_EMOJI}])"
    rf"|[{_SHOWS_NOTHING}\U00013441\U00013442\U00016fe4\U0001bca0-\U0001bca3\U0001d159"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
SEEN = rf"[^\s\x1c-\x1f\x85\u200c\u200d{_SHOWS_NOTHING}]"
"""Matches a visible character, for schemas: a regular expression portable across languages (it misses a few blank
characters beyond U+FFFF)."""
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_BEGINNING = 200  # characters; nearly always enough to tell that a text is not blank
_SPACES = re.compile("[\x1f\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")


def visible(text: str) -> str:
    """Return the visible content of a text, for comparisons: equal for texts that look the same.

    Invisible characters are removed, all kinds of spaces and line ends are unified, surrounding white space is
    stripped, and a letter with its accent becomes one character (NFC). White space *within* the text stays, since it
    has meaning in code and tables.
    """
    if text.isascii() and text.isprintable():
        return text.strip()
    text = _SPACES.sub(" ", _LINE_ENDS.sub("\n", _UNSEEN.sub(r"\1", text)))
    return unicodedata.normalize("NFC", text).strip()


def is_blank(text: str) -> bool:
    """Return whether a text is empty, white space, or invisible characters only."""
    return not visible(text[:_BEGINNING]) and not visible(text)


def same_text(first: str, second: str) -> bool:
    """Return whether two texts look the same."""
    return first == second or visible(first) == visible(second)
