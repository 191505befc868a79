"""The paper's figures: curves over a hyper-parameter, and timelines of several methods under one truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.collecting import Experiment, ScoreExperiment
from experiments.jobs import Runner
from experiments.paper_tables import without_defaults
from experiments.stage_runs import Study
from utils.audio_visual import AudioVisual
from utils.evaluation.predictions import Predictions, load_predictions
from utils.reporting.figures import PublishedPoint, Series, Timeline, curve_figure, timeline_figure
from utils.reporting.published import published_value

# The paper gives the range of alpha, and the best value of each; the values between are ours.
ALPHAS = (0.1, 0.5, 0.9, 1.3, 1.7, 2.0)
POSITIVE_WEIGHTS = (0.1, 0.25, 0.5, 1.0, 2.0)
NUM_TIMELINES = 8


@dataclass(frozen=True)
class Curve(ScoreExperiment):
    """Segment-level Type@AV over one setting, as a table and a curve; rows are the setting's values."""

    points: Sequence[PublishedPoint] = ()

    def draw(self, runner: Runner, folder: Path) -> list[Path]:
        cells = [self.cell(runner, value) for value in self.ours]
        values, means, deviations = (
            [float(value) for value in self.ours],
            [c.mean for c in cells],
            [c.std for c in cells],
        )
        path = folder / f"{self.name}.png"
        series = [Series(self.mark, values, means, deviations)]
        curve_figure(path, series, self.points, self.label, "Segment-level Type@AV (%)", self.title)
        return [path]


def figure_a4(study: Study) -> Experiment:
    """Mixup's alpha, without re-weighting."""
    best, best_type, lowest = (
        published_value("figure_a4_alpha", name) for name in ("best_alpha", "best_type", "lowest_type")
    )
    points = (PublishedPoint("best", best, best_type), PublishedPoint("lowest", None, lowest))
    title = "Mixup's α on LLP, without re-weighting (paper Figure A4)"
    return _curve(study, "figureA4", title, "α", points, "mixup_alpha", ALPHAS, reweight=False)


def figure_a5(study: Study) -> Experiment:
    """Re-weighting's W, without mixup."""
    best, best_type = (published_value("figure_a5_pos_weight", name) for name in ("best_W", "best_type"))
    points = (PublishedPoint("best", best, best_type),)
    title = "Re-weighting's W on LLP, without mixup (paper Figure A5)"
    return _curve(study, "figureA5", title, "W", points, "positive_weight", POSITIVE_WEIGHTS, mixup=False)


def _curve(
    study: Study,
    name: str,
    title: str,
    symbol: str,
    points: Sequence[PublishedPoint],
    setting: str,
    values: Sequence[float],
    **others: object,
) -> Curve:
    """Run UWAV with every value of one setting, and with the others that are given."""
    ours = {}
    for value in values:
        settings = without_defaults(**others, **{setting: value})
        ours[f"{value:g}"] = study.over_seeds(study.uwav, **settings)
    published = {f"{point.x:g}": point.y for point in points if point.x is not None}
    return Curve(study, name, title, ours, published, label=symbol, points=points)


class Timelines(Experiment):
    """The truth, and under it each method's events, in the manner of Figure 3."""

    def draw(self, runner: Runner, folder: Path) -> list[Path]:
        predictions = {
            name: load_predictions(runner.finished_output(job), "test") for name, (job,) in self.ours.items()
        }
        truth = next(iter(predictions.values()))
        note = self.study.note(*self.datasets)
        paths = []
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
    """Timelines of four methods, of the first seed."""
    methods = {"HAN": study.han, "MA": study.ma, "VALOR": study.valor, "UWAV": study.uwav}
    ours = {name: (study.evaluation(method(study.seeds[0])),) for name, method in methods.items()}
    return Timelines(study, "qualitative", "Timelines", ours)


def varied_videos(predictions: Predictions, number: int) -> list[int]:
    """Choose videos with two classes or more whose audible and visible events differ, evenly spread over the split.

    Whatever the methods say of them: nothing is chosen by result.
    """
    classes = (predictions.truth.audio | predictions.truth.visual).any(axis=1).sum(axis=1)  # (N,)
    differ = (predictions.truth.audio != predictions.truth.visual).any(axis=(1, 2))  # (N,)
    videos = np.flatnonzero((classes >= 2) & differ)
    if not len(videos):
        videos = np.arange(len(predictions.sample_ids))
    places = np.linspace(0, len(videos) - 1, min(number, len(videos))).astype(int)
    return videos[places].tolist()
