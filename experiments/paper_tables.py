"""The paper's tables and figures: the methods and settings that each of them compares, and the published numbers."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np

import train_han
from dataloaders.features import text_features_path
from experiments.jobs import Job, Runner, Study
from utils.audio_visual import AudioVisual
from utils.evaluation.compare import compare_runs
from utils.evaluation.predictions import Predictions, load_predictions
from utils.recipes import find_method
from utils.reporting.figures import PublishedPoint, Series, Timeline, curve_figure, timeline_figure
from utils.reporting.published import published_methods, published_scores, published_value
from utils.reporting.tables import LEVELS, Cell, Column, Row, ScoreRow, Table, parsing_table
from utils.settings import flat
from utils.training.checkpoints import load_checkpoint
from utils.training.loop import LAST_STATE

# Stage-3 settings of the rows of Tables 4 and A8. The last row is UWAV.
ABLATION: dict[str, dict[str, object]] = {
    "hard": {"segment_labels": "hard", "reweight": False, "mixup": False},
    "soft": {"reweight": False, "mixup": False},
    "soft+reweight": {"mixup": False},
    "soft+mixup": {"reweight": False},
    "soft+reweight+mixup": {},
}
# CLAP in place of VGGish, CLIP in place of ResNet-152; R(2+1)D remains.
CLIP_AND_CLAP = {"audio_features": ("clap",), "visual_features": ("clip", "r2plus1d_18")}
TRAINING_SHARES = (100, 80, 60)  # percent
NUM_CLASSES = (25, 20, 15)
LABELS_ONLY = "Video labels only, UWAV's network"  # UWAV's network and recipe without pseudo-labels
# The paper states the range of alpha and the best value of each setting; the values in between are ours.
ALPHAS = (0.1, 0.5, 0.9, 1.3, 1.7, 2.0)
POSITIVE_WEIGHTS = (0.1, 0.25, 0.5, 1.0, 2.0)
NUM_TIMELINES = 8
ACCURACY_ON_AVE = {"metric": "accuracy", "column": Column("Accuracy"), "datasets": ("UnAV", "AVE")}
ACCURACY_ON_AVE |= {"remark": "Percentage of correctly labelled segments."}


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper; by default with one score per row, ours below the published row of that name."""

    study: Study
    name: str  # stem of its result files
    title: str
    ours: Mapping[str, Sequence[Job]]  # by row: the jobs that hold its scores, one per seed
    published: Mapping[str, Mapping[str, float] | float | None] = field(default_factory=dict)  # in the paper's order
    metric: str = "segment_Type"  # key in stage 4's summary.json
    column: Column = Column("Type", "Segment-level")
    label: str = "Method"
    remark: str = "F-scores in percent."
    datasets: tuple[str, ...] = ("UnAV", "LLP")  # data sets on whose features the scores depend
    points: Sequence[PublishedPoint] = ()  # published points of a curve
    parts: Sequence["Experiment"] = ()  # experiments whose tables replace this one's

    @property
    def jobs(self) -> tuple[Job, ...]:
        return tuple(job for jobs in self.ours.values() for job in jobs)

    @property
    def mark(self) -> str:
        """Return the note of our rows."""
        return self.study.note(*self.datasets) or "ours"

    @property
    def footnotes(self) -> list[str]:
        """Return the preset and seeds of our rows, and the origin of simulated data."""
        study, order = self.study, "scores are not comparable to the published ones, but their ranking may be."
        notes = [f"Preset {study.preset_name}; seeds {', '.join(map(str, study.seeds))}."]
        note = study.note(*self.datasets)
        return [*notes, f"Not real data ({note}): {order}"] if note else notes

    def draw(self, runner: Runner, folder: Path) -> list[Path]:
        """Write the figures to a folder, and return their paths."""
        return []

    def scores(self, runner: Runner, job: Job) -> dict[str, float] | float:
        """Return the scores of one of our runs for the table."""
        return runner.test_scores(job)[self.metric]

    def rows(self, runner: Runner) -> list[tuple[str, list, str]]:
        """Return the name, scores of all runs and note of each row; rows without published scores come last."""
        rows = []
        for name in dict.fromkeys([*self.published, *self.ours]):
            if self.published.get(name) is not None:
                rows.append((name, [self.published[name]], "published"))
            if name in self.ours:
                rows.append((name, [self.scores(runner, job) for job in self.ours[name]], self.mark))
        return rows

    def tables(self, runner: Runner) -> dict[str, Table]:
        """Return the tables of finished jobs by the stem of their files."""
        if self.parts:
            return {name: table for part in self.parts for name, table in part.tables(runner).items()}
        rows = [Row((name,), (Cell.over_runs(scores),), note) for name, scores, note in self.rows(runner)]
        notes = (self.remark, *self.footnotes)
        return {self.name: Table(self.title, (self.label,), (self.column,), tuple(rows), notes)}


