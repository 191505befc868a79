"""Input projections: a linear layer for each feature, and one that fuses several."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FusedProjection(nn.Module):
    """Each feature by a linear layer of its own, then all of them by another (as in the first HAN).

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
        parts = features.split(self.widths, dim=-1)
        projected = [layer(part) for layer, part in zip(self.features, parts, strict=True)]
        return projected[0] if self.fusion is None else self.fusion(torch.cat(projected, dim=-1))
