"""Made-up events and pseudo-labels, for tests and benchmarks that do not look at what they say."""

import torch
from torch import Tensor

from dataloaders.annotations import SplitAnnotations
from dataloaders.pseudo_labels import PseudoLabels
from utils.audio_visual import AudioVisual


def random_events(num_videos: int, seed: int, num_segments: int = 10, num_classes: int = 25) -> Tensor:
    """Events as LLP has them, one span of each of a video's one or two classes: (N, T, C) bool."""
    generator = torch.Generator().manual_seed(seed)
    events = torch.zeros(num_videos, num_segments, num_classes, dtype=torch.bool)
    steps = torch.arange(num_segments)
    for _ in range(2):
        classes = torch.randint(num_classes, (num_videos,), generator=generator)
        ends = torch.randint(0, num_segments + 1, (2, num_videos, 1), generator=generator)
        first, last = ends.amin(dim=0), ends.amax(dim=0)
        events[torch.arange(num_videos), :, classes] |= (steps >= first) & (steps < last)
    return events


def random_pseudo_labels(annotations: SplitAnnotations) -> PseudoLabels:
    """Pseudo-labels of a split, random within the classes of each video."""
    generator = torch.Generator().manual_seed(0)
    in_video = annotations.video_labels.repeat_interleave(annotations.lengths, dim=0)  # (R, C)
    audio = torch.randn(in_video.shape, generator=generator)
    visual = torch.randn(in_video.shape, generator=generator)
    zeros = torch.zeros(len(annotations.classes), dtype=torch.float64)
    return PseudoLabels(
        annotations.dataset,
        annotations.classes,
        annotations.sample_ids,
        annotations.lengths,
        logits=AudioVisual(audio, visual),
        labels=AudioVisual((audio > 0) & in_video, (visual > 0) & in_video),
        thresholds=AudioVisual(zeros, zeros.clone()),
    )
