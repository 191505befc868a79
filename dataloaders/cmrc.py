"""Cross-modality random combination (CMRC; MUG, ICCV 2025) of the visual stream of one video with another's audio.

N videos, C classes, M combinations.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from dataloaders.batches import Batch, SegmentPseudoLabels, SplitBatches
from dataloaders.datasets import DATASETS
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.settings import settings_group


@settings_group
class CMRC:
    """Settings of combined training videos. MUG's sampling is not published; this one is ours."""

    cmrc: NonNegativeFloat = 0.0  # combined videos per real one; MUG's best ratio is about 1
    cmrc_fixed: bool = False  # draw the combinations once instead of in every epoch
    cmrc_empty: Literal["skip", "keep"] = "skip"  # whether to combine modalities without any pseudo-label


class CombinedBatches:
    """Batches of a training split and of combinations of its videos.

    Each modality keeps its segment labels; the video label is the union of the hard ones. To preserve the distribution
    of video labels, the label of a random video is drawn first, then a visual and an audio stream at random among
    those with no other events, or among all if there are none.
    """

    def __init__(self, split: SplitBatches, settings: CMRC):
        self.split, self.settings, self.device = split, settings, split.device
        self.check_features = split.check_features
        if split.pseudo is None or not split.equal_length or DATASETS[split.annotations.dataset].task != "parsing":
            expected = "parsing with segment labels of each modality, and videos of equal length"
            raise InputError("--cmrc", f"training on {split.annotations.dataset}", expected, "Leave out the flag.")
        self.num_combined = round(settings.cmrc * split.num_videos)
        self.num_videos = split.num_videos + self.num_combined
        length = int(split.annotations.lengths[0])
        occurring = split.pseudo.labels.map(lambda hard: hard.cpu().unflatten(0, (-1, length)).any(dim=1))  # (N, C)
        self.usable = occurring.map(lambda x: x.any(dim=1) | (settings.cmrc_empty == "keep"))  # (N,)
        if any(usable.sum() < 2 for usable in self.usable):
            raise InputError("--cmrc", "too few videos with pseudo-labels", "at least two", "Leave out the flag.")
        labels, self.label_set = split.annotations.video_labels.unique(dim=0, return_inverse=True)
        absent = (~labels).float()  # (K, C), K distinct sets of labels
        self.fitting = occurring.map(lambda x, usable: usable & (absent @ x.float().T == 0), self.usable)  # (K, N)

    def pairs(self, seed: int, epoch: int) -> AudioVisual[Tensor]:
        """Draw the videos to combine in an epoch, (M,) int64 each, never a video with itself."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + (0 if self.settings.cmrc_fixed else epoch))
        of_video = torch.randint(self.split.num_videos, (self.num_combined,), generator=generator)
        everything = torch.arange(self.split.num_videos)

        def draw(fitting: Tensor, usable: Tensor, other: int) -> int:
            usable = usable & (everything != other)
            places = (fitting & usable if (fitting & usable).any() else usable).nonzero().squeeze(1)
            return int(places[torch.randint(len(places), (), generator=generator)])

        drawn = []
        for k in self.label_set[of_video].tolist():
            visual = draw(self.fitting.visual[k], self.usable.visual, -1)
            drawn.append((draw(self.fitting.audio[k], self.usable.audio, visual), visual))
        return AudioVisual(*torch.tensor(drawn, dtype=torch.int64).view(-1, 2).unbind(dim=1))

    def shuffled(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield real and combined videos in an order that depends only on seed and epoch."""
        real = torch.arange(self.split.num_videos)
        order = torch.randperm(self.num_videos, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        audio, visual = self.pairs(seed, epoch).map(lambda drawn: torch.cat([real, drawn])[order])
        streams = (self.split.of_videos(videos, batch_size) for videos in (audio, visual))
        for of_audio, of_visual in zip(*streams, strict=True):
            labels = AudioVisual(of_audio.pseudo.labels.audio, of_visual.pseudo.labels.visual)
            logits = AudioVisual(of_audio.pseudo.logits.audio, of_visual.pseudo.logits.visual)
            union = (labels.audio | labels.visual).any(dim=1).to(of_visual.video_labels)  # (B, C)
            is_real = (of_audio.videos == of_visual.videos).unsqueeze(1)
            features = AudioVisual(of_audio.features.audio, of_visual.features.visual)
            video_labels = torch.where(is_real, of_visual.video_labels, union)
            pseudo = SegmentPseudoLabels(logits, labels)
            yield replace(of_visual, features=features, video_labels=video_labels, labels=None, pseudo=pseudo)
