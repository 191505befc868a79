"""What a page shows: sources of events over the seconds of one video."""

from dataclasses import dataclass

import numpy as np
import torch

from utils.audio_visual import AudioVisual
from utils.method.spans import maximal_spans


@dataclass(frozen=True)
class Track:
    """What one source finds in a video: T segments of one second, C events.

    A source is a model, the truth or pseudo-labels; the latter two have probabilities 0 and 1. Where a model asks for
    the video around a segment as well, that probability is beside the segment's.

    Raises:
        ValueError: the arrays are not (T, C) of one shape, or hold something other than probabilities.
    """

    name: str
    probs: AudioVisual[np.ndarray]  # (T, C) float32, that the event is audible and that it is visible in the segment
    around: AudioVisual[np.ndarray] | None = None  # (T, C) float32, that the video around has it; None: not asked for

    def __post_init__(self) -> None:
        for array in (*self.probs, *(self.around or ())):
            if array.ndim != 2 or array.shape != self.probs.audio.shape:
                raise ValueError(f"probabilities of shape {array.shape} beside {self.probs.audio.shape}")
            if not ((array >= 0) & (array <= 1)).all():
                raise ValueError(f"track {self.name!r} holds values outside [0, 1]")

    @staticmethod
    def of_events(name: str, events: AudioVisual[np.ndarray]) -> "Track":
        """A source without probabilities: audible and visible events, (T, C) bool each."""
        return Track(name, events.map(lambda x: x.astype(np.float32)))

    def decoded(self, threshold: float) -> AudioVisual[np.ndarray]:
        """Audible and visible events, (T, C) bool each, where all that is asked for exceeds the threshold."""
        asked = self.probs if self.around is None else self.probs.map(np.minimum, self.around)
        return asked.map(lambda p: p > threshold)


@dataclass(frozen=True)
class ParsedVideo:
    """A video's events as one or several sources have them."""

    name: str
    duration: float  # seconds; the last segment may be cut short
    events: tuple[str, ...]  # (C,) names
    tracks: tuple[Track, ...]  # the first is the one that exports take
    threshold: float = 0.5
    notes: tuple[str, ...] = ()  # what a reader has to know: the model, random weights, simulated features

    def __post_init__(self) -> None:
        if not self.tracks:
            raise ValueError("no track")
        expected = (int(np.ceil(self.duration)), len(self.events))
        for track in self.tracks:
            if track.probs.audio.shape != expected:
                raise ValueError(f"track {track.name!r} of shape {track.probs.audio.shape}; expected {expected}")

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
    found = [
        Span(event, kind, float(first), min(float(end), video.duration), float(probs[first:end, c].mean()))
        for c, event in enumerate(video.events)
        for kind, (active, probs) in streams.items()
        for first, end in torch.stack(maximal_spans(active[:, c]), dim=1).tolist()
    ]
    return sorted(found, key=lambda span: span.onset)
