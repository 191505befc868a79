"""Train a clip classifier: LAVISH's adapters on a frozen image transformer, or a model that it is compared with."""

from utils.entry_point import run_entry_point

import math
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from dataloaders.ave import NUM_SEGMENTS
from lavish.clip_batches import ClipBatch
from lavish.clip_networks import CLIP_RUN_PREFIX, has_random_backbone, make_clip_network
from lavish.clip_settings import ClassifierSettings, clip_batches, clip_recipe, clip_record, learned_from, open_clips
from lavish.clip_tasks import LOSSES, TASKS, classify, keep_features, predict_clips
from lavish.lavish_network import count_parameters
from utils.errors import InputError
from utils.method.losses import Losses, Moment
from utils.run_folders import TrainingRun, begin_run, finish_run
from utils.settings import first_flags, parse_settings, settings_group
from utils.training.checkpoints import save_checkpoint
from utils.training.loop import BEST_CHECKPOINT, RESUMABLE, Recipe, Saving, fit

HEAD = ("mlp_class", "temporal", "classifier", "visual_proj", "audio_proj", "gate.")  # with its own learning rate


@settings_group
class ClipRecipe(Recipe):
    """Settings of the training of a classifier."""

    num_epochs: NonNegativeInt = 50  # number of epochs; 0: keep the given weights, to evaluate them
    head_lr: PositiveFloat = 4e-6  # learning rate of the head, on the same schedule
    accumulate: PositiveInt = 1  # parts of a batch that are computed one after the other
    second_step_every: PositiveInt | None = None
    """batches after which (and at an epoch's end) the optimiser steps again on the same gradient; default: never"""
    patience: PositiveInt | None = 5  # epochs without a better score before training stops


@settings_group
class Settings(ClassifierSettings):
    """Settings of the training of a classifier; data set and model choose its recipe, a file in configs/."""

    loss: Literal[tuple(LOSSES)] = "binary"  # binary: binary cross-entropy of softmax outputs, as released
    recipe: ClipRecipe = ClipRecipe()
    saving: Saving = Saving()
    run: TrainingRun = TrainingRun()


def check_settings(settings: Settings) -> None:
    """Raise InputError for settings that do not go together."""
    recipe, pooling, num_frames = settings.recipe, settings.network.temporal, settings.num_frames
    older, pools_time = settings.model == "i3d_soundnet", TASKS[settings.dataset].pools_time
    if recipe.batch_size % recipe.accumulate:
        raise InputError("--accumulate", str(recipe.accumulate), "a divisor of --batch_size", "Change either flag.")
    if older and not pools_time:
        raise InputError("--model", f"i3d_soundnet on {settings.dataset}", "UCF101 (a class a clip)", "Choose another.")
    if not older and pools_time == (pooling == "none"):
        expected = "none for AVE, whose seconds are classified apart, and mean or transformer for UCF101"
        raise InputError("--temporal", pooling, expected, "Leave out the flag.")
    if not pools_time and num_frames not in (None, NUM_SEGMENTS):
        expected = f"{NUM_SEGMENTS} for AVE, one for each labelled second"
        raise InputError("--num_frames", str(num_frames), expected, "Leave out the flag.")
    if (settings.data.sound == "waveform") != older:
        found = f"{settings.data.sound} for {settings.model}"
        raise InputError("--sound", found, "the waveform for i3d_soundnet alone", "Leave it out.")


def variant(settings: Settings) -> str:
    """Return the name of the settings' model, for the run folder and the tables."""
    name, network = settings.model, settings.network
    if name == "lavish" and not network.cross_modal:
        name = "lavish_plain"
    if name == "i3d_soundnet" and network.fusion != "attention":
        name = "i3d" if network.fusion == "i3d" else "i3d_soundnet_concatenation"
    return name + "_finetuned" * network.train_backbone + "_norms" * network.train_norms


def main(argv: list[str] | None = None) -> None:
    # 1 Settings
    settings = Settings()
    if first_flags(argv, "resume")["resume"] is None:
        settings = clip_recipe(settings, argv)
    settings = parse_settings(settings, __doc__, argv, RESUMABLE)
    check_settings(settings)
    device, precision = settings.device.select()
    torch.manual_seed(settings.recipe.seed)

    # 2 Data
    task = TASKS[settings.dataset]
    data, pack = open_clips(settings)
    data = learned_from(settings, data)

    # 3 Model
    network = make_clip_network(settings, len(data.splits["train"].classes)).to(device)
    train, val = (clip_batches(settings, data, pack, split, network) for split in ("train", settings.select_on))
    train.accumulate = settings.recipe.accumulate
    is_random = has_random_backbone(settings)
    trained, total = count_parameters(network)

    # 4 Loop
    name = settings.run.name or variant(settings)
    record = clip_record("a run of lavish.train_classifier", settings, data)
    run_dir, log = begin_run(settings, f"{CLIP_RUN_PREFIX}{name}_{settings.dataset}", record)
    chosen_on = f"{val.num_videos} of {settings.select_on} to choose the best epoch on"
    log.info(f"{run_dir}: {train.num_videos} training clips, {chosen_on}, {device}")
    shares = f"{trained / 1e6:.2f} M of {total / 1e6:.2f} M parameters are trained ({100 * trained / total:.1f} %)"
    log.info(shares + ", random backbone" * is_random)
    batch_size, loss_of = settings.device.eval_batch_size, LOSSES[settings.loss]
    if network.frozen:
        keep_features(network, val, batch_size, precision)
        if not train.augmented:
            keep_features(network, train, batch_size, precision)

    num_steps, every = math.ceil(train.num_videos / settings.recipe.batch_size), settings.recipe.second_step_every

    def step(network: nn.Module, parts: list[ClipBatch], moment: Moment, take_step: Callable[[bool], Tensor]) -> Losses:
        """Take one step on a batch, part by part."""
        size, total = sum(len(part.clips) for part in parts), torch.zeros((), device=device)
        for part in parts:
            loss = loss_of(classify(network, part, precision).logits, part.labels) * (len(part.clips) / size)
            loss.backward()
            total = total + loss.detach()
        done = moment.step + 1  # batches of the epoch
        twice = every is not None and (done % every == 0 or done == num_steps)
        return {"total": total, "gradient_norm": take_step(twice)}

    def validate() -> dict[str, float]:
        return task.score(predict_clips(network, val, batch_size, precision))

    recipe, saving, metric = settings.recipe, settings.saving, task.best_metric
    rates, resume = dict.fromkeys(HEAD, recipe.head_lr / recipe.lr), settings.run.resume is not None
    options = {"resume": resume, "takes_steps": True, "patience": recipe.patience, "lr_factors": rates}
    progress = fit(network, train, step, validate, recipe, metric, run_dir, log, saving, **options)
    if not progress.best_epoch:  # nothing was trained: the given weights are to be evaluated
        save_checkpoint(network.state_dict(), run_dir / BEST_CHECKPOINT)

    # 5 Report
    best = {metric: progress.best_score if progress.best_epoch else None}
    facts = {"trained_parameters": trained, "parameters": total, "random_backbone": is_random}
    finish_run(run_dir, {"best_epoch": progress.best_epoch, **best, **facts}, progress.seconds)
    kept = f"kept: epoch {progress.best_epoch}, {metric} {progress.best_score:.2f}"
    log.info(f"{kept if progress.best_epoch else 'nothing was trained'}, {run_dir / BEST_CHECKPOINT}")


if __name__ == "__main__":
    run_entry_point(main)
