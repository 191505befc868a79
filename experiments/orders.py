"""Orders between rows that the paper's claims rest on, looked up in collected tables.

python -m experiments.orders results/small
"""

from utils.entry_point import run_entry_point

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from utils.errors import InputError
from utils.reporting.tables import Cell, Column, Row, Table, format_markdown


@dataclass(frozen=True)
class Order:
    """One of our rows should not score less than another in a column of a table."""

    claim: str
    table: str
    column: str
    better: str
    worse: str


TYPE = "Segment-level Type"
VIDEOS = "UWAV, {} % of the training videos"
ORDERS = (
    Order("UWAV over HAN", "table1", TYPE, "UWAV", "HAN"),
    Order("UWAV over MA", "table1", TYPE, "UWAV", "MA"),
    Order("UWAV over JoMoLD", "table1", TYPE, "UWAV", "JoMoLD"),
    Order("UWAV over CMPAE", "table1", TYPE, "UWAV", "CMPAE"),
    Order("UWAV over VALOR", "table1", TYPE, "UWAV", "VALOR"),
    Order("UWAV over LSLD", "table1", TYPE, "UWAV", "LSLD"),
    Order("UWAV over CoLeaF", "table1", TYPE, "UWAV", "CoLeaf"),
    Order("UWAV over LEAP", "table1", TYPE, "UWAV", "LEAP"),
    Order("JoMoLD over MA", "table1", TYPE, "JoMoLD", "MA"),
    Order("CMPAE over JoMoLD", "table1", TYPE, "CMPAE", "JoMoLD"),
    Order("LSLD over VALOR", "table1", TYPE, "LSLD", "VALOR"),
    Order("UWAV over video labels only", "table1", TYPE, "UWAV", "Video labels only, UWAV's network"),
    Order("UWAV over HAN on AVE", "table2", "Accuracy", "UWAV", "HAN"),
    Order("UWAV over VALOR on AVE", "table2", "Accuracy", "UWAV", "VALOR"),
    Order("Temporal transformer over VALOR, visual", "table3", "Segment-level V", "UWAV", "VALOR"),
    Order("All of UWAV over hard labels", "table4", TYPE, "soft+reweight+mixup", "hard"),
    Order("UWAV over VALOR on CLIP and CLAP", "tableA6", TYPE, "UWAV", "VALOR"),
    Order("100 % over 80 % of the videos", "tableA7_training_videos", TYPE, VIDEOS.format(100), VIDEOS.format(80)),
    Order("80 % over 60 % of the videos", "tableA7_training_videos", TYPE, VIDEOS.format(80), VIDEOS.format(60)),
)


def orders_table(results_dir: Path) -> Table:
    """Show each order with both scores, their difference and whether it holds; orders of absent tables are left out.

    Raises:
        InputError: when a table has no row of ours of such a name.
    """
    rows = []
    for order in ORDERS:
        path = results_dir / f"{order.table}.json"
        if not path.exists():
            continue
        ours = [row for row in json.loads(path.read_text())["rows"] if row["note"] != "published"]
        scores = {row["labels"]["Method"]: row["values"][order.column]["mean"] for row in ours}
        if absent := {order.better, order.worse} - scores.keys():
            raise InputError(path, f"no row of ours named {absent.pop()}", "one", "Run the table's script again.")
        better, worse = scores[order.better], scores[order.worse]
        cells = (Cell(better), Cell(worse), Cell(better - worse))
        rows.append(Row((order.claim, order.table, "yes" if better >= worse else "NO"), cells))
    columns = (Column("first"), Column("second"), Column("difference"))
    return Table("Orders", ("Claim", "Table", "Holds"), columns, tuple(rows))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.orders", description=__doc__.partition("\n")[0])
    parser.add_argument("results_dir", type=Path)
    print(format_markdown(orders_table(parser.parse_args(argv).results_dir)), end="")


if __name__ == "__main__":
    run_entry_point(main)
