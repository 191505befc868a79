"""Batches of tensors on a device, from a packed split.

If a split's features fit, they reside on the device, where a batch is one indexing operation (on the CPU, into the
memory map). Otherwise rows are read from the memory map while the previous batch is processed, with equal results.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor
from tqdm import tqdm

from dataloaders.annotations import WHOLE, SplitAnnotations, Subset
from dataloaders.datasets import DATASETS, load_annotations
from dataloaders.features import FEATURES, PACKED, load_text_features
from dataloaders.pseudo_labels import PseudoLabels, load_pseudo_labels
from dataloaders.store import PackedFeature, open_features
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.settings import settings_group

BATCHES_SORTED = 20  # number of batches whose videos are sorted by length together
RESIDENT_SHARE = 0.6  # of the device's free memory for features; the rest is for the network


@settings_group
class DataSettings:
    """Settings of data folders and features."""

    data_dir: Path | None = None  # folder of the data set; None: data/<dataset>
    annotations_dir: Path | None = None  # folder of the annotation files; None: data_dir
    packed_dir: Path | None = None  # folder of the packed features; None: data_dir/packed
    audio_features: tuple[Literal[(*FEATURES, "pe_audio_frames")], ...] = ("vggish",)  # audio features, concatenated
    visual_features: tuple[Literal[tuple(FEATURES)], ...] = ("res152", "r2plus1d_18")  # visual features, concatenated
    allow_missing: bool = False  # leave out videos without feature files instead of stopping
    segments_per_second: PositiveInt | None = None
    """segments per second, as in extraction, such as 2 for segments of half a second; None: the data set's"""
    residency: Literal["auto", "resident", "stream"] = "auto"
    """keep a split's features on the device, or stream them from disk; auto: keep them if they fit"""

    def folder(self, dataset: str) -> Path:
        """Return the data set's folder."""
        return self.data_dir or DATASETS[dataset].folder


@dataclass
class SegmentPseudoLabels:
    """Pseudo-labels of a batch: B videos, T segments, C classes."""

    logits: AudioVisual[Tensor]  # (B, T, C) float32, of the teacher
    labels: AudioVisual[Tensor]  # (B, T, C) bool


@dataclass
class Batch:
    """Input of networks and losses: B videos, T segments, C classes."""

    videos: Tensor  # (B,) int64, indices in the split
    features: AudioVisual[Tensor]  # (B, T, D) float32, the chosen features of each modality, concatenated
    mask: Tensor | None  # (B, T) bool, False in padding; None: no video is shorter than T
    valid_rows: Tensor | None  # (R,) int64, where the flattened mask is True; computed on the host, without waiting
    video_labels: Tensor  # (B, C) float32
    labels: AudioVisual[Tensor] | None  # (B, T, C) bool, the ground truth if the split has one
    pseudo: SegmentPseudoLabels | None

    @property
    def padding(self) -> dict[str, Tensor]:
        """Return the mask as a keyword argument of a network; empty without padding."""
        return {} if self.mask is None else {"mask": self.mask}

    def valid(self, x: Tensor) -> Tensor:
        """Return the valid segments like those of one video: (B, T, ...) -> (1, R, ...); without a mask, x itself."""
        return x if self.valid_rows is None else x.flatten(0, 1)[self.valid_rows].unsqueeze(0)


