"""Compares own features with published ones: per video and over all, in numbers and in words.

    python -m video.extraction.compare_features data/own/feats_CLIP/segment_feats data/LLP/feats_CLIP/segment_feats

T rows a video, D features. Cosines are of centred features, each side less its mean over all videos: raw cosines of
CLIP or of ReLU features are high between any two images.
"""

from utils.entry_point import run_entry_point

import argparse
import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from dataloaders.npy import read_npy
from dataloaders.provenance import feature_note
from utils.errors import InputError

LARGEST_OFFSET = 3  # rows that features may be shifted by
MOST_ROWS = 4000  # of all videos, that the whole sets are compared on

# Bounds of the verdicts, on the cosine of centred features (or another score from 0 to 1 where it says so).
EQUAL = 0.9999
SAME = 0.99
SAME_NETWORK = 0.5  # other pixels of the same moments leave at least this
SHIFT_GAIN = 0.1  # by which a shift has to raise it
LINEAR = 0.8  # share of the variance that a linear map of the own features explains in videos that it was not fitted on
RELATED = 0.3  # similarity of the two sets' inner structures (linear CKA)


@dataclass(frozen=True)
class VideoComparison:
    """One video's two feature files."""

    video: str
    own_shape: tuple[int, ...]
    published_shape: tuple[int, ...]
    cosine: float  # mean over segments
    scale: float  # length of the published rows over that of the own ones, median over segments
    offset: int  # by how many rows the published features come later than the own ones where both fit best
    cosine_at_offset: float


@dataclass(frozen=True)
class Comparison:
    """Two folders of feature files."""

    videos: list[VideoComparison]
    only_own: int
    only_published: int
    widths: tuple[int, int]
    raw_cosine: float  # not centred
    cosine: float
    scale: float
    offset: int  # the most frequent one
    cosine_at_offset: float
    structure: float  # linear CKA, 0 to 1
    linear: float | None  # variance explained by a linear map; None: too few rows to tell
    whole_numbers: tuple[bool, bool]  # own and published: nothing but integers from 0 to 255
    rows_per_second: tuple[int, int]  # how many rows of one side stand for one of the other

    @property
    def verdict(self) -> str:
        """What the difference looks like, in words."""
        return _verdict(self)


def compare_folders(own: Path, published: Path) -> Comparison:
    """Compare the videos that both folders hold.

    Raises:
        InputError: when a folder is absent, no video is in both, or a file is no 2-D array of numbers.
    """
    ours, theirs = _files(own), _files(published)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        found = f"none of the {len(ours)} videos of {own}"
        raise InputError(published, found, "at least one video in both", "Compare features of the same data set.")
    pairs = [(video, _read(ours[video]), _read(theirs[video])) for video in common]
    widths = (pairs[0][1].shape[1], pairs[0][2].shape[1])
    counts = len(ours) - len(common), len(theirs) - len(common)
    whole = tuple(all(_whole_numbers(pair[side]) for pair in pairs) for side in (1, 2))
    repeats = _repeats(pairs)
    aligned = [(_mean_rows(x, repeats[0]), _mean_rows(y, repeats[1])) for _, x, y in pairs]  # one row a segment
    centred = _centred(aligned)
    videos = [
        _compare_video(video, x.shape, y.shape, raw, cut)
        for (video, x, y), raw, cut in zip(pairs, aligned, centred, strict=True)
    ]
    same_width = widths[0] == widths[1]
    offsets = [one.offset for one in videos]
    offset = max(set(offsets), key=lambda value: (offsets.count(value), -abs(value)))
    rows = [cut for cut in centred if len(cut[0]) == len(cut[1])]
    return Comparison(
        videos=videos,
        only_own=counts[0],
        only_published=counts[1],
        widths=widths,
        raw_cosine=float(np.nanmean([_cosine(*pair) for pair in aligned])) if same_width else float("nan"),
        cosine=float(np.nanmean([one.cosine for one in videos])) if same_width else float("nan"),
        scale=float(np.nanmedian([one.scale for one in videos])) if same_width else float("nan"),
        offset=offset,
        cosine_at_offset=float(np.nanmean([_cosine(*_shifted(*cut, offset)) for cut in centred]))
        if same_width
        else float("nan"),
        structure=_cka(rows),
        linear=_linear_fit(rows),
        whole_numbers=whole,
        rows_per_second=repeats,
    )


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(folder, "no folder", "a folder of .npy files, one a video", "Check the path.")
    return {path.stem: path for path in folder.glob("*.npy")}


