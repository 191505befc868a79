"""LAVISH side by side with the released way of training it, on generated videos of ten seconds.

    python -m benchmarks.lavish_benchmark --output_dir temp_lavish_benchmark
    python -m benchmarks.lavish_benchmark --output_dir temp_lavish_benchmark --table frames

`epoch`: the released way decodes each video and computes its filter banks in every epoch, in batches of two; ours reads
packed clips. The network and the number of clips are equal. `frames`: time and memory of a step for clips of 1, 4, 8,
16 and 64 frames. Weights are random: speed does not depend on them.
"""

from utils.entry_point import run_entry_point

import argparse
import ctypes
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import in_turn, median_after_warm_up, timed
from lavish.classification import binary_cross_entropy_of_softmax
from lavish.clip_batches import ClipBatches
from lavish.clip_splits import ClipSource, ClipSplit
from lavish.image_transformers import RANDOM, make_backbone
from lavish.lavish_network import LavishNetwork
from lavish.packing import ClipFormat, decode_clip, open_pack
from simulation.generated_clips import draw, play, write_video
from utils.reporting.tables import Cell, Column, Row, Table, format_text, write_tables
from utils.training.device import select_device
from video.frames import IMAGENET

SECONDS, FRAME_RATE, VIDEO_SIZE = 10, 25, 240  # of the generated videos
FRAME_COUNTS = (1, 4, 8, 16, 64)


@dataclass(frozen=True)
class Size:
    """A backbone and its images."""

    name: str
    image_size: int
    sound: str
    backbone: dict[str, int]


