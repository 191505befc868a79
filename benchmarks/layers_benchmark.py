"""What each variant in `models.fast_layers` saves: CPU time of a step or an evaluation with it and without it.

python -m benchmarks.layers_benchmark    networks at the paper's sizes, one thread

All ways take turns, round after round, and the table has medians. CPU time of this process does not count what else the
machine does.
"""

from utils.entry_point import run_entry_point

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measure import CPU, in_turn
from benchmarks.scale import zero_split
from benchmarks.stages import STAGE_1, STAGE_3, predicted_events
from dataloaders.batches import Batch
from models import HAN, HANConfig, TemporalTransformer, TemporalTransformerConfig, TemporalTransformerOutput
from models.fast_layers import FastDropout, FastMultiheadAttention, Packing
from models.layers import MultiheadAttention
from train_han import make_objective
from utils.audio_visual import AudioVisual
from utils.method.objectives import temporal_transformer_losses
from utils.reporting.tables import Column, Row, Table, format_text
from utils.training.device import Precision

PRECISIONS = ("float32", "bf16")
NUM_UNAV_CLASSES = 100
FAST = "fast"  # the networks as they are
PLAIN_DROPOUT = "FastDropout, not nn.Dropout"
PLAIN_ATTENTION = "FastMultiheadAttention, not MultiheadAttention"
MASKED = "Packing, not masked padding"


class PackedAttention(FastMultiheadAttention):
    """`MultiheadAttention` with PyTorch's kernel, which also takes packed rows."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """q, k and v (B, H, T, D/H), mask (B, 1, 1, T) -> (B, H, T, D/H)"""
        return MultiheadAttention.attend(self, q, k, v, mask)


class Masking(Packing):
    """Padded videos as rows of all their segments: every layer works on padding, attention does not look at it."""

    def pack(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B·T, D)"""
        return x.flatten(0, 1)

    def pad(self, x: Tensor) -> Tensor:
        """(B·T, D) -> (B, T, D)"""
        return x.unflatten(0, self.mask.shape)


class MaskedTemporalTransformer(TemporalTransformer):
    """The temporal transformer without packing."""

    def forward(
        self,
        audio: Tensor,
        visual: Tensor,
        audio_texts: Tensor,
        visual_texts: Tensor,
        mask: Tensor,
        valid_rows: Tensor | None = None,
    ) -> TemporalTransformerOutput:
        """As of `TemporalTransformer`."""
        masking = Masking(mask, valid_rows)
        audio = self.a_transformer["encoder"](self.proj_a(masking.pack(audio)), masking)
        visual = self.v_transformer["encoder"](self.proj_v(masking.pack(visual)), masking)
        logits = AudioVisual(
            self.final_proj_a(audio) @ audio_texts.T * self.a_logit_scale,
            self.final_proj_v(visual) @ visual_texts.T * self.v_logit_scale,
        )
        return TemporalTransformerOutput(logits.map(masking.pad))


def with_plain_dropout(network: nn.Module) -> nn.Module:
    """A copy with PyTorch's dropout."""
    return _replaced(network, FastDropout, lambda fast: nn.Dropout(fast.p))


def with_plain_attention(network: nn.Module) -> nn.Module:
    """A copy with PyTorch's attention kernel."""

    def plain(fast: FastMultiheadAttention) -> PackedAttention:
        attention = PackedAttention(fast.out_proj.in_features, fast.num_heads, fast.dropout.p)
        attention.load_state_dict(fast.state_dict())
        return attention

    return _replaced(network, FastMultiheadAttention, plain)


def without_packing(network: TemporalTransformer) -> MaskedTemporalTransformer:
    """A copy that works on padding."""
    sizes = network.sizes
    masked = MaskedTemporalTransformer(
        sizes["audio_dim"], sizes["visual_dim"], sizes["audio_text_dim"], sizes["visual_text_dim"], network.config
    )
    masked.load_state_dict(network.state_dict())
    return masked


def _replaced(network: nn.Module, kind: type[nn.Module], plain: Callable[[nn.Module], nn.Module]) -> nn.Module:
    network = copy.deepcopy(network)
    for path, layer in list(network.named_modules()):
        if type(layer) is kind:
            network.set_submodule(path, plain(layer))
    return network


@dataclass(frozen=True)
class Sizes:
    """How large networks and batches are."""

    han: HANConfig = STAGE_3.model
    transformer: TemporalTransformerConfig = STAGE_1.model
    han_videos: int = STAGE_3.recipe.batch_size
    evaluated_videos: int = 2 * STAGE_3.device.eval_batch_size
    transformer_videos: int = 16
    longest: int = 60  # segments; lengths are spread evenly from a third of it, so that a third is padding


