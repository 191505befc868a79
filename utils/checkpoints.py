"""Checkpoints: plain state dicts in the released layout, and the full state of a training run."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from utils.errors import InputError
from utils.files import atomic_write

Network = TypeVar("Network", bound=nn.Module)


def save_checkpoint(state: dict, path: Path) -> None:
    """Write a checkpoint atomically.

    Raises:
        InputError: when the disk is full.
    """
    with atomic_write(path) as file:
        torch.save(state, file)


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint without running any code that a pickle may hold; tensors come to the CPU.

    Raises:
        InputError: when the file is absent, damaged or holds anything but tensors and plain containers.
    """
    if not path.is_file():
        raise InputError(path, "no such file", "a checkpoint", "Name a run folder whose training has saved one.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            path,
            f"something other than a whole checkpoint ({reason})",
            "a state dict saved by torch.save",
            "Copy or download it again; pickles of other objects are refused, since loading them may run code.",
        ) from error
    if not isinstance(state, dict):
        raise InputError(path, f"a {type(state).__name__}", "a state dict", "Save `model.state_dict()`, not the model.")
    return state


def load_network(network: type[Network], path: Path, expected: Mapping[str, int], **settings: object) -> Network:
    """Build the network that a state dict in the released layout belongs to, with its weights.

    Args:
        network: `HAN` or `TemporalTransformer`; its sizes follow from the shapes in the file.
        expected: sizes that the data ask for, such as `audio_dim` or `num_classes`.
        settings: constructor arguments that shapes do not tell, such as the number of heads.

    Raises:
        InputError: when it is a state dict of another architecture, with the first differences.
    """
    state = load_checkpoint(path)
    try:
        dimensions = network.dimensions(state)
        unfit = [
            f"{name} {dimensions[name]} instead of {size}"
            for name, size in expected.items()
            if dimensions[name] != size
        ]
        if unfit:
            raise InputError(
                path,
                f"a network with {', '.join(unfit)}",
                "sizes that fit the chosen features and data set",
                "Choose the features and the data set that it was trained with.",
            )
        model = network(**dimensions, **settings)
        wanted = model.state_dict()
    except KeyError as error:
        raise _other_architecture(path, network, [f"{error.args[0]} is missing"]) from error
    except (AttributeError, IndexError, ValueError) as error:
        raise _other_architecture(path, network, [str(error)]) from error
    differences = [f"{key} is missing" for key in wanted if key not in state]
    differences += [f"{key} is unknown" for key in state if key not in wanted]
    differences += [
        f"{key} is {tuple(getattr(state[key], 'shape', ()))} instead of {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in state and getattr(state[key], "shape", None) != tensor.shape
    ]
    if differences:
        raise _other_architecture(path, network, differences)
    model.load_state_dict(state)
    return model


def _other_architecture(path: Path, network: type[nn.Module], differences: list[str]) -> InputError:
    shown = "; ".join(differences[:5]) + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
    return InputError(
        path,
        f"weights of another architecture ({shown})",
        f"a state dict of {network.__name__} in the released layout",
        "Name the checkpoint of the right stage, or give the settings that it was trained with.",
    )
