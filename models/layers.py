"""Layers that both networks share. Parameter names follow the released checkpoints."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with ReLU between them, none after the last.

    Args:
        dims: layer widths from input to output; `[128, 1024, 512]` is a 2-layer MLP.
    """

    def __init__(self, dims: Sequence[int]):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dims[0]) -> (..., dims[-1])"""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


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
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, context: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Attend from `query` to `context`.

        Args:
            query: (B, T, D).
            context: (B, S, D), keys and values; pass `query` itself for self-attention.
            key_mask: (B, S) bool, False where a key is padding. None: all keys are valid.

        Returns:
            (B, T, D)
        """
        if query is context:
            q, k, v = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            dim = query.shape[-1]
            weight_q, weight_kv = self.in_proj_weight.split([dim, 2 * dim])
            bias_q, bias_kv = self.in_proj_bias.split([dim, 2 * dim])
            q = F.linear(query, weight_q, bias_q)
            k, v = F.linear(context, weight_kv, bias_kv).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, H, T, D/H)
        attended = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if key_mask is None else key_mask[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(attended.transpose(1, 2).flatten(-2))


def feed_forward(x: Tensor, linear1: nn.Linear, linear2: nn.Linear, dropout: nn.Dropout) -> Tensor:
    """W2 drop(relu(W1 x)): (..., D) -> (..., D). Layers come in as arguments: released keys have no FFN sub-module."""
    return linear2(dropout(F.relu(linear1(x))))


def count_layers(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of modules `<prefix>.0`, `<prefix>.1`, ... in a state dict."""
    return len({key[len(prefix) + 1 :].split(".")[0] for key in state if key.startswith(f"{prefix}.")})


def mlp_dims(state: Mapping[str, Tensor], prefix: str) -> list[int]:
    """The `dims` of the `MLP` whose state lies under `prefix`. KeyError when there is none."""
    weights = [state[f"{prefix}.layers.{i}.weight"] for i in range(max(1, count_layers(state, f"{prefix}.layers")))]
    return [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
