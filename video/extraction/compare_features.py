"""Compare your features with published ones, per video and over all videos, and diagnose differences.

    python -m video.extraction.compare_features data/own/feats_CLIP/segment_feats data/LLP/feats_CLIP/segment_feats

Cosines are between centred features (each side minus its mean over all videos), since raw cosines of CLIP or ReLU
features are high between any two images. T rows per video, D features.
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

OFFSETS = (0, -1, 1, -2, 2, -3, 3)  # rows by which features may be shifted
MOST_ROWS = 4000  # approximate number of rows for CKA and the linear map

# Bounds of the verdicts
EQUAL = 0.9999
SAME = 0.99
SAME_NETWORK = 0.5  # lowest cosine for other pixels of the same moments
SHIFT_GAIN = 0.1  # smallest gain in cosine by a shift
LINEAR = 0.8  # share of variance in held-out videos explained by a linear map
RELATED = 0.3  # linear CKA
QUANTISED = "PCA and 8-bit quantisation of the {} ones (whole numbers from 0 to 255): {}."
OTHER_PIXELS = (
    "The same network on other pixels or samples of the same moments: cropped instead of squashed, other antialiasing, "
    "other frames within a second, or another resampling."
)
UNRELATED = "Unrelated: other videos under these names, rows in another order, or a network without its weights."
Pairs = list[tuple[np.ndarray, np.ndarray]]  # own and published rows (T, D) by video


@dataclass(frozen=True)
class Comparison:
    """The comparison of two folders of feature files. Cosines and scales are NaN if the widths differ."""

    videos: pd.DataFrame  # name, both shapes and scores of each video
    only_own: int
    only_published: int
    widths: tuple[int, int]
    raw_cosine: float  # without centring; cosines are averaged over segments, then over videos
    cosine: float
    scale: float  # norm of published rows over that of own ones, median over segments, then over videos
    offset: int  # most frequent best offset: number of rows by which the published features are later
    cosine_at_offset: float
    structure: float  # linear CKA (0 to 1) of videos with files of equal length; NaN: too few rows
    linear: float | None  # share of their variance explained by a linear map; None: too few rows
    whole_numbers: tuple[bool, bool]  # whether own and published values are all integers from 0 to 255
    zeros: tuple[int, int] = (0, 0)  # own rows of zeros where published ones are not zero, and vice versa
    remarks: str = ""  # on averaged rows and different lengths

    @property
    def verdict(self) -> str:
        """Return the probable cause of the difference in words: the first that applies."""
        rescaled, (own_whole, published_whole) = abs(self.scale - 1), self.whole_numbers
        shifted = self.offset and self.cosine_at_offset > max(self.cosine + SHIFT_GAIN, SAME_NETWORK)
        shift = f"{abs(self.offset)} segment{'s' * (abs(self.offset) > 1)} {'later' if self.offset > 0 else 'earlier'}"
        zeros = f"{self.zeros[0]} own and {self.zeros[1]} published ones without a counterpart"
        linear = (self.linear is not None and self.linear > LINEAR) or self.structure > SAME
        own, published = self.widths
        verdicts = (
            (own != published, f"Another network: {own} features per row, published {published}."),
            (any(self.zeros), f"Rows of zeros ({zeros}): silence or a failed extraction. Leave these videos out."),
            (self.raw_cosine > EQUAL and rescaled < 1e-3, "The same features."),
            (published_whole > own_whole, QUANTISED.format("published", "own ones are the network's output")),
            (own_whole > published_whole, QUANTISED.format("own", "omit VGGish's post-processing")),
            (shifted, f"Shifted: the published features are {shift}, due to other cuts or numbers of frames."),
            (self.cosine > SAME and rescaled < 0.02, "The same features except for rounding or the decoder."),
            (rescaled >= 0.02 and self.raw_cosine > SAME, f"The same features times {self.scale:.3g} (normalised)."),
            (self.cosine > SAME_NETWORK, OTHER_PIXELS),
            (linear, "A linear transformation of the same features: PCA, whitening or a projection of one side."),
            (self.structure > RELATED, "Other weights, or another network of the same width, on the same videos."),
        )
        return next((text for applies, text in verdicts if applies), UNRELATED) + self.remarks


def compare_folders(own: Path, published: Path) -> Comparison:
    """Compare the videos in both folders. Raises InputError if there are none, or a file is no array (rows, width)."""
    for folder in (own, published):
        if not folder.is_dir():
            raise InputError(folder, "no folder", "a folder of .npy files, one per video", "Check the path.")
    ours, theirs = ({path.stem for path in folder.glob("*.npy")} for folder in (own, published))
    names = sorted(ours & theirs)
    if not names:
        found = f"none of the {len(ours)} videos of {own}"
        raise InputError(published, found, "at least one video in both", "Compare features of the same data set.")
    own_rows, published_rows = _read(own, names), _read(published, names)
    ratios = {Fraction(len(x), len(y)) for x, y in zip(own_rows, published_rows, strict=True)}
    repeats = ratios.pop().as_integer_ratio() if len(ratios) == 1 else (1, 1)
    repeats = repeats if 1 in repeats else (1, 1)
    xs = [rows.reshape(-1, repeats[0], rows.shape[1]).mean(1) for rows in own_rows]  # one row per segment
    ys = [rows.reshape(-1, repeats[1], rows.shape[1]).mean(1) for rows in published_rows]
    mean_x, mean_y = np.concatenate(xs).mean(0), np.concatenate(ys).mean(0)
    centred = [(x - mean_x, y - mean_y) for x, y in zip(xs, ys, strict=True)]
    whole = [(x, y) for x, y in centred if len(x) == len(y)]
    remarks = ""
    if repeats != (1, 1):
        many, few = ("own", "published") if repeats[1] == 1 else ("published", "own")
        remarks += f" The {many} files have {max(repeats)} rows per {few} row, which were averaged for the comparison."
    if differing := len(centred) - len(whole):
        remarks += f" Lengths differ in {differing} videos, of which only common rows were compared."

    lengths = [(np.abs(x[: len(y)]).sum(1), np.abs(y[: len(x)]).sum(1)) for x, y in zip(xs, ys, strict=True)]
    cosines = pd.DataFrame([[_cosine(x, y, k) for k in OFFSETS] for x, y in centred], columns=OFFSETS)
    videos = pd.DataFrame(
        {
            "video": names,
            "own_shape": [rows.shape for rows in own_rows],
            "published_shape": [rows.shape for rows in published_rows],
            "cosine": cosines[0],
            "scale": map(_scale, xs, ys),
            "offset": cosines.fillna(-1).idxmax(axis=1),  # the smallest one in case of ties
            "cosine_at_offset": cosines.max(axis=1),
        }
    )
    offset = multimode(sorted(videos.offset, key=abs))[0]  # the smallest one in case of ties
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


def _read(folder: Path, names: list[str]) -> list[np.ndarray]:
    """Return the rows (T, D) of each video."""
    rows = []
    for path in (folder / f"{name}.npy" for name in names):
        try:
            rows.append(read_npy(path))
        except (OSError, ValueError) as error:
            raise feature_error(path, error) from error
        if rows[-1].ndim != 2 or 0 in rows[-1].shape or rows[-1].shape[1] != rows[0].shape[1]:
            found, expected = f"shape {rows[-1].shape}", "a 2-D array (rows, width) with the same width in all files"
            raise InputError(path, found, expected, "Check that this is a feature file.")
        if rows[-1].dtype.kind not in "fiu" or not np.isfinite(rows[-1]).all():
            found = f"values of type {rows[-1].dtype}, or NaN or infinity"
            raise InputError(path, found, "finite numbers", "Extract the features again.")
    return [values.astype(np.float64) for values in rows]


def _whole_numbers(rows: list[np.ndarray]) -> bool:
    """Return whether all values are integers between 0 and 255, as after quantisation."""
    return all((x == np.round(x)).all() and x.min() >= 0 and 1 < x.max() <= 255 for x in rows)


def _cosine(x: np.ndarray, y: np.ndarray, offset: int = 0) -> float:
    """Return the mean cosine between rows of x and rows of y that are `offset` later, without zero rows.

    NaN if no row is left, the widths differ, or the offset leaves less than half of the rows.
    """
    if x.shape[1] != y.shape[1] or 2 * abs(offset) > min(len(x), len(y)):
        return np.nan
    x, y = x[max(0, -offset) :], y[max(0, offset) :]
    x, y = x[: len(y)], y[: len(x)]
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    valid = lengths > 0
    return float(((x * y).sum(1)[valid] / lengths[valid]).mean()) if valid.any() else np.nan


def _scale(x: np.ndarray, y: np.ndarray) -> float:
    """Return the median ratio of the norms of y's rows to those of x's; 0 if x has only zero rows."""
    if x.shape[1] != y.shape[1]:
        return np.nan
    ratios = [b / a for a, b in zip(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1), strict=False) if a > 0]
    return float(np.median(ratios)) if ratios else 0.0


def _sample(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Return every k-th row of both sides, about MOST_ROWS in total."""
    x, y = np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs])
    step = max(1, len(x) // MOST_ROWS)
    return x[::step], y[::step]


def _cka(pairs: Pairs) -> float:
    """Compute unbiased linear CKA (Kornblith et al., 2019): 0 for unrelated features, 1 up to rotation and scale."""
    if sum(len(x) for x, _ in pairs) < 4:
        return np.nan
    x, y = _sample(pairs)
    k, m = x @ x.T, y @ y.T
    return _hsic(k, m) / np.sqrt(max(_hsic(k, k) * _hsic(m, m), 1e-300))


def _hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Compute the unbiased estimate of the Hilbert-Schmidt independence criterion (Song et al., 2012)."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    total = (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(0) @ m.sum(0)) / (n - 2)
    return float(total / (n * (n - 3)))


def _linear_fit(pairs: Pairs) -> float | None:
    """Return the share of published variance explained by a linear map that was fitted on half of the videos."""
    if len(pairs) < 2 or sum(len(x) for x, _ in pairs[::2]) < 2 * pairs[0][0].shape[1]:
        return None
    (x, y), (x_new, y_new) = _sample(pairs[::2]), _sample(pairs[1::2])
    if not (x.any() and y_new.any()):  # all rows are equal
        return None
    ridge = 1e-3 * np.trace(x.T @ x) / x.shape[1]
    weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
    return float(1 - ((y_new - x_new @ weights) ** 2).sum() / (y_new**2).sum())


def report(c: Comparison) -> str:
    """Return the comparison over all videos as text."""
    shapes = sorted(set(zip(c.videos.own_shape, c.videos.published_shape, strict=True)))
    linear = "too few rows" if c.linear is None else f"{c.linear:.3f}"
    return f"""\
videos in both      {len(c.videos)} (own only {c.only_own}, published only {c.only_published})
shapes              {", ".join(f"{x} / {y}" for x, y in shapes[:4])}{" ..." * (len(shapes) > 4)}
cosine              {c.cosine:.4f} centred, {c.raw_cosine:.4f} raw
scale               {c.scale:.4g} (norm of published over own)
best offset         {c.offset:+d} segments, cosine {c.cosine_at_offset:.4f}
same structure      {c.structure:.3f} (linear CKA), explained by a linear map: {linear}
verdict             {c.verdict}"""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("own", type=Path, help="folder of .npy files, one per video")
    parser.add_argument("published", type=Path, help="folder to compare with")
    parser.add_argument("--csv", type=Path, help="write a table of all videos")
    args = parser.parse_args(argv)
    comparison = compare_folders(args.own, args.published)
    print(report(comparison))
    for side, folder in (("own", args.own), ("published", args.published)):
        if note := feature_note(folder.resolve().parent.parent):  # the data set's folder
            print(f"note                the {side} ones: {note}")
    if args.csv:  # the least similar videos first
        table = comparison.videos.sort_values("cosine", na_position="first", kind="stable")
        table.to_csv(args.csv, index=False, na_rep="nan")


if __name__ == "__main__":
    run_entry_point(main)
