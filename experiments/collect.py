"""Collect evaluated runs in one table, with the settings in which they differ.

    python -m experiments.collect test_logs/HAN_* [--by lr mixup] [--output results/sweep]

Runs that differ only in the seed share a row: mean ± standard deviation.
"""

from utils.entry_point import run_entry_point

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from utils.base_runs import recorded_settings
from utils.errors import InputError
from utils.evaluation.tasks import UNIMODAL
from utils.provenance import read_provenance
from utils.reporting.tables import F_SCORES, Column, ScoreRow, Table, format_text, score_table, write_tables
from utils.run_folders import SUMMARY_FILE, read_summary, run_name
from utils.settings import ARGS_FILE, read_args
from utils.training.loop import RESUMABLE

RECIPE = ("method", "model", "dataset")  # settings that select a recipe, from which others follow
# Settings that do not affect scores (besides folders): name, additional output, device and speed; and the seed.
NOT_COMPARED = {"seed", "name", "num_runs", "splits", "num_figures", "figure_videos", "unimodal_scores"}
NOT_COMPARED |= {*RESUMABLE, "eval_batch_size", "deterministic", "compile"} - {"num_epochs"}


@dataclass(frozen=True)
class EvaluatedRun:
    """The evaluation of one seed."""

    folder: Path
    settings: dict[str, str]  # of the training and the evaluation
    split: str  # test if it was evaluated, else val
    scores: dict[str, float]  # in percent
    note: str  # provenance of simulated data and the like

    @property
    def compared(self) -> dict[str, str]:
        """Return the settings that all seeds of a row share."""
        return {n: v for n, v in self.settings.items() if n not in NOT_COMPARED and not n.endswith("_dir")}


def open_runs(folder: Path, logs_dir: Path) -> list[EvaluatedRun]:
    """Return a run's evaluations, one per seed; a training run's are in `logs_dir`. Raises InputError if none."""
    if "checkpoint_dir" not in read_args(folder / ARGS_FILE):
        folder = logs_dir / run_name(folder)
    summary = read_summary(folder)
    if any(name.startswith("run_") for name in summary):
        return [run for name in summary for run in open_runs(folder / name, logs_dir)]
    split = next((name for name in ("test", "val") if name in summary), None)
    if split is None:
        expected = f"a finished evaluation with scores in {SUMMARY_FILE}"
        way_out = "Run test_han.py, name its output folder, or pass the parent of that folder with --logs_dir."
        raise InputError(folder, "no scores", expected, way_out)
    recorded = recorded_settings(folder).items()
    settings = {n: "+".join(map(str, v)) if isinstance(v, list) else str(v) for n, v in recorded}
    return [EvaluatedRun(folder, settings, split, summary[split], read_provenance(folder).note)]


def find_differences(runs: Sequence[EvaluatedRun]) -> list[str]:
    """Return the settings that differ between runs of one recipe, and those of `RECIPE` that differ at all."""
    import pandas as pd

    frame = pd.DataFrame([dict.fromkeys(RECIPE, "") | run.compared for run in runs]).fillna("")
    of_recipe = frame.groupby(list(RECIPE))
    return [n for n in frame if (frame[n].nunique() if n in RECIPE else of_recipe[n].nunique().max()) > 1]


def collect(runs: Sequence[EvaluatedRun], by: Sequence[str] | None = None) -> Table:
    """Return a table with one row for all seeds of the same settings and note.

    `by` names the settings to show (default: those that differ). Raises InputError for a setting that no run has, and
    for two runs with the same settings and seed.
    """
    if unknown := [name for name in by or () if all(name not in run.settings for run in runs)]:
        raise InputError("--by", ", ".join(unknown), f"settings in {ARGS_FILE} of the runs", "Correct the name.")
    shown = find_differences(runs) if by is None else by
    rows: dict[tuple, list[EvaluatedRun]] = {}
    for run in runs:
        chosen = [run.settings.get(name, "") for name in shown]
        seeds = rows.setdefault((*chosen, run.split, run.note, *sorted(run.compared.items())), [])
        if same := [other for other in seeds if other.settings.get("seed") == run.settings.get("seed")]:
            names = run.settings.keys() - {"checkpoint_dir", "checkpoint", "output_dir"}
            differing = sorted(n for n in names if run.settings[n] != same[0].settings.get(n))
            way_out = f"Leave one out{', or show what differs: --by ' * bool(differing)}{' '.join(differing)}."
            raise InputError(run.folder, f"the settings and seed of {same[0].folder}", "different runs", way_out)
        seeds.append(run)
    lines = []
    for seeds in rows.values():
        name = seeds[0].settings.get("name", "None")
        name = run_name(seeds[0].folder).partition("/run_")[0] if name == "None" else name
        lines.append(ScoreRow(name, seeds[0].split, [run.scores for run in seeds], seeds[0].note))
    scores = dict.fromkeys(name for run in runs for name in run.scores if not name.startswith(UNIMODAL))
    columns = F_SCORES | {name: Column(name) for name in scores if name not in F_SCORES}
    notes, labelled = ["Scores in percent. A row of several seeds has the name of the first run."], []
    table = score_table("Evaluated runs", columns, lines, notes)
    for row, key in zip(table.rows, rows, strict=True):
        labelled.append(replace(row, labels=(row.labels[0], *key[: len(shown)], row.labels[1])))
    return replace(table, label_columns=("Run", *shown, "Split"), rows=tuple(labelled))


def main(argv: list[str] | None = None) -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of an evaluation or a training run")
    parser.add_argument("--by", nargs="+", metavar="SETTING", help="settings to show (default: those that differ)")
    parser.add_argument("--logs_dir", type=Path, default=Path("test_logs"), help="parent folder of evaluations")
    parser.add_argument("--output", type=Path, help="also write OUTPUT.txt, .md, .csv and .json")
    args = parser.parse_args(argv)
    table = collect([run for folder in args.runs for run in open_runs(folder, args.logs_dir)], args.by)
    print(format_text(table))
    if args.output:
        print("written:", *write_tables(args.output, table))


if __name__ == "__main__":
    run_entry_point(main)
