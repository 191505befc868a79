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
import torch

from baselines.leap.leap_network import class_words
from dataloaders.features import FEATURES
from utils.method.spans import joined_rows, maximal_spans

WORD_VECTOR_WIDTH = 300  # GloVe's
STOP_WORDS = frozenset(
    ["a", "an", "and", "by", "flyby", "for", "in", "of", "on", "passing", "the", "to", "up", "with", "other", "down"]
)
GENERIC_WORDS = frozenset(
    (
        "playing", "people", "driving", "cleaning", "floors", "sound", "noise", "kit", "electronic", "base",
        "man", "woman", "male", "female", "child", "kid",
    )
)  # fmt: skip
GENERIC_WEIGHT = 0.4
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
    distractor: float  # probability, per segment, of false evidence for a suggested class that is not active there
    suggested: float  # mean number of further classes, not of the video, that distractors suggest


@dataclass(frozen=True)
class FeatureModel:
    """Parameters of one backbone; amplitudes are norms, relative to the evidence of one event of strength 1."""

    concepts: int  # K, dimensions that the words' vectors span
    styles: int  # S, dimensions of everything that says nothing about classes
    scene: float  # the video's constant style
    look: float  # an event's own look or timbre, in all its segments, evidence or not: a style, too
    noise: float  # per segment, over all K + S dimensions
    frame_noise: float = 0.0  # per frame, around its second (res152)


@dataclass(frozen=True)
class TextModel:
    """Parameters of the text encoder that goes with a backbone (CLIP, CLAP)."""

    common: float  # what all texts have in common
    association: float  # a class's text in the dimensions of style, so that a scene resembles events that are not there
    gap: float  # the constant that all segments have in common, apart from all texts


STREAMS = {
    "audio": StreamModel(hidden=0.4, hidden_spread=20.0, gain_spread=0.2, distractor=0.08, suggested=3.0),
    "visual": StreamModel(hidden=0.4, hidden_spread=20.0, gain_spread=0.2, distractor=0.08, suggested=3.0),
}
BACKBONES = {
    "clip": FeatureModel(concepts=32, styles=8, scene=2.5, look=1.0, noise=0.6),
    "clap": FeatureModel(concepts=32, styles=8, scene=2.5, look=1.0, noise=0.6),
    "vggish": FeatureModel(concepts=32, styles=8, scene=1.0, look=1.0, noise=0.4),
    "res152": FeatureModel(concepts=32, styles=8, scene=1.0, look=1.0, noise=0.8, frame_noise=1.0),
    "r2plus1d_18": FeatureModel(concepts=32, styles=8, scene=1.0, look=1.0, noise=0.8),
}
TEXTS = {
    "clip": TextModel(common=0.1, association=1.0, gap=3.0),
    "clap": TextModel(common=0.1, association=1.0, gap=1.5),
}


def backbone_model(feature: str) -> FeatureModel:
    """The model of a backbone; without one of its own it is like R(2+1)D's, or CLIP's if it has texts."""
    return BACKBONES.get(feature, BACKBONES["clip" if FEATURES[feature].text_folder else "r2plus1d_18"])


def text_model(feature: str) -> TextModel:
    """The model of the text encoder that goes with a backbone."""
    return TEXTS.get(feature, TEXTS["clip"])


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
def _axes(feature: str, seed: int) -> np.ndarray:
    """(2 + K + S, D) orthonormal rows: of all texts, of all segments, of concepts and of styles."""
    model = backbone_model(feature)
    square = generator(seed, "axes", feature).standard_normal(
        (FEATURES[feature].width, 2 + model.concepts + model.styles)
    )
    return np.linalg.qr(square)[0].T.astype(np.float32)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _sums_of_words(feature: str, what: str, names: Iterable[str], size: int, seed: int) -> np.ndarray:
    """The weighted sum of its words' random vectors for each name: C names -> (C, size) float32, unit rows."""
    rows = [
        sum(w * _unit(generator(seed, what, feature, s).standard_normal(size)) for s, w in name_words(n).items())
        for n in names
    ]
    return _unit(np.stack(rows)).astype(np.float32)


def class_concepts(feature: str, names: Iterable[str], seed: int) -> np.ndarray:
    """What a backbone makes of each class, by the words of its name: C names -> (C, K) float32, unit rows."""
    return _sums_of_words(feature, "word", names, backbone_model(feature).concepts, seed)


