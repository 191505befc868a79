"""The generative model of simulated features: text features of class names and backbone features of videos.

docs/simulation.md states it with equations. T segments, C classes, K words' concepts, D the width of a feature.
"""

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from dataloaders.features import FEATURES

WIDTHS = {"vggish": 128, "res152": 2048, "r2plus1d_18": 512, "clip": 768, "clap": 512}
MODALITIES = {"vggish": "audio", "clap": "audio", "res152": "visual", "r2plus1d_18": "visual", "clip": "visual"}

STOP_WORDS = frozenset(
    ["a", "an", "and", "by", "flyby", "for", "in", "of", "on", "passing", "the", "to", "up", "with", "other", "down"]
)
GENERIC_WORDS = frozenset(
    ["playing", "people", "driving", "cleaning", "floors", "sound", "noise", "kit", "electronic", "base"]
)
GENERIC_WEIGHT = 0.25
SYNONYMS = {
    "speech": "speak", "talk": "speak", "male": "man", "female": "woman", "laughter": "laugh", "fiddle": "violin",
    "infant": "baby", "sob": "cry", "mower": "mow", "lawnmow": "mow", "airplane": "aircraft", "siren": "alarm",
    "rooster": "chicken", "bicycle": "bike",
}  # fmt: skip


@dataclass(frozen=True)
class StreamModel:
    """Parameters of one modality's evidence, shared by all its backbones."""

    hidden: float  # mean share of an event's segments whose evidence is missing
    hidden_spread: float  # how much that share differs between events: concentration of its beta distribution
    gain_spread: float  # standard deviation of an event's log strength
    distractor: float  # probability, per segment, of false evidence for a class of the video that is not active there
    foreign_distractor: float  # probability, per segment, of false evidence for any other class


@dataclass(frozen=True)
class EmbeddingModel:
    """Parameters of a backbone with a text encoder (CLIP, CLAP); amplitudes relative to one event's evidence."""

    concepts: int  # K, dimensions that word vectors span
    text_common: float  # share of a text feature's norm that all texts have in common
    gap: float  # the constant that all segments have in common
    context: float  # an event's own look or timbre, present in all its segments, evidence or not
    scene: float  # the video's constant look, over all D dimensions
    scene_concepts: float  # the same within the concepts: resemblance to events that are not there
    noise: float  # per segment, over all D dimensions
    noise_concepts: float  # per segment, within the concepts


@dataclass(frozen=True)
class BackboneModel:
    """Parameters of a backbone without a text encoder; amplitudes relative to one event's evidence."""

    context: float
    scene: float
    noise: float
    frame_noise: float = 0.0  # per frame around its second (res152)


STREAMS = {
    "audio": StreamModel(hidden=0.3, hidden_spread=3.0, gain_spread=0.3, distractor=0.25, foreign_distractor=0.2),
    "visual": StreamModel(hidden=0.35, hidden_spread=3.0, gain_spread=0.3, distractor=0.25, foreign_distractor=0.2),
}
EMBEDDINGS = {
    "clip": EmbeddingModel(64, 0.6, 3.0, 1.0, 1.5, 1.0, 1.5, 1.5),
    "clap": EmbeddingModel(64, 0.3, 1.5, 1.0, 1.5, 1.0, 1.5, 1.5),
}
BACKBONES = {
    "vggish": BackboneModel(context=0.5, scene=1.0, noise=2.0),
    "res152": BackboneModel(context=0.5, scene=1.5, noise=3.0, frame_noise=3.0),
    "r2plus1d_18": BackboneModel(context=0.5, scene=1.5, noise=3.0),
}


@dataclass(frozen=True)
class Truth:
    """What happens in one video: (T, C) bool each; the video's classes are those of either, and `labels` (C,) bool."""

    audio: np.ndarray
    visual: np.ndarray
    labels: np.ndarray


def generator(*key: object) -> np.random.Generator:
    """A random generator that depends on the key alone, the same on every machine and in every process."""
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little")))


