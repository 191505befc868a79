"""Maximal spans of active segments; for the event-level scores, an event is one such span of a class."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def maximal_spans(active: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    """Find the maximal spans of True in order: (T,) bool -> first segments, and ends (exclusive), (K,) each."""
    padded = F.pad(torch.as_tensor(active), (1, 1))
    changes = (padded[1:] != padded[:-1]).nonzero().squeeze(1)  # first, end, first, end, ...
    return changes[::2].contiguous(), changes[1::2]


def joined_rows(active: Tensor) -> Tensor:
    """Join rows, with a False after each: (R, T) bool -> (R * (T + 1),); segment t of row r is at r * (T + 1) + t."""
    return F.pad(active, (0, 1)).flatten()