def text_features(feature: str, names: Iterable[str], seed: int) -> np.ndarray:
    """Text features of class names in the space of CLIP or CLAP: C names -> (C, D) float32, unit rows."""
    names, model = tuple(names), text_model(feature)
    concepts = class_concepts(feature, names, seed)
    styles = model.association * _sums_of_words(feature, "association", names, backbone_model(feature).styles, seed)
    constants = np.tile(np.float32([model.common, 0]), (len(names), 1))
    return _unit(np.concatenate([constants, concepts, styles], axis=1) @ _axes(feature, seed))


def word_vectors_text(names: Iterable[str], seed: int) -> str:
    """Random word vectors for every word of the class names, in GloVe's text format; forms of a word share theirs."""
    lines = []
    for word in dict.fromkeys(word for name in names for word in class_words(name)):
        vector = generator(seed, "word vector", _stem(word)).standard_normal(WORD_VECTOR_WIDTH)
        lines.append(" ".join([word, *(f"{x:.4f}" for x in vector)]))
    return "\n".join(lines) + "\n"


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
        self.prototypes = {feature: class_concepts(feature, classes, seed) for feature in FEATURES}

    def features(self, video: str, truth: Truth, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Features of one video by name, each (T x rows per second, D) float32. They do not depend on each other."""
        evidence = {m: self._evidence(video, m, truth) for m in {FEATURES[name].modality for name in names}}
        return {name: self._feature(name, video, evidence[FEATURES[name].modality]) for name in names}

    def _evidence(self, video: str, modality: str, truth: Truth) -> _Evidence:
        model = STREAMS[modality]
        rng = generator(self.seed, self.dataset, video, modality)
        active = truth.audio if modality == "audio" else truth.visual  # (T, C)
        num_segments, num_classes = active.shape
        first, end = (x.numpy() for x in maximal_spans(joined_rows(torch.tensor(active.T))))  # (J,) each
        event_classes, onset = np.divmod(first, num_segments + 1)
        segments = np.arange(num_segments)[:, None]
        events = (segments >= onset) & (segments < onset + end - first)  # (T, J)
        num_events = len(event_classes)

        share = rng.beta(model.hidden * model.hidden_spread, (1 - model.hidden) * model.hidden_spread, num_events)
        visible = events & (rng.random(events.shape) >= share)
        strength = np.exp(model.gain_spread * rng.standard_normal(num_events))
        classes = np.zeros(active.shape, np.float32)
        np.add.at(classes.T, event_classes, (visible * strength).T.astype(np.float32))

        suggested = truth.labels | truth.audio.any(0) | truth.visual.any(0)  # (C,)
        suggested[rng.integers(num_classes, size=rng.poisson(model.suggested))] = True
        false = suggested & ~active & (rng.random(active.shape) < model.distractor)
        classes += false * np.exp(model.gain_spread * rng.standard_normal(active.shape)).astype(np.float32)
        return _Evidence(classes, events)

    def _feature(self, feature: str, video: str, evidence: _Evidence) -> np.ndarray:
        """(T x rows per second, D) float32; CLIP and CLAP: unit rows, others: not negative."""
        model = backbone_model(feature)
        rng = generator(self.seed, self.dataset, video, feature)
        num_segments, num_events = evidence.events.shape
        per_second = FEATURES[feature].rows_per_second
        size = model.concepts + model.styles

        def normal(rows: int, columns: int) -> np.ndarray:  # rows of norm 1 on average
            return rng.standard_normal((rows, columns), dtype=np.float32) / math.sqrt(columns)

        latent = model.noise * normal(num_segments, size)
        latent[:, : model.concepts] += evidence.classes @ self.prototypes[feature]
        looks = evidence.events.astype(np.float32) @ normal(num_events, model.styles)
        latent[:, model.concepts :] += model.scene * normal(1, model.styles) + model.look * looks
        if per_second > 1:
            latent = np.repeat(latent, per_second, axis=0)
            latent += model.frame_noise * normal(len(latent), size)
        axes = _axes(feature, self.seed)
        rows = latent @ axes[2:]
        if FEATURES[feature].text_folder:
            return _unit(rows + text_model(feature).gap * axes[1])
        rows *= math.sqrt(FEATURES[feature].width) / 4
        rows += 0.25
        return np.maximum(rows, 0, out=rows)
