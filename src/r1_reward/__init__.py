"""R1-Reward: train, evaluate and serve generative multimodal reward models with StableReinforce.

    from r1_reward import load_pairs, build_prompt, parse_judgment

Public names are imported on first use, so that ``import r1_reward`` stays fast and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_HOME = {
    "PreferencePair": "records.schema",
    "Judgment": "records.schema",
    "UserError": "records.errors",
    "build_prompt": "records.prompt",
    "build_messages": "records.prompt",
    "parse_judgment": "records.parsing",
    "majority": "judge.voting",
    "Verdict": "judge.voting",
    "RewardModel": "judge.reward_model",
    "PairToJudge": "judge.prepare",
    "Video": "store.video",
    "Calibration": "judge.calibration",
    "Ranking": "judge.ranking",
    "format_reward": "rewards",
    "result_reward": "rewards",
    "combine_rewards": "rewards",
    "RuleReferee": "judge.referee",
    "load_referee": "judge.referee",
    "GroupReward": "serve.dialects.trl",
    "AsyncGroupReward": "serve.dialects.trl",
    "load_pairs": "store.pairs",
    "save_pairs": "store.pairs",
    "balance": "data.subsets",
    "both_orders": "data.subsets",
    "split": "data.subsets",
    "StableReinforceConfig": "train.rl_config",
    "StableReinforceTrainer": "train.rl",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Import the module that defines ``name`` on first access."""
    if name not in _HOME:
        raise AttributeError(f"module 'r1_reward' has no attribute {name!r}")
    return getattr(import_module(f"r1_reward.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
