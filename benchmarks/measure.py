"""What a measurement is, and how two ways to do one job are timed fairly."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.floor import Machine
from models import HANConfig, TemporalTransformerConfig
from utils.training.loop import Recipe

CPU = torch.device("cpu")
LLP_VIDEOS = {"train": 10_000, "val": 649, "test": 1_200}
UNAV_TRAIN_VIDEOS = 6_489


@dataclass(frozen=True)
class Effort:
    """How much of each job is measured; what is not measured whole is scaled up, and the table says so."""

    llp_videos: dict[str, int | None]  # whose features are simulated; None: all
    unav_videos: int
    rounds: int  # turns of the naive and the optimised way, after one to warm up
    han_steps: int
    transformer_steps: int
    transformer_batch: int
    naive_evaluated: int  # videos
    naive_scored: int
    searched: int
    labelled: int
    naive_labelled: int
    rate_seconds: float  # spent on each of the machine's rates
    compiled: bool = False  # also train compiled networks; compiling takes a minute or two each
    batch_size: int = Recipe.batch_size
    han: HANConfig = HANConfig()
    transformer: TemporalTransformerConfig = TemporalTransformerConfig()


@dataclass(frozen=True)
class Setup:
    """What every measurement starts from."""

    folder: Path  # holds LLP/ and UnAV/, takes what is written
    effort: Effort
    machine: Machine


@dataclass(frozen=True)
class Measurement:
    """One row of the table: seconds for the whole job, or bytes."""

    what: str
    naive: float | None
    ours: float
    goal: str
    floor: float | None = None
    sample: str = ""
    rounds: dict[str, list[float]] = field(default_factory=dict)  # seconds of every round, unscaled
    unit: str = "s"

    @property
    def ratio(self) -> float | None:
        return None if self.naive is None else self.naive / self.ours

    @property
    def floor_share(self) -> float | None:
        return None if self.floor is None else self.floor / self.ours


def in_turn(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds that each measurement returns, round after round, so that all see the same moods of the machine."""
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            seconds[name].append(measure())
    return seconds


def median_after_warm_up(seconds: list[float]) -> float:
    """Median of all rounds but the first."""
    return statistics.median(seconds[1:])


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
