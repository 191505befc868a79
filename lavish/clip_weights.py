"""Weights of the classifiers of clips: files are read, and loaded as a whole or not at all."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lavish.i3d_soundnet import without_unused
from lavish.image_transformers import as_of_today
from utils.errors import InputError
from utils.training.checkpoints import load_checkpoint

FILES_OF_FOLDER = ("model.safetensors", "pytorch_model.bin")  # as the hub and timm lay them out
WRAPPERS = ("model", "state_dict")  # under which some files keep their state dict


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a file of torch.save or safetensors, or from a folder that holds one as the hub lays it out.

    Raises:
        InputError: when there is none, or it is damaged or holds anything but tensors.
    """
    if path.is_dir():
        inside = [path / name for name in FILES_OF_FOLDER if (path / name).is_file()]
        if not inside:
            expected = f"{' or '.join(FILES_OF_FOLDER)} in it"
            raise InputError(path, "a folder without weights", expected, "Name a file of weights.")
        path = inside[0]
    if not path.is_file():
        raise InputError(path, "no such file", "a file or folder of weights", "Correct the path.")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else load_checkpoint(path)
    state = next((state[name] for name in WRAPPERS if isinstance(state.get(name), dict)), state)
    if not state or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise InputError(path, "no state dict", "tensors by name", "Name the weights themselves, no other checkpoint.")
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        way_out = "Copy or download it again."
        raise InputError(path, f"no whole safetensors file ({error})", "one", way_out) from error


def load_backbone(network: nn.Module, path: Path) -> None:
    """Load timm's weights, or the backbone of a checkpoint of ours, into a network of timm without its classifier.

    Raises:
        InputError: as `read_weights`, and when any weight of the network is missing, too many or of another shape.
    """
    state = read_weights(path)
    own = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    try:
        state = as_of_today(own or state, network)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise _other_network(network, path, error) from error
    load_strictly(network, state, path)


def load_i3d_soundnet(parts: nn.ModuleDict, folder: Path) -> None:
    """Load `i3d.pt` and `soundnet.pt` of a folder. Raises InputError as `load_backbone`."""
    for name, part in parts.items():
        path = folder / f"{name}.pt"
        load_strictly(part, without_unused(read_weights(path)), path)


def load_strictly(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load a state dict; `path` is where it is from. Raises InputError when it does not fit in every name and shape."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise _other_network(module, path, error) from error


def _other_network(module: nn.Module, path: Path, error: Exception) -> InputError:
    found = "weights of another network (" + " ".join(str(error).split()[:30]) + " ...)"
    return InputError(path, found, f"weights of {type(module).__name__}", "Name other weights.")
