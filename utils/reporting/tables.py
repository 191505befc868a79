"""Tables of results: what they hold, how they look, and how they are written."""

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from itertools import groupby
from pathlib import Path

from torch import Tensor

from dataloaders.ave import BACKGROUND
from utils.audio_visual import AudioVisual
from utils.files import write_text
from utils.method.metrics import (
    SCORE_NAMES,
    Counts,
    LevelScores,
    ParsingScores,
    both_modalities,
    class_f_scores,
    event_counts,
    segment_counts,
)


@dataclass(frozen=True)
class Cell:
    """A number: of one run, or the mean over several with their sample standard deviation."""

    mean: float
    std: float | None = None
    runs: int = 1

    @staticmethod
    def over_runs(values: Sequence[float]) -> "Cell":
        """Mean and sample standard deviation (n - 1) of one value a run; a single run has no deviation."""
        mean = math.fsum(values) / len(values)
        if len(values) == 1:
            return Cell(mean)
        variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
        return Cell(mean, math.sqrt(variance), len(values))


@dataclass(frozen=True)
class Column:
    """A column of numbers; neighbours with the same group stand under one heading."""

    name: str
    group: str = ""
    decimals: int = 1

    @property
    def full_name(self) -> str:
        return f"{self.group} {self.name}".strip()


@dataclass(frozen=True)
class Row:
    """One line: as many labels as the table has label columns, as many cells as it has columns."""

    labels: tuple[str, ...]
    cells: tuple[Cell | str | None, ...]  # None prints as an empty cell
    note: str = ""  # "published", "simulated features": printed in brackets after the first label

    @property
    def runs(self) -> int:
        return max((cell.runs for cell in self.cells if isinstance(cell, Cell)), default=1)

    @property
    def marked_labels(self) -> tuple[str, ...]:
        """The labels, with the note and the number of runs after the first."""
        marks = [self.note] if self.note else []
        if self.runs > 1:
            marks.append(f"{self.runs} runs")
        first, *others = self.labels
        return (f"{first} ({', '.join(marks)})" if marks else first, *others)


@dataclass(frozen=True)
class Table:
    """A table of any results."""

    title: str
    label_columns: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        for row in self.rows:
            if len(row.labels) != len(self.label_columns) or len(row.cells) != len(self.columns):
                raise ValueError(
                    f"row {row.labels} has {len(row.labels)} labels and {len(row.cells)} cells; table {self.title!r} "
                    f"has {len(self.label_columns)} label columns and {len(self.columns)} columns"
                )

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings over neighbouring columns, with the number of columns under each."""
        return [(group, len(list(columns))) for group, columns in groupby(column.group for column in self.columns)]

    @property
    def footnotes(self) -> tuple[str, ...]:
        several_runs = any(row.runs > 1 for row in self.rows)
        return (*self.notes, *(["Mean ± standard deviation over runs."] if several_runs else []))


# ---- formats


def _cell_text(cell: Cell | str | None, decimals: int) -> tuple[str, str]:
    """The number and its deviation, apart, so that numbers with and without one line up."""
    if not isinstance(cell, Cell):
        return cell or "", ""
    return f"{cell.mean:.{decimals}f}", "" if cell.std is None else f" ± {cell.std:.{decimals}f}"


def format_text(table: Table) -> str:
    """Aligned plain text, as it is printed on the terminal."""
    label_texts = [row.marked_labels for row in table.rows]
    label_widths = [
        max(map(len, [name, *(labels[i] for labels in label_texts)])) for i, name in enumerate(table.label_columns)
    ]
    bodies, widths = [], []  # one entry a column
    for i, column in enumerate(table.columns):
        parts = [_cell_text(row.cells[i], column.decimals) for row in table.rows]
        mean_width = max((len(mean) for mean, _ in parts), default=0)
        std_width = max((len(std) for _, std in parts), default=0)
        bodies.append([mean.rjust(mean_width) + std.ljust(std_width) for mean, std in parts])
        widths.append(max(len(column.name), mean_width + std_width))

    def group_width(start: int, size: int) -> int:
        return sum(widths[start : start + size]) + 2 * (size - 1)

    start = 0
    for group, size in table.groups:  # a heading wider than its columns widens the last of them
        widths[start + size - 1] += max(0, len(group) - group_width(start, size))
        start += size
    gap = "   "  # between groups; two blanks between the columns of one

    def line(labels: Sequence[str], cells: Sequence[str]) -> str:
        blocks, start = ["  ".join(text.ljust(width) for text, width in zip(labels, label_widths, strict=True))], 0
        for _, size in table.groups:
            inside = range(start, start + size)
            blocks.append("  ".join(cells[i].rjust(widths[i]) for i in inside))
            start += size
        return gap.join(blocks).rstrip()

    lines = [table.title, ""]
    if any(group for group, _ in table.groups):
        headings, start = [" " * (sum(label_widths) + 2 * (len(label_widths) - 1))], 0
        for group, size in table.groups:
            headings.append(group.center(group_width(start, size), "-" if group else " "))
            start += size
        lines.append(gap.join(headings).rstrip())
    lines.append(line(table.label_columns, [column.name for column in table.columns]))
    lines.append("-" * max(map(len, lines[2:])))
    lines += [line(labels, [body[i] for body in bodies]) for i, labels in enumerate(label_texts)]
    if table.footnotes:
        lines += ["", *table.footnotes]
    return "\n".join(lines) + "\n"


def format_markdown(table: Table) -> str:
    """GitHub's Markdown. It knows no second header line, so with groups the column names are a bold first row."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    names = [column.name for column in table.columns]
    headers = [line([*table.label_columns, *names])]
    if any(group for group, _ in table.groups):
        headings = [text for group, size in table.groups for text in (group, *[""] * (size - 1))]
        bold = [f"**{name}**" for name in names]
        headers = [line([*table.label_columns, *headings]), line([""] * len(table.label_columns) + bold)]
    rule = "|" + "---|" * len(table.label_columns) + "---:|" * len(table.columns)
    body = [
        line(
            [
                *row.marked_labels,
                *(
                    "".join(_cell_text(*pair))
                    for pair in zip(row.cells, (c.decimals for c in table.columns), strict=True)
                ),
            ]
        )
        for row in table.rows
    ]
    notes = [text for note in table.footnotes for text in ("", note)]
    return "\n".join([f"### {table.title}", "", headers[0], rule, *headers[1:], *body, *notes]) + "\n"


