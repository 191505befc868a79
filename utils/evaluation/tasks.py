"""The tasks of stages 2 to 4: audio-visual video parsing (LLP) and audio-visual event localisation (AVE).

A task defines how events are decoded and scored, which score selects the best checkpoint, how thresholds are searched,
and how tables are laid out. A data set's row in `dataloaders.datasets` names its task and published tables.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from logging import Logger
from pathlib import Path

import torch
from torch import Tensor

from dataloaders.annotations import SplitAnnotations
from dataloaders.datasets import DATASETS, Dataset
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.inference import SplitOutput, pad_rows
from utils.method import metrics
from utils.method.decoding import DecodingSettings, decode_segments, decode_segments_by_modality, decode_single_event
from utils.method.thresholds import accuracy_thresholds, class_agnostic_threshold, classwise_thresholds
from utils.reporting import tables
from utils.reporting.published import published_methods, published_scores, table_number

MEAN, UNIMODAL = "mean", "unimodal_"

Events = AudioVisual[Tensor]  # audible and visible events, (N, T, C) bool
Scores = dict[str, float]  # percent by name
RunScores = dict[str, Scores]  # of one run, by split


def true_events(annotations: SplitAnnotations, device: torch.device) -> Events:
    """Return the segment-level ground truth of a split that has one, without events in padding."""
    return annotations.labels.map(lambda rows: pad_rows(rows, annotations.lengths).to(device))


@dataclass(frozen=True)
class _Scored:
    """The tables of both tasks."""

    dataset: Dataset

    def score_table(self, name: str, runs: Sequence[RunScores], note: str, methods: Sequence[str]) -> tables.Table:
        """Return the table of the runs' scores, marked with `note`, and the published scores of `methods`."""
        published = self.dataset.published_scores
        rows = [tables.ScoreRow(name, split, [run[split] for run in runs], note) for split in runs[0]]
        for method in [name for name in published_methods(published) if name in methods]:
            rows.append(tables.ScoreRow(method, "test", [published_scores(published, method)], "published"))
        return self.layout(self.titled(self.title, published), rows)

    def quality_table(self, method: str, scores: RunScores, note: str, segments_per_second: int = 1) -> tables.Table:
        """Return the table of the pseudo-labels' scores on each split, with those in the paper if it has any."""
        published = self.dataset.published_quality if segments_per_second == 1 else None
        name = f"{method} pseudo-labels"
        rows = [tables.ScoreRow(name, split, [of_split], note) for split, of_split in scores.items()]
        printed = published_methods(published)
        for other in [other for other in printed if other == method or method not in printed]:
            rows.append(tables.ScoreRow(other, "test", [published_scores(published, other)], "published"))
        return self.layout(self.titled("Quality of the pseudo-labels", published), rows, self.quality_notes)

    def titled(self, text: str, published: str | None) -> str:
        """Return the title of a table on the data set, with the number of the paper's table of the same scores."""
        return f"{text} on {self.dataset.name}" + (f" (paper {table_number(published)})" if published else "")


