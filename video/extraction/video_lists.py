"""Videos for feature extraction: those of a data set, in folders, or in a list."""

import re
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from dataloaders.datasets import DATASETS, SPLITS, load_annotations
from utils.errors import InputError

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv", ".mpg", ".mpeg", ".ts", ".3gp")
SUFFIXES += (".wmv", ".mts", ".m2ts", ".ogv", ".gif")
LONGEST_NAME = 240  # bytes of a feature id; file names have at most 255, as in `.<id>.npy.tmp`


@dataclass(frozen=True)
class Video:
    """A video to extract features of."""

    feature_id: str  # the stem of its feature files
    path: Path | None  # None: absent
    num_segments: int | None = None  # None: by the duration
    is_clip: bool = False  # whether it has exactly num_segments, so that a longer file is another video
    segments_per_second: int = 1
    is_asked: bool = False  # whether the user requested num_segments


def videos_of_dataset(
    dataset: str,
    annotations_dir: Path,
    videos_dir: Path,
    splits: tuple[str, ...] = SPLITS,
    num_segments: int | None = None,
    segments_per_second: int | None = None,
) -> list[Video]:
    """Return the videos of a data set's annotations, one for each feature id.

    Files in or below `videos_dir` are named after the feature id or the sample id (LLP: `BjCEufrlXm4_20_30`). The
    number of segments is `num_segments`, or follows from the annotations (UnAV) or the fixed length of clips. Raises
    InputError for invalid annotations, an absent folder, and two clips with one feature id.
    """
    if not videos_dir.is_dir():
        raise InputError(videos_dir, "no folder", "the folder of the videos", "Pass it with --videos_dir.")
    files = _files_by_stem(videos_dir)
    videos: dict[str, Video] = {}
    for split in splits:
        annotations = load_annotations(dataset, annotations_dir, split)
        annotations = annotations.refined(segments_per_second or annotations.segments_per_second)
        is_asked, per_second = num_segments is not None, annotations.segments_per_second
        samples = zip(annotations.feature_ids, annotations.sample_ids, annotations.lengths.tolist(), strict=True)
        for feature_id, sample_id, length in samples:
            former = videos[feature_id].path if feature_id in videos else None
            path = files.get(feature_id) or files.get(sample_id) or former
            if former not in (None, path):
                found, expected = f"{former} and {path}", f"one clip for the feature file {feature_id}.npy"
                raise InputError(videos_dir, found, expected, "Remove one of them: features are stored by video.")
            is_clip = fixed_segments(dataset)
            videos[feature_id] = Video(feature_id, path, num_segments or length, is_clip, per_second, is_asked)
    return list(videos.values())


def videos_of_paths(paths: list[Path], num_segments: int | None = None, segments_per_second: int = 1) -> list[Video]:
    """Return the videos of files, folders, and text files with one path per line; a file's stem is its id.

    Raises InputError if a list is absent or empty, a folder holds no video, or two videos have the same stem.
    """
    files: list[Path] = []
    for path in paths:
        found = [path]
        if path.is_dir():
            found, expected = _video_files(path), f"files ending in {' '.join(SUFFIXES)}"
        elif path.suffix == ".txt":
            expected = "a list of videos, one path per line"
            if not path.is_file():
                raise InputError(path, "no file", expected, "Check the path.")
            text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")  # file names may be any bytes
            found = [Path(line.strip()) for line in text.splitlines() if line.strip()]
        if not found:
            raise InputError(path, "no video", expected, "Check the content.")
        files += found
    by_stem: dict[str, Path] = {}
    for file in files:
        if by_stem.get(file.stem, file) != file:
            found = f"a second video named {file.stem}, after {by_stem[file.stem]}"
            raise InputError(file, found, "unique names", "Rename one of them, as feature files have these names.")
        by_stem[file.stem] = file
    how = {"segments_per_second": segments_per_second, "is_asked": num_segments is not None}
    return [Video(stem, path, num_segments, **how) for stem, path in by_stem.items()]


def _video_files(folder: Path) -> list[Path]:
    """Return the videos in and below a folder, without macOS's additional files (`._clip.mp4`)."""
    paths = (path for path in folder.rglob("*") if not path.name.startswith("._"))
    return sorted(path for path in paths if path.suffix.lower() in SUFFIXES)


def _files_by_stem(folder: Path) -> dict[str, Path]:
    """Return the video of each stem. Duplicates are reported; non-empty, less nested and larger files have priority."""
    by_stem: dict[str, list[Path]] = {}
    for path in _video_files(folder):
        by_stem.setdefault(path.stem, []).append(path)
    for stem, paths in by_stem.items():
        if len(paths) > 1:
            sizes = {path: path.stat().st_size if path.exists() else 0 for path in paths}
            paths.sort(key=lambda path: (not sizes[path], len(path.parts), -sizes[path]))
            others = ", ".join(map(str, paths[1:]))
            tqdm.write(f"{folder}: {len(paths)} files named {stem}: using {paths[0]}, not {others}")
    return {stem: paths[0] for stem, paths in by_stem.items()}


def shard_of(videos: list[Video], shard: str) -> list[Video]:
    """Return the k-th of n parts of the videos. Raises InputError unless `shard` is k/n with 1 <= k <= n."""
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError("--shard", repr(shard), "k/n with 1 <= k <= n, such as 3/16", "Correct the flag.")
    return videos[int(match[1]) - 1 :: int(match[2])]


def fixed_segments(dataset: str | None) -> bool:
    """Return whether all videos of a data set have the same number of segments."""
    return dataset is not None and not DATASETS[dataset].pooled and not DATASETS[dataset].is_own
