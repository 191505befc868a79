"""Losses and scores where every clip, or every second of it, has just one class.

B clips, T segments, C classes; labels are (B,) with logits (B, C), or (B, T) with logits (B, T, C).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the mean cross-entropy over all labels: a scalar."""
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten())


def binary_cross_entropy_of_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the binary cross-entropy of softmax probabilities and one-hot labels, mean over classes: a scalar.

    The released LAVISH trains so. -log(1 - p) is computed from the probabilities that are not the class's, so that it
    does not round to infinity.
    """
    log_probs = logits.log_softmax(dim=-1)
    others = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    without = logits.unsqueeze(-2).masked_fill(others, -torch.inf).logsumexp(dim=-1)  # (..., C)
    log_not = without - logits.logsumexp(dim=-1, keepdim=True)
    targets = F.one_hot(labels, logits.shape[-1]).to(logits.dtype)
    return -(targets * log_probs + (1 - targets) * log_not).mean()


LOSSES = {"cross_entropy": cross_entropy, "binary": binary_cross_entropy_of_softmax}


def top_k_accuracy(logits: Tensor, labels: Tensor, k: int) -> float:
    """Return the percent of labels that are among the k most probable classes."""
    best = logits.topk(min(k, logits.shape[-1]), dim=-1).indices
    return 100 * (best == labels.unsqueeze(-1)).any(dim=-1).double().mean().item()


def label_confusion(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count how many labels of each class were predicted as each: (C, C) int64, rows are the truth."""
    cells = torch.bincount((labels * num_classes + predicted).flatten(), minlength=num_classes**2)
    return cells.view(num_classes, num_classes)
