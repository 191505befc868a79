"""Runs every benchmark on simulated features at true shapes and prints one table; docs/performance.md explains it.

python -m benchmarks.run            all of it
python -m benchmarks.run --quick    a smaller sample of everything, in under three minutes
python -m benchmarks.run --accuracy what bf16 costs in accuracy, instead
"""

from utils.entry_point import run_entry_point

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks import inference_rows, training_rows
from benchmarks.effort import QUICK, Setup, prepare
from benchmarks.harness import Measurement, matrix_rates, report
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
    args = parser.parse_args(argv)
    if args.accuracy:
        table = bf16_difference(args.work_dir / "accuracy", args.annotations)
        write_tables(args.work_dir / "accuracy", table)
        print("\n" + format_text(table))
        return
    effort = {**(QUICK if args.quick else {}), "compiled": args.compiled}
    setup = prepare(args.work_dir, args.annotations, matrix_rates(), **effort)
    title, rows = "Speed beside a naive implementation", list(cpu_rows(setup))
    report(args.work_dir / "benchmark", title, rows, setup.rates)
    if torch.cuda.is_available():
        folder = args.work_dir / "paper_size"
        for dataset in ("LLP", "UnAV"):
            simulate(dataset, folder, args.annotations)
        rows += gpu_rows(folder, "bf16", 4 if args.quick else 80, compiled=args.compiled)
        report(args.work_dir / "benchmark", title, rows, setup.rates)
    if args.growth or (args.growth is None and not args.quick):
        report(args.work_dir / "growth", "How stage 3 grows", training_rows.growth(num_videos=10_000, num_steps=3))


def cpu_rows(setup: Setup, memory_videos: int = 10_000) -> Iterator[Measurement]:
    """Yield the rows of the CPU table, in its order."""
    yield from training_rows.han_epoch(setup)
    yield from training_rows.transformer_epoch(setup)
    yield from inference_rows.evaluation(setup)
    yield from inference_rows.metrics(setup)
    yield from inference_rows.threshold_search(setup)
    yield from inference_rows.pseudo_labels(setup)
    yield from inference_rows.opening(setup)
    yield training_rows.peak_memory(setup.han, memory_videos)


if __name__ == "__main__":
    run_entry_point(main)
