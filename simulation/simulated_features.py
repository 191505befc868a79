"""The generative model of simulated features: text features of class names and backbone features of videos.

docs/simulation.md states its equations, data/simulated_data.yaml its parameters. T segments, C classes, K dimensions of
concepts, D features.
"""

import hashlib
import math
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
import yaml

from baselines.leap.leap_network import class_words
from dataloaders.features import FEATURES
from utils.method.spans import joined_rows, maximal_spans

WORD_VECTOR_WIDTH = 300  # GloVe's
PARAMETERS_FILE = Path(__file__).resolve().parent.parent / "data" / "simulated_data.yaml"
PARAMETERS = yaml.safe_load(PARAMETERS_FILE.read_text(encoding="utf-8"))
MODEL, WORDS = PARAMETERS["model"], PARAMETERS["words"]


def backbone_model(feature: str) -> SimpleNamespace:
    """Return a backbone's parameters and its text encoder's; by default those of R(2+1)D or, with texts, of CLIP."""
    backbones, texts = MODEL["backbones"], MODEL["texts"]
    similar = "clip" if FEATURES[feature].text_folder else "r2plus1d_18"
    return SimpleNamespace(**backbones.get(feature, backbones[similar]), **texts.get(feature, texts["clip"]))


class Truth(NamedTuple):
    """Events of one video: audio and visual (T, C) bool; its classes are those of either and of `labels`, (C,) bool."""

    audio: np.ndarray
    visual: np.ndarray
    labels: np.ndarray


def generator(*key: object) -> np.random.Generator:
    """Return a random generator that depends on the key only, the same on every machine and in every process."""
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little")))


def name_words(name: str) -> dict[str, float]:
    """Return the stems of a class name's words with their weights: `playing cello` -> {play: 0.4, cello: 1}."""
    words = [word for word in re.findall(r"[a-z]+", name.lower()) if word not in WORDS["left_out"]]
    weights: dict[str, float] = {}
    for word in words or [name.lower()]:
        stem = _stem(word)
        weights[stem] = max(weights.get(stem, 0.0), WORDS["generic_weight"] if word in WORDS["generic"] else 1.0)
    return weights


def _stem(word: str) -> str:
    synonyms = WORDS["synonyms"]
    if word in synonyms:
        return synonyms[word]
    for ending in ("ing", "er", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word.removesuffix(ending)
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
                word = word[:-1]
            break
    word = word.removesuffix("e")
    return synonyms.get(word, word)


@cache
def _axes(feature: str, seed: int) -> np.ndarray:
    """Return orthonormal directions: of all texts, all segments, K concepts and S styles: (2 + K + S, D)."""
    model = backbone_model(feature)
    shape = (FEATURES[feature].width, 2 + model.concepts + model.styles)
    square = generator(seed, "axes", feature).standard_normal(shape)
    return np.linalg.qr(square)[0].T.astype(np.float32)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _sums_of_words(feature: str, what: str, names: Iterable[str], size: int, seed: int) -> np.ndarray:
    """Return for each name the weighted sum of its words' random vectors: C names -> (C, size) float32, unit rows."""

    def vector(stem: str) -> np.ndarray:
        return _unit(generator(seed, what, feature, stem).standard_normal(size))

    rows = [sum(weight * vector(stem) for stem, weight in name_words(name).items()) for name in names]
    return _unit(np.stack(rows)).astype(np.float32)


def class_concepts(feature: str, names: Iterable[str], seed: int) -> np.ndarray:
    """Return a backbone's concept vectors of class names: C names -> (C, K) float32, unit rows."""
    return _sums_of_words(feature, "word", names, backbone_model(feature).concepts, seed)


def text_features(feature: str, names: Iterable[str], seed: int) -> np.ndarray:
    """Return text features of class names in the space of a backbone: C names -> (C, D) float32, unit rows."""
    names, model = tuple(names), backbone_model(feature)
    concepts = class_concepts(feature, names, seed)
    styles = model.association * _sums_of_words(feature, "association", names, model.styles, seed)
    constants = np.tile(np.float32([model.common, 0]), (len(names), 1))
    return _unit(np.concatenate([constants, concepts, styles], axis=1) @ _axes(feature, seed))


def word_vectors_text(names: Iterable[str], seed: int) -> str:
    """Return random vectors of all words in the names, in GloVe's text format; inflections of a word share one."""
    lines = []
    for word in dict.fromkeys(word for name in names for word in class_words(name)):
        vector = generator(seed, "word vector", _stem(word)).standard_normal(WORD_VECTOR_WIDTH)
        lines.append(" ".join([word, *(f"{x:.4f}" for x in vector)]))
    return "\n".join(lines) + "\n"


class VideoSimulator:
    """Simulates the features of a data set's videos, each from its own seed, which includes the global one."""

    def __init__(self, dataset: str, classes: tuple[str, ...], seed: int):
        self.dataset = dataset
        self.seed = seed
        self.prototypes = {feature: class_concepts(feature, classes, seed) for feature in FEATURES}

    def features(self, video: str, truth: Truth, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the requested features of one video by name, each (T x rows per second, D) float32."""
        evidence = {m: self.evidence(video, m, truth) for m in {FEATURES[name].modality for name in names}}
        return {name: self._feature(name, video, *evidence[FEATURES[name].modality]) for name in names}

    def evidence(self, video: str, modality: str, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Return a modality's evidence for each class, (T, C) float32, and its J events, (T, J) bool."""
        model = SimpleNamespace(**MODEL["streams"][modality])
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
        evidence = np.zeros(active.shape, np.float32)
        np.add.at(evidence.T, event_classes, (visible * strength).T.astype(np.float32))

        suggested = truth.labels | truth.audio.any(0) | truth.visual.any(0)  # (C,)
        suggested[rng.integers(num_classes, size=rng.poisson(model.suggested))] = True
        false = suggested & ~active & (rng.random(active.shape) < model.distractor)
        evidence += false * np.exp(model.gain_spread * rng.standard_normal(active.shape)).astype(np.float32)
        return evidence, events

    def _feature(self, feature: str, video: str, evidence: np.ndarray, events: np.ndarray) -> np.ndarray:
        """Return one feature, (T x rows per second, D) float32: unit rows if it has texts, else nonnegative rows."""
        model = backbone_model(feature)
        rng = generator(self.seed, self.dataset, video, feature)
        per_second = FEATURES[feature].rows_per_second
        size = model.concepts + model.styles

        def normal(rows: int, columns: int) -> np.ndarray:  # rows of norm 1 on average
            return rng.standard_normal((rows, columns), dtype=np.float32) / math.sqrt(columns)

        latent = model.noise * normal(len(events), size)
        latent[:, : model.concepts] += evidence @ self.prototypes[feature]
        looks = events.astype(np.float32) @ normal(events.shape[1], model.styles)
        latent[:, model.concepts :] += model.scene * normal(1, model.styles) + model.look * looks
        if per_second > 1:
            latent = np.repeat(latent, per_second, axis=0)
            latent += model.frame_noise * normal(len(latent), size)
        axes = _axes(feature, self.seed)
        rows = latent @ axes[2:]
        if FEATURES[feature].text_folder:
            return _unit(rows + model.gap * axes[1])
        rows *= math.sqrt(FEATURES[feature].width) / 4
        rows += 0.25
        return np.maximum(rows, 0, out=rows)
