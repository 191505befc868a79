"""The naive baseline: the stages as they are usually written, with the same results as this repository's code.

Small files read one by one in the workers of a `DataLoader`, videos padded to the longest of the data set, a loop-based
optimiser, the loss fetched every step, evaluation and pseudo-labels one video at a time. `benchmarks` measures against
it, and tests compare results with it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import Batch, DataSettings, SegmentPseudoLabels
from dataloaders.features import FEATURES, feature_path
from dataloaders.pseudo_labels import NPY_LABELS, NPY_LOGITS, NPY_THRESHOLDS
from tests.naive.naive_scores import mean_scores, video_scores
from utils.audio_visual import AudioVisual
from utils.method.metrics import ParsingScores
from utils.training.loop import Recipe

NUM_WORKERS = 2


class VideoFiles(Dataset):
    """Every video's features and pseudo-labels from their `.npy` files.

    Args:
        settings: with the data set's folder.
        num_segments: T that videos are padded to; None: the longest of the split.
        pseudo_label_dir: folder of the released pseudo-label layout.
    """

    def __init__(
        self,
        annotations: SplitAnnotations,
        settings: DataSettings,
        num_segments: int | None = None,
        pseudo_label_dir: Path | None = None,
    ):
        self.annotations = annotations
        self.data_dir = settings.folder(annotations.dataset)
        self.features = AudioVisual(settings.audio_features, settings.visual_features)
        self.num_segments = num_segments or int(annotations.lengths.max())
        self.pseudo_label_dir = pseudo_label_dir
        self.offsets = annotations.offsets.tolist()

    def __len__(self) -> int:
        return self.annotations.num_videos

    def __getitem__(self, n: int) -> dict[str, Tensor | AudioVisual[Tensor]]:
        annotations = self.annotations
        rows = slice(self.offsets[n], self.offsets[n + 1])
        length = rows.stop - rows.start
        item = {
            "video": n,
            "features": self.features.map(lambda names: self._pad(self._read(names, n, length))),
            "mask": torch.arange(self.num_segments) < length,
            "video_labels": annotations.video_labels[n].float(),
        }
        if annotations.labels is not None:
            item["labels"] = annotations.labels.map(lambda labels: self._pad(labels[rows]))
        if self.pseudo_label_dir is not None:
            file = f"{annotations.sample_ids[n]}.npy"
            for kind, folders in (("logits", NPY_LOGITS), ("labels", NPY_LABELS)):
                item[f"pseudo_{kind}"] = folders.map(
                    lambda folder: torch.from_numpy(np.load(self.pseudo_label_dir / folder / file))  # (T, C)
                )
        return item

    def _read(self, names: tuple[str, ...], n: int, length: int) -> Tensor:
        """One modality's features of a video, concatenated: (T, D)."""
        parts = []
        for name in names:
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


def batches(dataset: VideoFiles, batch_size: int, num_workers: int = NUM_WORKERS) -> Iterator[Batch]:
    """Batches in the order of the data set, read by worker processes, every one with a mask."""
    for items in DataLoader(dataset, batch_size, num_workers=num_workers):
        pseudo = None
        if "pseudo_logits" in items:
            pseudo = SegmentPseudoLabels(items["pseudo_logits"], items["pseudo_labels"].map(lambda x: x > 0.5))
        yield Batch(
            videos=items["video"],
            features=items["features"],
            mask=items["mask"],
            valid_rows=None,
            video_labels=items["video_labels"],
            labels=items.get("labels"),
            pseudo=pseudo,
        )


def train(
    model: nn.Module,
    losses: Callable[[Batch], dict[str, Tensor]],
    dataset: VideoFiles,
    recipe: Recipe,
    batch_size: int,
    num_workers: int = NUM_WORKERS,
) -> Iterator[dict[str, float]]:
    """Steps of the recipe's first epoch; yields every loss as a number after each."""
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, recipe.learning_rate(1), recipe.betas, recipe.eps, weight_decay=recipe.weight_decay
    )
    for batch in batches(dataset, batch_size, num_workers):
        optimizer.zero_grad()
        values = losses(batch)
        values["total"].backward()
        nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        optimizer.step()
        yield {name: value.item() for name, value in values.items()}


@torch.no_grad()
def evaluate(model: nn.Module, dataset: VideoFiles, num_workers: int = NUM_WORKERS) -> ParsingScores:
    """HAN's F-scores on a split, one video at a time."""
    model.eval()
    scores = []
    for video in batches(dataset, 1, num_workers):
        output = model(*video.features)
        in_video = output.video_probs > 0.5  # (1, C)
        audio, visual = output.logits.map(lambda logits: torch.sigmoid(logits[0]) > 0.5)  # (T, C)
        prediction = AudioVisual((audio & in_video).numpy(), (visual & in_video).numpy())
        scores.append(video_scores(prediction, video.labels.map(lambda labels: labels[0].numpy())))
    return mean_scores(scores)


@torch.no_grad()
def write_pseudo_labels(
    model: nn.Module,
    dataset: VideoFiles,
    texts: AudioVisual[Tensor],
    thresholds: AudioVisual[Tensor],
    folder: Path,
    num_workers: int = NUM_WORKERS,
) -> None:
    """Pseudo-labels of a split in the released layout, one video at a time.

    Args:
        texts: text features of the class names, (C, D).
        thresholds: (C,).
    """
    model.eval()
    for subfolder in (*NPY_LABELS, *NPY_LOGITS):
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
    NPY_THRESHOLDS.map(lambda name, values: np.save(folder / name, values.numpy()), thresholds)
    sample_ids = dataset.annotations.sample_ids
    for sample_id, video in zip(sample_ids, batches(dataset, 1, num_workers), strict=True):
        logits = model(*video.features, *texts, video.mask).logits.map(lambda z: z[0])
        for z, threshold, labels_dir, logits_dir in zip(logits, thresholds, NPY_LABELS, NPY_LOGITS, strict=True):
            labels = (z > threshold) & video.video_labels[0].bool()
            np.save(folder / labels_dir / f"{sample_id}.npy", labels.float().numpy())
            np.save(folder / logits_dir / f"{sample_id}.npy", z.numpy())
