"""Segment-level pseudo-labels of stage 2: packed, one file a split, or in the released layout of `.npy` files."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dataloaders.annotations import SplitAnnotations, find_samples, segment_rows
from dataloaders.npy import read_npy
from utils.errors import InputError
from utils.files import atomic_write

MODALITIES = ("audio", "visual")
# The released file name is misspelt; it is kept so that files can be exchanged.
NPY_THRESHOLDS = {"audio": "a_classwise_threhsolds.npy", "visual": "v_classwise_threhsolds.npy"}
NPY_LABELS = {"audio": "a_segmentwise_pseudo_labels", "visual": "v_segmentwise_pseudo_labels"}
NPY_LOGITS = {"audio": "a_segmentwise_logits", "visual": "v_segmentwise_logits"}
WAY_OUT = "Run pseudo_label_generation.py for this data set, or name the folder that holds its output."


@dataclass(frozen=True)
class PseudoLabels:
    """Pseudo-labels of one split: N videos, C classes, R rows (segments of consecutive videos)."""

    dataset: str
    classes: tuple[str, ...]  # (C,)
    sample_ids: tuple[str, ...]  # (N,)
    lengths: Tensor  # (N,) int64
    audio_logits: Tensor  # (R, C) float32, of the temporal transformer
    visual_logits: Tensor  # (R, C) float32
    audio_labels: Tensor  # (R, C) bool, hard pseudo-labels
    visual_labels: Tensor  # (R, C) bool
    audio_thresholds: Tensor  # (C,) float64, -inf: every segment is positive
    visual_thresholds: Tensor  # (C,) float64

    def class_frequencies(self, modality: str) -> Tensor:
        """f_c: share of all segments whose hard pseudo-label has class c (paper Eq. 19), (C,) float32."""
        labels = {"audio": self.audio_labels, "visual": self.visual_labels}[modality]
        return labels.float().mean(dim=0)

    def thresholds(self, modality: str) -> Tensor:
        """Class-wise thresholds of one modality, (C,) float64."""
        return {"audio": self.audio_thresholds, "visual": self.visual_thresholds}[modality]

    def aligned(self, annotations: SplitAnnotations, where: Path) -> "PseudoLabels":
        """These pseudo-labels for exactly the annotated videos, in their order, and for the annotated classes.

        Raises:
            InputError: when they are of another data set, their first classes are others, or they lack a video.
        """
        num_classes = len(annotations.classes)
        videos = find_samples(annotations, self.dataset, self.classes, self.sample_ids, where, "pseudo-labels", WAY_OUT)
        if not torch.equal(self.lengths[videos], annotations.lengths):
            raise InputError(where, "videos of other lengths", "the annotated numbers of segments", WAY_OUT)
        offsets = torch.cat([self.lengths.new_zeros(1), self.lengths.cumsum(0)])
        rows = segment_rows(offsets, videos)
        return replace(
            self,
            classes=annotations.classes,
            sample_ids=annotations.sample_ids,
            lengths=annotations.lengths,
            audio_logits=self.audio_logits[rows, :num_classes],
            visual_logits=self.visual_logits[rows, :num_classes],
            audio_labels=self.audio_labels[rows, :num_classes],
            visual_labels=self.visual_labels[rows, :num_classes],
            audio_thresholds=self.audio_thresholds[:num_classes],
            visual_thresholds=self.visual_thresholds[:num_classes],
        )


def save_pseudo_labels(pseudo: PseudoLabels, path: Path) -> None:
    """Write one split's pseudo-labels as a safetensors file, atomically."""
    tensors = {
        name: getattr(pseudo, name)
        for name in ("lengths", "audio_logits", "visual_logits", "audio_labels", "visual_labels")
    }
    tensors |= {"audio_thresholds": pseudo.audio_thresholds, "visual_thresholds": pseudo.visual_thresholds}
    metadata = {
        "dataset": pseudo.dataset,
        "classes": "\n".join(pseudo.classes),
        "sample_ids": "\n".join(pseudo.sample_ids),
    }
    data = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata)
    with atomic_write(path) as file:
        file.write(data)


