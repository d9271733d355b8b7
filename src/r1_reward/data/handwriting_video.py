"""The handwriting world as videos: scanned digits in sequence, with questions about the order of the frames.

A video shows a few different digits one after another. The question is which comes first or last, and the two
responses name the first digit and the last one. Both are in the video and each is right half of the time, so a judge
that reads every frame but not their order scores 50 %, and so does one that reads only the texts::

    train, test = write_films(Path("films"), seed=0, train_pairs=2000, test_pairs=300)     # two pair files

About half of the videos are files, the others are folders of frames; each digit is shown for ``HOLD`` frames.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from r1_reward.data.handwriting import TEST_SCANS, load_scans
from r1_reward.models.tiny_words import ANSWERS, DIGITS, judgment_text, reading_of
from r1_reward.records.schema import PreferencePair
from r1_reward.store.pairs import save_pairs

PLACES = ("first", "last")
QUESTIONS = ("Which digit comes {place}?", "What is shown {place}?", "Name the {place} digit.")
HOLD = 2
"""Frames that show the same scan, which makes frame sampling part of the task."""


def write_films(
    folder: Path, *, seed: int, train_pairs: int, test_pairs: int, digits: int = 3, taught: float = 1.0
) -> tuple[Path, Path]:
    """Write videos below ``folder`` and return the paths of its ``train.jsonl`` and ``test.jsonl``.

    A video of ``digits * HOLD`` frames shows ``digits`` different digits. Training pairs use 1,400 scans and test pairs
    the other 397; the share ``taught`` of the training pairs has the reasoning of a teacher that is always right.
    Requires PyAV.
    """
    rng = random.Random(seed)
    cells, target = load_scans()
    order = list(range(len(target)))
    rng.shuffle(order)
    files = []
    for name, count, scans, share in (
        ("train", train_pairs, order[TEST_SCANS:], taught),
        ("test", test_pairs, order[:TEST_SCANS], 0.0),
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        by_digit = [[scan for scan in scans if target[scan] == digit] for digit in range(10)]
        pairs = []
        for pair, shown in _pairs(name, count, digits, share, rng):
            stills = [Image.fromarray(cells[rng.choice(by_digit[digit])]).convert("RGB") for digit in shown]
            _write_film(folder / str(pair.video), [still for still in stills for _ in range(HOLD)])
            pairs.append(pair)
        save_pairs(pairs, folder / f"{name}.jsonl")
        files.append(folder / f"{name}.jsonl")
    return files[0], files[1]


def _pairs(
    split: str, count: int, digits: int, taught: float, rng: random.Random
) -> Iterator[tuple[PreferencePair, list[int]]]:
    """Yield pairs with the digits of their videos; exactly half of the preferred answers come first."""
    for index in range(count):
        preferred = 1 + index % 2
        shown = rng.sample(range(10), digits)
        place = rng.choice(PLACES)
        right, wrong = DIGITS[shown[0]], DIGITS[shown[-1]]
        if place == "last":
            right, wrong = wrong, right
        claims = (right, wrong) if preferred == 1 else (wrong, right)
        first, second = (rng.choice(ANSWERS["position"]).format(a=claim, corner=place) for claim in claims)
        text = judgment_text(f"{place} is {right}.", reading_of(tuple(shown)), claims, right)
        yield (
            PreferencePair(
                id=f"{split}-{index}",
                question=rng.choice(QUESTIONS).format(place=place),
                video=f"{split}/{index:05d}" + (".mp4" if rng.random() < 0.5 else ""),
                response_1=first[0].upper() + first[1:],
                response_2=second[0].upper() + second[1:],
                preferred=1 if preferred == 1 else 2,
                source="handwriting films",
                kind=place,
                reasoning=text if rng.random() < taught else None,
            ),
            shown,
        )


def _write_film(path: Path, frames: Sequence[Image.Image]) -> None:
    """Write a video file, or a folder of frames for a path without a suffix."""
    if not path.suffix:
        path.mkdir(exist_ok=True)
        for number, frame in enumerate(frames):
            frame.save(path / f"frame_{number}.png")
        return
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.qmin = stream.codec_context.qmax = 2
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode(None))
