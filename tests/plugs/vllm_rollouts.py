"""RL of the tiny model with rollouts by vLLM, on a CPU: ``python tests/plugs/vllm_rollouts.py train rl --config ...``.

All arguments go to ``r1-reward``. On a CPU, vLLM 0.32 keeps the weights of its linear layers in
a packed form and drops the originals, so the trainer's new weights cannot be loaded (``'Parameter' object has
no attribute 'weight_loader'``). The one line below leaves them unpacked; nothing in this package or in TRL is
changed, and a GPU does not need it.
"""

from __future__ import annotations

import os
import sys

import torch

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


def leave_weights_unpacked() -> None:
    """Make vLLM use the weights as loaded, so that new ones can replace them."""
    from vllm.model_executor.layers import utils

    utils.dispatch_cpu_unquantized_gemm = lambda layer, remove_weight: setattr(
        layer, "cpu_linear", torch.nn.functional.linear
    )


if __name__ == "__main__":
    from r1_reward.cli import main

    leave_weights_unpacked()
    sys.exit(main())
