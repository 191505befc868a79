"""The report of one split of one run: scores, per-class tables, precision-recall curves, predictions, timelines."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from dataloaders.annotations import SplitAnnotations
from utils.audio_visual import MODALITIES, AudioVisual
from utils.evaluation.predictions import Predictions, save_predictions
from utils.evaluation.tasks import Scores, find_task
from utils.files import write_text
from utils.method.average_precision import scored_spans
from utils.reporting.precision_recall import average_precision_table, precision_recall_curves
from utils.reporting.tables import write_table
from utils.training.events import write_scalars


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
    if curves:
        from utils.reporting.figures import precision_recall_figure  # matplotlib is slow to import

        marked = f"{heading} ({note})" if note else heading
        precision_recall_figure(folder / f"pr_curves_{split}.png", of_classes, classes, marked)
    save_predictions(folder, kept)
    write_activitynet(folder / f"activitynet_{split}.json", kept, segments_per_second, note)
    return scores


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
