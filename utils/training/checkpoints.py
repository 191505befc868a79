"""Checkpoints: plain state dicts in the released layout, and the full state of a training run."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from utils.errors import InputError
from utils.files import atomic_write

Network = TypeVar("Network", bound=nn.Module)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TYPES = (*FLOATS, torch.int32, torch.int64, torch.uint8, torch.bool)  # a state dict may contain counters


def save_checkpoint(state: dict, path: Path) -> None:
    """Write a checkpoint atomically. Raises InputError if the disk is full."""
    with atomic_write(path) as file:
        torch.save(state, file)


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint of tensors and plain containers without running code in a pickle, or raise InputError."""
    if not path.is_file():
        raise InputError(path, "no such file", "a checkpoint", "Pass a run whose training has saved a checkpoint.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise InputError(path, "no permission to read it", "a readable file", "Change its permissions.") from error
    except Exception as error:  # a damaged file may raise anything: IndexError, struct.error, ...
        refused = isinstance(error, pickle.UnpicklingError)  # PyTorch's own message advises loading it anyway
        reason = "a pickle of other objects, or damage" if refused else (str(error) or type(error).__name__)
        found = f"something other than an intact checkpoint ({reason.splitlines()[0]})"
        way_out = "Copy or download it again; pickles of other objects are refused, since loading them may run code."
        raise InputError(path, found, "a state dict saved by torch.save", way_out) from error
    if not isinstance(state, dict):
        raise InputError(path, f"a {type(state).__name__}", "a state dict", "Save `model.state_dict()`, not the model.")
    return state


def load_network(
    network: type[Network], path: Path, expected: Mapping[str, int], config: object = None, **settings: object
) -> Network:
    """Build a network such as `HAN` with the weights of a state dict in the released layout.

    `expected` are the sizes that the data require, such as `audio_dim`; `config` and `settings` are those of its
    `from_state`. Raises InputError for weights of another architecture and for weights that are not finite.
    """
    state = load_checkpoint(path)
    check_weights(state, path)
    try:
        model = network.from_state(state, config, **settings)
    except (AttributeError, IndexError, KeyError, ValueError, InputError) as error:
        raise other_architecture(path, network, error) from error
    sizes = model.sizes
    if unfit := [f"{name} {sizes[name]} instead of {size}" for name, size in expected.items() if sizes[name] != size]:
        expected = "sizes that match the chosen features and data set"
        way_out = "Choose the features and the data set of its training."
        raise InputError(path, f"a network with {', '.join(unfit)}", expected, way_out)
    load_strictly(model, state, path)
    check_weights(state, path, FLOATS)
    return model


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load the state dict read from a path. Raises InputError unless every name and shape fits."""
    try:
        network.load_state_dict(state)
    except (AttributeError, RuntimeError, TypeError) as error:
        raise other_architecture(path, type(network), error) from error


def other_architecture(path: Path, network: type[nn.Module], error: Exception) -> InputError:
    """Return the InputError for weights that do not fit a network, with the beginning of PyTorch's message."""
    reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:400]
    way_out = "Pass other weights, or the settings of their training."
    return InputError(path, f"weights of another architecture ({reason})", f"weights of {network.__name__}", way_out)


def check_weights(state: Mapping[str, object], path: Path, types: tuple[torch.dtype, ...] = TYPES) -> None:
    """Raise InputError for tensors of other types, with values that are not finite, or not stored as plain arrays."""

    def is_usable(tensor: Tensor) -> bool:
        if tensor.layout is not torch.strided or tensor.is_nested or tensor.device.type != "cpu":
            return False  # sparse, nested, or on the meta device
        stored = tensor.untyped_storage().nbytes() >= tensor.nbytes  # an expanded tensor could exhaust the memory
        return stored and tensor.dtype in types and bool(tensor.isfinite().all())

    tensors = {key: tensor for key, tensor in state.items() if isinstance(tensor, Tensor)}
    if unusable := [key for key, tensor in tensors.items() if not is_usable(tensor)]:
        kinds = ", ".join(f"{key} ({tensors[key].dtype}, {tensors[key].layout})" for key in unusable[:3])
        found = f"{len(unusable)} tensors that are not finite numbers, such as {kinds}"
        way_out = "Use another checkpoint of the run; these weights cannot be evaluated."
        raise InputError(path, found, "dense, finite weights of a floating-point type", way_out)
