"""Draw the votes on pairs from an engine: what is shown in which order with which seed, and how many are needed.

A vote depends on what is shown (question, pictures, the two responses in their order), on the seed and on the vote's
number, and on nothing else: not on the place in a stream, nor on how a picture was handed over. The same pair asked
twice gets the same votes, and the pair turned round gets them turned round::

    pairs = (prepare(item) for item in items)
    for votes in draw_votes(engine, pairs, Plan(votes=5, temperature=1.0)):
        ...                                                     # Judgments in the order they were drawn, or an error

With a stopping rule votes are drawn in rounds, none of them larger than what can decide the pair, and the votes of all
undecided pairs go to the engine together. What is drawn is the beginning of what would be drawn without the rule.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from PIL import Image

from r1_reward.engines.in_process import Engine, EngineError, Request
from r1_reward.engines.scalar import AnswerScorer, Score
from r1_reward.judge.judging import compare_scores, read_judgment
from r1_reward.judge.voting import Stopping
from r1_reward.records.checks import MAX_RESPONSE_CHARS
from r1_reward.records.errors import UserError
from r1_reward.records.prompt import build_messages
from r1_reward.records.schema import Judgment
from r1_reward.store.images import ImageSource, open_image
from r1_reward.store.video import FRAMES, Video, open_video, row_pictures

if TYPE_CHECKING:
    from r1_reward.models.scalar import Candidate

_BATCHES_AHEAD = 4  # batches of votes under way in rounds: full batches although pairs are decided one by one
_BAD_AT_ONCE = 1000  # unusable pairs in a row that may wait for the next usable one
_SCORED_AT_ONCE = 128
_KNOWN_SCORES = 4096


class OpenedImages(NamedTuple):
    """The pictures of a question, ready to be shown any number of times; :func:`open_images` makes it."""

    pictures: tuple[Image.Image, ...]
    digest: str
    """64 hex digits that depend on the pixels alone."""


Images: TypeAlias = "Sequence[ImageSource | Video] | OpenedImages"


class PairToJudge(NamedTuple):
    """A question about pictures and two responses, of which nobody knows yet which is better."""

    question: str
    images: Images
    response_1: str
    response_2: str


class InvalidPair(EngineError):
    """One pair cannot be shown to any judge: a blank text, a picture that cannot be opened. The others go on."""


class Prepared(NamedTuple):
    """A checked pair with its pictures opened."""

    question: str
    images: OpenedImages
    responses: tuple[str, str]

    def shown(self, swapped: bool) -> tuple[str, str]:
        """Return the responses in the order they are shown."""
        return self.responses[::-1] if swapped else self.responses


class Slot(NamedTuple):
    """One vote to draw."""

    swapped: bool
    seed: int


class Plan(NamedTuple):
    """How votes are drawn."""

    votes: int = 1
    """For each order shown."""
    both_orders: bool = True
    temperature: float = 0.0
    stopping: Stopping | None = None
    max_new_tokens: int = 1024
    seed: int = 0

    def slots(self, pair: Prepared) -> list[Slot]:
        """Return every vote that may be drawn on a pair, in sequence: the orders take turns.

        Which order comes first (the only one, without ``both_orders``) is drawn from the content, so that over many
        pairs neither place is favoured, and a pair turned round is shown in the same order.
        """
        smaller, larger = sorted(pair.responses)
        smaller_first = _number("order", self.seed, pair.question, pair.images.digest, smaller, larger) % 2 == 0
        first = smaller_first != (pair.responses[0] == smaller)
        orders = (first, not first) if self.both_orders else (first,)
        keys = {order: _digest(pair.question, pair.images.digest, *pair.shown(order)) for order in orders}
        return [
            Slot(order, _number("vote", self.seed, keys[order], vote)) for vote in range(self.votes) for order in orders
        ]


def open_images(images: Images, *, video_frames: int = FRAMES) -> OpenedImages:
    """Open the pictures of a question: paths, bytes of files, PIL images; what is open already is returned as it is.

    A :class:`Video` among them is shown as its frames, up to ``video_frames`` where it does not say how many.

    Raises:
        UserError: ``images`` is one picture instead of a list.
        ImageError: a picture cannot be used; the message says which and why.
    """
    if isinstance(images, OpenedImages):
        return images
    if not isinstance(images, Sequence) or isinstance(images, (str, bytes)):
        raise UserError(f"images: must be a list of pictures, not one {type(images).__name__}.")
    opened: list[Image.Image] = []
    for number, source in enumerate(images):
        if isinstance(source, Video):
            opened += open_video(source.path, video_frames if source.frames is None else source.frames)
        else:
            opened.append(_open(source, f"images[{number}]"))
    return _opened(opened)


def _open(source: Any, place: str) -> Image.Image:
    if isinstance(source, (bytes, Image.Image)):
        return open_image(source, name=place)
    if isinstance(source, (bytearray, memoryview)):
        return open_image(bytes(source), name=place)
    if not isinstance(source, str) and not hasattr(source, "__fspath__"):
        raise UserError(
            f"{place}: must be a path, the bytes of a file, a PIL image or a Video, not {type(source).__name__}."
        )
    return open_image(source)


def _opened(pictures: Sequence[Image.Image]) -> OpenedImages:
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{picture.width}x{picture.height}:".encode())
        digest.update(picture.tobytes())
    return OpenedImages(tuple(pictures), digest.hexdigest())


def prepare(item: PairToJudge | Mapping[str, Any], *, video_frames: int = FRAMES) -> Prepared:
    """Check a pair, or a row of a pair file, and open its pictures and up to ``video_frames`` frames of its video.

    Raises:
        UserError: a text is missing, blank or too long, or a picture cannot be opened; the message says which and why.
    """
    if isinstance(item, Mapping):
        missing = [name for name in ("question", "response_1", "response_2") if name not in item]
        if missing:
            raise UserError(f"{missing[0]}: is missing.")
        images = _row_images(item, video_frames)
        item = PairToJudge(item["question"], images, item["response_1"], item["response_2"])
    check_text(item.question, "question")
    check_text(item.response_1, "response_1")
    check_text(item.response_2, "response_2")
    opened = open_images(item.images, video_frames=video_frames)
    return Prepared(item.question, opened, (item.response_1, item.response_2))


def _row_images(row: Mapping[str, Any], video_frames: int) -> Images:
    """Open what :func:`r1_reward.store.pairs.load_pairs` returns: cells with the bytes or the path of a picture."""
    cells = row.get("images") or []
    if isinstance(cells, list) and any(isinstance(cell, Mapping) for cell in cells):
        return _opened(row_pictures(row, video_frames))
    return [*cells, Video(row["video"])] if row.get("video") and isinstance(cells, list) else cells


def check_text(text: Any, name: str) -> None:
    """Raise UserError if a question or response is no text, blank, or longer than any judge's prompt has room for."""
    if not isinstance(text, str):
        raise UserError(f"{name}: must be text, not {type(text).__name__}.")
    if not text.strip():
        raise UserError(f"{name}: is blank.")
    if len(text) > MAX_RESPONSE_CHARS:
        raise UserError(f"{name}: has {len(text):,} characters; at most {MAX_RESPONSE_CHARS:,} are accepted.")


