"""Tiny LLP, UnAV and AVE folders in the real layout: random features, narrow ones, and hand-made annotations."""

import json
from pathlib import Path

import numpy as np

from baselines.leap.leap_network import WORD_VECTORS_FILE, class_words
from baselines.lsld.subset_texts import FEATURES_FILE, NAMES_FILE, TEXTS_FILE, load_names, texts_of
from dataloaders.ave import AVE_CLASSES
from dataloaders.datasets import load_annotations
from dataloaders.features import FEATURES, feature_path, text_features_path
from dataloaders.llp import LLP_CLASSES
from dataloaders.unav import UNAV_CLASSES

WIDTHS = {"vggish": 6, "res152": 10, "r2plus1d_18": 8, "clip": 12, "clap": 9}


def write_llp(folder: Path, num_train: int = 14, num_eval: int = 6, classes: int = 4, seed: int = 0) -> Path:
    """Videos with one or two of the first few classes; in val and test they are heard and seen in part of the video."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for split, file, number in (
        ("train", "AVVP_train.csv", num_train),
        ("val", "AVVP_val_pd.csv", num_eval),
        ("test", "AVVP_test_pd.csv", num_eval),
    ):
        lines = ["filename\tevent_labels"]
        for n in range(number):
            names = [LLP_CLASSES[n % classes], *([LLP_CLASSES[(n + 1) % classes]] if n % 3 == 0 else [])]
            lines.append(f"{split[:2]}{n:09d}_0_10\t{','.join(names)}")
        (folder / file).write_text("\n".join(lines) + "\n")
    for modality in ("audio", "visual"):
        lines = ["filename\tonset\toffset\tevent_labels"]
        for split in ("va", "te"):
            for n in range(num_eval):
                onset = int(rng.integers(0, 6))
                lines.append(
                    f"{split}{n:09d}_0_10\t{onset}\t{onset + int(rng.integers(1, 5))}\t{LLP_CLASSES[n % classes]}"
                )
        (folder / f"AVVP_eval_{modality}.csv").write_text("\n".join(lines) + "\n")
    write_features(folder, "LLP", tuple(WIDTHS), rng)
    write_texts(folder, rng)
    return folder


def write_unav(folder: Path, num_train: int = 10, num_eval: int = 5, seed: int = 1) -> Path:
    """Videos of 3 to 9 seconds with one event each."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    database = {}
    for subset, number in (("train", num_train), ("validation", num_eval), ("test", num_eval)):
        for n in range(number):
            duration = float(rng.uniform(2.5, 9))
            label = n % 5
            event = {"segment": [0.5, duration / 2 + 0.5], "label": UNAV_CLASSES[label], "label_id": label}
            database[f"{subset[:3]}{n:08d}"] = {"duration": duration, "annotations": [event], "subset": subset}
    (folder / "unav100_annotations.json").write_text(json.dumps({"version": "1", "database": database}))
    write_features(folder, "UnAV", ("clip", "clap"), rng)
    return folder


def write_ave(folder: Path, num_train: int = 12, num_eval: int = 6, classes: int = 3, seed: int = 2) -> Path:
    """Videos of one event each, in part of the video; the first one is background throughout."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    every_line = ["Category&VideoID&Quality&StartTime&EndTime"]
    for split, number in (("train", num_train), ("val", num_eval), ("test", num_eval)):
        lines = []
        for n in range(number):
            start = int(rng.integers(0, 6))
            end = start + int(rng.integers(2, 5)) if n else start
            lines.append(f"{AVE_CLASSES[n % classes]}&{split[:2]}{n:09d}&good&{start}&{end}")
        (folder / f"{split}Set.txt").write_text("\n".join(lines) + "\n")
        every_line += lines
    (folder / "Annotations.txt").write_text("\n".join(every_line) + "\n")
    write_features(folder, "AVE", ("clip", "clap", "r2plus1d_18"), rng)
    return folder


def write_features(folder: Path, dataset: str, features: tuple[str, ...], rng: np.random.Generator) -> None:
    for split in ("train", "val", "test"):
        annotations = load_annotations(dataset, folder, split)
        for feature in features:
            for feature_id, length in zip(annotations.feature_ids, annotations.lengths.tolist(), strict=True):
                rows = length * FEATURES[feature].rows_per_second
                write_npy(feature_path(folder, feature, feature_id), rng.standard_normal((rows, WIDTHS[feature])))
    for feature in ("clip", "clap"):
        write_npy(text_features_path(folder, feature), rng.standard_normal((len(annotations.classes), WIDTHS[feature])))


def write_texts(folder: Path, rng: np.random.Generator) -> None:
    """LSLD's texts and LEAP's word vectors of LLP."""
    splits = [load_annotations("LLP", folder, split) for split in ("train", "val", "test")]
    names = load_names(NAMES_FILE, "LLP", LLP_CLASSES)
    for feature, modality in (("clap", "audio"), ("clip", "visual")):
        texts = texts_of(splits, names, modality)
        of_feature = text_features_path(folder, feature).parent
        (of_feature / TEXTS_FILE).write_text("\n".join(texts) + "\n")
        write_npy(of_feature / FEATURES_FILE, rng.standard_normal((len(texts), WIDTHS[feature])))
    words = sorted({word for name in LLP_CLASSES for word in class_words(name)})
    vectors = rng.standard_normal((len(words), 5)).astype(str)
    lines = [" ".join([word, *vector]) for word, vector in zip(words, vectors, strict=True)]
    (folder / WORD_VECTORS_FILE).write_text("\n".join(lines) + "\n")


def write_npy(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values.astype(np.float32))
