"""LSLD's segment labels from language (Fan et al., NeurIPS 2023). B videos, T segments, C classes.

Of all texts that name some of a video's labels, the one nearest to a segment says which of them the segment has.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def refined_labels(cosines: Tensor, subsets: Sequence[Sequence[int]], num_classes: int) -> Tensor:
    """LSLD's hard labels of videos with the same labels: a segment keeps those that its nearest text names.

    Args:
        cosines: (..., K), of the segments with the texts of the K subsets; the empty one is the text "other".

    Returns:
        (..., C) bool
    """
    named = torch.zeros(len(subsets), num_classes, dtype=torch.bool)
    for row, subset in enumerate(subsets):
        named[row, list(subset)] = True
    return named.to(cosines.device)[cosines.argmax(dim=-1)]


def softened_labels(cosines: Tensor, labels: Tensor, kept_factor: float, dropped_factor: float) -> Tensor:
    """LSLD's soft visual labels where kept and dropped segments of a class overlap.

    Per class over all R segments: m0 is the largest cosine of those without the label, m1 the smallest of those with
    it. If m0 > m1, a label with cosine < m0 becomes kept_factor·cosine if that lies in (0, 1), else stays 1; a segment
    without it whose cosine > m1 becomes dropped_factor·cosine if that lies in (0, 1).

    Args:
        cosines: (R, C), of the segments with the names of the classes; all training segments, unlabelled ones too.
        labels: (R, C) bool, from `refined_labels`.

    Returns:
        (R, C) in [0, 1], of the cosines' type
    """
    largest_without = cosines.masked_fill(labels, -torch.inf).amax(dim=0)  # m0, (C,)
    smallest_with = cosines.masked_fill(~labels, torch.inf).amin(dim=0)  # m1, (C,)
    overlap = largest_without > smallest_with
    kept, dropped = kept_factor * cosines, dropped_factor * cosines
    hard = labels.to(cosines.dtype)
    soft = torch.where(labels & overlap & (cosines < largest_without) & _within_unit(kept), kept, hard)
    return torch.where(~labels & overlap & (cosines > smallest_with) & _within_unit(dropped), dropped, soft)


def _within_unit(x: Tensor) -> Tensor:
    return (x > 0) & (x < 1)
