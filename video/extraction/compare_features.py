"""Compares own features with published ones: per video and over all, in numbers and in words.

    python -m video.extraction.compare_features data/own/feats_CLIP/segment_feats data/LLP/feats_CLIP/segment_feats

T rows a video, D features. Cosines are of centred features, each side less its mean over all videos: raw cosines of
CLIP or of ReLU features are high between any two images.
"""

from utils.entry_point import run_entry_point

import argparse
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import multimode

import numpy as np
import pandas as pd

from dataloaders.feature_origin import feature_note
from dataloaders.features import feature_error, read_npy
from utils.errors import InputError

OFFSETS = (0, -1, 1, -2, 2, -3, 3)  # rows that features may be shifted by
MOST_ROWS = 4000  # of all videos, that the whole sets are compared on

# Bounds of the verdicts, on the cosine of centred features (or another score from 0 to 1 where it says so).
EQUAL = 0.9999
SAME = 0.99
SAME_NETWORK = 0.5  # other pixels of the same moments leave at least this
SHIFT_GAIN = 0.1  # by which a shift has to raise it
LINEAR = 0.8  # share of the variance that a linear map of the own features explains in videos that it was not fitted on
RELATED = 0.3  # similarity of the two sets' inner structures (linear CKA)


@dataclass(frozen=True)
class Comparison:
    """Two folders of feature files. Cosines and scales are NaN where the widths differ."""

    videos: pd.DataFrame  # one row a video: its name, both shapes, and these scores of its own
    only_own: int
    only_published: int
    widths: tuple[int, int]
    raw_cosine: float  # not centred; cosines are means over segments, then over videos
    cosine: float
    scale: float  # length of the published rows over that of the own ones, median over segments, then over videos
    offset: int  # by how many rows the published features come later than the own ones where most videos fit best
    cosine_at_offset: float
    structure: float  # linear CKA, 0 to 1, of the videos whose files have equal lengths; NaN: too few rows to tell
    linear: float | None  # variance of these that a linear map explains; None: too few rows to tell
    whole_numbers: tuple[bool, bool]  # own and published: nothing but integers from 0 to 255
    zeros: tuple[int, int] = (0, 0)  # rows of zeros, own ones where the published are none, and the other way round
    remarks: str = ""  # on rows that were averaged, and lengths that differ

    @property
    def verdict(self) -> str:
        """Say what the difference looks like."""
        return _verdict(self) + self.remarks


def compare_folders(own: Path, published: Path) -> Comparison:
    """Compare the videos that both folders hold.

    Raises InputError when a folder is absent, no video is in both, or a file is no 2-D array of the others' width.
    """
    ours, theirs = _names(own), _names(published)
    names = sorted(ours & theirs)
    if not names:
        found = f"none of the {len(ours)} videos of {own}"
        raise InputError(published, found, "at least one video in both", "Compare features of the same data set.")
    own_rows, published_rows = _read(own, names), _read(published, names)
    ratios = {Fraction(len(x), len(y)) for x, y in zip(own_rows, published_rows, strict=True)}
    repeats = ratios.pop().as_integer_ratio() if len(ratios) == 1 else (1, 1)
    repeats = repeats if 1 in repeats else (1, 1)
    xs = [rows.reshape(-1, repeats[0], rows.shape[1]).mean(1) for rows in own_rows]  # one row a segment
    ys = [rows.reshape(-1, repeats[1], rows.shape[1]).mean(1) for rows in published_rows]
    mean_x, mean_y = np.concatenate(xs).mean(0), np.concatenate(ys).mean(0)
    centred = [(x - mean_x, y - mean_y) for x, y in zip(xs, ys, strict=True)]
    whole = [(x, y) for x, y in centred if len(x) == len(y)]
    remarks = ""
    if repeats != (1, 1):
        many, few = ("own", "published") if repeats[1] == 1 else ("published", "own")
        per_row = f"{max(repeats)} rows for one of the {few} ones"
        remarks += f" The {many} files have {per_row}, and were averaged for the comparison."
    if differing := len(centred) - len(whole):
        remarks += f" Lengths differ in {differing} videos; only rows that both files have were compared."

    lengths = [(np.abs(x[: len(y)]).sum(1), np.abs(y[: len(x)]).sum(1)) for x, y in zip(xs, ys, strict=True)]
    cosines = pd.DataFrame([[_cosine(x, y, k) for k in OFFSETS] for x, y in centred], columns=OFFSETS)
    videos = pd.DataFrame(
        {
            "video": names,
            "own_shape": [rows.shape for rows in own_rows],
            "published_shape": [rows.shape for rows in published_rows],
            "cosine": cosines[0],
            "scale": map(_scale, xs, ys),
            "offset": cosines.fillna(-1).idxmax(axis=1),  # the smallest of those that fit best
            "cosine_at_offset": cosines.max(axis=1),
        }
    )
    offset = multimode(sorted(videos.offset, key=abs))[0]  # the smallest of the most frequent ones
    return Comparison(
        videos=videos,
        only_own=len(ours) - len(names),
        only_published=len(theirs) - len(names),
        widths=(xs[0].shape[1], ys[0].shape[1]),
        raw_cosine=pd.Series(map(_cosine, xs, ys)).mean(),
        cosine=videos.cosine.mean(),
        scale=videos.scale.median(),
        offset=offset,
        cosine_at_offset=cosines[offset].mean(),
        structure=_cka(whole),
        linear=_linear_fit(whole),
        whole_numbers=(_whole_numbers(own_rows), _whole_numbers(published_rows)),
        zeros=tuple(sum(int((~of[i].astype(bool) & of[1 - i].astype(bool)).sum()) for of in lengths) for i in (0, 1)),
        remarks=remarks,
    )


