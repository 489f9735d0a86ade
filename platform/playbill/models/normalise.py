"""Numeric features as a network reads them: compressed, standardised, with missing as a value of its own.

Axis letters: S snapshots, T titles, F features, U features that differ.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        # One feature at a time: in double, those of a large catalogue at all moments would take gigabytes.
        for place in range(self.features):
            own = compress(values[..., place].flatten().double())
            own = own[~torch.isnan(own)]
            if len(own):
                variance = own.var(correction=0)
                self.mean[place] = own.mean()
                self.scale[place] = variance.sqrt() if variance > 1e-12 else 1.0
            else:
                self.mean[place], self.scale[place] = 0.0, 1.0

    def forward(self, values: Tensor) -> Tensor:
        """Standardise, clip to five deviations, and append one flag per feature: 1 = missing."""
        missing = torch.isnan(values)
        standard = ((compress(values) - self.mean) / self.scale).clamp(-CLIP, CLIP)
        return torch.cat([torch.where(missing, 0.0, standard), missing.to(values.dtype)], dim=-1)

    def one(self, values: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """Return the standardised values of one feature, and its flags."""
        missing = torch.isnan(values)
        standard = ((compress(values) - self.mean[place]) / self.scale[place]).clamp(-CLIP, CLIP)
        return torch.where(missing, 0.0, standard), missing.to(values.dtype)

    @torch.no_grad()
    def plain(self, values_STF: Tensor) -> DistinctFeatures:
        """Return the output for the features of titles at S moments, every column as it is: for a single use."""
        found_ST2F = self(values_STF)
        found_ST2F[:, :1] = 0.0
        return DistinctFeatures(found_ST2F, torch.eye(self.width, dtype=found_ST2F.dtype))

    @torch.no_grad()
    def distinct(self, values_STF: Tensor) -> DistinctFeatures:
        """Return the output for the features of titles at S moments, each different column of it once.

        Features of one view are missing together and those of an absent one always are, so few columns differ.
        """
        missing_STF = torch.isnan(values_STF)
        missing_STF[:, :1] = False
        counts = missing_STF.sum((0, 1)).tolist()
        cells = missing_STF.shape[0] * max(missing_STF.shape[1] - 1, 0)
        told = [place for place, count in enumerate(counts) if count < cells]
        flags: list[list[int]] = []
        for place in (place for place, count in enumerate(counts) if count):
            own = missing_STF[..., place]
            twins = (group for group in flags if counts[group[0]] == counts[place])
            twin = next((group for group in twins if torch.equal(missing_STF[..., group[0]], own)), None)
            flags.append([place]) if twin is None else twin.append(place)
        groups = [[place] for place in told] + [[self.features + place for place in group] for group in flags]
        spread_UF = values_STF.new_zeros(len(groups), self.width)
        for number, group in enumerate(groups):
            spread_UF[number, group] = 1.0
        found_STU = values_STF.new_zeros(*values_STF.shape[:2], len(groups))
        first = [group[0] for group in groups]
        for own_TU, raw_TF in zip(found_STU, values_STF, strict=True):
            own_TU[1:] = self(raw_TF[1:])[:, first]
        return DistinctFeatures(found_STU, spread_UF)


@dataclass(frozen=True, slots=True)
class DistinctFeatures:
    """Normalised features of T titles at S moments, without columns that repeat another one or are all zero."""

    values: Tensor
    """[S, T, U]; those of the padding title are 0."""
    spread: Tensor
    """[U, 2F] 1 where a column stands for a feature: `values @ spread` is what a normaliser gives for each."""

    def weights(self, weights_2F: Tensor) -> Tensor:
        """Return weights [..., U] of the columns, from those [..., 2F] of the features."""
        return weights_2F @ self.spread.T


def compress(values: Tensor) -> Tensor:
    """Return `sign(x) * log(1 + |x|)`; nan stays nan."""
    return values.sign() * values.abs().log1p()
