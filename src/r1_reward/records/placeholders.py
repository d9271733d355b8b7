"""Where a text has places for pictures, in the spelling of any model family, and whether the pictures are there.

Trainers and data sets put a token where a picture is spliced in: ``<image>`` (LLaVA and most data sets),
``<|vision_start|><|image_pad|><|vision_end|>`` (Qwen), ``[IMG]`` (Mistral), ``<start_of_image>`` (Gemma). A judge that
is shown such a text without its pictures judges blind, so whoever takes a question in asks :func:`mismatch` first. The
token itself never reaches a judge, which sees pictures first and then the text: :func:`name_pictures` writes what is
lost by that.

>>> [place.text for place in find_placeholders("Is <image> taken after <image>?")]
['<image>', '<image>']
>>> mismatch(find_placeholders("<image> Which digit?"), 0)
'has a place for 1 picture (<image>), and none came'
>>> name_pictures("<image>Which digit?"), name_pictures("Is <image> taken after <image>?")
('Which digit?', 'Is image 1 taken after image 2?')
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from r1_reward.records.texts import is_blank

_MEDIUM = r"(?:image|img|video|vid|vision)"
# By what a token does in a group that stands for one picture. All are between angle brackets, most with bars inside.
_ROLES = {
    # begins a group
    "open": rf"(?:start|begin)_of_(?:image|img|video)|{_MEDIUM}[_ ](?:start|bos)|img|frame_start",
    # ends it
    "close": rf"end_of_(?:image|img|video)|{_MEDIUM}[_ ](?:end|eos)|endofimg|/image|/img|/video|frame_end",
    # what a picture is filled with: any number of the same one is one picture
    "pad": rf"{_MEDIUM}_?(?:pad|patch|context|soft_token|col|row|atom|newline|line_break|plh)|media_pad"
    r"|patch(?:_newline)?|endoftext10",
    # a picture each
    "one": r"(?:vila/)?(?:image|video)|imagehere|(?:kimi_k25_)?(?:image|video)[_@ ](?:placeholder|token)|content_image",
    # says where in a picture, or that one is near
    "tile": r"(?:img_)?row_\d+_col_\d+|(?:img|image)_thumbnail|tile_[xy]_separator|global-img|fake_token_around_image",
    # a picture by its number
    "number": r"(?:image|img|video)[ _-]?\d{1,3}",
}
# LLaVA's and Molmo's have no bars: with them they begin and end a turn (ChatML).
_BARELESS = {"open": r"(?:low_res_)?im_start", "close": "im_end", "pad": r"im_(?:patch|col|low)"}
_FEWEST_TOKENS = 64
"""No family expands a picture to fewer tokens; so many in a row are one picture, not as many pictures."""
_TOKEN = re.compile(
    "|".join(
        [
            rf"(?i:(?P<run>(?P<first><[|｜]?(?:image|video)[|｜]?>)(?P=first){{{_FEWEST_TOKENS - 1},}}))",
            r"(?i:(?P<kimi><\|media_(?:start|begin)\|>(?:image|video)<\|media_content\|>)|(?P<kimi_end><\|media_end\|>))",
            r"(?P<pixtral>(?:\[IMG(?:_BREAK|_END)?\])+)",
            *(rf"(?i:(?P<{role}><(?:[|｜](?:{names})[|｜]|{names})>))" for role, names in _ROLES.items()),
            *(rf"(?i:(?P<bare_{role}><(?:{names})>))" for role, names in _BARELESS.items()),
        ]
    )
)
_LONGEST_NAME = 300  # characters of a file's name between an opening and a closing token
_LONGEST_SHOWN = 60
_SHOWN = 3
_OPENING, _CLOSING = ("(", "[", "{"), (".", ",", ";", ":", "!", "?", ")", "]", "}")


class Placeholder(NamedTuple):
    """A place for one picture: ``text[start:end]``."""

    start: int
    end: int
    kind: Literal["image", "video"]
    text: str
    """Its text; where that is long, its first token."""
    number: int | None = None
    """Which picture, from 1, where the text says so (``<image 2>``); None: the next one."""


def find_placeholders(text: str) -> list[Placeholder]:
    """Return the places for pictures and videos in a text, in order; of a picture's many tokens one place."""
    return _scan(text)[0]


def mismatch(found: Sequence[Placeholder], pictures: int) -> str | None:
    """Return in words why so many pictures cannot be those that the places are for; None where they can.

    A text without places may have any pictures. A video is any number of pictures above 0, its frames, and where places
    have numbers there may be more pictures than the text speaks of.
    """
    if not found:
        return None
    highest = max((place.number or 0 for place in found), default=0)
    wanted = sum(place.number is None for place in found) + highest
    exact = not highest and all(place.kind == "image" for place in found)
    if pictures == wanted or (pictures > wanted and not exact):
        return None
    tokens = list(dict.fromkeys(place.text for place in found))
    named = ", ".join(tokens[:_SHOWN]) + (", ..." if len(tokens) > _SHOWN else "")
    came = "none" if not pictures else str(pictures)
    places = "a place for 1 picture" if wanted == 1 else f"places for {wanted} pictures"
    return f"has {places} ({named}), and {came} came"