def name_words(name: str) -> dict[str, float]:
    """Stems of a class name's words with their weights: `playing cello` -> {play: 0.25, cello: 1}."""
    words = [word for word in re.findall(r"[a-z]+", name.lower()) if word not in STOP_WORDS]
    weights: dict[str, float] = {}
    for word in words or [name.lower()]:
        stem = _stem(word)
        weights[stem] = max(weights.get(stem, 0.0), GENERIC_WEIGHT if word in GENERIC_WORDS else 1.0)
    return weights


def _stem(word: str) -> str:
    if word in SYNONYMS:
        return SYNONYMS[word]
    for ending in ("ing", "er", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word.removesuffix(ending)
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
                word = word[:-1]
            break
    word = word.removesuffix("e")
    return SYNONYMS.get(word, word)


@cache
def _concept_axes(feature: str, seed: int) -> np.ndarray:
    """(K, D) orthonormal rows: the directions of a feature's space that words span."""
    rng = generator(seed, "axes", feature)
    square = rng.standard_normal((WIDTHS[feature], EMBEDDINGS[feature].concepts))
    return np.linalg.qr(square)[0].T.astype(np.float32)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@cache
def _direction(feature: str, what: str, seed: int) -> np.ndarray:
    """(D,) a fixed unit vector of a feature's space."""
    return _unit(generator(seed, "direction", feature, what).standard_normal(WIDTHS[feature]).astype(np.float32))


def class_concepts(feature: str, names: Iterable[str], seed: int) -> np.ndarray:
    """Meaning of each class name as the weighted sum of its words' vectors: C names -> (C, K) float32, unit rows."""
    concepts = EMBEDDINGS[feature].concepts
    rows = [
        sum(w * _unit(generator(seed, "word", feature, s).standard_normal(concepts)) for s, w in name_words(n).items())
        for n in names
    ]
    return _unit(np.stack(rows)).astype(np.float32)


def text_features(feature: str, names: Iterable[str], seed: int) -> np.ndarray:
    """Text features of class names in the space of CLIP or CLAP: C names -> (C, D) float32, unit rows."""
    common = EMBEDDINGS[feature].text_common
    meaning = class_concepts(feature, names, seed) @ _concept_axes(feature, seed)  # (C, D)
    return _unit(math.sqrt(common) * _direction(feature, "text", seed) + math.sqrt(1 - common) * meaning)


def _class_prototypes(feature: str, names: tuple[str, ...], seed: int) -> np.ndarray:
    """Directions of the classes in a feature's space: (C, D) float32, unit rows."""
    if feature in EMBEDDINGS:
        return class_concepts(feature, names, seed) @ _concept_axes(feature, seed)
    keys = [" ".join(sorted(name_words(name))) for name in names]
    rows = [generator(seed, "prototype", feature, key).standard_normal(WIDTHS[feature]) for key in keys]
    return _unit(np.stack(rows)).astype(np.float32)


@dataclass(frozen=True)
class _Evidence:
    """What a modality's backbones see of a video."""

    classes: np.ndarray  # (T, C) strength of each class's evidence, true or false
    events: np.ndarray  # (T, J) bool, which of the video's J events are under way, seen or not


class VideoSimulator:
    """Simulates the features of a data set's videos, each from its own seed.

    Args:
        dataset: name, part of every seed.
        classes: (C,) class names.
        seed: global seed.
    """

    def __init__(self, dataset: str, classes: tuple[str, ...], seed: int):
        self.dataset = dataset
        self.classes = classes
        self.seed = seed
        self.prototypes = {feature: _class_prototypes(feature, classes, seed) for feature in FEATURES}

    def features(self, video: str, truth: Truth, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Features of one video by name, each (T x rows per second, D) float32. They do not depend on each other."""
        evidence = {m: self._evidence(video, m, truth) for m in {MODALITIES[name] for name in names}}
        simulate = {True: self._embedding, False: self._backbone}
        return {name: simulate[name in EMBEDDINGS](name, video, evidence[MODALITIES[name]]) for name in names}

    def _evidence(self, video: str, modality: str, truth: Truth) -> _Evidence:
        model = STREAMS[modality]
        rng = generator(self.seed, self.dataset, video, modality)
        active = truth.audio if modality == "audio" else truth.visual  # (T, C)
        events, event_classes = _runs(active)  # (T, J), (J,)
        num_segments, num_classes = active.shape
        num_events = len(event_classes)

        share = rng.beta(model.hidden * model.hidden_spread, (1 - model.hidden) * model.hidden_spread, num_events)
        visible = events & (rng.random(events.shape) >= share)
        strength = np.exp(model.gain_spread * rng.standard_normal(num_events))
        classes = np.zeros(active.shape, np.float32)
        np.add.at(classes.T, event_classes, (visible * strength).T.astype(np.float32))

        candidates = (truth.labels | truth.audio.any(0) | truth.visual.any(0)) & ~active  # (T, C)
        false = candidates & (rng.random(active.shape) < model.distractor)
        foreign = np.zeros_like(active)
        foreign[np.arange(num_segments), rng.integers(num_classes, size=num_segments)] = True
        false |= foreign & ~active & (rng.random((num_segments, 1)) < model.foreign_distractor)
        classes += false * np.exp(model.gain_spread * rng.standard_normal(active.shape)).astype(np.float32)
        return _Evidence(classes, events)

    def _embedding(self, feature: str, video: str, evidence: _Evidence) -> np.ndarray:
        """(T, D) float32, unit rows: constant gap + scene + evidence + the events' own looks + noise."""
        model = EMBEDDINGS[feature]
        rng = generator(self.seed, self.dataset, video, feature)
        (num_segments, num_events), width = evidence.events.shape, WIDTHS[feature]
        wide = rng.standard_normal((num_segments + num_events + 1, width), dtype=np.float32) / math.sqrt(width)
        noise, looks, scene = np.split(wide, [num_segments, num_segments + num_events])
        inside = rng.standard_normal((num_segments + 1, model.concepts), dtype=np.float32) / math.sqrt(model.concepts)
        inside[:-1] *= model.noise_concepts
        inside[:-1] += model.scene_concepts * inside[-1]
        rows = model.gap * _direction(feature, "gap", self.seed) + model.scene * scene + model.noise * noise
        rows += inside[:-1] @ _concept_axes(feature, self.seed)
        rows += evidence.classes @ self.prototypes[feature]
        rows += model.context * (evidence.events.astype(np.float32) @ looks)
        return _unit(rows)

    def _backbone(self, feature: str, video: str, evidence: _Evidence) -> np.ndarray:
        """(T x rows per second, D) float32, not negative: rectified sum of evidence, looks, scene and noise."""
        model = BACKBONES[feature]
        rng = generator(self.seed, self.dataset, video, feature)
        (num_segments, num_events), width = evidence.events.shape, WIDTHS[feature]
        wide = rng.standard_normal((num_segments + num_events + 1, width), dtype=np.float32) / math.sqrt(width)
        noise, looks, scene = np.split(wide, [num_segments, num_segments + num_events])
        rows = evidence.classes @ self.prototypes[feature] + model.scene * scene + model.noise * noise
        rows += model.context * (evidence.events.astype(np.float32) @ looks)
        per_second = FEATURES[feature].rows_per_second
        if per_second > 1:
            rows = np.repeat(rows, per_second, axis=0)
            frames = rng.standard_normal(rows.shape, dtype=np.float32)
            frames *= model.frame_noise / math.sqrt(width)
            rows += frames
        rows *= math.sqrt(width) / 4
        rows += 0.25
        return np.maximum(rows, 0, out=rows)


def _runs(active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Events, that is maximal runs of active segments: (T, C) bool -> (T, J) bool, classes (J,)."""
    padded = np.pad(active.T, ((0, 0), (1, 1)))  # (C, T + 2)
    classes, first = np.nonzero(padded[:, 1:] & ~padded[:, :-1])  # (J,), run starts in segment `first`
    _, end = np.nonzero(~padded[:, 1:] & padded[:, :-1])
    segments = np.arange(active.shape[0])[:, None]
    return (segments >= first) & (segments < end), classes
