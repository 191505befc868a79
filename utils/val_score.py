"""Whether an evaluation finds the network that was trained."""

from pathlib import Path
from typing import Any

from utils.errors import InputError
from utils.evaluation.tasks import Events, Task
from utils.run_folders import read_summary
from utils.settings import ARGS_FILE, read_args
from utils.training.device import DeviceSettings, machine_name
from utils.training.loop import BEST_CHECKPOINT

ROUNDING = 1.0  # percent by which a score may differ on another device or in another precision


def check_val_score(
    checkpoint: Path,
    run_dir: Path | None,
    device: DeviceSettings,
    task: Task,
    evaluated: dict[str, Any],
    prediction: Events,
    truth: Events,
) -> None:
    """Hold the score of the best checkpoint on val against the one that training wrote for it.

    On the same processor or GPU, in the same precision, batches, threads and version of PyTorch they are equal, else
    they round otherwise. Nothing is compared where other data or another decoding are evaluated than in training.

    Args:
        evaluated: settings of decoding, data and subset by name.

    Raises InputError when they differ, so that this is not the network that was trained.
    """
    if run_dir is None or checkpoint != run_dir / BEST_CHECKPOINT or not (run_dir / ARGS_FILE).is_file():
        return
    args, summary = read_args(run_dir / ARGS_FILE), read_summary(run_dir)
    select_on = args.get("select_on") or task.best_metric
    free = {"residency", "data_dir", "packed_dir", "train_fraction"}
    if select_on not in summary or any(args.get(name) != evaluated[name] for name in evaluated.keys() - free):
        return
    score, trained = task.selection_score(select_on, prediction, truth), summary[select_on]
    ours = machine_name(device.device), device.precision, device.eval_batch_size
    theirs = summary.get("machine"), args.get("precision"), args.get("eval_batch_size")
    if abs(score - trained) > (0 if ours == theirs else ROUNDING):
        found = f"{select_on} {score:.2f} on val"
        expected = f"{trained:.2f}, which training wrote of epoch {summary.get('best_epoch')}"
        way_out = "The weights, the data or the code are others than in training: evaluate where the run was trained."
        raise InputError(checkpoint, found, expected, way_out)
