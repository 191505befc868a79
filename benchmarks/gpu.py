"""Absolute times on a CUDA device: the entry points themselves, at the paper's size, on packed features."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

import pseudo_label_generation
import test_han
import train_han
import train_transformer
from benchmarks.measure import Measurement, timed
from dataloaders.datasets import DATASETS, SPLITS, load_annotations
from dataloaders.store import open_features

DATASETS_OF_STAGES = ("LLP", "UnAV")


def gpu_rows(
    folder: Path,
    precision: str,
    num_epochs: int,
    device: str = "cuda",
    compiled: bool = False,
    num_seeds: int = 5,
    network: tuple[str, ...] = (),
) -> list[Measurement]:
    """Stages 1 to 4, and several seeds of stage 3 side by side; features are packed before the clock starts.

    Args:
        folder: holds `LLP/` and `UnAV/`.
        num_epochs: of stages 1 and 3; the paper's 80, or fewer for a look.
        compiled: train compiled networks as well; the seconds include compiling.
        network: flags of the networks' sizes where they are not the paper's.
    """
    for dataset in DATASETS_OF_STAGES:
        for split in SPLITS:
            annotations = load_annotations(dataset, folder / dataset, split)
            open_features(annotations, list(DATASETS[dataset].features), folder / dataset)
    common = ["--device", device, "--precision", precision]
    runs = folder / "gpu_runs"
    training = ["--num_epochs", str(num_epochs), "--output_dir", str(runs), "--save_every", "20", *network]
    name = torch.cuda.get_device_name() if device == "cuda" else device
    row = Measurement(
        "", None, 0.0, "", sample=f"{name}, {precision}, {num_epochs} epochs, validation after each; packed before"
    )
    warm_up(device)
    rows = []
    for how, flags in (("", []), (", compiled", ["--compile"]))[: 1 + compiled]:
        seconds = seconds_of_stages(folder, runs, common, [*training, *flags])
        whats = {
            f"stage 3, {num_epochs} epochs": (seconds["stage 3"], "30 s"),
            f"stage 1, {num_epochs} epochs": (seconds["stage 1"], "90 s"),
            "all four stages": (sum(seconds.values()), "3 min"),
        }
        if not flags:
            llp = ["--data_dir", str(folder / "LLP"), "--num_runs", str(num_seeds)]
            side_by_side = timed(partial(train_han.main, [*common, *training, *llp]))
            goal = f"{2 * seconds['stage 3']:.0f} s, twice one"
            whats[f"stage 3 of {num_seeds} seeds side by side"] = (side_by_side, goal)
        rows += [replace(row, what=f"GPU: {what}{how}", ours=s, goal=goal) for what, (s, goal) in whats.items()]
    return rows


def seconds_of_stages(folder: Path, runs: Path, common: list[str], training: list[str]) -> dict[str, float]:
    """Seconds of each stage. `common` are flags of all stages, `training` of stages 1 and 3, which write to `runs`."""
    unav, llp = ([*common, "--data_dir", str(folder / dataset)] for dataset in ("UnAV", "LLP"))
    find = ["--runs_dir", str(runs)]
    return {
        "stage 1": timed(lambda: train_transformer.main([*unav, *training])),
        "stage 2": timed(lambda: pseudo_label_generation.main([*llp, *find])),
        "stage 3": timed(lambda: train_han.main([*llp, *training])),
        "stage 4": timed(lambda: test_han.main([*llp, *find, "--logs_dir", str(folder / "gpu_logs")])),
    }


def warm_up(device: str) -> None:
    """Start the device's libraries, which is not part of any stage."""
    a = torch.randn(1024, 1024, device=device)
    (a @ a).sum().item()
