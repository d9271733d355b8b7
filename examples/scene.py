"""Draw a picture for a first try: four scanned digits in a 2x2 grid, which the demo's model has learned to read.

python examples/scene.py scene.png
"""

from __future__ import annotations

import sys

from r1_reward.serve.page import examples

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/scene.py FILE.png")
    example = examples()[1]
    example.picture.save(sys.argv[1])
    print(f"{sys.argv[1]}: {example.question} {' / '.join(example.answers)}")  # noqa: T201