SIZES = {
    "test": Size(
        "backbone of the parity cases", 64, "small", {"patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 4}
    ),
    "tiny": Size("ViT-Ti/16", 224, "vit", {}),
}


def make_network(size: Size, temporal: str, device: torch.device, checkpointed: bool = False) -> LavishNetwork:
    torch.manual_seed(0)
    backbone = make_backbone("vit_tiny_patch16_224", RANDOM, size.image_size, size.backbone)
    return LavishNetwork(backbone, 29, temporal=temporal, checkpoint_blocks=checkpointed).to(device).train()


def write_clips(folder: Path, count: int) -> tuple[ClipSource, ...]:
    """Videos with a drifting shape and a tone, unless they are there."""
    rng = np.random.default_rng(0)
    sources = tuple(ClipSource(f"video{n}", folder / f"video{n}.avi") for n in range(count))
    for source in sources:
        if not source.path.is_file():
            frames = draw("disc", VIDEO_SIZE, rng, SECONDS * FRAME_RATE)
            write_video(source.path, frames, play(440.0, SECONDS, rng), FRAME_RATE)
    return sources


class DecodedEveryTime(Dataset):
    """The released way: a video's frames and filter banks from its file, whenever it is asked for."""

    def __init__(self, sources: tuple[ClipSource, ...], form: ClipFormat):
        self.sources, self.form = sources, form

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        frames, sound, _ = decode_clip(self.sources[n], self.form)
        return IMAGENET(frames), sound.astype(np.float32)


class Trainer:
    """Steps of one network."""

    def __init__(self, size: Size, device: torch.device):
        self.device = device
        self.network = make_network(size, "none", device)
        self.optimizer = torch.optim.Adam([p for p in self.network.parameters() if p.requires_grad])

    def epoch(self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> None:
        for frames, sound in batches:
            labels = torch.zeros(frames.shape[:2], dtype=torch.int64, device=self.device)
            logits = self.network(frames.to(self.device), sound.to(self.device)).logits
            loss = binary_cross_entropy_of_softmax(logits, labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss.item()


def epoch_table(folder: Path, num_clips: int, rounds: int, sizes: list[str], device: torch.device) -> Table:
    """Seconds of an epoch of either way, in turn."""
    sources = write_clips(folder / "videos", num_clips)
    rows = []
    for name in sizes:
        size = SIZES[name]
        form = ClipFormat(10, size.image_size, sound=size.sound)
        started = time.perf_counter()
        pack = open_pack(folder / f"packed_{name}", sources, form)
        packing = time.perf_counter() - started
        names = tuple(source.name for source in sources)
        split = ClipSplit("AVE", "train", ("a",), names, names, torch.zeros(num_clips, 10, dtype=torch.int64))
        batches = ClipBatches(split, pack, device, size.image_size)
        files = DataLoader(DecodedEveryTime(sources, form), batch_size=2, shuffle=True, num_workers=1)
        ways = {
            "released": lambda files=files: iter(files),
            "ours, batches of 2": lambda batches=batches: ((b.frames, b.sound) for b in batches.shuffled(2, 0, 1)),
            "ours, batches of 8": lambda batches=batches: ((b.frames, b.sound) for b in batches.shuffled(8, 0, 1)),
        }
        trainers = {way: Trainer(size, device) for way in ways}
        measures = {
            way: lambda way=way, make=make, trainers=trainers: timed(lambda: trainers[way].epoch(make()))
            for way, make in ways.items()
        }
        seconds = {way: median_after_warm_up(times) for way, times in in_turn(measures, rounds + 1).items()}
        share = (
            frozen_share(trainers["ours, batches of 8"], ways["ours, batches of 8"]) if device.type == "cpu" else None
        )
        for way, measured in seconds.items():
            cells = (measured, seconds["released"] / measured)
            frozen = Cell(100 * share) if share is not None and way == "ours, batches of 8" else None
            once = Cell(packing) if way != "released" else None
            rows.append(Row((size.name, way), (*map(Cell, cells), once, frozen), f"{num_clips} clips"))
    columns = (Column("s an epoch", decimals=2), Column("times as fast"), Column("s to pack once", decimals=2))
    columns += (Column("% in frozen products"),)
    title = f"An epoch of LAVISH on {num_clips} generated videos of {SECONDS} s ({device.type})"
    return Table(title, ("Network", "Way"), columns, tuple(rows), (f"Median of {rounds} epochs after one to warm up.",))


def frozen_share(trainer: Trainer, make_batches) -> float:
    """Share of an epoch's time that goes to the backbone's linear layers, forwards and backwards; on the CPU."""
    spent, started, handles = [0.0], {}, []

    def begin(module: nn.Module, *_) -> None:
        started[module] = time.perf_counter()

    def end(module: nn.Module, *_) -> None:
        spent[0] += time.perf_counter() - started[module]

    for module in trainer.network.backbone.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            handles += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
            handles += [module.register_full_backward_pre_hook(begin), module.register_full_backward_hook(end)]
    seconds = timed(lambda: trainer.epoch(make_batches()))
    for handle in handles:
        handle.remove()
    return spent[0] / seconds


def frames_table(size: Size, device: torch.device, precision: str) -> Table:
    """Seconds and memory of a training step on one clip of T frames, with and without checkpointed blocks."""
    bank = (102, 128) if size.sound == "vit" else (32, 32)
    rows = []
    for num_frames in FRAME_COUNTS:
        cells = []
        for checkpointed in (False, True):
            network = make_network(size, "mean", device, checkpointed)
            frames = torch.randn(1, num_frames, 3, size.image_size, size.image_size, device=device)
            sound = torch.randn(1, num_frames, *bank, device=device)

            def step(network=network, frames=frames, sound=sound) -> None:
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                    logits = network(frames, sound).logits
                nn.functional.cross_entropy(logits.float(), torch.zeros(1, dtype=torch.int64, device=device)).backward()
                network.zero_grad()
                if device.type == "cuda":
                    torch.cuda.synchronize()

            step()
            memory = peak_memory(step, device)
            seconds = min(timed(step) for _ in range(2))
            cells += [Cell(1000 * seconds), Cell(memory / 2**20)]
        rows.append(Row((str(num_frames),), tuple(cells)))
    columns = tuple(
        Column(name, group, 0) for group in ("Blocks kept", "Blocks checkpointed") for name in ("ms", "MiB")
    )
    title = f"A training step on one clip of T frames: LAVISH on {size.name}, {precision} ({device.type})"
    note = "ms: the faster of two steps. MiB: peak during the step above what was there before."
    return Table(title, ("T",), columns, tuple(rows), (note,))


def peak_memory(step, device: torch.device) -> int:
    """Bytes that a step needs at most on top of what was taken before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before = _resident("VmRSS")
    step()
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("temp_lavish_benchmark"))
    parser.add_argument("--table", choices=("epoch", "frames"), default="epoch")
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=list(SIZES))
    parser.add_argument("--num_clips", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="of the table of frames")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    device = select_device(args.device)
    if args.table == "epoch":
        tables = [epoch_table(args.output_dir, args.num_clips, args.rounds, args.sizes, device)]
    else:
        tables = [frames_table(SIZES[name], device, args.precision) for name in args.sizes]
    for number, table in enumerate(tables):
        write_tables(
            args.output_dir / f"{args.table}_{args.sizes[number] if args.table == 'frames' else 'table'}", table
        )
        print(format_text(table))


if __name__ == "__main__":
    run_entry_point(main)
