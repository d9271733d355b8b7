"""Write a pair file about photographs from scikit-image and scikit-learn: ``python examples/photographs.py DIR``.

The pairs were written by hand while looking at the pictures: one response is right, the other is plausible but wrong.
They are an example of the file format and a smoke test of training on real images, not a dataset.
"""

from __future__ import annotations

import sys
from pathlib import Path

import sklearn.datasets
from PIL import Image

from r1_reward import PreferencePair, save_pairs
from r1_reward.store.dataset_card import write_card

try:
    import skimage
except ModuleNotFoundError:
    sys.exit("the photographs are scikit-image's: pip install scikit-image")

SKIMAGE = Path(skimage.__file__).parent / "data"
SKLEARN = Path(sklearn.datasets.__file__).parent / "images"

# photograph, question, right response, wrong response
PHOTOGRAPHS = [
    (SKIMAGE / "astronaut.png", "What is the person wearing?", "An orange space suit.", "A white laboratory coat."),
    (
        SKIMAGE / "astronaut.png",
        "What is behind her?",
        "A flag of the United States and a model of the Space Shuttle.",
        "A bookshelf and a globe.",
    ),
    (SKIMAGE / "chelsea.png", "Which animal is this?", "A tabby cat, seen close up.", "A young fox, seen close up."),
    (SKIMAGE / "chelsea.png", "Are its eyes open?", "Yes, both eyes are open.", "No, it is asleep."),
    (SKIMAGE / "coffee.png", "What is on the saucer?", "A small spoon.", "A biscuit and two lumps of sugar."),
    (SKIMAGE / "coffee.png", "What color is the saucer?", "Dark red.", "It is plain white porcelain."),
    (
        SKIMAGE / "rocket.jpg",
        "What is in the middle?",
        "A rocket upright on its launch pad.",
        "A lighthouse by the sea.",
    ),
    (SKLEARN / "china.jpg", "What kind of building is this?", "A tiered Chinese pavilion.", "A Gothic cathedral."),
    (SKLEARN / "china.jpg", "What is behind the building?", "A wide lake.", "A range of snowy mountains."),
    (SKLEARN / "flower.jpg", "What color is the flower?", "Orange.", "It is a deep blue flower."),
    (SKIMAGE / "motorcycle_left.png", "What color is the motorcycle's tank?", "Red.", "It is black and green."),
    (SKIMAGE / "motorcycle_left.png", "Where is it parked?", "In a garage or workshop.", "On a country road."),
    (SKIMAGE / "coins.png", "What do you see?", "Four rows of old coins.", "A tray of round biscuits."),
    (SKIMAGE / "camera.png", "What is the man doing?", "Looking through a camera on a tripod.", "Reading a newspaper."),
    (SKIMAGE / "hubble_deep_field.jpg", "What is this?", "Galaxies in the dark sky.", "City lights seen from a plane."),
    (SKIMAGE / "moon.png", "What surface is this?", "The cratered surface of the Moon.", "Wet sand on a beach."),
]


def main(folder: Path) -> None:
    """Copy the photographs to ``folder/photographs`` and write ``folder/pairs.jsonl``, with balanced labels."""
    (folder / "photographs").mkdir(parents=True, exist_ok=True)
    pairs = []
    for index, (source, question, right, wrong) in enumerate(PHOTOGRAPHS):
        name = f"photographs/{source.stem}.jpg"
        if not (folder / name).exists():
            Image.open(source).convert("RGB").save(folder / name, quality=90)
        first_is_right = index % 2 == 0
        pairs.append(
            PreferencePair(
                id=f"photograph-{index}",
                question=question,
                images=[name],
                response_1=right if first_is_right else wrong,
                response_2=wrong if first_is_right else right,
                preferred=1 if first_is_right else 2,
                source="photographs",
            )
        )
    save_pairs(pairs, folder / "pairs.jsonl")
    text = "`images` are paths relative to this folder: `r1-reward` loads them, `datasets` leaves them as paths."
    write_card(folder, {"default": {"train": "pairs.jsonl"}}, "Pairs about photographs", text)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/photographs"))
