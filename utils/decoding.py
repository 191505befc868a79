"""From probabilities to predicted events."""

import torch
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
