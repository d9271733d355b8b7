"""Images match in every form in which datasets redistribute them, and different images do not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from mixture_rows import encoded, picture
from PIL import Image, ImageDraw

from r1_reward.data.duplicates import ImageTable
from r1_reward.data.forms import fingerprint_of, shape_of
from r1_reward.store.images import open_flattened, open_image

BITS = 40


def icon(seed, mode="RGBA"):
    """Shapes on a transparent background with another color under it."""
    rng = np.random.default_rng(seed)
    page = Image.new("RGBA", (160, 120), (*(int(value) for value in rng.integers(0, 256, 3)), 0))
    for _ in range(4):
        x, y = (int(value) for value in rng.integers(10, 90, 2))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        ImageDraw.Draw(page).ellipse([x, y, x + 45, y + 25], fill=(*colour, 255))
    return page if mode == "RGBA" else page.convert(mode)


def diagram(seed, size=(300, 180)):
    """Bars on white, with margins on all sides."""
    rng, page = np.random.default_rng(seed), Image.new("RGB", size, "white")
    for place in range(5):
        left = 40 + place * (size[0] - 90) // 5
        top = int(rng.integers(30, size[1] - 50))
        colour = tuple(int(value) for value in rng.integers(0, 180, 3))
        ImageDraw.Draw(page).rectangle([left, top, left + 22, size[1] - 25], fill=colour)
    return page


def on(image, ground):
    return Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("RGB")


def padded(image, colour, place=0.5):
    side = max(image.size)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, (round((side - image.width) * place), round((side - image.height) * place)))
    return square


def are_one(*files):
    table = ImageTable()
    table.add(list(files))
    return len(set(table.clusters(BITS).tolist())) == 1


@pytest.mark.parametrize("flatten", [lambda i: on(i, "white"), lambda i: on(i, "black"), lambda i: i.convert("RGB")])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_transparent_picture_matches_its_flattened_copy(flatten, seed):
    original = icon(seed)
    assert are_one(encoded(original), encoded(flatten(original), "JPEG", quality=85))
    assert are_one(encoded(flatten(original), "JPEG", quality=85), encoded(original, "WEBP", lossless=True, exact=True))
    assert not are_one(encoded(original), encoded(flatten(icon(seed + 10))))


def test_a_palette_with_a_hole_matches_its_flattened_copy():
    drawn = Image.new("P", (120, 90), 0)
    drawn.putpalette([200, 30, 30, 0, 120, 0, 10, 10, 200])
    ImageDraw.Draw(drawn).ellipse([20, 10, 70, 60], fill=1)
    ImageDraw.Draw(drawn).rectangle([60, 50, 110, 80], fill=2)
    file = encoded(drawn, transparency=0)
    assert are_one(file, encoded(on(Image.open(io.BytesIO(file)).convert("RGBA"), "black"), "JPEG"))


@pytest.mark.parametrize("colour", ["white", "black", (122, 116, 104)])
@pytest.mark.parametrize("place", [0, 0.5, 1])
@pytest.mark.parametrize("size", [(300, 180), (180, 300)])
def test_a_picture_matches_its_copy_padded_to_a_square(colour, place, size):
    for original in (picture(5, size), diagram(5, size)):
        copy = padded(original, colour, place)
        assert are_one(encoded(original), encoded(copy.resize((250, 250)), "JPEG", quality=85))
    assert not are_one(encoded(diagram(5, size)), encoded(padded(diagram(6, size), colour, place)))


def test_a_flattened_and_padded_copy_is_found():
    assert are_one(encoded(icon(4)), encoded(padded(on(icon(4), "black"), "white"), "JPEG"))


def test_content_moved_within_a_page_is_another_picture():
    pages = []
    for y in (20, 60, 100, 140):
        page = Image.new("RGB", (240, 200), "white")
        ImageDraw.Draw(page).ellipse([100, y, 140, y + 40], fill="red")
        pages.append(encoded(page))
    table = ImageTable()
    table.add(pages)
    assert len(set(table.clusters(BITS).tolist())) == 4
    square = Image.new("RGB", (240, 240), "white")
    ImageDraw.Draw(square).ellipse([100, 80, 140, 120], fill="red")
    table.add([encoded(square)])  # any of them on a square
    assert len(set(table.clusters(BITS).tolist())) == 1


def test_different_pictures_stay_different_in_all_forms():
    table = ImageTable()
    table.add([encoded(make(seed)) for make in (icon, diagram) for seed in range(20)])
    table.add([encoded(padded(diagram(seed), "white")) for seed in range(20, 40)])
    assert len(set(table.clusters(BITS).tolist())) == 60


@pytest.mark.parametrize("ink", [(0, 0, 0), (255, 255, 255), (200, 30, 30)])
def test_silhouettes_that_differ_only_in_transparency_are_different(ink):
    """Without transparency each of them is a plain page of one color."""
    table, pages = ImageTable(), []
    for seed in range(12):
        drawn = np.asarray(icon(seed))[..., 3]
        pages.append(Image.merge("RGBA", [*(Image.new("L", drawn.shape[::-1], value) for value in ink),
                                          Image.fromarray(drawn)]))  # fmt: skip
    table.add([encoded(page) for page in pages])
    assert len(set(table.clusters(BITS).tolist())) == (1 if ink == (255, 255, 255) else 12)  # white on white is blank
    assert are_one(encoded(pages[0]), encoded(on(pages[0], "black" if ink[0] else "white"), "JPEG"))


def test_an_opaque_picture_and_a_plain_page_have_one_form():
    assert len(fingerprint_of(encoded(picture(1).convert("RGBA"))).forms) == 1
    for size in ((64, 64), (300, 2), (1, 1)):
        assert len(fingerprint_of(encoded(Image.new("RGB", size, "white"))).forms) == 1


def test_flattening_shows_the_picture_first():
    file = encoded(icon(1))
    shown, black, bare = open_flattened(file)
    assert shown.tobytes() == open_image(file).tobytes()
    assert (black.getpixel((0, 0)), bare.getpixel((0, 0))) == ((0, 0, 0), icon(1).getpixel((0, 0))[:3])


def test_shapes_are_steps_of_three_and_a_half_per_cent():
    assert [shape_of(size) for size in ((10, 10), (20, 10), (10, 20), (1, 9999), (9999, 1))] == [128, 148, 108, 0, 255]
