"""Kept probabilities of several runs are averaged, and nothing else is taken for them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.predictions import Predictions, Probabilities, load_ensemble, mean_output, save_predictions
from utils.method.decoding import decode_segments

NOTHING = AudioVisual(*np.zeros((2, 2, 3, 2), dtype=bool))
LENGTHS = np.array([3, 2])


def run_of(seed: int) -> Predictions:
    """Random probabilities of two videos of three and two segments."""
    audio, visual = np.random.default_rng(seed).random((2, 2, 3, 2)).astype(np.float16)
    audio[1, 2] = visual[1, 2] = 0
    of_video = np.random.default_rng(seed + 100).random((3, 2, 2)).astype(np.float16)
    probs = Probabilities(AudioVisual(audio, visual), of_video[0], AudioVisual(*of_video[1:]), LENGTHS)
    return Predictions("LLP", "test", ("x", "y"), ("one", "two"), NOTHING, NOTHING, probs)


def test_the_output_of_several_runs_has_the_mean_of_their_probabilities():
    runs = [run_of(seed) for seed in range(3)]
    output = mean_output(runs)
    for m in range(2):
        of_runs = [run.probs.segments[m].astype(float) for run in runs]
        np.testing.assert_allclose(output.logits[m].sigmoid(), sum(of_runs) / 3, rtol=1e-12)
        assert (output.logits[m][1, 2] == -torch.inf).all()  # padding, as networks mark it
        of_runs = [run.probs.modality[m].astype(float) for run in runs]
        np.testing.assert_allclose(output.modality_probs[m], sum(of_runs) / 3, rtol=1e-12)
    np.testing.assert_allclose(output.video_probs, sum(run.probs.video.astype(float) for run in runs) / 3, rtol=1e-12)


def test_a_mean_of_exactly_the_threshold_does_not_exceed_it_and_reaches_it():
    one, other = run_of(0), run_of(1)
    halves = [np.full((2, 3, 2), value, np.float16) for value in (0.25, 0.75)]
    certain = np.ones((2, 2), np.float16)
    runs = [
        replace(run, probs=replace(run.probs, segments=AudioVisual(half, half), video=certain))
        for run, half in zip((one, other), halves, strict=True)
    ]
    output = mean_output(runs)
    assert not decode_segments(output.logits, output.video_probs).audio.any()
    assert decode_segments(output.logits, output.video_probs, inclusive=True).audio.all()


def test_runs_are_read_with_their_videos_in_the_order_of_the_first(tmp_path: Path):
    one, other = run_of(0), run_of(1)
    for name, run in (("a", one), ("b", other.of_videos([1, 0]))):
        (tmp_path / name).mkdir()
        save_predictions(tmp_path / name, run)
    found = load_ensemble([tmp_path / "a", tmp_path / "b"], "test")
    assert [run.sample_ids for run in found] == [("one", "two")] * 2
    assert np.array_equal(found[1].probs.segments.audio, other.probs.segments.audio)
    assert found[1].probs.lengths.tolist() == [3, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probs": None}, "b: found predictions of test without probabilities"),
        ({"sample_ids": ("one", "three")}, r"b: found 2 videos, 2 in one run only \(three, two\)"),
        ({"classes": ("x", "z")}, "b: found classes"),
        ({"truth": NOTHING.map(np.logical_not)}, "b: found another ground truth"),
    ],
)
def test_runs_that_cannot_be_averaged_are_named(tmp_path: Path, change: dict, message: str):
    for name, run in (("a", run_of(0)), ("b", replace(run_of(1), **change))):
        (tmp_path / name).mkdir()
        save_predictions(tmp_path / name, run)
    with pytest.raises(InputError, match=message):
        load_ensemble([tmp_path / "a", tmp_path / "b"], "test")
