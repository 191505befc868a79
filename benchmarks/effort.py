"""What the rows of `benchmarks.run` start from: simulated data, how much of each job is measured, and the machine.

The floor of a job is the least time it could take: its operations and bytes over what this machine has been measured to
do.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import timed
from models import HANConfig, TemporalTransformerConfig
from simulation.simulate import simulate
from utils.training.loop import Recipe

LLP_VIDEOS = {"train": 10_000, "val": 649, "test": 1_200}
UNAV_TRAIN_VIDEOS = 6_489
MATRIX_SIZES = ((640, 512, 2048), (1280, 2048, 512), (2688, 1024, 2048), (2048, 2048, 2048))
COPY_BYTES = 2**28
# Passes over the float32 parameters in one training step: read forwards and backwards, gradients written and read for
# their norm, and AdamW reads parameters, gradients and two moments and writes three of them.
PARAMETER_PASSES = 4 + 4 + 3


@dataclass(frozen=True)
class Effort:
    """How much of each job is measured; what is not measured whole is scaled up, and the table says so."""

    llp_videos: dict[str, int | None] = field(default_factory=dict)  # whose features are simulated; empty: all
    unav_videos: int = 512
    rounds: int = 3  # turns of the naive and the optimised way
    han_steps: int = 6
    transformer_steps: int = 1
    transformer_batch: int = 64
    labelled: int = 1_024  # videos
    naive_videos: int = 100  # evaluated and labelled by the naive way
    rate_seconds: float = 3.0  # spent on each of the machine's rates
    compiled: bool = False  # also train compiled networks; compiling takes a minute or two each
    batch_size: int = Recipe.batch_size
    han: HANConfig = HANConfig()
    transformer: TemporalTransformerConfig = TemporalTransformerConfig()


QUICK = Effort(
    llp_videos={"train": 640, "val": 128, "test": 128},
    unav_videos=64,
    rounds=1,
    han_steps=3,
    transformer_batch=32,
    labelled=256,
    naive_videos=30,
    rate_seconds=0.5,
)


@dataclass(frozen=True)
class Machine:
    """What this machine has been measured to do at best."""

    matrix_rates: dict[str, float]  # operations a second, by precision
    bandwidth: float  # bytes a second, read and written

    @property
    def description(self) -> dict[str, str]:
        rates = {name: f"{rate / 1e9:.0f} GFLOP/s" for name, rate in self.matrix_rates.items()}
        return {**rates, "copying": f"{self.bandwidth / 1e9:.0f} GB/s"}

    def floor(self, precision: str, operations: float, num_bytes: float = 0) -> float:
        """Computing and moving may overlap, so the longer of the two is the floor, in seconds."""
        return max(operations / self.matrix_rates[precision], num_bytes / self.bandwidth)


@dataclass(frozen=True)
class Setup:
    """What every measurement starts from."""

    folder: Path  # holds LLP/ and UnAV/, takes what is written
    effort: Effort
    machine: Machine


def prepare(work_dir: Path, annotations: Path | None, effort: Effort) -> Setup:
    """Simulate what is not there yet, and measure the machine."""
    sizes = "_".join(str(effort.llp_videos.get(split) or "all") for split in LLP_VIDEOS)
    origin = "generated" if annotations is None else "annotated"
    folder = work_dir / f"{origin}_{sizes}_{effort.unav_videos}"
    print(f"simulating what is not yet in {folder}", flush=True)
    simulate("LLP", folder, annotations, effort.llp_videos)
    simulate("UnAV", folder, annotations, {"train": effort.unav_videos, "val": 2, "test": 2})
    return Setup(folder, effort, measure_machine(effort.rate_seconds))


def measure_machine(seconds: float) -> Machine:
    """Matrix rates in float32 and bf16 on the CPU, and memory bandwidth, each the best seen in about `seconds`."""
    rates = {}
    for precision, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        rates[precision] = 0.0
        for rows, inner, columns in MATRIX_SIZES:
            a, b = torch.randn(rows, inner, dtype=dtype), torch.randn(columns, inner, dtype=dtype)
            fastest = _shortest(nn.functional.linear, (a, b), seconds / len(MATRIX_SIZES))
            rates[precision] = max(rates[precision], 2 * rows * inner * columns / fastest)
    source, target = torch.ones(COPY_BYTES // 4), torch.ones(COPY_BYTES // 4)
    return Machine(rates, 2 * COPY_BYTES / _shortest(target.copy_, (source,), seconds))


def _shortest(run, arguments: tuple[Tensor, ...], seconds: float) -> float:
    """Shortest of the calls that fit into the time, two at least after one to warm up."""
    first = timed(run, *arguments).wall
    return min(timed(run, *arguments).wall for _ in range(max(2, int(seconds / first))))


def count_operations(run: Callable[[], object]) -> int:
    """Operations of all matrix products that a function computes."""
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return counter.get_total_flops()
