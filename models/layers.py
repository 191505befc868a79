"""Layers of both networks: plain definitions, and faster variants, which `benchmarks.run --layers` measures."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from utils.errors import InputError

NumLayers = Annotated[int, Field(ge=1, le=100)]


class MLP(nn.Module):
    """Linear layers with ReLU between them; `dims` [128, 1024, 512] make two layers."""

    def __init__(self, dims: Sequence[int]):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dims[0]) -> (..., dims[-1])."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class FusedProjection(nn.Module):
    """A linear projection to D for each of the concatenated features; several are fused by another (HAN, 2020)."""

    def __init__(self, widths: Sequence[int], dim: int):
        super().__init__()
        self.widths = list(widths)
        self.features = nn.ModuleList(nn.Linear(width, dim) for width in widths)
        self.fusion = nn.Linear(len(self.widths) * dim, dim) if len(self.widths) > 1 else None

    def forward(self, features: Tensor) -> Tensor:
        """Project (B, T, sum of widths) -> (B, T, D)."""
        projected = project_each(features, self.features)  # (B, T, number of features · D)
        return projected if self.fusion is None else self.fusion(projected)


def project_each(features: Tensor, layers: Sequence[nn.Linear]) -> Tensor:
    """Project each of K concatenated features by its own layer: (B, T, sum of widths) -> (B, T, K·D)."""
    parts = features.split([layer.in_features for layer in layers], dim=-1)
    return torch.cat([layer(part) for layer, part in zip(layers, parts, strict=True)], dim=-1)


class FastDropout(nn.Dropout):
    """`nn.Dropout` with 16 random bits per element on the CPU; the probability, below 1, is exact to within 1/65536.

    PyTorch draws one number per element sequentially, which is slower than a layer's matrix products: with this variant
    a step of HAN takes 5 % less time in float32, 11 % in bf16 (one thread, the paper's sizes).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of a tensor of any shape."""
        if not self.training or self.p == 0 or x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(x, self.p, self.training)
        dropped = round(self.p * 2**16)  # of 2^16 numbers
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        keep = words.view(torch.int16)[: x.numel()].view(x.shape).ge_(dropped - 2**15)  # 0 or 1
        factor = 2**16 / (2**16 - dropped)
        if x.dtype == torch.bfloat16:  # without conversion: 0 or 1 times the factor's bits
            bits = torch.tensor(factor, dtype=torch.bfloat16).view(torch.int16)
            return x * keep.mul_(bits).view(torch.bfloat16)
        return x * keep.to(x.dtype).mul_(factor)


class MultiheadAttention(nn.Module):
    """softmax(q kᵀ / √(D/H)) v in H heads of D features, with the parameters of `nn.MultiheadAttention`."""

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
        """Attend from `query` (B, T, D) to `context` (B, S, D) where the mask, broadcast to (B, H, T, S), is True."""
        q, k, v = (self.split_heads(x) for x in self.project(query, context))
        attended = self.attend(q, k, v, mask)  # (B, H, T, D/H)
        return self.out_proj(attended.transpose(1, 2).flatten(-2))

    def project(self, query: Tensor, context: Tensor) -> list[Tensor]:
        """Return queries (..., D), and keys and values in the shape of `context`."""
        inputs = zip((query, context, context), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        return [F.linear(x, weight, bias) for x, weight, bias in inputs]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attend with q (B, H, T, D/H), k, v (B, H, S, D/H), mask broadcast to (B, H, T, S) -> (B, H, T, D/H)."""
        return F.scaled_dot_product_attention(q, k, v, mask, self.dropout.p if self.training else 0.0)

    def split_heads(self, x: Tensor) -> Tensor:
        """Split (B, T, D) -> (B, H, T, D/H)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


@dataclass(frozen=True)
class Packing:
    """Padded videos as rows of valid segments, which saves 31 % of a step of stage 1 if a third is padding."""

    mask: Tensor  # (B, T) bool, False in padding
    rows: Tensor  # (R,) int64, where the flattened mask is True

    def pack(self, x: Tensor) -> Tensor:
        """Pack (B, T, D) -> (R, D)."""
        return x.flatten(0, 1).index_select(0, self.rows)

    def pad(self, x: Tensor) -> Tensor:
        """Pad (R, D) -> (B, T, D) with zeros."""
        return x.new_zeros(self.mask.numel(), x.shape[-1]).index_copy(0, self.rows, x).unflatten(0, self.mask.shape)


class FastMultiheadAttention(MultiheadAttention):
    """`MultiheadAttention` for packed rows, on the CPU without PyTorch's fused kernel, which lacks dropout there.

    Compared with `MultiheadAttention`, a bf16 step of HAN takes 8 % less time, its evaluation 10 %, and a bf16 step of
    the temporal transformer 8 %; in float32, 3 %, 6 % and 7 % (one thread, the paper's sizes).
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0):
        super().__init__(dim, num_heads, dropout)
        self.dropout = FastDropout(dropout)

    def forward(
        self, query: Tensor, context: Tensor, packing: Packing | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Attend as `MultiheadAttention` does or, with a packing, from rows (R, D) to rows of the same videos."""
        if packing is None:
            return super().forward(query, context, mask)
        q, k, v = (self.split_heads(packing.pad(x)) for x in self.project(query, context))
        attended = self.attend(q, k, v, packing.mask[:, None, None, :])  # (B, H, T, D/H)
        return self.out_proj(packing.pack(attended.transpose(1, 2).flatten(-2)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attend as `MultiheadAttention.attend` does."""
        if q.device.type != "cpu":
            return super().attend(q, k, v, mask)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (B, H, T, S)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return self.dropout(torch.softmax(scores, dim=-1).to(v.dtype)) @ v


def feed_forward(x: Tensor, linear1: nn.Linear, linear2: nn.Linear, dropout: nn.Module) -> Tensor:
    """Compute W2 drop(relu(W1 x)): (..., D) -> (..., D). The layers are arguments, as released keys have no FFN."""
    return linear2(dropout(F.relu(linear1(x))))


def stack_layers(layers: Sequence[nn.Module], layer_init: str) -> nn.ModuleList:
    """Return an encoder's layers with "equal" initial weights (released code) or "independent" ones."""
    if layer_init == "equal":
        layers = [copy.deepcopy(layers[0]) for _ in layers]
    return nn.ModuleList(layers)


def check_heads(dim: int, num_heads: int) -> None:
    """Raise InputError if D is not a multiple of the number of heads."""
    if dim % num_heads:
        raise InputError("--num_heads", f"{num_heads} for a width of {dim}", "a divisor of --dim", "Change either.")


def at_least_float32(x: Tensor) -> Tensor:
    """Return bf16 as float32, and wider types unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def softmax_over_time(x: Tensor, mask: Tensor | None) -> Tensor:
    """Compute softmax over segments in at least float32, 0 for padding: (B, T, ...), (B, T) bool -> (B, T, ...)."""
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
    """Return a mask of valid segments in the shape for attention: (B, T) bool -> (B, 1, 1, T)."""
    return None if mask is None else mask[:, None, None, :]


def count_layers(state: Mapping[str, Tensor], prefix: str) -> int:
    """Return the number of modules `<prefix>.0`, `<prefix>.1`, ... in a state dict."""
    return len({key[len(prefix) + 1 :].split(".")[0] for key in state if key.startswith(f"{prefix}.")})


def mlp_dims(state: Mapping[str, Tensor], prefix: str) -> list[int]:
    """Return the `dims` of the `MLP` with a prefix in a state dict. Raises KeyError if there is none."""
    weights = [state[f"{prefix}.layers.{i}.weight"] for i in range(max(1, count_layers(state, f"{prefix}.layers")))]
    return [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
