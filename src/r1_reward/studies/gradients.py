"""Compare two losses of one forward pass by their gradients with respect to the parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def compare_gradients(loss: Tensor, other: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the cosine of the gradient of ``loss`` to that of ``other``, and the ratio of their norms.

    This takes two backward passes, keeps the graph and leaves ``.grad`` unchanged.

    Args:
        loss: Scalar.
        other: Scalar of the same graph; the ratio divides by its norm.
        parameters: Parameters to differentiate; the gradient of a loss that does not depend on one is 0.

    Returns:
        Scalars in float64. If one gradient is zero, the cosine is 0 and the ratio 0 or inf; if both are, (1, 1). If
        the gradient of ``other`` is not finite, (0, 0), because that of ``loss`` is negligible in comparison.
    """
    first, second = (
        torch.autograd.grad(scalar, parameters, retain_graph=True, allow_unused=True) for scalar in (loss, other)
    )
    products = loss.new_zeros(3, dtype=torch.float64)
    for a, b in zip(first, second, strict=True):
        a, b = (torch.zeros(()) if gradient is None else gradient.double() for gradient in (a, b))
        products += torch.stack([(a * b).sum(), (a * a).sum(), (b * b).sum()]).to(products)
    dot, squared, other_squared = products.unbind()
    if not other_squared.isfinite():
        return torch.zeros_like(dot), torch.zeros_like(dot)
    if squared == 0 and other_squared == 0:
        return torch.ones_like(dot), torch.ones_like(dot)
    norms = (squared * other_squared).sqrt()
    return torch.where(norms > 0, dot / norms.clamp_min(1e-300), 0.0), (squared / other_squared).sqrt()
