"""Time LAVISH against its released training procedure, on generated videos of ten seconds, with random weights.

    python -m benchmarks.lavish_benchmark --output_dir temp_lavish_benchmark [--table frames]

`epoch`: the released (naive) procedure decodes videos and computes filter banks in every epoch, in batches of two; ours
reads packed clips. `frames`: time and memory of a step on clips of 1 to 64 frames, with all activations kept (naive)
and with checkpointed blocks (ours).
"""

from utils.entry_point import run_entry_point

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.harness import NAIVE, Measurement, Way, compare, peak_bytes, report, timed
from lavish.clip_batches import ClipBatches
from lavish.clip_splits import ClipSource, ClipSplit
from lavish.clip_tasks import binary_cross_entropy_of_softmax
from lavish.image_transformers import make_backbone
from lavish.lavish_network import ClipNetworkSettings, LavishNetwork
from lavish.packing import ClipFormat, open_pack
from simulation.generated_clips import draw, play, save_clip
from tests.naive.naive_clips import ClipFiles
from utils.training.device import Precision, select_device

SECONDS, FRAME_RATE, VIDEO_SIZE = 10, 25, 240  # of the generated videos
FRAME_COUNTS = (1, 4, 8, 16, 64)
# Image size, kind and shape of spectrograms, and changes to the sizes of ViT-Ti/16.
SIZES = {
    "test": (64, "small", (32, 32), {"patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 4}),
    "tiny": (224, "vit", (102, 128), {}),
}


def make_network(size: str, temporal: str, device: torch.device, checkpointed: bool = False) -> LavishNetwork:
    image_size, _, _, sizes = SIZES[size]
    torch.manual_seed(0)
    settings = ClipNetworkSettings(temporal=temporal, checkpoint_blocks=checkpointed)
    backbone = make_backbone("vit_tiny_patch16_224", image_size, sizes)
    return LavishNetwork(backbone, 29, "lavish", settings).to(device).train()


def write_clips(folder: Path, count: int) -> tuple[ClipSource, ...]:
    """Write videos of a drifting shape and a tone unless they exist, and return their sources."""
    rng = np.random.default_rng(0)
    sources = tuple(ClipSource(f"video{n}", folder / f"video{n}.avi") for n in range(count))
    for source in sources:
        if not source.path.is_file():
            frames = draw("disc", VIDEO_SIZE, rng, SECONDS * FRAME_RATE)
            save_clip(source.path, frames, play(440.0, SECONDS, rng), FRAME_RATE)
    return sources


def epoch_rows(size: str, folder: Path, num_clips: int, rounds: int, device: torch.device) -> list[Measurement]:
    """Measure packing, and an epoch of the released procedure and of ours."""
    image_size, sound, _, _ = SIZES[size]
    sources, form = write_clips(folder / "videos", num_clips), ClipFormat(10, image_size, sound=sound)
    packing, _ = timed(open_pack, folder / f"packed_{size}", sources, form)
    pack = open_pack(folder / f"packed_{size}", sources, form)
    names = tuple(source.name for source in sources)
    split = ClipSplit(("a",), names, names, torch.zeros(num_clips, 10, dtype=torch.int64))
    packed = ClipBatches(split, pack, device, image_size)

    released = DataLoader(ClipFiles(sources, form), batch_size=2, shuffle=True, num_workers=1)

    def train(network: LavishNetwork, optimizer: torch.optim.Optimizer, batch_size: int | None) -> None:
        batches = released
        if batch_size:
            batches = ((batch.frames, batch.sound) for (batch,) in packed.shuffled(batch_size, 0, 1))
        for frames, sound in batches:
            labels = torch.zeros(frames.shape[:2], dtype=torch.int64, device=device)
            loss = binary_cross_entropy_of_softmax(network(frames.to(device), sound.to(device)).logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    ways = {}
    for name, batch_size in {NAIVE: None, "batches of 2": 2, "batches of 8": 8}.items():
        network = make_network(size, "none", device)
        optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad])
        ways[name] = Way(partial(timed, train, network, optimizer, batch_size))
    rows = compare(f"LAVISH epoch of {num_clips} clips, {size}", ways, rounds)
    rows.append(Measurement(f"packing {num_clips} clips once, {size}", None, packing))
    return rows


def frames_rows(size: str, device: torch.device, precision: str, rounds: int) -> list[Measurement]:
    """Measure seconds and memory of a training step on one clip of T frames, with and without checkpointing."""
    image_size, _, bank, _ = SIZES[size]
    how, label = Precision(precision, device), torch.zeros(1, dtype=torch.int64, device=device)

    def step(network: LavishNetwork, frames: Tensor, sound: Tensor) -> None:
        with how.context():
            logits = network(frames, sound).logits
        nn.functional.cross_entropy(logits.float(), label).backward()
        network.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    rows = []
    for num_frames in FRAME_COUNTS:
        frames = torch.randn(1, num_frames, 3, image_size, image_size, device=device)
        sound = torch.randn(1, num_frames, *bank, device=device)
        kept = partial(step, make_network(size, "mean", device), frames, sound)
        checkpointed = partial(step, make_network(size, "mean", device, checkpointed=True), frames, sound)
        what = f"LAVISH step, clip of {num_frames} frames, {size}, {precision} ({device.type})"
        ways = {NAIVE: Way(partial(timed, kept)), "checkpointed": Way(partial(timed, checkpointed))}
        rows += compare(what, ways, rounds)
        peaks = peak_bytes(kept, device), peak_bytes(checkpointed, device)
        rows.append(Measurement(f"memory of a {what}, checkpointed", *peaks, unit="bytes"))
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("temp_lavish_benchmark"))
    parser.add_argument("--table", choices=("epoch", "frames"), default="epoch")
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=list(SIZES))
    parser.add_argument("--num_clips", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="for --table frames")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    device = select_device(args.device)
    rows = []
    for size in args.sizes:
        if args.table == "epoch":
            rows += epoch_rows(size, args.output_dir, args.num_clips, args.rounds, device)
        else:
            rows += frames_rows(size, device, args.precision, args.rounds)
    report(args.output_dir / f"{args.table}_table", "LAVISH against the released procedure", rows)


if __name__ == "__main__":
    run_entry_point(main)
