"""From finished jobs to tables: ours, mean and deviation over seeds, beside the published numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.jobs import Job, Runner
from experiments.stage_runs import Pipeline
from utils.evaluation.compare import compare_runs
from utils.evaluation.predictions import load_predictions
from utils.method.metrics import LevelScores, ParsingScores, scores_by_level
from utils.reporting.tables import LEVELS, Cell, Column, ParsingRow, Row, Table, parsing_table

Scores = ParsingScores | LevelScores


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper."""

    name: str  # of its script and its result files
    jobs: tuple[Job, ...]
    tables: Callable[[Runner], dict[str, Table]]  # from finished jobs, by the stem of the result files
    draw: Callable[[Runner, Path], list[Path]] | None = None  # writes figures into a folder


@dataclass(frozen=True)
class Study:
    """What all experiments of one call have in common."""

    pipeline: Pipeline
    seeds: tuple[int, ...]

    def over_seeds(self, training: Callable[[int], Job]) -> tuple[Job, ...]:
        """Evaluations of a training, one a seed."""
        return tuple(self.pipeline.evaluation(training(seed)) for seed in self.seeds)

    def note(self, *datasets: str) -> str:
        """The mark of our rows."""
        return ", ".join(dict.fromkeys(filter(None, map(self.pipeline.note, datasets))))

    def footnotes(self, *datasets: str) -> tuple[str, ...]:
        """What a reader has to know of our rows."""
        seeds = f"Sizes of the preset {self.pipeline.preset_name}; seeds {', '.join(map(str, self.seeds))}."
        note = self.note(*datasets)
        if not note:
            return (seeds,)
        return (seeds, f"Not real data ({note}): the numbers do not compare with the published ones, their order may.")


def scores_of(summary: Mapping[str, Mapping[str, float]], split: str = "test", segments_only: bool = False) -> Scores:
    """The scores in a summary of stage 2 or 4."""
    scores = scores_by_level(summary[split])
    return scores.segment if segments_only else scores


def comparison(
    study: Study,
    runner: Runner,
    title: str,
    ours: Mapping[str, Sequence[Job]],
    published: Mapping[str, Scores],
    notes: Sequence[str] = (),
) -> Table:
    """A table of F-scores on LLP test: under each published row ours of the same name, then ours that have none.

    Args:
        ours: by name, the jobs whose summaries hold the scores, one a seed.
        published: by name, in the paper's order. When all are of the segment level only, ours are too.
    """
    segments_only = all(isinstance(scores, LevelScores) for scores in published.values())
    rows = []
    for name in dict.fromkeys([*published, *ours]):
        if name in published:
            rows.append(ParsingRow(name, "test", published[name], "published"))
        if name in ours:
            scores = [scores_of(runner.summary(job), segments_only=segments_only) for job in ours[name]]
            rows.append(ParsingRow(name, "test", scores, study.note("UnAV", "LLP") or "ours"))
    return parsing_table(title, rows, [*notes, *study.footnotes("UnAV", "LLP")])


def against(study: Study, runner: Runner, reference: str, ours: Mapping[str, Sequence[Job]]) -> Table:
    """Each of our rows against one of them by a paired bootstrap over LLP's test videos; seeds are averaged first.

    Args:
        reference: the name that the others are compared with.
        ours: by name, the evaluations, one a seed.
    """
    predictions = {
        name: [load_predictions(runner.finished_output(job), "test") for job in jobs] for name, jobs in ours.items()
    }
    chosen = tuple((level, "Type") for level in LEVELS)
    rows = []
    for name, runs in predictions.items():
        if name == reference:
            continue
        compared = {(c.level, c.metric): c for c in compare_runs(runs, predictions[reference])}
        cells = [Cell(v) for c in map(compared.get, chosen) for v in (c.difference, c.low, c.high, c.p_value)]
        rows.append(Row((name,), tuple(cells), study.note("UnAV", "LLP") or "ours"))
    columns = [
        Column(column, level, 4 if column == "p" else 1)
        for level in LEVELS
        for column in ("difference", "2.5 %", "97.5 %", "p")
    ]
    notes = (
        f"Type@AV of the method less that of {reference}; 95 % percentile interval and two-sided p of a paired "
        "bootstrap over videos, 10,000 resamples. It says nothing about other seeds.",
        *study.footnotes("UnAV", "LLP"),
    )
    return Table(f"Methods against {reference} on LLP", ("Method",), tuple(columns), tuple(rows), notes)


def paired_values(
    study: Study,
    title: str,
    label_column: str,
    columns: Sequence[Column],
    rows: Mapping[str, tuple[Sequence[float | None], Sequence[Sequence[float]]]],
    datasets: Sequence[str],
    notes: Sequence[str] = (),
) -> Table:
    """A table of other numbers: under each published row ours.

    Args:
        rows: by name, the published values (None where the paper has none) and ours of each run, a value a column.
    """
    lines = []
    for name, (published, runs) in rows.items():
        if any(value is not None for value in published):
            cells = tuple(None if value is None else Cell(value) for value in published)
            lines.append(Row((name,), cells, "published"))
        cells = tuple(Cell.over_runs(values) for values in zip(*runs, strict=True))
        lines.append(Row((name,), cells, study.note(*datasets) or "ours"))
    return Table(title, (label_column,), tuple(columns), tuple(lines), (*notes, *study.footnotes(*datasets)))
