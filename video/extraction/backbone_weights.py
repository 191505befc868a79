"""Where the feature networks' weights lie, and networks with their weights."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from utils.errors import InputError
from video.backbones import small
from video.backbones.clap import CLAP, load_laion_state
from video.backbones.clip import CLIP
from video.backbones.drawn_weights import draw_weights_of
from video.backbones.resnets import r2plus1d_18_features, resnet152_features
from video.backbones.vggish import VGGish
from video.extraction.download import check_sha256

DEFAULT_WEIGHTS_DIR = Path("weights")
DrawnWeights = Literal["real", "small"]  # the real architectures with drawn weights, or small stand-ins with such


@dataclass(frozen=True)
class Weights:
    """One network's weights: a file or a folder, and where it comes from."""

    file: str
    source: str
    sha256: str = ""  # the beginning of its hash, as far as the publisher names it
    hub_file: str = ""  # of a source on the Hugging Face hub, whose cache is looked into
    group: str = "weights"  # of data/downloads.yaml


HUB = "https://huggingface.co/"
OPENAI_SHA256 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
OPENAI = f"https://openaipublic.azureedge.net/clip/models/{OPENAI_SHA256}/ViT-L-14.pt"
WEIGHTS = {
    "vggish": Weights("vggish-10086976.pth", "https://github.com/harritaylor/torchvggish (release v0.1)", "10086976"),
    "res152": Weights("resnet152-394f9c45.pth", "torchvision, ResNet152_Weights.IMAGENET1K_V1", "394f9c45"),
    "r2plus1d_18": Weights("r2plus1d_18-91a641e6.pth", "torchvision, R2Plus1D_18_Weights.KINETICS400_V1", "91a641e6"),
    "clip": Weights("clip-vit-large-patch14", f"{HUB}openai/clip-vit-large-patch14", hub_file="config.json"),
    "clap": Weights("630k-fusion-best.pt", f"{HUB}lukewys/laion_clap", hub_file="630k-fusion-best.pt"),
    "open_clip": Weights("ViT-L-14.pt", OPENAI, OPENAI_SHA256, group="open_clip"),
    "clap tokenizer": Weights("roberta-base", f"{HUB}FacebookAI/roberta-base", hub_file="config.json"),
}


def find_weights(name: str, weights_dir: Path) -> Path:
    """A network's file or folder: in `weights_dir`, else in the cache of torch's or of Hugging Face's hub.

    Raises:
        InputError: when it is nowhere, or its hash is not the published one.
    """
    from huggingface_hub import try_to_load_from_cache

    weights = WEIGHTS[name]
    places = [weights_dir / weights.file, Path(torch.hub.get_dir()) / "checkpoints" / weights.file]
    if weights.hub_file:
        cached = try_to_load_from_cache(weights.source.removeprefix(HUB), weights.hub_file)
        if isinstance(cached, str):
            places.append(Path(cached) if weights.hub_file == weights.file else Path(cached).parent)
    path = next((place for place in places if place.exists()), None)
    if path is None:
        raise InputError(
            places[0],
            "no weights",
            f"the weights of {name} from {weights.source}",
            f"`bash scripts/download.sh {weights.group}` fetches them; --weights_dir names another folder; "
            "--random_weights does without.",
        )
    check_sha256(path, weights.sha256, weights.source)
    return path


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint file; LAION's lies beside counters of their training.

    Raises:
        InputError: when the file is no checkpoint of tensors.
    """
    scalar = np.core.multiarray.scalar if np.__version__ < "2" else np._core.multiarray.scalar
    number_types = [np.dtype, scalar, *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64"))]
    names = [(scalar, "numpy.core.multiarray.scalar")]  # what files written with numpy 1 call it
    try:
        with torch.serialization.safe_globals([*number_types, *names]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged archive makes torch raise
        found = f"no checkpoint that can be read ({str(error).splitlines()[0]})"
        raise InputError(path, found, "a PyTorch file of tensors", "Download it again.") from error
    return state.get("state_dict", state)


def load_network(name: str, weights_dir: Path) -> nn.Module:
    """Return a feature's network with its published weights, in evaluation mode.

    Raises:
        InputError: when the weights are absent, damaged or another network's.
    """
    path = find_weights(name, weights_dir)
    try:
        if name == "clip":
            from transformers import CLIPModel

            return CLIP(CLIPModel.from_pretrained(path, local_files_only=True)).eval()
        network = NETWORKS[name][0]()
        state = read_state(path)
        if name == "clap":
            load_laion_state(network.network, state)
        else:
            network.load_state_dict({key: x for key, x in state.items() if not key.startswith("fc.")})  # the classifier
    except (OSError, RuntimeError, ValueError) as error:
        found = f"another network's weights ({' '.join(str(error).split())[:200]})"
        raise InputError(path, found, f"those of {name}", f"Get them from {WEIGHTS[name].source}.") from error
    return network.eval()


def draw_network(name: str, kind: DrawnWeights, seed: int) -> nn.Module:
    """Return a feature's network with weights drawn from a seed, the same on every machine, in evaluation mode."""
    real, stand_in = NETWORKS[name]
    network = real() if kind == "real" else stand_in()
    draw_weights_of(network, seed)
    return network.eval()


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {  # each with its small stand-in
    "vggish": (VGGish, small.SmallVGGish),
    "res152": (resnet152_features, small.small_image_network),
    "r2plus1d_18": (r2plus1d_18_features, small.small_clip_network),
    "clip": (CLIP, small.small_clip),
    "clap": (CLAP, small.small_clap),
}
