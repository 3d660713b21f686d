"""A helper: private, so it is no plugin itself, but a change of it changes what `nudge` is."""

from __future__ import annotations

from typing import Any


def add(weight: Any, scale: float, seed: int) -> float:
    """Add Gaussian noise to a weight in place and return the squared L2 norm of what was added."""
    import torch

    noise = scale * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    weight.add_(noise)
    return float(noise.square().sum())
