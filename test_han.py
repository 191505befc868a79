"""Stage 4: evaluate a trained HAN on the validation and test splits."""

from utils.entry_point import run_entry_point

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from logging import Logger
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from dataloaders.annotations import Subset
from dataloaders.batches import DataSettings, SplitBatches, open_split
from dataloaders.datasets import DATASETS, PARSED_DATASETS
from utils import run_folders
from utils.base_runs import recorded_settings, settings_of
from utils.errors import InputError
from utils.evaluation.inference import SplitOutput
from utils.evaluation.online import OnlineWindows
from utils.evaluation.predictions import Predictions, Probabilities, load_ensemble, load_predictions, mean_output
from utils.evaluation.split_report import chosen_videos, draw_timelines, draw_training, report_split
from utils.evaluation.tasks import Events, RunScores, find_task, true_events
from utils.evaluation.trained_han import TrainedHAN
from utils.evaluation.windows import HAN_WINDOW
from utils.files import hash_of_file
from utils.method.decoding import DecodingSettings
from utils.provenance import Provenance, provenance_of, read_provenance
from utils.recipes import CONFIGS, find_method
from utils.reporting.tables import Table, format_text, write_tables
from utils.settings import (
    ARGS_FILE,
    FromFile,
    first_flags,
    flat,
    parse_settings,
    read_args,
    settings_group,
    with_groups,
    with_settings,
)
from utils.training.device import DeviceSettings, Precision, machine_name, select_device
from utils.training.events import write_hparams
from utils.training.loop import BEST_CHECKPOINT
from video.pages.timelines import pseudo_labels_of, timelines_path, write_timelines

EVALUATION = "an evaluation by test_han.py"
ROUNDING = 1.0  # largest difference of a score, in percent, between devices or precisions
# Patterns of all files that an evaluation may write.
TABLES = ("scores.*", "unimodal_scores.*", "per_class_*.csv", "average_precision_*.csv", "confusion_*")
FIGURES = ("pr_curves_*.png", "training_*.png", "timelines*.html", "timelines_*/*.png")
FILES = (*TABLES, *FIGURES, "predictions_*.npz", "activitynet_*.json", "events.out.tfevents.*")


@settings_group
class Settings(FromFile):
    """Settings of stage 4; the network's settings default to those of the run."""

    checkpoint_dir: Path | None = None  # stage-3 run; None: the newest finished one in runs_dir
    runs_dir: Path = run_folders.DEFAULT_RUNS_DIR  # folder searched for the newest run
    logs_dir: Path = Path("test_logs")  # folder of the evaluations
    checkpoint: Path | None = None  # weights; None: checkpoints/checkpoint_best.pt of the run
    ensemble: tuple[str, ...] = ()
    """folders of evaluations (in logs_dir) whose probabilities are averaged, without running a network"""
    method: str = "uwav"  # training method, whose published scores are printed along with UWAV's
    dataset: Literal[PARSED_DATASETS] = "LLP"  # data set
    unimodal_scores: bool = False  # LLP: also score audible-only and visible-only events, as CoLeaF does
    num_runs: PositiveInt = 1  # number of seeds that one command trained
    seed: NonNegativeInt = 20000  # the first of several seeds
    online: bool = False  # also score online decoding: each segment from the ten seconds that end with it
    splits: tuple[Literal["val", "test"], ...] = ("val", "test")  # splits to evaluate
    num_figures: NonNegativeInt = 10  # videos per split drawn as timelines; 0: draw no figures at all
    figure_videos: tuple[str, ...] | None = None  # draw these videos (file names) instead
    pseudo_label_dir: Path | None = None  # pseudo-labels for the page of timelines; None: those of the run
    output_dir: Path | None = None  # folder of the evaluation; None: <logs_dir>/<run>, or <logs_dir>/ensemble
    trained: TrainedHAN = TrainedHAN()
    decoding: DecodingSettings = DecodingSettings()
    data: DataSettings = DataSettings()
    subset: Subset = Subset()
    device: DeviceSettings = DeviceSettings()


