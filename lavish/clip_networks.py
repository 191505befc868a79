"""From settings to a network with its weights: files are read, and loaded as a whole or not at all."""

import re
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import swin_transformer_v2, vision_transformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn

from lavish.clip_settings import ClassifierSettings
from lavish.i3d_soundnet import I3DSoundNet
from lavish.image_transformers import make_backbone
from lavish.lavish_network import LARGEST_SIZE, ClipNetworkSettings, LavishNetwork, from_released_state
from utils.errors import InputError
from utils.training.checkpoints import check_weights, load_checkpoint

RANDOM, HUB = "random", "hub"
FILES_OF_FOLDER = ("model.safetensors", "pytorch_model.bin")  # as the hub and timm lay them out
WRAPPERS = ("model", "state_dict")  # under which some files keep their state dict


def make_clip_network(settings: ClassifierSettings, num_classes: int) -> LavishNetwork | I3DSoundNet:
    """Make the network of the settings, with the weights that they name. Raises InputError when it cannot be made."""
    of_network = settings.network
    if settings.model == "i3d_soundnet":
        network = I3DSoundNet(num_classes, of_network.fusion, of_network.train_backbone)
        if of_network.backbone_weights != RANDOM:
            load_i3d_soundnet(network.backbone, Path(of_network.backbone_weights))
    else:
        network = _make_lavish(settings.model, of_network, settings.data.image_size, num_classes)
    path = of_network.network_weights
    if path is not None:
        try:
            state = from_released_state(read_weights(path))
        except ValueError as error:
            raise InputError(path, str(error), "weights of LAVISH as it was released", "Name other weights.") from error
        load_strictly(network, state, path)
    return network


def _make_lavish(model: str, settings: ClipNetworkSettings, image_size: int, num_classes: int) -> LavishNetwork:
    """Make LAVISH, or what it is compared with; only its backbone has weights."""
    weights, sizes = settings.backbone_weights, _sizes(settings.backbone_sizes or ())
    try:
        backbone = make_backbone(settings.backbone, image_size, sizes, settings.drop_path, pretrained=weights == HUB)
        if weights not in (RANDOM, HUB):
            load_backbone(backbone, Path(weights))
        return LavishNetwork(backbone, num_classes, model, settings)
    except (ValueError, RuntimeError, OSError) as error:
        found = f"{settings.backbone} for {image_size} pixels, weights {weights}: {str(error).splitlines()[0]}"
        expected = "a ViT or SwinV2 of timm, with sizes and weights that fit it"
        way_out = "Without a hub, name a file of weights, or train on --backbone_weights random (which is marked)."
        raise InputError("--backbone", found, expected, way_out) from error


def _sizes(pairs: Iterable[str]) -> dict[str, int | float]:
    """Read arguments of a network from `name=number`. Raises InputError for anything else, and numbers out of range."""
    sizes: dict[str, int | float] = {}
    for pair in pairs:
        match = re.fullmatch(r"(\w+)=(\d{1,9}(?:\.\d+)?)", pair)
        if match is None or not 0 < float(match[2]) <= LARGEST_SIZE:
            expected = f"<name>=<number above 0, at most {LARGEST_SIZE}>, such as depth=3"
            raise InputError("--backbone_sizes", pair, expected, "Correct the pair.")
        sizes[match[1]] = float(match[2]) if "." in match[2] else int(match[2])
    return sizes


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a whole state dict from a file of torch.save or safetensors, or a folder of the hub, or raise InputError."""
    places = [path, *(path / name for name in FILES_OF_FOLDER)]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        expected = f"a file of weights, or a folder with {' or '.join(FILES_OF_FOLDER)}"
        raise InputError(path, "no such file", expected, "Correct the path.")
    try:
        state = load_file(file) if file.suffix == ".safetensors" else load_checkpoint(file)
    except (SafetensorError, OSError) as error:
        raise InputError(file, f"no whole safetensors file ({error})", "one", "Copy or download it again.") from error
    state = next((state[name] for name in WRAPPERS if isinstance(state.get(name), dict)), state)
    if not state or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise InputError(file, "no state dict", "tensors by name", "Name the weights themselves, no other checkpoint.")
    check_weights(state, file)
    return state


def load_backbone(network: nn.Module, path: Path) -> None:
    """Load timm's weights, or the backbone of a checkpoint of ours, into a network of timm without its classifier."""
    state = read_weights(path)
    own = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    of_timm = swin_transformer_v2 if isinstance(network, SwinTransformerV2) else vision_transformer
    try:  # renamed for the timm of today; what depends on the size of images is resized to the network's
        renamed = of_timm.checkpoint_filter_fn(own or state, network)
        network.load_state_dict({key: value for key, value in renamed.items() if not key.startswith("head.")})
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise _other_network(network, path, error) from error


def load_i3d_soundnet(parts: nn.ModuleDict, folder: Path) -> None:
    """Load `i3d.pt` and `soundnet.pt` of a folder, without SoundNet's two classifiers on top of conv7, `conv8_*`."""
    if not folder.is_dir():
        expected = "random, or a folder with i3d.pt and soundnet.pt"
        raise InputError("--backbone_weights", str(folder), expected, "docs/lavish.md names the ports.")
    for name, part in parts.items():
        state = read_weights(folder / f"{name}.pt")
        used = {key: value for key, value in state.items() if not key.startswith("conv8_")}
        load_strictly(part, used, folder / f"{name}.pt")


def load_strictly(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load a state dict; `path` is where it is from. Raises InputError when it does not fit in every name and shape."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise _other_network(module, path, error) from error


def _other_network(module: nn.Module, path: Path, error: Exception) -> InputError:
    found = "weights of another network (" + " ".join(str(error).split()[:30]) + " ...)"
    return InputError(path, found, f"weights of {type(module).__name__}", "Name other weights.")
