"""Checks a data set before it is trained on: `python -m dataloaders.check --dataset LLP --data_dir data/LLP`.

Exit status: 0 if all that was checked can be used, 1 if not, 2 for unusable annotations or arguments.
"""

from utils.entry_point import run_entry_point

import argparse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from dataloaders.annotations import SplitAnnotations
from dataloaders.datasets import DATASETS, SPLITS, load_annotations
from dataloaders.features import (
    FEATURES,
    PROBLEMS,
    FeatureError,
    Problem,
    feature_path,
    load_text_features,
    read_segment_features,
    text_features_path,
)

CLASS_NAMES = "class names"  # stands for the split in the report on text features
READER_THREADS = 8
OFFENDERS_SHOWN = 5


@dataclass(frozen=True)
class Judgement:
    """One feature file."""

    path: Path
    width: int | None = None  # of a readable file
    error: FeatureError | None = None


@dataclass(frozen=True)
class Report:
    """The files of one feature and one split."""

    feature: str
    part: str  # the split, or CLASS_NAMES
    judgements: list[Judgement]

    def offenders(self, problem: Problem) -> list[Judgement]:
        return [j for j in self.judgements if j.error is not None and j.error.problem == problem]

    @property
    def num_problems(self) -> int:
        return sum(j.error is not None for j in self.judgements)


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    dataset = DATASETS[args.dataset]
    data_dir = args.data_dir or dataset.folder
    features = args.features or dataset.features
    splits = args.splits or dataset.splits
    annotations = [load_annotations(args.dataset, args.annotations_dir or data_dir, split) for split in splits]
    reports = [report for feature in features for report in check_feature(data_dir, feature, annotations)]
    print(f"{args.dataset} in {data_dir}\n\n{table(reports)}")
    if details := offender_list(reports, None if args.list_all else OFFENDERS_SHOWN):
        print(f"\n{details}")
    num_problems = sum(report.num_problems for report in reports)
    print(
        f"\n{num_problems} files cannot be used: training would fail." if num_problems else "\nAll files can be used."
    )
    return 1 if num_problems else 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dataloaders.check",
        description="Report which feature files are present, missing or unusable. Exit status: 0 all can be used, 1 "
        "training would fail, 2 unusable annotations or arguments.",
    )
    parser.add_argument("--dataset", choices=DATASETS, required=True)
    parser.add_argument("--data_dir", type=Path, help="the data set's folder; default: data/<dataset>")
    parser.add_argument("--annotations_dir", type=Path, help="where the annotation files lie; default: data_dir")
    parser.add_argument("--features", nargs="+", choices=FEATURES, help="default: what the stages need by default")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, help="default: all that the stages need")
    parser.add_argument("--list_all", action="store_true", help="list every unusable file, not the first few")
    return parser.parse_args(argv)


def check_feature(data_dir: Path, feature: str, annotations: list[SplitAnnotations]) -> list[Report]:
    """Judge the files of one feature: a report per split, and one on the text features where it has them."""
    reports = [_check_segments(data_dir, feature, split) for split in annotations]
    if FEATURES[feature].text_folder is not None:
        reports.append(_check_class_names(data_dir, feature, len(annotations[0].classes)))
    return _check_widths(reports)


def _check_segments(data_dir: Path, feature: str, annotations: SplitAnnotations) -> Report:
    # Several samples of AVE share a video, and with it the file and the length.
    lengths = dict(zip(annotations.feature_ids, annotations.lengths.tolist(), strict=True))

    def judge(feature_id: str) -> Judgement:
        path = feature_path(data_dir, feature, feature_id)
        try:
            rows = read_segment_features(path, feature, lengths[feature_id], DATASETS[annotations.dataset].pooled)
        except FeatureError as error:
            return Judgement(path, error=error)
        return Judgement(path, width=rows.shape[1])

    with ThreadPoolExecutor(READER_THREADS) as pool:
        files = tqdm(
            pool.map(judge, lengths),
            desc=f"{feature} {annotations.split}",
            total=len(lengths),
            unit="file",
            leave=False,
        )
        return Report(feature, annotations.split, list(files))


def _check_class_names(data_dir: Path, feature: str, num_classes: int) -> Report:
    path = text_features_path(data_dir, feature)
    try:
        judgement = Judgement(path, width=load_text_features(data_dir, feature, num_classes).shape[1])
    except FeatureError as error:
        judgement = Judgement(path, error=error)
    return Report(feature, CLASS_NAMES, [judgement])


def _check_widths(reports: list[Report]) -> list[Report]:
    """All files of a feature have one width; the files that differ from the most common one are wrong."""
    widths = Counter(j.width for report in reports for j in report.judgements if j.width is not None)
    if len(widths) < 2:
        return reports
    width = widths.most_common(1)[0][0]

    def judge(file: Judgement) -> Judgement:
        if file.width in (None, width):
            return file
        expected = f"width {width}, as most files have"
        error = FeatureError("wrong shape", file.path, f"width {file.width}", expected, "Extract the file again.")
        return Judgement(file.path, error=error)

    return [Report(report.feature, report.part, [judge(j) for j in report.judgements]) for report in reports]


def table(reports: list[Report]) -> str:
    """Counts of files, a line per feature and split."""
    rows = [("feature", "part", "files", "present", *PROBLEMS)]
    for report in reports:
        counts = [len(report.offenders(problem)) for problem in PROBLEMS]
        total = len(report.judgements)
        missing = counts[PROBLEMS.index("missing")]
        rows.append((report.feature, report.part, *map(str, (total, total - missing, *counts))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for feature, part, *counts in rows:
        cells = [feature.ljust(widths[0]), part.ljust(widths[1])]
        cells += [count.rjust(width) for count, width in zip(counts, widths[2:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def offender_list(reports: list[Report], limit: int | None) -> str:
    """What is wrong with which file; the first `limit` files of each feature, split and problem (None: all)."""
    lines = []
    for report in reports:
        for problem in PROBLEMS:
            files = report.offenders(problem)
            if files:
                lines.append(f"{report.feature}, {report.part}, {problem}:")
                lines += [f"  {file.path if problem == 'missing' else file.error}" for file in files[:limit]]
            if limit is not None and len(files) > limit:
                lines.append(f"  ... and {len(files) - limit} more (--list_all lists all)")
    return "\n".join(lines)


if __name__ == "__main__":
    run_entry_point(main)
