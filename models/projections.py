"""Input projections: a linear layer for each feature, and one that fuses several."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FusedProjection(nn.Module):
    """Each feature by a linear layer of its own, then all of them by another (HAN, 2020).

    Args:
        widths: of the features, in the order in which they are concatenated. One alone is not fused.
        dim: D.
    """

    def __init__(self, widths: Sequence[int], dim: int):
        super().__init__()
        self.widths = list(widths)
        self.features = nn.ModuleList(nn.Linear(width, dim) for width in widths)
        self.fusion = nn.Linear(len(self.widths) * dim, dim) if len(self.widths) > 1 else None

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, sum of widths) -> (B, T, D)"""
        projected = project_each(features, self.features)  # (B, T, number of features · D)
        return projected if self.fusion is None else self.fusion(projected)


def project_each(features: Tensor, layers: Sequence[nn.Linear]) -> Tensor:
    """Concatenated features, each by a layer of its own: (B, T, sum of widths) -> (B, T, K·D) for K features."""
    parts = features.split([layer.in_features for layer in layers], dim=-1)
    return torch.cat([layer(part) for layer, part in zip(layers, parts, strict=True)], dim=-1)
