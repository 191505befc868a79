"""From a packed split to batches of tensors on a device.

When a split's features fit, they live on the device and a batch is one indexing operation there; the CPU indexes the
memory map itself, whose pages stay in memory once they were read. When they do not fit, rows are read from the memory
map while the previous batch is computed on. All give equal batches.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from dataloaders.annotations import SplitAnnotations
from dataloaders.features import FEATURES, load_event_features
from dataloaders.pseudo_labels import PseudoLabels, load_pseudo_labels
from dataloaders.store import PackedFeature, open_features
from dataloaders.subsets import WHOLE, Subset
from utils.errors import InputError

RESIDENT_SHARE = 0.6  # of the device's free memory may go to the features; the rest is the network's


@dataclass
class Teacher:
    """Pseudo-labels of a batch: B videos, T segments, C classes."""

    audio_logits: Tensor  # (B, T, C) float32
    visual_logits: Tensor  # (B, T, C) float32
    audio_labels: Tensor  # (B, T, C) bool
    visual_labels: Tensor  # (B, T, C) bool


@dataclass
class Batch:
    """What the networks and losses see: B videos, T segments, C classes."""

    videos: Tensor  # (B,) int64, which videos of the split these are
    audio: Tensor  # (B, T, D) the chosen audio features, concatenated
    visual: Tensor  # (B, T, D) the chosen visual features, concatenated
    mask: Tensor | None  # (B, T) bool, False where a segment is padding; None: no video is shorter than T
    valid_rows: Tensor | None  # (R,) int64, where the flattened mask is True; made on the host: no wait for a device
    video_labels: Tensor  # (B, C) float32
    audio_labels: Tensor | None  # (B, T, C) bool, the truth where the split has one
    visual_labels: Tensor | None  # (B, T, C) bool
    teacher: Teacher | None


def map_tensors(function: Callable[[Tensor], Tensor], data: Batch | Teacher) -> Batch | Teacher:
    """The same with a function applied to each tensor."""
    changed: dict[str, object] = {}
    for field in fields(data):
        value = getattr(data, field.name)
        if isinstance(value, Tensor):
            changed[field.name] = function(value)
        elif isinstance(value, Teacher):
            changed[field.name] = map_tensors(function, value)
    return replace(data, **changed)


class SplitBatches:
    """Batches of one split.

    Args:
        annotations: the N videos.
        audio, visual: features of each modality; several are concatenated.
        device: where batches are wanted.
        residency: "resident" keeps the features on the device, "stream" reads them from the memory map, "auto" does
            the first when they fit.
        pseudo: pseudo-labels aligned with the annotations.
    """

    def __init__(
        self,
        annotations: SplitAnnotations,
        audio: list[PackedFeature],
        visual: list[PackedFeature],
        device: torch.device,
        residency: str = "auto",
        pseudo: PseudoLabels | None = None,
    ):
        self.annotations = annotations
        self.pseudo = pseudo
        self.device = device
        self.audio_width = sum(f.width for f in audio)
        self.visual_widths = [f.width for f in visual]  # of each feature
        self.visual_width = sum(self.visual_widths)
        num_bytes = 4 * sum(f.values.numel() for f in (*audio, *visual))
        free = free_memory(device)
        self.resident = residency == "resident" or (residency == "auto" and num_bytes <= RESIDENT_SHARE * free)
        if not self.resident:
            tqdm.write(
                f"{annotations.dataset} {annotations.split}: {num_bytes / 1e9:.2f} GB of features, {free / 1e9:.2f} GB "
                f"free on {device}: streaming them from disk"
            )
        elif device.type != "cpu":
            audio, visual = ([replace(f, values=f.values.to(device)) for f in fs] for fs in (audio, visual))
        self._features = (audio, visual)
        self._offsets = annotations.offsets
        self._equal_length = annotations.lengths.unique().numel() == 1
        # Labels are small: they live on the device either way.
        rows = (annotations.audio_labels, annotations.visual_labels)
        if pseudo is not None:
            rows += (pseudo.audio_logits, pseudo.visual_logits, pseudo.audio_labels, pseudo.visual_labels)
        self._rows = [None if r is None else r.to(device) for r in rows]
        self._video_labels = annotations.video_labels.to(device, torch.float32)

    @property
    def num_videos(self) -> int:
        return self.annotations.num_videos

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """All videos in the order of the annotations."""
        return self.of_videos(torch.arange(self.num_videos), batch_size)

    def of_videos(self, videos: Tensor, batch_size: int) -> Iterator[Batch]:
        """These videos in this order: (K,) int64 indices, on the CPU."""
        return self._batches(videos.split(batch_size))

    def shuffled(self, batch_size: int, seed: int | tuple[int, ...], epoch: int) -> Iterator[Batch]:
        """All videos in an order that depends on seed and epoch alone, so that a resumed run needs no history.

        Args:
            seed: of one run; or of several runs, which are read together, each in the order that it would have alone.
                Then every tensor of a batch has a first dimension of runs.

        Raises:
            ValueError: for several runs, when videos differ in length.
        """
        if isinstance(seed, int):
            yield from self._batches(self._order(seed, epoch).split(batch_size))
            return
        if not self._equal_length:
            raise ValueError("several runs at a time need videos of one length")
        orders = torch.stack([self._order(s, epoch) for s in seed])  # (runs, N)
        for batch in self._batches(tuple(part.flatten() for part in orders.split(batch_size, dim=1))):
            yield map_tensors(lambda x: x.unflatten(0, (len(seed), -1)), batch)

    def _order(self, seed: int, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        return torch.randperm(self.num_videos, generator=generator)

    def _batches(self, groups: tuple[Tensor, ...]) -> Iterator[Batch]:
        if self.resident:
            for group in groups:
                yield self._assemble(group, *self._take_features(group))
            return
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._take_features, groups[0])
            for group, following in zip(groups, (*groups[1:], None), strict=True):
                audio, visual = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._take_features, following)
                yield self._assemble(group, audio, visual)

    def _take_features(self, videos: Tensor) -> tuple[Tensor, Tensor]:
        """Features of these videos on the device, the last segment repeated as padding: (B, T, D) each."""
        steps = self._steps(videos)  # (B, T)
        streams = []
        for features in self._features:
            parts = []
            for feature in features:
                rows = (feature.first_rows[videos].unsqueeze(1) + steps).flatten()
                on_device = rows.to(feature.values.device, non_blocking=True)
                parts.append(feature.values.index_select(0, on_device).unflatten(0, steps.shape))
            stream = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
            if self.device.type == "cuda" and stream.device.type == "cpu":
                stream = stream.pin_memory()
            streams.append(stream.to(self.device, non_blocking=True))
        return streams[0], streams[1]

    def _steps(self, videos: Tensor) -> Tensor:
        """Numbers of the segments that make a padded batch, the last one repeated: (B, T)."""
        lengths = self.annotations.lengths[videos]
        return torch.minimum(torch.arange(int(lengths.max())), lengths.unsqueeze(1) - 1)

    def _assemble(self, videos: Tensor, audio: Tensor, visual: Tensor) -> Batch:
        rows = (self._offsets[videos].unsqueeze(1) + self._steps(videos)).to(self.device, non_blocking=True)  # (B, T)
        audio_labels, visual_labels, *teacher = [None if r is None else r[rows] for r in self._rows]
        mask = valid_rows = None
        if not self._equal_length:
            mask = torch.arange(audio.shape[1]) < self.annotations.lengths[videos].unsqueeze(1)
            valid_rows = mask.flatten().nonzero().squeeze(1).to(self.device, non_blocking=True)
            mask = mask.to(self.device, non_blocking=True)
        videos = videos.to(self.device, non_blocking=True)
        return Batch(
            videos=videos,
            audio=audio,
            visual=visual,
            mask=mask,
            valid_rows=valid_rows,
            video_labels=self._video_labels[videos],
            audio_labels=audio_labels,
            visual_labels=visual_labels,
            teacher=Teacher(*teacher) if teacher else None,
        )


def open_split(
    annotations: SplitAnnotations,
    audio_features: list[str],
    visual_features: list[str],
    data_dir: Path,
    packed_dir: Path | None,
    allow_missing: bool,
    device: torch.device,
    residency: str,
    pseudo_dir: Path | None = None,
    subset: Subset = WHOLE,
) -> SplitBatches:
    """Pack what is not packed, and make batches of a split; pseudo-labels come from `pseudo_dir` when it is given.

    Raises:
        InputError: as `open_features`, `load_pseudo_labels` and `Subset.videos`.
    """
    names = [*audio_features, *visual_features]
    annotations, opened = open_features(annotations, names, data_dir, packed_dir, allow_missing)
    if subset != WHOLE:  # after packing: a packed file holds the whole split
        keep = subset.videos(annotations)
        opened = {name: replace(feature, first_rows=feature.first_rows[keep]) for name, feature in opened.items()}
        annotations = subset.annotations(annotations)
    return SplitBatches(
        annotations,
        [opened[name] for name in audio_features],
        [opened[name] for name in visual_features],
        device,
        residency,
        None if pseudo_dir is None else load_pseudo_labels(pseudo_dir, annotations),
    )


def open_events(
    data_dir: Path,
    audio_features: list[str],
    visual_features: list[str],
    num_classes: int,
    device: torch.device,
    prompts: str = "event_names",
) -> tuple[Tensor, Tensor]:
    """Text features of the classes that each modality is scored against: (C, D) audio, (C, D) visual.

    Raises:
        InputError: when a modality has not just one feature with a text encoder, or its file is unusable.
    """
    events = []
    for flag, names in (("--audio_features", audio_features), ("--visual_features", visual_features)):
        name = feature_with_text(flag, names)
        events.append(load_event_features(data_dir, name, num_classes, prompts).to(device))
    return events[0], events[1]


def feature_with_text(flag: str, names: list[str]) -> str:
    """The one feature of a modality that has a text encoder. Raises InputError when there is not just one."""
    with_text = [name for name in names if FEATURES[name].event_folder]
    if len(with_text) != 1:
        raise InputError(flag, " ".join(names), "exactly one feature with a text encoder", "Choose clap or clip.")
    return with_text[0]


def free_memory(device: torch.device) -> int:
    """Bytes that a split's features could take on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except OSError:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
