"""Layers of both networks as the papers define them, with the released parameter names.

The networks use the faster variants of dropout and attention in `models.fast_layers`.
"""

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from utils.errors import InputError

NumLayers = Annotated[int, Field(ge=1, le=100)]


class MLP(nn.Module):
    """Linear layers with ReLU between them, none after the last; dims `[128, 1024, 512]` make a 2-layer MLP."""

    def __init__(self, dims: Sequence[int]):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dims[0]) -> (..., dims[-1])"""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class FusedProjection(nn.Module):
    """Linear projections of each concatenated feature to D, fused by another unless there is one alone (HAN, 2020)."""

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
    """Project concatenated features, each by a layer of its own: (B, T, sum of widths) -> (B, T, K·D) of K."""
    parts = features.split([layer.in_features for layer in layers], dim=-1)
    return torch.cat([layer(part) for layer, part in zip(layers, parts, strict=True)], dim=-1)


class MultiheadAttention(nn.Module):
    """softmax(q kᵀ / √(D/H)) v in H heads, with the parameters of `nn.MultiheadAttention` (Vaswani et al., 2017).

    Queries, keys, values and output have width D, which H must divide; dropout applies to attention weights.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.dropout = nn.Dropout(dropout)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from `query` to `context`: (B, T, D), (B, S, D) -> (B, T, D).

        The mask is bool, broadcast to (B, H, T, S), False where a query may not attend; None: attend everywhere.
        """
        q, k, v = (self.split_heads(x) for x in self.project(query, context))
        attended = self.attend(q, k, v, mask)  # (B, H, T, D/H)
        return self.out_proj(attended.transpose(1, 2).flatten(-2))

    def project(self, query: Tensor, context: Tensor) -> list[Tensor]:
        """Return queries (..., D), keys and values of the shape of `context`."""
        inputs = zip((query, context, context), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        return [F.linear(x, weight, bias) for x, weight, bias in inputs]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """q (B, H, T, D/H), k and v (B, H, S, D/H), mask broadcast to (B, H, T, S) -> (B, H, T, D/H)"""
        return F.scaled_dot_product_attention(q, k, v, mask, self.dropout.p if self.training else 0.0)

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, D/H)"""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def feed_forward(x: Tensor, linear1: nn.Linear, linear2: nn.Linear, dropout: nn.Module) -> Tensor:
    """Compute W2 drop(relu(W1 x)): (..., D) -> (..., D). Layers are arguments: released keys have no FFN module."""
    return linear2(dropout(F.relu(linear1(x))))


def stack_layers(layers: Sequence[nn.Module], layer_init: str) -> nn.ModuleList:
    """Return the layers of an encoder, all with the first one's initial weights if "equal" (released code).

    If "independent", each keeps its own random initialisation.
    """
    if layer_init == "equal":
        layers = [copy.deepcopy(layers[0]) for _ in layers]
    return nn.ModuleList(layers)


def check_heads(dim: int, num_heads: int) -> None:
    """Raise InputError when D cannot be divided among the heads."""
    if dim % num_heads:
        raise InputError("--num_heads", f"{num_heads} for a width of {dim}", "a divisor of --dim", "Change either.")


def at_least_float32(x: Tensor) -> Tensor:
    """Return bf16 as float32, anything wider as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def softmax_over_time(x: Tensor, mask: Tensor | None) -> Tensor:
    """Compute softmax over segments in float32 or more, 0 for padding: (B, T, ...), (B, T) bool -> (B, T, ...)."""
    x = at_least_float32(x)
    if mask is not None:
        x = x.masked_fill(~mask.view(*mask.shape, *[1] * (x.dim() - 2)), -torch.inf)
    return torch.softmax(x, dim=1)


def mean_over_time(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean over valid segments: (B, T, ...), (B, T) -> (B, ...)."""
    if mask is None:
        return x.mean(dim=1)
    mask = mask.view(*mask.shape, *[1] * (x.dim() - 2))
    return x.masked_fill(~mask, 0).sum(dim=1) / mask.sum(dim=1)


def over_keys(mask: Tensor | None) -> Tensor | None:
    """Return a mask of valid segments in the shape that attention takes: (B, T) bool -> (B, 1, 1, T)."""
    return None if mask is None else mask[:, None, None, :]


def count_layers(state: Mapping[str, Tensor], prefix: str) -> int:
    """Return the number of modules `<prefix>.0`, `<prefix>.1`, ... in a state dict."""
    return len({key[len(prefix) + 1 :].split(".")[0] for key in state if key.startswith(f"{prefix}.")})


def mlp_dims(state: Mapping[str, Tensor], prefix: str) -> list[int]:
    """Return the `dims` of the `MLP` whose state lies under `prefix`. KeyError when there is none."""
    weights = [state[f"{prefix}.layers.{i}.weight"] for i in range(max(1, count_layers(state, f"{prefix}.layers")))]
    return [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
