"""Savings of each variant in `models.layers`: CPU time of a step or an evaluation with it ("ours") and without it.

python -m benchmarks.layers_benchmark    networks at the paper's sizes, one thread

CPU time of this process is independent of other load. Variants that save five percent of a step are kept.
"""

from utils.entry_point import run_entry_point

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn

from benchmarks import cpu_rows
from benchmarks.cpu_rows import STAGE_1, STAGE_3, seconds_of_steps
from benchmarks.harness import DTYPES, NAIVE, Measurement, Way, compare, report, timed
from models import HAN, HANConfig, TemporalTransformer, TemporalTransformerConfig
from models.layers import FastDropout, FastMultiheadAttention, MultiheadAttention, Packing
from tests.naive.made_up_data import zero_split
from utils.audio_visual import AudioVisual

# Each variant's class, and plain definitions of its methods. Without packing every layer computes padding, too,
# (B, T, D) -> (B·T, D), which attention masks.
WITHOUT_PACKING = {"pack": lambda _, x: x.flatten(0, 1), "pad": lambda self, x: x.unflatten(0, self.mask.shape)}
PLAIN = {
    "FastDropout": (FastDropout, {"forward": nn.Dropout.forward}),
    "FastMultiheadAttention": (FastMultiheadAttention, {"attend": MultiheadAttention.attend}),
    "Packing": (Packing, WITHOUT_PACKING),
}


def without(layer: str, run: Callable, *arguments: object) -> object:
    """Call a function with a variant of `PLAIN` replaced by its plain definition."""
    fast, methods = PLAIN[layer]
    with patch.multiple(fast, **methods):
        return run(*arguments)


def layer_rows(
    folder: Path,
    rounds: int,
    han: HANConfig = STAGE_3.model,
    transformer: TemporalTransformerConfig = STAGE_1.model,
    longest: int = 60,  # segments of the temporal transformer's videos; a third of all is padding
    videos: tuple[int, int, int] = (64, 512, 16),  # of each job
) -> list[Measurement]:
    """Measure steps and an evaluation of HAN, and steps of the temporal transformer, on features of zeros."""
    train = zero_split(folder, "LLP", "train", torch.full((videos[0],), 10))
    val = zero_split(folder, "LLP", "val", torch.full((videos[1],), 10))
    unav = zero_split(folder, "UnAV", "train", torch.linspace(longest / 3, longest, videos[2]).round().long())
    network = HAN(len(train.annotations.classes), train.widths.audio, train.feature_widths.visual, han)
    teacher = TemporalTransformer(config=transformer)
    widths = (teacher.sizes["audio_text_dim"], teacher.sizes["visual_text_dim"])
    texts = AudioVisual(*(nn.functional.normalize(torch.randn(len(unav.annotations.classes), d)) for d in widths))
    recipes = replace(STAGE_3.recipe, batch_size=videos[0]), replace(STAGE_1.recipe, batch_size=videos[2])
    rows = []
    for precision in DTYPES:
        losses = cpu_rows.han_losses(network, precision, train)
        step = partial(seconds_of_steps, network, losses, train, recipes[0], 1)
        evaluation = partial(timed, cpu_rows.predicted_events, network, val, precision)
        losses = cpu_rows.transformer_losses(teacher, precision, texts)
        teacher_step = partial(seconds_of_steps, teacher, losses, unav, recipes[1], 1)
        for what, run, layer in (
            (f"HAN step, {videos[0]} videos", step, "FastDropout"),
            (f"HAN step, {videos[0]} videos", step, "FastMultiheadAttention"),
            (f"HAN evaluation, {videos[1]} videos", evaluation, "FastMultiheadAttention"),
            (f"temporal transformer step, {videos[2]} videos", teacher_step, "FastMultiheadAttention"),
            (f"temporal transformer step, {videos[2]} videos", teacher_step, "Packing"),
        ):
            ways = {NAIVE: Way(partial(without, layer, run)), layer: Way(run)}
            rows += compare(f"{what}, {precision}", ways, rounds, clocks=("cpu",))
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers_benchmark", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="after one to warm up")
    parser.add_argument("--output", type=Path, default=Path("data/benchmark/layers"), help="stem of the table's files")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        report(args.output, "What the fast layers save", layer_rows(Path(folder), args.rounds))


if __name__ == "__main__":
    run_entry_point(main)
