"""Tune a method's settings on val with Optuna, and compare the best ones with the recipe on test.

    python -m experiments.tune --method uwav --trials 40 -- --num_epochs 40

Arguments after `--` are passed to train_han.py. The first trial is the recipe. An interrupted search resumes.
"""

from utils.entry_point import run_entry_point

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

import test_han
import train_han
from experiments.jobs import PRESETS, load_preset, to_flags
from utils.errors import InputError
from utils.evaluation.tasks import find_task
from utils.provenance import read_provenance
from utils.recipes import method_names, parse_recipe
from utils.reporting.tables import Cell, Column, Row, Table, format_text, write_tables
from utils.run_folders import SUMMARY_FILE
from utils.settings import ARGS_FILE, flat, whole_number
from utils.training.events import write_hparams

try:
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage
    from optuna.trial import TrialState
except ImportError:
    optuna = None


def main(argv: list[str] | None = None) -> None:
    if optuna is None:
        raise InputError("experiments.tune", "no optuna", "the package optuna", "Run pip install 'optuna>=4'.")
    argv = sys.argv[1:] if argv is None else argv
    own, train_flags = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    args = parse_arguments(own)
    space, output_dir = read_space(args.space), args.output_dir or Path("temp_train_logs") / f"tune_{args.method}"
    common = {"method": args.method, "dataset": args.dataset, "device": args.device}
    flags = to_flags(common | load_preset(args.preset)[args.method.removesuffix("_base")]) + train_flags
    _, settings = parse_recipe(train_han.Settings, "", flags, ())
    recipe, metric = flat(settings), settings.select_on or find_task(args.dataset).best_metric
    if unknown := sorted(space.keys() - recipe.keys()):
        found = f"unknown settings: {', '.join(unknown)}"
        raise InputError(args.space, found, f"those of {args.method}", "Correct it.")
    recipe = {name: recipe[name] for name in space}

    # Search
    output_dir.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(output_dir / "optuna.log")))
    study = optuna.create_study(storage=storage, study_name="tune", direction="maximize", load_if_exists=True)
    if not study.trials:
        study.enqueue_trial(recipe)
    for interrupted in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(interrupted.number, state=TrialState.FAIL)
        study.enqueue_trial(interrupted.params)  # resumes its training
    study.sampler = optuna.samplers.TPESampler(seed=args.seed + len(study.trials))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=settings.recipe.num_epochs // 4)
    while len(study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED])) < args.trials:
        trial = study.ask(space)
        folder = output_dir / name_of(trial.params)

        def report(epoch: int, score: float, trial: optuna.Trial = trial) -> None:
            trial.report(score, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            run = train(folder, flags + to_flags(trial.params), report)
            write_hparams(run, trial.params)
            study.tell(trial, json.loads((run / SUMMARY_FILE).read_text())[metric])
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)

    # Comparison with the recipe on further seeds
    rows, best = [], study.best_trial
    for name, found in (("recipe", study.trials[0]), (f"best of {args.trials} trials", best)):
        scores = []
        for seed in args.seeds:
            of_seed = {**found.params, "seed": seed}
            run = train(output_dir / name_of(of_seed), flags + to_flags(of_seed))
            scores.append(evaluate(run, run.parent / "test", args.device, metric))
        val, test = zip(*scores, strict=True)
        cells = Cell(found.value), Cell.over_runs(list(val)), Cell.over_runs(list(test))
        rows.append(Row((f"{args.method}, {name}",), cells, read_provenance(run).note))
    columns = Column("val, seed of the search"), Column("val", "other seeds"), Column("test", "other seeds")
    notes = [f"{metric} in percent; seeds {', '.join(map(str, args.seeds))}; the search used val only."]
    notes.append("Best: " + ", ".join(f"{name} {value:.4g}" for name, value in best.params.items()))
    table = Table(f"{args.method} on {args.dataset}, tuned on val", ("Settings",), columns, tuple(rows), tuple(notes))
    print("\n" + format_text(table))
    print("written:", *write_tables(output_dir / "tuned", table))


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--method", choices=method_names(), default="uwav")
    parser.add_argument("--dataset", default="LLP")
    parser.add_argument("--space", type=Path, default=Path("configs/search/uwav.yaml"), help="search space")
    parser.add_argument("--preset", default="paper", help=f"sizes and epochs: {', '.join(PRESETS)}, or a YAML file")
    parser.add_argument("--trials", type=whole_number(1), default=40)
    parser.add_argument("--seed", type=whole_number(0), default=0, help="seed of the search")
    parser.add_argument("--seeds", type=whole_number(0), nargs="+", default=[1, 2, 3], help="seeds of the comparison")
    parser.add_argument("--output_dir", type=Path, help="(default: temp_train_logs/tune_<method>)")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(argv)


def read_space(path: Path) -> dict[str, "optuna.distributions.BaseDistribution"]:
    """Read the ranges or lists of values to search, by setting. Raises InputError for anything else."""
    try:
        return {
            name: optuna.distributions.CategoricalDistribution(values)
            if isinstance(values, list)
            else optuna.distributions.FloatDistribution(**values)
            for name, values in yaml.safe_load(path.read_text(encoding="utf-8")).items()
        }
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        expected = "settings with {low, high, log} or a list of values, as in configs/search/uwav.yaml"
        raise InputError(path, f"no search space ({error})", expected, "Correct the file.") from error


def name_of(settings: Mapping[str, Any]) -> str:
    """Return the folder name of a training run with these settings."""
    return f"trial_{hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]}"


def train(folder: Path, flags: list[str], on_epoch: Callable[[int, float], None] | None = None) -> Path:
    """Train unless the run is finished, resuming an interrupted one, and return the run folder."""
    if not any(folder.glob(f"*/{SUMMARY_FILE}")):
        begun = [path.parent for path in folder.glob(f"HAN_*/{ARGS_FILE}")]
        train_han.main(["--resume", str(begun[0])] if begun else [*flags, "--output_dir", str(folder)], on_epoch)
    return next(folder.glob(f"HAN_*/{SUMMARY_FILE}")).parent


def evaluate(run: Path, folder: Path, device: str, metric: str) -> tuple[float, float]:
    """Return a run's scores on val and test, after evaluating it unless that is done."""
    if not (folder / SUMMARY_FILE).is_file():
        where = ["--checkpoint_dir", str(run), "--output_dir", str(folder), "--device", device]
        test_han.main([*where, "--num_figures", "0"])
    scores = json.loads((folder / SUMMARY_FILE).read_text())
    return scores["val"][metric], scores["test"][metric]


if __name__ == "__main__":
    run_entry_point(main)
