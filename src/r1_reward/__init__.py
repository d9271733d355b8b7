"""R1-Reward: train, evaluate and serve generative multimodal reward models with StableReinforce.

    from r1_reward import load_pairs, build_prompt, parse_judgment

Public names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "PreferencePair": "schema",
    "Judgment": "schema",
    "UserError": "errors",
    "build_prompt": "prompt",
    "build_messages": "prompt",
    "parse_judgment": "parsing",
    "majority": "voting",
    "Verdict": "voting",
    "RewardModel": "reward_model",
    "PairToJudge": "sampling",
    "Video": "data.video",
    "Calibration": "calibration",
    "Ranking": "ranking",
    "format_reward": "rewards",
    "result_reward": "rewards",
    "combine_rewards": "rewards",
    "RuleReferee": "referee",
    "load_pairs": "data.pairs",
    "save_pairs": "data.pairs",
    "balance": "data.pairs",
    "both_orders": "data.pairs",
    "split": "data.pairs",
    "StableReinforceConfig": "train.rl",
    "StableReinforceTrainer": "train.rl",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Import the module that holds ``name`` when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'r1_reward' has no attribute {name!r}")
    return getattr(import_module(f"r1_reward.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
