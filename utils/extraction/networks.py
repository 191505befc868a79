"""The feature networks of one extraction: which weights, which backend, on which device."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from utils.errors import InputError
from utils.extraction.backends import load_laion_clap, load_open_clip
from utils.extraction.computing import FeatureNetwork
from utils.extraction.inputs import Recipe
from utils.extraction.weights import WEIGHTS, DrawnWeights, draw_network, load_network

BACKENDS = {"clip": ("transformers", "open_clip"), "clap": ("transformers", "laion_clap")}


@dataclass(frozen=True)
class Source:
    """Where networks come from."""

    weights_dir: Path
    drawn: DrawnWeights | None = None  # random weights: of the real architectures, or of small stand-ins
    seed: int = 0
    clip_backend: str = "transformers"
    clap_backend: str = "transformers"

    def backend(self, feature: str) -> str:
        return {"clip": self.clip_backend, "clap": self.clap_backend}.get(feature, "")


def build_network(feature: str, source: Source) -> nn.Module:
    """A feature's network, in evaluation mode on the CPU.

    Raises:
        InputError: when weights or the package of a backend are absent, or random weights are wanted of a backend.
    """
    backend = source.backend(feature)
    if backend in ("", "transformers"):
        if source.drawn is not None:
            return draw_network(feature, source.drawn, source.seed)
        return load_network(feature, source.weights_dir)
    if source.drawn is not None:
        way_out = "Leave one of the two out."
        raise InputError(f"--{feature}_backend", backend, "transformers with --random_weights", way_out)
    return {"open_clip": load_open_clip, "laion_clap": load_laion_clap}[backend](source.weights_dir)


def build_networks(
    features: list[str], source: Source, device: torch.device, precision: str
) -> dict[str, FeatureNetwork]:
    """The networks of some features on a device. Raises InputError as `build_network` does."""
    return {name: FeatureNetwork(name, build_network(name, source), device, precision) for name in features}


def settings_of(features: list[str], source: Source, recipe: Recipe, precision: str) -> dict[str, dict]:
    """What a folder's record says of each feature."""
    settings = {}
    for name in features:
        weights = f"drawn from seed {source.seed}" if source.drawn else WEIGHTS[name].file
        settings[name] = {
            "weights": weights,
            "drawn_weights": source.drawn,
            "precision": precision,
        }
        if name in BACKENDS:
            settings[name] |= {"recipe": recipe, "backend": source.backend(name)}
    return settings
