"""Time and peak memory of stage 3 by number and length of videos, every point in a process of its own.

Features are sparse files of zeros at true sizes, mapped as a packed file is: neither time nor memory depend on values.
"""

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from benchmarks.effort import LLP_VIDEOS, Setup
from benchmarks.harness import Measurement, resident_bytes
from benchmarks.inference_rows import predicted_events
from benchmarks.training_rows import CPU, STAGE_3, han_losses, seconds_of_steps
from models import HAN, HANConfig
from tests.naive.made_up_data import zero_split
from utils.evaluation.tasks import find_task, true_events
from utils.training.device import Precision

GROWTH = (1, 2, 4, 10)
SEGMENTS = (10, 60, 300)
SEGMENTS_BATCH = 8  # 64 videos of 300 segments would need about 40 GB of activations
ALLOWANCE = 2e9  # bytes of memory beyond the tensors of the split


def peak_memory(setup: Setup, num_videos: int = LLP_VIDEOS["train"]) -> list[Measurement]:
    """Peak memory of stage 3 with its split resident, training steps and a validation included."""
    measured = in_own_process(setup.effort.han, num_videos, num_steps=2, validate=True)
    split_bytes = measured["split_bytes"]
    goal = f"at most {(split_bytes + ALLOWANCE) / 1e9:.2f} GB"
    sample = f"tensors of the split {split_bytes / 1e9:.2f} GB, libraries {measured['start_bytes'] / 1e9:.2f} GB"
    what = f"peak memory of stage 3, {num_videos:,} videos resident"
    return [Measurement(what, None, measured["peak_bytes"], goal, sample=sample, unit="bytes")]


def growth(num_videos: int, num_steps: int) -> list[Measurement]:
    """Seconds of an epoch and peak memory for more videos, and for longer ones."""
    points = [(factor * num_videos, 10, 64, residency) for residency in ("resident", "stream") for factor in GROWTH]
    points += [(num_videos // 10, segments, SEGMENTS_BATCH, "resident") for segments in SEGMENTS]
    rows = []
    for count, segments, batch_size, residency in points:
        measured = in_own_process(HANConfig(), count, num_steps, segments, batch_size, residency)
        step, what = measured["seconds"] / num_steps, f"{count:,} videos of {segments} s, {residency}"
        sample = f"step {step:.2f} s, {batch_size} videos; features {measured['split_bytes'] / 1e9:.2f} GB"
        rows.append(Measurement(f"HAN epoch of {what}", None, step * count / batch_size, sample=sample))
        rows.append(Measurement(f"peak memory, {what}", None, measured["peak_bytes"], sample=sample, unit="bytes"))
    return rows


def in_own_process(*arguments: object, **flags: object) -> dict[str, float]:
    """`measure` in a new process, whose peak memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments, **flags).result()


def measure(
    config: HANConfig,
    num_videos: int,
    num_steps: int,
    num_segments: int = 10,
    batch_size: int = 64,
    residency: str = "resident",
    validate: bool = False,
) -> dict[str, float]:
    """Seconds of some float32 steps, bytes of the training split's features, peak memory of this process in bytes."""
    start_bytes = resident_bytes("VmHWM")  # interpreter and libraries
    with tempfile.TemporaryDirectory() as folder:
        train = zero_split(Path(folder), "LLP", "train", torch.full((num_videos,), num_segments), residency)
        network = HAN(len(train.annotations.classes), train.widths.audio, train.feature_widths.visual, config)
        losses = han_losses(network, "float32", train)
        seconds = seconds_of_steps(network, losses, train, STAGE_3.recipe, num_steps, batch_size)
        for _ in train.in_order(batch_size):
            pass  # every page of the split is touched, as in a whole epoch
        if validate:
            val = zero_split(Path(folder), "LLP", "val", torch.full((LLP_VIDEOS["val"],), num_segments), residency)
            prediction = predicted_events(network, val, 128, Precision("float32", CPU))
            find_task("LLP").score(prediction, true_events(val.annotations, CPU))
    split_bytes = 4 * sum(train.widths) * num_videos * num_segments
    peak = resident_bytes("VmHWM")
    return {"seconds": seconds.wall, "split_bytes": split_bytes, "peak_bytes": peak, "start_bytes": start_bytes}
