"""Simulates data sets: feature files in the real layout, and annotation files where the real ones are not at hand.
With `--videos`, MP4 files instead of features; video.extract_features makes features of them.

python -m simulation --output data --dataset LLP UnAV --num_train 1000
"""

from utils.entry_point import run_entry_point

import argparse
from pathlib import Path

from dataloaders.datasets import SPLITS
from dataloaders.features import FEATURES
from simulation.generated_annotations import SIMULATED
from simulation.simulate import simulate
from utils.errors import InputError
from utils.settings import whole_number


def main(argv: list[str] | None = None) -> None:
    """Simulate the data sets that the command line names."""
    arguments = parse_arguments(argv)
    sizes = {"train": arguments.num_train, "val": arguments.num_val, "test": arguments.num_test}
    for dataset in arguments.dataset:
        if arguments.videos:
            generate_videos(dataset, arguments, sizes)
        else:
            simulate(dataset, arguments.output, arguments.annotations, sizes, arguments.seed, arguments.features)


def generate_videos(dataset: str, arguments: argparse.Namespace, sizes: dict[str, int | None]) -> None:
    """Write the videos of one data set. Needs the packages of requirements-video.txt, which features do not."""
    try:
        from simulation import generated_videos as videos
    except ImportError as error:
        found = f"no {error.name}"
        way_out = "pip install -r requirements-video.txt"
        raise InputError("--videos", found, "the packages that write videos", way_out) from error
    where = (dataset, arguments.output, arguments.annotations, sizes, arguments.seed)
    videos.generate_videos(*where, arguments.num_events, arguments.longest)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("data"), help="folder of the data sets' folders")
    parser.add_argument("--dataset", nargs="+", choices=list(SIMULATED), default=["LLP", "UnAV"])
    parser.add_argument("--annotations", type=Path, help="folder with LLP/, UnAV/, AVE/; default: generate annotations")
    for split in SPLITS:
        parser.add_argument(f"--num_{split}", type=whole_number(1), help=f"number of {split} videos, default: all")
    parser.add_argument("--seed", type=whole_number(0), default=0)
    parser.add_argument("--features", nargs="+", choices=list(FEATURES), help="default: those that the method uses")
    videos = parser.add_argument_group("videos")
    videos.add_argument("--videos", action="store_true", help="write MP4 files instead of features")
    videos.add_argument("--num_events", type=whole_number(1), help="of the events that both LLP and UnAV have")
    videos.add_argument("--longest", type=whole_number(1), help="segments of the longest video to take")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_entry_point(main)
