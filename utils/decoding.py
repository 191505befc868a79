"""From probabilities to predicted events."""

import torch
import torch.nn.functional as F
from torch import Tensor


def decode_segments(
    audio_logits: Tensor, visual_logits: Tensor, video_probs: Tensor, threshold: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Audible and visible events of each segment, for LLP.

    A class is predicted in a segment when both the segment's and the video's probability exceed the threshold.

    Args:
        audio_logits, visual_logits: (B, T, C).
        video_probs: (B, C).

    Returns:
        two (B, T, C) bool tensors, audio and visual
    """
    in_video = (video_probs > threshold).unsqueeze(1)  # (B, 1, C)
    return (torch.sigmoid(audio_logits) > threshold) & in_video, (torch.sigmoid(visual_logits) > threshold) & in_video


def decode_segments_by_modality(
    audio_logits: Tensor, visual_logits: Tensor, audio_probs: Tensor, visual_probs: Tensor, threshold: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Audible and visible events of each segment as HAN and MA decode them, for LLP.

    A class is predicted in a segment when both the segment's and that modality's time-pooled probability reach the
    threshold.

    Args:
        audio_logits, visual_logits: (B, T, C).
        audio_probs, visual_probs: (B, C).

    Returns:
        two (B, T, C) bool tensors, audio and visual
    """
    audio, visual = (
        (torch.sigmoid(logits) >= threshold) & (pooled >= threshold).unsqueeze(1)
        for logits, pooled in ((audio_logits, audio_probs), (visual_logits, visual_probs))
    )
    return audio, visual


def decode_single_event(
    audio_logits: Tensor,
    visual_logits: Tensor,
    video_probs: Tensor,
    threshold: float = 0.5,
    event_from: str = "video",
    active_in: str = "both",
) -> Tensor:
    """The one event of each video where it is active, background elsewhere, for AVE.

    The paper leaves this open; docs/ave.md compares the alternatives.

    Args:
        audio_logits, visual_logits: (B, T, C).
        video_probs: (B, C).
        event_from: the event is the class with the highest "video" probability, or with the highest mean probability
            over both modalities' "segments".
        active_in: modalities in which the segment's probability has to exceed the threshold, "both" or "either".

    Returns:
        (B, T, C) bool, at most one class in a segment; none means background, which is index C where one is needed
    """
    audio, visual = torch.sigmoid(audio_logits), torch.sigmoid(visual_logits)
    event_scores = {"video": video_probs, "segments": ((audio + visual) / 2).mean(dim=1)}[event_from]  # (B, C)
    event = F.one_hot(event_scores.argmax(dim=-1), event_scores.shape[-1]).bool()  # (B, C)
    audible, visible = audio > threshold, visual > threshold
    active = {"both": audible & visible, "either": audible | visible}[active_in]
    return active & event.unsqueeze(1)