@dataclass(frozen=True)
class Parsing(_Scored):
    """Parsing into any number of events, audible and visible separately; segment- and event-level F-scores."""

    title, layout, quality_notes = "Audio-visual video parsing", staticmethod(tables.parsing_table), ()
    curves = tables.MODALITY_NAMES  # of precision over recall
    best_metric = "segment_Type"  # selects checkpoint_best.pt
    # Scores that can select it: F-scores, those on audible-only and visible-only events, and the mean of either ten.
    selectable = (*metrics.F_SCORE_NAMES, MEAN, *(UNIMODAL + name for name in metrics.F_SCORE_NAMES), UNIMODAL + MEAN)
    # Columns of `per_video_scores`.
    score_names = tuple((level, name) for level in tables.LEVELS for name in metrics.SCORE_NAMES)

    def decode(self, output: SplitOutput, settings: DecodingSettings, visual_gates: Tensor | None = None) -> Events:
        """Return predicted events of a split; `visual_gates`, (C,), replace the visual gate shared by all classes."""
        threshold, gate = settings.segment_threshold, settings.gate_threshold
        if settings.decoding == "video":
            return decode_segments(output.logits, output.video_probs, threshold, gate, settings.inclusive)
        around, gates = output.modality_probs, AudioVisual(gate, gate if visual_gates is None else visual_gates)
        if settings.decoding == "audio_by_video":
            around = AudioVisual(output.video_probs, around.visual)
        return decode_segments_by_modality(output.logits, around, threshold, gates)

    def score(self, prediction: Events, truth: Events) -> Scores:
        """Return ten F-scores named segment_A to event_Event."""
        return metrics.named_scores(metrics.parsing_scores(prediction, truth))

    def unimodal_scores(self, prediction: Events, truth: Events) -> Scores:
        """Return the ten F-scores on audible-only and visible-only events, named unimodal_segment_A and so on."""
        named = metrics.named_scores(metrics.unimodal_scores(prediction, truth))
        return {UNIMODAL + name: score for name, score in named.items()}

    def selection_score(self, name: str, prediction: Events, truth: Events) -> float:
        """Return a score of `selectable`; means are over the ten F-scores."""
        prefix = UNIMODAL if name.startswith(UNIMODAL) else ""
        named = self.unimodal_scores(prediction, truth) if prefix else self.score(prediction, truth)
        if name == prefix + MEAN:
            return statistics.fmean(named[prefix + n] for n in metrics.F_SCORE_NAMES)
        return named[name]

    def per_video_scores(self, prediction: Events, truth: Events) -> Tensor:
        """Return each video's scores in percent, which average to those of the split: (N, 10)."""
        levels = []
        for level in metrics.LEVEL_NAMES:
            scores = metrics.per_video_f_scores(prediction, truth, level)  # (N, 4)
            audio, visual, audio_visual, event = scores.unbind(dim=1)
            levels += [audio, visual, audio_visual, metrics.type_at_av(audio, visual, audio_visual), event]
        return 100 * torch.stack(levels, dim=1)

    def search_thresholds(
        self, logits: AudioVisual[Tensor], annotations: SplitAnnotations, class_wise: bool, jointly: bool, log: Logger
    ) -> AudioVisual[Tensor]:
        """Return the thresholds of the best F1 on val, (C,) float64, searched for each modality separately."""

        def search(of_modality: Tensor, true: Tensor) -> Tensor:
            scored = (of_modality, true, annotations.video_labels)
            thresholds = class_agnostic_threshold(*scored).thresholds.expand(len(annotations.classes)).clone()
            if class_wise:
                found = classwise_thresholds(*scored)
                lacking = found.f1.isnan()  # (C,)
                _warn_of_classes(log, lacking, annotations.classes, "no positive validation segment")
                thresholds = torch.where(lacking, thresholds, found.thresholds)
            return thresholds

        return logits.map(search, true_events(annotations, torch.device("cpu")))

    def unimodal_table(self, name: str, runs: Sequence[RunScores], note: str) -> tables.Table:
        """Return the table of F-scores on audible-only and visible-only events, with the arguments of `score_table`."""
        rows = []
        for split in [split for split, scores in runs[0].items() if UNIMODAL + metrics.F_SCORE_NAMES[0] in scores]:
            scores = [{n: run[split][UNIMODAL + n] for n in metrics.F_SCORE_NAMES} for run in runs]
            rows.append(tables.ScoreRow(name, split, scores, note))
        notes = ["A: audible and not visible; V: visible and not audible; AV: both; Event pools A and V."]
        return tables.parsing_table(self.titled("Events in one modality alone", None), rows, notes)

    def write_class_reports(
        self, folder: Path, split: str, prediction: Events, truth: Events, classes: tuple[str, ...], note: str
    ) -> None:
        """Write class-wise F-scores and support to a run's folder."""
        heading = f"{folder.name}, {split}: F-scores and support per class"
        table = tables.per_class_scores(prediction, truth, classes, heading, note)
        tables.write_table(folder / f"per_class_{split}.csv", table)


