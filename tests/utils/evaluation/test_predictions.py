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
from utils.evaluation.inference import SplitOutput
from utils.evaluation.predictions import Predictions, Probabilities, load_predictions, save_predictions

ARRAYS = {name: np.random.default_rng(n).random((2, 5, 3)) < 0.5 for n, name in enumerate(("a", "v", "ta", "tv"))}
EVENTS, TRUTH = AudioVisual(ARRAYS["a"], ARRAYS["v"]), AudioVisual(ARRAYS["ta"], ARRAYS["tv"])
LOGITS = AudioVisual(*torch.randn(2, 2, 5, 3, generator=torch.Generator().manual_seed(0)))
LOGITS.audio[1, 3:] = LOGITS.visual[1, 3:] = -torch.inf  # the second video has three segments
OUTPUT = SplitOutput(LOGITS, torch.rand(2, 3), AudioVisual(*torch.rand(2, 2, 3)))
LENGTHS = torch.tensor([5, 3])
EARLIER = Predictions("LLP", "val", ("x", "y", "z"), ("one", "two"), EVENTS, TRUTH)  # as they were once
SAVED = replace(EARLIER, probs=Probabilities.of_output(OUTPUT, LENGTHS))


def arrays_of(value: object) -> list[np.ndarray]:
    """All arrays of nested pairs and groups of fields, in order."""
    if isinstance(value, np.ndarray):
        return [value]
    fields = vars(value).values() if hasattr(value, "__dict__") else value
    return [array for field in fields if not isinstance(field, (str, type(None))) for array in arrays_of(field)]


def assert_same(one: Predictions, other: Predictions) -> None:
    assert replace(one, events=None, truth=None, probs=None) == replace(other, events=None, truth=None, probs=None)
    ours, theirs = (
        [*arrays_of(run.events), *arrays_of(run.truth), *arrays_of(run.probs or ())] for run in (one, other)
    )
    assert [array.dtype for array in ours] == [array.dtype for array in theirs]
    assert all(map(np.array_equal, ours, theirs)) and len(ours) == len(theirs)


@pytest.mark.parametrize("saved", [SAVED, EARLIER])
def test_predictions_are_read_as_they_were_written(tmp_path: Path, saved: Predictions):
    assert_same(load_predictions(save_predictions(tmp_path, saved).parent, "val"), saved)


def test_probabilities_are_kept_in_half_precision_and_are_0_behind_the_end_of_a_video():
    probs = SAVED.probs
    assert probs.segments.audio.dtype == probs.video.dtype == probs.modality.visual.dtype == np.float16
    for kept, logits in zip(probs.segments, LOGITS, strict=True):
        np.testing.assert_allclose(kept, 1 / (1 + np.exp(-logits.numpy().astype(float))), atol=1 / 4096)
        assert (kept[1, 3:] == 0).all() and (kept[0] > 0).all()
    np.testing.assert_allclose(probs.video, OUTPUT.video_probs, atol=1 / 4096)
    np.testing.assert_allclose(probs.modality, torch.stack([*OUTPUT.modality_probs]), atol=1 / 4096)
    assert probs.lengths.tolist() == [5, 3]


@pytest.mark.parametrize("saved", [SAVED, EARLIER])
def test_videos_are_taken_in_any_order_with_all_that_is_known_of_them(saved: Predictions):
    turned = saved.of_videos([1, 0])
    assert turned.sample_ids == ("two", "one") and np.array_equal(turned.events.audio, EVENTS.audio[::-1])
    arrays = arrays_of(saved.probs or ())
    assert all(map(np.array_equal, arrays_of(turned.probs or ()), [array[::-1] for array in arrays]))
    assert_same(turned.of_videos([1, 0]), saved)


def test_the_file_calls_events_and_truth_by_their_modality(tmp_path: Path):
    file = np.load(save_predictions(tmp_path, SAVED))
    for name, array in {"audio": "a", "visual": "v", "audio_truth": "ta", "visual_truth": "tv"}.items():
        assert np.array_equal(file[name], ARRAYS[array])


def test_predictions_of_a_split_are_its_events_beside_the_truth():
    labels = torch.zeros(2, 3, dtype=torch.bool)
    annotations = SplitAnnotations("LLP", "val", SAVED.classes, SAVED.sample_ids, ("1", "2"), LENGTHS, labels, None)
    events = EVENTS.map(torch.from_numpy), TRUTH.map(torch.from_numpy)
    assert_same(Predictions.of_split(annotations, OUTPUT, *events), SAVED)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ("x", "y")},
        {"sample_ids": ("one",)},
        {"events": AudioVisual(ARRAYS["a"], ARRAYS["v"].astype(int))},
        {"events": AudioVisual(ARRAYS["a"], ARRAYS["v"][:, :4])},
        {"truth": AudioVisual(ARRAYS["ta"][:, :4], ARRAYS["tv"])},
        {"events": EVENTS.map(np.ravel), "truth": TRUTH.map(np.ravel)},
        {"probs": replace(SAVED.probs, lengths=SAVED.probs.lengths[:1])},
        {"probs": replace(SAVED.probs, video=SAVED.probs.video.astype(np.float32))},
        {"probs": replace(SAVED.probs, segments=SAVED.probs.modality)},
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
