"""Simulate data sets: feature files in the real layout, and annotation files unless real ones are given.

    python -m simulation --output data --dataset LLP UnAV --num_train 1000

`--videos` writes MP4 files in place of features, for video.extract_features.
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
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("data"), help="parent folder of the data sets")
    parser.add_argument("--dataset", nargs="+", choices=list(SIMULATED), default=["LLP", "UnAV"])
    parser.add_argument("--annotations", type=Path, help="folder with LLP/, UnAV/, AVE/ (default: generate them)")
    for split in SPLITS:
        parser.add_argument(f"--num_{split}", type=whole_number(1), help=f"number of {split} videos (default: all)")
    parser.add_argument("--seed", type=whole_number(0), default=0)
    parser.add_argument("--features", nargs="+", choices=list(FEATURES), help="(default: those of the data set)")
    videos = parser.add_argument_group("videos")
    videos.add_argument("--videos", action="store_true", help="write MP4 files in place of features")
    videos.add_argument("--num_events", type=whole_number(1), help="use only the first N events shared by LLP and UnAV")
    videos.add_argument("--longest", type=whole_number(1), help="leave out videos with more segments than this")
    args = parser.parse_args(argv)
    sizes = {"train": args.num_train, "val": args.num_val, "test": args.num_test}
    if args.videos:
        try:
            from simulation.generated_videos import generate_videos  # needs packages that features do not
        except ImportError as error:
            expected, way_out = "the packages that write videos", "Run pip install -r requirements-video.txt."
            raise InputError("--videos", f"no {error.name}", expected, way_out) from error
    for dataset in args.dataset:
        where = (dataset, args.output, args.annotations, sizes, args.seed)
        if args.videos:
            generate_videos(*where, args.num_events, args.longest)
        else:
            simulate(*where, args.features)


if __name__ == "__main__":
    run_entry_point(main)
