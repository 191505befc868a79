"""The paper's figures: curves over a hyper-parameter, and timelines of several methods under one truth."""

from pathlib import Path

import numpy as np

from experiments.collecting import Experiment, Study, paired_values
from experiments.jobs import Job, Runner
from experiments.paper_tables import without_defaults
from utils.evaluation.predictions import Predictions, load_predictions
from utils.reporting.figures import PublishedPoint, Series, Timeline, curve_figure, timeline_figure
from utils.reporting.published import published_value
from utils.reporting.tables import Cell, Column, Table

# The paper gives the range of alpha, and the best value of each; the values between are ours.
ALPHAS = (0.1, 0.5, 0.9, 1.3, 1.7, 2.0)
POSITIVE_WEIGHTS = (0.1, 0.25, 0.5, 1.0, 2.0)
NUM_TIMELINES = 8


def figure_a4(study: Study) -> Experiment:
    """Mixup's alpha, without re-weighting."""
    best, low = published_value("figure_a4_alpha", "best_alpha"), published_value("figure_a4_alpha", "lowest_type")
    jobs = {alpha: _variants(study, reweight=False, mixup_alpha=alpha) for alpha in ALPHAS}
    published = [
        PublishedPoint("best", best, published_value("figure_a4_alpha", "best_type")),
        PublishedPoint("lowest", None, low),
    ]
    return _curve(study, "figureA4", "α", "Mixup's α on LLP, without re-weighting (paper Figure A4)", jobs, published)


def figure_a5(study: Study) -> Experiment:
    """Re-weighting's W, without mixup."""
    best = published_value("figure_a5_pos_weight", "best_W")
    jobs = {weight: _variants(study, mixup=False, positive_weight=weight) for weight in POSITIVE_WEIGHTS}
    published = [PublishedPoint("best", best, published_value("figure_a5_pos_weight", "best_type"))]
    return _curve(study, "figureA5", "W", "Re-weighting's W on LLP, without mixup (paper Figure A5)", jobs, published)


def qualitative(study: Study) -> Experiment:
    """Timelines in the manner of Figure 3: the truth, and under it each method's events."""
    pipeline, seed = study.pipeline, study.seeds[0]
    methods = {"HAN": pipeline.han, "MA": pipeline.ma, "VALOR": pipeline.valor, "UWAV": pipeline.uwav}
    jobs = {name: pipeline.evaluation(method(seed)) for name, method in methods.items()}

    def draw(runner: Runner, folder: Path) -> list[Path]:
        predictions = {name: load_predictions(runner.finished_output(job), "test") for name, job in jobs.items()}
        truth = next(iter(predictions.values()))
        note = study.note("UnAV", "LLP")
        paths = []
        for n in varied_videos(truth, NUM_TIMELINES):
            video = truth.sample_ids[n]
            paths.append(folder / "qualitative" / f"{video}.png")
            timeline_figure(
                paths[-1],
                f"{video} ({note})" if note else video,
                truth.classes,
                Timeline("Truth", truth.truth.map(lambda events, n=n: events[n])),
                [_timeline(name, of_method, video) for name, of_method in predictions.items()],
            )
        return paths

    return Experiment("qualitative", tuple(jobs.values()), lambda runner: {}, draw)


def varied_videos(predictions: Predictions, number: int) -> list[int]:
    """Videos with two classes or more whose audible and visible events differ, evenly spread over the split.

    Whatever the methods say of them: nothing is chosen by result.
    """
    classes = (predictions.truth.audio | predictions.truth.visual).any(axis=1).sum(axis=1)  # (N,)
    differ = (predictions.truth.audio != predictions.truth.visual).any(axis=(1, 2))  # (N,)
    videos = np.flatnonzero((classes >= 2) & differ)
    if not len(videos):
        videos = np.arange(len(predictions.sample_ids))
    places = np.linspace(0, len(videos) - 1, min(number, len(videos))).astype(int)
    return videos[places].tolist()


def _timeline(name: str, predictions: Predictions, video: str) -> Timeline:
    n = predictions.sample_ids.index(video)
    return Timeline(name, predictions.events.map(lambda events: events[n]))


def _variants(study: Study, **settings: object) -> tuple[Job, ...]:
    return study.over_seeds(lambda seed: study.pipeline.uwav(seed, **without_defaults(**settings)))


def _curve(
    study: Study,
    name: str,
    symbol: str,
    title: str,
    jobs: dict[float, tuple[Job, ...]],
    published: list[PublishedPoint],
) -> Experiment:
    """Segment-level Type@AV over one setting, as a table and a curve."""
    at = {point.x: point.y for point in published}

    def runs(runner: Runner, value: float) -> list[float]:
        return [runner.summary(job)["test"]["segment_Type"] for job in jobs[value]]

    def tables(runner: Runner) -> dict[str, Table]:
        rows = {f"{value:g}": ([at.get(value)], [[score] for score in runs(runner, value)]) for value in jobs}
        columns = [Column("Type", "Segment-level")]
        return {name: paired_values(study, title, symbol, columns, rows, ("UnAV", "LLP"), ("F-scores in percent.",))}

    def draw(runner: Runner, folder: Path) -> list[Path]:
        cells = [Cell.over_runs(runs(runner, value)) for value in jobs]
        note = study.note("UnAV", "LLP")
        ours = Series(note or "ours", tuple(jobs), [cell.mean for cell in cells], [cell.std for cell in cells])
        path = folder / f"{name}.png"
        curve_figure(path, [ours], published, symbol, "Segment-level Type@AV (%)", title)
        return [path]

    return Experiment(name, tuple(job for of_value in jobs.values() for job in of_value), tables, draw)