def _names(folder: Path) -> set[str]:
    if not folder.is_dir():
        raise InputError(folder, "no folder", "a folder of .npy files, one a video", "Check the path.")
    return {path.stem for path in folder.glob("*.npy")}


def _read(folder: Path, names: list[str]) -> list[np.ndarray]:
    """Return the rows (T, D) of each video."""
    rows = []
    for path in (folder / f"{name}.npy" for name in names):
        try:
            rows.append(read_npy(path))
        except (OSError, ValueError) as error:
            raise feature_error(path, error) from error
        if rows[-1].ndim != 2 or 0 in rows[-1].shape or rows[-1].shape[1] != rows[0].shape[1]:
            found, expected = f"shape {rows[-1].shape}", "a 2-D array (rows, width), of one width in all files"
            raise InputError(path, found, expected, "Is this a feature file?")
        if rows[-1].dtype.kind not in "fiu" or not np.isfinite(rows[-1]).all():
            found = f"values of type {rows[-1].dtype}, or NaN or infinite ones"
            raise InputError(path, found, "finite numbers", "Extract the features again.")
    return [values.astype(np.float64) for values in rows]


def _whole_numbers(rows: list[np.ndarray]) -> bool:
    return all((x == np.round(x)).all() and x.min() >= 0 and 1 < x.max() <= 255 for x in rows)


def _cosine(x: np.ndarray, y: np.ndarray, offset: int = 0) -> float:
    """Return the mean over rows of x and those of y that come `offset` later; rows of length 0 do not count.

    It is NaN where no row counts, the widths differ, or the offset leaves less than half of the rows.
    """
    if x.shape[1] != y.shape[1] or 2 * abs(offset) > min(len(x), len(y)):
        return np.nan
    x, y = x[max(0, -offset) :], y[max(0, offset) :]
    x, y = x[: len(y)], y[: len(x)]
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    valid = lengths > 0
    return float(((x * y).sum(1)[valid] / lengths[valid]).mean()) if valid.any() else np.nan


def _scale(x: np.ndarray, y: np.ndarray) -> float:
    """Return the median over rows of the length of y's over that of x's; 0 where x has none."""
    if x.shape[1] != y.shape[1]:
        return np.nan
    ratios = [b / a for a, b in zip(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1), strict=False) if a > 0]
    return float(np.median(ratios)) if ratios else 0.0