def format_csv(table: Table) -> str:
    """One line a row for other programs: all digits, empty cells empty, deviations in columns of their own."""
    has_std = [
        any(isinstance(row.cells[i], Cell) and row.cells[i].std is not None for row in table.rows)
        for i in range(len(table.columns))
    ]
    header = [*table.label_columns, "Note", "Runs"]
    for column, with_std in zip(table.columns, has_std, strict=True):
        header += [column.full_name, *([f"{column.full_name} std"] if with_std else [])]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in table.rows:
        cells: list[object] = []
        for cell, with_std in zip(row.cells, has_std, strict=True):
            mean, std = (_plain(cell.mean), cell.std) if isinstance(cell, Cell) else (cell, None)
            cells += [mean, *([None if std is None else _plain(std)] if with_std else [])]
        writer.writerow([*row.labels, row.note, row.runs, *cells])
    return stream.getvalue()


def format_json(table: Table) -> str:
    """Everything that the table holds; a cell is null, a text, or an object of mean, std and runs."""

    def cell_json(cell: Cell | str | None) -> object:
        return {"mean": cell.mean, "std": cell.std, "runs": cell.runs} if isinstance(cell, Cell) else cell

    content = {
        "title": table.title,
        "notes": list(table.footnotes),
        "rows": [
            {
                "labels": dict(zip(table.label_columns, row.labels, strict=True)),
                "note": row.note,
                "values": {
                    column.full_name: cell_json(cell) for column, cell in zip(table.columns, row.cells, strict=True)
                },
            }
            for row in table.rows
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: float) -> int | float:
    """A count without a decimal point, another number without the noise of its last bits."""
    return int(value) if value == int(value) else round(value, 6)


FORMATS: dict[str, Callable[[Table], str]] = {
    ".txt": format_text,
    ".md": format_markdown,
    ".csv": format_csv,
    ".json": format_json,
}


def write_table(path: Path, table: Table) -> Path:
    """Write one file atomically, in the format of its suffix."""
    write_text(path, FORMATS[path.suffix](table))
    return path


def write_tables(path_stem: Path, table: Table) -> list[Path]:
    """Write `<stem>.txt`, `.md`, `.csv` and `.json`, each atomically."""
    return [write_table(path_stem.with_name(path_stem.name + suffix), table) for suffix in FORMATS]


# ---- parsing, Table 1 and its kin

LEVELS = ("Segment-level", "Event-level")


@dataclass(frozen=True)
class ParsingRow:
    """One method on one split: the scores of one run, or of several."""

    name: str
    split: str
    scores: ParsingScores | LevelScores | Sequence[ParsingScores] | Sequence[LevelScores]
    note: str = ""


def parsing_table(title: str, rows: Sequence[ParsingRow], notes: Sequence[str] = ()) -> Table:
    """Laid out like the paper's Table 1: segment-level A V AV Type Event, then event-level.

    Rows of `LevelScores` (Tables 3 and A7) are of the segment level; when all rows are, the event level is left out.
    """
    runs = [row.scores if isinstance(row.scores, Sequence) else [row.scores] for row in rows]
    with_events = any(isinstance(scores, ParsingScores) for scores_of_row in runs for scores in scores_of_row)
    levels = LEVELS if with_events else LEVELS[:1]
    columns = tuple(Column(name, level) for level in levels for name in SCORE_NAMES)

    def cells(scores_of_row: Sequence[ParsingScores | LevelScores]) -> tuple[Cell | None, ...]:
        values = [_score_values(scores) for scores in scores_of_row]  # (runs, 10 or 5)
        over_runs = [Cell.over_runs(column) for column in zip(*values, strict=True)]
        return (*over_runs, *[None] * (len(columns) - len(over_runs)))

    return Table(
        title,
        ("Method", "Split"),
        columns,
        tuple(Row((row.name, row.split), cells(scores), row.note) for row, scores in zip(rows, runs, strict=True)),
        ("F-scores in percent.", *notes),
    )


def _score_values(scores: ParsingScores | LevelScores) -> tuple[float, ...]:
    if isinstance(scores, LevelScores):
        return astuple(scores)
    return (*astuple(scores.segment), *astuple(scores.event))


def per_class_scores(
    prediction: AudioVisual[Tensor],
    truth: AudioVisual[Tensor],
    classes: Sequence[str],
    title: str = "F-scores and support per class",
    note: str = "",
) -> Table:
    """F-score (percent) and support of each class over a split: (N, T, C) bool each -> one row a class.

    F = 2TP / (2TP + FP + FN) with the counts summed over all videos. It is 0 for a class that is predicted but never
    true, and empty for a class that is neither: that is not a failure. Support is the number of true segments, true
    events, and videos with a true segment.
    """
    pairs = {
        "A": (prediction.audio, truth.audio),
        "V": (prediction.visual, truth.visual),
        "AV": (both_modalities(prediction), both_modalities(truth)),
    }
    columns: list[Column] = []
    values: list[list[Cell | None]] = []  # one list over classes a column
    for level, support_name, count in zip(
        LEVELS, ("True segments", "True events"), (segment_counts, event_counts), strict=True
    ):
        counts = {name: count(*pair) for name, pair in pairs.items()}  # of each video, (N, C)
        totals = {name: Counts(c.tp.sum(dim=0), c.fp.sum(dim=0), c.fn.sum(dim=0)) for name, c in counts.items()}
        for name, total in totals.items():
            f_scores, occurs = (x.tolist() for x in class_f_scores(total))
            columns.append(Column(name, f"{level} F"))
            values.append([Cell(100 * f) if there else None for f, there in zip(f_scores, occurs, strict=True)])
        for name, total in totals.items():
            columns.append(Column(name, support_name, decimals=0))
            values.append([Cell(n) for n in (total.tp + total.fn).tolist()])
    for name, (_, true) in pairs.items():
        columns.append(Column(name, "Videos", decimals=0))
        values.append([Cell(n) for n in true.any(dim=1).sum(dim=0).tolist()])
    rows = tuple(Row((name,), tuple(column[c] for column in values), note) for c, name in enumerate(classes))
    return Table(title, ("Class",), tuple(columns), rows, ("F-scores in percent, counts summed over videos.",))


# ---- AVE


def accuracy_table(
    title: str, rows: Sequence[tuple[str, str, Sequence[float], str]], notes: Sequence[str] = ()
) -> Table:
    """Laid out like the paper's Table 2: rows of (method, split, accuracies in percent of the runs, note)."""
    return Table(
        title,
        ("Method", "Split"),
        (Column("Accuracy"),),
        tuple(Row((name, split), (Cell.over_runs(runs),), note) for name, split, runs, note in rows),
        ("Percent of segments whose label is right.", *notes),
    )


def per_class_accuracy(
    matrix: Tensor,
    classes: Sequence[str],
    title: str = "Accuracy per class",
    note: str = "",
    unit: str = "segments",
) -> Table:
    """Share of what a label is true of that got it (recall), and the counts behind it: one row a label.

    Args:
        matrix: counts, rows the truth: (C + 1, C + 1) with background last, or (C, C) without it.
        unit: what is counted.
    """
    right, true, predicted = matrix.diag().tolist(), matrix.sum(dim=1).tolist(), matrix.sum(dim=0).tolist()
    rows = [
        Row((name,), (Cell(100 * r / t) if t else None, Cell(r), Cell(t), Cell(p)), note)
        for name, r, t, p in zip(_labels(matrix, classes), right, true, predicted, strict=True)
    ]
    total = sum(true)
    overall = Cell(100 * sum(right) / total) if total else None
    rows.append(Row(("all",), (overall, Cell(sum(right)), Cell(total), Cell(total)), note))
    counts = (Column(name, unit.capitalize(), 0) for name in ("right", "true", "predicted"))
    footnote = f"Accuracy: percent of a label's {unit} that got it."
    return Table(title, ("Class",), (Column("Accuracy"), *counts), tuple(rows), (footnote,))


def confusion_table(matrix: Tensor, classes: Sequence[str], title: str = "Confusion matrix", note: str = "") -> Table:
    """The confusion matrix as counts: rows are the truth, columns the prediction. Args: as of `per_class_accuracy`."""
    names = _labels(matrix, classes)
    rows = tuple(
        Row((name,), tuple(Cell(n) for n in line), note) for name, line in zip(names, matrix.tolist(), strict=True)
    )
    return Table(title, ("Truth",), tuple(Column(name, "Predicted", 0) for name in names), rows)


def _labels(matrix: Tensor, classes: Sequence[str]) -> tuple[str, ...]:
    """The classes, and background where the matrix has it and they do not."""
    return (*classes, BACKGROUND)[: len(matrix)]
