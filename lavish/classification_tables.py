"""Tables where every clip, or every second of it, has one class."""

from collections.abc import Sequence
from dataclasses import dataclass

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
