"""Word vectors of class names, from a file in GloVe's text format: a word and its E numbers a line (LEAP)."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baselines.leap.leap_network import LEAP
from dataloaders.batches import SplitBatches
from utils.errors import InputError

WORD_VECTORS_FILE = "glove.txt"  # in the data set's folder, unless another is named
WAY_OUT = "Name GloVe's text file (glove.6B.300d.txt) with --glove; docs/baselines.md says where it comes from."


def make_network(settings: Any, train: SplitBatches) -> LEAP:
    """Return LEAP with random weights, with the word vectors of the split's classes."""
    classes = train.annotations.classes
    path = settings.losses.glove or settings.data.folder(settings.dataset) / WORD_VECTORS_FILE
    vectors = load_class_vectors(path, classes)
    return LEAP(len(classes), train.widths.audio, train.feature_widths.visual, settings.model, vectors)


def class_words(name: str) -> tuple[str, ...]:
    """The words of a class name in lower case: Frying_(food) -> frying, food."""
    return tuple(re.findall(r"[a-z]+", name.lower()))


def load_class_vectors(path: Path, classes: Sequence[str]) -> Tensor:
    """The mean vector of each class name's words, (C, E) float32.

    The released code ships one vector a class; how it made them of several words is not known.

    Raises:
        InputError: when the file is absent, lacks a word, or has a line of another form among the words looked for.
    """
    wanted = {word for name in classes for word in class_words(name)}
    vectors: dict[str, Tensor] = {}
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                word, _, numbers = line.rstrip("\n").partition(" ")
                if word not in wanted or word in vectors:
                    continue
                try:
                    vectors[word] = torch.tensor([float(x) for x in numbers.split()])
                except ValueError as error:
                    where = f"{path}, line {number}"
                    raise InputError(where, f"{word!r} without numbers", "a word and its numbers", WAY_OUT) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, "no readable text file", "word vectors in GloVe's text format", WAY_OUT) from error
    absent = sorted(wanted - vectors.keys())
    if absent:
        raise InputError(path, f"no vector of {', '.join(absent[:5])}", "every word of the class names", WAY_OUT)
    widths = {len(vector) for vector in vectors.values()}
    if len(widths) > 1 or not min(widths):
        raise InputError(path, f"vectors of {sorted(widths)} numbers", "vectors of one width", WAY_OUT)
    return torch.stack([torch.stack([vectors[word] for word in class_words(name)]).mean(dim=0) for name in classes])
