"""Files mutated at random: read or refused with an InputError, nothing executed, nothing written elsewhere."""

import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from dataloaders import llp, unav
from dataloaders.annotations import SplitAnnotations
from dataloaders.datasets import load_annotations
from dataloaders.features import read_segment_features
from dataloaders.pseudo_labels import load_pseudo_labels
from tests.tiny_data import write_llp, write_unav
from utils.errors import InputError
from utils.training.checkpoints import load_checkpoint

MUTATIONS = 200
TOKENS = (
    b"\x00",
    b"\xff" * 8,
    b"../",
    b"\n",
    b"\t",
    b'"',
    b"{",
    b"]" * 50,
    b"-1",
    b"1e999",
    b"nan",
    b"9" * 30,
    b"\x80",
)
EXECUTING = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pickle.find_class")

watched: list[str] | None = None  # what the audit hook has seen; None: it is off


def audit(event: str, arguments: tuple) -> None:
    if watched is None:
        return
    if event in EXECUTING:
        watched.append(f"{event} {arguments}")
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        watched.append(f"open for writing: {arguments[0]}")


sys.addaudithook(audit)  # it cannot be taken off again, so it is switched


@pytest.fixture
def events() -> Iterator[list[str]]:
    global watched
    watched = []
    yield watched
    watched = None


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: bits, bytes, tokens, cuts and repetitions, half of them in the first 200 bytes."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(len(data), 200) if rng.random() < 0.5 else len(data)) if data else 0
        length = rng.randint(1, 40)
        data = rng.choice(
            (
                data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :],
                data[:at] + rng.choice(TOKENS) + data[at + rng.randint(0, 3) :],
                data[:at] + data[at + length :],
                data[:at] + data[at : at + length] * 2 + data[at + length :],
                data[:at],
            )
        )
    return data


def fuzz(path: Path, read: Callable[[], object], events: list[str]) -> None:
    """Mutations of a readable file are read or refused, and some of them are refused."""
    read()
    del events[:]
    original, rng, refused = path.read_bytes(), random.Random(path.suffix), 0
    before = sorted(path.parents[1].rglob("*"))
    for _ in range(MUTATIONS):
        mutated = mutate(original, rng)
        path.write_bytes(mutated)
        del events[:]  # our own writing
        try:
            read()
        except InputError as error:
            assert path.name in str(error)
            refused += 1
        assert not events, events
    assert sorted(path.parents[1].rglob("*")) == before
    assert refused > MUTATIONS // 10


@pytest.fixture
def annotations(tmp_path) -> SplitAnnotations:
    return load_annotations("LLP", write_llp(tmp_path / "data"), "train")


def test_mutated_npy_files_are_read_or_refused(tmp_path, events):
    path = tmp_path / "feats" / "x.npy"
    path.parent.mkdir()
    np.save(path, np.ones((10, 12), dtype=np.float32))
    fuzz(path, lambda: read_segment_features(path, "clip", 10, pooled=False), events)


def test_mutated_safetensors_files_are_read_or_refused(annotations, tmp_path, events):
    rows = int(annotations.lengths.sum())
    tensors = {"lengths": annotations.lengths}
    for modality in ("audio", "visual"):
        tensors[f"{modality}_logits"] = torch.ones(rows, 25)
        tensors[f"{modality}_labels"] = torch.ones(rows, 25, dtype=torch.bool)
        tensors[f"{modality}_thresholds"] = torch.ones(25, dtype=torch.float64)
    names = {"classes": "\n".join(annotations.classes), "sample_ids": "\n".join(annotations.sample_ids)}
    path = tmp_path / "pseudo" / "train.safetensors"
    path.parent.mkdir()
    path.write_bytes(save(tensors, {"dataset": "LLP", **names}))
    fuzz(path, lambda: load_pseudo_labels(path.parent, annotations), events)


def test_mutated_checkpoints_are_read_or_refused(tmp_path, events):
    path = tmp_path / "checkpoints" / "last.pt"
    path.parent.mkdir()
    torch.save({"weight": torch.ones(3, 2), "epoch": 3}, path)
    fuzz(path, lambda: load_checkpoint(path), events)


def test_mutated_csv_files_are_read_or_refused(annotations, tmp_path, events):
    path = tmp_path / "data" / llp.FILES["train"]
    fuzz(path, lambda: load_annotations("LLP", path.parent, "train"), events)


def test_mutated_json_files_are_read_or_refused(tmp_path, events):
    path = write_unav(tmp_path / "data") / unav.FILE
    assert json.loads(path.read_text())
    fuzz(path, lambda: load_annotations("UnAV", path.parent, "train"), events)