class SplitBatches:
    """Batches of one split: N videos."""

    def __init__(
        self,
        annotations: SplitAnnotations,
        features: AudioVisual[list[PackedFeature]],  # those of a modality are concatenated
        device: torch.device,  # of the batches
        residency: str = "auto",  # of the features, as in `DataSettings`
        pseudo: PseudoLabels | None = None,  # of the annotated videos, in order
    ):
        self.annotations, self.num_videos, self.device = annotations, annotations.num_videos, device
        every = {feature.feature: feature for feature in (*features.audio, *features.visual)}
        self.sources = {name: feature.sha256 for name, feature in every.items()}  # hashes of the features
        self.marks = tuple(dict.fromkeys(mark for feature in every.values() for mark in feature.marks))
        self.feature_widths = features.map(lambda of_modality: tuple(feature.width for feature in of_modality))
        self.widths = self.feature_widths.map(sum)
        num_bytes = sum(feature.values.nbytes for feature in (*features.audio, *features.visual))
        free = free_memory(device)
        self.resident = residency == "resident" or (residency == "auto" and num_bytes <= RESIDENT_SHARE * free)
        if not self.resident:
            tqdm.write(
                f"{annotations.dataset} {annotations.split}: {num_bytes / 1e9:.2f} GB of features, {free / 1e9:.2f} GB "
                f"free on {device}: streaming them from disk"
            )
        elif device.type != "cpu":
            features = features.map(lambda of_modality: [replace(f, values=f.values.to(device)) for f in of_modality])
        self._features = features
        self._offsets = annotations.offsets
        self.equal_length = annotations.lengths.unique().numel() == 1
        # Labels are small, and reside on the device in either case.
        self._video_labels = annotations.video_labels.to(device, torch.float32)
        self._labels = annotations.labels and annotations.labels.map(lambda rows: rows.to(device))  # (R, C)
        self.pseudo = pseudo
        if pseudo is not None:
            logits, labels = (pair.map(lambda rows: rows.to(device)) for pair in (pseudo.logits, pseudo.labels))
            self.pseudo = replace(pseudo, logits=logits, labels=labels)

    def check_features(self) -> None:
        """Raise InputError, with the packed file, if any feature is not finite."""
        for feature in (*self._features.audio, *self._features.visual):
            if not all(bool(rows.isfinite().all()) for rows in feature.values.split(1 << 16)):
                way_out = "Delete it; it will be packed again from the feature files."
                raise InputError(feature.path, "features that are NaN or infinite", "finite values", way_out)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yield all videos in the order of the annotations."""
        return self.of_videos(torch.arange(self.num_videos), batch_size)

    def shuffled(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield all videos in an order that depends only on seed and epoch, so that a resumed run needs no history."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(self.num_videos, generator=generator)
        if (
            not self.equal_length and DATASETS[self.annotations.dataset].task
        ):  # UnAV is shuffled as in the released code
            lengths, groups = self.annotations.lengths, []  # videos of similar length share a batch
            for pool in order.split(BATCHES_SORTED * batch_size):
                groups += pool[lengths[pool].argsort(stable=True)].split(batch_size)
            *whole, last = groups
            order = torch.cat([*(whole[n] for n in torch.randperm(len(whole), generator=generator)), last])
        return self.of_videos(order, batch_size)

    def of_videos(self, videos: Tensor, batch_size: int) -> Iterator[Batch]:
        """Yield the videos with these indices, (K,) int64 on the CPU, in this order."""
        groups = videos.split(batch_size)
        if self.resident:
            for group in groups:
                yield self._assemble(group, self._take_features(group))
            return
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._take_features, groups[0])
            for group, following in zip(groups, (*groups[1:], None), strict=True):
                features = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._take_features, following)
                yield self._assemble(group, features)

    def _take_features(self, videos: Tensor) -> AudioVisual[Tensor]:
        """Return these videos' features on the device, padded with the last segment: (B, T, D)."""
        steps = self._steps(videos)  # (B, T)

        def take(of_modality: list[PackedFeature]) -> Tensor:
            parts = []
            for feature in of_modality:
                rows = (feature.first_rows[videos].unsqueeze(1) + steps).flatten()
                rows = rows.to(feature.values.device, non_blocking=True)
                parts.append(feature.values.index_select(0, rows).unflatten(0, steps.shape))
            features = torch.cat(parts, dim=-1).float() if len(parts) > 1 else parts[0].float()
            if self.device.type == "cuda" and features.device.type == "cpu":
                features = features.pin_memory()
            return features.to(self.device, non_blocking=True)

        return self._features.map(take)

    def _steps(self, videos: Tensor) -> Tensor:
        """Return the segment indices of a padded batch, the last one repeated: (B, T)."""
        lengths = self.annotations.lengths[videos]
        return torch.minimum(torch.arange(int(lengths.max())), lengths.unsqueeze(1) - 1)

    def _assemble(self, videos: Tensor, features: AudioVisual[Tensor]) -> Batch:
        steps = self._steps(videos)
        rows = (self._offsets[videos].unsqueeze(1) + steps).to(self.device, non_blocking=True)  # (B, T)
        mask = valid_rows = pseudo = None
        if not self.equal_length:
            mask = torch.arange(rows.shape[1]) < self.annotations.lengths[videos].unsqueeze(1)
            valid_rows = mask.flatten().nonzero().squeeze(1).to(self.device, non_blocking=True)
            mask = mask.to(self.device, non_blocking=True)
        if self.pseudo is not None:
            pairs = (pair.map(lambda x: x[rows]) for pair in (self.pseudo.logits, self.pseudo.labels))
            pseudo = SegmentPseudoLabels(*pairs)
        videos = videos.to(self.device, non_blocking=True)
        labels = self._labels and self._labels.map(lambda x: x[rows])
        return Batch(videos, features, mask, valid_rows, self._video_labels[videos], labels, pseudo)


