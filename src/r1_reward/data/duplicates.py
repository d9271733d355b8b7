"""Detect exact and near duplicates of pairs, texts and images.

* *Exact duplicates*: equal after :func:`normalise` (which ignores case, width, spacing and invisible characters) in any
  order of the responses, with byte-identical images: :func:`exact_key`.
* *Near texts*: MinHash signatures over windows of five characters, which works for every script. The share of equal
  entries estimates the share of windows that the texts have in common (64 permutations: a standard error of at most
  0.06, and 0.04 at a similarity of 0.9).
* *Near images*: a perceptual hash of 256 bits within a Hamming distance, and 4x4 mean colors within ``COLOUR_STEPS``.
  Perceptual hashes see brightness only: without the colors a red square would match a blue one. Images are compared in
  every form in which datasets redistribute them (:mod:`r1_reward.data.forms`): a transparent image also on black or
  without its alpha channel, a padded image also without its bars.

Two pairs are near duplicates if their texts are near *and* their images are near (or both have none)::

    images = ImageTable()
    first, second = images.add([png, jpeg_of_the_same])
    images.clusters(bits=32)                    # [0, 0]
    similarity(sign("A red square."), sign("a red  square!"))
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from r1_reward.data.forms import IMAGE_BITS, SHAPE_STEPS, Fingerprint, Form, fingerprint_of
from r1_reward.data.forms import fingerprint as fingerprint
from r1_reward.records.content import Content, read_parts
from r1_reward.records.texts import visible
from r1_reward.store.images import ImageError

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH

PERMUTATIONS = 64
COLOUR_STEPS = 32
"""Largest difference, of 255, in any of the 16 mean colors of near images; re-encoding causes 0 to 17."""

_WINDOW = 5  # characters
_SLACK = 0.05  # an index is built for a similarity lower by this, so that it misses few pairs above the threshold
_BLOCK = 256  # images compared with all others at once
_PAIRS_AT_ONCE = 1 << 20
_MULTIPLIERS = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5, 0x85EBCA77C2B2AE63],
    dtype=np.uint64,
)


class Duplicate(NamedTuple):
    """A row that repeats another row."""

    row: int
    of: int
    reason: str
    similarity: float
    """Similarity of the texts, in [0, 1]; 1 if they are equal."""


def normalise(text: str) -> str:
    """Return text with compatibility forms, case and spacing normalized and invisible characters removed."""
    return " ".join(unicodedata.normalize("NFKC", visible(text)).casefold().split())


def exact_key(row: Mapping[str, Any], images: Sequence[bytes]) -> tuple[bytes, bool]:
    """Return 16 bytes that are equal for equal pairs, and whether the first of the *sorted* responses is preferred.

    ``images`` are the hashes of the row's images; images inside its contents are identified by their own hashes. The
    key does not depend on the order of the responses or on the label: rows with equal keys and different second values
    contradict each other. The second value is meaningless for ties.
    """
    texts = [_normal(row["response_1"]), _normal(row["response_2"])]
    content = [_normal(row["question"]), sorted(texts), [name.hex() for name in images], row.get("video")]
    content += [normalise(row["criteria"])] if row.get("criteria") else []
    key = hashlib.blake2b(json.dumps(content).encode(), digest_size=16).digest()
    return key, bool(row["preferred"]) and texts[row["preferred"] - 1] == min(texts)


def _normal(content: Content) -> str:
    """Return a content's normalized texts and the names of its images."""
    if isinstance(content, str):
        return normalise(content)
    return json.dumps([normalise(piece) if isinstance(piece, str) else list(piece) for piece in read_parts(content)])