class ParsingExperiment(Experiment):
    """All F-scores on LLP's test split, or segment-level ones only if these alone are published."""

    def scores(self, runner: Runner, job: Job) -> dict[str, float]:
        printed, scores = set().union(*self.published.values()), runner.test_scores(job)
        return {name: score for name, score in scores.items() if name in printed or not printed}

    def tables(self, runner: Runner) -> dict[str, Table]:
        rows = [ScoreRow(name, "test", scores, note) for name, scores, note in self.rows(runner)]
        return {self.name: parsing_table(self.title, rows, self.footnotes)}


def without_defaults(**settings: object) -> dict[str, object]:
    """Return the stage-3 settings that differ from the defaults, so that tables share runs with default settings."""
    defaults = flat(train_han.Settings())
    return {name: value for name, value in settings.items() if value != defaults[name]}


def methods_on_llp(study: Study) -> dict[str, tuple[Job, ...]]:
    """Return the jobs of our rows in Table 1."""
    names = ("han", "ma", "jomold", "cmpae", "valor", "valor_plus", "valor_plus_plus", "lsld", "coleaf")
    return {find_method(name).published_name: study.over_seeds(name) for name in names} | {
        "CoLeaf, best epoch by Type@AV": study.over_seeds("coleaf", select_on="segment_Type"),
        "LEAP": study.over_seeds("leap"),
        "MM-CSE": study.over_seeds("mmcse"),
        "UWAV": study.over_seeds("uwav"),
        # differs from the "hard" row of Table 4 in the pseudo-labels only
        "VALOR's labels, UWAV's network": study.over_seeds("uwav", teacher="framewise", **ABLATION["hard"]),
        LABELS_ONLY: study.over_seeds("uwav", segment_labels="none"),
    }


def table1(study: Study) -> Experiment:
    """Compare methods on LLP."""
    title = "Audio-visual video parsing on LLP (paper Table 1)"
    published = {name: published_scores("table1_llp", name) for name in published_methods("table1_llp")}
    return ParsingExperiment(study, "table1", title, methods_on_llp(study), published)


class Significance(Experiment):
    """Paired bootstrap of each of our rows against UWAV over LLP's test videos; scores are averaged over seeds."""

    note = (
        "Type@AV of the method minus that of UWAV, with the 95 % percentile interval and two-sided p of a paired "
        "bootstrap over videos, 10,000 resamples. Variation over seeds is not tested."
    )

    def tables(self, runner: Runner) -> dict[str, Table]:
        outputs = {name: [runner.finished_output(job) for job in jobs] for name, jobs in self.ours.items()}
        predictions = {name: [load_predictions(run, "test") for run in runs] for name, runs in outputs.items()}
        uwav, rows = predictions.pop("UWAV"), []
        for name, runs in predictions.items():
            compared = [c for c in compare_runs(runs, uwav) if c.metric == "Type"]  # one per level
            cells = [Cell(value) for c in compared for value in (c.difference, c.low, c.high, c.p_value)]
            rows.append(Row((name,), tuple(cells), self.mark))
        decimals = {"difference": 1, "2.5 %": 1, "97.5 %": 1, "p": 4}
        columns = tuple(Column(name, level, decimals[name]) for level in LEVELS for name in decimals)
        return {self.name: Table(self.title, ("Method",), columns, tuple(rows), (self.note, *self.footnotes))}


def significance(study: Study) -> Experiment:
    """Test the difference between each of our rows in Table 1 and UWAV."""
    return Significance(study, "significance", "Difference from UWAV on LLP", methods_on_llp(study))


def table2(study: Study) -> Experiment:
    """Compare methods on AVE."""
    ours = {name: study.over_seeds(name.lower(), "AVE") for name in ("HAN", "VALOR", "UWAV")}
    published = {name: published_value("table2_ave_accuracy", name) for name in ours}
    ours[LABELS_ONLY] = study.over_seeds("uwav", "AVE", segment_labels="none")
    title = "Audio-visual event localisation on AVE (paper Table 2)"
    return Experiment(study, "table2", title, ours, published, **ACCURACY_ON_AVE)


def table3(study: Study) -> Experiment:
    """Compare the quality of pseudo-labels; stages 1 and 2 are run with one seed."""
    paper = "table3_pseudo_label_quality_segment"
    ours = {"VALOR": (study.pseudo_labels("LLP", "framewise"),), "UWAV": (study.pseudo_labels("LLP"),)}
    if text_features_path(study.data_root / "LLP", "pe_audio").is_file():
        ours["PE-A-Frame and CLIP"] = (study.pseudo_labels("LLP", "pe_frame"),)
    published = {name: published_scores(paper, name) for name in published_methods(paper)}
    return ParsingExperiment(study, "table3", "Quality of the pseudo-labels on LLP (paper Table 3)", ours, published)


def table4(study: Study) -> Experiment:
    """Compare UWAV with and without soft labels, re-weighting and mixup."""
    ours = {name: study.over_seeds("uwav", **settings) for name, settings in ABLATION.items()}
    published = {name: published_scores("table4_a8_ablation", name) for name in ABLATION}
    return ParsingExperiment(study, "table4", "Ablation on LLP (paper Tables 4 and A8)", ours, published)


