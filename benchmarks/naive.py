"""The naive baseline: the stages as they are usually written, with the same results as this repository's code.

Small files read one by one in the workers of a `DataLoader`, videos padded to the longest of the data set, a loop-based
optimiser, the loss fetched every step, evaluation and pseudo-labels one video at a time. It is here to be measured
against, and nothing else uses it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.naive_scores import mean_scores, video_scores
from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import Teacher
from dataloaders.features import FEATURES, feature_path
from dataloaders.pseudo_labels import NPY_LABELS, NPY_LOGITS, NPY_THRESHOLDS
from utils.metrics import ParsingScores

NUM_WORKERS = 2


@dataclass
class NaiveBatch:
    """B videos, T segments of the data set's longest, C classes."""

    audio: Tensor  # (B, T, D)
    visual: Tensor  # (B, T, D)
    mask: Tensor  # (B, T) bool, False where a segment is padding
    video_labels: Tensor  # (B, C) float32
    audio_labels: Tensor  # (B, T, C)
    visual_labels: Tensor  # (B, T, C)
    teacher: Teacher | None


class VideoFiles(Dataset):
    """Every video's features and pseudo-labels from their `.npy` files.

    Args:
        num_segments: T that videos are padded to; None: the longest of the split.
        pseudo_dir: folder of the released pseudo-label layout.
    """

    def __init__(
        self,
        annotations: SplitAnnotations,
        data_dir: Path,
        audio_features: list[str],
        visual_features: list[str],
        num_segments: int | None = None,
        pseudo_dir: Path | None = None,
    ):
        self.annotations = annotations
        self.data_dir = data_dir
        self.features = {"audio": audio_features, "visual": visual_features}
        self.num_segments = num_segments or int(annotations.lengths.max())
        self.pseudo_dir = pseudo_dir
        self.offsets = annotations.offsets.tolist()

    def __len__(self) -> int:
        return self.annotations.num_videos

    def __getitem__(self, n: int) -> dict[str, Tensor]:
        annotations = self.annotations
        rows = slice(self.offsets[n], self.offsets[n + 1])
        length = rows.stop - rows.start
        item = {modality: self._pad(self._read(modality, n, length)) for modality in ("audio", "visual")}
        item["mask"] = torch.arange(self.num_segments) < length
        item["video_labels"] = annotations.video_labels[n].float()
        if annotations.audio_labels is not None:
            item["audio_labels"] = self._pad(annotations.audio_labels[rows])
            item["visual_labels"] = self._pad(annotations.visual_labels[rows])
        if self.pseudo_dir is not None:
            for modality in ("audio", "visual"):
                for kind, folders in (("logits", NPY_LOGITS), ("labels", NPY_LABELS)):
                    path = self.pseudo_dir / folders[modality] / f"{annotations.sample_ids[n]}.npy"
                    item[f"{modality}_pseudo_{kind}"] = torch.from_numpy(np.load(path))  # (T, C)
        return item

    def _read(self, modality: str, n: int, length: int) -> Tensor:
        """One modality's features of a video, concatenated: (T, D)."""
        parts = []
        for name in self.features[modality]:
            values = torch.from_numpy(np.load(feature_path(self.data_dir, name, self.annotations.feature_ids[n])))
            per_second = FEATURES[name].rows_per_second
            if per_second > 1:
                values = values.view(length, per_second, -1).mean(dim=1)
            if values.shape[0] != length:
                values = F.adaptive_avg_pool1d(values.T, length).T
            parts.append(values)
        return torch.cat(parts, dim=-1)

    def _pad(self, values: Tensor) -> Tensor:
        """(T of the video, X) -> (T, X)"""
        return F.pad(values, (0, 0, 0, self.num_segments - values.shape[0]))


def batches(dataset: VideoFiles, batch_size: int, num_workers: int = NUM_WORKERS) -> Iterator[NaiveBatch]:
    """Batches in the order of the data set, read by worker processes."""
    for items in DataLoader(dataset, batch_size, num_workers=num_workers):
        teacher = None
        if "audio_pseudo_logits" in items:
            streams = (items[f"{m}_pseudo_{kind}"] for kind in ("logits", "labels") for m in ("audio", "visual"))
            teacher = Teacher(*streams)
        yield NaiveBatch(
            audio=items["audio"],
            visual=items["visual"],
            mask=items["mask"],
            video_labels=items["video_labels"],
            audio_labels=items.get("audio_labels"),
            visual_labels=items.get("visual_labels"),
            teacher=teacher,
        )


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: Callable[[NaiveBatch], dict[str, Tensor]],
    batch: NaiveBatch,
    clip_norm: float,
) -> dict[str, float]:
    """One step of optimisation; returns every loss as a number."""
    optimizer.zero_grad()
    values = losses(batch)
    values["total"].backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return {name: value.item() for name, value in values.items()}


@torch.no_grad()
def evaluate(model: nn.Module, dataset: VideoFiles, num_workers: int = NUM_WORKERS) -> ParsingScores:
    """HAN's F-scores on a split, one video at a time."""
    model.eval()
    scores = []
    for video in batches(dataset, 1, num_workers):
        output = model(video.audio, video.visual)
        in_video = (output.video_probs > 0.5).unsqueeze(1)  # (1, 1, C)
        streams = [
            ((torch.sigmoid(logits) > 0.5) & in_video)[0].numpy()
            for logits in (output.audio_logits, output.visual_logits)
        ]
        streams += [video.audio_labels[0].numpy(), video.visual_labels[0].numpy()]
        scores.append(video_scores(*streams))
    return mean_scores(scores)


@torch.no_grad()
def write_pseudo_labels(
    model: nn.Module,
    dataset: VideoFiles,
    events: tuple[Tensor, Tensor],
    thresholds: dict[str, Tensor],
    folder: Path,
    num_workers: int = NUM_WORKERS,
) -> None:
    """Pseudo-labels of a split in the released layout, one video at a time.

    Args:
        events: text features of the class names, (C, D) audio and (C, D) visual.
        thresholds: (C,) of each modality.
    """
    model.eval()
    for modality in ("audio", "visual"):
        for folders in (NPY_LABELS, NPY_LOGITS):
            (folder / folders[modality]).mkdir(parents=True, exist_ok=True)
        np.save(folder / NPY_THRESHOLDS[modality], thresholds[modality].numpy())
    sample_ids = dataset.annotations.sample_ids
    for sample_id, video in zip(sample_ids, batches(dataset, 1, num_workers), strict=True):
        output = model(video.audio, video.visual, *events, video.mask)
        for modality, logits in (("audio", output.audio_logits[0]), ("visual", output.visual_logits[0])):
            labels = (logits > thresholds[modality]) & video.video_labels[0].bool()
            np.save(folder / NPY_LABELS[modality] / f"{sample_id}.npy", labels.float().numpy())
            np.save(folder / NPY_LOGITS[modality] / f"{sample_id}.npy", logits.numpy())
