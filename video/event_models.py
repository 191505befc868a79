"""Models that detect events in the user's own video. T segments of one second, C events."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from baselines.pe_frame import FIXED_PROBABILITY
from baselines.valor.framewise import FIXED_THRESHOLDS, FramewiseSettings
from dataloaders.features import PACKED
from dataloaders.llp import LLP_CLASSES
from models import TemporalTransformer
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.windows import HAN_WINDOW, TRANSFORMER_WINDOW, SegmentProbs, han_probs, transformer_probs
from utils.trained import open_trained, thresholds_of
from video.extraction.feature_networks import LIGHT, FeatureNetwork

LIGHT_CLASSES = Path(__file__).resolve().parents[1] / "data" / "light_classes.yaml"
OTHER_THRESHOLDS = AudioVisual(2.0, 15.0)  # of events other than LLP's: medians of VALOR's thresholds
FILTER, FIRST_THRESHOLD, GAMMA = 0.5, 0.75, 1.0  # of AV2A, for CLIP and CLAP


@dataclass(frozen=True)
class OwnFeatures:
    """The features of the user's own video."""

    segments: AudioVisual[Tensor]  # (T, D), all features of a modality concatenated
    texts: AudioVisual[Tensor] | None  # (C, D) of the events
    networks: Mapping[str, FeatureNetwork]  # the feature networks in use, by feature


@dataclass(frozen=True)
class EventModel:
    """A model that detects events, and the features that it requires."""

    name: str
    events: tuple[str, ...]  # (C,)
    features: AudioVisual[tuple[str, ...]]
    score: Callable[[OwnFeatures], SegmentProbs]  # NaN where a modality has no score for an event
    prompts: str | None = None  # prompts of the events' text features; None: no text features
    uses_networks: bool = False  # whether `score` uses the feature networks themselves
    widths: AudioVisual[int] | None = None  # widths of the features; None: those of the networks
    notes: tuple[str, ...] = ()
    warning: str = ""
    segments_per_second: int = 1
    scores_per_segment: int = 1  # above 1 if scores are finer than the features' segments


def trained_model(
    source: str, named: Sequence[str] | None, window: int | None, stride: int | None, device: torch.device
) -> EventModel:
    """Return the HAN or temporal transformer of `source` (see `open_trained`), applied to overlapping windows.

    `named` are the events to detect (default: the model's own). Raises InputError like `open_trained` and `windows_of`,
    and for events that the model cannot detect.
    """
    model = open_trained(source).to(device)
    description, is_transformer = model.description, isinstance(model, TemporalTransformer)
    window, stride = windows_of(is_transformer, window, stride, description.segments_per_second)
    if named is None and not description.classes:
        raise InputError("--model", "a model without class names", "one with class names", "Add --events.")
    if named is not None and not is_transformer:
        way_out = "Choose a run of train_transformer.py or --networks clip_clap, or leave out --events."
        raise InputError("--events", "a HAN, which has fixed classes", "a temporal transformer", way_out)
    real = {f"{name} features" for name in PACKED}  # unpublished ones, which need no warning
    marks = dict.fromkeys(mark.rpartition(": ")[2] for mark in description.note.split(", ") if mark)  # of any stage
    marks = ", ".join(mark for mark in marks if mark not in real)
    note = f"The model was trained on {marks}." if marks else ""
    if "simulated" in note:
        note += " Its predictions are meaningless on real videos."
    return EventModel(
        name=Path(source).name,
        events=description.classes if named is None else different_names(named),
        features=AudioVisual(description.audio_features, description.visual_features),
        score=lambda own: trained_probs(model, own, named is not None, window, stride),
        prompts="event_names" if is_transformer else None,
        widths=AudioVisual(model.sizes["audio_dim"], model.sizes["visual_dim"]),
        segments_per_second=description.segments_per_second,
        warning=note,
    )


