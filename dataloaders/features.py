"""Reading and checking of feature files, one `.npy` per video."""

import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.errors import InputError
from utils.files import require_file

PROBLEMS = ("missing", "unreadable", "wrong shape", "wrong names", "not finite")


@dataclass(frozen=True)
class Feature:
    """A kind of features, extracted by one backbone."""

    name: str
    modality: str  # "audio" or "visual"
    width: int  # of the published files; other files may have any
    folder: str  # within the data set's folder
    rows_per_second: int = 1
    text_folder: str | None = None  # of the classes' text features; None: no text encoder
    averaged: bool = True  # False: the rows of a second are concatenated
    is_published: bool = True  # by the authors; tables name features that are not

    @property
    def parts(self) -> int:
        """Return the number of a file's rows that are concatenated into one row of the packed feature."""
        return 1 if self.averaged else self.rows_per_second


FEATURES: dict[str, Feature] = {
    feature.name: feature
    for feature in (
        Feature("vggish", "audio", 128, "feats/vggish"),
        Feature("res152", "visual", 2048, "feats/res152", rows_per_second=8),
        Feature("r2plus1d_18", "visual", 512, "feats/r2plus1d_18"),
        Feature("clip", "visual", 768, "feats_CLIP/segment_feats", text_folder="feats_CLIP/event_feats"),
        Feature("clap", "audio", 512, "feats_CLAP/segment_feats", text_folder="feats_CLAP/event_feats"),
        Feature("pe_audio", "audio", 1024, "feats_PE/frame_feats", 25, "feats_PE/event_feats", is_published=False),
        Feature("mn04", "audio", 384, "feats/mn04", is_published=False),
        Feature("efficientnet_lite2", "visual", 1280, "feats/efficientnet_lite2", is_published=False),
    )
}
PUBLISHED = tuple(name for name, feature in FEATURES.items() if feature.is_published)
# Features that can be packed: those above, and single frames for CMPAE and CoLeaF, and for PE-A-Frame.
PACKED = FEATURES | {
    f"{name}_frames": replace(FEATURES[name], name=f"{name}_frames", averaged=False) for name in ("res152", "pe_audio")
}

# Text features of the classes: of their names in the paper's prompts, or of VALOR's sentences.
TEXT_FILES = {"event_names": "all_event_feats.npy", "valor": "valor_prompt_feats.npy"}

BIAS_FILE = "logit_bias.npy"  # of PE-A-Frame's logits, beside its text features, which include the scale

# numpy parses headers with `ast`, which in Python 3.11 and 3.12 fails at random when two threads use it (SystemError:
# AST constructor recursion depth mismatch). Files are read before locking, so that threads only wait for the parser.
_PARSER_LOCK = threading.Lock()


class FeatureError(InputError):
    """The error of an unusable feature file; `problem` is one of `PROBLEMS`."""

    def __init__(self, problem: str, where: object, found: str, expected: str, way_out: str):
        super().__init__(where, found, expected, way_out)
        self.problem = problem


def feature_path(data_dir: Path, feature: str, feature_id: str) -> Path:
    """Return the file of one video, such as `data_dir/feats/vggish/<feature_id>.npy`."""
    return Path(data_dir) / PACKED[feature].folder / f"{feature_id}.npy"


def text_features_path(data_dir: Path, feature: str, prompts: str = "event_names") -> Path:
    """Return the file of the classes' text features. Raises InputError for a feature without a text encoder."""
    folder = PACKED[feature].text_folder
    if folder is None:
        with_text = ", ".join(name for name, known in FEATURES.items() if known.text_folder)
        raise InputError(feature, "a feature without text features", with_text, "Choose one of these.")
    return Path(data_dir) / folder / TEXT_FILES[prompts]


