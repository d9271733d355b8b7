"""Open and process the pictures of a rollout once.

TRL passes the whole rollout batch to the trainer at every step of gradient accumulation but uses it only at the first.
It runs the processor for generation, again for the log-probabilities, and for some families a third time, for tiles.
Rows therefore carry their pairs as stored, :func:`open_pictures` opens them when a rollout begins, and
:func:`processed_once` caches the image processor's results until it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from r1_reward.judge.prepare import Prepared, prepare
from r1_reward.models.chats import placed
from r1_reward.records.prompt import special_tokens_of
from r1_reward.records.schema import CONTENTS
from r1_reward.store.video import FRAMES
from r1_reward.train.rows import show


def open_pictures(
    rows: Sequence[Mapping[str, Any]], processor: Any, video_frames: int = FRAMES
) -> list[dict[str, Any]]:
    """Return rows with the ``prompt`` and the ``images`` of their ``pair``, in the order of the prompt's image parts.

    Pairs with the same content, in either order of their responses, share their pictures; videos are shown as up to
    ``video_frames`` frames.

    Raises:
        UserError: A picture or video cannot be read, or a pair cannot be rendered.
    """
    tokens = special_tokens_of(processor)
    opened: dict[Any, Prepared] = {}
    shown: dict[Any, tuple[list[dict[str, Any]], list[Any]]] = {}
    result = []
    for row in rows:
        there, back = _key(row["pair"]), _key(row["pair"], turned=True)
        if there not in shown:
            other = opened.get(back)
            pair = prepare(row["pair"], video_frames=video_frames) if other is None else _turned(other)
            messages, pictures = show(pair, tokens)
            opened[there], shown[there] = pair, (placed(processor, messages), pictures)
        messages, pictures = shown[there]
        result.append({**row, "prompt": messages, "images": pictures})
    return result


def _turned(pair: Prepared) -> Prepared:
    return pair._replace(responses=pair.responses[::-1], preferred=None)


def _key(pair: Mapping[str, Any], *, turned: bool = False) -> Any:
    """Return a key for the content of a pair, the same if its responses are exchanged."""
    question, *responses = CONTENTS
    names = (question, *(responses[::-1] if turned else responses), "images", "video", "criteria")
    return tuple(_frozen(pair.get(name)) for name in names)


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple((name, _frozen(one)) for name, one in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


@contextmanager
def processed_once(processor: Any) -> Iterator[None]:
    """Cache the results of ``processor`` for equal lists of pictures and equal options inside the block.

    The results share their tensors, which must not be changed in place.
    """
    image_processor = getattr(processor, "image_processor", None)
    if image_processor is None:
        yield
        return
    known: dict[Any, tuple[Any, Any]] = {}
    process = image_processor.preprocess

    def preprocess(images: Any, *args: Any, **options: Any) -> Any:
        options["return_tensors"] = "pt"  # only the second call asks for it, but the first can use it
        key = (_identities(images), repr(args), repr(sorted(options.items(), key=str)))
        if key not in known:
            known[key] = (images, process(images, *args, **options))  # keeping the images alive keeps their ids valid
        result = known[key][1]
        return type(result)(dict(result))

    image_processor.preprocess = preprocess
    try:
        yield
    finally:
        del image_processor.preprocess


def _identities(images: Any) -> Any:
    return tuple(map(_identities, images)) if isinstance(images, (list, tuple)) else id(images)
