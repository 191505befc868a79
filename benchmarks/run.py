"""Runs every benchmark on simulated features at true shapes and prints one table; docs/performance.md explains it.

python -m benchmarks.run            all of it
python -m benchmarks.run --quick    a smaller sample of everything, in under three minutes
python -m benchmarks.run --accuracy what bf16 costs in accuracy, instead
"""

from utils.entry_point import run_entry_point

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import inference_rows, scale, training_rows
from benchmarks.effort import QUICK, Effort, Setup, prepare
from benchmarks.harness import Measurement, report
from benchmarks.whole_stages import bf16_difference, gpu_rows
from simulation.simulate import simulate
from utils.reporting.tables import format_text, write_tables


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
    setup = prepare(args.work_dir, args.annotations, replace(QUICK if args.quick else Effort(), compiled=args.compiled))
    title, rates = "Speed beside a naive implementation", setup.machine.description
    measurements = list(cpu_rows(setup))
    report(args.work_dir / "benchmark", title, measurements, rates)
    if torch.cuda.is_available():
        folder = args.work_dir / "paper_size"
        for dataset in ("LLP", "UnAV"):
            simulate(dataset, folder, args.annotations)
        epochs = args.gpu_epochs or (4 if args.quick else 80)
        measurements += gpu_rows(folder, args.gpu_precision, epochs, compiled=args.compiled)
        report(args.work_dir / "benchmark", title, measurements, rates)
    if args.growth or (args.growth is None and not args.quick):
        report(args.work_dir / "growth", "How stage 3 grows", scale.growth(num_videos=10_000, num_steps=3), rates)


def cpu_rows(setup: Setup, memory_videos: int = 10_000) -> Iterator[Measurement]:
    """The rows of the CPU table, in its order."""
    yield from training_rows.han_epoch(setup)
    yield from training_rows.transformer_epoch(setup)
    yield from inference_rows.evaluation(setup)
    yield from inference_rows.metrics(setup)
    yield from inference_rows.threshold_search(setup)
    yield from inference_rows.pseudo_labels(setup)
    yield from inference_rows.opening(setup)
    yield from scale.peak_memory(setup, memory_videos)


if __name__ == "__main__":
    run_entry_point(main)
