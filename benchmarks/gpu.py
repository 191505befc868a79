"""Absolute times on a CUDA device: the entry points themselves, at the paper's size, on packed features."""

from dataclasses import replace
from pathlib import Path

import torch

import pseudo_label_generation
import test_han
import train_han
import train_transformer
from benchmarks.measure import Measurement, timed
from dataloaders.datasets import load_annotations
from dataloaders.store import open_features

FEATURES = {"LLP": ["vggish", "res152", "r2plus1d_18", "clip", "clap"], "UnAV": ["clip", "clap"]}


def gpu_rows(folder: Path, precision: str, num_epochs: int, device: str = "cuda") -> list[Measurement]:
    """Stages 1 to 4; features are packed before the clock starts.

    Args:
        folder: holds `LLP/` and `UnAV/`.
        num_epochs: of stages 1 and 3; the paper's 80, or fewer for a look.
    """
    for dataset, features in FEATURES.items():
        for split in ("train", "val", "test"):
            open_features(load_annotations(dataset, folder / dataset, split), features, folder / dataset)
    runs = folder / "gpu_runs"
    common = ["--device", device, "--precision", precision]
    llp = [*common, "--data_dir", str(folder / "LLP")]
    training = ["--num_epochs", str(num_epochs), "--output_dir", str(runs), "--save_every", "20"]
    unav = [*common, "--data_dir", str(folder / "UnAV")]
    find = ["--runs_dir", str(runs)]
    warm_up(device)
    seconds = {
        "stage 1": timed(lambda: train_transformer.main([*unav, *training])),
        "stage 2": timed(lambda: pseudo_label_generation.main([*llp, *find])),
        "stage 3": timed(lambda: train_han.main([*llp, *training])),
        "stage 4": timed(lambda: test_han.main([*llp, *find, "--logs_dir", str(folder / "gpu_logs")])),
    }
    name = torch.cuda.get_device_name() if device == "cuda" else device
    row = Measurement(
        "", None, 0.0, "", sample=f"{name}, {precision}, {num_epochs} epochs, validation after each; packed before"
    )
    return [
        replace(row, what=f"GPU: stage 3, {num_epochs} epochs", ours=seconds["stage 3"], goal="30 s"),
        replace(row, what=f"GPU: stage 1, {num_epochs} epochs", ours=seconds["stage 1"], goal="90 s"),
        replace(row, what="GPU: all four stages", ours=sum(seconds.values()), goal="3 min"),
    ]


def warm_up(device: str) -> None:
    """Start the device's libraries, which is not part of any stage."""
    a = torch.randn(1024, 1024, device=device)
    (a @ a).sum().item()
