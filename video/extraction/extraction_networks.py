"""The feature networks of one extraction: which weights, which backend, on which device."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dataloaders.features import FEATURES
from dataloaders.provenance import text_part
from utils.errors import InputError
from utils.settings import whole_number
from utils.training.device import PRECISIONS
from video.extraction.backbone_weights import DEFAULT_WEIGHTS_DIR, WEIGHTS, DrawnWeights, draw_network, load_network
from video.extraction.backends import load_laion_clap, load_open_clip, open_clip_file
from video.extraction.computing import FeatureNetwork
from video.extraction.extraction_inputs import Recipe

WITH_NETWORK = tuple(name for name in FEATURES if name in WEIGHTS)  # what features can be made of; others are read only
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

    def weights(self, feature: str) -> str:
        """What the record calls a feature's weights."""
        if self.drawn is not None:
            return f"drawn from seed {self.seed}"
        if self.backend(feature) == "open_clip":
            return open_clip_file(self.weights_dir).name
        return WEIGHTS[feature].file


def add_network_flags(group: argparse._ArgumentGroup) -> None:
    """The flags that say which networks make features, and how; `source_of` reads those of the weights."""
    group.add_argument("--weights_dir", type=Path, default=DEFAULT_WEIGHTS_DIR)
    group.add_argument("--random_weights", nargs="?", const="real", choices=("real", "small"))
    group.add_argument("--seed", type=whole_number(0), default=0, help="of random weights")
    group.add_argument("--clip_backend", choices=BACKENDS["clip"], default=BACKENDS["clip"][0])
    group.add_argument("--clap_backend", choices=BACKENDS["clap"], default=BACKENDS["clap"][0])
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or mps (default: the fastest there is)")
    group.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the feature networks")


def source_of(args: argparse.Namespace) -> Source:
    """Where networks come from, by the flags of `add_network_flags`."""
    return Source(args.weights_dir, args.random_weights, args.seed, args.clip_backend, args.clap_backend)


def build_network(feature: str, source: Source) -> nn.Module:
    """A feature's network, in evaluation mode on the CPU.

    Raises:
        InputError: when weights or the package of a backend are absent, random weights are wanted of a backend, or no
            network makes the feature.
    """
    if feature not in WITH_NETWORK:
        found, expected = "a feature that no network here makes", f"one of {', '.join(WITH_NETWORK)}"
        raise InputError(feature, found, expected, "Put its files beside the others by other means.")
    backend = source.backend(feature)
    if source.drawn is not None:
        if backend in ("open_clip", "laion_clap"):
            way_out = "Leave one of the two out."
            raise InputError(f"--{feature}_backend", backend, "transformers with --random_weights", way_out)
        return draw_network(feature, source.drawn, source.seed)
    load = {"open_clip": load_open_clip, "laion_clap": load_laion_clap}.get(backend)
    return load(source.weights_dir) if load is not None else load_network(feature, source.weights_dir)


def build_networks(
    features: list[str], source: Source, device: torch.device, precision: str
) -> dict[str, FeatureNetwork]:
    """The networks of some features on a device. Raises InputError as `build_network` does."""
    return {name: FeatureNetwork(name, build_network(name, source), device, precision) for name in features}


def settings_of(features: list[str], source: Source, recipe: Recipe, precision: str) -> dict[str, dict]:
    """What a folder's record holds for each feature."""
    settings = {}
    for name in features:
        settings[name] = _made_by(name, source, precision)
        if name in BACKENDS:
            settings[name] |= {"recipe": recipe, "backend": source.backend(name)}
    return settings


def text_settings_of(features: list[str], source: Source, prompts: str, precision: str) -> dict[str, dict]:
    """What it holds for their text features."""
    made_by = {text_part(name, prompts): _made_by(name, source, precision) for name in features}
    return {part: made | {"backend": source.backend(part.split()[0])} for part, made in made_by.items()}


def _made_by(feature: str, source: Source, precision: str) -> dict[str, object]:
    return {"weights": source.weights(feature), "drawn_weights": source.drawn, "precision": precision}
