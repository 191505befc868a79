"""MA's exchange, which removes labels of a video that are wrong for a modality (Wu and Yang, CVPR 2021).

The base model parses a video's audio together with the visual features of an unrelated video, and the reverse. An event
that it then predicts in neither modality is absent from the modality that was kept. N videos, C classes.
"""

import io
import pickle
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import SplitBatches
from dataloaders.datasets import DATASETS
from dataloaders.records import load_record, save_record
from models import HAN
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.files import atomic_write
from utils.training.device import Precision

FILE = "cleaned_labels.safetensors"
RELEASED_FILE = "need_to_change.pkl"  # of the released code
WAY_OUT = "Run python -m baselines.ma.find_exchange for this data set, or pass the folder of its output."


def unrelated_videos(labels: Tensor, generator: torch.Generator, rows: int = 512) -> Tensor:
    """Draw a video without a common label for each video, -1 if there is none: (N, C) bool -> (N,) int64 on the CPU."""
    as_numbers, partners = labels.float(), []
    for part in as_numbers.split(rows):  # limits the memory to rows x N
        unrelated = (part @ as_numbers.T == 0).float()  # (rows, N)
        some = unrelated.any(dim=1)
        unrelated[~some] = 1  # multinomial needs a positive weight
        drawn = torch.multinomial(unrelated, 1, generator=generator).squeeze(1)  # (rows,)
        partners.append(torch.where(some, drawn, -1))
    return torch.cat(partners)


def error_rates(probs: Tensor, labels: Tensor) -> Tensor:
    """Compute each class's error rate relative to that of the worst class: (N, C), (N, C) bool -> (C,) in [0, 1].

    The error rate is the share of videos whose pooled probability is on the wrong side of 0.5 (`estimate_label` of the
    released code). Without errors all rates are 0, and no label is removed.
    """
    errors = ((probs > 0.5) != labels).double().mean(dim=0)  # (C,)
    return (errors / errors.amax()).nan_to_num(0).to(probs)


def absent_labels(modality_probs: AudioVisual[Tensor], rates: Tensor) -> Tensor:
    """Return the classes absent from both modalities, p / r < 0.5 with r of the kept one: (B, C), (C,) -> (B, C)."""
    return (modality_probs.audio < rates / 2) & (modality_probs.visual < rates / 2)  # without errors, r = 0


def given_back(left: AudioVisual[Tensor], labels: Tensor) -> AudioVisual[Tensor]:
    """Return the labels kept for each modality, (N, C) bool, restoring labels that were removed from both."""
    neither = labels & ~left.audio & ~left.visual
    return AudioVisual(left.audio | neither, left.visual | neither)


@torch.inference_mode()
def exchange_modalities(
    model: HAN, split: SplitBatches, partners: Tensor, rates: AudioVisual[Tensor], batch_size: int, precision: Precision
) -> AudioVisual[Tensor]:
    """Return the labels kept for each modality of a split, (N, C) bool; videos whose partner is -1 keep all labels."""
    model.eval()
    labels = split.annotations.video_labels
    left = AudioVisual(labels.clone(), labels.clone())
    with_partner = (partners >= 0).nonzero().squeeze(1)  # (K,)
    batches = split.of_videos(with_partner, batch_size)
    for batch, partner in zip(batches, split.of_videos(partners[with_partner], batch_size), strict=True):
        audio_kept = precision.run(model, batch.features.audio, partner.features.visual)
        visual_kept = precision.run(model, partner.features.audio, batch.features.visual)
        videos = batch.videos.cpu()
        left.audio[videos] &= ~absent_labels(audio_kept.modality_probs, rates.audio).cpu()
        left.visual[videos] &= ~absent_labels(visual_kept.modality_probs, rates.visual).cpu()
    return left


def save_cleaned_labels(labels: AudioVisual[Tensor], annotations: SplitAnnotations, folder: Path) -> None:
    """Write the labels kept for each modality, (N, C) bool, to `cleaned_labels.safetensors`."""
    tensors = {"audio_labels": labels.audio, "visual_labels": labels.visual}
    save_record(folder / FILE, tensors, annotations.dataset, annotations.classes, annotations.sample_ids)


def load_cleaned_labels(folder: Path, annotations: SplitAnnotations) -> AudioVisual[Tensor]:
    """Read the cleaned labels of the annotated videos and classes, (N, C) bool, or raise InputError."""
    num_classes = len(annotations.classes)
    if (folder / RELEASED_FILE).is_file() and not (folder / FILE).exists():
        return load_released_labels(folder / RELEASED_FILE, annotations)
    record = load_record(folder / FILE, annotations.dataset, annotations.classes, WAY_OUT)
    videos = record.find(annotations)
    shape = (len(record.sample_ids), len(record.classes))
    names = AudioVisual("audio_labels", "visual_labels")
    left = names.map(lambda name: record.get(name, torch.bool, *shape)[videos, :num_classes])
    either = left.audio | left.visual
    if (added := (either & ~annotations.video_labels).any(dim=1)).any():
        first = annotations.sample_ids[int(added.nonzero()[0])]
        found = f"labels that the annotations lack, for instance in {first}"
        raise record.error(found, "labels cleaned from these annotations")
    if not either.any():
        raise record.error("no label at all", "labels kept by an exchange")
    return left


def export_cleaned_labels(left: AudioVisual[Tensor], labels: Tensor, folder: Path) -> None:
    """Write `need_to_change.pkl` from the labels kept for LLP's training videos and their labels, (N, C) bool each."""
    both = (labels & ~left.visual, labels & ~left.audio)
    removed = [[rows.nonzero().flatten().tolist() for rows in of_modality.T] for of_modality in both]
    with atomic_write(folder / RELEASED_FILE) as file:
        pickle.dump(removed, file)


class _Tensors(pickle.Unpickler):
    """Unpickler of lists, numbers and tensors that refuses anything that could run code."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return torch._utils._rebuild_tensor_v2
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return lambda content: torch.load(io.BytesIO(content), weights_only=True)
        raise pickle.UnpicklingError(f"{module}.{name}, which is not a tensor")


def load_released_labels(path: Path, annotations: SplitAnnotations) -> AudioVisual[Tensor]:
    """Read the labels kept for each modality, (N, C) bool, from a file of the released second stage.

    For visual, then audio, and each class, it lists the rows of LLP's training file whose label is removed. Raises
    InputError if it contains anything but lists and tensors, or rows without the label.
    """
    labels, num_classes = annotations.video_labels, len(annotations.classes)
    left = AudioVisual(labels.clone(), labels.clone())
    expected = f"two lists of {len(DATASETS['LLP'].classes)} lists of rows of the {len(labels)} training videos"
    try:
        with open(path, "rb") as file:
            visual, audio = _Tensors(file).load()
        for of_modality, removed in ((left.visual, visual), (left.audio, audio)):
            if len(removed) != len(DATASETS["LLP"].classes):
                raise ValueError(f"{len(removed)} classes")
            for c, rows in enumerate(removed[:num_classes]):
                rows = torch.tensor([int(row) for row in rows], dtype=torch.int64)
                if not of_modality[rows, c].all():
                    raise ValueError(f"rows without the label {annotations.classes[c]}, or twice")
                of_modality[rows, c] = False
    except Exception as error:  # a damaged or foreign pickle may raise anything
        raise InputError(path, f"no readable exchange ({error})", expected, WAY_OUT) from error
    return left
