"""Predictions come back from a run's folder as they were, and nothing else is taken for predictions."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dataloaders.annotations import SplitAnnotations
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.predictions import Predictions, load_predictions, save_predictions

ARRAYS = {name: np.random.default_rng(n).random((2, 5, 3)) < 0.5 for n, name in enumerate(("a", "v", "ta", "tv"))}
EVENTS, TRUTH = AudioVisual(ARRAYS["a"], ARRAYS["v"]), AudioVisual(ARRAYS["ta"], ARRAYS["tv"])
SAVED = Predictions("LLP", "val", ("x", "y", "z"), ("one", "two"), EVENTS, TRUTH)


def assert_same(one: Predictions, other: Predictions) -> None:
    assert replace(one, events=None, truth=None) == replace(other, events=None, truth=None)
    for ours, theirs in ((one.events, other.events), (one.truth, other.truth)):
        assert all(ours.map(np.array_equal, theirs))


def test_predictions_are_read_as_they_were_written(tmp_path: Path):
    assert_same(load_predictions(save_predictions(tmp_path, SAVED).parent, "val"), SAVED)


def test_the_file_calls_events_and_truth_by_their_modality(tmp_path: Path):
    file = np.load(save_predictions(tmp_path, SAVED))
    for name, array in {"audio": "a", "visual": "v", "audio_truth": "ta", "visual_truth": "tv"}.items():
        assert np.array_equal(file[name], ARRAYS[array])


def test_predictions_of_a_split_are_its_events_beside_the_truth():
    lengths, labels = torch.tensor([5, 5]), torch.zeros(2, 3, dtype=torch.bool)
    annotations = SplitAnnotations("LLP", "val", SAVED.classes, SAVED.sample_ids, ("1", "2"), lengths, labels, None)
    assert_same(Predictions.of_split(annotations, EVENTS.map(torch.from_numpy), TRUTH.map(torch.from_numpy)), SAVED)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ("x", "y")},
        {"sample_ids": ("one",)},
        {"events": AudioVisual(ARRAYS["a"], ARRAYS["v"].astype(int))},
        {"events": AudioVisual(ARRAYS["a"], ARRAYS["v"][:, :4])},
        {"truth": AudioVisual(ARRAYS["ta"][:, :4], ARRAYS["tv"])},
        {"events": EVENTS.map(np.ravel), "truth": TRUTH.map(np.ravel)},
    ],
)
def test_arrays_of_another_type_or_shape_are_not_read(tmp_path: Path, change: dict):
    save_predictions(tmp_path, replace(SAVED, **change))
    with pytest.raises(InputError, match="shape"):
        load_predictions(tmp_path, "val")


def npy_instead(path: Path) -> None:
    np.save(path.with_suffix(""), np.zeros(3))
    path.with_suffix(".npy").replace(path)


def with_pickles(path: Path) -> None:
    arrays = dict(np.load(path))
    np.savez(path, **arrays | {"audio": np.array([{"a": 1}], dtype=object)})


def header_of_a_terabyte(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content.replace(b"(2, 5, 3)", b"(99999999999, 5, 3)"))


@pytest.mark.parametrize(
    "damage",
    [
        npy_instead,
        with_pickles,
        header_of_a_terabyte,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"audio", b"other")),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_files_that_hold_no_predictions_are_refused_in_words(tmp_path: Path, damage):
    damage(save_predictions(tmp_path, SAVED))
    with pytest.raises(InputError, match=r"predictions_val\.npz"):
        load_predictions(tmp_path, "val")
