"""Run all benchmarks on simulated features with real shapes; docs/performance.md describes them."""

from utils.entry_point import run_entry_point

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn

import pseudo_label_generation
import test_han
import train_han
import train_transformer
from benchmarks import cpu_rows as cpu
from benchmarks.cpu_rows import QUICK, STAGE_1, STAGE_3, Setup, seconds_of_steps
from benchmarks.harness import CPU_TIME, DTYPES, NAIVE, WALL, Measurement, Way, compare, matrix_rates, report, timed
from dataloaders.datasets import DATASETS, SPLITS, load_annotations
from dataloaders.store import open_features
from models import TemporalTransformer
from models.layers import FastDropout, FastMultiheadAttention, MultiheadAttention, Packing
from simulation.simulate import simulate
from tests.naive.made_up_data import zero_split
from utils.audio_visual import AudioVisual
from utils.recipes import make_network
from utils.reporting.tables import Cell, Column, Row, Table, format_text, write_tables
from utils.settings import with_settings

# Flags of `bf16_difference`
NETWORK = ("--dim", "128", "--num_heads", "4", "--ffn_dim", "256", "--num_layers", "2")
SHORT_STAGE_1 = ("--num_epochs", "10", "--warmup_epochs", "2", "--lr", "1e-3", "--lr_min", "1e-4", "--dropout", "0.1")
SHORT_STAGE_3 = ("--num_epochs", "20", "--warmup_epochs", "2", "--lr", "5e-4", "--lr_min", "5e-5")
# By name: the class of each fast variant, and plain definitions of its methods. Without packing, (B, T, D) -> (B·T, D),
# all layers also compute padding, which attention masks.
WITHOUT_PACKING = {"pack": lambda _, x: x.flatten(0, 1), "pad": lambda self, x: x.unflatten(0, self.mask.shape)}
PLAIN = {
    "FastDropout": (FastDropout, {"forward": nn.Dropout.forward}),
    "FastMultiheadAttention": (FastMultiheadAttention, {"attend": MultiheadAttention.attend}),
    "Packing": (Packing, WITHOUT_PACKING),
}


def cpu_rows(setup: Setup) -> list[Measurement]:
    """Return the rows of the CPU table."""
    jobs = (cpu.han_epoch, cpu.transformer_epoch, cpu.evaluation, cpu.threshold_search, cpu.pseudo_labels)
    return [row for measure in jobs for row in measure(setup)]


def gpu_rows(
    folder: Path,  # holds `LLP/` and `UnAV/`
    precision: str,
    num_epochs: int,
    device: str = "cuda",
    compiled: bool = False,  # also train compiled networks, compilation included
    num_seeds: int = 5,
    network: tuple[str, ...] = (),  # flags that change the networks' sizes
) -> list[Measurement]:
    """Time stages 1 to 4, and several seeds of stage 3 in parallel; features are packed beforehand."""
    for dataset, split in product(("LLP", "UnAV"), SPLITS):
        annotations = load_annotations(dataset, folder / dataset, split)
        open_features(annotations, list(DATASETS[dataset].features), folder / dataset)
    torch.randn(1024, 1024, device=device).square().sum().item()  # initialises the device's libraries
    runs, common = str(folder / "gpu_runs"), ["--device", device, "--precision", precision]
    unav, llp = ([*common, "--data_dir", str(folder / dataset)] for dataset in ("UnAV", "LLP"))
    how_long = ["--num_epochs", str(num_epochs), "--output_dir", runs, "--save_every", "20", *network]
    rows = []

    def seconds(command: Callable[[list[str]], object], *flags: str) -> float:
        return timed(command, flags)[WALL]

    def add(what: str, ours: float, goal: str) -> None:
        sample = f"{device}, {precision}, with validation after each epoch, without packing"
        rows.append(Measurement(f"GPU: {what}", None, ours, goal, sample=sample))

    for how, flags in (("", []), (", compiled", ["--compile"]))[: 1 + compiled]:
        stage_1 = seconds(train_transformer.main, *unav, *how_long, *flags)
        stage_2 = seconds(pseudo_label_generation.main, *llp, "--runs_dir", runs)
        stage_3 = seconds(train_han.main, *llp, *how_long, *flags)
        stage_4 = seconds(test_han.main, *llp, "--runs_dir", runs, "--logs_dir", str(folder / "gpu_logs"))
        add(f"stage 3, {num_epochs} epochs{how}", stage_3, "30 s")
        add(f"stage 1, {num_epochs} epochs{how}", stage_1, "90 s")
        add(f"all four stages{how}", stage_1 + stage_2 + stage_3 + stage_4, "3 min")
        if not flags:
            several = seconds(train_han.main, *llp, *how_long, "--num_runs", str(num_seeds))
            add(f"stage 3 of {num_seeds} seeds in parallel", several, f"{2 * stage_3:.0f} s, twice one")
    return rows


