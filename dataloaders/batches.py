"""From a packed split to batches of tensors on a device.

When a split's features fit, they live on the device and a batch is one indexing operation there; the CPU indexes the
memory map itself, whose pages stay in memory once they were read. When they do not fit, rows are read from the memory
map while the previous batch is computed on. All give equal batches.
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

BATCHES_SORTED = 20  # that many batches are sorted by length together
RESIDENT_SHARE = 0.6  # of the device's free memory may go to the features; the rest is the network's


@settings_group
class DataSettings:
    """Where the data lie, and which features are used."""

    data_dir: Path | None = None  # the data set's folder (default: data/<dataset>)
    annotations_dir: Path | None = None  # folder of the annotation files (default: data_dir)
    packed_dir: Path | None = None  # folder of the packed features (default: data_dir/packed)
    audio_features: tuple[Literal[(*FEATURES, "pe_audio_frames")], ...] = ("vggish",)  # audio features, concatenated
    visual_features: tuple[Literal[tuple(FEATURES)], ...] = ("res152", "r2plus1d_18")  # visual features, concatenated
    allow_missing: bool = False  # leave out videos without feature files instead of stopping
    segments_per_second: PositiveInt | None = None
    """finer segments, for features of as many rows, such as 2 for half seconds (default: the data set's)"""
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
    """What the networks and losses see: B videos, T segments, C classes."""

    videos: Tensor  # (B,) int64, which videos of the split these are
    features: AudioVisual[Tensor]  # (B, T, D) float32, the chosen features of each modality, concatenated
    mask: Tensor | None  # (B, T) bool, False where a segment is padding; None: no video is shorter than T
    valid_rows: Tensor | None  # (R,) int64, where the flattened mask is True; made on the host: no wait for a device
    video_labels: Tensor  # (B, C) float32
    labels: AudioVisual[Tensor] | None  # (B, T, C) bool, the truth where the split has one
    pseudo: SegmentPseudoLabels | None

    @property
    def padding(self) -> dict[str, Tensor]:
        """Return what a network has to be told of padding, by name; empty where there is none."""
        return {} if self.mask is None else {"mask": self.mask}

    def valid(self, x: Tensor) -> Tensor:
        """Return a tensor of segments without padding, as if all were of one video: (B, T, ...) -> (1, R, ...)."""
        return x if self.valid_rows is None else x.flatten(0, 1)[self.valid_rows].unsqueeze(0)


class SplitBatches:
    """Batches of one split.

    Args:
        annotations: the N videos.
        features: of each modality; several are concatenated.
        device: where batches are wanted.
        residency: "resident" keeps the features on the device, "stream" reads them from the memory map, "auto" does
            the first when they fit.
        pseudo: pseudo-labels aligned with the annotations.
    """

    def __init__(
        self,
        annotations: SplitAnnotations,
        features: AudioVisual[list[PackedFeature]],
        device: torch.device,
        residency: str = "auto",
        pseudo: PseudoLabels | None = None,
    ):
        self.annotations = annotations
        self.device = device
        every = {feature.feature: feature for feature in (*features.audio, *features.visual)}
        self.sources = {name: feature.sha256 for name, feature in every.items()}  # hashes of the features
        self.marks = tuple(dict.fromkeys(mark for feature in every.values() for mark in feature.marks))
        audio, visual = (tuple(feature.width for feature in of_modality) for of_modality in features)
        self.feature_widths, self.widths = AudioVisual(audio, visual), AudioVisual(sum(audio), sum(visual))
        num_bytes = sum(feature.values.nbytes for feature in (*features.audio, *features.visual))
        free = free_memory(device)
        self.resident = residency == "resident" or (residency == "auto" and num_bytes <= RESIDENT_SHARE * free)
        if not self.resident:
            tqdm.write(
                f"{annotations.dataset} {annotations.split}: {num_bytes / 1e9:.2f} GB of features, {free / 1e9:.2f} GB "
                f"free on {device}: streaming them from disk"
            )
        elif device.type != "cpu":
            audio, visual = ([replace(f, values=f.values.to(device)) for f in of_modality] for of_modality in features)
            features = AudioVisual(audio, visual)
        self._features = features
        self._offsets = annotations.offsets
        self.equal_length = annotations.lengths.unique().numel() == 1
        # Labels are small: they live on the device either way.
        self._video_labels = annotations.video_labels.to(device, torch.float32)
        self._labels = annotations.labels and _to_device(annotations.labels, device)  # (R, C)
        self.pseudo = pseudo
        if pseudo is not None:
            logits, labels = _to_device(pseudo.logits, device), _to_device(pseudo.labels, device)
            self.pseudo = replace(pseudo, logits=logits, labels=labels)

    @property
    def num_videos(self) -> int:
        return self.annotations.num_videos

    def check_features(self) -> None:
        """Raise InputError naming the packed file if a feature is not finite; reads all of them."""
        for feature in (*self._features.audio, *self._features.visual):
            if not all(bool(rows.isfinite().all()) for rows in feature.values.split(1 << 16)):
                way_out = "Delete it: it is packed again from the feature files."
                raise InputError(feature.path, "features that are NaN or infinite", "finite values", way_out)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yield all videos in the order of the annotations."""
        return self.of_videos(torch.arange(self.num_videos), batch_size)

    def shuffled(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield all videos in an order that depends on seed and epoch alone, so that a resumed run needs no history.

        Videos of similar lengths come together, but for UnAV's, whose batches are those of the released code.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(self.num_videos, generator=generator)
        if not self.equal_length and DATASETS[self.annotations.dataset].task:
            lengths, groups = self.annotations.lengths, []
            for pool in order.split(BATCHES_SORTED * batch_size):
                groups += pool[lengths[pool].argsort(stable=True)].split(batch_size)
            *whole, last = groups
            order = torch.cat([*(whole[n] for n in torch.randperm(len(whole), generator=generator)), last])
        return self.of_videos(order, batch_size)

    def of_videos(self, videos: Tensor, batch_size: int) -> Iterator[Batch]:
        """Yield these videos in this order: (K,) int64 indices, on the CPU."""
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
        """Take these videos' features to the device, the last segment repeated as padding: (B, T, D)."""
        steps = self._steps(videos)  # (B, T)
        taken = []
        for of_modality in self._features:
            parts = []
            for feature in of_modality:
                rows = (feature.first_rows[videos].unsqueeze(1) + steps).flatten()
                rows = rows.to(feature.values.device, non_blocking=True)
                parts.append(feature.values.index_select(0, rows).unflatten(0, steps.shape))
            features = torch.cat(parts, dim=-1).float() if len(parts) > 1 else parts[0].float()
            if self.device.type == "cuda" and features.device.type == "cpu":
                features = features.pin_memory()
            taken.append(features.to(self.device, non_blocking=True))
        return AudioVisual(*taken)

    def _steps(self, videos: Tensor) -> Tensor:
        """Return numbers of the segments that make a padded batch, the last one repeated: (B, T)."""
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
            pseudo = SegmentPseudoLabels(_take(self.pseudo.logits, rows), _take(self.pseudo.labels, rows))
        videos = videos.to(self.device, non_blocking=True)
        labels = self._labels and _take(self._labels, rows)
        return Batch(videos, features, mask, valid_rows, self._video_labels[videos], labels, pseudo)


def _to_device(pair: AudioVisual[Tensor], device: torch.device) -> AudioVisual[Tensor]:
    return AudioVisual(pair.audio.to(device), pair.visual.to(device))


def _take(pair: AudioVisual[Tensor], rows: Tensor) -> AudioVisual[Tensor]:
    return AudioVisual(pair.audio[rows], pair.visual[rows])


def open_split(
    dataset: str,
    split: str,
    settings: DataSettings,
    device: torch.device,
    pseudo_label_dir: Path | None = None,
    subset: Subset = WHOLE,
) -> SplitBatches:
    """Open batches of a split of a data set. Args and errors as of `open_batches` and `load_annotations`."""
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
    """Pack what is not packed, and make batches of the annotated videos.

    Args:
        pseudo_label_dir: folder of the split's pseudo-labels; None: without.

    Raises:
        InputError: as `open_features`, `load_pseudo_labels` and `Subset.annotations`.
    """
    names = [*settings.audio_features, *settings.visual_features]
    options = (settings.folder(annotations.dataset), settings.packed_dir, settings.allow_missing, subset)
    annotations, opened = open_features(annotations, names, *options)
    audio, visual = [opened[n] for n in settings.audio_features], [opened[n] for n in settings.visual_features]
    pseudo = None if pseudo_label_dir is None else load_pseudo_labels(pseudo_label_dir, annotations)
    return SplitBatches(annotations, AudioVisual(audio, visual), device, settings.residency, pseudo)


def open_texts(
    dataset: str, settings: DataSettings, device: torch.device, prompts: str = "event_names"
) -> AudioVisual[Tensor]:
    """Load the text features of the classes that each modality is scored against: (C, D).

    Raises:
        InputError: when a modality has not exactly one feature with a text encoder, or its file is unusable.
    """
    classes, data_dir = DATASETS[dataset].classes, settings.folder(dataset)
    texts = [load_text_features(data_dir, name, classes, prompts) for name in features_with_text(settings)]
    return AudioVisual(*(text.to(device) for text in texts))


def features_with_text(settings: DataSettings) -> AudioVisual[str]:
    """Return each modality's one feature that has a text encoder. Raises InputError where there is not exactly one."""
    with_text = []
    for flag, names in (("--audio_features", settings.audio_features), ("--visual_features", settings.visual_features)):
        found = [name for name in names if PACKED[name].text_folder]
        if len(found) != 1:
            raise InputError(flag, " ".join(names), "exactly one feature with a text encoder", "Choose clap or clip.")
        with_text += found
    return AudioVisual(*with_text)


def free_memory(device: torch.device) -> int:
    """Return bytes that a split's features could take on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except OSError:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
