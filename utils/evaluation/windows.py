"""Videos of any length by networks that were trained on short ones: overlapping windows, averaged."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models import HAN, TemporalTransformer
from utils.audio_visual import AudioVisual

# Of the networks' training videos: LLP's and AVE's have ten segments, UnAV's up to sixty and a few more.
HAN_WINDOW, TRANSFORMER_WINDOW = 10, 60


@dataclass(frozen=True)
class SegmentProbs:
    """Probabilities of one video's segments: T segments, C events."""

    probs: AudioVisual[Tensor]  # (T, C)
    around: AudioVisual[Tensor] | None = None  # (T, C) of the windows around: what `decode_segments` asks of the video


def window_starts(num_segments: int, window: int, stride: int) -> list[int]:
    """Return the first segments of the windows: every `stride`-th, and one more that ends with the video if none does.

    A video that is shorter than a window is one window.
    """
    last = max(0, num_segments - window)
    starts = list(range(0, last + 1, stride))
    return starts if starts[-1] == last else [*starts, last]


def average_over_windows(
    score: Callable[[Tensor, Tensor], Tensor],
    features: AudioVisual[Tensor],
    window: int,
    stride: int,
    batch_size: int = 64,
) -> Tensor:
    """Return each segment's mean over the windows that it lies in: (T, D) of each modality -> (T, K).

    Args:
        score: of B windows of W segments, (B, W, D_a) and (B, W, D_v) -> (B, W, K).
        window: W; a shorter video is one window of its own length.
        stride: segments between neighbouring windows, from 1 to `window`.
        batch_size: windows that are computed at a time.
    """
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
    model: HAN,
    features: AudioVisual[Tensor],
    window: int = HAN_WINDOW,
    stride: int = 1,
    decoding: str = "video",
) -> SegmentProbs:
    """Compute probabilities of HAN, averaged over windows; a video of one window gets HAN's own probabilities.

    Args:
        features: (T, D) of each modality, the chosen ones concatenated.
        decoding: what stands for the video around a segment: the window's MMIL-pooled "video" probability, or each
            "modality"'s own (MA), or "audio_by_video", one of each (MM-CSE); averaged over windows as the segment's is.
    """
    model.eval()

    def score(audio: Tensor, visual: Tensor) -> Tensor:
        output = model(audio, visual)
        audio_probs, visual_probs = torch.sigmoid(output.logits.audio), torch.sigmoid(output.logits.visual)  # (B, W, C)
        audio_around, visual_around = output.modality_probs  # (B, C)
        if decoding != "modality":
            audio_around = output.video_probs
        if decoding == "video":
            visual_around = output.video_probs
        around = [audio_around.unsqueeze(1).expand_as(audio_probs), visual_around.unsqueeze(1).expand_as(visual_probs)]
        return torch.cat([audio_probs, visual_probs, *around], dim=-1)

    averages = average_over_windows(score, features, window, stride).clamp(max=1)  # pooling may round up beyond 1
    audio, visual, audio_around, visual_around = averages.chunk(4, dim=-1)
    return SegmentProbs(AudioVisual(audio, visual), AudioVisual(audio_around, visual_around))


@torch.inference_mode()
def transformer_probs(
    model: TemporalTransformer,
    features: AudioVisual[Tensor],
    texts: AudioVisual[Tensor],
    thresholds: AudioVisual[Tensor] | None = None,
    window: int = TRANSFORMER_WINDOW,
    stride: int = TRANSFORMER_WINDOW // 2,
) -> SegmentProbs:
    """Compute the temporal transformer's sigmoid(logit - threshold) for any events, averaged over windows.

    That is the soft label of paper Eq. 12 at temperature 1, so that 0.5 stands for the threshold.

    Args:
        features: (T, D) of each modality.
        texts: text features of the events, (C, D).
        thresholds: on the logits, (C,); None: 0.
    """
    model.eval()
    audio_threshold = visual_threshold = 0.0
    if thresholds is not None:
        audio_threshold, visual_threshold = thresholds.audio.to(texts.audio), thresholds.visual.to(texts.visual)

    def score(audio: Tensor, visual: Tensor) -> Tensor:
        audio_logits, visual_logits = model(audio, visual, *texts).logits  # (B, W, C)
        audio_probs = torch.sigmoid(audio_logits - audio_threshold)
        visual_probs = torch.sigmoid(visual_logits - visual_threshold)
        return torch.cat([audio_probs, visual_probs], dim=-1)

    return SegmentProbs(AudioVisual(*average_over_windows(score, features, window, stride).chunk(2, dim=-1)))
