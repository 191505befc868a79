"""The numbers published in the paper, from data/paper_results.yaml."""

from functools import cache
from pathlib import Path

import yaml

from utils.method.metrics import SCORE_NAMES

PAPER_RESULTS = Path(__file__).resolve().parents[2] / "data" / "paper_results.yaml"


@cache
def _paper_results() -> dict:
    return yaml.safe_load(PAPER_RESULTS.read_text(encoding="utf-8"))


def published_value(table: str, *keys: str | int) -> float:
    """Return one number, `published_value("table2_ave_accuracy", "UWAV")` -> 80.6 (percent), or raise KeyError."""
    value = _paper_results()[table]
    for key in keys:
        value = value[key]
    if not isinstance(value, int | float):
        raise KeyError(f"{table} {' '.join(map(str, keys))} is not one number")
    return float(value)


def table_number(table: str) -> str:
    """Return a table's name in the paper: `table_number("table1_llp")` -> "Table 1"."""
    return table.partition("_")[0].replace("table", "Table ")


def published_methods(table: str | None) -> tuple[str | int, ...]:
    """Return the methods of a table in the paper's order; empty without a table."""
    return tuple(_paper_results()[table]) if table else ()


def published_scores(table: str, method: str | int) -> dict[str, float]:
    """Return a row's scores in percent by name, such as "segment_A" (Table 2: "accuracy"), or raise KeyError."""
    row = _paper_results()[table][method]
    if isinstance(row, int | float):
        return {"accuracy": float(row)}
    levels = row if isinstance(row, dict) else {"segment": row}
    return {f"{level}_{n}": x for level, scores in levels.items() for n, x in zip(SCORE_NAMES, scores, strict=True)}