def find_settings(argv: Sequence[str] | None) -> Settings:
    """Return the settings of the evaluated run, overridden by flags, with paths filled in, or raise InputError."""
    given = first_flags(argv, "config", "ensemble", "checkpoint_dir", "checkpoint", "runs_dir", "dataset", "method")
    chosen = read_args(Path(given["config"])) if given["config"] else {}
    chosen |= {name: text for name, text in given.items() if text is not None}
    run_dir, dataset = chosen.get("checkpoint_dir"), chosen.get("dataset", "LLP")
    named = any(chosen.get(name) not in (None, []) for name in ("ensemble", "checkpoint_dir", "checkpoint"))
    if given["ensemble"] is not None:
        if given["checkpoint_dir"] is not None or given["checkpoint"] is not None:
            raise InputError("--ensemble", "a run or checkpoint, too", "only one of them", "Leave out the other flag.")
        run_dir = given["ensemble"]  # the first run, whose settings are the defaults
    elif not named and "--help" not in (argv or sys.argv):
        way_out = "Run stage 3 first (train_han.py or its script), or pass --checkpoint_dir."
        runs_dir = Path(chosen.get("runs_dir", run_folders.DEFAULT_RUNS_DIR))
        run_dir = run_folders.newest_finished_run(runs_dir, "HAN_", way_out, dataset=dataset)
    if run_dir is not None and not Path(run_dir).is_dir():
        raise InputError(run_dir, "no such folder", "the folder of a run", "Correct the path.")
    of_run = read_args(Path(run_dir) / ARGS_FILE) if run_dir and (Path(run_dir) / ARGS_FILE).exists() else {}
    method = chosen.get("method") or of_run.get("method") or "uwav"
    found = find_method(method)
    start = with_groups(Settings, decoding=found.decoding, data=found.data)(method=method)
    if of_run:
        start = with_settings(settings_of(start, Path(run_dir) / ARGS_FILE), checkpoint_dir=run_dir)
    elif (path := CONFIGS / f"{method}_{dataset.lower()}.yaml").is_file():
        start = settings_of(start, path, "num_heads")
    settings = parse_settings(start, __doc__, argv)
    if settings.ensemble:
        return settings_of_ensemble(settings)
    run_dir, checkpoint = settings.checkpoint_dir, settings.checkpoint
    settings.trained.check(checkpoint or run_dir)
    name = run_folders.run_name(run_dir) if run_dir else checkpoint.stem
    output_dir = settings.output_dir or settings.logs_dir / name
    return with_settings(settings, checkpoint=checkpoint or run_dir / BEST_CHECKPOINT, output_dir=output_dir)


def settings_of_ensemble(settings: Settings) -> Settings:
    """Return the settings of an ensemble. Raises InputError for class-wise gates, or if it would overwrite a run."""
    output_dir = settings.output_dir or settings.logs_dir / "ensemble"
    if find_method(settings.method).find_gates is not None and settings.decoding.class_gates:
        found = "class-wise gates, which are searched for one network"
        raise InputError("--ensemble", found, "one gate for all classes", "Add --no-class_gates.")
    if output_dir.resolve() in (Path(folder).resolve() for folder in settings.ensemble):
        raise InputError("--output_dir", output_dir, "a folder other than the averaged runs'", "Choose another folder.")
    return with_settings(settings, checkpoint_dir=None, checkpoint=None, output_dir=output_dir)


