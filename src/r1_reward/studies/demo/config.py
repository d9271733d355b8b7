"""The configuration of the demo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from r1_reward.records.settings import Settings

if TYPE_CHECKING:
    from r1_reward.data.handwriting import Teacher

MODELS = ("base", "sft", "control", "rl")
VOTING_MODELS = ("sft", "rl")


class DemoConfig(Settings):
    """Everything that determines the results of a demo run."""

    seed: int = Field(default=0, ge=0, description="Determines data, weights and sampling.")
    train_pairs: int = Field(default=14_000, ge=1, description="Pairs to train on.")
    test_pairs: int = Field(default=600, ge=1, description="Held-out pairs to evaluate every model on.")
    captions: int = Field(default=12_000, ge=0, description="Captioned scenes from which to learn reading.")
    house_share: float = Field(default=0.5, ge=0, le=1, description="Share of pairs whose question has a house word.")
    teacher_success: float = Field(
        default=0.9, ge=0, le=1, description="Share of pairs without a house word that the teacher explains."
    )
    teacher_inconsistent: float = Field(
        default=0.02, ge=0, le=1, description="Share of the teacher's texts that contradict their own verdict."
    )
    ground_steps: int = Field(default=400, ge=1, description="Steps on captions before SFT.")
    sft_max_steps: int = Field(default=700, ge=1, description="Maximum number of SFT steps.")
    sft_patience: int = Field(
        default=10, ge=1, description="Evaluations on development pairs without a better accuracy that end SFT."
    )
    sft_learning_rate: float = Field(default=1.5e-3, gt=0, description="Learning rate of SFT.")
    sft_batch: int = Field(default=32, ge=1, description="Rows per SFT step.")
    caption_share: float = Field(default=0.25, ge=0, lt=1, description="Share of captions among the SFT rows.")
    dev_pairs: int = Field(default=256, ge=1, description="Training pairs kept to stop SFT early.")
    dev_every: int = Field(default=25, ge=1, description="Steps between evaluations on them.")
    attempt_pairs: int = Field(default=600, ge=1, description="Taught pairs to count the model's attempts on.")
    rl_taught_share: float = Field(
        default=0.4, ge=0, lt=1, description="Share of the RL set that is not hard, to prevent forgetting."
    )
    rl_steps: int = Field(default=40, ge=1, description="Rollouts of reinforcement learning.")
    rl_batch: int = Field(default=256, ge=1, description="Sequences per rollout.")
    rl_updates_per_rollout: int = Field(default=2, ge=1, description="Updates per rollout.")
    rl_learning_rate: float = Field(default=2e-4, gt=0, description="Learning rate of reinforcement learning.")
    votes: int = Field(default=15, ge=1, description="Sampled votes per pair, for majorities.")
    voting_pairs: int = Field(default=200, ge=1, description="Held-out pairs to sample votes for.")
    max_new_tokens: int = Field(default=64, ge=1, description="Token limit of a judgment.")

    def teacher(self) -> Teacher:
        """Return the simulated teacher."""
        from r1_reward.data.handwriting import Teacher

        return Teacher(self.teacher_success, self.teacher_inconsistent)
