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
    """Segment-level Type@AV over the values of one setting, as a table and a curve."""

    points: Sequence[PublishedPoint] = ()

    def draw(self, runner: Runner, folder: Path) -> list[Path]:
        cells = [Cell.over_runs([self.scores(runner, job) for job in jobs]) for jobs in self.ours.values()]
        curve = Series(self.mark, [*map(float, self.ours)], [cell.mean for cell in cells], [cell.std for cell in cells])
        path = folder / f"{self.name}.png"
        curve_figure(path, [curve], self.points, self.label, "Segment-level Type@AV (%)", self.title)
        return [path]


def figure_a4(study: Study) -> Experiment:
    """Vary alpha of mixup, without re-weighting."""
    ours = {f"{x:g}": study.over_seeds("uwav", **without_defaults(reweight=False, mixup_alpha=x)) for x in ALPHAS}
    names = ("best_alpha", "best_type", "lowest_type")
    best, best_type, lowest = (published_value("figure_a4_alpha", name) for name in names)
    points = (PublishedPoint("best", best, best_type), PublishedPoint("lowest", None, lowest))
    published = dict.fromkeys(ours) | {f"{best:g}": best_type}
    title = "Mixup's α on LLP, without re-weighting (paper Figure A4)"
    return Curve(study, "figureA4", title, ours, published, label="α", points=points)


def figure_a5(study: Study) -> Experiment:
    """Vary W of re-weighting, without mixup."""
    settings = {f"{w:g}": without_defaults(mixup=False, positive_weight=w) for w in POSITIVE_WEIGHTS}
    ours = {weight: study.over_seeds("uwav", **changes) for weight, changes in settings.items()}
    best, best_type = (published_value("figure_a5_pos_weight", name) for name in ("best_W", "best_type"))
    published, points = dict.fromkeys(ours) | {f"{best:g}": best_type}, (PublishedPoint("best", best, best_type),)
    title = "Re-weighting's W on LLP, without mixup (paper Figure A5)"
    return Curve(study, "figureA5", title, ours, published, label="W", points=points)


class Timelines(Experiment):
    """Timelines of the truth and, under it, each method's events, as in Figure 3."""

    def draw(self, runner: Runner, folder: Path) -> list[Path]:
        outputs = {name: runner.finished_output(job) for name, (job,) in self.ours.items()}
        predictions = {name: load_predictions(output, "test") for name, output in outputs.items()}
        first, note, paths = next(iter(predictions.values())), self.study.note(*self.datasets), []

        def timeline(name: str, events: AudioVisual[np.ndarray], n: int) -> Timeline:
            return Timeline(name, events.map(lambda of_split: of_split[n]))

        for n in varied_videos(first, NUM_TIMELINES):
            video = first.sample_ids[n]
            truth = timeline("Truth", first.truth, n)
            ours = [timeline(name, p.events, p.sample_ids.index(video)) for name, p in predictions.items()]
            paths.append(folder / "qualitative" / f"{video}.png")
            timeline_figure(paths[-1], f"{video} ({note})" if note else video, first.classes, truth, ours)
        return paths


def qualitative(study: Study) -> Experiment:
    """Draw timelines of four methods, of the first seed."""
    names, seed = ("HAN", "MA", "VALOR", "UWAV"), study.seeds[0]
    ours = {name: (study.evaluation(study.training(name.lower(), seed)),) for name in names}
    return Timelines(study, "qualitative", "Timelines", ours)


def varied_videos(predictions: Predictions, number: int) -> list[int]:
    """Choose videos by the truth alone, spread over those of several classes with different audio and visual events."""
    audio, visual = predictions.truth  # (N, T, C)
    chosen = ((audio | visual).any(axis=1).sum(axis=1) >= 2) & (audio != visual).any(axis=(1, 2))  # (N,)
    videos = np.flatnonzero(chosen if chosen.any() else np.ones_like(chosen))
    places = np.linspace(0, len(videos) - 1, min(number, len(videos))).astype(int)
    return videos[places].tolist()
