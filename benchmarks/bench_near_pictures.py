"""Measure how many flattened or padded copies of pictures are found, and how many other pictures are mistaken for them.

    python benchmarks/bench_near_pictures.py

Pictures of seven kinds are generated: photographs (soft blobs with noise), diagrams and pages of text on white, screens
with colored bars, icons with transparent parts, black silhouettes, and pages of one size with the same object at
different positions. Every copy is a JPEG of quality 85. Two near pictures of different origin, each unchanged or on a
white square, count as a false pair; so do two near scenes of the demo.
"""

from __future__ import annotations

import argparse
import io
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from r1_reward.data.duplicates import PrintMatrix, near_prints
from r1_reward.data.forms import Fingerprint, fingerprint_of
from r1_reward.data.handwriting import Teacher, build_world
from r1_reward.data.mix_config import Near
from r1_reward.store.files import write_json
from r1_reward.store.images import open_image
from r1_reward.store.machine import describe_machine

PADS = {"white": (255, 255, 255), "black": (0, 0, 0), "mean": (122, 116, 104)}
GROUNDS = {"white": "white", "black": "black", "grey": (128, 128, 128), "no transparency": None}


def photograph(rng: np.random.Generator) -> Image.Image:
    """Return soft blobs with noise, in any shape."""
    size = tuple(int(side) for side in rng.integers(200, 900, 2))
    blobs = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = rng.normal(0, 6, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(blobs) + noise, 0, 255).astype(np.uint8))


def diagram(rng: np.random.Generator) -> Image.Image:
    """Return bars of several colors on white, with margins."""
    width, height = (int(side) for side in rng.integers(250, 500, 2))
    page = Image.new("RGB", (width, height), "white")
    draw, count = ImageDraw.Draw(page), int(rng.integers(3, 9))
    for place in range(count):
        left = 30 + place * (width - 60) // count
        colour = tuple(int(value) for value in rng.integers(0, 200, 3))
        draw.rectangle([left, int(rng.integers(30, height - 60)), left + 20, height - 30], fill=colour)
    return page


def page_of_text(rng: np.random.Generator) -> Image.Image:
    """Return lines of words on white."""
    width, height = (int(side) for side in rng.integers(250, 500, 2))
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    for y in range(25, height - 40, 22):
        letters = rng.choice(list("abcdefghij klmnop qrstuv"), int(rng.integers(5, width // 9)))
        draw.text((20, y), "".join(letters), fill="black", font_size=18)
    return page


def screen(rng: np.random.Generator) -> Image.Image:
    """Return a picture of a window: a bar of one color at the top, content below it."""
    inside = photograph(rng)
    page = Image.new("RGB", (inside.width, inside.height + 60), tuple(int(v) for v in rng.integers(0, 256, 3)))
    page.paste(inside, (0, 60))
    return page


def icon(rng: np.random.Generator) -> Image.Image:
    """Return shapes of several colors on a wholly or partly transparent background."""
    width, height = (int(side) for side in rng.integers(150, 400, 2))
    page = Image.new("RGBA", (width, height), (*(int(v) for v in rng.integers(0, 256, 3)), 0))
    draw = ImageDraw.Draw(page)
    for _ in range(int(rng.integers(3, 7))):
        corners = np.sort(rng.random((2, 2)), axis=0) * (width, height)
        colour = (*(int(v) for v in rng.integers(0, 256, 3)), int(rng.choice([255, 255, 160])))
        draw.ellipse([*corners[0], *(corners[1] + 20)], fill=colour)
    return page


def silhouette(rng: np.random.Generator) -> Image.Image:
    """Return an icon that is black everywhere, also in its transparent parts."""
    alpha = icon(rng).getchannel("A")
    black = Image.new("L", alpha.size, 0)
    return Image.merge("RGBA", [black, black, black, alpha])


def moved(rng: np.random.Generator) -> Image.Image:
    """Return a page with one red disc at a random position: the same object, another picture."""
    page = Image.new("RGB", (320, 240), "white")
    x, y = (int(value) for value in rng.integers(20, 180, 2))
    ImageDraw.Draw(page).ellipse([x, y, x + 40, y + 40], fill="red")
    return page


KINDS = {
    "photographs": photograph, "diagrams": diagram, "pages of text": page_of_text, "screens": screen, "icons": icon,
    "silhouettes": silhouette,
    "moved discs": moved,
}  # fmt: skip


def padded(picture: Image.Image, colour: tuple[int, int, int], place: float = 0.5) -> Image.Image:
    """Return a picture on a square of a color, in the middle or (0) at the start."""
    side = max(picture.size)
    square = Image.new("RGB", (side, side), colour)
    square.paste(picture, (round((side - picture.width) * place), round((side - picture.height) * place)))
    return square


def flattened(picture: Image.Image, ground: str | tuple[int, int, int] | None) -> Image.Image:
    """Return a transparent picture on a background, or with its transparency dropped."""
    if ground is None or picture.mode == "RGB":
        return picture.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", picture.size, ground), picture).convert("RGB")


def encoded(picture: Image.Image, kind: str = "JPEG") -> bytes:
    """Return the bytes of a JPEG file."""
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 85} if kind == "JPEG" else {}))
    return file.getvalue()


