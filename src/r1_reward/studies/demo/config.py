"""What decides a run of the demo."""

from __future__ import annotations

from dataclasses import dataclass

from r1_reward.data.handwriting import Teacher

MODELS = ("base", "sft", "control", "rl")
VOTING_MODELS = ("sft", "rl")


@dataclass(frozen=True)
class DemoConfig:
    """Everything that decides what a demo run computes."""

    seed: int = 0
    train_pairs: int = 14_000
    test_pairs: int = 600
    captions: int = 12_000
    hard_share: float = 0.8
    teacher_easy_success: float = 0.95
    teacher_hard_success: float = 0.12
    teacher_inconsistent: float = 0.02
    ground_steps: int = 400
    sft_max_steps: int = 500
    sft_stop_accuracy: float = 0.65
    sft_learning_rate: float = 1.5e-3
    sft_batch: int = 32
    caption_share: float = 0.25
    dev_pairs: int = 128
    dev_every: int = 20
    attempt_pairs: int = 1_500
    rl_steps: int = 90
    rl_batch: int = 256
    rl_updates_per_rollout: int = 2
    rl_learning_rate: float = 2e-4
    votes: int = 15
    voting_pairs: int = 200
    max_new_tokens: int = 64

    def teacher(self) -> Teacher:
        """Return the simulated teacher."""
        return Teacher(self.teacher_easy_success, self.teacher_hard_success, self.teacher_inconsistent)
