"""Evidential heads: evidence for presence and absence of an event, its probability and its uncertainty."""

import torch
from torch import Tensor

LARGEST_LOGIT = 10.0
TEMPERATURE = 0.8


def concentration(logits: Tensor) -> Tensor:
    """alpha = evidence + 1 = exp(clamp(z, -10, 10) / 0.8) + 1, of any shape (CMPAE's released code)."""
    return torch.exp(logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT) / TEMPERATURE) + 1


def presence_logit(logits: Tensor) -> Tensor:
    """The logit of p = alpha_present / (alpha_present + alpha_absent): (..., 2) -> (...).

    Args:
        logits: of presence and of absence, in this order.
    """
    present, absent = concentration(logits).log().unbind(dim=-1)
    return present - absent


def uncertainty(logits: Tensor) -> Tensor:
    """u = 2 / (alpha_present + alpha_absent), in (0, 1): (..., 2) -> (...)."""
    return 2 / concentration(logits).sum(dim=-1)
