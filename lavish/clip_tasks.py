"""Clip classification: losses, predictions, scores and tables.

B clips, T segments, C classes; labels are (B,) with logits (B, C), or (B, T) with logits (B, T, C).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavish.clip_batches import ClipBatch, ClipBatches
from lavish.lavish_network import ClipOutput
from utils.reporting.published import published_methods, published_scores
from utils.reporting.tables import Cell, Column, Row, ScoreRow, Table, accuracy_table
from utils.training.device import Precision

LAVISH_ON_AVE = 81.1  # percent, from LAVISH's paper; users of the released code report 78.8
SplitScores = Mapping[str, Mapping[str, float]]  # of one run, by split and name, in percent
# Model, split, scores of each run by name (percent), numbers of trained and of all parameters, note.
ClassifierRow = tuple[str, str, Sequence[Mapping[str, float]], tuple[int, int], str]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the mean cross-entropy over all labels: a scalar."""
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten())


def binary_cross_entropy_of_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the mean binary cross-entropy of softmax probabilities and one-hot labels (released code): a scalar."""
    log_probs = logits.log_softmax(dim=-1)
    others = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    # log(1 - p) from the logits of all other classes, which does not round to -infinity
    without = logits.unsqueeze(-2).masked_fill(others, -torch.inf).logsumexp(dim=-1)  # (..., C)
    log_not = without - logits.logsumexp(dim=-1, keepdim=True)
    targets = F.one_hot(labels, logits.shape[-1]).to(logits.dtype)
    return -(targets * log_probs + (1 - targets) * log_not).mean()


LOSSES = {"cross_entropy": cross_entropy, "binary": binary_cross_entropy_of_softmax}


def top_k_accuracy(logits: Tensor, labels: Tensor, k: int) -> float:
    """Return the percentage of labels that are among the k most probable classes."""
    best = logits.topk(min(k, logits.shape[-1]), dim=-1).indices
    return 100 * (best == labels.unsqueeze(-1)).any(dim=-1).double().mean().item()


@dataclass(frozen=True)
class ClipPredictions:
    """Predictions for the N clips of a split, on the CPU. T segments, C classes."""

    logits: Tensor  # (N, C) or (N, T, C)
    features: Tensor  # (N, D) or (N, T, D), input of the classification head
    labels: Tensor  # (N,) or (N, T)


def classify(network: nn.Module, batch: ClipBatch, precision: Precision) -> ClipOutput:
    """Compute the output for a batch, from its cached features if there are any."""
    if batch.features is not None:
        return precision.run(network.classify, batch.features)
    return precision.run(network, batch.frames, batch.sound)


@torch.inference_mode()
def predict_clips(
    network: nn.Module, batches: ClipBatches, batch_size: int, precision: Precision, without: str | None = None
) -> ClipPredictions:
    """Return a network's predictions for a split; the modality in `without` is replaced by its mean, 0."""
    network.eval()
    logits, features = [], []
    for batch in batches.in_order(batch_size):
        if without == "audio":
            batch.sound = torch.zeros_like(batch.sound)
        if without == "visual":
            batch.frames = torch.zeros_like(batch.frames)
        output = classify(network, batch, precision)
        logits.append(output.logits.cpu())
        features.append(output.features.cpu())
    return ClipPredictions(torch.cat(logits), torch.cat(features), batches.split.labels)


@torch.inference_mode()
def keep_features(network: nn.Module, batches: ClipBatches, batch_size: int, precision: Precision) -> None:
    """Encode a split once with a network that is frozen below its head, and cache the features in the batches."""
    network.eval()
    with precision.context():
        features = [network.encode(batch.frames, batch.sound).float() for batch in batches.in_order(batch_size)]
    batches.features = torch.cat(features).clone()


@dataclass(frozen=True)
class ClipTask:
    """Classification task of a data set, and what depends on its splits."""

    accuracies: Mapping[str, int]  # k of each top-k accuracy by name; the first one selects the best epoch
    unit: str  # what is classified, in the plural
    pools_time: bool  # whether frames are pooled into one prediction per clip
    holds_out: bool  # whether the validation split is held out from the official training list
    chooses_sound: bool  # whether clips without audio are left out by design, which is not an error

    @property
    def best_metric(self) -> str:
        return next(iter(self.accuracies))

    def score(self, predictions: ClipPredictions) -> dict[str, float]:
        """Return the accuracies by name, in percent."""
        return {name: top_k_accuracy(predictions.logits, predictions.labels, k) for name, k in self.accuracies.items()}


TASKS = {
    "AVE": ClipTask({"accuracy": 1}, "seconds", pools_time=False, holds_out=False, chooses_sound=False),
    "UCF101": ClipTask({"top1": 1, "top5": 5}, "clips", pools_time=True, holds_out=True, chooses_sound=True),
}


def score_table(dataset: str, name: str, scores: SplitScores, parameters: tuple[int, int], note: str) -> Table:
    """Return the table of a run's scores and parameters; for AVE as in UWAV's Table 2, marked as supervised."""
    if dataset == "UCF101":
        rows = [(name, split, [of_split], parameters, note) for split, of_split in scores.items()]
        return classifier_table("Classification of clips, lists of UCF-101", {"top1": "top-1", "top5": "top-5"}, rows)
    of_run = f"supervised, {note}" if note else "supervised"
    rows = [ScoreRow(name, split, [of_split], of_run) for split, of_split in scores.items()]
    for method in published_methods("table2_ave_accuracy"):
        published = published_scores("table2_ave_accuracy", method)
        rows.append(ScoreRow(str(method), "test", [published], "published, weakly supervised"))
    rows.append(ScoreRow("LAVISH", "test", [{"accuracy": LAVISH_ON_AVE}], "published, supervised"))
    trained, total = (number / 1e6 for number in parameters)
    notes = [f"{name}: {trained:.2f} M of {total:.2f} M parameters are trained."]
    return accuracy_table("Audio-visual event localisation on AVE (paper Table 2)", rows, notes)


def classifier_table(title: str, scores: Mapping[str, str], rows: Sequence[ClassifierRow]) -> Table:
    """Return a table of scores (name: heading) with trained and all parameters, as in LAVISH's tables."""
    lines = []
    for model, split, runs, parameters, note in rows:
        cells = [Cell.over_runs([run[name] for run in runs]) for name in scores]
        cells += [Cell(number / 1e6) for number in parameters]
        lines.append(Row((model, split), tuple(cells), note))
    columns = [Column(heading) for heading in scores.values()]
    columns += [Column(name, "M parameters", 2) for name in ("trained", "all")]
    return Table(title, ("Model", "Split"), tuple(columns), tuple(lines), ("Scores in percent.",))
