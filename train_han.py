"""Stage 3: train HAN on video labels and pseudo-labels (paper sections 4.2 to 4.4)."""

from utils.entry_point import run_entry_point

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from dataloaders.annotations import Subset
from dataloaders.batches import DataSettings, SplitBatches, open_split
from dataloaders.cmrc import CMRC, CombinedBatches
from dataloaders.datasets import PARSED_DATASETS
from models import HANConfig, HANOutput
from utils.errors import InputError
from utils.evaluation.tasks import SELECTABLE, find_task, true_events
from utils.method.decoding import DecodingSettings
from utils.method.uwav_objective import UWAVLosses
from utils.provenance import HAN_RUN, provenance_of
from utils.recipes import Method, parse_recipe
from utils.run_folders import DEFAULT_RUNS_DIR, SUMMARY_FILE, TrainingRun, begin_run, finish_run, newest_finished_run
from utils.settings import FromFile, settings_group, with_settings
from utils.several_seeds import SeveralSeeds, train_seeds
from utils.training.device import CompileSettings, DeviceSettings, Precision, compile_network, machine_name
from utils.training.loop import BEST_CHECKPOINT, RESUMABLE, Recipe, Saving, fit


@settings_group
class Settings(FromFile):
    """Settings of stage 3; the defaults are UWAV's released recipe on LLP, `configs/uwav_llp.yaml`."""

    method: str = "uwav"  # method; its recipe in configs/ sets the defaults
    dataset: Literal[PARSED_DATASETS] = "LLP"  # data set
    select_on: Literal[SELECTABLE] | None = None
    """score on val that selects the best checkpoint; None: segment_Type, or accuracy for AVE"""
    data: DataSettings = DataSettings()
    subset: Subset = Subset()
    cmrc: CMRC = CMRC()
    model: HANConfig = HANConfig()
    losses: UWAVLosses = UWAVLosses()
    decoding: DecodingSettings = DecodingSettings()
    recipe: Recipe = Recipe()
    seeds: SeveralSeeds = SeveralSeeds()
    device: DeviceSettings = DeviceSettings()
    compile: CompileSettings = CompileSettings()
    saving: Saving = Saving()
    run: TrainingRun = TrainingRun()


def variant(settings: Settings) -> str:
    """Return the name of the method or of the ablation of UWAV, for the run folder."""
    losses = settings.losses
    if settings.method != "uwav":
        return settings.method
    if losses.segment_labels == "none":
        return "video"
    return losses.segment_labels + "_reweight" * losses.reweight + "_mixup" * losses.mixup


def find_labels(settings: Settings) -> Settings:
    """Return the settings with the newest folder of the labels that training needs, unless one is given."""
    losses, dataset = settings.losses, settings.dataset
    if not losses.flag or (losses.wants_labels and getattr(losses, losses.flag) is not None):
        return settings
    if not losses.wants_labels:
        return with_settings(settings, **{losses.flag: None})
    steps = losses.command if dataset == "LLP" else f"{losses.command} --dataset {dataset}"
    if losses.base_command:
        base = losses.base_command.format(dataset=dataset)
        steps = f"stage 1 ({base}) unless it is finished, then stage 2 ({steps})"
    way_out, folder = f"Run {steps}, or pass --{losses.flag}.", f"{dataset}_{losses.suffix}"
    marker = f"{folder}/{SUMMARY_FILE}"
    run_dir = newest_finished_run(settings.run.output_dir, losses.run_prefix, way_out, marker, DEFAULT_RUNS_DIR)
    return with_settings(settings, **{losses.flag: run_dir / folder})


