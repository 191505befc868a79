"""Peak memory of stage 3 at the paper's size, and how time and memory grow; every point in a process of its own."""

import json
import subprocess
import sys

from benchmarks.measure import LLP_VIDEOS, Measurement, Setup
from utils.reporting.tables import Column, Row, Table

GROWTH = (1, 2, 4, 10)
SEGMENTS = (10, 60, 300)
SEGMENTS_BATCH = 8  # 64 videos of 300 segments would need about 40 GB of activations
ALLOWANCE = 2e9  # bytes of memory beyond the tensors of the split


def measure(**flags: object) -> dict:
    """One run of `benchmarks.scale`."""
    command = [sys.executable, "-m", "benchmarks.scale"]
    for name, value in flags.items():
        command += [f"--{name}"] + ([] if value is True else [str(value)])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory(setup: Setup, num_videos: int = LLP_VIDEOS["train"]) -> Measurement:
    """Peak memory of stage 3 with its split resident, training steps and a validation included."""
    measured = measure(
        num_videos=num_videos, residency="resident", validate=True, num_steps=2, dim=setup.effort.han.dim
    )
    return Measurement(
        f"peak memory of stage 3, {num_videos:,} videos resident",
        None,
        measured["peak_bytes"],
        f"at most {(measured['split_bytes'] + ALLOWANCE) / 1e9:.2f} GB: tensors of the split "
        f"({measured['split_bytes'] / 1e9:.2f} GB) + 2 GB",
        sample=f"of which interpreter and libraries {measured['start_bytes'] / 1e9:.2f} GB",
        unit="bytes",
    )


def growth(num_videos: int, num_steps: int) -> Table:
    """Time and memory of HAN at the paper's size, for more videos and for longer ones."""
    rows = []
    for residency in ("resident", "stream"):
        for factor in GROWTH:
            measured = measure(num_videos=factor * num_videos, residency=residency, num_steps=num_steps)
            epoch = measured["seconds_per_step"] * factor * num_videos / 64
            rows.append(_row(f"{factor * num_videos:,} videos of 10 s", residency, measured, epoch))
    for segments in SEGMENTS:
        measured = measure(
            num_videos=num_videos // 10, num_segments=segments, batch_size=SEGMENTS_BATCH, num_steps=num_steps
        )
        epoch = measured["seconds_per_step"] * num_videos / 10 / SEGMENTS_BATCH
        rows.append(_row(f"{num_videos // 10:,} videos of {segments} s", "resident", measured, epoch))
    columns = (Column("step (s)"), Column("epoch (s)"), Column("features (GB)"), Column("peak memory (GB)"))
    notes = (
        "HAN at the paper's size, float32; an epoch is scaled from a few steps of 64 videos "
        f"({SEGMENTS_BATCH} for the rows of longer videos). Peak memory counts mapped files.",
    )
    return Table("How stage 3 grows", ("split", "features are"), columns, tuple(rows), notes)


def _row(what: str, residency: str, measured: dict, epoch_seconds: float) -> Row:
    cells = (
        f"{measured['seconds_per_step']:.2f}",
        f"{epoch_seconds:.0f}",
        f"{measured['split_bytes'] / 1e9:.2f}",
        f"{measured['peak_bytes'] / 1e9:.2f}",
    )
    return Row((what, residency), cells)
