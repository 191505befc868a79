"""From finished jobs to tables: ours, mean and deviation over seeds, beside the published numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.jobs import Job, Runner
from experiments.stage_runs import Study
from utils.reporting.tables import Cell, Column, Row, ScoreRow, Table, parsing_table


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
class ScoreExperiment(Experiment):
    """One score a row: ours under each published row of the same name, then ours that have none."""

    published: Mapping[str, Mapping[str, float] | float | None]  # one number or scores by name, in the paper's order
    metric: str = "segment_Type"  # in the summary of stage 4
    column: Column = Column("Type", "Segment-level")
    label: str = "Method"
    remark: str = "F-scores in percent."

    def scores(self, runner: Runner, job: Job) -> dict[str, float] | float:
        """Return what the table shows of one of our runs."""
        return runner.test_scores(job)[self.metric]

    def rows(self, runner: Runner) -> list[tuple[str, list, str]]:
        """Return name, scores of all runs, and note of each row."""
        rows = []
        for name in dict.fromkeys([*self.published, *self.ours]):
            if self.published.get(name) is not None:
                rows.append((name, [self.published[name]], "published"))
            if name in self.ours:
                rows.append((name, [self.scores(runner, job) for job in self.ours[name]], self.mark))
        return rows

    def tables(self, runner: Runner) -> dict[str, Table]:
        rows = [Row((name,), (Cell.over_runs(scores),), note) for name, scores, note in self.rows(runner)]
        notes = (self.remark, *self.footnotes)
        return {self.name: Table(self.title, (self.label,), (self.column,), tuple(rows), notes)}


class ParsingExperiment(ScoreExperiment):
    """All F-scores on LLP's test split; of segments only where the published ones are."""

    def scores(self, runner: Runner, job: Job) -> dict[str, float]:
        printed = set().union(*self.published.values())
        return {name: score for name, score in runner.test_scores(job).items() if name in printed}

    def tables(self, runner: Runner) -> dict[str, Table]:
        rows = [ScoreRow(name, "test", scores, note) for name, scores, note in self.rows(runner)]
        return {self.name: parsing_table(self.title, rows, self.footnotes)}


@dataclass(frozen=True)
class AVEExperiment(ScoreExperiment):
    """Accuracy on AVE's test split."""

    metric: str = "accuracy"
    column: Column = Column("Accuracy")
    remark: str = "Percent of segments whose label is right."

    datasets = ("UnAV", "AVE")