def without(layer: str, run: Callable, *arguments: object) -> object:
    """Call a function with one fast variant replaced by its plain definition (see `PLAIN`)."""
    fast, methods = PLAIN[layer]
    with patch.multiple(fast, **methods):
        return run(*arguments)


def layer_rows(
    folder: Path,
    rounds: int = 7,  # after one warm-up round
    stage_1: train_transformer.Settings = STAGE_1,
    stage_3: train_han.Settings = STAGE_3,
    longest: int = 60,  # segments of the temporal transformer's longest video; a third of all segments is padding
    videos: tuple[int, int, int] = (64, 512, 16),  # of HAN's step and evaluation, and of the transformer's step
) -> list[Measurement]:
    """Measure CPU time on all-zero features with ("ours") and without ("naive") each fast variant of a layer."""
    train, val = (
        zero_split(folder, "LLP", s, torch.full((n,), 10)) for s, n in (("train", videos[0]), ("val", videos[1]))
    )
    unav = zero_split(folder, "UnAV", "train", torch.linspace(longest / 3, longest, videos[2]).round().long())
    network, teacher = make_network(stage_3, train), TemporalTransformer(config=stage_1.model)
    widths = (teacher.sizes["audio_text_dim"], teacher.sizes["visual_text_dim"])
    texts = AudioVisual(*(nn.functional.normalize(torch.randn(len(unav.annotations.classes), d)) for d in widths))
    recipes = with_settings(stage_3.recipe, batch_size=videos[0]), with_settings(stage_1.recipe, batch_size=videos[2])
    rows = []
    for precision in DTYPES:
        losses = cpu.han_losses(network, precision, train)
        step = partial(seconds_of_steps, network, losses, train, recipes[0], 1)
        evaluation = partial(timed, cpu.predicted_events, network, val, precision)
        losses = cpu.transformer_losses(teacher, precision, texts)
        teacher_step = partial(seconds_of_steps, teacher, losses, unav, recipes[1], 1)
        for what, run, layer in (
            (f"HAN step, {videos[0]} videos", step, "FastDropout"),
            (f"HAN step, {videos[0]} videos", step, "FastMultiheadAttention"),
            (f"HAN evaluation, {videos[1]} videos", evaluation, "FastMultiheadAttention"),
            (f"temporal transformer step, {videos[2]} videos", teacher_step, "FastMultiheadAttention"),
            (f"temporal transformer step, {videos[2]} videos", teacher_step, "Packing"),
        ):
            ways = {NAIVE: Way(partial(without, layer, run)), layer: Way(run)}
            rows += compare(f"{what}, {precision}", ways, rounds, clocks=(CPU_TIME,))
    return rows


