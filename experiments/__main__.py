"""Reproduce tables and figures of the paper, with the published numbers beside ours, and further experiments.

Every run has its own folder, named after its settings: finished runs are shared by all tables and not repeated, and an
interrupted training resumes from its last epoch.
"""

from utils.entry_point import run_entry_point

import argparse
import re
from dataclasses import replace
from pathlib import Path

from experiments import beyond
from experiments import paper_tables as tables
from experiments.jobs import PRESETS, Runner, Study
from utils.provenance import read_provenance
from utils.reporting.tables import format_text, write_table
from utils.settings import whole_number
from utils.training.device import PRECISIONS

FUNCTIONS = (tables.table1, tables.significance, tables.table2, tables.table3, tables.table4, tables.table_a5)
FUNCTIONS += (tables.table_a6, tables.table_a7, tables.table_a9, tables.figure_a4, tables.figure_a5, tables.qualitative)
FUNCTIONS += (beyond.additions, beyond.selection, beyond.factorial)
EXPERIMENTS = {function.__name__.replace("_a", "A"): function for function in FUNCTIONS}  # `table_a5` is "tableA5"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiments", nargs="+", choices=EXPERIMENTS, metavar="NAME", help=", ".join(EXPERIMENTS))
    parser.add_argument("--seeds", type=whole_number(0), nargs="+", default=[20000], help="seeds of stage 3")
    parser.add_argument("--preset", default="paper", help=f"sizes and epochs: {', '.join(PRESETS)}, or a YAML file")
    parser.add_argument("--data_root", type=Path, default=Path("data"), help="folder with LLP/, UnAV/ and AVE/")
    parser.add_argument("--annotations_root", type=Path, help="same for annotation files (default: data_root)")
    parser.add_argument("--runs_dir", type=Path, default=Path("temp_train_logs/paper"), help="folder of all runs")
    parser.add_argument("--results_dir", type=Path, help="folder of tables and figures (default: results[/<preset>])")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or mps (default: the fastest available)")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--allow_missing", action="store_true", help="leave out videos without feature files")
    parser.add_argument("--list", action="store_true", help="print the missing runs and exit")
    args = parser.parse_args(argv)
    seeds, where = tuple(dict.fromkeys(args.seeds)), (args.data_root, args.annotations_root or args.data_root)
    study = Study(args.preset, *where, seeds, args.precision, args.allow_missing)
    experiments = {name: EXPERIMENTS[name](study) for name in args.experiments}
    runner = Runner(args.runs_dir, args.device)
    results_dir = args.results_dir or Path("results") / ("" if args.preset == "paper" else Path(args.preset).stem)

    wanted = dict.fromkeys(job for experiment in experiments.values() for job in experiment.jobs)
    missing = runner.missing(wanted)
    finished = f"{sum(runner.output(job) is not None for job in wanted)} of {len(wanted)} results available"
    print(f"{', '.join(experiments)}: {finished}, {len(missing)} runs missing", flush=True)
    if args.list:
        print(*(job.key for job in missing), sep="\n")
        return
    for number, job in enumerate(missing, 1):
        print(f"\n== run {number} of {len(missing)}: {job.key}", flush=True)
        runner.run(job)

    for experiment in experiments.values():
        marks = dict.fromkeys(m for job in experiment.jobs for m in read_provenance(runner.finished_output(job)).marks)
        partial = [f"{mark}, because feature files are missing." for mark in marks if re.search(r"\d of \d", mark)]
        written = []
        for stem, table in experiment.tables(runner).items():
            table = replace(table, notes=(*table.notes, *partial))
            print("\n" + format_text(table))
            written += [write_table(results_dir / f"{stem}{suffix}", table) for suffix in (".md", ".csv", ".json")]
        print("written:", *written, *experiment.draw(runner, results_dir))


if __name__ == "__main__":
    run_entry_point(main)
