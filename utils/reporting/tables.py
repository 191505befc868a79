"""Tables of results: content, formats and files."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from dataloaders.ave import BACKGROUND
from utils.audio_visual import AudioVisual
from utils.files import write_text
from utils.method import metrics
from utils.method.metrics import LEVEL_NAMES, SCORE_NAMES, both_modalities

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters of a spreadsheet formula


@dataclass(frozen=True)
class Cell:
    """The number of one run, or the mean over several with their sample standard deviation."""

    mean: float
    std: float | None = None
    runs: int = 1

    @staticmethod
    def over_runs(values: Sequence[float]) -> "Cell":
        """Return the mean and sample standard deviation (n - 1) of one value per run; one run has no deviation."""
        mean = math.fsum(values) / len(values)
        if len(values) == 1:
            return Cell(mean)
        variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
        return Cell(mean, math.sqrt(variance), len(values))


@dataclass(frozen=True)
class Column:
    """A column of numbers; neighbouring columns with the same group share a heading."""

    name: str
    group: str = ""
    decimals: int = 1

    @property
    def full_name(self) -> str:
        return f"{self.group} {self.name}".strip()


@dataclass(frozen=True)
class Row:
    """A row: one label per label column, one cell per column."""

    labels: tuple[str, ...]
    cells: tuple[Cell | str | None, ...]  # None: an empty cell
    note: str = ""  # such as "published" or "simulated features": printed in brackets after the first label

    @property
    def runs(self) -> int:
        return max((cell.runs for cell in self.cells if isinstance(cell, Cell)), default=1)

    @property
    def marked_labels(self) -> tuple[str, ...]:
        """Return the labels, the first followed by the note and the number of runs."""
        marks = ", ".join(filter(None, (self.note, f"{self.runs} runs" if self.runs > 1 else "")))
        first, *others = self.labels
        return (f"{first} ({marks})" if marks else first, *others)


@dataclass(frozen=True)
class Table:
    """A table of results."""

    title: str
    label_columns: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        for row in self.rows:
            if (len(row.labels), len(row.cells)) != (len(self.label_columns), len(self.columns)):
                found = f"{len(row.labels)} labels and {len(row.cells)} cells"
                raise ValueError(f"row {row.labels} does not fit table {self.title!r}: {found}")

    @property
    def groups(self) -> list[tuple[str, list[str]]]:
        """Return the headings over neighbouring columns, each with the names of its columns."""
        by_group = groupby(self.columns, key=lambda column: column.group)
        return [(group, [column.name for column in columns]) for group, columns in by_group]

    @property
    def footnotes(self) -> tuple[str, ...]:
        if all(row.runs == 1 for row in self.rows):
            return self.notes
        return (*self.notes, "Mean ± standard deviation over runs.")


# ---- formats


def _texts(table: Table) -> list[list[str]]:
    """Return the printed texts column by column, labels first; the numbers of a column are padded to align."""
    columns = [[row.marked_labels[i] for row in table.rows] for i in range(len(table.label_columns))]
    for i, column in enumerate(table.columns):
        means, deviations = [], []
        for row in table.rows:
            cell, std = row.cells[i], None
            if isinstance(cell, Cell):
                cell, std = f"{cell.mean:.{column.decimals}f}", cell.std
            means.append(cell or "")
            deviations.append("" if std is None else f" ± {std:.{column.decimals}f}")
        padded = zip(_padded(means, str.rjust), _padded(deviations, str.ljust), strict=True)
        columns.append([mean + deviation for mean, deviation in padded])
    return columns


def _padded(texts: Sequence[str], justify: Callable[[str, int], str]) -> list[str]:
    """Pad texts to equal width by `str.ljust` or `str.rjust`."""
    width = max(map(len, texts), default=0)
    return [justify(text, width) for text in texts]


def _block(heading: str, names: Sequence[str], columns: Sequence[list[str]], justify: Callable) -> list[str]:
    """Return the lines of neighbouring columns: heading, names and cells; a wide heading widens the last column."""
    padded = [_padded([name, *texts], justify) for name, texts in zip(names, columns, strict=True)]
    width = len("  ".join(column[0] for column in padded))
    padded[-1] = [text.rjust(len(text) + len(heading) - width) for text in padded[-1]]
    return [heading.center(width, "-" if heading else " "), *map("  ".join, zip(*padded, strict=True))]


def format_text(table: Table) -> str:
    """Format as aligned plain text for terminals."""
    texts, start = _texts(table), len(table.label_columns)
    blocks = [_block("", table.label_columns, texts[:start], str.ljust)]
    for group, names in table.groups:
        blocks.append(_block(group, names, texts[start : start + len(names)], str.rjust))
        start += len(names)
    headings, names, *body = ("   ".join(parts).rstrip() for parts in zip(*blocks, strict=True))
    head = [headings, names] if headings else [names]
    rule = "-" * max(map(len, head))
    footnotes = ["", *table.footnotes] if table.footnotes else []
    return "\n".join([table.title, "", *head, rule, *body, *footnotes]) + "\n"


def format_markdown(table: Table) -> str:
    """Format as GitHub's Markdown. It has one header line, so that under headings the names are a bold first row."""
    names = [column.name for column in table.columns]
    lines = [[*table.label_columns, *names]]
    if any(group for group, _ in table.groups):
        headings = [text for group, members in table.groups for text in (group, *[""] * (len(members) - 1))]
        bold = [f"**{name}**" for name in names]
        lines = [[*table.label_columns, *headings], [""] * len(table.label_columns) + bold]
    lines += zip(*_texts(table), strict=True)
    head, *rows = ("| " + " | ".join(cell.strip().replace("|", "\\|") for cell in cells) + " |" for cells in lines)
    rule = "|" + "---|" * len(table.label_columns) + "---:|" * len(table.columns)
    notes = [text for note in table.footnotes for text in ("", note)]
    return "\n".join([f"### {table.title}", "", head, rule, *rows, *notes]) + "\n"


