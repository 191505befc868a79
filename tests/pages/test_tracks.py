"""Sources of events and their spans."""

import numpy as np
import pytest

from tests.pages.tiny_parse import tiny_parse
from utils.audio_visual import AudioVisual
from video.pages.tracks import ParsedVideo, Track, spans


def test_an_event_needs_the_segment_and_the_video_around_it():
    audible, visible = tiny_parse().tracks[0].decoded(0.5)
    assert audible[:, 1].tolist() == [True, True, True, False, False, False]
    assert visible[:, 0].tolist() == [False, True, True, False, False, False]


def test_a_probability_at_the_threshold_is_no_event():
    track = Track("model", AudioVisual(np.full((1, 1), 0.5, np.float32), np.full((1, 1), 0.5001, np.float32)))
    audible, visible = track.decoded(0.5)
    assert not audible.any() and visible.all()


def test_spans_say_when_and_how_probable_and_end_with_the_video():
    found = [(s.event, s.kind, s.onset, s.offset, round(s.probability, 3)) for s in spans(tiny_parse(("a", "b", "c")))]
    assert found == [
        ("a", "audible", 0, 2, 0.8),
        ("b", "audible", 0, 3, 0.95),
        ("a", "visible", 1, 3, 0.8),
        ("a", "audio-visual", 1, 2, 0.7),
        ("a", "audible", 4, 5.5, 0.7),
        ("c", "visible", 5, 5.5, 0.75),
    ]


def test_truth_is_what_it_is_at_any_threshold():
    rng = np.random.default_rng(0)
    audio, visual = rng.random((2, 7, 4)) < 0.4
    truth = Track.of_events("Truth", AudioVisual(audio, visual))
    assert truth.probs.audio.dtype == np.float32
    for threshold in (0.01, 0.5, 0.99):
        decoded = truth.decoded(threshold)
        assert np.array_equal(decoded[0], audio) and np.array_equal(decoded[1], visual)


@pytest.mark.parametrize(
    "wrong",
    [
        np.array([[0, 0], [0, 1.5], [0, 0]]),
        np.array([[0, 0], [0, -0.5], [0, 0]]),
        np.array([[0, 0], [0, np.nan], [0, 0]]),
        np.zeros((3, 1)),
        np.zeros(3),
    ],
)
def test_what_is_no_probability_of_the_same_segments_is_refused(wrong: np.ndarray):
    right = np.zeros((3, 2))
    with pytest.raises(ValueError):
        Track("model", AudioVisual(right, wrong))
    with pytest.raises(ValueError):
        Track("model", AudioVisual(right, right), AudioVisual(right, wrong))


def test_probabilities_without_events_are_refused():
    with pytest.raises(ValueError):
        Track("model", AudioVisual(np.zeros(3), np.zeros(3)))


@pytest.mark.parametrize(("duration", "events"), [(4.0, ("a", "b")), (3.0, ("a", "b", "c"))])
def test_a_track_of_other_seconds_or_events_is_refused(duration: float, events: tuple[str, ...]):
    track = Track("model", AudioVisual(np.zeros((3, 2)), np.zeros((3, 2))))
    with pytest.raises(ValueError, match="shape"):
        ParsedVideo("clip", duration, events, (track,))


def test_a_video_without_a_track_is_refused():
    with pytest.raises(ValueError, match="no track"):
        ParsedVideo("clip", 3.0, ("a",), ())
