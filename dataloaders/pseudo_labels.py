"""Segment-level pseudo-labels of stage 2: packed, one file a split, or in the released layout of `.npy` files."""

from collections import Counter
from collections.abc import Iterable, Mapping
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
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.files import atomic_write

# The released file name is misspelt; it is kept so that files can be exchanged.
NPY_THRESHOLDS = AudioVisual("a_classwise_threhsolds.npy", "v_classwise_threhsolds.npy")
NPY_LABELS = AudioVisual("a_segmentwise_pseudo_labels", "v_segmentwise_pseudo_labels")
NPY_LOGITS = AudioVisual("a_segmentwise_logits", "v_segmentwise_logits")
WAY_OUT = "Run pseudo_label_generation.py for this data set, or name the folder that holds its output."


@dataclass(frozen=True)
class PseudoLabels:
    """Pseudo-labels of one split: N videos, C classes, R rows (segments of consecutive videos)."""

    dataset: str
    classes: tuple[str, ...]  # (C,)
    sample_ids: tuple[str, ...]  # (N,)
    lengths: Tensor  # (N,) int64
    logits: AudioVisual[Tensor]  # (R, C) float32, of the teacher
    labels: AudioVisual[Tensor]  # (R, C) bool, hard pseudo-labels
    thresholds: AudioVisual[Tensor]  # (C,) float64, -inf: every segment is positive

    @property
    def class_frequencies(self) -> AudioVisual[Tensor]:
        """f_c: share of all segments whose hard pseudo-label has class c (paper Eq. 19), (C,) float32."""
        return self.labels.map(lambda labels: labels.float().mean(dim=0))

    def aligned(self, annotations: SplitAnnotations, where: Path) -> "PseudoLabels":
        """These pseudo-labels for exactly the annotated videos, in their order, and for the annotated classes.

        Raises:
            InputError: when they are of another data set, their first classes are others, they lack a video, or
                the tensors are none of labels, logits and thresholds.
        """
        num_classes = len(annotations.classes)
        videos = find_samples(annotations, self.dataset, self.classes, self.sample_ids, where, "pseudo-labels", WAY_OUT)
        _check_tensors(self, where)
        if not torch.equal(self.lengths[videos], annotations.lengths):
            raise InputError(where, "videos of other lengths", "the annotated numbers of segments", WAY_OUT)
        offsets = torch.cat([self.lengths.new_zeros(1), self.lengths.cumsum(0)])
        rows = segment_rows(offsets, videos)
        return replace(
            self,
            classes=annotations.classes,
            sample_ids=annotations.sample_ids,
            lengths=annotations.lengths,
            logits=self.logits.map(lambda logits: logits[rows, :num_classes]),
            labels=self.labels.map(lambda labels: labels[rows, :num_classes]),
            thresholds=self.thresholds.map(lambda thresholds: thresholds[:num_classes]),
        )