class ComputingTime(Experiment):
    """Time of the median epoch of stage 3, and of stage 4 on the test split, on the current machine."""

    def tables(self, runner: Runner) -> dict[str, Table]:
        names = ("train_seconds_per_epoch", "inference_seconds_test_split")
        published = tuple(Cell(published_value("table_a5_compute_rtx3090", name)) for name in names)
        (evaluation,) = self.jobs
        training = runner.finished_output(evaluation.inputs["checkpoint_dir"])
        history = load_checkpoint(training / LAST_STATE)["progress"]["history"]
        epoch = statistics.median(scores["train_seconds"] for scores in history)
        record = runner.record(evaluation)
        rows = (
            Row(("UWAV", "NVIDIA GeForce RTX 3090"), published, "published"),
            Row(("UWAV", record["machine"]), (Cell(epoch), Cell(record["seconds"])), self.mark),
        )
        columns = (Column("training epoch", "Seconds"), Column("test split", "Seconds"))
        notes = ("Test split: all of stage 4, including loading of features and scoring.", *self.footnotes)
        return {self.name: Table(self.title, ("Method", "Machine"), columns, rows, notes)}


def table_a5(study: Study) -> Experiment:
    """Measure the computing time on the current machine."""
    training = study.training("uwav", study.seeds[0])
    evaluation = study.evaluation(training, splits=("test",))  # without val, for the time on test
    title, ours = "Computing time on LLP (paper Table A5)", {"UWAV": (evaluation,)}
    return ComputingTime(study, "tableA5", title, ours, datasets=("LLP",))


def table_a6(study: Study) -> Experiment:
    """Compare methods on CLIP and CLAP features; the paper's row VALOR is VALOR++."""
    ours = {"VALOR": study.over_seeds("valor_plus_plus"), "UWAV": study.over_seeds("uwav", **CLIP_AND_CLAP)}
    published = {name: published_scores("table_a6_clip_clap_backbones", name) for name in ours}
    title = "CLAP and CLIP in place of VGGish and ResNet-152 on LLP (paper Table A6)"
    return ParsingExperiment(study, "tableA6", title, ours, published)


def table_a7(study: Study) -> Experiment:
    """Compare UWAV on fewer training videos, and methods on fewer classes."""
    shares, published_shares, classes, published_classes = {}, {}, {}, {}
    for share in TRAINING_SHARES:
        name = f"UWAV, {share} % of the training videos"
        shares[name] = study.over_seeds("uwav", **without_defaults(train_fraction=share / 100))
        published_shares[name] = published_scores("table_a7_training_data_segment", share)
    for method, number in product(("VALOR", "UWAV"), NUM_CLASSES):
        name, settings = f"{method}, {number} classes", {"num_classes": number} if number < max(NUM_CLASSES) else {}
        classes[name] = study.over_seeds(method.lower(), **settings)
        published_classes[name] = published_value("table_a7_num_classes_segment_type", method, number)
    first = "F-scores in percent. The first classes by index, and the videos with at least one of them."
    title = "Fewer training videos of LLP (paper Table A7)"
    of_shares = ParsingExperiment(study, "tableA7_training_videos", title, shares, published_shares)
    title = "Fewer classes of LLP (paper Table A7)"
    of_classes = Experiment(study, "tableA7_classes", title, classes, published_classes, remark=first)
    title, ours = "Fewer data (paper Table A7)", shares | classes
    return Experiment(study, "tableA7", title, ours, parts=(of_shares, of_classes))


def table_a9(study: Study) -> Experiment:
    """Compare labels of the mixup loss on AVE."""
    ours = {"soft": study.over_seeds("uwav", "AVE", mixup_labels="soft"), "ceiling": study.over_seeds("uwav", "AVE")}
    published = {name: published_value("table_a9_ave_mixup_accuracy", name) for name in ours}
    title = "Labels of the mixup loss on AVE (paper Table A9)"
    return Experiment(study, "tableA9", title, ours, published, **ACCURACY_ON_AVE)


class Curve(Experiment):
    """Segment-level Type@AV for values of one setting, as a table and a curve."""

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
    """Timelines of the true events and each method's predictions, as in Figure 3."""

    def tables(self, runner: Runner) -> dict[str, Table]:
        return {}

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
    """Plot timelines of four methods with the first seed."""
    names, seed = ("HAN", "MA", "VALOR", "UWAV"), study.seeds[0]
    ours = {name: (study.evaluation(study.training(name.lower(), seed)),) for name in names}
    return Timelines(study, "qualitative", "Timelines", ours)


def varied_videos(predictions: Predictions, number: int) -> list[int]:
    """Choose videos evenly from those with several classes and different audible and visible true events."""
    audio, visual = predictions.truth  # (N, T, C)
    chosen = ((audio | visual).any(axis=1).sum(axis=1) >= 2) & (audio != visual).any(axis=(1, 2))  # (N,)
    videos = np.flatnonzero(chosen if chosen.any() else np.ones_like(chosen))
    places = np.linspace(0, len(videos) - 1, min(number, len(videos))).astype(int)
    return videos[places].tolist()
