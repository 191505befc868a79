"""From probabilities to predicted events."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from utils.audio_visual import AudioVisual
from utils.settings import settings_group


@settings_group
class DecodingSettings:
    """How probabilities become events."""

    decoding: Literal["video", "modality", "audio_by_video"] = "video"
    """LLP: gate by the probability of the video (UWAV), of the modality (MA), or of the video for audio (MM-CSE)"""
    segment_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5  # LLP: probability that a segment needs
    gate_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5  # LLP: probability that the video, or its modality, needs
    inclusive: bool = False  # LLP, --decoding video: reaching the thresholds is enough (HAN, VALOR, LEAP)
    event_from: Literal["video", "segments"] = "video"  # AVE: highest video probability, or mean over segments
    active_in: Literal["both", "either"] = "both"  # AVE: modalities that must show the event


def decode_segments(
    logits: AudioVisual[Tensor],  # (B, T, C)
    video_probs: Tensor,  # (B, C)
    threshold: float = 0.5,
    gate: float = 0.5,
    inclusive: bool = False,  # reaching threshold and gate is enough
) -> AudioVisual[Tensor]:
    """Return segments' audible and visible events for LLP: they exceed the threshold, and their video the gate."""
    above = torch.ge if inclusive else torch.gt
    in_video = above(video_probs, gate).unsqueeze(1)  # (B, 1, C)
    return logits.map(lambda z: above(torch.sigmoid(z), threshold) & in_video)


def decode_segments_by_modality(
    logits: AudioVisual[Tensor],  # (B, T, C)
    modality_probs: AudioVisual[Tensor],  # (B, C), pooled over time
    threshold: float = 0.5,
    gates: AudioVisual[Tensor | float] | None = None,  # (C,), or one for all classes; None: the threshold
) -> AudioVisual[Tensor]:
    """Return each segment's audible and visible events as in MA: segment and modality reach threshold and gate."""
    gates = AudioVisual(threshold, threshold) if gates is None else gates
    return logits.map(lambda z, *own: gated_events(torch.sigmoid(z), own[0], threshold, own[1]), modality_probs, gates)


def gated_events(
    segment_probs: Tensor, modality_probs: Tensor, segment_threshold: float, gate: Tensor | float
) -> Tensor:
    """Return one modality's events, where segment (N, T, C) and modality (N, C) reach threshold and gate (C,) or ()."""
    return (segment_probs >= segment_threshold) & (modality_probs >= gate).unsqueeze(1)


def decode_single_event(
    logits: AudioVisual[Tensor],  # (B, T, C)
    video_probs: Tensor,  # (B, C)
    threshold: float = 0.5,
    event_from: str = "video",
    active_in: str = "both",
) -> Tensor:
    """Return the one event of each video where it is active, for AVE: (B, T, C) bool; no class means background.

    The event is the class with the highest "video" probability, or with the highest mean probability over both
    modalities' "segments". It is active where the segment's probability exceeds the threshold in "both" or "either" of
    the modalities. The paper leaves this open; docs/ave.md compares the alternatives.
    """
    audio, visual = logits.map(torch.sigmoid)
    event_scores = {"video": video_probs, "segments": ((audio + visual) / 2).mean(dim=1)}[event_from]  # (B, C)
    event = F.one_hot(event_scores.argmax(dim=-1), event_scores.shape[-1]).bool()  # (B, C)
    audible, visible = audio > threshold, visual > threshold
    active = {"both": audible & visible, "either": audible | visible}[active_in]
    return active & event.unsqueeze(1)
