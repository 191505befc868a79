"""What a page shows: sources of events over the seconds of one video."""

from dataclasses import dataclass

import numpy as np

from utils.audio_visual import AudioVisual
from utils.method.spans import maximal_spans


@dataclass(frozen=True)
class Track:
    """What one source finds in a video: T segments of one second, C events.

    A source is a model, the truth or pseudo-labels; the latter two have probabilities 0 and 1. Where a model asks for
    the video around a segment as well, that probability is beside the segment's.
    """

    name: str
    probs: AudioVisual[np.ndarray]  # (T, C) float32, that the event is audible and that it is visible in the segment
    around: AudioVisual[np.ndarray] | None = None  # (T, C) float32, that the video around has it; None: not asked for

    def decoded(self, threshold: float) -> AudioVisual[np.ndarray]:
        """Audible and visible events, (T, C) bool each, where all that is asked for exceeds the threshold."""
        audible, visible = self.probs.audio > threshold, self.probs.visual > threshold
        if self.around is None:
            return AudioVisual(audible, visible)
        return AudioVisual(audible & (self.around.audio > threshold), visible & (self.around.visual > threshold))


@dataclass(frozen=True)
class ParsedVideo:
    """A video's events as one or several sources have them."""

    name: str
    duration: float  # seconds; the last segment may be cut short
    events: tuple[str, ...]  # (C,) names
    tracks: tuple[Track, ...]  # the first is the one that exports take
    threshold: float = 0.5
    notes: tuple[str, ...] = ()  # what a reader has to know: the model, random weights, simulated features

    @property
    def num_segments(self) -> int:
        return self.tracks[0].probs.audio.shape[0]


KINDS = ("audible", "visible", "audio-visual")


@dataclass(frozen=True)
class Span:
    """A stretch of consecutive segments in which an event is audible, visible, or both."""

    event: str
    kind: str  # of KINDS
    onset: float  # seconds
    offset: float  # seconds
    probability: float  # mean over the segments; of "audio-visual" the smaller of both modalities' in each segment


def spans(video: ParsedVideo) -> list[Span]:
    """The spans of the first track's events, by onset, then in the order of the events and of the kinds."""
    track = video.tracks[0]
    audible, visible = track.decoded(video.threshold)
    streams = {
        "audible": (audible, track.probs.audio),
        "visible": (visible, track.probs.visual),
        "audio-visual": (audible & visible, np.minimum(*track.probs)),
    }
    found = []
    for c, event in enumerate(video.events):
        for kind, (active, probs) in streams.items():
            for first, end in zip(*maximal_spans(active[:, c]), strict=True):
                onset, offset = float(first), min(float(end), video.duration)
                found.append(Span(event, kind, onset, offset, float(probs[first:end, c].mean())))
    return sorted(found, key=lambda span: span.onset)