def name_pictures(text: str, before: int = 0, *, ends: bool = False) -> str:
    """Return a text for a judge that is shown the pictures in front of it, without any of their tokens.

    Places without numbers say nothing where all stand before the text, or all behind it: they are left out with the
    white space beside them. Else "image 2" takes the place of each ("image 1 is older than image 2"). ``before``
    pictures were shown earlier in the chat; where several turns have pictures, ``ends`` has all places named.
    """
    found, strays = _scan(text)
    if not found and not strays:
        return text
    silent = not ends and all(place.number is None for place in found) and at_one_end(text, found)
    names = [(*stray, "") for stray in strays]
    numbers = {"image": before, "video": 0}
    for place in found:
        numbers[place.kind] += place.number is None
        name = f"{place.kind} {place.number or numbers[place.kind]}"
        names.append((place.start, place.end, "" if silent else name))
    result, end = "", 0
    for start, stop, name in sorted(names):
        result += text[end:start]
        if name:  # a token ends a word, a name does not
            after = text[stop : stop + 1]
            name = " " * _ends_word(result[-1:]) + name + " " * (after.isalnum() or after in _OPENING)
        result, end = result + name, stop
    return (result + text[end:]).strip()


def at_one_end(text: str, found: Sequence[Placeholder]) -> bool:
    """Return whether all places of a text stand before it, or all behind it."""
    starts, ends = [0, *(place.end for place in found)], [*(place.start for place in found), len(text)]
    spoken = [
        index for index, (start, end) in enumerate(zip(starts, ends, strict=True)) if not is_blank(text[start:end])
    ]
    return not spoken or spoken in ([0], [len(found)])


def _ends_word(character: str) -> bool:
    return character.isalnum() or character in _CLOSING


def _scan(text: str) -> tuple[list[Placeholder], list[tuple[int, int]]]:
    """Return the places, and the spans of tokens that stand for no picture of their own: an end without a beginning."""
    found: list[Placeholder] = []
    strays: list[tuple[int, int]] = []
    opened, before, end = False, "", 0  # of the last token: whether its group is open, its text, where it ends
    for match in filter(_is_token, _TOKEN.finditer(text)):
        role, token, gap = _role(match), match[0], text[end : match.start()]
        near = bool(found) and found[-1].end == end and not gap.strip()  # nothing but space since the last place
        opened = opened and near
        if role == "close":
            # <img> and </img> may enclose the name of a file.
            named = len(gap) <= _LONGEST_NAME and not any(character.isspace() for character in gap)
            joins = bool(found) and found[-1].end == end and (named or near)
        else:
            same = role == "pad" and near and not gap and token == before
            joins = same or (role in ("one", "pad") and opened) or (role == "tile" and near)
        if role == "pixtral":
            found += _pixtral(match)
        elif joins:
            kind = "video" if _kind(token) == "video" else found[-1].kind
            found[-1] = found[-1]._replace(end=match.end(), kind=kind)
        elif role == "close":
            strays.append(match.span())
        else:
            number = int(re.sub(r"\D", "", token)) if role == "number" else None
            found.append(Placeholder(*match.span(), _kind(token), token[: token.index(">") + 1], number))
        opened = role in ("open", "tile") or (opened and role != "close")
        before, end = token, match.end()
    if any(place.number == 0 for place in found):  # they count from 0
        found = [place._replace(number=None if place.number is None else place.number + 1) for place in found]
    return [_whole(place, text) for place in found], strays


def _whole(place: Placeholder, text: str) -> Placeholder:
    short = place.end - place.start <= _LONGEST_SHOWN
    return place._replace(text=text[place.start : place.end]) if short else place


def _is_token(match: re.Match[str]) -> bool:
    """Say whether a match is not a type or component of a program: ``List<Image>``."""
    name = match[0].strip("<>/")
    return not name.istitle() or not name.isalpha()


def _role(match: re.Match[str]) -> str:
    role = (match.lastgroup or "").removeprefix("bare_")
    return {"kimi": "open", "kimi_end": "close", "run": "one", "first": "one"}.get(role, role)


def _kind(token: str) -> Literal["image", "video"]:
    return "video" if "vid" in token.lower() else "image"


def _pixtral(match: re.Match[str]) -> Iterator[Placeholder]:
    """Yield a place for the rows of each picture, and one for each ``[IMG]`` that nobody has expanded yet."""
    start, rows = match.start(), match[0].split("[IMG_END]")
    for row in rows[:-1]:
        end = start + len(row) + len("[IMG_END]")
        yield Placeholder(start, end, "image", "[IMG]")
        start = end
    for one in re.finditer(r"\[IMG\](?:\[IMG_BREAK\])*|(?:\[IMG_BREAK\])+", rows[-1]):
        yield Placeholder(start + one.start(), start + one.end(), "image", "[IMG]")
