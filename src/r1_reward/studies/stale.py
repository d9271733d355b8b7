"""Rollouts from other weights than the ones being trained: older ones, or rounded ones.

Asynchronous trainers sample with a policy some updates old, mixed-engine trainers with weights of another precision.
:class:`SamplingWeights` reproduces both inside an ordinary trainer, so that their effect can be measured: it swaps the
sampling policy's weights in for the time of generation and of the old log-probabilities, and back out again.

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
    """The weights rollouts are sampled with.

    Copies lie in CPU memory, one a rollout for as long as it is needed: ``stale_updates`` divided by the updates per
    rollout, rounded up, plus one. Only parameters that are trained are copied. Not for sharded parameters (FSDP,
    ZeRO-3), whose weights are not where the model shows them.
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
        """Choose the weights of the coming rollout and return how many updates old they are.

        They are the newest that are ``stale_updates`` updates old; at the start of a run, and after a rollback to an
        earlier step, the oldest there are.

        Args:
            step: Updates done so far.
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
        """Drop the older weights: the next rollout samples with those being trained (after a rollback, say)."""
        self._copies.clear()

    def copies(self) -> list[tuple[int, list[Tensor]]]:
        """Return the older weights, each with its step, the oldest first."""
        return list(self._copies)

    def restore(self, copies: Sequence[tuple[int, Sequence[Tensor]]]) -> None:
        """Go on with what `copies` returned."""
        self._copies = deque((step, [tensor.cpu() for tensor in tensors]) for step, tensors in copies)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Give the model the sampling policy's weights inside the block; without staleness and rounding do nothing."""
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
