"""Numeric features as a network reads them: compressed, standardised, with missing as a value of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLIP = 5.0


class Normaliser(nn.Module):
    """[..., F] raw values -> [..., 2F] standardised values and missing flags.

    Values go through `sign(x) * log(1 + |x|)` first, since counts and durations have long tails. The statistics
    are stored in the checkpoint, so serving uses those of training. They are 0 and 1 until `calibrate`.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    @property
    def width(self) -> int:
        """Size of the last axis of the output."""
        return 2 * self.features

    @torch.no_grad()
    def calibrate(self, values: Tensor) -> None:
        """Set mean and scale from [..., F] training values; nan is left out, a constant gets scale 1."""
        flat = compress(values.flatten(0, -2).double())
        known = ~torch.isnan(flat)
        count = known.sum(0).clamp(min=1)
        mean = torch.where(known, flat, 0.0).sum(0) / count
        variance = torch.where(known, flat - mean, 0.0).square().sum(0) / count
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(variance > 1e-12, variance.sqrt(), torch.ones_like(variance)))

    def forward(self, values: Tensor) -> Tensor:
        """Standardise, clip to five deviations, and append one flag per feature: 1 = missing."""
        missing = torch.isnan(values)
        standard = ((compress(values) - self.mean) / self.scale).clamp(-CLIP, CLIP)
        return torch.cat([torch.where(missing, 0.0, standard), missing.to(values.dtype)], dim=-1)


def compress(values: Tensor) -> Tensor:
    """Return `sign(x) * log(1 + |x|)`; nan stays nan."""
    return values.sign() * values.abs().log1p()
