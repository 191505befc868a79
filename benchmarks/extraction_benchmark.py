"""Time the extraction of all five features against the authors' procedure, with randomly initialised networks.

    python -m benchmarks.extraction_benchmark --videos data/LLP/raw_videos --num_videos 4

Videos must be ten seconds long. Results are in docs/extraction.md.
"""

from utils.entry_point import run_entry_point

import argparse
import tempfile
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.harness import CLOCKS, NAIVE, Way, compare, count_operations, matrix_rates, report, timed
from dataloaders.features import PUBLISHED, feature_path
from tests.naive.naive_extraction import extract_naively
from utils.training.device import select_device
from video.extraction.extraction_pipeline import default_num_decoders, extract
from video.extraction.feature_networks import LIGHT, FeatureNetwork, draw_network
from video.extraction.video_lists import videos_of_paths

SEGMENTS = 10


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=Path, nargs="+", required=True)
    parser.add_argument("--num_videos", type=int, default=4)
    parser.add_argument("--num_naive", type=int, default=1, help="number of videos for the authors' procedure")
    parser.add_argument("--rounds", type=int, default=2, help="rounds, of which the median is reported")
    parser.add_argument("--device", default="cpu", help="device of our extraction; the authors' procedure uses the CPU")
    parser.add_argument("--output", type=Path, default=Path("data/benchmark/extraction.json"))
    args = parser.parse_args(argv)
    device = select_device(args.device)
    videos = videos_of_paths(args.videos, SEGMENTS)[: args.num_videos]
    few, rates = videos[: args.num_naive], matrix_rates()
    plain = {name: draw_network(name, "real", 0) for name in PUBLISHED}
    batch_size = 64 if device.type == "cuda" else 4
    naive: dict[str, dict[str, np.ndarray]] = {}
    outputs: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as temporary:

        def run_naively() -> None:
            for video in few:
                with tempfile.TemporaryDirectory(dir=temporary) as folder:
                    naive[video.feature_id] = extract_naively(video.path, Path(folder), plain)

        def run_ours(way: str, networks: dict[str, FeatureNetwork]) -> np.ndarray:
            outputs[way] = Path(tempfile.mkdtemp(dir=temporary))  # new, since extraction skips existing files
            return timed(extract, videos, outputs[way], networks, "valor", batch_size, default_num_decoders())

        operations = count_operations(run_naively) / len(few)  # also the warm-up
        ways = {NAIVE: Way(partial(timed, run_naively), len(few))}
        for way, names in {**dict.fromkeys(rates, PUBLISHED), "light networks": LIGHT}.items():
            how = device, way if way in rates else "float32"
            networks = {name: FeatureNetwork(name, draw_network(name, "real", 0), *how) for name in names}
            floor = operations / rates[way] if way in rates else None
            ways[way] = Way(partial(run_ours, way, networks), len(videos), floor=floor)
        what = "features of a ten-second video"
        rows = compare(what, ways, args.rounds, unit="videos", warm_up=0, clocks=CLOCKS)
        notes = {"operations": f"{operations / 1e12:.2f} TFLOP per video"}
        for precision, name in product(rates, PUBLISHED):
            ours = [np.load(feature_path(outputs[precision], name, video)) for video in naive]
            pairs = zip((features[name] for features in naive.values()), ours, strict=True)
            cosines = [F.cosine_similarity(*map(torch.from_numpy, pair)).min().item() for pair in pairs]
            notes[f"smallest cosine with naive {name}, {precision}"] = f"{min(cosines):.5f}"
    report(args.output.with_suffix(""), "Extraction against the authors' procedure", rows, rates, notes)


if __name__ == "__main__":
    run_entry_point(main)
