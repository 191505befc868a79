"""Gates: what a modality's own probability of a class has to reach for the class to be in any of its segments.

N videos, T segments, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.method.decoding import gated_events
from utils.method.metrics import Counts, event_counts, video_f_scores

CANDIDATES = tuple(n / 100 for n in range(25, 71, 5))  # CMPAE: 0.25 to 0.70


@dataclass(frozen=True)
class GateSearch:
    """What `search_gates` finds."""

    gates: Tensor  # (C,)
    f_scores: Tensor  # (C,) in percent, the split's event-level F with this gate and the others as given


def search_gates(
    segment_probs: Tensor,
    modality_probs: Tensor,
    truth: Tensor,
    segment_threshold: float,
    others: float,
    candidates: Sequence[float] = CANDIDATES,
) -> GateSearch:
    """Each class's gate of the highest event-level F of the split, the other classes' gates held at `others` (CMPAE).

    Of candidates with the same score the largest wins (released code).

    Args:
        segment_probs: (N, T, C) of one modality.
        modality_probs: (N, C).
        truth: (N, T, C) bool.
    """

    def counts_at(gate: float) -> Counts:  # (N, C): no class's counts depend on another's gate
        return event_counts(gated_events(segment_probs, modality_probs, segment_threshold, gate), truth)

    base = counts_at(others)
    num_classes = truth.shape[-1]
    best = torch.full((num_classes,), -1.0, dtype=torch.float64)
    gates = torch.full((num_classes,), others, dtype=torch.float64)
    for gate in sorted(candidates):
        counts = counts_at(gate)
        for c in range(num_classes):
            score = 100 * video_f_scores(_with_class(base, counts, c)).mean().item()
            if score >= best[c]:
                best[c], gates[c] = score, gate
    return GateSearch(gates, best)


def _with_class(base: Counts, other: Counts, c: int) -> Counts:
    """The counts of `base`, those of class c from `other`."""

    def replaced(x: Tensor, y: Tensor) -> Tensor:
        x = x.clone()
        x[:, c] = y[:, c]
        return x

    return Counts(replaced(base.tp, other.tp), replaced(base.fp, other.fp), replaced(base.fn, other.fn))
