"""Made-up events, pseudo-labels and features, for tests and benchmarks that do not look at what they say."""

from pathlib import Path

import torch
from torch import Tensor

from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import SplitBatches
from dataloaders.datasets import DATASETS
from dataloaders.features import FEATURES
from dataloaders.pseudo_labels import PseudoLabels
from dataloaders.store import PackedFeature
from utils.audio_visual import AudioVisual

FEATURES_OF_STAGE = {"LLP": (("vggish",), ("res152", "r2plus1d_18")), "UnAV": (("clap",), ("clip",))}


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


def zero_split(folder: Path, dataset: str, split: str, lengths: Tensor, residency: str = "auto") -> SplitBatches:
    """A split of videos of these lengths (N,) with features of zeros and one random class a video, in all its segments.

    Features are sparse files in `folder`, of true size and mapped as a packed file is.
    """
    classes = DATASETS[dataset].classes
    num_videos, num_rows = len(lengths), int(lengths.sum())
    of_video = torch.randint(len(classes), (num_videos,), generator=torch.Generator().manual_seed(0))
    video_labels = torch.nn.functional.one_hot(of_video, len(classes)).bool()
    rows = video_labels.repeat_interleave(lengths, dim=0)  # (R, C)
    ids = tuple(f"{split}{n}" for n in range(num_videos))
    annotations = SplitAnnotations(dataset, split, classes, ids, ids, lengths, video_labels, AudioVisual(rows, rows))
    starts = lengths.cumsum(0) - lengths

    def features(names: tuple[str, ...]) -> list[PackedFeature]:
        packed = []
        for name in names:
            path, width = folder / f"{name}_{split}.bin", FEATURES[name].width
            with open(path, "wb") as file:
                file.truncate(4 * num_rows * width)
            values = torch.from_file(str(path), shared=True, size=num_rows * width).view(num_rows, width)
            packed.append(PackedFeature(path, name, values, starts))
        return packed

    audio, visual = FEATURES_OF_STAGE[dataset]
    chosen = AudioVisual(features(audio), features(visual))
    return SplitBatches(annotations, chosen, torch.device("cpu"), residency, random_pseudo_labels(annotations))
