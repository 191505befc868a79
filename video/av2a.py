"""AV2A's training-free decoding of CLIP's and CLAP's similarities (CVPR 2025, arXiv 2503.13693).

The threshold of an event falls with each detection of the event, with the similarity of neighbouring frames and with
the shift of the label distribution over time. T segments of one second, C events.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FILTER, FIRST_THRESHOLD, GAMMA = 0.5, 0.75, 1.0  # for CLIP and CLAP


def similarities(cosines: Tensor) -> Tensor:
    """Standardise each segment's scores over its three or more events, then take the sigmoid: (T, C) -> (T, C)."""
    return torch.sigmoid((cosines - cosines.mean(dim=1, keepdim=True)) / cosines.std(dim=1, keepdim=True))


def dynamic_thresholds(scores: Tensor, frames: Tensor | None = None) -> Tensor:
    """Return the threshold of each segment and event, from the scores of `similarities`: (T, C) -> (T, C).

    The cosine similarity between a frame of `frames` (T, D) and the next one scales the fall; None for audio.
    """
    scores, num_events = scores.double(), scores.shape[1]
    closeness = torch.ones(len(scores)) if frames is None else F.cosine_similarity(frames[:-1], frames[1:])
    thresholds = [scores.new_full((num_events,), FIRST_THRESHOLD)]
    counts, together = scores.new_zeros(num_events), scores.new_zeros(num_events, num_events)
    for t in range(len(scores) - 1):
        found = (scores[t] > thresholds[t]).double()
        counts = counts + found
        together = together + scores[t].unsqueeze(1) * found
        confusion, following = together / (t + 1), scores[t + 1]
        identity = torch.eye(num_events, dtype=scores.dtype, device=scores.device)
        weights = torch.linalg.solve(confusion.T @ confusion + identity, confusion.T @ following)  # label shift (BBSE)
        fall = FIRST_THRESHOLD * torch.exp(-GAMMA * counts) * float(closeness[t]) * weights * following
        thresholds.append(thresholds[t] - fall)
    return torch.stack(thresholds)


def av2a_probs(cosines: Tensor, frames: Tensor | None = None) -> Tensor:
    """Return each event's score relative to its threshold from the cosines of a modality: (T, C) -> (T, C).

    0.5 is a score at the threshold. Events of a single segment have 0, and so have those whose mean over the video is
    not above FILTER. AV2A's refinement, which encodes each interval again, is left out.
    """
    scores = similarities(cosines).double()
    thresholds = dynamic_thresholds(scores, frames).clamp(1e-6, 1 - 1e-6)
    above = (scores > thresholds) & (scores.mean(dim=0) > FILTER)
    before, after = F.pad(above[:-1], (0, 0, 1, 0)), F.pad(above[1:], (0, 0, 0, 1))
    probs = torch.sigmoid(torch.logit(scores) - torch.logit(thresholds))
    return torch.where(above & ~(before | after) | (scores.mean(dim=0) <= FILTER), 0, probs).float()
