"""Check before the first step that all training rows fit into the model's context.

Beyond its positions a model's output is noise, and no logged metric reveals it. Rows that are certainly short enough
(a text has at most as many tokens as bytes, a picture at most as many as its processor allows) are checked at almost no
cost; the others are encoded as in training::

    require_room(Lengths(processor, model.config, frames=8), sft=pairs)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from r1_reward.engines.length import position_limit
from r1_reward.judge.prepare import Prepared, prepare
from r1_reward.models.chats import render
from r1_reward.models.checkpoint import pixel_budget
from r1_reward.models.scalar import critique_text
from r1_reward.records.content import ContentError, Place, fill_places, read_parts
from r1_reward.records.errors import UserError
from r1_reward.records.prompt import special_tokens_of
from r1_reward.records.scalar_prompt import show_answer
from r1_reward.records.schema import CONTENTS
from r1_reward.train.rows import show
from r1_reward.train.scalar import critiques_of

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin

_LOG = logging.getLogger(__name__)
_PROBE = (2048, 2048)
_ODD_SHAPES = 1.5  # a long narrow picture may take more tokens than a square one
_LONGEST = 200  # a picture's longer side, in shorter ones; data checks and Qwen-VL's processors refuse more
_LISTED = 5
_BLANK = Image.new("RGB", (28, 28))


class Shown(NamedTuple):
    """A prompt, its pictures in the order of its image parts, and the text to learn after it."""

    messages: list[dict[str, Any]]
    pictures: Sequence[Image.Image]
    learned: str = ""


Prompts = Callable[[Mapping[str, Any], Prepared], Iterator[Shown]]
"""Maps a row and its prepared form to its prompts."""


class TooLong(NamedTuple):
    """A row that does not fit."""

    name: str
    tokens: int


class Lengths:
    """Counts the tokens of rows with a given processor."""

    def __init__(self, processor: ProcessorMixin, config: Any, *, frames: int) -> None:
        """Take a processor, the configuration of its model, and the frames shown of each video."""
        self.processor: Any = processor
        self.limit = position_limit(config)
        self.frames = frames
        self.special_tokens = special_tokens_of(processor)
        self._per_picture: int | None = None

    def over(self, rows: Iterable[Mapping[str, Any]], prompts: Prompts, most: int) -> Iterator[TooLong]:
        """Yield the rows with a prompt that, with the text to learn, has more than ``most`` tokens.

        Raises:
            UserError: A row cannot be rendered, even with blank pictures.
        """
        for row in rows:
            try:
                blank = prepare(_with_blank_pictures(row, self.frames))
            except (UserError, ContentError) as error:
                raise UserError(f"id {row['id']}: {error}") from error
            tokens = max((self._tokens(row, prompts, *one, most) for one in enumerate(prompts(row, blank))), default=0)
            if tokens > most:
                yield TooLong(str(row["id"]), tokens)

    def _tokens(self, row: Mapping[str, Any], prompts: Prompts, number: int, blank: Shown, most: int) -> int:
        """Return the number of tokens, or a lower one if there are certainly no more than ``most``.

        ``blank`` is the row's prompt of that index with blank pictures, and the maximum number of frames for a video.
        """
        of_pictures = len(blank.pictures) and len(blank.pictures) * self._most_per_picture()
        text = self._text(blank)
        if len(text.encode()) + of_pictures <= most:
            return 0
        tokens = len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])
        if not blank.pictures or tokens + of_pictures <= most:
            return tokens
        try:
            pair = prepare(row, video_frames=self.frames)
        except UserError:  # reported when training reads the row
            return tokens
        shown = list(prompts(row, pair))[number]
        if tokens + self._of_pictures(shown.pictures) <= most:
            return tokens
        return self._encoded(self._text(shown), shown.pictures)

    def _text(self, shown: Shown) -> str:
        return render(self.processor, shown.messages) + shown.learned

    def _most_per_picture(self) -> int:
        if self._per_picture is None:
            budget = pixel_budget(self.processor)
            if budget is None:
                self._per_picture = int(self._of_a_large_picture() * _ODD_SHAPES)
            else:
                # The budget of a family may be a placeholder.
                most = _most_tokens(self.processor.image_processor, budget)
                self._per_picture = max(most, self._of_a_large_picture())
        return self._per_picture

    def _of_pictures(self, pictures: Sequence[Image.Image]) -> int:
        """Return a number of tokens that these pictures do not exceed, from their sizes where the family allows it."""
        images = self.processor.image_processor
        if pixel_budget(self.processor) is None or not hasattr(images, "get_number_of_image_patches"):
            return len(pictures) * self._most_per_picture()
        patches = (images.get_number_of_image_patches(one.height, one.width) for one in pictures)
        return sum(math.ceil(count / images.merge_size**2) for count in patches)

    def _of_a_large_picture(self) -> int:
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}]
        text = self.processor.apply_chat_template(messages, tokenize=False)
        return self._encoded(text, [Image.new("RGB", _PROBE)])

    def _encoded(self, text: str, pictures: Sequence[Image.Image]) -> int:
        inputs = self.processor(text=[text], images=[list(pictures)], add_special_tokens=False)
        return len(inputs["input_ids"][0])


def _most_tokens(images: Any, budget: int) -> int:
    """Return a number of tokens that no picture exceeds after a processor has scaled it to its ``budget`` of pixels."""
    tokens = budget / (images.patch_size * images.merge_size) ** 2
    # A picture that is enlarged has both sides rounded up, which adds most tokens to the longest one.
    return math.ceil(tokens + math.sqrt(tokens) * (math.sqrt(_LONGEST) + 1) + 1)


def _with_blank_pictures(row: Mapping[str, Any], frames: int) -> dict[str, Any]:
    """Return the row with its pictures, and ``frames`` of each video, replaced by blank ones, which open quickly."""

    def blank(content: Any) -> Any:
        if isinstance(content, str):
            return content
        pieces = ([piece] if isinstance(piece, str) else of(piece) for piece in read_parts(content))
        return [piece for some in pieces for piece in some]

    def of(place: Place) -> list[Image.Image]:
        return [_BLANK] * (frames if place.kind == "video" else 1)

    contents, images = fill_places([row[name] for name in CONTENTS], row["images"] or [])
    blanks = [_BLANK] * (len(images) + (frames if row["video"] else 0))
    return {**row, **dict(zip(CONTENTS, map(blank, contents), strict=True)), "images": blanks, "video": None}


def require_room(
    lengths: Lengths,
    *,
    sft: Dataset | None = None,
    rl: Dataset | None = None,
    scalar: Dataset | None = None,
    judged: Dataset | None = None,
    critique: bool = False,
    new_tokens: int = 0,
) -> None:
    """Raise UserError if rows do not fit the model: those of a stage, or those ``judged`` during training.

    With ``critique``, the critiques of ``scalar`` rows count. A prompt that fits, but leaves no room for ``new_tokens``
    after it, only causes a warning.
    """
    if lengths.limit is None:
        return

    special = lengths.special_tokens

    def pairwise(row: Mapping[str, Any], pair: Prepared) -> Iterator[Shown]:  # noqa: ARG001
        yield Shown(*show(pair, special))

    def imitated(row: Mapping[str, Any], pair: Prepared) -> Iterator[Shown]:
        if row["reasoning"] is not None:
            yield Shown(*show(pair, special), row["reasoning"])

    def scored(row: Mapping[str, Any], pair: Prepared) -> Iterator[Shown]:
        learned = ["", ""]
        if critique:
            written = critiques_of(row["reasoning"]) or (None, None)
            learned = [critique_text(lengths.processor, text, special) for text in written]
        for response, text in zip(pair.responses, learned, strict=True):
            yield Shown(*show_answer(pair.question, pair.images.pictures, response, special_tokens=special), text)

    limit = lengths.limit
    for rows, prompts, most in (
        (sft, imitated, limit), (scalar, scored, limit), (rl, pairwise, limit - 1), (judged, pairwise, limit - 1)
    ):  # fmt: skip
        found = [] if rows is None else list(lengths.over(rows, prompts, most))
        if found:
            what = "held-out pairs" if rows is judged else "pairs"
            raise UserError(f"{_listed(found, what)} than the {limit:,} positions of the model; {_ADVICE}")
    if rl is not None and new_tokens and (found := list(lengths.over(rl, pairwise, limit - new_tokens))):
        _LOG.warning(
            "%s than leave room for %d new tokens (the model has %d positions); lower max_completion_length, or scale "
            "pictures down with max_pixels: text beyond these positions is noise.",
            _listed(found, "pairs"), new_tokens, limit,
        )  # fmt: skip


_ADVICE = "remove these rows, or scale their pictures down with max_pixels."


def _listed(found: Sequence[TooLong], what: str) -> str:
    rows = [f"id {one.name}: {one.tokens:,}" for one in found[:_LISTED]]
    more = ", ..." if len(found) > _LISTED else ""
    have = f"1 {what[:-1]} has" if len(found) == 1 else f"{len(found):,} {what} have"
    return f"{have} more tokens, including those of pictures ({', '.join(rows)}{more}),"
