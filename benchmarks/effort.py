"""What the rows of `benchmarks.run` start from: simulated data, the stages' settings, how much of a job is measured."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

import train_han
import train_transformer
from dataloaders.batches import SplitBatches
from models import HAN, HANConfig, TemporalTransformerConfig
from simulation.simulate import simulate
from utils.evaluation.inference import run_han
from utils.evaluation.tasks import Events, find_task
from utils.training.device import Precision

CPU = torch.device("cpu")
STAGE_1 = train_transformer.Settings()
STAGE_3 = train_han.Settings()
QUICK = {
    "llp_videos": {"train": 640, "val": 128, "test": 128},
    "unav_videos": 64,
    "rounds": 1,
    "han_steps": 3,
    "transformer_batch": 32,
    "labelled": 256,
    "naive_videos": 30,
}


@dataclass(frozen=True)
class Setup:
    """What every measurement starts from. What is not measured whole is scaled up, and the table says so."""

    folder: Path  # holds LLP/ and UnAV/, takes what is written
    rates: dict[str, float]  # operations a second of matrix products, by precision
    llp_videos: dict[str, int | None] = field(default_factory=dict)  # whose features are simulated; empty: all
    unav_videos: int = 512
    rounds: int = 3  # turns of the naive and the optimised way
    han_steps: int = 6
    han_batch: int = 64
    transformer_batch: int = 64
    labelled: int = 1_024  # videos
    naive_videos: int = 100  # evaluated and labelled by the naive way
    compiled: bool = False  # also train compiled networks; compiling takes a minute or two each
    han: HANConfig = HANConfig()
    transformer: TemporalTransformerConfig = TemporalTransformerConfig()


def prepare(work_dir: Path, annotations: Path | None, rates: dict[str, float], **effort: object) -> Setup:
    """Simulate what is not there yet. Videos stay in one folder, however many of them are asked for."""
    setup = Setup(work_dir / ("generated" if annotations is None else "annotated"), rates, **effort)
    print(f"simulating what is not yet in {setup.folder}", flush=True)
    simulate("LLP", setup.folder, annotations, setup.llp_videos)
    simulate("UnAV", setup.folder, annotations, {"train": setup.unav_videos, "val": 2, "test": 2})
    return setup


def predicted_events(network: HAN, split: SplitBatches, precision: str) -> Events:
    """Return what stage 4 predicts for a split."""
    output = run_han(network, split, STAGE_3.device.eval_batch_size, Precision(precision, split.device))
    return find_task(split.annotations.dataset).decode(output, STAGE_3.decoding)
