"""From finished jobs to tables: ours, mean and deviation over seeds, beside the published numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.jobs import Job, Runner
from experiments.stage_runs import Study
from utils.evaluation.compare import compare_runs
from utils.evaluation.predictions import load_predictions
from utils.method.metrics import LevelScores, ParsingScores, scores_by_level
from utils.reporting.tables import LEVELS, Cell, Column, ParsingRow, Row, Table, parsing_table


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper."""

    study: Study
    name: str  # of its result files
    title: str
    ours: Mapping[str, Sequence[Job]]  # by row, the jobs that hold its scores, one a seed

    datasets = ("UnAV", "LLP")  # whose features the scores depend on

    @property
    def jobs(self) -> tuple[Job, ...]:
        return tuple(job for jobs in self.ours.values() for job in jobs)

    @property
    def mark(self) -> str:
        """The note of our rows."""
        return self.study.note(*self.datasets) or "ours"

    @property
    def footnotes(self) -> list[str]:
        """What a reader has to know of our rows."""
        study = self.study
        notes = [f"Sizes of the preset {study.preset_name}; seeds {', '.join(map(str, study.seeds))}."]
        if note := study.note(*self.datasets):
            order = "the numbers do not compare with the published ones, their order may."
            notes.append(f"Not real data ({note}): {order}")
        return notes

    def tables(self, runner: Runner) -> dict[str, Table]:
        """Collect tables from finished jobs, by the stem of their files."""
        return {}

    def draw(self, runner: Runner, folder: Path) -> list[Path]:
        """Write figures into a folder: their paths."""
        return []


@dataclass(frozen=True)
class ParsingExperiment(Experiment):
    """F-scores on LLP's test split: under each published row ours of the same name, then ours that have none.

    When all published rows are of the segment level only, ours are too.
    """

    published: Mapping[str, ParsingScores | LevelScores]  # in the paper's order

    def tables(self, runner: Runner) -> dict[str, Table]:
        segments_only = all(isinstance(scores, LevelScores) for scores in self.published.values())
        rows = []
        for name in dict.fromkeys([*self.published, *self.ours]):
            if name in self.published:
                rows.append(ParsingRow(name, "test", self.published[name], "published"))
            if name in self.ours:
                scores = [scores_by_level(runner.test_scores(job)) for job in self.ours[name]]
                scores = [of_run.segment for of_run in scores] if segments_only else scores
                rows.append(ParsingRow(name, "test", scores, self.mark))
        return {self.name: parsing_table(self.title, rows, self.footnotes)}


@dataclass(frozen=True)
class ScoreExperiment(Experiment):
    """One number a row: under each published one ours."""

    published: Mapping[str, float]
    metric: str = "segment_Type"  # in the summary of stage 4
    column: Column = Column("Type", "Segment-level")
    label: str = "Method"
    remark: str = "F-scores in percent."

    def cell(self, runner: Runner, row: str) -> Cell:
        """Return our score of a row, over the seeds."""
        return Cell.over_runs([runner.test_scores(job)[self.metric] for job in self.ours[row]])

    def tables(self, runner: Runner) -> dict[str, Table]:
        rows = []
        for name in self.ours:
            if name in self.published:
                rows.append(Row((name,), (Cell(self.published[name]),), "published"))
            rows.append(Row((name,), (self.cell(runner, name),), self.mark))
        notes = (self.remark, *self.footnotes)
        return {self.name: Table(self.title, (self.label,), (self.column,), tuple(rows), notes)}


@dataclass(frozen=True)
class AVEExperiment(ScoreExperiment):
    """Accuracy on AVE's test split."""

    metric: str = "accuracy"
    column: Column = Column("Accuracy")
    remark: str = "Percent of segments whose label is right."

    datasets = ("UnAV", "AVE")


@dataclass(frozen=True)
class SignificanceExperiment(Experiment):
    """Each of our rows against one of them by a paired bootstrap over LLP's test videos; seeds are averaged first."""

    reference: str  # the row that the others are compared with

    def tables(self, runner: Runner) -> dict[str, Table]:
        predictions = {
            name: [load_predictions(runner.finished_output(job), "test") for job in jobs]
            for name, jobs in self.ours.items()
        }
        reference = predictions.pop(self.reference)
        rows = []
        for name, runs in predictions.items():
            compared = [c for c in compare_runs(runs, reference) if c.metric == "Type"]  # of both levels
            cells = [Cell(value) for c in compared for value in (c.difference, c.low, c.high, c.p_value)]
            rows.append(Row((name,), tuple(cells), self.mark))
        names = {"difference": 1, "2.5 %": 1, "97.5 %": 1, "p": 4}  # decimals of each
        columns = tuple(Column(name, level, decimals) for level in LEVELS for name, decimals in names.items())
        notes = (
            f"Type@AV of the method less that of {self.reference}; 95 % percentile interval and two-sided p of a "
            "paired bootstrap over videos, 10,000 resamples. It says nothing about other seeds.",
            *self.footnotes,
        )
        return {self.name: Table(self.title, ("Method",), columns, tuple(rows), notes)}