def bf16_difference(
    folder: Path,
    annotations: Path | None,
    sizes: tuple[int, int, int] = (800, 600, 300),  # training videos of UnAV and of LLP, videos of each other split
    seeds: tuple[int, ...] = (1, 2, 3),
    network: tuple[str, ...] = NETWORK,
    stage_1: tuple[str, ...] = SHORT_STAGE_1,
    stage_3: tuple[str, ...] = SHORT_STAGE_3,
) -> Table:
    """Compare segment-level Type@AV on the test split after training in float32 and in bf16, by seed."""
    for dataset, number in zip(("UnAV", "LLP"), sizes, strict=False):
        simulate(dataset, folder / "data", annotations, {"train": number, "val": sizes[2], "test": sizes[2]})
    runs, teacher = str(folder / "runs"), str(folder / "pseudo_labels")
    unav, llp = (["--data_dir", str(folder / "data" / dataset)] for dataset in ("UnAV", "LLP"))
    train_transformer.main([*unav, "--output_dir", runs, *network, *stage_1])
    pseudo_label_generation.main([*llp, "--runs_dir", runs, "--output_dir", teacher])
    scores: dict[str, list[float]] = {"float32": [], "bf16": []}
    for precision, seed in product(scores, seeds):
        output, how = str(folder / f"{precision}_{seed}"), [*llp, "--precision", precision]
        training = ["--pseudo_label_dir", teacher, "--output_dir", output, "--seed", str(seed)]
        train_han.main([*how, *training, *network, *stage_3])
        test_han.main([*how, "--runs_dir", output, "--output_dir", f"{output}/test", "--num_figures", "0"])
        scores[precision].append(json.loads(Path(output, "test/summary.json").read_text())["test"]["segment_Type"])
    scores["bf16 - float32"] = [b - a for a, b in zip(scores["float32"], scores["bf16"], strict=True)]
    rows = tuple(Row((name,), (*map(Cell, values), Cell.over_runs(values))) for name, values in scores.items())
    columns = tuple(Column(name, decimals=2) for name in (*(f"seed {seed}" for seed in seeds), "mean"))
    note = f"Simulated LLP, {sizes[1]} training and {sizes[2]} test videos; network {' '.join(network)}; "
    note += f"stage 3 {' '.join(stage_3)}. Goal: the means differ by less than 0.3."
    return Table("Segment-level Type@AV on the test split, by precision of stage 3", ("",), columns, rows, (note,))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smaller sample of everything, in three minutes")
    parser.add_argument(
        "--accuracy", action="store_true", help="only bf16 against float32 on simulated LLP, three seeds"
    )
    parser.add_argument("--layers", action="store_true", help="only CPU time with and without fast layers, one thread")
    parser.add_argument("--compiled", action="store_true", help="also train compiled networks on a GPU")
    parser.add_argument("--work_dir", type=Path, default=Path("data/benchmark"), help="folder of data and results")
    parser.add_argument("--annotations", type=Path, help="folder with LLP/, UnAV/ (default: generate annotations)")
    args = parser.parse_args(argv)
    if args.accuracy:
        table = bf16_difference(args.work_dir / "accuracy", args.annotations)
        write_tables(args.work_dir / "accuracy", table)
        print("\n" + format_text(table))
        return
    if args.layers:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            report(args.work_dir / "layers", "Fast layers against plain ones", layer_rows(Path(folder)))
        return
    effort = QUICK if args.quick else {}
    setup = Setup(args.work_dir, args.annotations, matrix_rates(), **effort)
    title, rows = "Speed against a naive implementation", cpu_rows(setup)
    report(args.work_dir / "benchmark", title, rows, setup.rates)
    if torch.cuda.is_available():
        folder = args.work_dir / "paper_size"
        for dataset in ("LLP", "UnAV"):
            simulate(dataset, folder, args.annotations)
        rows += gpu_rows(folder, "bf16", 4 if args.quick else 80, compiled=args.compiled)
        report(args.work_dir / "benchmark", title, rows, setup.rates)
    if not args.quick:
        report(args.work_dir / "growth", "Cost of stage 3 by size", cpu.growth(num_videos=10_000, num_steps=3))


if __name__ == "__main__":
    run_entry_point(main)