def read_segment_features(
    path: Path, feature: str, num_segments: int, pooled: bool, width: int | None = None
) -> np.ndarray:
    """Read one video's features, one row per second: (T, D) float32 with T = num_segments.

    If `pooled`, any number of rows is reduced to T by adaptive average pooling over time (UnAV). Otherwise the file
    must have T x rows_per_second rows, which are averaged (ResNet-152: 80 -> 10), or concatenated if the feature is not
    `averaged`. Raises FeatureError for an absent or unreadable file, and for another shape or type or infinite values.
    """
    rows = load_rows(path, width)  # (L, D)
    if pooled and len(rows) != num_segments:
        averages = F.adaptive_avg_pool1d(torch.from_numpy(rows.T.copy()), num_segments)  # (D, T)
        return np.ascontiguousarray(averages.numpy().T)
    known = PACKED[feature]
    per_second = 1 if pooled else known.rows_per_second
    if len(rows) != num_segments * per_second:
        raise _shape_error(path, f"{len(rows)} rows", f"{num_segments * per_second} rows")
    if per_second == 1:
        return rows
    seconds = rows.reshape(num_segments, per_second, -1)
    return seconds.mean(1) if known.averaged else seconds.reshape(num_segments, -1)  # (T, D)


def load_text_features(data_dir: Path, feature: str, classes: Sequence[str], prompts: str = "event_names") -> Tensor:
    """Load the classes' text features, (C, D) float32. Raises FeatureError, also if the listed names differ."""
    path = text_features_path(data_dir, feature, prompts)
    rows = load_rows(path)
    if len(rows) != len(classes):
        raise _shape_error(path, f"{len(rows)} rows", f"{len(classes)} rows, one per class")
    listed = path.with_suffix(".txt")  # names in the order of the rows
    if listed.is_file() and listed.read_text(encoding="utf-8", errors="replace").splitlines() != list(classes):
        found, way_out = "other names or another order", "Extract the text features again, for this data set."
        raise FeatureError("wrong names", listed, found, "the classes in order", way_out)
    return torch.from_numpy(rows)


def load_rows(path: Path, width: int | None = None) -> np.ndarray:
    """Load a file of feature vectors, (L, D) float32. Raises FeatureError as `read_segment_features` does."""
    try:
        rows = read_npy(path)
    except (OSError, ValueError) as error:
        raise feature_error(path, error) from error
    if rows.ndim != 2 or 0 in rows.shape:
        raise _shape_error(path, f"shape {rows.shape}", "a 2-D array (rows, width) that is not empty")
    if rows.dtype.kind != "f":
        raise _shape_error(path, f"values of type {rows.dtype}", "floating-point values")
    if width is not None and rows.shape[1] != width:
        raise _shape_error(path, f"width {rows.shape[1]}", f"width {width}")
    with np.errstate(over="ignore"):  # values beyond float32 become infinite
        rows = np.ascontiguousarray(rows, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise FeatureError("not finite", path, "NaN or infinite values", "finite values", "Extract the features again.")
    return rows


def read_npy(path: Path) -> np.ndarray:
    """Read the array in a `.npy` file. Raises OSError if it is not readable, ValueError for anything but an array."""
    require_file(path)
    content = io.BytesIO(path.read_bytes())
    try:
        with _PARSER_LOCK:
            values = np.load(content, allow_pickle=False)
    except Exception as error:  # Python's tokeniser and parser may raise anything for garbage
        raise ValueError(str(error)) from error
    if not isinstance(values, np.ndarray):
        raise ValueError("an archive of arrays")
    return values


def feature_error(path: Path, error: OSError | ValueError) -> FeatureError:
    """Return the FeatureError for an error that `read_npy` or the system raised."""
    if isinstance(error, FileNotFoundError) and not path.is_symlink():
        return FeatureError("missing", path, "no file", "a feature file", "data/README.md describes where to get it.")
    found = f"an unreadable file ({error})"
    if isinstance(error, FileNotFoundError):
        found = f"a link to {path.readlink()}, which does not exist"
    way_out = "Copy or extract the file again, or change its permissions."
    return FeatureError("unreadable", path, found, "an intact .npy file", way_out)


def _shape_error(path: Path, found: str, expected: str) -> FeatureError:
    return FeatureError("wrong shape", path, found, expected, "Extract it again, or check that it has this feature.")
