"""Reproducible random weights: drawn from a name, a shape and a seed alone, the same on every machine."""

import math
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def draw(name: str, shape: Sequence[int], seed: int = 0) -> Tensor:
    """Draw the weight of a name: float32.

    x is normal, drawn from a generator seeded with the CRC-32 of the name (plus `seed`). Variances are 1 + 0.1 |x|;
    other entries of one dimension or none are 1 + 0.1 x if they are called `weight`, else 0.1 x; matrices and kernels
    are x divided by the square root of what one output sums over.
    """
    x = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(zlib.crc32(name.encode()) + seed))
    if name.endswith("running_var"):
        return 1 + 0.1 * x.abs()
    if len(shape) <= 1:
        return 1 + 0.1 * x if name.endswith("weight") else 0.1 * x
    return x / math.sqrt(x[0].numel())


@torch.no_grad()
def draw_weights_of(network: nn.Module, seed: int = 0) -> None:
    """Put such weights into a network: its parameters and its running statistics. Masks stay as they are."""
    parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    for name, values in network.state_dict().items():
        if name in parameters or name.endswith(("running_mean", "running_var")):
            values.copy_(draw(name, values.shape, seed))