@dataclass(frozen=True)
class Localisation(_Scored):
    """Localisation of the one event of each video, which is both audible and visible; segment accuracy."""

    title, layout = "Audio-visual event localisation", staticmethod(tables.accuracy_table)
    quality_notes = ("The class of the video is given here, unlike in the evaluation of methods.",)
    curves = ("AV",)
    best_metric = "accuracy"
    selectable = (best_metric,)
    score_names = ((tables.LEVELS[0], "Accuracy"),)

    def decode(self, output: SplitOutput, settings: DecodingSettings, visual_gates: Tensor | None = None) -> Events:
        """Return predicted events of a split; there are no gates in this task."""
        events = decode_single_event(
            output.logits, output.video_probs, event_from=settings.event_from, active_in=settings.active_in
        )
        return AudioVisual(events, events)

    def score(self, prediction: Events, truth: Events) -> Scores:
        """Return the accuracy by name."""
        prediction, truth = metrics.both_modalities(prediction), metrics.both_modalities(truth)
        return {"accuracy": metrics.segment_accuracy(prediction, truth)}

    def unimodal_scores(self, prediction: Events, truth: Events) -> Scores:
        """Raise InputError, since every event is both audible and visible."""
        found, expected = (
            f"{self.dataset.name}, whose events are all audible and visible",
            "a data set with unimodal events",
        )
        raise InputError("--unimodal_scores", found, expected, "Leave out the flag.")

    def selection_score(self, name: str, prediction: Events, truth: Events) -> float:
        """Return the accuracy, the only score that can select the best checkpoint."""
        return self.score(prediction, truth)[name]

    def per_video_scores(self, prediction: Events, truth: Events) -> Tensor:
        """Return each video's accuracy in percent: (N, 1)."""
        right = (metrics.both_modalities(prediction) == metrics.both_modalities(truth)).all(dim=-1)  # (N, T)
        return 100 * right.double().mean(dim=1, keepdim=True)

    def search_thresholds(
        self, logits: AudioVisual[Tensor], annotations: SplitAnnotations, class_wise: bool, jointly: bool, log: Logger
    ) -> AudioVisual[Tensor]:
        """Return the thresholds of the best accuracy on val, (C,) float64, searched jointly or separately."""
        truth = metrics.both_modalities(true_events(annotations, torch.device("cpu")))
        searched = (logits, truth, annotations.video_labels)
        of_all = accuracy_thresholds(*searched, class_wise=False, jointly=jointly).thresholds  # (1,) each
        if not class_wise:
            return of_all.map(lambda threshold: threshold.expand(len(annotations.classes)).clone())
        found = accuracy_thresholds(*searched, jointly=jointly)
        lacking = found.accuracy.isnan()  # (C,)
        _warn_of_classes(log, lacking, annotations.classes, "no validation video")
        return of_all.map(lambda threshold, own: torch.where(lacking, threshold, own), found.thresholds)

    def write_class_reports(
        self, folder: Path, split: str, prediction: Events, truth: Events, classes: tuple[str, ...], note: str
    ) -> None:
        """Write class-wise accuracy and the confusion matrix to a run's folder."""
        from utils.reporting.figures import confusion_matrix_figure  # matplotlib takes a second to import

        matrix = metrics.confusion_matrix(metrics.both_modalities(prediction), metrics.both_modalities(truth)).cpu()
        heading = f"{folder.name}, {split}"
        tables.write_table(folder / f"per_class_{split}.csv", tables.per_class_accuracy(matrix, classes, heading, note))
        tables.write_table(folder / f"confusion_{split}.csv", tables.confusion_table(matrix, classes, heading, note))
        marked = f"{heading} ({note})" if note else heading
        confusion_matrix_figure(folder / f"confusion_{split}.png", matrix.numpy(), classes, marked)


Task = Parsing | Localisation
SELECTABLE = (*Parsing.selectable, *Localisation.selectable)  # scores that can select the best checkpoint


def find_task(dataset: str) -> Task:
    """Return the task of a data set of stages 2 to 4."""
    row = DATASETS[dataset]
    return Parsing(row) if row.task == "parsing" else Localisation(row)


def _warn_of_classes(log: Logger, lacking: Tensor, classes: tuple[str, ...], what: str) -> None:
    """Log the classes whose thresholds could not be searched: lacking (C,) bool."""
    if lacking.any():
        names = ", ".join(classes[c] for c in lacking.nonzero().squeeze(1).tolist())
        log.warning(f"{what} of {names}: using the class-agnostic threshold")