def _sample(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return every k-th row of all videos, about MOST_ROWS of them, of both sides."""
    x, y = np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs])
    step = max(1, len(x) // MOST_ROWS)
    return x[::step], y[::step]


def _cka(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Compute the linear centred kernel alignment (Kornblith et al., 2019), without bias for few rows.

    It is 0 for unrelated features and 1 for those that are equal up to rotation and scale.
    """
    if sum(len(x) for x, _ in pairs) < 4:
        return np.nan
    x, y = _sample(pairs)
    k, m = x @ x.T, y @ y.T
    return _hsic(k, m) / np.sqrt(max(_hsic(k, k) * _hsic(m, m), 1e-300))


def _hsic(k: np.ndarray, m: np.ndarray) -> float:
    """The unbiased estimate of the Hilbert-Schmidt independence criterion (Song et al., 2012)."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    total = (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(0) @ m.sum(0)) / (n - 2)
    return float(total / (n * (n - 3)))


def _linear_fit(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """Return the share of the published variance that a linear map of the own features explains.

    It is fitted on every other video and judged on the rest.
    """
    if len(pairs) < 2 or sum(len(x) for x, _ in pairs[::2]) < 2 * pairs[0][0].shape[1]:
        return None
    (x, y), (x_new, y_new) = _sample(pairs[::2]), _sample(pairs[1::2])
    if not (x.any() and y_new.any()):  # the same rows throughout
        return None
    ridge = 1e-3 * np.trace(x.T @ x) / x.shape[1]
    weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
    return float(1 - ((y_new - x_new @ weights) ** 2).sum() / (y_new**2).sum())


def _verdict(c: Comparison) -> str:
    rescaled = abs(c.scale - 1)
    if c.widths[0] != c.widths[1]:
        return f"Another network: {c.widths[0]} features a row, published {c.widths[1]}."
    if any(c.zeros):
        found = f"Rows of zeros: {c.zeros[0]} own and {c.zeros[1]} published ones that the other side does not have"
        return f"{found}: silence, or what could not be extracted. Leave these videos out, and compare again."
    if c.raw_cosine > EQUAL and rescaled < 1e-3:
        return "The same features."
    if c.whole_numbers == (False, True):
        return (
            "PCA and 8-bit quantisation applied to the published ones (whole numbers from 0 to 255), as VGGish's "
            "post-processing does; the own ones are the network's output."
        )
    if c.whole_numbers == (True, False):
        return (
            "PCA and 8-bit quantisation applied to the own ones (whole numbers from 0 to 255): leave VGGish's "
            "post-processing out."
        )
    if c.offset and c.cosine_at_offset > max(c.cosine + SHIFT_GAIN, SAME_NETWORK):
        shift = f"{abs(c.offset)} segment{'s' * (abs(c.offset) > 1)} {'later' if c.offset > 0 else 'earlier'}"
        return (
            f"Shifted: the published features come {shift}; the start of the "
            "videos was cut elsewhere, or frames were counted from elsewhere."
        )
    if c.cosine > SAME and rescaled < 0.02:
        return "The same features but for rounding or the decoder."
    if c.raw_cosine > SAME and rescaled >= 0.02:
        return f"The same features times {c.scale:.3g}: one side is normalised, or scaled."
    if c.cosine > SAME_NETWORK:
        return (
            "The same network on other pixels or samples of the same moments: cropped instead of squashed, other "
            "antialiasing, other frames of a second, or another resampling."
        )
    if (c.linear is not None and c.linear > LINEAR) or c.structure > SAME:
        return "A linear transformation of the same features: PCA, whitening or a projection applied to one side."
    if c.structure > RELATED:
        return "Other weights, or another network of the same width, on the same videos."
    return "Unrelated: other videos under these names, rows in another order, or a network without its weights."


def report(c: Comparison) -> str:
    """Return the comparison over all videos as lines of text."""
    shapes = sorted(set(zip(c.videos.own_shape, c.videos.published_shape, strict=True)))
    linear = "too few rows" if c.linear is None else f"{c.linear:.3f}"
    return f"""\
videos in both      {len(c.videos)} (own only {c.only_own}, published only {c.only_published})
shapes              {", ".join(f"{x} / {y}" for x, y in shapes[:4])}{" ..." * (len(shapes) > 4)}
cosine              {c.cosine:.4f} centred, {c.raw_cosine:.4f} raw
scale               {c.scale:.4g} (length of published over own)
best offset         {c.offset:+d} segments, cosine {c.cosine_at_offset:.4f}
same structure      {c.structure:.3f} (linear CKA), explained by a linear map: {linear}
it looks like       {c.verdict}"""


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
    if args.csv:  # those that fit least first
        table = comparison.videos.sort_values("cosine", na_position="first", kind="stable")
        table.to_csv(args.csv, index=False, na_rep="nan")


if __name__ == "__main__":
    run_entry_point(main)
