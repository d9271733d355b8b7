"""Which training rows are too near a benchmark to be trained on?

Most of VL-RewardBench comes out of data sets that reward models are trained on, under ids of its own; what gives a
copy away is its text and its pictures. A training row is contaminated if

* its question with one of its responses is near a benchmark's question with one of *its* responses, and so are the two
  responses alone (a long question in common, as of a template, is not enough), or
* one of its pictures is near one of the benchmark's, whatever is asked about it. A video counts by its middle frame.

    index = BenchmarkIndex(config.benchmarks, config.contamination, load_suite)
    index.match_texts(signatures, lengths)     # Match("vl-rewardbench, row 14 (id RLAIF-V-14)", 0.97), or None
    index.match_images(images)                 # {3: Match(..., 0.95)}: by number of the picture
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from r1_reward.data.duplicates import (
    ImageTable,
    PrintMatrix,
    TextIndex,
    near_prints,
    normalise,
    sign,
    similarity,
    union,
)
from r1_reward.data.forms import IMAGE_BITS, Fingerprint, fingerprint, fingerprint_of
from r1_reward.data.mix_config import Benchmark, Contamination
from r1_reward.records.content import Content, places_of, text_of
from r1_reward.records.errors import UserError
from r1_reward.store.images import ImageError, embedded
from r1_reward.store.video import open_video

MIDDLE_OF = 3
"""A video's frame that counts is the middle one of so many, evenly spaced."""

_MATCHES_AT_ONCE = 4096


OpenBenchmark = Callable[..., Any]
"""Gives a benchmark by name and path, as :func:`r1_reward.bench.suites.load_suite` does: it depends on the data of
this package and not the other way round, so whoever mixes passes it in."""


class Match(NamedTuple):
    """A benchmark row that something is near."""

    place: str
    similarity: float
    """Of the texts, or the share of equal bits of the pictures; in [0, 1]."""

    def __str__(self) -> str:
        return f"{self.place}: similarity {self.similarity:.2f}"


class BenchmarkIndex:
    """Texts and pictures of all rows of some benchmarks.

    Raises:
        UserError: a benchmark cannot be read, has not the official rows (and need not be partial), or lacks pictures.
    """

    def __init__(
        self, benchmarks: Sequence[Benchmark], limits: Contamination, open_benchmark: OpenBenchmark | None = None
    ) -> None:
        """``open_benchmark`` may be left out where there are no benchmarks."""
        self.limits, self._open_benchmark = limits, open_benchmark
        self.described: list[dict[str, Any]] = []
        """For each benchmark: suite, path, number of rows and pictures, and notes on how complete it is."""
        self._texts = TextIndex(limits.text)
        self._answers: list[tuple[str, np.ndarray, np.ndarray]] = []
        self._seen: set[tuple[str, str]] = set()
        self._pictures: dict[bytes, tuple[str, Fingerprint]] = {}
        for benchmark in benchmarks:
            self.described.append(self._load(benchmark))

    def _load(self, benchmark: Benchmark) -> dict[str, Any]:
        assert self._open_benchmark is not None, "mix() has seen to it"
        suite = self._open_benchmark(
            benchmark.suite,
            benchmark.path,
            image_root=benchmark.image_root,
            allow_partial=benchmark.allow_partial,
            check_media=benchmark.images,
        )
        before = len(self._pictures)
        for row in suite.rows():
            place = f"{benchmark.suite}, row {row.index} (id {row.id})"
            for response in (row.response_1, row.response_2):
                self._add_text(place, row.question, response)
            if benchmark.images:
                for found in _prints(row):
                    self._pictures.setdefault(found.hash.tobytes() + found.colours.tobytes(), (place, found))
        notes = suite.notes if benchmark.images else ["Only texts were compared: pictures were not at hand."]
        return {
            "suite": benchmark.suite,
            "path": suite.source,
            "revision": suite.revision,
            "rows": suite.n,
            "size": suite.size and suite.size.label,
            "pictures": len(self._pictures) - before,
            "notes": notes,
        }

    def _add_text(self, place: str, asked: Content, answered: Content) -> None:
        question, response = text_of(asked), text_of(answered)
        texts = normalise(question), normalise(response)
        if texts in self._seen or sum(map(len, texts)) < self.limits.min_characters:
            return
        self._seen.add(texts)
        answer = sign(response)
        whole = union(sign(question), answer)
        self._texts.add(len(self._answers), whole)
        self._answers.append((place, whole, answer))

    def match_texts(self, signatures: np.ndarray, lengths: Sequence[int]) -> Match | None:
        """Return the benchmark text nearest to a row, or None if none is near.

        ``signatures`` is (3, 64): of question, response 1, response 2. ``lengths`` are their normalised characters.
        """
        best: Match | None = None
        for side in (1, 2):
            if lengths[0] + lengths[side] < self.limits.min_characters:
                continue
            whole = union(signatures[0], signatures[side])
            for number in self._texts.candidates(whole):
                place, other, answer = self._answers[number]
                alike = min(similarity(whole, other), similarity(signatures[side], answer))
                if alike >= self.limits.text and (best is None or alike > best.similarity):
                    best = Match(place, alike)
        return best

    def match_images(self, images: ImageTable) -> dict[int, Match]:
        """Return the nearest benchmark picture of every picture that is near one, by its number in the table."""
        if not self._pictures:
            return {}
        known = list(self._pictures.values())
        theirs, owners = PrintMatrix.of_all((number, found) for number, (_, found) in enumerate(known))
        readable = [(number, found) for number, found in enumerate(images.fingerprints) if not isinstance(found, str)]
        matches: dict[int, Match] = {}
        for start in range(0, len(readable), _MATCHES_AT_ONCE):
            ours, numbers = PrintMatrix.of_all(readable[start : start + _MATCHES_AT_ONCE])
            for first, second in near_prints(ours, theirs, self.limits.image_bits):
                different = np.unpackbits(ours.hashes[first] ^ theirs.hashes[second], axis=1).sum(axis=1)
                found = zip(numbers[first].tolist(), owners[second].tolist(), different.tolist(), strict=True)
                for number, owner, bits in found:
                    match = Match(known[owner][0], 1 - bits / IMAGE_BITS)
                    if number not in matches or match.similarity > matches[number].similarity:
                        matches[number] = match
        return matches


def _prints(row: Any) -> list[Fingerprint]:
    """Return the fingerprints of a benchmark row's pictures, and of the middle frames of its videos."""
    places = [place for content in (row.question, row.response_1, row.response_2) for place in places_of(content)]
    cells = [*row.images, *(place.source for place in places if place.kind == "image")]
    videos = [*([row.video] if row.video else []), *(place.source for place in places if place.kind == "video")]
    try:
        found = [fingerprint_of(embedded(cell)["bytes"]) for cell in cells]
        films = [open_video(video, MIDDLE_OF) for video in videos]
    except ImageError as error:
        raise UserError(
            f"row {row.index} (id {row.id}): {str(error).rstrip('.')}. With `images: false` only the texts of this "
            "benchmark are compared."
        ) from error
    return [*found, *(fingerprint(frames[len(frames) // 2]) for frames in films)]
