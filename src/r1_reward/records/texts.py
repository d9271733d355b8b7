"""What a reader sees of a text: blank is what shows nothing, and texts that look the same are the same.

Answers come with characters that nobody sees: zero-width spaces and joiners, soft hyphens, byte order marks, variation
selectors, marks of direction. A judge who is to choose between texts that differ in nothing else has nothing to go by.

>>> is_blank("\\u200b\\u00a0\\ufeff")
True
>>> visible("An\\u00a0eight\\u200b.\\r\\n") == visible("An eight.")
True
"""

from __future__ import annotations

import re
import unicodedata

# Unicode's Default_Ignorable_Code_Point, the marks around annotations, the blank Braille pattern, and control
# characters that are no white space.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_BEGINNING = 200  # characters, nearly always enough to see that a text is not blank
_SPACES = re.compile("[\x1f\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")


def visible(text: str) -> str:
    """Return what can be seen of a text, for comparisons: equal for texts that look the same.

    Characters that show nothing are left out, all kinds of spaces and of line ends are made one, white space around
    the text is taken off, and a letter with its accent is one character (NFC). White space *within* the text stays:
    it is meaning in code and tables.
    """
    if text.isascii() and text.isprintable():
        return text.strip()
    text = _SPACES.sub(" ", _LINE_ENDS.sub("\n", _UNSEEN.sub("", text)))
    return unicodedata.normalize("NFC", text).strip()


def is_blank(text: str) -> bool:
    """Return whether a text shows nothing: empty, white space, or characters that nobody sees."""
    return not visible(text[:_BEGINNING]) and not visible(text)


def same_text(first: str, second: str) -> bool:
    """Return whether two texts look the same."""
    return first == second or visible(first) == visible(second)
