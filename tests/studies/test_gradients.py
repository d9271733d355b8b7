"""Comparing the gradients of two losses, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from r1_reward.studies.gradients import compare_gradients


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # loss = first . w, so the gradient is first; split over two parameters
        ((3.0, 4.0), (6.0, 8.0), (1.0, 0.5)),
        ((3.0, 4.0), (-4.0, 3.0), (0.0, 1.0)),
        ((1.0, 0.0), (1.0, 1.0), (1 / math.sqrt(2), 1 / math.sqrt(2))),
        ((1.0, 0.0), (-2.0, 0.0), (-1.0, 0.5)),
        ((0.0, 0.0), (1.0, 1.0), (0.0, 0.0)),
        ((1.0, 1.0), (0.0, 0.0), (0.0, math.inf)),
        ((0.0, 0.0), (0.0, 0.0), (1.0, 1.0)),
        ((1.0, 1.0), (math.inf, 0.0), (0.0, 0.0)),
    ],
)
def test_by_hand(first, second, expected):
    a, b, unused = (torch.tensor(1.0, requires_grad=True) for _ in range(3))
    losses = [x * a + y * b for x, y in (first, second)]
    cosine, ratio = compare_gradients(*losses, [a, b, unused])
    assert (cosine.item(), ratio.item()) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    assert a.grad is None
    losses[0].backward()  # the graph is still there
    assert a.grad == first[0]
