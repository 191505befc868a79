"""Sources of events and their spans."""

import numpy as np

from tests.pages.tiny_parse import tiny_parse
from utils.audio_visual import AudioVisual
from video.pages.parsed_video import Track, spans


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
