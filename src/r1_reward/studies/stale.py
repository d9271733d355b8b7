"""Sample rollouts with other weights than those being trained: older or rounded ones.

Asynchronous trainers sample with a policy some updates old, mixed-engine trainers with weights of another precision.
:class:`SamplingWeights` reproduces both in an ordinary trainer to measure their effect: it swaps in the sampling
policy's weights during generation and for the old log-probabilities.

    sampling = SamplingWeights(model, stale_updates=8, dtype=torch.bfloat16)
    age = sampling.start_rollout(step)        # before each rollout
    with sampling.swapped_in():
        ...                                   # the model is the sampling policy
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class SamplingWeights:
    """The weights with which rollouts are sampled.

    Copies of the trained parameters are kept in CPU memory, one per rollout as long as it is needed: ``stale_updates``
    divided by the updates per rollout, rounded up, plus one. Sharded parameters (FSDP, ZeRO-3) are not supported.
    """

    def __init__(self, model: torch.nn.Module, *, stale_updates: int = 0, dtype: torch.dtype | None = None) -> None:
        self._parameters = list(model.parameters())
        self._trained = [parameter for parameter in self._parameters if parameter.requires_grad]
        self._stale_updates, self._dtype = stale_updates, dtype
        self._copies: deque[tuple[int, list[Tensor]]] = deque()

    @property
    def active(self) -> bool:
        """Whether the sampling policy can differ from the one being trained."""
        return self._stale_updates > 0 or self._dtype is not None

    def start_rollout(self, step: int) -> int:
        """Choose the weights of the next rollout and return their age in updates.

        They are the newest that are at least ``stale_updates`` updates old; at the start of a run, and after a rollback
        to an earlier step, the oldest available.

        Args:
            step: Number of updates so far.
        """
        if self._stale_updates == 0:
            return 0
        if self._copies and step < self._copies[-1][0]:
            self.forget()
        if not self._copies or step > self._copies[-1][0]:
            self._copies.append((step, [parameter.detach().to("cpu", copy=True) for parameter in self._trained]))
        while len(self._copies) > 1 and self._copies[1][0] <= step - self._stale_updates:
            self._copies.popleft()
        return step - self._copies[0][0]

    def forget(self) -> None:
        """Drop the older weights, for example after a rollback: the next rollout samples with the current ones."""
        self._copies.clear()

    def copies(self) -> list[tuple[int, list[Tensor]]]:
        """Return the older weights, each with its step, oldest first."""
        return list(self._copies)

    def restore(self, copies: Sequence[tuple[int, Sequence[Tensor]]]) -> None:
        """Restore what `copies` returned."""
        self._copies = deque((step, [tensor.cpu() for tensor in tensors]) for step, tensors in copies)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Swap in the sampling policy's weights inside the block; do nothing without staleness or rounding."""
        if not self.active:
            yield
            return
        kept = [parameter.data for parameter in self._parameters]
        try:
            if self._copies:
                for parameter, copy in zip(self._trained, self._copies[0][1], strict=True):
                    parameter.data = copy.to(parameter.device)
            if self._dtype is not None:
                for parameter in self._parameters:
                    if parameter.is_floating_point():
                        parameter.data = parameter.data.to(self._dtype).to(parameter.dtype)
            yield
        finally:
            for parameter, data in zip(self._parameters, kept, strict=True):
                parameter.data = data
