"""One measurement of stage 3 in a process of its own: time of a step and peak memory, by videos and segments.

    python -m benchmarks.scale --num_videos 10000

Features are sparse files of zeros at true sizes, mapped as a packed file is: neither time nor memory depend on values.
Prints one line of JSON.
"""

from utils.entry_point import run_entry_point

import argparse
import json
import resource
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.stages import predicted_events, seconds_of_han_steps
from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import SplitBatches
from dataloaders.llp import LLP_CLASSES
from dataloaders.pseudo_labels import PseudoLabels
from dataloaders.store import PackedFeature
from models import HAN, HANConfig
from utils.audio_visual import AudioVisual
from utils.evaluation.tasks import find_task, true_events
from utils.training.device import PRECISIONS, Precision

WIDTHS = {"vggish": 128, "res152": 2048, "r2plus1d_18": 512}
NUM_VALIDATION_VIDEOS = 649


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num_videos", type=int, default=10_000)
    parser.add_argument("--num_segments", type=int, default=10)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--num_steps", type=int, default=4)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--residency", choices=("auto", "resident", "stream"), default="auto")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--validate", action="store_true", help="also score a validation split of LLP's size")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(args, Path(folder))
    print(json.dumps(measured))


def measure(args: argparse.Namespace, folder: Path) -> dict[str, float | bool]:
    """Seconds of a step, bytes of the training split's features, peak memory of this process in bytes."""
    start_bytes = peak_bytes()
    train = zero_split(folder, "train", args.num_videos, args.num_segments, args.residency)
    config = HANConfig(dim=args.dim, ffn_dim=4 * args.dim)
    model = HAN(len(LLP_CLASSES), train.widths.audio, train.feature_widths.visual, config)
    seconds = seconds_of_han_steps(model, train, args.precision, args.num_steps, args.batch_size)
    for _ in train.in_order(args.batch_size):
        pass  # every page of the split is touched, as in a whole epoch
    if args.validate:
        val = zero_split(folder, "val", NUM_VALIDATION_VIDEOS, args.num_segments, args.residency)
        prediction = predicted_events(model, val, 128, Precision(args.precision, val.device))
        find_task("LLP").score(prediction, true_events(val.annotations, val.device))
    width = sum(train.widths)
    return {
        "seconds_per_step": seconds / args.num_steps,
        "resident": train.resident,
        "split_bytes": 4 * width * args.num_videos * args.num_segments,
        "peak_bytes": peak_bytes(),
        "start_bytes": start_bytes,  # interpreter and libraries
    }


def zero_split(folder: Path, split: str, num_videos: int, num_segments: int, residency: str) -> SplitBatches:
    """A split of equally long videos with zero features and one random class a video."""
    generator = torch.Generator().manual_seed(0)
    num_rows, num_classes = num_videos * num_segments, len(LLP_CLASSES)
    video_labels = torch.zeros(num_videos, num_classes, dtype=torch.bool)
    video_labels[torch.arange(num_videos), torch.randint(num_classes, (num_videos,), generator=generator)] = True
    rows = video_labels.repeat_interleave(num_segments, dim=0)  # (R, C)
    ids = tuple(f"{split}{n}" for n in range(num_videos))
    lengths = torch.full((num_videos,), num_segments)
    annotations = SplitAnnotations("LLP", split, LLP_CLASSES, ids, ids, lengths, video_labels, AudioVisual(rows, rows))
    thresholds = torch.zeros(num_classes, dtype=torch.float64)
    logits = torch.randn(num_rows, num_classes, generator=generator)
    pairs = (AudioVisual(values, values) for values in (logits, rows, thresholds))
    pseudo = PseudoLabels("LLP", LLP_CLASSES, ids, lengths, *pairs)
    features = {}
    for name, width in WIDTHS.items():
        path = folder / f"{name}_{split}.bin"
        with open(path, "wb") as file:
            file.truncate(4 * num_rows * width)
        values = torch.from_file(str(path), shared=True, size=num_rows * width).view(num_rows, width)
        features[name] = PackedFeature(path, name, values, torch.arange(num_videos) * num_segments)
    chosen = AudioVisual([features["vggish"]], [features["res152"], features["r2plus1d_18"]])
    return SplitBatches(annotations, chosen, torch.device("cpu"), residency, pseudo)


def peak_bytes() -> int:
    """Most memory that this process has had resident at once, mapped files included."""
    try:
        with open("/proc/self/status") as file:  # Linux's ru_maxrss is also that of the process that started this one
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    run_entry_point(main)
