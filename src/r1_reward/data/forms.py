"""The forms in which datasets redistribute one image, and a fingerprint for each.

Datasets flatten transparent images (on white, on black, or by dropping the alpha channel, which exposes whatever
colors lie under it) and pad images to a square with bars of one color. So one image has several forms::

    fingerprint_of(png).forms       # as shown here; on black; without alpha; each of them without its bars

Bars are removed along one axis at a time: padding adds them along one axis only, and otherwise the same content moved
within a page would count as the same image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from r1_reward.store.images import open_flattened

IMAGE_BITS = 256
SHAPE_STEPS = 2
"""Shapes that differ by more steps than this are different: 7 % of the aspect ratio."""

_STEPS_AN_OCTAVE = 20  # steps per doubling of the aspect ratio: a step is 3.5 %
_SQUARE = 128
_SIDE = 256  # the shorter side in pixels; enough for a 32x32 hash
_UNIFORM = 24  # largest difference, of 255, within a line of one color; JPEG adds noise
_CONTENT = 6.0  # mean difference, of 255, from a bar's color above which a line is not part of the bar
_THIN, _THICK = 0.02, 0.85  # bars below or above this share of the side are kept


class Form(NamedTuple):
    """One form of an image."""

    hash: np.ndarray
    """(32,) uint8: the bits of its perceptual hash."""
    colours: np.ndarray
    """(48,) uint8: mean colors of a 4x4 grid."""
    shapes: tuple[int, int, int]
    """1 if bars were removed, else 0; the shape of the form; the shape of the whole image (:func:`shape_of`)."""


class Fingerprint(NamedTuple):
    """The fingerprint of an image; two images match if any of their forms do."""

    hash: np.ndarray
    """(32,) uint8: of the first form, the image as shown."""
    colours: np.ndarray
    """(48,) uint8: of the first form."""
    size: tuple[int, int]
    """Width and height in pixels."""
    forms: tuple[Form, ...]


def fingerprint(picture: Image.Image, *flattened: Image.Image) -> Fingerprint:
    """Return the fingerprint of an RGB image; ``flattened`` are the other ways to resolve its transparency."""
    forms = [form for number, one in enumerate((picture, *flattened)) for form in _forms(one, keep_plain=not number)]
    return Fingerprint(forms[0].hash, forms[0].colours, picture.size, tuple(forms))


def fingerprint_of(data: bytes) -> Fingerprint:
    """Return the fingerprint of an image file, given its bytes; raises ImageError."""
    return fingerprint(*open_flattened(data))


def shape_of(size: tuple[int, int]) -> int:
    """Return the aspect ratio, width over height, in steps of 3.5 %; 128 is a square."""
    return min(255, max(0, round(math.log2(size[0] / size[1]) * _STEPS_AN_OCTAVE) + _SQUARE))


def _forms(picture: Image.Image, *, keep_plain: bool) -> Iterator[Form]:
    """Yield the forms of an image, except those of a single color, such as a silhouette without its alpha channel.

    ``keep_plain`` keeps the image itself in any case, because every image needs one form.
    """
    whole = shape_of(picture.size)
    small = picture.reduce(max(1, min(picture.size) // _SIDE))
    if keep_plain or not _is_plain(np.asarray(small)):
        yield _form(small, 0, whole)
    for left, top, right, bottom in _without_bars(small):
        if not _is_plain(np.asarray(small)[top:bottom, left:right]):
            yield _form(small.crop((left, top, right, bottom)), 1, whole)


def _is_plain(pixels: np.ndarray) -> bool:
    return int(np.ptp(pixels.reshape(-1, 3), axis=0).max()) <= _UNIFORM


def _form(picture: Image.Image, cut: int, whole: int) -> Form:
    import imagehash

    bits = imagehash.phash(picture, hash_size=16).hash
    colours = np.asarray(picture.resize((4, 4), Image.Resampling.BOX), dtype=np.uint8).ravel()
    return Form(np.packbits(bits), colours, (cut, shape_of(picture.size) if cut else whole, whole))


def _without_bars(picture: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Yield (left, top, right, bottom) without the bars at top and bottom, then without those at the sides."""
    width, height = picture.size
    pixels = np.asarray(picture)
    for top, bottom in _bars(pixels):
        yield 0, top, width, height - bottom
    for left, right in _bars(pixels.transpose(1, 0, 2)):
        yield left, 0, width - right, height


def _bars(lines: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield how many lines at the start and at the end have the color of the outermost line.

    ``lines`` is (n, m, 3) uint8. Bars of two colors are removed one at a time: one may belong to the image.
    """
    first, last = _bar(lines), _bar(lines[::-1])
    pairs = [(len(first), len(last))]
    if len(first) and len(last) and np.abs(first[0] - last[0]).max() > _UNIFORM:
        pairs = [(len(first), 0), (0, len(last))]
    for before, after in pairs:
        if _THIN * len(lines) <= before + after <= _THICK * len(lines):
            yield before, after


def _bar(lines: np.ndarray) -> np.ndarray:
    """Return the mean colors, (k, 3), of the k lines at the start that have the color of the first."""
    if not _is_plain(lines[0]):
        return np.zeros((0, 3))
    colour = lines[0].mean(axis=0)
    content = np.abs(lines - colour.astype(np.float32)).mean(axis=(1, 2)) > _CONTENT
    end = int(np.argmax(content)) if content.any() else len(lines)
    return lines[:end].mean(axis=1)
