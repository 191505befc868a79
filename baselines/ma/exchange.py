"""MA's exchange: which labels of a video does each modality not show (Wu and Yang, CVPR 2021)?

A model hears a video's own sound beside the pictures of an unrelated video, and sees its pictures beside the sound of
one. An event that it then finds nowhere is not in the modality that was kept. N videos, C classes.
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
WAY_OUT = "Run python -m baselines.ma.find_exchange for this data set, or name the folder that holds its output."


def unrelated_videos(labels: Tensor, generator: torch.Generator, rows: int = 512) -> Tensor:
    """Return for each video another one, drawn among those without a common label; -1 where there is none.

    Args:
        labels: (N, C) bool, on the CPU.
        generator: on the CPU.
        rows: videos at a time, which bounds the memory: rows x N.

    Returns:
        (N,) int64
    """
    as_numbers = labels.float()
    partners = []
    for part in as_numbers.split(rows):
        unrelated = (part @ as_numbers.T == 0).float()  # (rows, N)
        some = unrelated.any(dim=1)
        unrelated[~some] = 1  # multinomial wants a positive weight
        drawn = torch.multinomial(unrelated, 1, generator=generator).squeeze(1)  # (rows,)
        partners.append(torch.where(some, drawn, -1))
    return torch.cat(partners)


def error_rates(probs: Tensor, labels: Tensor) -> Tensor:
    """Return how often each class is decided wrongly, over the worst class: (N, C), (N, C) bool -> (C,) in [0, 1].

    The error of a class is the share of all videos whose pooled probability is on the wrong side of 0.5. Where no
    decision is wrong at all, every rate is 0, and no label is removed (`estimate_label` of the released code).
    """
    errors = ((probs > 0.5) != labels).double().mean(dim=0)  # (C,)
    return (errors / errors.amax()).nan_to_num(0).to(probs)


def absent_labels(modality_probs: AudioVisual[Tensor], rates: Tensor) -> Tensor:
    """Return the classes that neither modality shows after the exchange: p / r < 0.5 in both, (B, C) bool.

    It is computed as p < r / 2, since a class that is never decided wrongly has r = 0.

    Args:
        modality_probs: (B, C) pooled over time, with one modality exchanged.
        rates: (C,), from `error_rates`, of the modality that was kept.
    """
    return (modality_probs.audio < rates / 2) & (modality_probs.visual < rates / 2)


def given_back(left: AudioVisual[Tensor], labels: Tensor) -> AudioVisual[Tensor]:
    """Return the labels left to each modality, with those that were removed from both given back to both: (N, C)."""
    neither = labels & ~left.audio & ~left.visual
    return AudioVisual(left.audio | neither, left.visual | neither)


@torch.inference_mode()
def exchange_modalities(
    model: HAN,
    split: SplitBatches,
    partners: Tensor,
    rates: AudioVisual[Tensor],
    batch_size: int,
    precision: Precision,
) -> AudioVisual[Tensor]:
    """Return the labels that are left to each modality of a split, (N, C) bool.

    Args:
        model: MA's base model.
        partners: (N,), from `unrelated_videos`; a video without a partner keeps its labels.
        rates: (C,) of each modality, from `error_rates`.
    """
    model.eval()
    labels = split.annotations.video_labels
    left = AudioVisual(labels.clone(), labels.clone())
    with_partner = (partners >= 0).nonzero().squeeze(1)  # (K,)
    batches = split.of_videos(with_partner, batch_size)
    for batch, partner in zip(batches, split.of_videos(partners[with_partner], batch_size), strict=True):
        heard = precision.run(model, batch.features.audio, partner.features.visual)
        seen = precision.run(model, partner.features.audio, batch.features.visual)
        videos = batch.videos.cpu()
        left.audio[videos] &= ~absent_labels(heard.modality_probs, rates.audio).cpu()
        left.visual[videos] &= ~absent_labels(seen.modality_probs, rates.visual).cpu()
    return left


def save_cleaned_labels(labels: AudioVisual[Tensor], annotations: SplitAnnotations, folder: Path) -> None:
    """Write the labels that are left of the annotated ones, (N, C) bool, to `cleaned_labels.safetensors`."""
    tensors = {"audio_labels": labels.audio, "visual_labels": labels.visual}
    save_record(folder / FILE, tensors, annotations.dataset, annotations.classes, annotations.sample_ids)


def load_cleaned_labels(folder: Path, annotations: SplitAnnotations) -> AudioVisual[Tensor]:
    """Read the cleaned labels of exactly the annotated videos and classes, in their order: (N, C) bool.

    Raises:
        InputError: when there are none, they are of other data, they lack a video, or they have an event that the
            video's label lacks.
    """
    num_classes = len(annotations.classes)
    if (folder / RELEASED_FILE).is_file() and not (folder / FILE).exists():
        return load_released_labels(folder / RELEASED_FILE, annotations)
    record = load_record(folder / FILE, annotations.dataset, annotations.classes, WAY_OUT)
    videos = record.find(annotations)
    shape = (len(record.sample_ids), len(record.classes))
    audio = record.get("audio_labels", torch.bool, *shape)[videos, :num_classes]
    visual = record.get("visual_labels", torch.bool, *shape)[videos, :num_classes]
    added = ((audio | visual) & ~annotations.video_labels).any(dim=1)  # (N,)
    if added.any():
        first = annotations.sample_ids[int(added.nonzero()[0])]
        found = f"events that the videos' labels lack, for instance in {first}"
        raise record.error(found, "labels cleaned from these annotations")
    if not (audio | visual).any():
        raise record.error("no label at all", "labels that an exchange has left")
    return AudioVisual(audio, visual)


def export_cleaned_labels(left: AudioVisual[Tensor], labels: Tensor, folder: Path) -> None:
    """Write `need_to_change.pkl` from the labels that are left, (N, C) bool, of all of LLP's training videos (N, C)."""
    both = (labels & ~left.visual, labels & ~left.audio)
    removed = [[rows.nonzero().flatten().tolist() for rows in of_modality.T] for of_modality in both]
    with atomic_write(folder / RELEASED_FILE) as file:
        pickle.dump(removed, file)


class _Tensors(pickle.Unpickler):
    """Reads lists, numbers and tensors, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return torch._utils._rebuild_tensor_v2
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return lambda content: torch.load(io.BytesIO(content), weights_only=True)
        raise pickle.UnpicklingError(f"{module}.{name}, which is no tensor")


def load_released_labels(path: Path, annotations: SplitAnnotations) -> AudioVisual[Tensor]:
    """Read what the released second stage writes: of visual and audio, for each class the rows whose label goes.

    Returns:
        the labels that are left, (N, C) bool; rows are those of LLP's training file, in its order.

    Raises:
        InputError: when it holds anything but lists and tensors, or rows that have no such label.
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
    except Exception as error:  # whatever a damaged or foreign pickle makes Python raise
        raise InputError(path, f"no readable exchange ({error})", expected, WAY_OUT) from error
    return left
