"""Whether all that training shows the model has room in it, seen before the first step.

Beyond its positions a model learns, and says, anything, and no number of the log would tell. Rows that are certainly
short enough (no more tokens than bytes, and no more for a picture than for a large square one) cost next to nothing;
the others are encoded as training encodes them::

    require_room(Lengths(processor, model.config, frames=8), sft=pairs)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from r1_reward.engines.length import position_limit
from r1_reward.judge.prepare import Prepared, prepare
from r1_reward.models.chats import render
from r1_reward.records.content import ContentError, Place, fill_places, read_parts
from r1_reward.records.errors import UserError
from r1_reward.records.prompt import special_tokens_of
from r1_reward.records.scalar_prompt import show_answer
from r1_reward.records.schema import CONTENTS
from r1_reward.train.rows import show

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin

_LOG = logging.getLogger(__name__)
_PROBE = (2048, 2048)
_ODD_SHAPES = 1.5  # a long narrow picture may take more tokens than a square one
_LISTED = 5
_BLANK = Image.new("RGB", (28, 28))


class Shown(NamedTuple):
    """A prompt, its pictures in the order of its image parts, and what is to be learned behind it."""

    messages: list[dict[str, Any]]
    pictures: Sequence[Image.Image]
    learned: str = ""


Prompts = Callable[[Mapping[str, Any], Prepared], Iterator[Shown]]
"""A row, and what is shown of it, to the prompts it is shown in."""


class TooLong(NamedTuple):
    """A row that has no room."""

    name: str
    tokens: int


class Lengths:
    """Counts the tokens of rows as one processor makes them."""

    def __init__(self, processor: ProcessorMixin, config: Any, *, frames: int) -> None:
        """Take a processor, the configuration of its model, and how many frames of a video are shown."""
        self._processor: Any = processor
        self.limit = position_limit(config)
        self.frames = frames
        self.special_tokens = special_tokens_of(processor)
        self._per_picture: int | None = None

    def over(self, rows: Iterable[Mapping[str, Any]], prompts: Prompts, most: int) -> Iterator[TooLong]:
        """Yield the rows of which a prompt, with what is learned behind it, has more than ``most`` tokens.

        Raises:
            UserError: a row cannot be shown, whatever its pictures.
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
        """Return how many tokens there are; where they are certainly no more than ``most``, a number that is not.

        ``blank`` is the row's prompt of that number with blank pictures, and as many frames as a video may show.
        """
        of_pictures = len(blank.pictures) and len(blank.pictures) * self._most_per_picture()
        text = self._text(blank)
        if len(text.encode()) + of_pictures <= most:
            return 0
        tokens = len(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])
        if not blank.pictures or tokens + of_pictures <= most:
            return tokens
        try:
            pair = prepare(row, video_frames=self.frames)
        except UserError:  # whoever shows it says what is wrong with it
            return tokens
        shown = list(prompts(row, pair))[number]
        return self._encoded(self._text(shown), shown.pictures)

    def _text(self, shown: Shown) -> str:
        return render(self._processor, shown.messages) + shown.learned

    def _most_per_picture(self) -> int:
        if self._per_picture is None:
            messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}]
            text = self._processor.apply_chat_template(messages, tokenize=False)
            self._per_picture = int(self._encoded(text, [Image.new("RGB", _PROBE)]) * _ODD_SHAPES)
        return self._per_picture

    def _encoded(self, text: str, pictures: Sequence[Image.Image]) -> int:
        inputs = self._processor(text=[text], images=[list(pictures)], add_special_tokens=False)
        return len(inputs["input_ids"][0])


def _with_blank_pictures(row: Mapping[str, Any], frames: int) -> dict[str, Any]:
    """Return a row with a blank picture for each of its own, and so many for a video: quickly opened, and as long."""

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
    new_tokens: int = 0,
) -> None:
    """Raise UserError if rows do not fit the model: those of a stage, or those ``judged`` during training.

    A prompt that has room, but not for ``new_tokens`` behind it, is allowed and said.
    """
    if lengths.limit is None:
        return

    special = lengths.special_tokens

    def pairwise(row: Mapping[str, Any], pair: Prepared) -> Iterator[Shown]:  # noqa: ARG001
        yield Shown(*show(pair, special))

    def imitated(row: Mapping[str, Any], pair: Prepared) -> Iterator[Shown]:
        if row["reasoning"] is not None:
            yield Shown(*show(pair, special), row["reasoning"])

    def scored(row: Mapping[str, Any], pair: Prepared) -> Iterator[Shown]:  # noqa: ARG001
        for response in pair.responses:
            yield Shown(*show_answer(pair.question, pair.images.pictures, response, special_tokens=special))

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
            "pictures down with max_pixels: what a judgement says beyond its positions is noise.",
            _listed(found, "pairs"), new_tokens, limit,
        )  # fmt: skip


_ADVICE = "leave these rows out, or scale their pictures down with max_pixels."


def _listed(found: Sequence[TooLong], what: str) -> str:
    rows = [f"id {one.name}: {one.tokens:,}" for one in found[:_LISTED]]
    more = ", ..." if len(found) > _LISTED else ""
    have = f"1 {what[:-1]} has" if len(found) == 1 else f"{len(found):,} {what} have"
    return f"{have} more tokens, those of pictures included ({', '.join(rows)}{more}),"
