"""Segment-level pseudo-labels of stage 2: one packed file per split, or the `.npy` files released by UWAV or VALOR."""

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataloaders.annotations import SplitAnnotations, segment_rows
from dataloaders.features import read_npy
from dataloaders.records import load_record, save_record
from utils.audio_visual import MODALITIES, AudioVisual
from utils.errors import InputError
from utils.files import atomic_write

# Misspelt as in the released code, so that files can be exchanged.
NPY_THRESHOLDS = AudioVisual("a_classwise_threhsolds.npy", "v_classwise_threhsolds.npy")
NPY_LABELS = AudioVisual("a_segmentwise_pseudo_labels", "v_segmentwise_pseudo_labels")
NPY_LOGITS = AudioVisual("a_segmentwise_logits", "v_segmentwise_logits")
VALOR_LABELS = AudioVisual("CLAP/segment_pseudo_labels", "CLIP/segment_pseudo_labels")  # as in VALOR's archives
NPY_FILES = ("[av]_classwise_*.npy", "[av]_segmentwise_*/*.npy", "CL[AI]P/segment_pseudo_labels/*.npy")  # all of these
LARGEST_LOGIT = 1000.0  # its sigmoid is exactly 1, that of its negative exactly 0
WAY_OUT = "Run stage 2 for this data set (pseudo_label_generation.py or its script), or pass the folder of its output."
_VALUES = "labels of 0 or 1; logits and thresholds that are finite, or -inf for absent classes"


@dataclass(frozen=True)
class PseudoLabels:
    """Pseudo-labels of a split: N videos, C classes, R rows (segments of consecutive videos)."""

    dataset: str
    classes: tuple[str, ...]  # (C,)
    sample_ids: tuple[str, ...]  # (N,)
    lengths: Tensor  # (N,) int64
    logits: AudioVisual[Tensor]  # (R, C) float32, of the teacher
    labels: AudioVisual[Tensor]  # (R, C) bool, hard pseudo-labels
    thresholds: AudioVisual[Tensor]  # (C,) float64, -inf: every segment is positive

    @property
    def class_frequencies(self) -> AudioVisual[Tensor]:
        """Return f_c, the share of all segments whose hard pseudo-label has class c (paper Eq. 19): (C,) float32."""
        return AudioVisual(self.labels.audio.float().mean(dim=0), self.labels.visual.float().mean(dim=0))


def save_pseudo_labels(pseudo: PseudoLabels, path: Path) -> None:
    """Write a split's pseudo-labels to a safetensors file, atomically."""
    tensors = {"lengths": pseudo.lengths}
    for name, pair in (("logits", pseudo.logits), ("labels", pseudo.labels), ("thresholds", pseudo.thresholds)):
        tensors |= {f"{modality}_{name}": tensor for modality, tensor in pair._asdict().items()}
    save_record(path, tensors, pseudo.dataset, pseudo.classes, pseudo.sample_ids)


def load_pseudo_labels(folder: Path, annotations: SplitAnnotations) -> PseudoLabels:
    """Read the pseudo-labels of the annotated videos and classes, in their order.

    The folder is the output of stage 2, with one packed file per split, or has `.npy` files in the layout released by
    UWAV or by VALOR. Raises InputError for absent and mismatched pseudo-labels, and for invalid values.
    """
    path = folder / f"{annotations.split}.safetensors"
    if path.exists():
        loaded = _load_packed(path, annotations)
    elif (folder / NPY_LABELS.audio).is_dir():
        path, loaded = folder, _load_npy(folder, annotations)
    elif any((folder / name).is_dir() for name in VALOR_LABELS):
        path, loaded = folder, _load_valor(folder, annotations)
    else:
        found = f"neither {path.name} nor a folder {NPY_LABELS.audio}/ or {VALOR_LABELS.audio}/"
        raise InputError(folder, found, f"pseudo-labels of {annotations.dataset} {annotations.split}", WAY_OUT)
    logits, labels, thresholds = (AudioVisual(*pair) for pair in zip(*loaded, strict=True))
    # A logit of -inf means that the class is absent from the video label.
    called_absent = (logits.audio == -torch.inf) | (logits.visual == -torch.inf)  # (R, C)
    wrong = (called_absent & annotations.video_labels.repeat_interleave(annotations.lengths, dim=0)).any(dim=1)
    if wrong.any():
        videos = torch.arange(annotations.num_videos).repeat_interleave(annotations.lengths)  # (R,)
        found = f"logits of -inf for a class in the label of {annotations.sample_ids[int(videos[wrong][0])]}"
        raise InputError(path, found, _VALUES, WAY_OUT)
    of_split = (annotations.dataset, annotations.classes, annotations.sample_ids, annotations.lengths)
    return PseudoLabels(*of_split, logits, labels, thresholds)


