"""Runs every benchmark on simulated features at true shapes and prints one table; docs/performance.md explains it.

python -m benchmarks.run            all of it
python -m benchmarks.run --quick    a smaller sample of everything, in under three minutes
python -m benchmarks.run --accuracy what bf16 costs in accuracy, instead
"""

from utils.entry_point import run_entry_point

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks import inference_rows, scale_rows, training_rows
from benchmarks.accuracy import bf16_difference
from benchmarks.floor import Machine, measure_machine
from benchmarks.gpu import gpu_rows
from benchmarks.measure import UNAV_TRAIN_VIDEOS, Effort, Measurement, Setup
from simulation.simulate import simulate
from utils.files import write_text
from utils.reporting.tables import Column, Row, Table, format_text, write_tables

FULL = Effort(
    llp_videos={"train": None, "val": None, "test": None},
    unav_videos=512,
    rounds=3,
    han_steps=6,
    transformer_steps=1,
    transformer_batch=64,
    naive_evaluated=200,
    naive_scored=1_849,
    searched=649,
    labelled=1_024,
    naive_labelled=100,
    rate_seconds=3.0,
)
QUICK = Effort(
    llp_videos={"train": 640, "val": 128, "test": 128},
    unav_videos=64,
    rounds=1,
    han_steps=3,
    transformer_steps=1,
    transformer_batch=32,
    naive_evaluated=100,
    naive_scored=200,
    searched=649,
    labelled=256,
    naive_labelled=30,
    rate_seconds=0.5,
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smaller sample of everything")
    parser.add_argument("--accuracy", action="store_true", help="bf16 against float32 on simulated LLP, three seeds")
    parser.add_argument("--growth", action=argparse.BooleanOptionalAction, help="default: not with --quick")
    parser.add_argument("--compiled", action="store_true", help="also train compiled networks")
    parser.add_argument("--work_dir", type=Path, default=Path("data/benchmark"), help="takes data and results")
    parser.add_argument("--annotations", type=Path, help="folder with LLP/, UnAV/; default: generated annotations")
    parser.add_argument("--gpu_precision", choices=("tf32", "bf16"), default="bf16")
    parser.add_argument("--gpu_epochs", type=int, help="default: 80, with --quick 4")
    args = parser.parse_args(argv)
    if args.accuracy:
        table = bf16_difference(args.work_dir / "accuracy", args.annotations)
        write_tables(args.work_dir / "accuracy", table)
        print("\n" + format_text(table))
        return
    effort = replace(QUICK if args.quick else FULL, compiled=args.compiled)
    setup = prepare(args.work_dir, args.annotations, effort)
    measurements = []
    for measurement in cpu_measurements(setup):
        print(describe(measurement), flush=True)
        measurements.append(measurement)
    report(args.work_dir / "benchmark", measurements, setup.machine)
    if torch.cuda.is_available():
        folder = args.work_dir / "paper_size"
        for dataset in ("LLP", "UnAV"):
            simulate(dataset, folder, args.annotations)
        epochs = args.gpu_epochs or (4 if args.quick else 80)
        measurements += gpu_rows(folder, args.gpu_precision, epochs, compiled=args.compiled)
        report(args.work_dir / "benchmark", measurements, setup.machine)
    if args.growth or (args.growth is None and not args.quick):
        table = scale_rows.growth(num_videos=10_000, num_steps=3)
        write_tables(args.work_dir / "growth", table)
        print("\n" + format_text(table))


def prepare(work_dir: Path, annotations: Path | None, effort: Effort) -> Setup:
    """Simulate what is not there yet, and measure the machine."""
    sizes = "_".join(str(n or "all") for n in (*effort.llp_videos.values(), effort.unav_videos))
    folder = work_dir / f"{'generated' if annotations is None else 'annotated'}_{sizes}"
    print(f"simulating what is not yet in {folder}", flush=True)
    simulate("LLP", folder, annotations, effort.llp_videos)
    unav_sizes = {"train": min(effort.unav_videos, UNAV_TRAIN_VIDEOS), "val": 2, "test": 2}
    simulate("UnAV", folder, annotations, unav_sizes)
    return Setup(folder, effort, measure_machine(effort.rate_seconds))


def cpu_measurements(setup: Setup, memory_videos: int = 10_000) -> Iterator[Measurement]:
    """The rows of the CPU table, in its order."""
    yield from training_rows.han_epoch(setup)
    yield from training_rows.transformer_epoch(setup)
    yield from inference_rows.evaluation(setup)
    yield inference_rows.metrics(setup)
    yield inference_rows.threshold_search(setup)
    yield from inference_rows.pseudo_labels(setup)
    yield inference_rows.opening(setup)
    yield scale_rows.peak_memory(setup, memory_videos)


def report(path_stem: Path, measurements: list[Measurement], machine: Machine) -> None:
    """Print the table and write it as text formats, and everything that was measured as JSON."""
    rates = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in machine.matrix_rates.items())
    threads = torch.get_num_threads()
    notes = (
        f"{threads} threads, PyTorch {torch.__version__}; measured here: {rates}, {machine.bandwidth / 1e9:.0f} GB/s. "
        "The naive column is float32 throughout.",
    )
    columns = tuple(Column(name) for name in ("naive", "ours", "ratio", "share of the floor"))
    rows = tuple(Row((m.what, m.goal), cells(m)) for m in measurements)
    table = Table("Speed beside a naive implementation", ("what", "goal"), columns, rows, notes)
    write_tables(path_stem, table)
    everything = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": threads,
            "pytorch": torch.__version__,
            **asdict(machine),
        },
        "time": time.strftime("%Y-%m-%d %H:%M"),
        "measurements": [
            {**asdict(m), "ratio": m.ratio, "floor_share": m.floor_share, "share_of": "floor / ours"}
            for m in measurements
        ],
    }
    write_text(path_stem.with_name(f"{path_stem.name}_measurements.json"), json.dumps(everything, indent=1))
    print("\n" + format_text(table))
    print(f"written to {path_stem}.* and {path_stem}_measurements.json")


def cells(measurement: Measurement) -> tuple[str | None, ...]:
    ratio, share = measurement.ratio, measurement.floor_share
    return (
        None if measurement.naive is None else quantity(measurement.naive, measurement.unit),
        quantity(measurement.ours, measurement.unit),
        None if ratio is None else f"{ratio:.1f}x",
        None if share is None else f"{100 * share:.0f} %",
    )


def quantity(value: float, unit: str) -> str:
    """Three significant digits with a unit that suits."""
    if unit == "bytes":
        return f"{value / 1e9:.2f} GB"
    if value >= 100:
        return f"{value:,.0f} s"
    for factor, name in ((1, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= factor:
            return f"{value / factor:.3g} {name}"
    return f"{value:.2g} s"


def describe(measurement: Measurement) -> str:
    naive, ours, ratio, share = cells(measurement)
    parts = [f"naive {naive}" if naive else None, f"ours {ours}", ratio, f"{share} of the floor" if share else None]
    return f"{measurement.what}: {', '.join(p for p in parts if p)} (goal {measurement.goal}; {measurement.sample})"


if __name__ == "__main__":
    run_entry_point(main)
