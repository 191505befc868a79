"""Devices and numerical precision."""

import dataclasses
import os
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from utils.errors import InputError

PRECISIONS = ("float32", "tf32", "bf16")


def select_device(name: str = "auto", deterministic: bool = False) -> torch.device:
    """The device of a run: CUDA, else Apple's, else the CPU when `name` is "auto".

    Args:
        deterministic: choose kernels that give the same result in every run; slower on CUDA. The CPU's do anyway.

    Raises:
        InputError: when the named device is not there.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # has to be there before CUDA starts
        torch.use_deterministic_algorithms(True, warn_only=True)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            "--device",
            f"{name!r} ({str(error).splitlines()[0]})",
            "cpu, cuda, cuda:N or mps",
            "`auto` takes what is there.",
        ) from error
    return device


def compile_network(network: nn.Module, device: torch.device) -> Callable:
    """The network compiled for training: fewer, larger kernels, replayed as CUDA graphs on a GPU.

    What it returns is overwritten by its next call on a GPU: use it within a training step.
    """
    return torch.compile(network, mode="reduce-overhead" if device.type == "cuda" else None)


class Precision:
    """How a network computes: "float32", "tf32" (float32 with faster matrix products on CUDA) or "bf16".

    Parameters, losses and optimiser state are float32 in all three.
    """

    def __init__(self, name: str, device: torch.device):
        if name not in PRECISIONS:
            raise ValueError(f"precision is {name!r}; expected one of {PRECISIONS}")
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        torch.backends.cudnn.allow_tf32 = name == "tf32"
        self._context = torch.autocast(device.type, torch.bfloat16) if name == "bf16" else nullcontext()

    def run(self, model: Callable, *inputs: Tensor | None) -> object:
        """Call the model; the tensors of its output dataclass come back as float32."""
        with self._context:
            output = model(*inputs)
        return dataclasses.replace(
            output, **{f.name: getattr(output, f.name).float() for f in dataclasses.fields(output)}
        )