def settings_of_seeds(settings: Settings) -> list[Settings]:
    """Return the settings of each seed's run, or these for a single run. Raises InputError if a run is unfinished."""
    run_dir = settings.checkpoint_dir
    if settings.num_runs == 1 or run_dir is None or settings.checkpoint != run_dir / BEST_CHECKPOINT:
        return [settings]
    of_seeds = []
    for n, folder in enumerate(run_folders.seed_folders(run_dir, settings.seed, settings.num_runs)):
        if not (folder / run_folders.SUMMARY_FILE).is_file():
            way_out = f"Wait for it, or continue with train_han.py --resume {run_dir}."
            raise InputError(folder, "a run that is not finished", "finished runs of all seeds", way_out)
        paths = {"checkpoint": folder / BEST_CHECKPOINT, "output_dir": settings.output_dir / folder.name}
        of_seeds.append(with_settings(settings, num_runs=1, seed=settings.seed + n, checkpoint_dir=folder, **paths))
    return of_seeds


def parse_split(
    settings: Settings, checkpoint: Path, split: SplitBatches | OnlineWindows, precision: Precision
) -> SplitOutput:
    """Return the output of a checkpoint's network for a split or its windows. Raises InputError if it does not fit."""
    method = find_method(settings.method)
    network = settings.trained.load(checkpoint, settings.checkpoint_dir, split, method.network, method.config)
    return method.predict(network, split, settings.device.eval_batch_size, precision, settings.decoding)


def find_gates(settings: Settings, precision: Precision, log: Logger) -> Tensor | None:
    """Return the visual gate of each class, (C,), searched on val (CMPAE); None: all classes share one gate."""
    search = find_method(settings.method).find_gates
    if search is None or not settings.decoding.class_gates:
        return None
    device = select_device(settings.device.device)
    val = open_split(settings.dataset, "val", settings.data, device, subset=settings.subset)
    parse = partial(parse_split, settings, split=val, precision=precision)
    gates, line = search(settings.decoding, settings.checkpoint, val, parse)
    log.info(line)
    return gates


def check_figure_videos(names: Sequence[str], splits: dict[str, SplitBatches]) -> None:
    """Raise InputError for names of videos that are not in the evaluated splits."""
    known = {sample_id for split in splits.values() for sample_id in split.annotations.sample_ids}
    if unknown := [name for name in names if name not in known]:
        expected, way_out = f"videos of {', '.join(splits)}", "Use the names in the annotation files."
        raise InputError("--figure_videos", ", ".join(unknown), expected, way_out)


def check_val_score(settings: Settings, prediction: Events, truth: Events) -> None:
    """Raise InputError if the best checkpoint's score on val differs from the one that training recorded.

    Both must be equal on the same machine with the same precision, batch size, number of threads and PyTorch version,
    and otherwise within `ROUNDING`. Nothing is compared if data or decoding differ from those of the training.
    """
    run_dir, device, task = settings.checkpoint_dir, settings.device, find_task(settings.dataset)
    if run_dir is None or settings.checkpoint != run_dir / BEST_CHECKPOINT or not (run_dir / ARGS_FILE).is_file():
        return
    args, summary = read_args(run_dir / ARGS_FILE), run_folders.read_summary(run_dir)
    select_on = args.get("select_on") or task.best_metric
    evaluated = flat(settings.decoding) | flat(settings.data) | flat(settings.subset)
    compared = evaluated.keys() - {"residency", "data_dir", "packed_dir", "train_fraction"}
    if select_on not in summary or any(args.get(name) != evaluated[name] for name in compared):
        return
    score, trained = task.selection_score(select_on, prediction, truth), summary[select_on]
    ours = machine_name(device.device), device.precision, device.eval_batch_size
    theirs = summary.get("machine"), args.get("precision"), args.get("eval_batch_size")
    if abs(score - trained) > (0 if ours == theirs else ROUNDING):
        expected = f"{trained:.2f}, which training recorded for epoch {summary.get('best_epoch')}"
        way_out = "Weights, data or code differ from those in training; evaluate on the machine used for training."
        raise InputError(settings.checkpoint, f"{select_on} {score:.2f} on val", expected, way_out)