@functools.lru_cache(maxsize=1 << 14)
def sign(text: str) -> np.ndarray:
    """Return the (64,) uint32 MinHash signature of a text, a read-only array."""
    codes = np.frombuffer(normalise(text).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if len(codes) < _WINDOW:
        codes = np.pad(codes, (0, _WINDOW - len(codes)))
    count = len(codes) - _WINDOW + 1
    hashes = sum(codes[place : place + count] * _MULTIPLIERS[place] for place in range(_WINDOW))
    minhash = _blank().copy()
    minhash.update_batch(np.unique(np.asarray(hashes) >> np.uint64(32)).tolist())
    signature = minhash.hashvalues
    signature.flags.writeable = False
    return signature


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Return the estimated share of character windows that two texts have in common, in [0, 1]."""
    return float(np.count_nonzero(first == second)) / PERMUTATIONS


def union(*signatures: np.ndarray) -> np.ndarray:
    """Return the signature of the union of several texts."""
    return np.minimum.reduce(signatures)


@functools.cache
def _blank() -> MinHash:
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int, scheme="affine32")


class TextIndex:
    """Finds candidates for near signatures by locality-sensitive hashing."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._lsh = _empty_index(max(0.05, threshold - _SLACK))

    def add(self, key: Hashable, signature: np.ndarray) -> None:
        """Add a signature under a key that is not yet in the index."""
        self._lsh.insert(key, _minhash(signature))

    def candidates(self, signature: np.ndarray) -> list[Any]:
        """Return the keys of signatures that may be near, sorted; check each with :func:`similarity`."""
        return sorted(self._lsh.query(_minhash(signature)))


def _minhash(signature: np.ndarray) -> MinHash:
    from datasketch import MinHash

    return MinHash(hashvalues=signature, permutations=_blank().permutations, scheme="affine32")


def _empty_index(threshold: float) -> MinHashLSH:
    from datasketch import MinHashLSH

    return MinHashLSH(num_perm=PERMUTATIONS, params=_bands(threshold))


@functools.cache
def _bands(threshold: float) -> tuple[int, int]:
    """Return number and length of the bands, weighted so that a missed pair is worse than a false candidate."""
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, weights=(0.1, 0.9))
    return index.b, index.r


class ImageTable:
    """All distinct images of a dataset, by their bytes; each is decoded once."""

    def __init__(self, workers: int | None = None) -> None:
        self.digests: list[bytes] = []
        """SHA-256 of each image."""
        self.fingerprints: list[Fingerprint | str] = []
        """Fingerprint of each image, or the reason why it cannot be read."""
        self._index: dict[bytes, int] = {}
        self._pool = ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1))

    def add(self, pictures: Sequence[bytes | ImageError]) -> list[int]:
        """Return each image's number in this table, given the bytes of its file or the reason why it has none."""
        digests = [hashlib.sha256(str(d).encode() if isinstance(d, ImageError) else d).digest() for d in pictures]
        new = {digest: data for digest, data in zip(digests, pictures, strict=True) if digest not in self._index}
        for digest, found in zip(new, self._pool.map(_read, new.values()), strict=True):
            self._index[digest] = len(self.digests)
            self.digests.append(digest)
            self.fingerprints.append(found)
        return [self._index[digest] for digest in digests]

    def clusters(self, bits: int) -> np.ndarray:
        """Return each image's cluster number, which images that are near, directly or through others, share.

        An image that cannot be read is a cluster of its own.
        """
        components = Components(len(self.fingerprints))
        numbered = ((number, found) for number, found in enumerate(self.fingerprints) if not isinstance(found, str))
        prints, places = PrintMatrix.of_all(numbered)
        if len(places):
            different, inverse = prints.unique()
            firsts = np.full(len(different.hashes), -1)
            firsts[inverse[::-1]] = places[::-1]
            # Images with the same fingerprint need not be compared. If the shared form lacks bars, though, the images
            # may differ, and they count as the same only if another form is near it.
            alike = different.is_whole()
            for first, second in near_prints(different, different, bits, upper=True):
                components.join(firsts[first], firsts[second])
                alike[first], alike[second] = True, True
            same = alike[inverse]
            components.join(places[same], firsts[inverse][same])
        return components.labels()


def _read(data: bytes | ImageError) -> Fingerprint | str:
    if isinstance(data, ImageError):
        return data.reason
    try:
        return fingerprint_of(data)
    except ImageError as error:
        return error.reason


