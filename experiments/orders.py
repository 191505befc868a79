"""Check in collected tables whether methods rank as the paper claims.

python -m experiments.orders results/small
"""

from utils.entry_point import run_entry_point

import argparse
import json
from pathlib import Path

from utils.errors import InputError
from utils.reporting.tables import Cell, Column, Row, Table, format_markdown

TYPE = "Segment-level Type"
OF_VIDEOS = "UWAV, {} % of the training videos"
# Table, column, and two of our rows, of which the first should score at least as high as the second.
ORDERS = (
    *[("table1", TYPE, "UWAV", name) for name in ("HAN", "MA", "JoMoLD", "CMPAE", "VALOR", "LSLD", "CoLeaf", "LEAP")],
    ("table1", TYPE, "JoMoLD", "MA"),
    ("table1", TYPE, "CMPAE", "JoMoLD"),
    ("table1", TYPE, "LSLD", "VALOR"),
    ("table1", TYPE, "UWAV", "Video labels only, UWAV's network"),
    ("table2", "Accuracy", "UWAV", "HAN"),
    ("table2", "Accuracy", "UWAV", "VALOR"),
    ("table3", "Segment-level V", "UWAV", "VALOR"),
    ("table4", TYPE, "soft+reweight+mixup", "hard"),
    ("tableA6", TYPE, "UWAV", "VALOR"),
    ("tableA7_training_videos", TYPE, OF_VIDEOS.format(100), OF_VIDEOS.format(80)),
    ("tableA7_training_videos", TYPE, OF_VIDEOS.format(80), OF_VIDEOS.format(60)),
)


def orders_table(results_dir: Path) -> Table:
    """Return each order with both scores, their difference and whether it holds, without those of absent tables."""
    rows = []
    for table, column, better, worse in ORDERS:
        path = results_dir / f"{table}.json"
        if not path.exists():
            continue
        ours = [row for row in json.loads(path.read_text())["rows"] if row["note"] != "published"]
        scores = {row["labels"]["Method"]: row["values"][column]["mean"] for row in ours}
        if absent := {better, worse} - scores.keys():
            raise InputError(path, f"no row of ours named {absent.pop()}", "one", "Run the table's script again.")
        first, second = scores[better], scores[worse]
        labels = (f"{better} above {worse}", f"{table}, {column}", "yes" if first >= second else "NO")
        rows.append(Row(labels, (Cell(first), Cell(second), Cell(first - second))))
    columns = (Column("first"), Column("second"), Column("difference"))
    return Table("Rankings", ("Claim", "Table", "Holds"), columns, tuple(rows))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results_dir", type=Path)
    print(format_markdown(orders_table(parser.parse_args(argv).results_dir)), end="")


if __name__ == "__main__":
    run_entry_point(main)
