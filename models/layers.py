"""Layers that both networks share. Parameter names follow the released checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.streams import drawn_per_run, several_runs

SHORT = 16  # segments; fewer need attention of their own on the CPU


def at_least_float32(x: Tensor) -> Tensor:
    """bf16 as float32, anything wider as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.linear` that several runs at a time compute in the same precision as one: (..., D) -> (..., E).

    Args:
        weight: (E, D).
        bias: (E,).
    """
    if not several_runs():
        return F.linear(x, weight, bias)
    # torch.vmap takes F.linear apart before autocast sees it: the bias would then make a bf16 product float32.
    y = F.linear(x, weight)
    return y + bias.to(y.dtype)


class Linear(nn.Linear):
    """`nn.Linear` that several runs at a time compute in the same precision as one."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)"""
        return linear(x, self.weight, self.bias)


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` that several runs at a time compute in the same precision as one."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        y = super().forward(x)
        # As in `linear`; on the CPU autocast leaves the norm of a bf16 tensor in bf16.
        return y.to(x.dtype) if several_runs() and x.device.type == "cpu" else y


class MLP(nn.Module):
    """Linear layers with ReLU between them, none after the last.

    Args:
        dims: layer widths from input to output; `[128, 1024, 512]` is a 2-layer MLP.
    """

    def __init__(self, dims: Sequence[int]):
        super().__init__()
        self.layers = nn.ModuleList(Linear(i, o) for i, o in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dims[0]) -> (..., dims[-1])"""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class Dropout(nn.Module):
    """Dropout that on the CPU takes 16 random bits an element.

    PyTorch draws a number for each element, one after the other, which takes the CPU longer than a layer's matrix
    products. The probability is kept to within 1/65536.

    Args:
        p: probability of dropping an element while training, below 1.
    """

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"the dropout probability is {p}; expected at least 0 and below 1")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return drawn_per_run(partial(F.dropout, p=self.p), x)
        dropped = round(self.p * 2**16)  # of 2^16 numbers
        return x * drawn_per_run(partial(_random_factors, least=dropped - 2**15, factor=2**16 / (2**16 - dropped)), x)


def _random_factors(x: Tensor, least: int, factor: float) -> Tensor:
    """For each element of x a random number from all of int16: `factor` where it is at least `least`, else 0."""
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    keep = words.view(torch.int16)[: x.numel()].view(x.shape).ge_(least)  # 0 or 1
    if x.dtype == torch.bfloat16:  # 0 times the bits of a number are the bits of 0: no conversion
        return keep.mul_(torch.tensor(factor, dtype=torch.bfloat16).view(torch.int16)).view(torch.bfloat16)
    return keep.to(x.dtype).mul_(factor)


class MultiheadAttention(nn.Module):
    """Multi-head attention with the parameters of `nn.MultiheadAttention` and a fused kernel.

    The attention weights are never returned, so they need not be written to memory.

    Args:
        dim: D, the width of queries, keys, values and output.
        num_heads: must divide `dim`.
        dropout: probability of dropping an attention weight while training.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"the attention width {dim} cannot be divided among {num_heads} heads")
        self.num_heads = num_heads
        self.dropout = Dropout(dropout)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, context: Tensor, packing: "Packing | None" = None) -> Tensor:
        """Attend from `query` to `context`.

        Args:
            query: (B, T, D), or (R, D) when packed.
            context: keys and values, of the same shape as `query`; pass `query` itself for self-attention.
            packing: which of the B·T segments the R rows are; None: no video is padded.

        Returns:
            the shape of `query`
        """
        dim = query.shape[-1]
        if query is context:
            streams = [linear(query, self.in_proj_weight, self.in_proj_bias)]
        else:
            weights, biases = (x.split([dim, 2 * dim]) for x in (self.in_proj_weight, self.in_proj_bias))
            streams = [linear(x, w, b) for x, w, b in zip((query, context), weights, biases, strict=True)]
        if packing is not None:
            streams = [packing.pad(x) for x in streams]
        qkv = [x for stream in streams for x in stream.split(dim, dim=-1)]
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in qkv)  # (B, H, T, D/H)
        key_mask = None if packing is None else packing.mask[:, None, None, :]
        attended = self._attend(q, k, v, key_mask).transpose(1, 2).flatten(-2)  # (B, T, D)
        return self.out_proj(attended if packing is None else packing.pack(attended))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None) -> Tensor:
        dropout = self.dropout.p if self.training else 0.0
        masks = [] if key_mask is None else [key_mask]
        if q.device.type == "cpu" and (dropout or k.shape[-2] < SHORT):
            # PyTorch's kernel for the CPU has no dropout, and is slow for few segments.
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
            for mask in masks:
                scores = at_least_float32(scores) + torch.where(mask, 0.0, -torch.inf)
            return self.dropout(_softmax(scores).to(v.dtype)) @ v
        fused = partial(F.scaled_dot_product_attention, dropout_p=dropout)
        return drawn_per_run(fused, q, k, v, *masks) if dropout else fused(q, k, v, *masks)


def _softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension. The CPU's is several times faster over columns than over short rows."""
    if scores.shape[-1] >= SHORT:
        return torch.softmax(scores, dim=-1)
    return torch.softmax(scores.transpose(-1, -2).contiguous(), dim=-2).transpose(-1, -2)


@dataclass(frozen=True)
class Packing:
    """Padded videos as rows of their valid segments alone, so that no layer but attention works on padding.

    Args:
        mask: (B, T) bool, False where a segment is padding.
        rows: (R,) int64, where the flattened mask is True.
    """

    mask: Tensor
    rows: Tensor

    def pack(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (R, D)"""
        return x.flatten(0, 1).index_select(0, self.rows)

    def pad(self, x: Tensor) -> Tensor:
        """(R, D) -> (B, T, D), zero where there is padding."""
        return x.new_zeros(self.mask.numel(), x.shape[-1]).index_copy(0, self.rows, x).unflatten(0, self.mask.shape)


def feed_forward(x: Tensor, linear1: nn.Linear, linear2: nn.Linear, dropout: Dropout) -> Tensor:
    """W2 drop(relu(W1 x)): (..., D) -> (..., D). Layers come in as arguments: released keys have no FFN sub-module."""
    return linear2(dropout(F.relu(linear1(x))))


def count_layers(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of modules `<prefix>.0`, `<prefix>.1`, ... in a state dict."""
    return len({key[len(prefix) + 1 :].split(".")[0] for key in state if key.startswith(f"{prefix}.")})


def mlp_dims(state: Mapping[str, Tensor], prefix: str) -> list[int]:
    """The `dims` of the `MLP` whose state lies under `prefix`. KeyError when there is none."""
    weights = [state[f"{prefix}.layers.{i}.weight"] for i in range(max(1, count_layers(state, f"{prefix}.layers")))]
    return [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