def record_of(settings: Settings, splits: dict[str, SplitBatches]) -> Provenance:
    """Return the provenance of an evaluation. Raises InputError for a run on another data set or other classes."""
    record = provenance_of(EVALUATION, splits, {"weights": hash_of_file(settings.checkpoint)})
    if settings.checkpoint_dir is None:
        return record
    of_run = read_provenance(settings.checkpoint_dir)
    way_out = "Evaluate it on the data set and classes of its training."
    of_run.check(settings.checkpoint_dir, way_out, dataset=record.dataset, classes=record.classes)
    return record.inherit(of_run, "training")


def record_of_all(records: Sequence[Provenance]) -> Provenance:
    """Return the provenance of the first run, with the marks of all runs."""
    marks = dict.fromkeys(mark for of_run in records for mark in of_run.marks)
    return replace(records[0], marks=tuple(marks))


def evaluate(
    settings: Settings, splits: dict[str, SplitBatches], precision: Precision, record: Provenance
) -> RunScores:
    """Evaluate one run: write tables, predictions and figures to `output_dir`, and return its scores on each split."""
    task, folder = find_task(settings.dataset), settings.output_dir
    outputs = {name: parse_split(settings, settings.checkpoint, split, precision) for name, split in splits.items()}
    log = run_folders.begin_output(folder, settings, FILES, record)
    gates = find_gates(settings, precision, log)
    if settings.checkpoint_dir is None or not (settings.checkpoint_dir / ARGS_FILE).exists():
        network = f"encoder_order {settings.trained.encoder_order}, pre_norm {settings.trained.pre_norm}"
        assumed = f"{network}, decoding {settings.decoding.decoding}"
        log.info(f"{settings.checkpoint}: no run records how it was trained; assuming {assumed}")
    scores: RunScores = {}
    for name, split in splits.items():
        annotations = split.annotations
        prediction = task.decode(outputs[name], settings.decoding, gates)
        truth = true_events(annotations, split.device)
        if name == "val" and gates is None:
            check_val_score(settings, prediction, truth)
        kept = Predictions.of_split(annotations, outputs[name], prediction, truth)
        rate = annotations.segments_per_second
        scores[name] = report_split(folder, kept, rate, record.note, settings.unimodal_scores, settings.num_figures > 0)
        if settings.online:
            windows = OnlineWindows(split, HAN_WINDOW * rate)
            output = parse_split(settings, settings.checkpoint, windows, precision)
            online = windows.decode(output, task, settings.decoding, gates)
            scores[f"{name}, online"] = task.score(online, truth)
        videos = chosen_videos(annotations.sample_ids, settings.figure_videos or (), settings.num_figures)
        draw_timelines(folder / f"timelines_{name}", annotations, kept, videos)
    if settings.checkpoint_dir is not None and settings.num_figures > 0:
        draw_training(folder, settings.checkpoint_dir, record.note)
    write_hparams(folder, {n: value for n, value in recorded_settings(folder).items() if not n.endswith("_dir")})
    return scores


def evaluate_ensemble(settings: Settings) -> None:
    """Evaluate the mean of the probabilities that several evaluations saved, as if they were those of one run."""
    task, output_dir = find_task(settings.dataset), settings.output_dir
    folders = [Path(name) for name in settings.ensemble]
    records = [read_provenance(folder) for folder in folders]
    for folder, of_run in zip(folders, records, strict=True):
        of_run.check(folder, "Pass evaluations on this data set.", kind=EVALUATION, dataset=settings.dataset)
    runs = {split: load_ensemble(folders, split) for split in settings.splits}
    rate = settings.data.segments_per_second or DATASETS[settings.dataset].segments_per_second
    files = [folder / f"predictions_{split}.npz" for folder in folders for split in runs]
    hashes = {str(file): hash_of_file(file) for file in files}
    record = replace(record_of_all(records), sources=hashes, command="", versions={})
    log = run_folders.begin_output(output_dir, settings, FILES, record)
    scores: RunScores = {}
    for split, of_split in runs.items():
        output, first = mean_output(of_split), of_split[0]
        prediction = task.decode(output, settings.decoding)
        probs = Probabilities.of_output(output, first.probs.lengths)
        kept = replace(first, events=prediction.map(Tensor.numpy), probs=probs)
        options = settings.unimodal_scores, settings.num_figures > 0
        scores[split] = report_split(output_dir, kept, rate, record.note, *options)
        write_timelines(timelines_path(output_dir, split), {output_dir.name: kept}, None, record.note, rate)
    table = report(settings, [scores], record.note)
    run_folders.finish_run(output_dir, scores)
    log.info("\n" + format_text(table))
    log.info(f"tables, curves and timelines.html of the ensemble of {len(folders)} runs: {output_dir}")


