"""Inference on videos of any length: probabilities averaged over overlapping windows."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models import TemporalTransformer
from utils.audio_visual import AudioVisual

# Lengths of training videos: ten segments in LLP and AVE, about sixty at most in UnAV.
HAN_WINDOW, TRANSFORMER_WINDOW = 10, 60


@dataclass(frozen=True)
class SegmentProbs:
    """Segment probabilities of one video: T segments, C events."""

    probs: AudioVisual[Tensor]  # (T, C)
    around: AudioVisual[Tensor] | None = None  # (T, C) video-level probabilities of the surrounding windows


def window_starts(num_segments: int, window: int, stride: int) -> list[int]:
    """Return the first segment of each window: every `stride`-th one, and that of a window at the video's end."""
    last = max(0, num_segments - window)
    starts = list(range(0, last + 1, stride))
    return starts if starts[-1] == last else [*starts, last]


def average_over_windows(
    score: Callable[[Tensor, Tensor], Tensor],  # (B, W, D_a), (B, W, D_v) -> (B, W, K) for B windows of W segments
    features: AudioVisual[Tensor],  # (T, D)
    window: int,  # W; a shorter video is one window of its own length
    stride: int,  # segments between the starts of neighbouring windows, from 1 to `window`
    batch_size: int = 64,  # windows
) -> Tensor:
    """Return each segment's mean score over the windows that contain it: (T, K)."""
    num_segments, device = len(features.audio), features.audio.device
    starts = torch.tensor(window_starts(num_segments, window, stride), device=device)
    segments = starts.unsqueeze(1) + torch.arange(min(window, num_segments), device=device)  # (windows, W)
    scores = [score(features.audio[some], features.visual[some]) for some in segments.split(batch_size)]
    scores = torch.cat(scores).flatten(0, 1).double()  # (windows · W, K)
    sums = scores.new_zeros(num_segments, scores.shape[-1]).index_add_(0, segments.flatten(), scores)
    counts = torch.bincount(segments.flatten(), minlength=num_segments)  # (T,)
    return (sums / counts.unsqueeze(1)).float()


@torch.inference_mode()
def han_probs(
    model: nn.Module, features: AudioVisual[Tensor], window: int = HAN_WINDOW, stride: int = 1, decoding: str = "video"
) -> SegmentProbs:
    """Compute HAN's probabilities from a video's features, (T, D), averaged over windows.

    `decoding` chooses a window's video-level probability: pooled over both modalities ("video"), over each "modality"
    by itself (MA), or "audio_by_video", the former for audio and the latter for visual (MM-CSE).
    """
    model.eval()

    def score(audio: Tensor, visual: Tensor) -> Tensor:
        output = model(audio, visual)
        audio_probs, visual_probs = torch.sigmoid(output.logits.audio), torch.sigmoid(output.logits.visual)  # (B, W, C)
        video, own = output.video_probs, output.modality_probs  # (B, C) each
        around = {"video": (video, video), "modality": own, "audio_by_video": (video, own.visual)}[decoding]
        around = (x.unsqueeze(1).expand_as(audio_probs) for x in around)
        return torch.cat([audio_probs, visual_probs, *around], dim=-1)

    averages = average_over_windows(score, features, window, stride).clamp(max=1)  # pooling may round up beyond 1
    audio, visual, audio_around, visual_around = averages.chunk(4, dim=-1)
    return SegmentProbs(AudioVisual(audio, visual), AudioVisual(audio_around, visual_around))


@torch.inference_mode()
def transformer_probs(
    model: TemporalTransformer,
    features: AudioVisual[Tensor],  # (T, D)
    texts: AudioVisual[Tensor],  # text features of any events, (C, D)
    thresholds: AudioVisual[Tensor] | None = None,  # on the logits, (C,); None: 0
    window: int = TRANSFORMER_WINDOW,
    stride: int = TRANSFORMER_WINDOW // 2,
) -> SegmentProbs:
    """Compute soft labels (paper Eq. 12 with temperature 1: 0.5 is at the threshold), averaged over windows."""
    model.eval()
    offsets = texts.map(lambda x, threshold: threshold.to(x), thresholds) if thresholds else AudioVisual(0.0, 0.0)

    def score(audio: Tensor, visual: Tensor) -> Tensor:
        logits = model(audio, visual, *texts).logits  # (B, W, C)
        return torch.cat(logits.map(lambda z, offset: torch.sigmoid(z - offset), offsets), dim=-1)

    return SegmentProbs(AudioVisual(*average_over_windows(score, features, window, stride).chunk(2, dim=-1)))
