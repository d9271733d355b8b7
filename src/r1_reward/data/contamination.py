"""Find training rows that are too similar to a benchmark to train on.

Most of VL-RewardBench comes from datasets that reward models are trained on, under new ids, so copies can only be found
by their texts and images. A training row is contaminated if

* its question with one of its responses is near a benchmark's question with one of *its* responses, and so are the two
  responses alone (a long shared question, such as a template, is not enough), or
* one of its images is near one of the benchmark's, whatever the question. For a video, the middle frame is compared.

    index = BenchmarkIndex(config.benchmarks, config.contamination, load_suite)
    index.match_texts(signatures, lengths)     # Match("vl-rewardbench, row 14 (id RLAIF-V-14)", 0.97), or None
    index.match_images(images)                 # {3: Match(..., 0.95)}: by image number
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
"""The frame that represents a video is the middle one of this many, evenly spaced."""

_MATCHES_AT_ONCE = 4096


OpenBenchmark = Callable[..., Any]
"""Opens a benchmark by name and path, like :func:`r1_reward.bench.suites.load_suite`. The caller passes it in, because
``bench`` depends on ``data`` and not the other way round."""


class Match(NamedTuple):
    """The benchmark row that a text or image is near."""

    place: str
    similarity: float
    """Text similarity, or the share of equal hash bits of the images; in [0, 1]."""

    def __str__(self) -> str:
        return f"{self.place}: similarity {self.similarity:.2f}"


class BenchmarkIndex:
    """An index of the texts and images of all rows of the given benchmarks.

    Raises:
        UserError: a benchmark cannot be read, lacks images, or does not have the official rows (unless
            ``allow_partial`` is set).
    """

    def __init__(
        self, benchmarks: Sequence[Benchmark], limits: Contamination, open_benchmark: OpenBenchmark | None = None
    ) -> None:
        """Load all benchmarks; ``open_benchmark`` is optional if there are none."""
        self.limits, self._open_benchmark = limits, open_benchmark
        self.described: list[dict[str, Any]] = []
        """For each benchmark: suite, path, numbers of rows and images, and notes on completeness."""
        self._texts = TextIndex(limits.text)
        self._answers: list[tuple[str, np.ndarray, np.ndarray]] = []
        self._seen: set[tuple[str, str]] = set()
        self._pictures: dict[bytes, tuple[str, Fingerprint]] = {}
        for benchmark in benchmarks:
            self.described.append(self._load(benchmark))

    def _load(self, benchmark: Benchmark) -> dict[str, Any]:
        assert self._open_benchmark is not None, "checked by mix()"
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
        notes = suite.notes if benchmark.images else ["Only texts were compared, not images."]
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
        """Return the benchmark text most similar to a row, or None if none is near.

        ``signatures`` has shape (3, 64): question, response 1, response 2. ``lengths`` are their lengths in normalized
        characters.
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
        """Return the nearest benchmark image for each image in the table that is near one, by its number."""
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
    """Return the fingerprints of a benchmark row's images and of the middle frames of its videos."""
    places = [place for content in (row.question, row.response_1, row.response_2) for place in places_of(content)]
    cells = [*row.images, *(place.source for place in places if place.kind == "image")]
    videos = [*([row.video] if row.video else []), *(place.source for place in places if place.kind == "video")]
    try:
        found = [fingerprint_of(embedded(cell)["bytes"]) for cell in cells]
        films = [open_video(video, MIDDLE_OF) for video in videos]
    except ImageError as error:
        raise UserError(
            f"row {row.index} (id {row.id}): {str(error).rstrip('.')}. Set `images: false` to compare only the texts "
            "of this benchmark."
        ) from error
    return [*found, *(fingerprint(frames[len(frames) // 2]) for frames in films)]