def windows_of(
    is_transformer: bool, window: int | None, stride: int | None, segments_per_second: int = 1
) -> tuple[int, int]:
    """Return window and stride in segments (default: HAN 10 s and 1, transformer 60 and 30 s); InputError for gaps."""
    window = window or (TRANSFORMER_WINDOW if is_transformer else HAN_WINDOW) * segments_per_second
    stride = stride or (max(1, window // 2) if is_transformer else 1)
    if not 1 <= stride <= window:
        raise InputError("--stride, --window", f"{stride}, {window}", "1 <= stride <= window", "Correct the flags.")
    return window, stride


def trained_probs(model: nn.Module, own: OwnFeatures, any_events: bool, window: int, stride: int) -> SegmentProbs:
    """Return the model's probabilities; thresholds are applied to its own classes only."""
    if not isinstance(model, TemporalTransformer):
        return han_probs(model, own.segments, window, stride, model.description.decoding)
    thresholds = None if any_events else thresholds_of(model.description)
    return transformer_probs(model, own.segments, own.texts, thresholds, window, stride)


def different_names(named: Sequence[str]) -> tuple[str, ...]:
    """Return the names of events. Raises InputError if two are equal, or one is empty or not printable."""
    if len(set(named)) < len(named) or not all(name.strip() and name.isprintable() for name in named):
        expected = "distinct, non-empty names of printable characters"
        raise InputError("--events", ", ".join(map(ascii, named)), expected, "Correct them.")
    return tuple(named)


def light_model(named: Sequence[str] | None) -> EventModel:
    """Return the two light networks. Raises InputError for events that are not in data/light_classes.yaml."""
    classes = read_light_classes(LIGHT_CLASSES)
    events = tuple(classes) if named is None else different_names(named)
    if unknown := [event for event in events if event not in classes]:
        way_out = "Add its classes there, or use --networks clip_clap, which accepts any names."
        raise InputError(LIGHT_CLASSES, f"no {', '.join(unknown)}", f"events among {', '.join(classes)}", way_out)
    chosen = [classes[event] for event in events]
    notes = ["not trained on these events: mn04 has AudioSet's classes, EfficientNet-Lite2 ImageNet's"]
    for modality, places in (("audio", 0), ("visual", 1)):
        if without := [event.replace("_", " ") for event, of in zip(events, chosen, strict=True) if not of[places]]:
            notes.append(f"no {modality} score: {', '.join(without)}")
    features, score = AudioVisual(*((name,) for name in LIGHT)), partial(light_probs, classes=chosen)
    return EventModel("light networks", events, features, score, uses_networks=True, notes=tuple(notes))


def read_light_classes(path: Path) -> dict[str, AudioVisual[list[int]]]:
    """Read each event's class indices of mn04 and EfficientNet-Lite2. Raises InputError for an invalid file."""
    found = {}
    try:
        for event, modalities in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            both = []
            for modality, size in (("audio", 527), ("visual", 1000)):
                places = (modalities.get(modality) or {}).values()
                spans = [place if isinstance(place, list) else [place, place] for place in places]
                both.append([n for first, last in spans for n in range(first, last + 1)])
                if any(not 0 <= n < size for n in both[-1]):
                    raise ValueError(f"{event}: {modality} classes are numbered from 0 to {size - 1}")
            found[str(event)] = AudioVisual(*both)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        expected = "events, each with `audio` and `visual` classes and their indices"
        raise InputError(path, f"no such table ({error})", expected, "Correct the file.") from error
    return found


@torch.inference_mode()
def light_probs(own: OwnFeatures, classes: Sequence[AudioVisual[list[int]]]) -> SegmentProbs:
    """Return the largest probability of each event's AudioSet classes, and the sum over its ImageNet classes."""
    of_audio, of_visual = (own.networks[name].probs(x.cpu()) for name, x in zip(LIGHT, own.segments, strict=True))
    none = torch.full((len(of_audio),), torch.nan)
    audio = [of_audio[:, places.audio].amax(1) if places.audio else none for places in classes]
    visual = [of_visual[:, places.visual].sum(1).clamp(max=1) if places.visual else none for places in classes]
    return SegmentProbs(AudioVisual(torch.stack(audio, 1), torch.stack(visual, 1)))


def pe_frame_model(named: Sequence[str] | None) -> EventModel:
    """Return PE-A-Frame for audible events, in frames of 40 ms, and CLIP for visible ones.

    Audio probabilities are shifted such that 0.5 is PE-A-Frame's threshold of 0.3. Raises InputError for equal names.
    """
    events = LLP_CLASSES if named is None else different_names(named)
    notes = ("not trained on these events: PE-A-Frame and CLIP compare frames and segments with names",)
    score, features = partial(pe_frame_probs, events=events), AudioVisual(("pe_audio_frames",), ("clip",))
    more = {"scores_per_segment": PACKED["pe_audio_frames"].parts, "uses_networks": True}
    return EventModel("PE-A-Frame and CLIP", events, features, score, "valor", notes=notes, **more)


def pe_frame_probs(own: OwnFeatures, events: Sequence[str]) -> SegmentProbs:
    """Return sigmoid(logit - logit of the threshold) of every 40 ms, and CLIP's probability of its segment."""
    frames = own.segments.audio.unflatten(-1, (PACKED["pe_audio_frames"].parts, -1))  # (T, F, D)
    logits = frames @ own.texts.audio.T + own.networks["pe_audio"].network.bias  # (T, F, C)
    audio = torch.sigmoid(logits - torch.tensor(FIXED_PROBABILITY).logit()).flatten(0, 1)
    cosines = own.segments.visual @ own.texts.visual.T
    visual = valor_probs(AudioVisual(cosines, cosines), events).visual
    return SegmentProbs(AudioVisual(audio, visual.repeat_interleave(frames.shape[1], dim=0)))


def clip_clap_model(named: Sequence[str] | None, decoding: str) -> EventModel:
    """Return CLIP and CLAP, which compare each segment with the names of events (default: LLP's).

    The decoding is "thresholds", that of VALOR's framewise teacher, or "av2a". Raises InputError for equal names, and
    for fewer than three events with AV2A, which standardises over events.
    """
    events = LLP_CLASSES if named is None else different_names(named)
    if decoding == "av2a" and len(events) < 3:
        raise InputError("--events", f"{len(events)} for --decoding av2a", "at least three", "Add further events.")
    notes = ("not trained on these events: CLIP and CLAP compare segments with names", f"decoding: {decoding}")
    score = partial(clip_clap_probs, events=events, decoding=decoding)
    return EventModel("CLIP and CLAP", events, AudioVisual(("clap",), ("clip",)), score, "valor", notes=notes)


def clip_clap_probs(own: OwnFeatures, events: Sequence[str], decoding: str) -> SegmentProbs:
    """Return sigmoid(scale · cosine - threshold), 0.5 at VALOR's threshold, or AV2A's scores."""
    audio, visual = (segments @ texts.T for segments, texts in zip(own.segments, own.texts, strict=True))
    if decoding == "av2a":
        return SegmentProbs(AudioVisual(av2a_probs(audio), av2a_probs(visual, own.segments.visual)))
    return SegmentProbs(valor_probs(AudioVisual(audio, visual), events))


def valor_probs(cosines: AudioVisual[Tensor], events: Sequence[str]) -> AudioVisual[Tensor]:
    """Return sigmoid(scale · cosine - threshold) of each modality: (T, C) -> (T, C)."""
    settings = FramewiseSettings()
    scales = AudioVisual(settings.audio_logit_scale, settings.visual_logit_scale)

    def probs(of_modality: Tensor, scale: float, of_llp: Sequence[float], other: float) -> Tensor:
        known = dict(zip(LLP_CLASSES, of_llp, strict=True))
        return torch.sigmoid(scale * of_modality - of_modality.new_tensor([known.get(e, other) for e in events]))

    return cosines.map(probs, scales, FIXED_THRESHOLDS["LLP"], OTHER_THRESHOLDS)


def similarities(cosines: Tensor) -> Tensor:
    """Standardise each segment's scores over its three or more events, then take the sigmoid: (T, C) -> (T, C)."""
    return torch.sigmoid((cosines - cosines.mean(dim=1, keepdim=True)) / cosines.std(dim=1, keepdim=True))


def dynamic_thresholds(scores: Tensor, frames: Tensor | None = None) -> Tensor:
    """Return AV2A's threshold of each segment and event from the scores of `similarities`: (T, C) -> (T, C).

    A threshold decreases with each detection of its event and with the shift of the label distribution over time; the
    cosine similarity of adjacent `frames` (T, D) scales the decrease (None for audio).
    """
    scores, num_events = scores.double(), scores.shape[1]
    closeness = torch.ones(len(scores)) if frames is None else F.cosine_similarity(frames[:-1], frames[1:])
    thresholds = [scores.new_full((num_events,), FIRST_THRESHOLD)]
    counts, together = scores.new_zeros(num_events), scores.new_zeros(num_events, num_events)
    for t in range(len(scores) - 1):
        found = (scores[t] > thresholds[t]).double()
        counts = counts + found
        together = together + scores[t].unsqueeze(1) * found
        confusion, following = together / (t + 1), scores[t + 1]
        identity = torch.eye(num_events, dtype=scores.dtype, device=scores.device)
        weights = torch.linalg.solve(confusion.T @ confusion + identity, confusion.T @ following)  # label shift (BBSE)
        decrease = FIRST_THRESHOLD * torch.exp(-GAMMA * counts) * float(closeness[t]) * weights * following
        thresholds.append(thresholds[t] - decrease)
    return torch.stack(thresholds)


def av2a_probs(cosines: Tensor, frames: Tensor | None = None) -> Tensor:
    """Decode the cosines of a modality with training-free AV2A (CVPR 2025, arXiv 2503.13693): (T, C) -> (T, C).

    A score of 0.5 corresponds to the threshold. Events of a single segment and those with a mean over the video of at
    most FILTER get 0. AV2A's refinement, which encodes each interval again, is left out.
    """
    scores = similarities(cosines).double()
    thresholds = dynamic_thresholds(scores, frames).clamp(1e-6, 1 - 1e-6)
    above = (scores > thresholds) & (scores.mean(dim=0) > FILTER)
    before, after = F.pad(above[:-1], (0, 0, 1, 0)), F.pad(above[1:], (0, 0, 0, 1))
    probs = torch.sigmoid(torch.logit(scores) - torch.logit(thresholds))
    return torch.where(above & ~(before | after) | (scores.mean(dim=0) <= FILTER), 0, probs).float()