def save_pseudo_labels(pseudo: PseudoLabels, path: Path) -> None:
    """Write one split's pseudo-labels as a safetensors file, atomically."""
    tensors = {
        "lengths": pseudo.lengths,
        "audio_logits": pseudo.logits.audio,
        "visual_logits": pseudo.logits.visual,
        "audio_labels": pseudo.labels.audio,
        "visual_labels": pseudo.labels.visual,
        "audio_thresholds": pseudo.thresholds.audio,
        "visual_thresholds": pseudo.thresholds.visual,
    }
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
        InputError: when there are none, they do not fit the annotations, or they hold values that are none of labels,
            logits and thresholds.
    """
    path = folder / f"{annotations.split}.safetensors"
    if path.exists():
        pseudo = _load_packed(path).aligned(annotations, path)
        _check_absent_classes(pseudo, annotations, path)
        return pseudo
    if (folder / NPY_LABELS.audio).is_dir():
        pseudo = _load_npy(folder, annotations)
        _check_absent_classes(pseudo, annotations, folder)
        return pseudo
    raise InputError(
        folder,
        f"neither {path.name} nor a folder {NPY_LABELS.audio}/",
        f"the pseudo-labels of {annotations.dataset} {annotations.split}",
        WAY_OUT,
    )


def _load_packed(path: Path) -> PseudoLabels:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            pseudo = PseudoLabels(
                dataset=metadata["dataset"],
                classes=tuple(metadata["classes"].split("\n")),
                sample_ids=tuple(metadata["sample_ids"].split("\n")),
                lengths=file.get_tensor("lengths"),
                logits=AudioVisual("audio_logits", "visual_logits").map(file.get_tensor),
                labels=AudioVisual("audio_labels", "visual_labels").map(file.get_tensor),
                thresholds=AudioVisual("audio_thresholds", "visual_thresholds").map(file.get_tensor),
            )
    except PermissionError as error:
        raise InputError(path, "no permission to read it", "a readable file", "Give yourself permission.") from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(path, f"a damaged file ({error})", "pseudo-labels written by stage 2", WAY_OUT) from error
    return pseudo


def _check_tensors(pseudo: PseudoLabels, path: Path) -> None:
    """Types, shapes and values of a packed file's tensors."""

    def require(fits: bool | Tensor, found: str, expected: str) -> None:
        if not fits:
            raise InputError(path, found, expected, WAY_OUT)

    repeated = [f"{sample_id!r}" for sample_id, count in Counter(pseudo.sample_ids).items() if count > 1]
    require(not repeated, f"{len(repeated)} repeated ids, for instance {' '.join(repeated[:1])}", "each video once")
    num_videos, num_classes = len(pseudo.sample_ids), len(pseudo.classes)
    described = f"lengths of type {pseudo.lengths.dtype} and shape {tuple(pseudo.lengths.shape)}"
    fits = pseudo.lengths.dtype == torch.int64 and pseudo.lengths.shape == (num_videos,)
    require(fits, described, f"torch.int64 and ({num_videos},), one for each id")
    require((pseudo.lengths > 0).all(), "lengths of no or fewer segments", "at least one segment a video")

    shape = (sum(pseudo.lengths.tolist()), num_classes)  # in Python's integers, which do not overflow
    for pair, what, dtype, wanted in (
        (pseudo.logits, "logits", torch.float32, shape),
        (pseudo.labels, "labels", torch.bool, shape),
        (pseudo.thresholds, "thresholds", torch.float64, (num_classes,)),
    ):
        for modality, values in zip(("audio", "visual"), pair, strict=True):
            described = f"{modality} {what} of type {values.dtype} and shape {tuple(values.shape)}"
            require(values.dtype == dtype and values.shape == wanted, described, f"{dtype} and {wanted}")
            problem = _unfit(values, what)
            require(problem is None, f"{modality} {what} with {problem}", _VALUES[what])


_VALUES = {"logits": "finite values, or -inf for absent classes", "labels": "0 or 1", "thresholds": "finite or -inf"}


def _unfit(values: Tensor, what: str) -> str | None:
    """The first of the values that logits, labels or thresholds cannot have, in words; None when all fit."""
    if values.dtype == torch.bool:
        values = values.view(torch.uint8)
    wrong = (values != 0) & (values != 1) if what == "labels" else values.isnan() | (values == torch.inf)
    return f"the value {values[wrong][0].item():g}" if wrong.any() else None


def _check_absent_classes(pseudo: PseudoLabels, annotations: SplitAnnotations, where: Path) -> None:
    """Logits of -inf say that a class is absent: none of the classes that the video is labelled with."""
    present = annotations.video_labels.repeat_interleave(annotations.lengths, dim=0)  # (R, C)
    videos = torch.arange(annotations.num_videos).repeat_interleave(annotations.lengths)  # (R,)
    for modality, logits in zip(("audio", "visual"), pseudo.logits, strict=True):
        wrong = (logits == -torch.inf) & present
        if wrong.any():
            first = annotations.sample_ids[int(videos[wrong.any(dim=1)][0])]
            found = f"{modality} logits of -inf for a class of the video's label, for instance in {first}"
            raise InputError(where, found, _VALUES["logits"], WAY_OUT)


def npy_stems(splits: Iterable[SplitAnnotations]) -> dict[str, str]:
    """Names of the exported files by sample id: the feature id where it belongs to one sample of the splits alone.

    The released code opens `<feature id>.npy`. Samples that share a feature id, in one split or in two, would overwrite
    each other's files: theirs are named by sample.
    """
    samples = [pair for split in splits for pair in zip(split.sample_ids, split.feature_ids, strict=True)]
    counts = Counter(feature_id for _, feature_id in samples)
    return {sample_id: feature_id if counts[feature_id] == 1 else sample_id for sample_id, feature_id in samples}


