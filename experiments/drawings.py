"""The paper's figures: curves over a hyper-parameter, and timelines of several methods under one truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.jobs import Runner, Study
from experiments.paper_tables import Experiment, ScoreExperiment, without_defaults
from utils.audio_visual import AudioVisual
from utils.evaluation.predictions import Predictions, load_predictions
from utils.reporting.figures import PublishedPoint, Series, Timeline, curve_figure, timeline_figure
from utils.reporting.published import published_value
from utils.reporting.tables import Cell

# The paper gives the range of alpha, and the best value of each; the values between are ours.
ALPHAS = (0.1, 0.5, 0.9, 1.3, 1.7, 2.0)
POSITIVE_WEIGHTS = (0.1, 0.25, 0.5, 1.0, 2.0)
NUM_TIMELINES = 8


@dataclass(frozen=True)
class Curve(ScoreExperiment):
    """Segment-level Type@AV over one setting, as a table and a curve; rows are the setting's values."""

    points: Sequence[PublishedPoint] = ()

    def draw(self, runner: Runner, folder: Path) -> list[Path]:
        cells = [Cell.over_runs([self.scores(runner, job) for job in jobs]) for jobs in self.ours.values()]
        curve = Series(self.mark, [*map(float, self.ours)], [cell.mean for cell in cells], [cell.std for cell in cells])
        path = folder / f"{self.name}.png"
        curve_figure(path, [curve], self.points, self.label, "Segment-level Type@AV (%)", self.title)
        return [path]


def figure_a4(study: Study) -> Experiment:
    """Vary mixup's alpha, without re-weighting."""
    ours = {f"{x:g}": study.over_seeds("uwav", **without_defaults(reweight=False, mixup_alpha=x)) for x in ALPHAS}
    names = ("best_alpha", "best_type", "lowest_type")
    best, best_type, lowest = (published_value("figure_a4_alpha", name) for name in names)
    points = (PublishedPoint("best", best, best_type), PublishedPoint("lowest", None, lowest))
    published = dict.fromkeys(ours) | {f"{best:g}": best_type}
    title = "Mixup's α on LLP, without re-weighting (paper Figure A4)"
    return Curve(study, "figureA4", title, ours, published, label="α", points=points)


def figure_a5(study: Study) -> Experiment:
    """Vary re-weighting's W, without mixup."""
    ours = {}
    for weight in POSITIVE_WEIGHTS:
        ours[f"{weight:g}"] = study.over_seeds("uwav", **without_defaults(mixup=False, positive_weight=weight))
    best, best_type = (published_value("figure_a5_pos_weight", name) for name in ("best_W", "best_type"))
    published = dict.fromkeys(ours) | {f"{best:g}": best_type}
    title = "Re-weighting's W on LLP, without mixup (paper Figure A5)"
    points = (PublishedPoint("best", best, best_type),)
    return Curve(study, "figureA5", title, ours, published, label="W", points=points)


class Timelines(Experiment):
    """The truth, and under it each method's events, in the manner of Figure 3."""

    def draw(self, runner: Runner, folder: Path) -> list[Path]:
        outputs = {name: runner.finished_output(job) for name, (job,) in self.ours.items()}
        predictions = {name: load_predictions(output, "test") for name, output in outputs.items()}
        truth = next(iter(predictions.values()))
        note, paths = self.study.note(*self.datasets), []
        for n in varied_videos(truth, NUM_TIMELINES):
            video = truth.sample_ids[n]
            of_truth = Timeline("Truth", AudioVisual(truth.truth.audio[n], truth.truth.visual[n]))
            of_methods = []
            for name, of_method in predictions.items():
                place, events = of_method.sample_ids.index(video), of_method.events
                of_methods.append(Timeline(name, AudioVisual(events.audio[place], events.visual[place])))
            paths.append(folder / "qualitative" / f"{video}.png")
            title = f"{video} ({note})" if note else video
            timeline_figure(paths[-1], title, truth.classes, of_truth, of_methods)
        return paths


def qualitative(study: Study) -> Experiment:
    """Draw timelines of four methods, of the first seed."""
    names, seed = ("HAN", "MA", "VALOR", "UWAV"), study.seeds[0]
    ours = {name: (study.evaluation(study.training(name.lower(), seed)),) for name in names}
    return Timelines(study, "qualitative", "Timelines", ours)


def varied_videos(predictions: Predictions, number: int) -> list[int]:
    """Choose by the truth alone: spread over the videos of several classes whose audible and visible events differ."""
    classes = (predictions.truth.audio | predictions.truth.visual).any(axis=1).sum(axis=1)  # (N,)
    differ = (predictions.truth.audio != predictions.truth.visual).any(axis=(1, 2))  # (N,)
    chosen = (classes >= 2) & differ
    videos = np.flatnonzero(chosen if chosen.any() else np.ones_like(chosen))
    places = np.linspace(0, len(videos) - 1, min(number, len(videos))).astype(int)
    return videos[places].tolist()
