"""LSLD's texts, one for every subset of a video's labels, and their features from a text encoder.

`python -m baselines.lsld.subset_texts --dataset LLP --annotations_dir DIR --modality visual` prints the texts to
encode, one per line. The list (`lsld_texts.txt`) and its features (`lsld_text_feats.npy`, one row per line) belong in
the folder of the class names' text features.
"""

from utils.entry_point import run_entry_point

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from dataloaders.annotations import SplitAnnotations
from dataloaders.datasets import DATASETS, SPLITS, load_annotations
from dataloaders.features import load_rows, text_features_path
from utils.audio_visual import MODALITIES
from utils.errors import InputError

NAMES_FILE = Path(__file__).resolve().parents[2] / "data" / "lsld_names.yaml"
TEXTS_FILE, FEATURES_FILE = "lsld_texts.txt", "lsld_text_feats.npy"
WAY_OUT = "baselines/lsld/README.md describes how to print the texts, and where to put their features."


def label_subsets(classes: Iterable[int]) -> list[tuple[int, ...]]:
    """Return all non-empty subsets of a video's classes in order of size; each is in ascending order."""
    ordered = sorted(classes)
    return [subset for size in range(1, len(ordered) + 1) for subset in combinations(ordered, size)]


def subset_text(subset: Sequence[int], names: Sequence[str], modality: str) -> str:
    """Return the text of a subset: its names joined by " and ", or "other" if empty; for audio, in a sentence."""
    text = " and ".join(names[c] for c in subset) or "other"
    return f"This is a sound of {text}" if modality == "audio" else text


def load_names(path: Path, dataset: str, classes: Sequence[str]) -> tuple[str, ...]:
    """Read the class names used in the texts, (C,), by default their own. Raises InputError if unsuitable."""
    expected = "wordings by data set and class"
    try:
        wording = yaml.safe_load(path.read_text(encoding="utf-8")).get(dataset) or {}
        names = tuple(str(wording.get(name, name)) for name in classes)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise InputError(path, f"no such YAML file ({error})", expected, "See data/lsld_names.yaml.") from error
    if unknown := [name for name in wording if name not in classes]:
        raise InputError(path, f"unknown classes {unknown}", f"classes of {dataset}", "Correct the names.")
    return names


def subsets_of(splits: Iterable[SplitAnnotations]) -> list[tuple[int, ...]]:
    """Return the distinct subsets of the labels of any video in these splits in order of size, the empty one last."""
    label_sets = {tuple(row.nonzero().flatten().tolist()) for s in splits for row in s.video_labels.unique(dim=0)}
    subsets = {subset for classes in label_sets for subset in label_subsets(classes)}
    return [*sorted(subsets, key=lambda subset: (len(subset), subset)), ()]


def texts_of(splits: Sequence[SplitAnnotations], names: Sequence[str], modality: str) -> list[str]:
    """Return the distinct texts for the videos of these splits."""
    texts = [subset_text(subset, names, modality) for subset in subsets_of(splits)]
    if modality == "visual":  # the released code's second step compares segments with the classes' own names
        texts += splits[0].classes
    return list(dict.fromkeys(texts))


@dataclass(frozen=True)
class TextFeatures:
    """Features of texts: K texts, D features."""

    path: Path
    rows: dict[str, int]
    features: Tensor  # (K, D), normalised rows

    def of(self, texts: Sequence[str]) -> Tensor:
        """Return the features of these texts, (len(texts), D). Raises InputError if one is absent."""
        if absent := [text for text in texts if text not in self.rows]:
            raise InputError(self.path, f"no text {absent[0]!r}", "every text that the videos need", WAY_OUT)
        return self.features[[self.rows[text] for text in texts]]


def load_subset_texts(data_dir: Path, feature: str) -> TextFeatures:
    """Read texts and their "clip" or "clap" features. Raises InputError for absent, damaged or mismatched files."""
    folder = text_features_path(data_dir, feature).parent
    path = folder / TEXTS_FILE
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, "no readable file", "LSLD's texts, one per line", WAY_OUT) from error
    features = torch.from_numpy(load_rows(folder / FEATURES_FILE))
    if len(texts) != len(features):
        found = f"{len(features)} rows for {len(texts)} texts in {TEXTS_FILE}"
        raise InputError(folder / FEATURES_FILE, found, "a row for each text", WAY_OUT)
    return TextFeatures(path, {text: row for row, text in enumerate(texts)}, F.normalize(features, dim=-1))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=("LLP",), default="LLP")
    parser.add_argument("--annotations_dir", type=Path, help="folder of the annotation files (default: data/<dataset>)")
    parser.add_argument("--modality", choices=MODALITIES, required=True)
    parser.add_argument("--names_file", type=Path, default=NAMES_FILE, help="class names used in the texts")
    args = parser.parse_args(argv)
    folder = args.annotations_dir or DATASETS[args.dataset].folder
    splits = [load_annotations(args.dataset, folder, split) for split in SPLITS]
    names = load_names(args.names_file, args.dataset, splits[0].classes)
    print("\n".join(texts_of(splits, names, args.modality)))


if __name__ == "__main__":
    run_entry_point(main)