def prepare_all(
    items: Iterable[PairToJudge | Mapping[str, Any]], *, video_frames: int = FRAMES
) -> Iterator[Prepared | InvalidPair]:
    """Yield each pair checked and with its pictures opened, or what is wrong with it."""
    for item in items:
        try:
            yield prepare(item, video_frames=video_frames)
        except UserError as error:
            invalid = InvalidPair(str(error))
            invalid.__cause__ = error
            yield invalid


def draw_votes(
    engine: Engine, pairs: Iterable[Prepared | EngineError], plan: Plan
) -> Iterator[list[Judgment] | EngineError]:
    """Yield the votes on each pair, in order and in the sequence of ``plan.slots``; errors keep their places.

    Pairs are taken as far ahead as the engine takes requests, with a stopping rule about four of its batches.
    """
    if plan.stopping is not None:
        return _in_rounds(engine, iter(pairs), plan)
    return _in_one_go(engine, iter(pairs), plan)


class _Draw:
    """One pair on its way: the votes still to come, those that are there, or the error that ended it."""

    def __init__(self, pair: Prepared | EngineError, plan: Plan) -> None:
        self.result: list[Judgment] | EngineError = []
        self._stopping = plan.stopping
        if isinstance(pair, EngineError):
            self.result, self._slots = pair, []
        else:
            self.pair, self._slots = pair, plan.slots(pair)
        self._asked: list[list[Slot]] = []

    def wanted(self) -> int:
        """Return how many votes the next round draws, 0 if the pair is decided."""
        if isinstance(self.result, EngineError):
            return 0
        remaining = len(self._slots) - len(self.result)
        if self._stopping is None:
            return remaining
        for_1, for_2 = (sum(vote.answer == answer for vote in self.result) for answer in (1, 2))
        return votes_to_decide(for_1, for_2, remaining, self._stopping)

    def requests(self, special_tokens: tuple[str, ...]) -> list[Request]:
        """Return what to ask in the next round: one request for each order shown."""
        start = len(self.result)  # type: ignore[arg-type]
        slots = self._slots[start : start + self.wanted()]
        self._asked = [group for order in (False, True) if (group := [s for s in slots if s.swapped is order])]
        question, images, _ = self.pair
        return [
            Request(
                build_messages(
                    question,
                    *self.pair.shown(group[0].swapped),
                    images=len(images.pictures),
                    special_tokens=special_tokens,
                ),
                list(images.pictures),
                tuple(slot.seed for slot in group),
            )
            for group in self._asked
        ]

    def take(self, answers: Iterator[Any]) -> None:
        """Take one answer for each request of the round and put the votes into their sequence."""
        drawn: dict[Slot, Judgment] = {}
        for group in self._asked:
            completions = next(answers)
            if isinstance(completions, EngineError):
                self.result = completions
                continue
            for slot, completion in zip(group, completions, strict=True):
                drawn[slot] = read_judgment(completion, swapped=slot.swapped)
        if not isinstance(self.result, EngineError):
            start = len(self.result)
            self.result += [drawn[slot] for slot in self._slots[start : start + len(drawn)]]


