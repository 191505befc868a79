"""Train a clip classifier: LAVISH, which adapts a frozen image transformer, or a model for comparison."""

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
from lavish.clip_settings import ClassifierSettings, clip_batches, clip_recipe, clip_record, open_clips, used_splits
from lavish.clip_tasks import LOSSES, TASKS, classify, keep_features, predict_clips
from lavish.lavish_network import count_parameters
from utils.errors import InputError
from utils.method.losses import Losses, Moment
from utils.run_folders import TrainingRun, begin_run, finish_run
from utils.settings import first_flags, parse_settings, settings_group
from utils.training.checkpoints import save_checkpoint
from utils.training.loop import BEST_CHECKPOINT, RESUMABLE, Recipe, Saving, fit

HEAD = ("mlp_class", "temporal", "classifier", "visual_proj", "audio_proj", "gate.")  # parameters trained at head_lr


@settings_group
class ClipRecipe(Recipe):
    """Training loop of a classifier."""

    num_epochs: NonNegativeInt = 50  # number of epochs; 0 saves the initial weights, to evaluate them
    head_lr: PositiveFloat = 4e-6  # learning rate of the head, with the same schedule
    accumulate: PositiveInt = 1  # gradient accumulation: number of parts into which a batch is divided
    second_step_every: PositiveInt | None = None
    """repeat the optimiser step on the same gradient every N batches and after the last one; None: never"""
    patience: PositiveInt | None = 5  # epochs without a better score after which training stops


@settings_group
class Settings(ClassifierSettings):
    """Settings of the training; the data set and the model select its recipe, a file in configs/."""

    loss: Literal[tuple(LOSSES)] = "binary"  # binary: binary cross-entropy of softmax probabilities (released code)
    recipe: ClipRecipe = ClipRecipe()
    saving: Saving = Saving()
    run: TrainingRun = TrainingRun()


def check_settings(settings: Settings) -> None:
    """Raise InputError for settings that contradict each other."""
    recipe, pooling, num_frames = settings.recipe, settings.network.temporal, settings.num_frames
    is_i3d, pools_time = settings.model == "i3d_soundnet", TASKS[settings.dataset].pools_time
    if recipe.batch_size % recipe.accumulate:
        raise InputError("--accumulate", str(recipe.accumulate), "a divisor of --batch_size", "Change either flag.")
    if is_i3d and not pools_time:
        expected = "a data set with one label per clip, UCF101"
        raise InputError("--model", f"i3d_soundnet on {settings.dataset}", expected, "Choose another model.")
    if not is_i3d and pools_time == (pooling == "none"):
        expected = "none for AVE, which is classified second by second, or mean or transformer for UCF101"
        raise InputError("--temporal", pooling, expected, "Leave out the flag.")
    if not pools_time and num_frames not in (None, NUM_SEGMENTS):
        expected = f"{NUM_SEGMENTS} for AVE, one per labelled second"
        raise InputError("--num_frames", str(num_frames), expected, "Leave out the flag.")
    if (settings.data.sound == "waveform") != is_i3d:
        found, expected = f"{settings.data.sound} for {settings.model}", "waveform for i3d_soundnet, else a filter bank"
        raise InputError("--sound", found, expected, "Leave out the flag.")


def variant(settings: Settings) -> str:
    """Return the name of the model with its variant, for run folders and tables."""
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
    data = used_splits(settings, data)

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
    chosen_on = f"{val.num_videos} clips of {settings.select_on} to select the best epoch"
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
        """Accumulate the gradients of a batch's parts and take one step."""
        size, total = sum(len(part.clips) for part in parts), torch.zeros((), device=device)
        for part in parts:
            loss = loss_of(classify(network, part, precision).logits, part.labels) * (len(part.clips) / size)
            loss.backward()
            total = total + loss.detach()
        done = moment.step + 1  # batches of this epoch
        twice = every is not None and (done % every == 0 or done == num_steps)
        return {"total": total, "gradient_norm": take_step(twice)}

    def validate() -> dict[str, float]:
        return task.score(predict_clips(network, val, batch_size, precision))

    recipe, saving, metric = settings.recipe, settings.saving, task.best_metric
    rates, resume = dict.fromkeys(HEAD, recipe.head_lr / recipe.lr), settings.run.resume is not None
    options = {"resume": resume, "takes_steps": True, "patience": recipe.patience, "lr_factors": rates}
    progress = fit(network, train, step, validate, recipe, metric, run_dir, log, saving, **options)
    if not progress.best_epoch:  # no training: save the initial weights, to evaluate them
        save_checkpoint(network.state_dict(), run_dir / BEST_CHECKPOINT)

    # 5 Report
    best = {metric: progress.best_score if progress.best_epoch else None}
    facts = {"trained_parameters": trained, "parameters": total, "random_backbone": is_random}
    finish_run(run_dir, {"best_epoch": progress.best_epoch, **best, **facts}, progress.seconds)
    kept = f"best epoch {progress.best_epoch}, {metric} {progress.best_score:.2f}"
    log.info(f"{kept if progress.best_epoch else 'initial weights'}: {run_dir / BEST_CHECKPOINT}")


if __name__ == "__main__":
    run_entry_point(main)
