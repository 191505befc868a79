"""LSLD's segment labels of a split, from the texts of the subsets of each video's labels (Fan et al., NeurIPS 2023)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from baselines.lsld.label_refinement import refined_labels
from baselines.lsld.subset_texts import TextFeatures, label_subsets, subset_text
from dataloaders.batches import SplitBatches
from utils.audio_visual import MODALITIES, AudioVisual


def language_labels(
    split: SplitBatches, texts: AudioVisual[TextFeatures], names: Sequence[str], batch_size: int
) -> AudioVisual[Tensor]:
    """Hard labels of every segment: those that the nearest of the video's texts names, (N, T, C) bool on the CPU.

    Args:
        split: videos of one length, their CLAP and CLIP features.
        names: how the texts name each class, (C,).
    """
    video_labels = split.annotations.video_labels  # (N, C)
    label_sets, which = video_labels.unique(dim=0, return_inverse=True)
    num_segments = int(split.annotations.lengths.max())
    found = AudioVisual(*(torch.zeros(split.num_videos, num_segments, video_labels.shape[1]).bool() for _ in range(2)))
    for number, label_set in enumerate(tqdm(label_sets, desc=f"{split.annotations.split} labels", disable=None)):
        subsets = [*label_subsets(label_set.nonzero().flatten().tolist()), ()]
        videos = (which == number).nonzero().flatten()
        for batch in split.of_videos(videos, batch_size):
            for modality, features, of_texts, labels in zip(MODALITIES, batch.features, texts, found, strict=True):
                wanted = of_texts.of([subset_text(subset, names, modality) for subset in subsets])
                cosines = F.normalize(features, dim=-1) @ wanted.to(features.device).T  # (B, T, K)
                labels[batch.videos.cpu()] = refined_labels(cosines, subsets, video_labels.shape[1]).cpu()
    return found


def class_cosines(split: SplitBatches, names: Tensor, batch_size: int) -> Tensor:
    """Cosines of a split's visual segments with the names of the classes (C, D): (N, T, C) on the CPU."""
    return torch.cat(
        [
            (F.normalize(batch.features.visual, dim=-1) @ names.to(split.device).T).cpu()
            for batch in split.in_order(batch_size)
        ]
    )
