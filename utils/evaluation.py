"""Predicted events of a split and their scores."""

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from torch import Tensor

from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import SplitBatches
from models import HAN
from utils.decoding import decode_segments, decode_segments_by_modality, decode_single_event
from utils.device import Precision
from utils.inference import HANScores, han_scores, pad_rows
from utils.metrics import SCORE_NAMES, LevelScores, ParsingScores, parsing_scores, segment_accuracy
from utils.predictions import Predictions

LEVEL_NAMES = ("segment", "event")
BEST_METRIC = {"LLP": "segment_Type", "AVE": "accuracy"}  # what selects checkpoint_best.pt in stage 3

DECODING_HELP = "the probability that an event of LLP also needs: the video's (UWAV), or that modality's own (HAN, MA)"


@dataclass(frozen=True)
class Events:
    """Audible and visible events of a split: N videos, T segments, C classes, all bool."""

    audio: Tensor  # (N, T, C)
    visual: Tensor  # (N, T, C)


def true_events(annotations: SplitAnnotations, device: torch.device) -> Events:
    """The segment-level ground truth of a split that has one; padding holds no event."""
    audio, visual = (
        pad_rows(rows, annotations.lengths).to(device) for rows in (annotations.audio_labels, annotations.visual_labels)
    )
    return Events(audio, visual)


def decode_llp(scores: HANScores) -> Events:
    """Any number of events, audible and visible apart."""
    return Events(*decode_segments(scores.audio_logits, scores.visual_logits, scores.video_probs))


def decode_llp_by_modality(scores: HANScores) -> Events:
    """Any number of events, each modality's gated by its own pooled probability (HAN, MA)."""
    streams = (scores.audio_logits, scores.visual_logits, scores.audio_probs, scores.visual_probs)
    return Events(*decode_segments_by_modality(*streams))


def decode_ave(scores: HANScores, event_from: str = "video", active_in: str = "both") -> Events:
    """One audio-visual event a video; see `decode_single_event`."""
    streams = (scores.audio_logits, scores.visual_logits, scores.video_probs)
    events = decode_single_event(*streams, event_from=event_from, active_in=active_in)
    return Events(events, events)


DECODERS: dict[str, Callable[[HANScores], Events]] = {"LLP": decode_llp, "AVE": decode_ave}


def decoder(dataset: str, decoding: str) -> Callable[[HANScores], Events]:
    """How a data set's events are decoded; LLP's by the "video" (UWAV) or by each "modality" (HAN, MA)."""
    return decode_llp_by_modality if (dataset, decoding) == ("LLP", "modality") else DECODERS[dataset]


def predict_events(
    model: HAN,
    split: SplitBatches,
    batch_size: int,
    precision: Precision,
    decode: Callable[[HANScores], Events] = decode_llp,
) -> Events:
    """Run HAN over a split and decode its events."""
    return decode(han_scores(model, split, batch_size, precision))


def score_events(dataset: str, prediction: Events, truth: Events) -> dict[str, float]:
    """Scores in percent by name: the accuracy for AVE, else ten F-scores named segment_A to event_Event."""
    if dataset == "AVE":
        return {"accuracy": segment_accuracy(prediction.audio & prediction.visual, truth.audio)}
    return named_scores(parsing_scores(prediction.audio, prediction.visual, truth.audio, truth.visual))


def named_scores(scores: ParsingScores) -> dict[str, float]:
    """The ten F-scores by name."""
    names = [f"{level}_{name}" for level in LEVEL_NAMES for name in SCORE_NAMES]
    return dict(zip(names, (*astuple(scores.segment), *astuple(scores.event)), strict=True))


def scores_by_level(named: Mapping[str, float]) -> ParsingScores:
    """What `named_scores` has taken apart."""
    return ParsingScores(*(LevelScores(*(named[f"{level}_{name}"] for name in SCORE_NAMES)) for level in LEVEL_NAMES))


def to_predictions(annotations: SplitAnnotations, prediction: Events, truth: Events) -> Predictions:
    """What a run's folder keeps of its predictions."""
    return Predictions(
        dataset=annotations.dataset,
        split=annotations.split,
        classes=annotations.classes,
        sample_ids=annotations.sample_ids,
        audio=prediction.audio.cpu().numpy(),
        visual=prediction.visual.cpu().numpy(),
        audio_truth=truth.audio.cpu().numpy(),
        visual_truth=truth.visual.cpu().numpy(),
    )


def is_simulated(data_dir: Path) -> bool:
    """Whether a data folder was written by `dataloaders.simulation`, which every report has to say."""
    return (data_dir / "simulation.yaml").exists()