def open_split(
    dataset: str,
    split: str,
    settings: DataSettings,
    device: torch.device,
    pseudo_label_dir: Path | None = None,
    subset: Subset = WHOLE,
) -> SplitBatches:
    """Return the batches of a data set's split; raises InputError as `load_annotations` and `open_batches` do."""
    annotations = load_annotations(dataset, settings.annotations_dir or settings.folder(dataset), split)
    annotations = annotations.refined(settings.segments_per_second or annotations.segments_per_second)
    return open_batches(annotations, settings, device, pseudo_label_dir, subset)


def open_batches(
    annotations: SplitAnnotations,
    settings: DataSettings,
    device: torch.device,
    pseudo_label_dir: Path | None = None,
    subset: Subset = WHOLE,
) -> SplitBatches:
    """Return the batches of annotated videos, with pseudo-labels if their folder is given, or raise InputError."""
    names = AudioVisual(settings.audio_features, settings.visual_features)
    options = (settings.folder(annotations.dataset), settings.packed_dir, settings.allow_missing, subset)
    annotations, opened = open_features(annotations, [*names.audio, *names.visual], *options)
    features = names.map(lambda of_modality: [opened[name] for name in of_modality])
    pseudo = None if pseudo_label_dir is None else load_pseudo_labels(pseudo_label_dir, annotations)
    return SplitBatches(annotations, features, device, settings.residency, pseudo)


def open_texts(
    dataset: str, settings: DataSettings, device: torch.device, prompts: str = "event_names"
) -> AudioVisual[Tensor]:
    """Load each modality's text features of the classes, (C, D). Raises InputError as `features_with_text` does."""
    classes, data_dir = DATASETS[dataset].classes, settings.folder(dataset)
    texts = [load_text_features(data_dir, name, classes, prompts) for name in features_with_text(settings)]
    return AudioVisual(*(text.to(device) for text in texts))


def features_with_text(settings: DataSettings) -> AudioVisual[str]:
    """Return each modality's feature that has a text encoder. Raises InputError unless there is exactly one."""
    with_text = []
    for flag, names in (("--audio_features", settings.audio_features), ("--visual_features", settings.visual_features)):
        found = [name for name in names if PACKED[name].text_folder]
        if len(found) != 1:
            raise InputError(flag, " ".join(names), "exactly one feature with a text encoder", "Choose clap or clip.")
        with_text += found
    return AudioVisual(*with_text)


def free_memory(device: torch.device) -> int:
    """Return the number of free bytes on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except OSError:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