def export_npy(pseudo: PseudoLabels, folder: Path, stems: Mapping[str, str]) -> None:
    """Write the released layout: one `.npy` a video for labels and for logits of each modality, and the thresholds.

    Args:
        stems: names of the videos' files by sample id, from `npy_stems`.
    """
    lengths = pseudo.lengths.tolist()

    def write_videos(subfolder: str, rows: Tensor) -> None:
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
        for sample_id, of_video in zip(pseudo.sample_ids, rows.to(torch.float32).split(lengths), strict=True):
            _save_npy(folder / subfolder / f"{stems[sample_id]}.npy", of_video)
            if stems[sample_id] != sample_id:  # reading would prefer the file of an earlier export by sample
                (folder / subfolder / f"{sample_id}.npy").unlink(missing_ok=True)

    NPY_LABELS.map(write_videos, pseudo.labels)
    NPY_LOGITS.map(write_videos, pseudo.logits)
    NPY_THRESHOLDS.map(
        lambda name, thresholds: _save_npy(folder / name, thresholds.to(torch.float32)), pseudo.thresholds
    )


def _save_npy(path: Path, values: Tensor) -> None:
    with atomic_write(path) as file:
        np.save(file, values.numpy())


def _load_npy(folder: Path, annotations: SplitAnnotations) -> PseudoLabels:
    """Read the released layout. Files are named by sample, or by feature id where the data set's ids are unique."""
    num_classes = len(annotations.classes)
    lengths = annotations.lengths.tolist()

    def thresholds(name: str) -> Tensor:
        values = _read_npy(folder / name, "class-wise thresholds")
        if values.shape != (num_classes,):
            expected = f"shape ({num_classes},), one for each class of {annotations.dataset}"
            raise InputError(folder / name, f"thresholds of shape {values.shape}", expected, WAY_OUT)
        return checked(values.astype(np.float64), folder / name, "thresholds")

    def checked(values: np.ndarray, path: Path, what: str) -> Tensor:
        tensor = torch.from_numpy(values)
        if problem := _unfit(tensor, what):
            raise InputError(path, f"{what} with {problem}", _VALUES[what], WAY_OUT)
        return tensor

    def rows(subfolder: str, what: str) -> Tensor:
        paths = [
            _npy_of_sample(folder / subfolder, sample_id, feature_id)
            for sample_id, feature_id in zip(annotations.sample_ids, annotations.feature_ids, strict=True)
        ]
        with ThreadPoolExecutor(8) as pool:
            videos = list(pool.map(lambda path: _read_npy(path, "pseudo-labels of one video"), paths))
        for path, values, length in zip(paths, videos, lengths, strict=True):
            if values.shape != (length, num_classes):
                expected = f"({length}, {num_classes}), segments by classes"
                raise InputError(path, f"shape {values.shape}", expected, WAY_OUT)
        return torch.cat(
            [checked(values.astype(np.float32), path, what) for path, values in zip(paths, videos, strict=True)]
        )  # (R, C)

    return PseudoLabels(
        dataset=annotations.dataset,
        classes=annotations.classes,
        sample_ids=annotations.sample_ids,
        lengths=annotations.lengths,
        logits=NPY_LOGITS.map(lambda subfolder: rows(subfolder, "logits")),
        labels=NPY_LABELS.map(lambda subfolder: rows(subfolder, "labels") == 1),
        thresholds=NPY_THRESHOLDS.map(thresholds),
    )


def _npy_of_sample(folder: Path, sample_id: str, feature_id: str) -> Path:
    by_sample = folder / f"{sample_id}.npy"
    return by_sample if by_sample.exists() else folder / f"{feature_id}.npy"


def _read_npy(path: Path, what: str) -> np.ndarray:
    try:
        values = read_npy(path)
    except PermissionError as error:
        raise InputError(path, "no permission to read it", what, "Give yourself permission.") from error
    except (OSError, ValueError) as error:
        found = "no such file" if not path.exists() else f"an unreadable file ({error})"
        raise InputError(path, found, what, WAY_OUT) from error
    if values.dtype.kind not in "fiub":
        raise InputError(path, f"values of type {values.dtype}", f"{what}, as real numbers", WAY_OUT)
    return values