def copies(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    """Yield copies of a picture as data sets may contain them, by name."""
    if picture.mode == "RGBA":
        for name, ground in GROUNDS.items():
            yield f"flattened: {name}", encoded(flattened(picture, ground))
        yield "flattened: black, padded: white", encoded(padded(flattened(picture, "black"), PADS["white"]))
        return
    smaller = picture.resize((picture.width * 3 // 5, picture.height * 3 // 5), Image.Resampling.LANCZOS)
    yield "60 % of the size", encoded(smaller)
    if max(picture.size) < 1.1 * min(picture.size):
        return  # padding a square changes nothing
    for name, colour in PADS.items():
        yield f"padded: {name}", encoded(padded(picture, colour))
    yield (
        "padded: black, at the end, half the size",
        encoded(padded(picture, PADS["black"], 0).resize((max(picture.size) // 2,) * 2, Image.Resampling.LANCZOS)),
    )


def first_form(found: Fingerprint) -> Fingerprint:
    """Return a fingerprint without other forms."""
    return found._replace(forms=found.forms[:1])


def near(prints: list[Fingerprint], bits: int) -> set[tuple[int, int]]:
    """Return the pairs of fingerprints that are near."""
    matrix, owners = PrintMatrix.of_all(enumerate(prints))
    pairs: set[tuple[int, int]] = set()
    for first, second in near_prints(matrix, matrix, bits, upper=True):
        for i, j in zip(owners[first].tolist(), owners[second].tolist(), strict=True):
            if i != j:
                pairs.add((min(i, j), max(i, j)))
    return pairs


def measure(count: int, bits: int, forms: Callable[[Fingerprint], Fingerprint]) -> dict[str, object]:
    """Return, by kind of copy, found and made; and by kind of picture, false pairs and pairs of different pictures."""
    found: dict[str, list[int]] = {}
    false: dict[str, list[int]] = {}
    for kind, make in KINDS.items():
        originals = [make(np.random.default_rng((3, number))) for number in range(count)]
        prints = [forms(fingerprint_of(encoded(one, "PNG"))) for one in originals]
        squares = [forms(fingerprint_of(encoded(padded(flattened(one, "white"), PADS["white"])))) for one in originals]
        pairs = [(i, j) for i, j in near([*prints, *squares], bits) if i % count != j % count]
        false[kind] = [len(pairs), 2 * count * (count - 1)]
        if make is moved:
            continue
        for number, one in enumerate(originals):
            for name, data in copies(one):
                tally = found.setdefault(f"{kind}, {name}", [0, 0])
                tally[0] += len(near([prints[number], forms(fingerprint_of(data))], bits))
                tally[1] += 1
    scenes = [forms(fingerprint_of(encoded(one, "PNG"))) for one in itertools.islice(_scenes(), count)]
    false["handwriting of the demo"] = [len(near(scenes, bits)), len(scenes) * (len(scenes) - 1) // 2]
    return {"found": found, "false": false}


def _scenes() -> Iterator[Image.Image]:
    """Yield the pictures of the demo; many show a few digits on the same background."""
    world = build_world(seed=3, train_pairs=200, test_pairs=50, captions=50, teacher=Teacher(0.8, 0.0))
    yield from world.images.values()


def seconds_a_picture(count: int) -> dict[str, float]:
    """Return the times of decoding alone and of decoding with fingerprinting."""
    rng = np.random.default_rng(5)
    photographs = [encoded(photograph(rng).resize((1024, 768))) for _ in range(count)]
    pages = [encoded(diagram(rng).resize((1024, 768))) for _ in range(count)]
    icons = [encoded(icon(rng).resize((512, 512)), "PNG") for _ in range(count)]
    jobs = {"photographs": photographs, "diagrams": pages, "icons": icons}
    result = {}
    for (name, files), (what, job) in itertools.product(
        jobs.items(), {"decoded": open_image, "decoded and hashed": fingerprint_of}.items()
    ):
        start = time.perf_counter()
        for data in files:
            job(data)
        result[f"{name}, {what}"] = (time.perf_counter() - start) / count
    return result


def main() -> None:
    """Measure with and without the other forms; print and write the numbers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100, help="pictures of each kind")
    parser.add_argument("--bits", type=int, default=Near().image_bits)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench-near-pictures.json"))
    options = parser.parse_args()
    result = {
        "machine": describe_machine(),
        "count": options.count,
        "bits": options.bits,
        "one form": measure(options.count, options.bits, first_form),
        "all forms": measure(options.count, options.bits, lambda found: found),
        "seconds": seconds_a_picture(30),
    }
    for name in ("one form", "all forms"):
        for what in ("found", "false"):
            for kind, (some, all_) in result[name][what].items():
                print(f"{name}, {what}: {kind}: {some} of {all_}")
    for name, seconds in result["seconds"].items():
        print(f"{name}: {1000 * seconds:.1f} ms")
    write_json(options.out, result)


if __name__ == "__main__":
    main()
