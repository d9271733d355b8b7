"""The forms in which one picture is passed on, and what each is compared by.

Data sets flatten transparent pictures (on white, on black, or by dropping the transparency, which shows whatever
colours lie under it) and pad pictures to a square with bars of one colour. So a picture has several forms::

    fingerprint_of(png).forms       # as it is shown here; on black; without transparency; each of them without its bars

The bars of one axis are taken off at a time: padding adds them along one axis only, and content that was moved within a
page would otherwise be the same content.
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
"""Shapes that differ by more are different: 7 % of width over height."""

_STEPS_AN_OCTAVE = 20  # of shapes: a step is 3.5 %
_SQUARE = 128
_SIDE = 256  # pixels of the shorter side that are enough for a hash of 32x32
_UNIFORM = 24  # largest difference, of 255, within a line of one colour; JPEG bends it
_CONTENT = 6.0  # mean difference, of 255, from the colour of a bar above which a line is not part of it
_THIN, _THICK = 0.02, 0.85  # bars below or above this share of the side are left


class Form(NamedTuple):
    """One form of a picture."""

    hash: np.ndarray
    """(32,) uint8: the bits of its perceptual hash."""
    colours: np.ndarray
    """(48,) uint8: mean colours of a 4x4 grid."""
    shapes: tuple[int, int, int]
    """1 if bars were taken off, else 0; the shape of the form; the shape of the whole picture (:func:`shape_of`)."""


class Fingerprint(NamedTuple):
    """What a picture is compared by: any of its forms."""

    hash: np.ndarray
    """(32,) uint8: of the first form, the picture as it is shown."""
    colours: np.ndarray
    """(48,) uint8: of the first form."""
    size: tuple[int, int]
    """Width and height in pixels."""
    forms: tuple[Form, ...]


def fingerprint(picture: Image.Image, *flattened: Image.Image) -> Fingerprint:
    """Return what an RGB picture is compared by; ``flattened`` is how else its transparency was resolved."""
    forms = [form for number, one in enumerate((picture, *flattened)) for form in _forms(one, keep_plain=not number)]
    return Fingerprint(forms[0].hash, forms[0].colours, picture.size, tuple(forms))


def fingerprint_of(data: bytes) -> Fingerprint:
    """Return what a picture is compared by, given the bytes of its file; raises ImageError."""
    return fingerprint(*open_flattened(data))


def shape_of(size: tuple[int, int]) -> int:
    """Return width over height in steps of 3.5 %, 128 for a square."""
    return min(255, max(0, round(math.log2(size[0] / size[1]) * _STEPS_AN_OCTAVE) + _SQUARE))


def _forms(picture: Image.Image, *, keep_plain: bool) -> Iterator[Form]:
    """Yield the forms of a picture; none that is of one colour, as a silhouette is without its transparency.

    ``keep_plain`` keeps the picture itself nevertheless: there must be one form.
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
    """Yield left, top, right, bottom of what is left without the bars at top and bottom, or those at the sides."""
    width, height = picture.size
    pixels = np.asarray(picture)
    for top, bottom in _bars(pixels):
        yield 0, top, width, height - bottom
    for left, right in _bars(pixels.transpose(1, 0, 2)):
        yield left, 0, width - right, height


def _bars(lines: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield how many lines at the start, and at the end, have the one colour of the outermost.

    ``lines`` is (n, m, 3) uint8. Bars of two colours are taken off one at a time: one may belong to the picture.
    """
    first, last = _bar(lines), _bar(lines[::-1])
    pairs = [(len(first), len(last))]
    if len(first) and len(last) and np.abs(first[0] - last[0]).max() > _UNIFORM:
        pairs = [(len(first), 0), (0, len(last))]
    for before, after in pairs:
        if _THIN * len(lines) <= before + after <= _THICK * len(lines):
            yield before, after


def _bar(lines: np.ndarray) -> np.ndarray:
    """Return the mean colours, (k, 3), of the k lines at the start that have the one colour of the first."""
    if not _is_plain(lines[0]):
        return np.zeros((0, 3))
    colour = lines[0].mean(axis=0)
    content = np.abs(lines - colour.astype(np.float32)).mean(axis=(1, 2)) > _CONTENT
    end = int(np.argmax(content)) if content.any() else len(lines)
    return lines[:end].mean(axis=1)
