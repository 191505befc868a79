"""From the features of a clip's frames to one feature of the clip."""

import math

import torch
from torch import Tensor, nn


class TemporalPooling(nn.Module):
    """Pools D features of each of T frames that were encoded apart.

    "none" keeps them apart, "mean" averages them, and before that "transformer" lets a small transformer see them all.
    """

    def __init__(self, dim: int, kind: str, width: int = 256, num_heads: int = 4, num_layers: int = 2):
        super().__init__()
        self.kind = kind
        self.out_dim = width if kind == "transformer" else dim
        if kind == "transformer":
            self.proj = nn.Linear(dim, width)
            layer = nn.TransformerEncoderLayer(width, num_heads, 2 * width, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, D) -> (B, out_dim), or (B, T, D) when frames are kept apart."""
        if self.kind == "none":
            return features
        if self.kind == "transformer":
            features = self.proj(features)
            features = self.encoder(features + sinusoids(features.shape[1], features.shape[2]).to(features))
        return features.mean(dim=1)


def sinusoids(length: int, dim: int) -> Tensor:
    """Return sine and cosine positions of the Transformer: (T, D) float32, D even."""
    rates = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    angles = torch.arange(length).unsqueeze(1) * rates  # (T, D / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