def _read(path: Path) -> np.ndarray:
    try:
        values = read_npy(path)
    except (OSError, ValueError) as error:
        raise InputError(path, f"a damaged file ({error})", "a whole .npy file", "Extract or copy it again.") from error
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(path, f"shape {values.shape}", "a 2-D array (rows, width)", "Is this a feature file?")
    return values.astype(np.float64)


def _whole_numbers(values: np.ndarray) -> bool:
    return bool((values == np.round(values)).all() and values.min() >= 0 and 1 < values.max() <= 255)


def _repeats(pairs: list) -> tuple[int, int]:
    """How many rows of each side stand for one segment, where one side has k times as many as the other."""
    ratios = {len(x) / len(y) for _, x, y in pairs}
    if len(ratios) == 1:
        ratio = ratios.pop()
        if ratio > 1 and ratio == int(ratio):
            return int(ratio), 1
        if ratio < 1 and 1 / ratio == int(1 / ratio):
            return 1, int(1 / ratio)
    return 1, 1


def _mean_rows(values: np.ndarray, count: int) -> np.ndarray:
    return values.reshape(-1, count, values.shape[1]).mean(1)


def _centred(pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    means = [np.concatenate([pair[side] for pair in pairs]).mean(0) for side in (0, 1)]
    return [(x - means[0], y - means[1]) for x, y in pairs]


def _cosine(x: np.ndarray, y: np.ndarray) -> float:
    """Mean over rows; of files of different lengths, the rows that both have."""
    rows = min(len(x), len(y))
    x, y = x[:rows], y[:rows]
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    valid = lengths > 0
    return float(((x * y).sum(1)[valid] / lengths[valid]).mean()) if valid.any() else float("nan")


def _shifted(x: np.ndarray, y: np.ndarray, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of x and those of y that come `offset` later."""
    return (x[: len(x) - offset], y[offset:]) if offset >= 0 else (x[-offset:], y[: len(y) + offset])


def _compare_video(video: str, own_shape, published_shape, raw, centred) -> VideoComparison:
    if raw[0].shape[1] != raw[1].shape[1]:
        nan = float("nan")
        return VideoComparison(video, own_shape, published_shape, nan, nan, 0, nan)
    rows = min(len(raw[0]), len(raw[1]))
    lengths = [np.linalg.norm(side[:rows], axis=1) for side in raw]
    scale = float(np.median(lengths[1][lengths[0] > 0] / lengths[0][lengths[0] > 0])) if lengths[0].any() else 0.0
    offsets = [k for k in range(-LARGEST_OFFSET, LARGEST_OFFSET + 1) if abs(k) <= rows // 2]
    cosines = {k: _cosine(*_shifted(*centred, k)) for k in offsets}
    best = max(offsets, key=lambda k: (np.nan_to_num(cosines[k], nan=-1.0), -abs(k)))
    return VideoComparison(video, own_shape, published_shape, cosines[0], scale, best, cosines[best])


def _sample(rows: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.concatenate([pair[side] for pair in rows]) for side in (0, 1))
    step = max(1, len(x) // MOST_ROWS)
    return x[::step], y[::step]


def _cka(rows: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Linear centred kernel alignment (Kornblith et al., 2019), without bias for few rows: 0 unrelated, 1 equal up to
    rotation and scale."""
    if not rows or sum(len(x) for x, _ in rows) < 4:
        return float("nan")
    x, y = _sample(rows)
    kernels = [side @ side.T for side in (x, y)]
    return _hsic(*kernels) / np.sqrt(max(_hsic(kernels[0], kernels[0]) * _hsic(kernels[1], kernels[1]), 1e-300))


def _hsic(k: np.ndarray, m: np.ndarray) -> float:
    """The unbiased estimate of the Hilbert-Schmidt independence criterion (Song et al., 2012)."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    total = (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(0) @ m.sum(0)) / (n - 2)
    return float(total / (n * (n - 3)))


def _linear_fit(rows: list[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """Share of the published variance that a linear map of the own features explains in every other video."""
    fitted, judged = rows[::2], rows[1::2]
    if not judged or sum(len(x) for x, _ in fitted) < 2 * rows[0][0].shape[1]:
        return None
    (x, y), (x_new, y_new) = _sample(fitted), _sample(judged)
    ridge = 1e-3 * np.trace(x.T @ x) / x.shape[1]
    weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
    return float(1 - ((y_new - x_new @ weights) ** 2).sum() / (y_new**2).sum())


def _verdict(c: Comparison) -> str:
    own_rows, published_rows = c.rows_per_second
    rows = ""
    if own_rows != published_rows:
        many, few = ("own", "published") if own_rows > published_rows else ("published", "own")
        count = max(own_rows, published_rows)
        rows = f" The {many} files have {count} rows for one of the {few} ones, and were averaged for the comparison."
    if c.widths[0] != c.widths[1]:
        return f"Another network: {c.widths[0]} features a row, published {c.widths[1]}." + rows
    if c.raw_cosine > EQUAL and abs(c.scale - 1) < 1e-3:
        return "The same features." + rows
    if c.whole_numbers[1] and not c.whole_numbers[0]:
        return (
            "PCA and 8-bit quantisation applied to the published ones (whole numbers from 0 to 255), as VGGish's "
            "post-processing does; the own ones are the network's output." + rows
        )
    if c.whole_numbers[0] and not c.whole_numbers[1]:
        return (
            "PCA and 8-bit quantisation applied to the own ones (whole numbers from 0 to 255): leave VGGish's "
            "post-processing out." + rows
        )
    if c.offset and c.cosine_at_offset > c.cosine + SHIFT_GAIN and c.cosine_at_offset > SAME_NETWORK:
        direction = "later" if c.offset > 0 else "earlier"
        count = abs(c.offset)
        return (
            f"Shifted: the published features come {count} segment{'s' * (count > 1)} {direction}; the start of the "
            "videos was cut elsewhere, or frames were counted from elsewhere." + rows
        )
    if c.cosine > SAME and abs(c.scale - 1) < 0.02:
        return "The same features but for rounding or the decoder." + rows
    if c.raw_cosine > SAME and abs(c.scale - 1) >= 0.02:
        return f"The same features times {c.scale:.3g}: one side is normalised, or scaled." + rows
    if c.cosine > SAME_NETWORK:
        return (
            "The same network on other pixels or samples of the same moments: cropped instead of squashed, other "
            "antialiasing, other frames of a second, or another resampling." + rows
        )
    if (c.linear is not None and c.linear > LINEAR) or c.structure > SAME:
        return (
            "A linear transformation of the same features: PCA, whitening or a projection applied to one side." + rows
        )
    if c.structure > RELATED:
        return "Other weights, or another network of the same width, on the same videos." + rows
    return "Unrelated: other videos under these names, rows in another order, or a network without its weights." + rows


def report(comparison: Comparison) -> str:
    """The comparison over all videos, as lines of text."""
    c = comparison
    shapes = sorted({(one.own_shape, one.published_shape) for one in c.videos})
    linear = "too few rows" if c.linear is None else f"{c.linear:.3f}"
    return "\n".join(
        [
            f"videos in both      {len(c.videos)} (own only {c.only_own}, published only {c.only_published})",
            f"shapes              {', '.join(f'{x} / {y}' for x, y in shapes[:4])}{' ...' * (len(shapes) > 4)}",
            f"cosine              {c.cosine:.4f} centred, {c.raw_cosine:.4f} raw",
            f"scale               {c.scale:.4g} (length of published over own)",
            f"best offset         {c.offset:+d} segments, cosine {c.cosine_at_offset:.4f}",
            f"same structure      {c.structure:.3f} (linear CKA), explained by a linear map: {linear}",
            f"it looks like       {c.verdict}",
        ]
    )


def write_table(path: Path, videos: list[VideoComparison]) -> None:
    """One line a video, those that fit least first."""
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in fields(VideoComparison)])
        table.writeheader()
        table.writerows(asdict(one) for one in sorted(videos, key=lambda one: np.nan_to_num(one.cosine, nan=-1.0)))


def main(argv: list[str] | None = None) -> None:
    """Print the comparison of two folders."""
    parser = argparse.ArgumentParser(
        prog="python -m video.extraction.compare_features", description=__doc__.split("\n")[0]
    )
    parser.add_argument("own", type=Path, help="folder of .npy files, one a video")
    parser.add_argument("published", type=Path, help="folder to compare with")
    parser.add_argument("--csv", type=Path, help="file to write every video's comparison to")
    args = parser.parse_args(argv)
    comparison = compare_folders(args.own, args.published)
    print(report(comparison))
    for side, folder in (("own", args.own), ("published", args.published)):
        if note := feature_note(folder.resolve().parent.parent):  # the data set's folder, two above a feature's
            print(f"note                the {side} ones: {note}")
    if args.csv:
        write_table(args.csv, comparison.videos)


if __name__ == "__main__":
    run_entry_point(main)
