"""Check a data set's files before training: `python -m dataloaders.check --dataset LLP --data_dir data/LLP`.

Exit status: 0 if all checked files are usable, 1 if not, 2 for unusable annotations or arguments.
"""

from utils.entry_point import run_entry_point

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm.contrib.concurrent import thread_map

from dataloaders.annotations import SplitAnnotations
from dataloaders.datasets import DATASETS, SPLITS, load_annotations
from dataloaders.features import (
    FEATURES,
    PROBLEMS,
    FeatureError,
    feature_path,
    load_text_features,
    read_segment_features,
    text_features_path,
)

CLASS_NAMES = "class names"  # stands for the split in the report on text features
READER_THREADS = 8
OFFENDERS_SHOWN = 5


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    dataset = DATASETS[args.dataset]
    data_dir = args.data_dir or dataset.folder
    features = args.features or dataset.features
    splits = args.splits or dataset.splits
    annotations = [load_annotations(args.dataset, args.annotations_dir or data_dir, split) for split in splits]
    files = pd.concat([check_feature(data_dir, feature, annotations) for feature in features])
    print(f"{args.dataset} in {data_dir}\n\n{table(files)}")
    num_wrong = int(files["problem"].isin(PROBLEMS).sum())
    if num_wrong:
        print(f"\n{offender_list(files, None if args.list_all else OFFENDERS_SHOWN)}")
    of_wrong = f"{num_wrong} file{'s' * (num_wrong != 1)} cannot be used: training would fail."
    print(f"\n{of_wrong}" if num_wrong else "\nAll files can be used.")
    missing = files[files["problem"] == "missing"]
    if num_wrong == len(missing) > 0 and CLASS_NAMES not in set(missing["part"]):
        for split, of_split in missing.groupby("part", sort=False):
            number = next(len(set(of.feature_ids)) for of in annotations if of.split == split)
            print(f"{len({path.stem for path in of_split['path']})} of {number} {split} videos lack a feature.")
        print("--allow_missing trains and evaluates without them; every table then states the number of videos.")
    return 1 if num_wrong else 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Report feature files that are present, missing or unusable. Exit status: 0 if all are usable, 1 "
        "if training would fail, 2 for unusable annotations or arguments.",
    )
    parser.add_argument("--dataset", choices=DATASETS, required=True)
    parser.add_argument("--data_dir", type=Path, help="the data set's folder; default: data/<dataset>")
    parser.add_argument("--annotations_dir", type=Path, help="folder of the annotation files; default: data_dir")
    parser.add_argument("--features", nargs="+", choices=FEATURES, help="default: the default features of all stages")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, help="default: all that the stages use")
    parser.add_argument("--list_all", action="store_true", help="list all unusable files, not just the first few")
    return parser.parse_args(argv)


def check_feature(data_dir: Path, feature: str, annotations: list[SplitAnnotations]) -> pd.DataFrame:
    """Check the files of a feature; return part (split or `CLASS_NAMES`), path, width, problem and message of each."""
    reads = []  # part, path and function that reads the file
    for split in annotations:
        # Samples of AVE may share a video, and with it file and length.
        for feature_id, length in dict(zip(split.feature_ids, split.lengths.tolist(), strict=True)).items():
            path = feature_path(data_dir, feature, feature_id)
            read = partial(read_segment_features, path, feature, length, DATASETS[split.dataset].pooled)
            reads.append((split.split, path, read))
    if FEATURES[feature].text_folder is not None:
        read = partial(load_text_features, data_dir, feature, annotations[0].classes)
        reads.append((CLASS_NAMES, text_features_path(data_dir, feature), read))
    judged = thread_map(_judge, *zip(*reads, strict=True), max_workers=READER_THREADS, desc=feature, leave=False)
    files = pd.DataFrame(judged, columns=("part", "path", "width", "problem", "message"))
    files.insert(0, "feature", feature)
    usual = files["width"].mode()  # the most frequent one; empty if no file can be read
    for n in files.index[files["width"].notna() & ~files["width"].isin(usual[:1])]:
        found, expected = f"width {files['width'][n]:.0f}", f"width {usual[0]:.0f}, as most files have"
        error = FeatureError("wrong shape", files["path"][n], found, expected, "Extract the file again.")
        files.loc[n, ["problem", "message"]] = error.problem, str(error)
    return files


def _judge(part: str, path: Path, read: Callable[[], np.ndarray | Tensor]) -> tuple[object, ...]:
    """Return a file's row of `check_feature`, without the feature."""
    try:
        return part, path, read().shape[1], "", ""
    except FeatureError as error:
        return part, path, None, error.problem, str(error)


def table(files: pd.DataFrame) -> str:
    """Return a text table of the numbers of files, one line per feature and split."""
    rows = [("feature", "part", "files", "present", *PROBLEMS)]
    for (feature, part), problems in files.groupby(["feature", "part"], sort=False)["problem"]:
        counts = [int((problems == problem).sum()) for problem in PROBLEMS]
        rows.append((feature, part, *map(str, (len(problems), len(problems) - counts[0], *counts))))
    columns = []
    for n, column in enumerate(zip(*rows, strict=True)):
        width = max(map(len, column))
        columns.append([text.ljust(width) if n < 2 else text.rjust(width) for text in column])
    return "\n".join(map("  ".join, zip(*columns, strict=True)))


def offender_list(files: pd.DataFrame, limit: int | None) -> str:
    """List unusable files with their errors, the first `limit` of each feature, split and problem (None: all)."""
    lines = []
    for (feature, part), of_part in files.groupby(["feature", "part"], sort=False):
        for problem in PROBLEMS:
            wrong = of_part[of_part["problem"] == problem]
            if len(wrong):
                lines.append(f"{feature}, {part}, {problem}:")
                lines += [f"  {text}" for text in wrong["path" if problem == "missing" else "message"][:limit]]
            if limit is not None and len(wrong) > limit:
                lines.append(f"  ... and {len(wrong) - limit} more (--list_all lists all)")
    return "\n".join(lines)


if __name__ == "__main__":
    run_entry_point(main)
