"""What decides a run of the demo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from r1_reward.records.settings import Settings

if TYPE_CHECKING:
    from r1_reward.data.handwriting import Teacher

MODELS = ("base", "sft", "control", "rl")
VOTING_MODELS = ("sft", "rl")


class DemoConfig(Settings):
    """Everything that decides what a demo run computes."""

    seed: int = Field(default=0, ge=0, description="Decides data, weights and sampling.")
    train_pairs: int = Field(default=14_000, ge=1, description="Pairs to train on.")
    test_pairs: int = Field(default=600, ge=1, description="Held-out pairs that every model is judged on.")
    captions: int = Field(default=12_000, ge=0, description="Scenes with a caption, to learn reading from.")
    house_share: float = Field(default=0.5, ge=0, le=1, description="Share of pairs whose question has a house word.")
    teacher_success: float = Field(
        default=0.9, ge=0, le=1, description="Share of pairs without a house word that the teacher explains."
    )
    teacher_inconsistent: float = Field(
        default=0.02, ge=0, le=1, description="Share of the teacher's texts that contradict their verdict."
    )
    ground_steps: int = Field(default=320, ge=1, description="Steps on captions before the first judgement.")
    sft_max_steps: int = Field(default=560, ge=1, description="Most steps of imitation.")
    sft_patience: int = Field(
        default=3, ge=1, description="Looks at the development pairs without a better accuracy that end imitation."
    )
    sft_learning_rate: float = Field(default=1.5e-3, gt=0, description="Learning rate of imitation.")
    sft_batch: int = Field(default=32, ge=1, description="Rows of a step of imitation.")
    caption_share: float = Field(default=0.25, ge=0, lt=1, description="Share of captions among the rows of imitation.")
    dev_pairs: int = Field(default=256, ge=1, description="Pairs kept from training, to end imitation by.")
    dev_every: int = Field(default=50, ge=1, description="Steps between two looks at them.")
    attempt_pairs: int = Field(default=600, ge=1, description="Taught pairs on which the model's attempts are counted.")
    rl_taught_share: float = Field(
        default=0.5, ge=0, lt=1, description="Share of the RL set that is not hard, so that nothing is unlearned."
    )
    rl_steps: int = Field(default=28, ge=1, description="Rollouts of reinforcement learning.")
    rl_batch: int = Field(default=256, ge=1, description="Sequences of a rollout.")
    rl_updates_per_rollout: int = Field(default=2, ge=1, description="Updates that share a rollout.")
    rl_learning_rate: float = Field(default=3e-4, gt=0, description="Learning rate of reinforcement learning.")
    rl_temperature: float = Field(default=1.3, gt=0, description="Temperature of the rollouts.")
    votes: int = Field(default=15, ge=1, description="Sampled votes a pair, for majorities.")
    voting_pairs: int = Field(default=200, ge=1, description="Held-out pairs that get them.")
    max_new_tokens: int = Field(default=64, ge=1, description="Longest judgement, in tokens.")

    def teacher(self) -> Teacher:
        """Return the simulated teacher."""
        from r1_reward.data.handwriting import Teacher

        return Teacher(self.teacher_success, self.teacher_inconsistent)