def format_csv(table: Table) -> str:
    """Format as CSV for other programs: up to six decimals, deviations in separate columns."""
    import pandas as pd

    columns = {name: [csv_cell(row.labels[i]) for row in table.rows] for i, name in enumerate(table.label_columns)}
    columns |= {"Note": [row.note for row in table.rows], "Runs": [row.runs for row in table.rows]}
    for i, column in enumerate(table.columns):
        cells = [row.cells[i] for row in table.rows]
        columns[column.full_name] = [_plain(cell.mean) if isinstance(cell, Cell) else cell for cell in cells]
        deviations = [_plain(cell.std) if isinstance(cell, Cell) else None for cell in cells]
        if any(std is not None for std in deviations):
            columns[f"{column.full_name} std"] = deviations
    return pd.DataFrame(columns, dtype=object).to_csv(index=False)


def csv_cell(text: str) -> str:
    """Return a text for CSV, quoted if a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def format_json(table: Table) -> str:
    """Format the whole table as JSON; a cell is null, a text, or an object of mean, std and runs."""
    names, rows = [column.full_name for column in table.columns], []
    for row in table.rows:
        labels = dict(zip(table.label_columns, row.labels, strict=True))
        rows.append({"labels": labels, "note": row.note, "values": dict(zip(names, row.cells, strict=True))})
    content = {"title": table.title, "notes": table.footnotes, "rows": rows}
    return json.dumps(content, default=vars, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: float | None) -> int | float | None:
    """Return whole numbers as int, and others without the rounding noise of their last bits."""
    if value is None:
        return None
    return int(value) if value == int(value) else round(value, 6)


FORMATS = {".txt": format_text, ".md": format_markdown, ".csv": format_csv, ".json": format_json}


def write_table(path: Path, table: Table) -> Path:
    """Write a table atomically, in the format of the file's suffix."""
    write_text(path, FORMATS[path.suffix](table))
    return path


def write_tables(path_stem: Path, table: Table) -> list[Path]:
    """Write `<stem>.txt`, `.md`, `.csv` and `.json`, each atomically."""
    return [write_table(path_stem.with_name(path_stem.name + suffix), table) for suffix in FORMATS]


# ---- comparisons of methods, as in the paper's Tables 1 and 2

LEVELS = ("Segment-level", "Event-level")
MODALITY_NAMES = ("A", "V", "AV")
F_SCORES = {
    f"{level}_{name}": Column(name, heading)
    for level, heading in zip(LEVEL_NAMES, LEVELS, strict=True)
    for name in SCORE_NAMES
}


@dataclass(frozen=True)
class ScoreRow:
    """A method on a split: scores in percent by name, of one or several runs."""

    name: str
    split: str
    runs: Sequence[Mapping[str, float]]
    note: str = ""


def score_table(title: str, columns: Mapping[str, Column], rows: Sequence[ScoreRow], notes: Sequence[str]) -> Table:
    """Lay out scores, one row per method and split; columns for which no row has a score are left out."""
    shown = {name: column for name, column in columns.items() if any(name in row.runs[0] for row in rows)}
    lines = []
    for row in rows:
        cells = [Cell.over_runs([run[n] for run in row.runs]) if n in row.runs[0] else None for n in shown]
        lines.append(Row((row.name, row.split), tuple(cells), row.note))
    return Table(title, ("Method", "Split"), tuple(shown.values()), tuple(lines), tuple(notes))