def _load_packed(path: Path, annotations: SplitAnnotations) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Load each modality's logits, labels and thresholds for the annotated videos and classes from a packed file."""
    record = load_record(path, annotations.dataset, annotations.classes, WAY_OUT)
    videos = record.find(annotations)
    lengths = record.get("lengths", torch.int64, len(record.sample_ids))
    if (lengths < 1).any() or not torch.equal(lengths[videos], annotations.lengths):
        raise record.error("videos of other lengths", "the annotated numbers of segments")
    rows = segment_rows(torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]), videos)
    num_rows, num_classes = sum(lengths.tolist()), len(record.classes)  # Python's integers do not overflow
    chosen = slice(len(annotations.classes))
    loaded = []
    for modality in MODALITIES:
        logits = record.get(f"{modality}_logits", torch.float32, num_rows, num_classes)
        labels = record.get(f"{modality}_labels", torch.bool, num_rows, num_classes)
        thresholds = record.get(f"{modality}_thresholds", torch.float64, num_classes)
        values = {"logits": logits, "labels": labels.view(torch.uint8), "thresholds": thresholds}
        for name, tensor in values.items():
            _check_values(tensor, f"{modality} {name}", path)
        loaded.append((logits[rows, chosen], labels[rows, chosen], thresholds[chosen]))
    return loaded


def _check_values(values: Tensor, what: str, path: Path) -> None:
    """Raise InputError for invalid values of labels, logits or thresholds."""
    wrong = (values != 0) & (values != 1) if what.endswith("labels") else values.isnan() | (values == torch.inf)
    if wrong.any():
        raise InputError(path, f"{what} with the value {values[wrong][0].item():g}", _VALUES, WAY_OUT)


def npy_stems(splits: Iterable[SplitAnnotations]) -> dict[str, str]:
    """Return the names of exported files by sample id: the feature id (as released) if unique, or the sample id."""
    samples = [pair for split in splits for pair in zip(split.sample_ids, split.feature_ids, strict=True)]
    counts = Counter(feature_id for _, feature_id in samples)
    return {sample_id: feature_id if counts[feature_id] == 1 else sample_id for sample_id, feature_id in samples}


def export_npy(pseudo: PseudoLabels, folder: Path, stems: Mapping[str, str], valor: bool = False) -> None:
    """Write labels, logits and thresholds in the released layout, named by `npy_stems`, and in VALOR's if `valor`."""
    subfolders, values = (*NPY_LABELS, *NPY_LOGITS), (*pseudo.labels.map(Tensor.float), *pseudo.logits)
    if valor:
        subfolders, values = (*subfolders, *VALOR_LABELS), (*values, *pseudo.labels.map(Tensor.long))
    for name, thresholds in zip(NPY_THRESHOLDS, pseudo.thresholds, strict=True):
        _save_npy(folder / name, thresholds.float())
    for subfolder, rows in zip(subfolders, values, strict=True):
        for sample_id, of_video in zip(pseudo.sample_ids, rows.split(pseudo.lengths.tolist()), strict=True):
            _save_npy(folder / subfolder / f"{stems[sample_id]}.npy", of_video)
            if stems[sample_id] != sample_id:  # reading would prefer the file of an earlier export
                (folder / subfolder / f"{sample_id}.npy").unlink(missing_ok=True)


def _save_npy(path: Path, values: Tensor) -> None:
    with atomic_write(path) as file:
        np.save(file, values.numpy())


def _load_npy(folder: Path, annotations: SplitAnnotations) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Load each modality's logits, labels and thresholds from the released layout."""
    loaded = []
    for logits_folder, labels_folder, name in zip(NPY_LOGITS, NPY_LABELS, NPY_THRESHOLDS, strict=True):
        thresholds = _read_npy(folder / name, "thresholds", (len(annotations.classes),), np.float64)
        labels = _read_videos(folder / labels_folder, "labels", annotations) == 1
        logits = _read_videos(folder / logits_folder, "logits", annotations)
        loaded.append((logits, labels, thresholds))
    return loaded


def _load_valor(folder: Path, annotations: SplitAnnotations) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Load VALOR's labels, which have no logits; the returned logits make soft labels equal to the hard ones."""
    thresholds = torch.zeros(len(annotations.classes), dtype=torch.float64)
    of_modalities = (_read_videos(folder / name, "labels", annotations) for name in VALOR_LABELS)
    return [(log_odds(labels), labels == 1, thresholds) for labels in of_modalities]


def log_odds(probs: Tensor) -> Tensor:
    """Return finite log-odds of probabilities of any shape, in place of a teacher's logits."""
    return torch.logit(probs).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)


def _read_videos(folder: Path, what: str, annotations: SplitAnnotations) -> Tensor:
    """Read the rows of all videos, (R, C) float32, from files named by sample or feature id."""

    def read(sample_id: str, feature_id: str, length: int) -> Tensor:
        path = folder / f"{sample_id}.npy"
        path = path if path.exists() else folder / f"{feature_id}.npy"
        return _read_npy(path, what, (length, len(annotations.classes)), np.float32)

    videos = (annotations.sample_ids, annotations.feature_ids, annotations.lengths.tolist())
    with ThreadPoolExecutor(8) as pool:
        return torch.cat(list(pool.map(read, *videos)))


def _read_npy(path: Path, what: str, shape: tuple[int, ...], dtype: type) -> Tensor:
    """Read a file of the released layout. Raises InputError for another shape and invalid values."""
    try:
        values = read_npy(path)
    except (OSError, ValueError) as error:
        raise InputError(path, f"no readable file ({error})", f"{what} of shape {shape}", WAY_OUT) from error
    if values.dtype.kind not in "fiub" or values.shape != shape:
        found = f"values of type {values.dtype} and shape {values.shape}"
        raise InputError(path, found, f"{what} as real numbers of shape {shape}", WAY_OUT)
    tensor = torch.from_numpy(values.astype(dtype))
    _check_values(tensor, what, path)
    return tensor
