"""Find image placeholders in texts, in the spelling of any model family, and check that the images are there.

Trainers and datasets mark an image's position with a token: ``<image>`` (LLaVA and most datasets),
``<|vision_start|><|image_pad|><|vision_end|>`` (Qwen), ``[IMG]`` (Mistral), ``<start_of_image>`` (Gemma). Without its
images, such a text would be judged blind, so every entry point checks :func:`mismatch` first. The tokens never reach a
judge, which sees all images first and then the text; :func:`name_pictures` replaces them by words where needed.

>>> [place.text for place in find_placeholders("Is <image> taken after <image>?")]
['<image>', '<image>']
>>> mismatch(find_placeholders("<image> Which digit?"), 0)
'has a placeholder for 1 image (<image>), but none was given'
>>> name_pictures("<image>Which digit?"), name_pictures("Is <image> taken after <image>?")
('Which digit?', 'Is image 1 taken after image 2?')
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from r1_reward.records.texts import is_blank

_MEDIUM = r"(?:image|img|video|vid|vision)"
# The role of a token in a group that marks one image. All are in angle brackets, most with bars inside.
_ROLES = {
    # starts a group
    "open": rf"(?:start|begin)_of_(?:image|img|video)|{_MEDIUM}[_ ](?:start|bos)|img|frame_start",
    # ends it
    "close": rf"end_of_(?:image|img|video)|{_MEDIUM}[_ ](?:end|eos)|endofimg|/image|/img|/video|frame_end",
    # fills an image's slot: any number of the same one is one image
    "pad": rf"{_MEDIUM}_?(?:pad|patch|context|soft_token|col|row|atom|newline|line_break|plh)|media_pad"
    r"|patch(?:_newline)?|endoftext10",
    # one image each
    "one": r"(?:vila/)?(?:image|video)|imagehere|(?:kimi_k25_)?(?:image|video)[_@ ](?:placeholder|token)|content_image",
    # a position within an image, or the neighborhood of one
    "tile": r"(?:img_)?row_\d+_col_\d+|(?:img|image)_thumbnail|tile_[xy]_separator|global-img|fake_token_around_image",
    # an image by its number
    "number": r"(?:image|img|video)[ _-]?\d{1,3}",
}
# LLaVA's and Molmo's, without bars; with bars they start and end a turn (ChatML).
_BARELESS = {"open": r"(?:low_res_)?im_start", "close": "im_end", "pad": r"im_(?:patch|col|low)"}
_FEWEST_TOKENS = 64
"""No family expands an image to fewer tokens, so a run of at least this many is a single image."""
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
_LONGEST_NAME = 300  # characters of a file name between an opening and a closing token
_LONGEST_SHOWN = 60
_SHOWN = 3
_OPENING, _CLOSING = ("(", "[", "{"), (".", ",", ";", ":", "!", "?", ")", "]", "}")


class Placeholder(NamedTuple):
    """A placeholder for one image or video: ``text[start:end]``."""

    start: int
    end: int
    kind: Literal["image", "video"]
    text: str
    """Its text, or its first token if the text is long."""
    number: int | None = None
    """The image's number, from 1, if the text names one (``<image 2>``); None: the next image."""


def find_placeholders(text: str) -> list[Placeholder]:
    """Return the image and video placeholders of a text in order; the many tokens of one image count once."""
    return _scan(text)[0]


def mismatch(found: Sequence[Placeholder], pictures: int) -> str | None:
    """Return why this many images do not match the placeholders, or None if they do.

    A text without placeholders matches any number. A video stands for one or more images, its frames, and numbered
    placeholders may refer to only some of the images.
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
    given = {0: "none was", 1: "1 was"}.get(pictures, f"{pictures} were")
    places = "a placeholder for 1 image" if wanted == 1 else f"placeholders for {wanted} images"
    return f"has {places} ({named}), but {given} given"


def name_pictures(text: str, before: int = 0, *, ends: bool = False) -> str:
    """Return a text without placeholder tokens, for a judge that sees its images first.

    Placeholders without numbers carry no information if all come before the text or all after it: they are removed with
    the adjacent white space. Otherwise each becomes "image 2" or the like ("image 1 is older than image 2"). ``before``
    images were shown earlier in the chat; ``ends`` names all placeholders, for chats with images in several turns.
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
        if name:  # a token separates words, a name does not
            after = text[stop : stop + 1]
            name = " " * _ends_word(result[-1:]) + name + " " * (after.isalnum() or after in _OPENING)
        result, end = result + name, stop
    return (result + text[end:]).strip()


def at_one_end(text: str, found: Sequence[Placeholder]) -> bool:
    """Return whether all placeholders come before the text, or all after it."""
    starts, ends = [0, *(place.end for place in found)], [*(place.start for place in found), len(text)]
    spoken = [
        index for index, (start, end) in enumerate(zip(starts, ends, strict=True)) if not is_blank(text[start:end])
    ]
    return not spoken or spoken in ([0], [len(found)])


def _ends_word(character: str) -> bool:
    return character.isalnum() or character in _CLOSING


def _scan(text: str) -> tuple[list[Placeholder], list[tuple[int, int]]]:
    """Return the placeholders, and the spans of stray closing tokens, which mark no image."""
    found: list[Placeholder] = []
    strays: list[tuple[int, int]] = []
    opened, before, end = False, "", 0  # the last token: whether its group is open, its text, its end
    for match in filter(_is_token, _TOKEN.finditer(text)):
        role, token, gap = _role(match), match[0], text[end : match.start()]
        near = bool(found) and found[-1].end == end and not gap.strip()  # nothing but white space since the last one
        opened = opened and near
        if role == "close":
            # <img> and </img> may enclose a file name.
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
    if any(place.number == 0 for place in found):  # the text counts from 0
        found = [place._replace(number=None if place.number is None else place.number + 1) for place in found]
    return [_whole(place, text) for place in found], strays


def _whole(place: Placeholder, text: str) -> Placeholder:
    short = place.end - place.start <= _LONGEST_SHOWN
    return place._replace(text=text[place.start : place.end]) if short else place


def _is_token(match: re.Match[str]) -> bool:
    """Return whether a match is a token and not a type or component in code, as in ``List<Image>``."""
    name = match[0].strip("<>/")
    return not name.istitle() or not name.isalpha()


def _role(match: re.Match[str]) -> str:
    role = (match.lastgroup or "").removeprefix("bare_")
    return {"kimi": "open", "kimi_end": "close", "run": "one", "first": "one"}.get(role, role)


def _kind(token: str) -> Literal["image", "video"]:
    return "video" if "vid" in token.lower() else "image"


def _pixtral(match: re.Match[str]) -> Iterator[Placeholder]:
    """Yield a placeholder for the rows of each expanded image, and one for each ``[IMG]`` not expanded yet."""
    start, rows = match.start(), match[0].split("[IMG_END]")
    for row in rows[:-1]:
        end = start + len(row) + len("[IMG_END]")
        yield Placeholder(start, end, "image", "[IMG]")
        start = end
    for one in re.finditer(r"\[IMG\](?:\[IMG_BREAK\])*|(?:\[IMG_BREAK\])+", rows[-1]):
        yield Placeholder(start + one.start(), start + one.end(), "image", "[IMG]")