def parsing_table(title: str, rows: Sequence[ScoreRow], notes: Sequence[str] = ()) -> Table:
    """Lay out F-scores like the paper's Table 1: segment-level A V AV Type Event, then event-level."""
    return score_table(title, F_SCORES, rows, ("F-scores in percent.", *notes))


def accuracy_table(title: str, rows: Sequence[ScoreRow], notes: Sequence[str] = ()) -> Table:
    """Lay out accuracies like the paper's Table 2."""
    columns = {"accuracy": Column("Accuracy")}
    return score_table(title, columns, rows, ("Percentage of correctly labelled segments.", *notes))


# ---- classes


def per_class_scores(
    prediction: AudioVisual[Tensor],
    truth: AudioVisual[Tensor],
    classes: Sequence[str],
    title: str = "F-scores and support per class",
    note: str = "",
) -> Table:
    """Return the F-score (percent) and support of each class, one row per class: (N, T, C) bool each.

    F = 2TP / (2TP + FP + FN) with the counts summed over all videos: 0 for a class that is predicted but never true,
    empty for a class that is neither. Support is the number of true segments, events, and videos with the event.
    """
    predicted = (*prediction, both_modalities(prediction))  # A, V and AV
    true = (*truth, both_modalities(truth))
    columns = {}  # (C,) numbers each
    count_by_support = {"segments": metrics.segment_counts, "events": metrics.event_counts}
    for level, (support, count) in zip(LEVELS, count_by_support.items(), strict=True):
        counts = [count(*pair) for pair in zip(predicted, true, strict=True)]  # of each video, (N, C)
        totals = [metrics.Counts(c.tp.sum(dim=0), c.fp.sum(dim=0), c.fn.sum(dim=0)) for c in counts]
        for name, (f, occurs) in zip(MODALITY_NAMES, map(metrics.class_f_scores, totals), strict=True):
            columns[Column(name, f"{level} F")] = torch.where(occurs, 100 * f, torch.nan)
        for name, total in zip(MODALITY_NAMES, totals, strict=True):
            columns[Column(name, f"True {support}", 0)] = total.tp + total.fn
    columns |= {Column(n, "Videos", 0): of.any(dim=1).sum(dim=0) for n, of in zip(MODALITY_NAMES, true, strict=True)}
    return class_table(title, classes, columns, ["F-scores in percent, counts summed over videos."], note)


def per_class_accuracy(
    matrix: Tensor,  # counts, rows are the truth: (C + 1, C + 1) with background last, or (C, C) without it
    classes: Sequence[str],
    title: str = "Accuracy per class",
    note: str = "",
    unit: str = "segments",  # what is counted
) -> Table:
    """Return the recall of each label in percent, and its counts: one row per label, and one for all."""
    counts = (matrix.diag(), matrix.sum(dim=1), matrix.sum(dim=0))
    right, true, predicted = (torch.cat([n, n.sum(dim=0, keepdim=True)]) for n in counts)  # last: over all labels
    columns = {Column("Accuracy"): 100 * right.double() / true}  # 0 / 0 is NaN
    for name, numbers in {"right": right, "true": true, "predicted": predicted}.items():
        columns[Column(name, unit.capitalize(), 0)] = numbers
    notes = [f"Accuracy: percentage of a label's {unit} that are predicted correctly."]
    return class_table(title, (*_labels(matrix, classes), "all"), columns, notes, note)


def confusion_table(
    matrix: Tensor, classes: Sequence[str], title: str = "Confusion matrix", note: str = "", shares: bool = False
) -> Table:
    """Return the counts of a confusion matrix as in `per_class_accuracy`: rows are the truth, columns predictions.

    With `shares`, columns with percentages of each true label follow.
    """
    names = _labels(matrix, classes)
    columns = {Column(name, "Predicted", 0): column for name, column in zip(names, matrix.T, strict=True)}
    if shares:
        of_truth = 100 * matrix.double() / matrix.sum(dim=1, keepdim=True)  # 0 / 0 is NaN
        columns |= {Column(name, "Share (%)"): column for name, column in zip(names, of_truth.T, strict=True)}
    return class_table(title, names, columns, note=note, label="Truth")


def _labels(matrix: Tensor, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a matrix's rows: the classes, and background if it has one more row."""
    return (*classes, BACKGROUND)[: len(matrix)]


def class_table(
    title: str,
    classes: Sequence[str],
    columns: Mapping[Column, Tensor],
    notes: Sequence[str] = (),
    note: str = "",
    label: str = "Class",
) -> Table:
    """Return a table with one row per class from columns of numbers, (C,) each; NaN becomes an empty cell."""
    values = zip(classes, *(column.tolist() for column in columns.values()), strict=True)
    rows = [Row((name,), tuple(None if math.isnan(n) else Cell(n) for n in cells), note) for name, *cells in values]
    return Table(title, (label,), tuple(columns), tuple(rows), tuple(notes))