def load_pseudo_labels(folder: Path, annotations: SplitAnnotations) -> PseudoLabels:
    """Read the pseudo-labels of an annotated split, from the packed file or else from the released `.npy` layout.

    Args:
        folder: output of stage 2, `<stage-1 run>/<data set>_Dataset/`, or a released folder.

    Raises:
        InputError: when there are none, or they do not fit the annotations.
    """
    path = folder / f"{annotations.split}.safetensors"
    if path.exists():
        return _load_packed(path).aligned(annotations, path)
    if (folder / NPY_LABELS["audio"]).is_dir():
        return _load_npy(folder, annotations)
    raise InputError(
        folder,
        f"neither {path.name} nor a folder {NPY_LABELS['audio']}/",
        f"the pseudo-labels of {annotations.dataset} {annotations.split}",
        WAY_OUT,
    )


def _load_packed(path: Path) -> PseudoLabels:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return PseudoLabels(
            dataset=metadata["dataset"],
            classes=tuple(metadata["classes"].split("\n")),
            sample_ids=tuple(metadata["sample_ids"].split("\n")),
            **tensors,
        )
    except (SafetensorError, KeyError, TypeError) as error:
        raise InputError(path, f"a damaged file ({error})", "pseudo-labels written by stage 2", WAY_OUT) from error


def export_npy(pseudo: PseudoLabels, folder: Path) -> None:
    """Write the released layout: one `.npy` a video for labels and for logits of each modality, and the thresholds."""
    streams = {
        "audio": (pseudo.audio_labels, pseudo.audio_logits, pseudo.audio_thresholds),
        "visual": (pseudo.visual_labels, pseudo.visual_logits, pseudo.visual_thresholds),
    }
    lengths = pseudo.lengths.tolist()
    for modality, (labels, logits, thresholds) in streams.items():
        for subfolder, values in (
            (NPY_LABELS[modality], labels.to(torch.float32)),
            (NPY_LOGITS[modality], logits.to(torch.float32)),
        ):
            (folder / subfolder).mkdir(parents=True, exist_ok=True)
            for sample_id, rows in zip(pseudo.sample_ids, values.split(lengths), strict=True):
                _save_npy(folder / subfolder / f"{sample_id}.npy", rows)
        _save_npy(folder / NPY_THRESHOLDS[modality], thresholds)


def _save_npy(path: Path, values: Tensor) -> None:
    with atomic_write(path) as file:
        np.save(file, values.numpy())


def _load_npy(folder: Path, annotations: SplitAnnotations) -> PseudoLabels:
    """Read the released layout. Files are named by sample, or by feature id where the data set's ids are unique."""
    num_classes = len(annotations.classes)
    lengths = annotations.lengths.tolist()
    tensors: dict[str, Tensor] = {}
    for modality in MODALITIES:
        path = folder / NPY_THRESHOLDS[modality]
        thresholds = _read_npy(path, "class-wise thresholds")
        if thresholds.shape != (num_classes,):
            raise InputError(
                path,
                f"thresholds of shape {thresholds.shape}",
                f"shape ({num_classes},), one for each class of {annotations.dataset}",
                WAY_OUT,
            )
        tensors[f"{modality}_thresholds"] = torch.from_numpy(thresholds.astype(np.float64))
        for name, subfolder in (("labels", NPY_LABELS[modality]), ("logits", NPY_LOGITS[modality])):
            paths = [
                _npy_of_sample(folder / subfolder, sample_id, feature_id)
                for sample_id, feature_id in zip(annotations.sample_ids, annotations.feature_ids, strict=True)
            ]
            with ThreadPoolExecutor(8) as pool:
                videos = list(pool.map(lambda p: _read_npy(p, "pseudo-labels of one video"), paths))
            for path, values, length in zip(paths, videos, lengths, strict=True):
                if values.shape != (length, num_classes):
                    raise InputError(
                        path, f"shape {values.shape}", f"({length}, {num_classes}), segments by classes", WAY_OUT
                    )
            rows = torch.from_numpy(np.concatenate(videos).astype(np.float32))
            tensors[f"{modality}_{name}"] = rows > 0.5 if name == "labels" else rows
    return PseudoLabels(
        dataset=annotations.dataset,
        classes=annotations.classes,
        sample_ids=annotations.sample_ids,
        lengths=annotations.lengths,
        **tensors,
    )


def _npy_of_sample(folder: Path, sample_id: str, feature_id: str) -> Path:
    by_sample = folder / f"{sample_id}.npy"
    return by_sample if by_sample.exists() else folder / f"{feature_id}.npy"


def _read_npy(path: Path, what: str) -> np.ndarray:
    try:
        return read_npy(path)
    except (OSError, ValueError) as error:
        found = "no such file" if not path.exists() else f"an unreadable file ({error})"
        raise InputError(path, found, what, WAY_OUT) from error