def padded_batch(num_videos: int, longest: int, num_classes: int, widths: AudioVisual[int]) -> Batch:
    """Random features and labels of videos of which a third of all segments is padding."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.linspace(longest / 3, longest, num_videos).round().long()
    mask = torch.arange(longest) < lengths.unsqueeze(1)  # (B, T)
    labels = torch.rand(num_videos, longest, num_classes, generator=generator) < 0.02
    return Batch(
        videos=torch.arange(num_videos),
        features=widths.map(lambda width: torch.randn(num_videos, longest, width, generator=generator)),
        mask=mask,
        valid_rows=mask.flatten().nonzero().squeeze(1),
        video_labels=labels.any(dim=1).float(),
        labels=AudioVisual(labels, labels),
        pseudo=None,
    )


def training_step(network: nn.Module, loss: Callable[[], Tensor], clip_norm: float) -> Callable[[], None]:
    """A step of the training loop on the same batch again and again."""
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def step() -> None:
        network.train()
        total = loss()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
        optimizer.step()

    return step


def cpu_seconds(run: Callable[[], object]) -> float:
    """Seconds that this process computes."""
    started = time.process_time()
    run()
    return time.process_time() - started


def han_rows(folder: Path, sizes: Sizes, rounds: int) -> list[Row]:
    """A training step and an evaluation of HAN on features of zeros at true shapes, written to `folder`."""
    train = zero_split(folder, "train", sizes.han_videos, 10, "auto")
    val = zero_split(folder, "val", sizes.evaluated_videos, 10, "auto")
    batch = next(train.in_order(sizes.han_videos))
    objective = make_objective(STAGE_3.losses, train)
    fast = HAN(len(train.annotations.classes), train.widths.audio, train.feature_widths.visual, sizes.han)
    networks = {FAST: fast, PLAIN_DROPOUT: with_plain_dropout(fast), PLAIN_ATTENTION: with_plain_attention(fast)}

    def loss(network: HAN, how: Precision) -> Tensor:
        return objective(how.run(network, *batch.features), batch, network.fc_prob)["total"]

    rows = []
    for precision in PRECISIONS:
        how = Precision(precision, CPU)
        steps = {
            way: training_step(network, partial(loss, network, how), STAGE_3.recipe.clip_norm)
            for way, network in networks.items()
        }
        rows += compared(f"HAN step, {sizes.han_videos} videos", precision, steps, rounds)
        batch_size = min(STAGE_3.device.eval_batch_size, sizes.evaluated_videos)
        evaluations = {
            way: partial(predicted_events, networks[way], val, batch_size, how) for way in (FAST, PLAIN_ATTENTION)
        }
        rows += compared(f"HAN evaluation, {sizes.evaluated_videos} videos", precision, evaluations, rounds)
    return rows


def transformer_rows(sizes: Sizes, rounds: int) -> list[Row]:
    """A training step of the temporal transformer on random features, a third of the segments padding."""
    fast = TemporalTransformer(config=sizes.transformer)
    widths = AudioVisual(fast.sizes["audio_dim"], fast.sizes["visual_dim"])
    text_widths = AudioVisual(fast.sizes["audio_text_dim"], fast.sizes["visual_text_dim"])
    texts = text_widths.map(lambda width: nn.functional.normalize(torch.randn(NUM_UNAV_CLASSES, width), dim=-1))
    batch = padded_batch(sizes.transformer_videos, sizes.longest, NUM_UNAV_CLASSES, widths)
    networks = {FAST: fast, PLAIN_ATTENTION: with_plain_attention(fast), MASKED: without_packing(fast)}

    def loss(network: TemporalTransformer, how: Precision) -> Tensor:
        output = how.run(network, *batch.features, *texts, batch.mask, batch.valid_rows)
        return temporal_transformer_losses(output, batch, STAGE_1.losses)["total"]

    rows = []
    for precision in PRECISIONS:
        how = Precision(precision, CPU)
        steps = {
            way: training_step(network, partial(loss, network, how), STAGE_1.recipe.clip_norm)
            for way, network in networks.items()
        }
        rows += compared(f"temporal transformer step, {sizes.transformer_videos} videos", precision, steps, rounds)
    return rows


def compared(job: str, precision: str, ways: dict[str, Callable[[], object]], rounds: int) -> list[Row]:
    """A row for each way to do a job beside the fast one."""
    seconds = in_turn({way: partial(cpu_seconds, run) for way, run in ways.items()}, 1 + rounds)
    measured = {way: of_way[1:] for way, of_way in seconds.items()}  # the first round warms up
    fast = measured.pop(FAST)
    rows = []
    for way, plain in measured.items():
        saved = statistics.median(1 - a / b for a, b in zip(fast, plain, strict=True))
        cells = (f"{statistics.median(plain):.3f}", f"{statistics.median(fast):.3f}", f"{100 * saved:.1f} %")
        rows.append(Row((way, job, precision), cells))
        print(f"{way}: {job}, {precision}: {cells[0]} s without, {cells[1]} s with", flush=True)
    return rows


def main(argv: list[str] | None = None, sizes: Sizes = Sizes()) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers_benchmark", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="after one to warm up")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [*han_rows(Path(folder), sizes, args.rounds), *transformer_rows(sizes, args.rounds)]
    columns = (Column("without (s)"), Column("with (s)"), Column("saved"))
    notes = (f"CPU time, medians of {args.rounds} rounds, one thread, PyTorch {torch.__version__}.",)
    table = Table("What the fast layers save", ("layer", "job", "precision"), columns, tuple(rows), notes)
    print("\n" + format_text(table))


if __name__ == "__main__":
    run_entry_point(main)
