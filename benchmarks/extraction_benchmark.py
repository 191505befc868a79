"""Extraction of all five features beside the authors' way, in turn, in one process; docs/extraction.md has results.

    python -m benchmarks.extraction_benchmark --videos data/LLP/raw_videos --num_videos 4

Networks are the real architectures with random weights. Videos have to last ten seconds.
"""

from utils.entry_point import run_entry_point

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.floor import measure_machine
from benchmarks.naive_extraction import extract_naively
from dataloaders.features import FEATURES, feature_path
from utils.files import write_text
from utils.training.device import select_device
from video.extraction.backbone_weights import draw_network
from video.extraction.computing import ROWS_OF_A_SEGMENT, FeatureNetwork
from video.extraction.extraction_inputs import read_inputs
from video.extraction.extraction_pipeline import Video, default_num_decoders, extract
from video.extraction.video_lists import videos_of_paths

SEGMENTS = 10


def operations_of_a_video() -> dict[str, int]:
    """Matrix operations of each network for ten seconds."""
    inputs = {
        "vggish": (SEGMENTS, 96, 64),
        "res152": (8 * SEGMENTS, 3, 224, 224),
        "r2plus1d_18": (SEGMENTS, 3, 8, 112, 112),
        "clip": (SEGMENTS, 3, 224, 224),
        "clap": (SEGMENTS, 1001, 64),
    }
    operations = {}
    for name, shape in inputs.items():
        rows = ROWS_OF_A_SEGMENT.get(name, 1) * SEGMENTS
        counter = FlopCounterMode(display=False)
        with counter, torch.inference_mode():
            draw_network(name, "real", 0)(torch.randn(1, *shape[1:]))
        operations[name] = counter.get_total_flops() * rows
    return operations


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock and of the processor's cores."""
    wall, cores = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cores


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.extraction_benchmark", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--videos", type=Path, nargs="+", required=True)
    parser.add_argument("--num_videos", type=int, default=4)
    parser.add_argument("--num_naive", type=int, default=1, help="videos that the authors' way is timed on")
    parser.add_argument("--rounds", type=int, default=2, help="of which the fastest counts")
    parser.add_argument("--device", default="cpu", help="of ours; the authors' way runs on the CPU")
    parser.add_argument("--output", type=Path, default=Path("data/benchmark/extraction.json"))
    args = parser.parse_args(argv)
    device = select_device(args.device)
    videos = videos_of_paths(args.videos, SEGMENTS)[: args.num_videos]
    rates = measure_machine(1.0).matrix_rates
    operations = operations_of_a_video()
    plain = {name: draw_network(name, "real", 0) for name in FEATURES}
    ours = {
        precision: {name: FeatureNetwork(name, draw_network(name, "real", 0), device, precision) for name in FEATURES}
        for precision in ("float32", "bf16")
    }
    batch_size = 64 if device.type == "cuda" else 4
    seconds: dict[str, list[tuple[float, float]]] = {"naive": [], "float32": [], "bf16": [], "decoding": []}
    cosines = {}
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            naive: dict[Path, dict[str, np.ndarray]] = {}

            def run_naively(folder=folder, naive=naive):
                for video in videos[: args.num_naive]:
                    naive[video.path] = extract_naively(video.path, folder / video.feature_id, plain)

            wall, cores = timed(run_naively)
            count = min(args.num_naive, len(videos))
            seconds["naive"].append((wall / count, cores / count))
            for precision, networks in ours.items():
                output = folder / precision
                run = lambda n=networks, o=output: extract(  # noqa: E731
                    videos, o, n, "valor", batch_size, default_num_decoders()
                )
                wall, cores = timed(run)
                seconds[precision].append((wall / len(videos), cores / len(videos)))
                cosines[precision] = {name: _cosine(naive, output, videos, name) for name in FEATURES}
            wall, cores = timed(lambda: [read_inputs(v.path, list(FEATURES), SEGMENTS, "valor") for v in videos])
            seconds["decoding"].append((wall / len(videos), cores / len(videos)))
    best = {name: min(values) for name, values in seconds.items()}
    total = sum(operations.values())
    for name, (wall, cores) in best.items():
        line = f"{name:9s} {wall:8.2f} s a video ({cores:.2f} s of cores), {1 / wall:.3f} videos a second"
        if name in ours:
            line += f", {best['naive'][0] / wall:.1f}x the authors' way ({best['naive'][1] / cores:.1f}x in cores)"
            floor = total / rates[name]
            line += f", floor {floor:.2f} s ({100 * floor / wall:.0f} %)"
        print(line)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{total / 1e12:.2f} TFLOP a video; rates { ({k: round(v / 1e9) for k, v in rates.items()}) } GFLOP/s")
    print(
        f"largest memory {memory:.1f} GiB, with the networks of all three ways; cosines with the authors' way {cosines}"
    )
    result = {"seconds": seconds, "operations": operations, "rates": rates, "memory_gib": memory, "cosines": cosines}
    write_text(args.output, json.dumps(result, indent=1))


def _cosine(naive: dict[Path, dict[str, np.ndarray]], output: Path, videos: list[Video], name: str) -> float:
    """Smallest cosine of a row with that of the authors' way."""
    smallest = 1.0
    for video in videos:
        if video.path in naive:
            x, y = naive[video.path][name], np.load(feature_path(output, name, video.feature_id))
            cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
            smallest = min(smallest, float(cosine.min()))
    return smallest


if __name__ == "__main__":
    run_entry_point(main)
