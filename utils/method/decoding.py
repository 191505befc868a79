"""Decoding of probabilities into events."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from utils.audio_visual import AudioVisual
from utils.settings import settings_group


@settings_group
class DecodingSettings:
    """Settings of decoding."""

    decoding: Literal["video", "modality", "audio_by_video"] = "video"
    """LLP: gate by the video's probability (UWAV), the modality's own (MA), or the video's for audio only (MM-CSE)"""
    segment_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5  # LLP: threshold on segment probabilities
    gate_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5  # LLP: threshold on the video's or modality's probability
    inclusive: bool = False  # LLP, --decoding video: a probability equal to the threshold suffices (HAN, VALOR, LEAP)
    event_from: Literal["video", "segments"] = "video"  # AVE: class of the highest video or mean segment probability
    active_in: Literal["both", "either"] = "both"  # AVE: modalities in which the event must be active


def decode_segments(
    logits: AudioVisual[Tensor],  # (B, T, C)
    video_probs: Tensor,  # (B, C)
    threshold: float = 0.5,
    gate: float = 0.5,
    inclusive: bool = False,  # probabilities equal to threshold and gate suffice
) -> AudioVisual[Tensor]:
    """Return audible and visible events for LLP, where the segment exceeds the threshold and the video the gate."""
    above = torch.ge if inclusive else torch.gt
    in_video = above(video_probs, gate).unsqueeze(1)  # (B, 1, C)
    return logits.map(lambda z: above(torch.sigmoid(z), threshold) & in_video)


def decode_segments_by_modality(
    logits: AudioVisual[Tensor],  # (B, T, C)
    modality_probs: AudioVisual[Tensor],  # (B, C), pooled over time
    threshold: float = 0.5,
    gates: AudioVisual[Tensor | float] | None = None,  # (C,), or one for all classes; None: the threshold
) -> AudioVisual[Tensor]:
    """Return audible and visible events as in MA, where segment and modality reach threshold and gate."""
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
    """Return the segments in which each video's one event is active, for AVE: (B, T, C) bool; no class: background.

    The event is the class with the highest "video" probability, or the highest mean probability over both modalities'
    "segments". It is active where its probability exceeds the threshold in "both" or "either" of the modalities. The
    paper leaves this open; docs/ave.md compares the alternatives.
    """
    audio, visual = logits.map(torch.sigmoid)
    event_scores = {"video": video_probs, "segments": ((audio + visual) / 2).mean(dim=1)}[event_from]  # (B, C)
    event = F.one_hot(event_scores.argmax(dim=-1), event_scores.shape[-1]).bool()  # (B, C)
    audible, visible = audio > threshold, visual > threshold
    active = {"both": audible & visible, "either": audible | visible}[active_in]
    return active & event.unsqueeze(1)
