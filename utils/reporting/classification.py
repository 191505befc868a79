"""Tables where every clip, or every second of it, has one class."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from utils.reporting.tables import Cell, Column, Row, Table


@dataclass(frozen=True)
class ClassifierRow:
    """One model on one split, over one run or several."""

    name: str
    split: str
    scores: Sequence[dict[str, float]]  # of each run, percent by name
    trained: int | None = None  # parameters
    total: int | None = None
    note: str = ""


def classifier_table(title: str, scores: dict[str, str], rows: Sequence[ClassifierRow]) -> Table:
    """Scores beside trained and all parameters, as LAVISH's tables have them.

    Args:
        scores: heading of each score, by name.
    """
    columns = (*(Column(heading) for heading in scores.values()), Column("trained", "M parameters", 2))
    columns = (*columns, Column("all", "M parameters", 2))
    lines = []
    for row in rows:
        cells = [Cell.over_runs([run[name] for run in row.scores]) for name in scores]
        cells += [None if number is None else Cell(number / 1e6) for number in (row.trained, row.total)]
        lines.append(Row((row.name, row.split), tuple(cells), row.note))
    return Table(title, ("Model", "Split"), columns, tuple(lines), ("Scores in percent.",))


def class_accuracy_table(matrix: Tensor, classes: Sequence[str], title: str, unit: str, note: str = "") -> Table:
    """Accuracy of each class and the counts behind it: (C, C) counts, rows the truth.

    Args:
        unit: what is counted, such as "clips".
    """
    right, true, predicted = matrix.diag().tolist(), matrix.sum(dim=1).tolist(), matrix.sum(dim=0).tolist()
    rows = [
        Row((name,), (Cell(100 * r / t) if t else None, Cell(r), Cell(t), Cell(p)), note)
        for name, r, t, p in zip(classes, right, true, predicted, strict=True)
    ]
    rows.append(
        Row(("all",), (Cell(100 * sum(right) / sum(true)), *map(Cell, (sum(right), sum(true), sum(true)))), note)
    )
    counts = (Column(name, unit.capitalize(), 0) for name in ("right", "true", "predicted"))
    footnote = f"Accuracy: percent of a class's {unit} that were recognised."
    return Table(title, ("Class",), (Column("Accuracy"), *counts), tuple(rows), (footnote,))


def label_confusion_table(matrix: Tensor, classes: Sequence[str], title: str, note: str = "") -> Table:
    """(C, C) counts: rows are the truth, columns the prediction."""
    lines = zip(classes, matrix.tolist(), strict=True)
    rows = tuple(Row((name,), tuple(Cell(n) for n in line), note) for name, line in lines)
    return Table(title, ("Truth",), tuple(Column(name, "Predicted", 0) for name in classes), rows)
