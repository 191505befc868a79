"""The least time a computation could take: its operations and bytes over what this machine has been measured to do."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.naive_networks import NaiveHAN, NaiveTemporalTransformer
from models import HANConfig, TemporalTransformerConfig
from utils.audio_visual import AudioVisual

MATRIX_SIZES = ((640, 512, 2048), (1280, 2048, 512), (2688, 1024, 2048), (2048, 2048, 2048))
COPY_BYTES = 2**28
# Passes over the float32 parameters in one training step: read forwards and backwards, gradients written and read for
# their norm, and AdamW reads parameters, gradients and two moments and writes three of them.
PARAMETER_PASSES = 4 + 4 + 3


@dataclass(frozen=True)
class Machine:
    """What this machine has been measured to do at best."""

    matrix_rates: dict[str, float]  # operations a second, by precision
    bandwidth: float  # bytes a second, read and written

    def floor_seconds(self, precision: str, operations: float, num_bytes: float) -> float:
        """Computing and moving may overlap, so the longer of the two is the floor."""
        return max(operations / self.matrix_rates[precision], num_bytes / self.bandwidth)


def measure_machine(seconds: float) -> Machine:
    """Matrix rates in float32 and bf16 on the CPU, and memory bandwidth, each the best seen in `seconds`."""
    rates = {}
    for precision, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        rates[precision] = max(_matrix_rate(shape, dtype, seconds / len(MATRIX_SIZES)) for shape in MATRIX_SIZES)
    source, target = (torch.ones(COPY_BYTES // 4) for _ in range(2))
    copy_seconds = _shortest(lambda: target.copy_(source), seconds)
    return Machine(rates, 2 * COPY_BYTES / copy_seconds)


def _matrix_rate(shape: tuple[int, int, int], dtype: torch.dtype, seconds: float) -> float:
    rows, inner, columns = shape
    a, b = torch.randn(rows, inner, dtype=dtype), torch.randn(columns, inner, dtype=dtype)
    return 2 * rows * inner * columns / _shortest(lambda: nn.functional.linear(a, b), seconds)


def _shortest(run: Callable[[], object], seconds: float) -> float:
    """Shortest of the calls that fit into the time, two at least after one to warm up."""
    run()
    shortest, calls, end = float("inf"), 0, time.perf_counter() + seconds
    while calls < 2 or time.perf_counter() < end:
        started = time.perf_counter()
        run()
        shortest = min(shortest, time.perf_counter() - started)
        calls += 1
    return shortest


def han_operations(
    num_segments: int, training: bool, num_classes: int, audio_dim: int, visual_dims: Sequence[int], config: HANConfig
) -> int:
    """Matrix operations of HAN on one video, backwards included when training."""
    with torch.device("meta"):
        model = NaiveHAN(num_classes, audio_dim, visual_dims, config)
        inputs = (torch.empty(1, num_segments, audio_dim), torch.empty(1, num_segments, sum(visual_dims)))
        return _operations(model, inputs, training)


def temporal_transformer_operations(
    lengths: Tensor,
    training: bool,
    widths: AudioVisual[int],
    texts: AudioVisual[Tensor],
    config: TemporalTransformerConfig,
) -> int:
    """Matrix operations of the temporal transformer on videos of these lengths (N,), none spent on padding.

    They are a·T + b·T² for a video of T segments; two counts give a and b.
    """
    counts = {}
    with torch.device("meta"):
        model = NaiveTemporalTransformer(*widths, *texts.map(lambda x: x.shape[1]), config)
        texts = texts.map(lambda x: torch.empty(x.shape))
        for length in (20, 40):
            streams = [torch.empty(1, length, width) for width in widths]
            mask = torch.ones(1, length, dtype=torch.bool)
            counts[length] = _operations(model, (*streams, *texts, mask), training)
    squared = (counts[40] - 2 * counts[20]) / (40**2 - 2 * 20**2)
    linear = (counts[20] - 20**2 * squared) / 20
    lengths = lengths.double()
    return int((linear * lengths + squared * lengths**2).sum())


def _operations(model: nn.Module, inputs: tuple[Tensor, ...], training: bool) -> int:
    model.train(training)
    counter = FlopCounterMode(display=False)
    with counter, torch.set_grad_enabled(training):
        output = model(*inputs)
        if training:
            (output.logits.audio.sum() + output.logits.visual.sum()).backward()
    return counter.get_total_flops()


def parameter_bytes(model: nn.Module) -> int:
    """Bytes of the parameters, in float32."""
    return sum(p.numel() * 4 for p in model.parameters())