def report(settings: Settings, runs: Sequence[RunScores], note: str) -> Table:
    """Write the tables of a run, or of several seeds, to `output_dir`, and return the table of scores."""
    one_of_several = settings.checkpoint_dir is not None and run_folders.is_one_of_several(settings.checkpoint_dir)
    name = run_folders.run_name(settings.checkpoint_dir) if one_of_several else settings.output_dir.name
    methods = (find_method(settings.method).published_name, find_method("uwav").published_name)
    if settings.data.segments_per_second not in (None, 1):  # published scores are for one-second segments
        methods = ()
    table = find_task(settings.dataset).score_table(name, runs, note, methods)
    write_tables(settings.output_dir / "scores", table)
    if settings.unimodal_scores:
        unimodal = find_task(settings.dataset).unimodal_table(name, runs, note)
        write_tables(settings.output_dir / "unimodal_scores", unimodal)
    return table


def write_pages(settings: Settings, runs: Sequence[Settings], splits: Mapping[str, SplitBatches], note: str) -> None:
    """Write a page of timelines for each split: ground truth, pseudo-labels if there are any, and all predictions."""
    labels_dir = settings.pseudo_label_dir  # which may have been moved since training, or may lack a split
    for name, split in splits.items():
        predictions = {run.output_dir.name: load_predictions(run.output_dir, name) for run in runs}
        has_labels = labels_dir is not None and (labels_dir / f"{name}.safetensors").is_file()
        pseudo_labels = pseudo_labels_of(labels_dir, split.annotations) if has_labels else None
        rate = split.annotations.segments_per_second
        write_timelines(timelines_path(settings.output_dir, name), predictions, pseudo_labels, note, rate)


def main(argv: list[str] | None = None) -> None:
    # 1 Settings
    settings = find_settings(argv)
    if settings.ensemble:
        return evaluate_ensemble(settings)
    device, precision = settings.device.select()

    # 2 Data
    splits = {
        name: open_split(settings.dataset, name, settings.data, device, subset=settings.subset)
        for name in settings.splits
    }
    check_figure_videos(settings.figure_videos or (), splits)

    # 3 Evaluation of each run
    runs = settings_of_seeds(settings)
    records = [record_of(of_run, splits) for of_run in runs]
    record = record_of_all(records)
    if len(runs) > 1:
        run_folders.begin_output(settings.output_dir, settings, FILES, record)
    scores: dict[str, RunScores] = {}
    for of_run, its_record in zip(runs, records, strict=True):
        name = of_run.output_dir.name
        scores[name] = evaluate(of_run, splits, precision, its_record)
        table = report(of_run, [scores[name]], its_record.note)

    # 4 Report
    log = run_folders.open_log(settings.output_dir)
    write_pages(settings, runs, splits, record.note)
    for of_run in runs:
        run_folders.finish_run(of_run.output_dir, scores[of_run.output_dir.name])
    if len(runs) > 1:
        table = report(settings, list(scores.values()), record.note)
        run_folders.finish_run(settings.output_dir, scores)
    log.info("\n" + format_text(table))
    log.info(f"tables, class-wise scores, timelines.html and figures: {settings.output_dir}")


if __name__ == "__main__":
    run_entry_point(main)