class PrintMatrix(NamedTuple):
    """Fingerprints as arrays; ``shapes`` is optional if no form had its bars removed."""

    hashes: np.ndarray
    """(n, 32) uint8."""
    colours: np.ndarray
    """(n, 48) uint8."""
    shapes: np.ndarray | None = None
    """(n, 3) uint8: whether bars were removed, the shape of the form and that of the whole image (``shape_of``)."""

    @classmethod
    def of(cls, prints: Sequence[Fingerprint | Form]) -> PrintMatrix:
        """Stack fingerprints, each in its first form."""
        forms = [one if isinstance(one, Form) else one.forms[0] for one in prints]
        return cls(
            np.array([one.hash for one in forms], dtype=np.uint8).reshape(-1, IMAGE_BITS // 8),
            np.array([one.colours for one in forms], dtype=np.uint8).reshape(-1, 48),
            np.array([one.shapes for one in forms], dtype=np.uint8).reshape(-1, 3),
        )

    @classmethod
    def of_all(cls, numbered: Iterable[tuple[int, Fingerprint]]) -> tuple[PrintMatrix, np.ndarray]:
        """Stack all forms of fingerprints; return them and the (n,) fingerprint number of each form."""
        forms = [(number, form) for number, one in numbered for form in one.forms]
        return cls.of([form for _, form in forms]), np.array([number for number, _ in forms], dtype=np.int64)

    def unique(self) -> tuple[PrintMatrix, np.ndarray]:
        """Return the distinct rows, and for each row of this matrix its index among them."""
        shapes = self._shapes()
        rows, inverse = np.unique(np.hstack([self.hashes, self.colours, shapes]), axis=0, return_inverse=True)
        ends = np.cumsum([self.hashes.shape[1], self.colours.shape[1]])
        return PrintMatrix(*np.split(rows, ends, axis=1)), inverse.ravel()

    def _shapes(self) -> np.ndarray:
        return np.zeros((len(self.hashes), 3), dtype=np.uint8) if self.shapes is None else self.shapes

    def is_whole(self) -> np.ndarray:
        """Return (n,) bool: which forms show whole images, including any bars."""
        return self._shapes()[:, 0] == 0

    def may_be_one(self, i: np.ndarray, other: PrintMatrix, j: np.ndarray) -> np.ndarray:
        """Return whether rows i of this and rows j of another matrix can be the same image, judging by their shapes.

        If bars were removed, one of the images was padded, so the images must differ in shape while the forms agree.
        If the images have the same shape, the content was moved rather than padded.
        """
        ours, theirs = self._shapes()[i].astype(np.int16), other._shapes()[j].astype(np.int16)
        apart = np.abs(ours[:, 1:] - theirs[:, 1:])
        whole = self.is_whole()[i] & other.is_whole()[j]
        return whole | ((apart[:, 0] <= SHAPE_STEPS) & (apart[:, 1] > SHAPE_STEPS))


def near_prints(
    first: PrintMatrix, second: PrintMatrix, bits: int, *, upper: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows of ``first`` and ``second`` with near hashes (at most ``bits`` differ), near colors and equal shapes.

    ``upper`` keeps only pairs (i, j) with i < j. All pairs are compared, as matrix products of +-1.
    """
    right = _signs(second.hashes)
    for start in range(0, len(first.hashes), _BLOCK):
        skipped = start if upper else 0
        agreement = _signs(first.hashes[start : start + _BLOCK]) @ right[skipped:].T
        rows, columns = np.nonzero(agreement >= IMAGE_BITS - 2 * bits)
        for part in range(0, len(rows), _PAIRS_AT_ONCE):
            i, j = rows[part : part + _PAIRS_AT_ONCE] + start, columns[part : part + _PAIRS_AT_ONCE] + skipped
            gaps = np.abs(first.colours[i].astype(np.int16) - second.colours[j]).max(axis=1, initial=0)
            keep = (gaps <= COLOUR_STEPS) & ((i < j) if upper else True) & first.may_be_one(i, second, j)
            yield i[keep], j[keep]


def _signs(hashes: np.ndarray) -> np.ndarray:
    """Return the bits as (n, 256) float32 of +1 and -1; the dot product of two rows is 256 - 2 * their distance."""
    return np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1


class Components:
    """Connected components of a graph whose edges are added incrementally."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._edges: list[np.ndarray] = []
        self._pending = 0

    def join(self, first: Iterable[int] | np.ndarray, second: Iterable[int] | np.ndarray) -> None:
        """Connect each node in ``first`` with the corresponding node in ``second``."""
        self._edges.append(np.array([first, second], dtype=np.int64).reshape(2, -1))
        self._pending += self._edges[-1].shape[1]
        if self._pending > 4 * _PAIRS_AT_ONCE + self._size:  # keep one edge per node
            labels = self.labels()
            _, firsts = np.unique(labels, return_index=True)
            self._edges = [np.array([np.arange(self._size), firsts[labels]])]
            self._pending = self._size

    def labels(self) -> np.ndarray:
        """Return the (size,) number of each node's component."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        rows, columns = np.hstack(self._edges) if self._edges else np.zeros((2, 0), dtype=np.int64)
        graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(self._size, self._size))
        return connected_components(graph, directed=False)[1]


def exact_duplicates(keys: Sequence[bytes], preferred: Sequence[bool]) -> list[Duplicate]:
    """Return the rows that repeat an earlier row, or all rows with the same key if two disagree on the better response.

    ``keys`` and ``preferred`` are the results of :func:`exact_key`.
    """
    first: dict[bytes, int] = {}
    against: dict[bytes, int] = {}
    for row, key in enumerate(keys):
        if preferred[first.setdefault(key, row)] != preferred[row]:
            against.setdefault(key, row)
    found = []
    for row, key in enumerate(keys):
        if key in against:
            other = against[key] if preferred[row] == preferred[first[key]] else first[key]
            found.append(Duplicate(row, other, "contradiction", 1.0))
        elif first[key] != row:
            found.append(Duplicate(row, first[key], "exact duplicate", 1.0))
    return found


def near_duplicates(
    rows: Iterable[int],
    signatures: np.ndarray,
    media: Sequence[Hashable],
    threshold: float,
    sides: Sequence[tuple[Hashable, Hashable]] | None = None,
) -> Iterator[Duplicate]:
    """Yield the rows that are near duplicates of an earlier row that is kept.

    ``signatures`` is (n, 3, 64): question, response 1 and response 2. ``media`` identifies the images that a row shows;
    only rows with equal ``media`` are compared. ``sides`` identifies the images inside the two responses, which must be
    equal, too. All texts together and each response (in the better of the two orders) must have a similarity of at
    least ``threshold`` (0..1).
    """

    def alike_in(row: int, other: int) -> float:
        texts = similarity(union(*signatures[row]), union(*signatures[other]))
        return min(texts, _responses_alike(signatures, row, other, sides))

    groups: dict[Hashable, list[int]] = {}
    for row in rows:
        groups.setdefault(media[row], []).append(row)
    for group in groups.values():
        if len(group) == 1:
            continue
        index = TextIndex(threshold)
        for row in group:
            whole = union(*signatures[row])
            for other in index.candidates(whole):
                alike = alike_in(row, other)
                if alike >= threshold:
                    yield Duplicate(row, other, "near duplicate", alike)
                    break
            else:
                index.add(row, whole)


def _responses_alike(
    signatures: np.ndarray, row: int, other: int, sides: Sequence[tuple[Hashable, Hashable]] | None
) -> float:
    """Return the lower similarity of the two response pairs, in the better of the two orders.

    0 if neither order has the same images inside the responses.
    """
    _, a, b = signatures[row]
    _, c, d = signatures[other]
    ours, theirs = ((), ()) if sides is None else sides[row], ((), ()) if sides is None else sides[other]
    straight = min(similarity(a, c), similarity(b, d)) if ours == theirs else 0.0
    return max(straight, min(similarity(a, d), similarity(b, c)) if ours == theirs[::-1] else 0.0)
