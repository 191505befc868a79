"""The data sets by name."""

from collections.abc import Callable
from pathlib import Path

from dataloaders import ave, llp, unav
from dataloaders.annotations import SplitAnnotations
from utils.errors import InputError

LOADERS: dict[str, Callable[[Path, str], SplitAnnotations]] = {
    "LLP": llp.load_split,
    "UnAV": unav.load_split,
    "AVE": ave.load_split,
}
DEFAULT_DATA_DIR: dict[str, Path] = {name: Path("data") / name for name in LOADERS}
POOLED: dict[str, bool] = {"LLP": False, "UnAV": True, "AVE": False}  # feature files of any number of rows


def load_annotations(dataset: str, annotations_dir: Path, split: str) -> SplitAnnotations:
    """One split ("train", "val" or "test") of a data set. Raises InputError for unusable files and unknown names."""
    if dataset not in LOADERS:
        raise InputError("--dataset", dataset, f"one of {', '.join(LOADERS)}", "Choose one of these.")
    return LOADERS[dataset](Path(annotations_dir), split)
