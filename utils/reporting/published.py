"""The numbers that the paper prints, from data/paper_results.yaml."""

from functools import cache
from pathlib import Path

import yaml

from utils.method.metrics import LevelScores, ParsingScores

PAPER_RESULTS = Path(__file__).resolve().parents[2] / "data" / "paper_results.yaml"


@cache
def _paper_results() -> dict:
    return yaml.safe_load(PAPER_RESULTS.read_text(encoding="utf-8"))


def published_value(table: str, *keys: str | int) -> float:
    """Return one number: `published_value("table2_ave_accuracy", "UWAV")` -> 80.6 (percent).

    Raises:
        KeyError: the paper prints no such number.
    """
    value = _paper_results()[table]
    for key in keys:
        value = value[key]
    if not isinstance(value, int | float):
        raise KeyError(f"{table} {' '.join(map(str, keys))} is not one number")
    return float(value)


def table_number(table: str) -> str:
    """Return what the paper calls a table: `table_number("table1_llp")` -> "Table 1"."""
    return table.partition("_")[0].replace("table", "Table ")


def published_methods(table: str | None) -> tuple[str | int, ...]:
    """Return the rows of a table, in the paper's order; of no table, none."""
    return tuple(_paper_results()[table]) if table else ()


def published_row(table: str, method: str) -> ParsingScores:
    """Return both levels of one row: `published_row("table1_llp", "UWAV")`, percent.

    Raises:
        KeyError: no such row, or the table is not one of both levels (Tables 1, 4/A8 and A6 are).
    """
    row = _paper_results()[table][method]
    return ParsingScores(LevelScores(*row["segment"]), LevelScores(*row["event"]))


def published_segment_row(table: str, method: str | int) -> LevelScores:
    """Return one row of a table that has the segment level only (Tables 3 and A7), percent.

    Raises:
        KeyError: no such row.
    """
    return LevelScores(*_paper_results()[table][method])
