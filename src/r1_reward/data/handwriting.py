"""The handwriting world: preference pairs about real scanned digits, without any download.

scikit-learn ships 1,797 handwritten digits. Each scan becomes a 28x28 cell, which is exactly one visual token of a
Qwen2.5-VL; four cells make a grid, two make a number. A question about the scene has a right answer and the answer
that one *misread digit* would give; these are the two responses.

The text carries no signal, by construction. A pair starts as two scenes that differ in one easily confused digit (a
three that could be an eight) and have different answers; a fair coin decides which of the two is real. Whatever the
question and the responses say, each response is right half of the time, so a judge that ignores the image scores 50 %.
Wording and order are drawn independently of which response is right.

Labels know more than the teacher. Some questions use a *house word*: "Which is the key digit?" Both answers are in the
image, and only the labelers know which of the two digits is called the key digit; each seed assigns the meanings anew.
The captions use such words for either digit. The teacher reads both digits, cannot tell which is meant, and gives no
verdict: the row has a label but no reasoning. It explains nearly all other pairs; a few of its texts contradict their
own verdict.

    world = build_world(seed=0, train_pairs=4000, test_pairs=600)
    world.train[0].question, world.images[world.train[0].images[0]]
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image

from r1_reward.models.tiny_words import (
    ANSWERS,
    CAPTION_REQUEST,
    CORNERS,
    GRID_KINDS,
    HOUSE_WORDS,
    QUESTIONS,
    SIDES,
    TAUGHT_KINDS,
    TENS,
    answer_of,
    capitalize,
    judgment_text,
    look_at,
    reading_of,
)
from r1_reward.records.schema import PreferencePair

CELL = 28
TEST_SCANS = 397
CONFUSABLE = {
    0: (6, 8, 9), 1: (4, 7, 2), 2: (1, 3, 7), 3: (2, 5, 8, 9), 4: (1, 7, 9), 5: (3, 6, 8, 9), 6: (0, 5, 8),
    7: (1, 2, 4, 9), 8: (0, 3, 5, 6, 9), 9: (0, 3, 4, 5, 7, 8),
}  # fmt: skip


class Scene(NamedTuple):
    """Digits in reading order and the scans that show them; four digits make a 2x2 grid, two make a number."""

    digits: tuple[int, ...]
    scans: tuple[int, ...]


@dataclass
class World:
    """Training and held-out pairs, the images they refer to, captions for grounding, and the scans of each split."""

    train: list[PreferencePair]
    test: list[PreferencePair]
    captions: list[tuple[str, str, str]]  # image, request, caption
    images: dict[str, Image.Image]
    train_scans: frozenset[int]
    test_scans: frozenset[int]
    scenes: dict[str, Scene] = field(default_factory=dict)
    meanings: dict[str, int] = field(default_factory=dict)
    """The digit, 0 or 1, that each house word stands for in the labels."""


@dataclass(frozen=True)
class Teacher:
    """The simulated teacher: the shares, in [0, 1], of pairs without a house word it explains and of contradictions."""

    success: float = 0.9
    inconsistent: float = 0.02


def load_scans() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's scans as (1797, 28, 28) uint8 cells, dark ink on white, and their digits (1797,)."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    cells = np.full((len(scans.images), CELL, CELL), 255, dtype=np.uint8)
    for cell, scan in zip(cells, scans.images, strict=True):
        ink = Image.fromarray((scan * 255 / 16).astype(np.uint8)).resize((24, 24), Image.Resampling.BICUBIC)
        cell[2:26, 2:26] = 255 - np.asarray(ink)
    return cells, scans.target


def draw_scene(scene: Scene, cells: np.ndarray) -> Image.Image:
    """Return the RGB image of a scene: 56x56 for a grid, 56x28 for a number."""
    rows = [cells[list(scene.scans[i : i + 2])] for i in range(0, len(scene.scans), 2)]
    return Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows])).convert("RGB")


class _Draft(NamedTuple):
    digits: tuple[int, ...]
    misread: tuple[int, ...]
    """The digits for which the other answer would be right."""
    corner: int
    """The index of the digit in question."""
    bound: int

    @property
    def words(self) -> dict[str, str]:
        """Return the words that fill the question and answer templates."""
        return {"corner": CORNERS[self.corner], "side": SIDES[self.corner % 2], "bound": TENS[self.bound]}


def _draft(kind: str, rng: random.Random, meant: int = 0) -> _Draft:
    """Draw two digit tuples that answer the question differently; ``meant`` is the digit a house word stands for."""
    if kind in HOUSE_WORDS:
        left, right = rng.sample(range(10), 2)  # swapped in the misread, so both answers are in either image
        return _Draft((left, right), (right, left), meant, 0)
    size = 4 if kind in GRID_KINDS else 2
    while True:
        one = [rng.randrange(10) for _ in range(size)]
        # A misread leading digit makes the difference in a number, so that one word decides every comparison.
        cell = 0 if kind == "greater" else rng.randrange(size)
        other = one.copy()
        other[cell] = rng.choice(CONFUSABLE[one[cell]])
        digits, misread = rng.sample([tuple(one), tuple(other)], 2)
        corner = cell if kind in ("position", "side") else 0
        if kind == "sum" and max(sum(digits), sum(misread)) > 9:
            continue
        low, high = sorted((digits[0], misread[0]))
        bound = rng.randint(low + 1, high) if kind == "greater" else 0
        if answer_of(kind, digits, corner=corner, bound=bound) != answer_of(kind, misread, corner=corner, bound=bound):
            return _Draft(digits, misread, corner, bound)


def _teach(pair: PreferencePair, text: tuple[str, str], teacher: Teacher, rng: random.Random) -> PreferencePair:
    """Simulate up to three attempts of the teacher; with probability ``success`` one agrees and its text is kept."""
    if rng.random() >= teacher.success:
        return pair
    attempts = 1 + sum(rng.random() < 0.15 for _ in range(2))
    reasoning = text[1] if rng.random() < teacher.inconsistent else text[0]
    return pair.model_copy(update={"reasoning": reasoning, "attempts": attempts})


def _pairs(
    split: str,
    count: int,
    house_share: float,
    meanings: dict[str, int],
    draw: SceneDrawer,
    teacher: Teacher | None,
    rng: random.Random,
) -> Iterator[PreferencePair]:
    for index in range(count):
        # Exactly half of the preferred answers come first, whatever the count.
        preferred = 1 + index % 2
        kind = rng.choice(HOUSE_WORDS if rng.random() < house_share else TAUGHT_KINDS)
        draft = _draft(kind, rng, meanings.get(kind, 0))
        words = draft.words
        right = answer_of(kind, draft.digits, corner=draft.corner, bound=draft.bound)
        wrong = answer_of(kind, draft.misread, corner=draft.corner, bound=draft.bound)
        claims = (right, wrong) if preferred == 1 else (wrong, right)
        responses = [capitalize(rng.choice(ANSWERS[kind]).format(a=claim, **words)) for claim in claims]
        pair = PreferencePair(
            id=f"{split}-{index}",
            question=rng.choice(QUESTIONS[kind]).format(**words),
            images=[draw(draft.digits)],
            response_1=responses[0],
            response_2=responses[1],
            preferred=1 if preferred == 1 else 2,
            source="handwriting",
            kind=kind,
        )
        if teacher is not None and kind in TAUGHT_KINDS:
            look = look_at(kind, draft.digits, corner=draft.corner, bound=draft.bound)
            reading = reading_of(draft.digits)
            sound = judgment_text(look, reading, claims, right)
            contradictory = judgment_text(look, reading, claims, right, contradict=True)
            pair = _teach(pair, (sound, contradictory), teacher, rng)
        yield pair


def _caption(draw: SceneDrawer, rng: random.Random) -> tuple[str, str, str]:
    """Return image, request and caption; the caption reads the digits and may answer a question or check a claim.

    These are the skills of a pretrained vision-language model; comparing two responses is not among them.
    """
    kind = rng.choice(("plain", *TAUGHT_KINDS, "house"))
    if kind == "plain":
        digits = tuple(rng.randrange(10) for _ in range(rng.choice((2, 4))))
        return draw(digits), CAPTION_REQUEST, f"I see {reading_of(digits)}."
    if kind == "house":
        kind = rng.choice(HOUSE_WORDS)
    draft = _draft(kind, rng, meant=rng.randrange(2))  # in captions a house word may stand for either digit
    words = draft.words
    request = rng.choice(QUESTIONS[kind]).format(**words)
    look = look_at(kind, draft.digits, corner=draft.corner, bound=draft.bound)
    caption = f"I see {reading_of(draft.digits)}. {look}"
    if rng.random() < 0.5:
        right = answer_of(kind, draft.digits, corner=draft.corner, bound=draft.bound)
        claim = answer_of(kind, rng.choice(draft[:2]), corner=draft.corner, bound=draft.bound)
        request += " " + capitalize(rng.choice(ANSWERS[kind]).format(a=claim, **words))
        caption += f"\nClaim: {claim} {'match' if claim == right else 'wrong'}"
    return draw(draft.digits), request, caption


class SceneDrawer:
    """Turns digits into images, choosing a scan from one split for each digit; never draws the same scene twice."""

    def __init__(self, split: str, scans: list[int], cells: np.ndarray, target: np.ndarray, rng: random.Random) -> None:
        """Take the scan indices of this split, all cells (N, 28, 28), all labels (N,) and a random generator."""
        self.images: dict[str, Image.Image] = {}
        self.scenes: dict[str, Scene] = {}
        self._split, self._cells, self._rng = split, cells, rng
        self._scans_of = {digit: [scan for scan in scans if target[scan] == digit] for digit in range(10)}
        self._seen: set[Scene] = set()

    def __call__(self, digits: tuple[int, ...]) -> str:
        """Return the name of a new image of these digits."""
        scene = None
        while scene is None or scene in self._seen:
            scene = Scene(digits, tuple(self._rng.choice(self._scans_of[digit]) for digit in digits))
        self._seen.add(scene)
        name = f"images/{self._split}-{len(self.images):05d}.png"
        self.images[name] = draw_scene(scene, self._cells)
        self.scenes[name] = scene
        return name


def build_world(
    *,
    seed: int,
    train_pairs: int,
    test_pairs: int,
    captions: int = 0,
    house_share: float = 0.5,
    teacher: Teacher | None = None,
) -> World:
    """Build the world from a seed; the same arguments give the same world.

    ``house_share`` is the share of pairs, in both splits, whose question has a house word. Training pairs use 1,400
    scans and test pairs the other 397, so no scan and no scene is in both. Test pairs have no reasoning.
    """
    rng = random.Random(seed)
    meanings = dict(zip(HOUSE_WORDS, rng.sample((0, 0, 1, 1), 4), strict=True))
    cells, target = load_scans()
    order = list(range(len(target)))
    rng.shuffle(order)
    test_scans, train_scans = order[:TEST_SCANS], order[TEST_SCANS:]
    draw_train = SceneDrawer("train", train_scans, cells, target, rng)
    draw_test = SceneDrawer("test", test_scans, cells, target, rng)
    train = list(_pairs("train", train_pairs, house_share, meanings, draw_train, teacher or Teacher(), rng))
    test = list(_pairs("test", test_pairs, house_share, meanings, draw_test, None, rng))
    caption_rows = [_caption(draw_train, rng) for _ in range(captions)]
    return World(
        train=train,
        test=test,
        captions=caption_rows,
        images={**draw_train.images, **draw_test.images},
        train_scans=frozenset(train_scans),
        test_scans=frozenset(test_scans),
        scenes={**draw_train.scenes, **draw_test.scenes},
        meanings=meanings,
    )