def check_settings(settings: Settings) -> None:
    """Raise InputError for a `select_on` of another task, and for gates that need a checkpoint that is not kept."""
    task, decoding = find_task(settings.dataset), settings.decoding
    if settings.select_on not in (None, *task.selectable):
        expected = f"a score of {settings.dataset}, such as {task.best_metric}"
        raise InputError("--select_on", settings.select_on, expected, "Leave out the flag.")
    epoch = getattr(decoding, "gates_epoch", 0) if getattr(decoding, "class_gates", False) else 0
    if epoch > settings.recipe.num_epochs or epoch % settings.saving.checkpoint_every:
        every = settings.saving.checkpoint_every
        found = f"epoch {epoch} of {settings.recipe.num_epochs}, with checkpoints every {every} epochs"
        expected = "an epoch whose checkpoint is kept, or 0 for the evaluated checkpoint"
        way_out = "Change it or --checkpoint_every; see baselines/cmpae/README.md."
        raise InputError("--gates_epoch", found, expected, way_out)


def validate(
    network: nn.Module, val: SplitBatches, settings: Settings, method: Method, select_on: str, precision: Precision
) -> dict[str, float]:
    """Return the scores on val by name, including the one that selects the best checkpoint."""
    task, truth = find_task(settings.dataset), true_events(val.annotations, val.device)
    output = method.predict(network, val, settings.device.eval_batch_size, precision, settings.decoding)
    events = task.decode(output, settings.decoding)
    return {select_on: task.selection_score(select_on, events, truth), **task.score(events, truth)}


def main(argv: list[str] | None = None, on_epoch: Callable[[int, float], None] | None = None) -> None:
    """Train HAN or a baseline; `on_epoch` is called after every epoch with its number and its score on val."""
    # 1 Settings
    method, settings = parse_recipe(Settings, __doc__, argv, RESUMABLE)
    check_settings(settings)
    settings = find_labels(settings)
    name = f"HAN_{settings.run.name or variant(settings)}_{settings.dataset}"
    device, precision = settings.device.select()
    if settings.seeds.num_runs > 1:
        train_seeds(Path(__file__), settings, name, on_gpu=device.type != "cpu")
        return
    torch.manual_seed(settings.recipe.seed)

    # 2 Data
    labels = getattr(settings.losses, "pseudo_label_dir", None)
    train = open_split(settings.dataset, "train", settings.data, device, labels, settings.subset)
    val = open_split(settings.dataset, "val", settings.data, device, subset=settings.subset)
    record = provenance_of(HAN_RUN.format(settings.method), {"train": train, "val": val})
    record = settings.losses.add_to(record)

    # 3 Model and objective
    model = method.make_network(settings, train).to(device)
    compiled = compile_network(model, device) if settings.compile.compile else model

    def run(network: nn.Module, *inputs: Tensor | bool, **padding: Tensor) -> HANOutput:
        return precision.run(compiled if network is model else network, *inputs, **padding)

    step = method.make_step(settings.losses, train, run)
    batches = CombinedBatches(train, settings.cmrc) if settings.cmrc.cmrc else train

    # 4 Loop
    run_dir, log = begin_run(settings, name, record)
    log.info(f"{run_dir}: {train.num_videos} training videos, {val.num_videos} validation videos, {device}")
    select_on = settings.select_on or find_task(settings.dataset).best_metric
    score = partial(validate, model, val, settings, method, select_on, precision)
    options = {"takes_steps": method.takes_steps, "on_epoch": on_epoch}
    trained = model, batches, step, score, settings.recipe, select_on
    progress = fit(*trained, run_dir, log, settings.saving, settings.run.resume is not None, **options)

    # 5 Report
    computed = {"device": str(device), "threads": torch.get_num_threads(), "machine": machine_name(str(device))}
    summary = {"best_epoch": progress.best_epoch, select_on: progress.best_score, **computed}
    finish_run(run_dir, summary, progress.seconds)
    kept = f"kept: epoch {progress.best_epoch}, {select_on} {progress.best_score:.2f}"
    log.info(f"{kept}, {run_dir / BEST_CHECKPOINT}; {progress.seconds:.0f} s")


if __name__ == "__main__":
    run_entry_point(main)
