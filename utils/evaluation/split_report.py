"""The report of one split of one run (scores, tables, curves, predictions, timelines), and of its training."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from dataloaders.annotations import SplitAnnotations
from utils.audio_visual import MODALITIES, AudioVisual
from utils.errors import InputError
from utils.evaluation.predictions import Predictions, save_predictions
from utils.evaluation.tasks import SELECTABLE, Events, Parsing, Scores, find_task
from utils.files import write_text
from utils.method.average_precision import scored_spans
from utils.method.metrics import label_confusion
from utils.reporting.precision_recall import average_precision_table, precision_recall_curves
from utils.reporting.tables import confusion_table, write_table
from utils.training.checkpoints import load_checkpoint
from utils.training.events import write_scalars
from utils.training.loop import LAST_STATE

STATES = ("audible only", "visible only", "both", "neither")  # of a class in a segment
NO_LOSSES = ("gradient_norm", "learning_rate", "train_seconds", "validation_seconds")  # in the history of a run


def report_split(
    folder: Path, kept: Predictions, segments_per_second: int, note: str, unimodal: bool, curves: bool
) -> Scores:
    """Write the tables, predictions and `curves` of a split, and return its scores, with those of `unimodal` events."""
    task, split, classes = find_task(kept.dataset), kept.split, kept.classes
    prediction, truth = (pair.map(torch.from_numpy) for pair in (kept.events, kept.truth))
    scores = task.score(prediction, truth)
    if unimodal:
        scores |= task.unimodal_scores(prediction, truth)
    write_scalars(folder, {f"{split}/{metric}": value for metric, value in scores.items()})
    task.write_class_reports(folder, split, prediction, truth, classes, note)
    of_classes = precision_recall_curves(kept.probs.segments, kept.truth, kept.probs.lengths, task.curves)
    heading = f"{folder.name}, {split}"
    table = average_precision_table(of_classes, classes, f"{heading}: average precision per class", note)
    write_table(folder / f"average_precision_{split}.csv", table)
    if is_parsing := isinstance(task, Parsing):
        confusion = modality_confusion(prediction, truth, torch.from_numpy(kept.probs.lengths))
        path = folder / f"confusion_modalities_{split}.csv"
        write_table(path, confusion_table(confusion, STATES, heading, note, shares=True))
    if curves:
        from utils.reporting.figures import confusion_matrix_figure, precision_recall_figure  # slow: matplotlib

        marked = f"{heading} ({note})" if note else heading
        precision_recall_figure(folder / f"pr_curves_{split}.png", of_classes, classes, marked)
        if is_parsing:
            title = f"{marked}\nsegments, summed over classes"
            confusion_matrix_figure(path.with_suffix(".png"), confusion.numpy(), STATES, title)
    save_predictions(folder, kept)
    write_activitynet(folder / f"activitynet_{split}.json", kept, segments_per_second, note)
    return scores


def modality_confusion(prediction: Events, truth: Events, lengths: torch.Tensor) -> torch.Tensor:
    """Count the segments of all classes by true (row) and predicted `STATES`, (4, 4) int64, without padding."""
    valid = torch.arange(truth.audio.shape[1]) < lengths[:, None]  # (N, T)
    states = [(events.audio + 2 * events.visual.long() - 1)[valid] % 4 for events in (prediction, truth)]
    return label_confusion(*states, len(STATES))


def draw_training(folder: Path, run_dir: Path, note: str) -> None:
    """Draw losses and validation scores over epochs from the last state of a training run, if it was kept."""
    from utils.reporting.figures import Series, curve_figure  # matplotlib is slow to import

    try:
        progress = load_checkpoint(run_dir / LAST_STATE)["progress"]
    except (InputError, KeyError):  # without it, or with a damaged one, a run can still be evaluated
        return
    title = f"{folder.name}, kept epoch {progress['best_epoch']}" + (f" ({note})" if note else "")
    curves = {name: [epoch.get(name, math.nan) for epoch in progress["history"]] for name in progress["history"][-1]}
    scores = [name for name in SELECTABLE if name in curves]
    losses = [name for name in curves if name not in (*scores, *NO_LOSSES)]
    for kind, shown, label in (("losses", losses, "Loss"), ("scores", scores, "Score on val (%)")):
        epochs = range(1, len(progress["history"]) + 1)
        series = [Series(name.replace("_", " "), epochs, curves[name]) for name in shown]
        curve_figure(folder / f"training_{kind}.png", series, [], "Epoch", label, title)


def write_activitynet(path: Path, kept: Predictions, segments_per_second: int, note: str) -> None:
    """Write events in ActivityNet's format of predictions: label, segment in seconds, mean probability, modality."""
    results: dict[str, list[dict]] = {sample_id: [] for sample_id in kept.sample_ids}
    for modality, events, probs in zip(MODALITIES, kept.events, kept.probs.segments, strict=True):
        spans = scored_spans([torch.from_numpy(events)], torch.from_numpy(probs))
        columns = spans.video, spans.label, spans.times / segments_per_second, spans.score
        for n, c, segment, score in zip(*(column.tolist() for column in columns), strict=True):
            found = {"label": kept.classes[c], "segment": segment, "score": round(score, 4), "modality": modality}
            results[kept.sample_ids[n]].append(found)
    content = {"version": "1.3", "results": results, "external_data": {"note": note}}
    write_text(path, json.dumps(content, ensure_ascii=False) + "\n")


def draw_timelines(folder: Path, annotations: SplitAnnotations, kept: Predictions, videos: Sequence[int]) -> None:
    """Draw one figure for each video: ground truth above prediction."""
    from utils.reporting.figures import Timeline, timeline_figure  # matplotlib is slow to import

    for n in videos:
        sample_id, length = annotations.sample_ids[n], int(annotations.lengths[n])
        truth, prediction = (
            Timeline(name, AudioVisual(events.audio[n, :length], events.visual[n, :length]))
            for name, events in (("Truth", kept.truth), ("Prediction", kept.events))
        )
        path, video_labels = folder / f"{sample_id}.png", annotations.video_labels[n].numpy()
        timeline_figure(path, sample_id, annotations.classes, truth, [prediction], video_labels)


def chosen_videos(sample_ids: tuple[str, ...], names: Sequence[str], number: int) -> list[int]:
    """Return the indices of the named videos of a split, or of `number` videos spread evenly over it."""

    if names:
        return [n for n, sample_id in enumerate(sample_ids) if sample_id in names]
    return torch.linspace(0, len(sample_ids) - 1, min(number, len(sample_ids))).long().tolist()