def votes_to_decide(for_1: int, for_2: int, remaining: int, stopping: Stopping) -> int:
    """Return after how many of the remaining votes the rule may stop at the earliest, 0 if it does so now."""
    for more in range(remaining):
        left = remaining - more
        if stopping.decided(for_1 + more, for_2, left) or stopping.decided(for_1, for_2 + more, left):
            return more
    return remaining


def _in_one_go(engine: Engine, pairs: Iterator[Prepared | EngineError], plan: Plan) -> Iterator[Any]:
    """Draw all votes of every pair in one stream of requests."""
    waiting: deque[_Draw] = deque()
    more = True

    def requests() -> Iterator[Request]:
        nonlocal more
        bad = 0
        for pair in pairs:
            draw = _Draw(pair, plan)
            waiting.append(draw)
            if draw.wanted():
                bad = 0
                yield from draw.requests(engine.special_tokens)
            elif (bad := bad + 1) >= _BAD_AT_ONCE:
                return  # hand these out before more is read
        more = False

    while more:
        answers = _answers(engine, requests(), plan)
        for first in answers:
            while not waiting[0].wanted():
                yield waiting.popleft().result
            draw = waiting.popleft()
            draw.take(chain([first], answers))
            yield draw.result
        while waiting:
            yield waiting.popleft().result


def _in_rounds(engine: Engine, pairs: Iterator[Prepared | EngineError], plan: Plan) -> Iterator[Any]:
    """Draw votes round by round, those of all undecided pairs under way together."""
    size = getattr(engine, "batch_size", None) or getattr(engine, "concurrency", None) or 16
    window: deque[_Draw] = deque()
    under_way: list[_Draw] = []
    while True:
        wanted = sum(draw.wanted() for draw in under_way)
        while wanted < _BATCHES_AHEAD * size and len(window) < _BAD_AT_ONCE and (pair := next(pairs, None)) is not None:
            window.append(_Draw(pair, plan))
            if window[-1].wanted():
                under_way.append(window[-1])
                wanted += window[-1].wanted()
        if not window:
            return
        asked = [request for draw in under_way for request in draw.requests(engine.special_tokens)]
        answers = iter(list(_answers(engine, asked, plan)))
        for draw in under_way:
            draw.take(answers)
        under_way = [draw for draw in under_way if draw.wanted()]
        while window and not window[0].wanted():
            yield window.popleft().result


def _answers(engine: Engine, requests: Iterable[Request], plan: Plan) -> Iterator[Any]:
    return engine.generate(requests, temperature=plan.temperature, max_new_tokens=plan.max_new_tokens)


def votes_by_rewards(
    scorer: AnswerScorer, pairs: Iterable[Prepared | EngineError], known: dict[str, Score], max_new_tokens: int
) -> Iterator[list[Judgment] | EngineError]:
    """Yield the one vote of a scalar reward model on each pair: the larger reward wins, in whatever order.

    ``known`` keeps the last few thousand scores, so that candidates compared with each other are scored once.
    """
    pairs = iter(pairs)
    while block := list(islice(pairs, _SCORED_AT_ONCE)):
        keys: list[tuple[str, ...]] = []
        wanted: dict[str, Candidate] = {}
        for pair in block:
            keys.append(())
            if isinstance(pair, EngineError):
                continue
            keys[-1] = tuple(_digest(pair.question, pair.images.digest, response) for response in pair.responses)
            for key, response in zip(keys[-1], pair.responses, strict=True):
                wanted[key] = (pair.question, list(pair.images.pictures), response)
        new = {key: candidate for key, candidate in wanted.items() if key not in known}
        if new:
            known.update(zip(new, scorer.score(list(new.values()), max_new_tokens=max_new_tokens), strict=True))
        for pair, own in zip(block, keys, strict=True):
            if isinstance(pair, EngineError):
                yield pair
            else:
                yield [compare_scores(known[own[0]], known[own[1]], swapped=False)]
        while len(known) > _KNOWN_SCORES:
            del known[next(iter(known))]


def _digest(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def _number(*parts: str | int) -> int:
    """Return 62 random-looking bits that depend on the parts alone."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8], "big") >> 2
