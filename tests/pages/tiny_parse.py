"""A parsed video small enough to count by hand."""

import numpy as np

from utils.audio_visual import AudioVisual
from video.pages.parsed_video import ParsedVideo, Track

HOSTILE = '</script><img src=x onerror="window.injected=1">&amp;\tline'


def tiny_parse(events: tuple[str, ...] = ("Dog", "Acoustic_guitar", HOSTILE), duration: float = 5.5) -> ParsedVideo:
    """Three events over six segments, of which the last is half a second long.

    The dog is audible in 0-2 and 4-6, visible in 1-3; the guitar is audible throughout, but not in the sound around
    3-6; the third is visible at the end, where the sound around has none.
    """
    audio, visual = np.full((6, 3), 0.1, np.float32), np.full((6, 3), 0.2, np.float32)
    around = AudioVisual(np.ones((6, 3), np.float32), np.full((6, 3), 0.9, np.float32))
    audio[[0, 1, 4, 5], 0] = 0.9, 0.7, 0.6, 0.8
    visual[1:3, 0] = 0.8
    audio[:, 1], around.audio[3:, 1] = 0.95, 0.3
    visual[5, 2], around.audio[5, 2] = 0.75, 0.4
    track = Track("HAN", AudioVisual(audio, visual), around)
    return ParsedVideo("clip", duration, events, (track,), notes=("a note",))
