"""RL of the tiny model with rollouts by vLLM, on a CPU: ``python tests/plugs/vllm_rollouts.py train rl --config ...``.

Everything behind the script's name goes to ``r1-reward``. On a CPU vLLM 0.32 keeps the weights of its linear layers in
a packed form and drops the originals, so that the trainer's new weights have no place to go (``'Parameter' object has
no attribute 'weight_loader'``). The one line below leaves them as they are; nothing of this package or of TRL is
changed, and on a GPU none of it is needed.
"""

from __future__ import annotations

import os
import sys

import torch

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


def leave_weights_unpacked() -> None:
    """Have vLLM multiply with the weights as they were loaded, which new ones can replace."""
    from vllm.model_executor.layers import utils

    utils.dispatch_cpu_unquantized_gemm = lambda layer, remove_weight: setattr(
        layer, "cpu_linear", torch.nn.functional.linear
    )


if __name__ == "__main__":
    from r1_reward.cli import main

    leave_weights_unpacked()
    sys.exit(main())
