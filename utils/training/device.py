"""Devices and numerical precision."""

import dataclasses
import os
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.settings import settings_group

PRECISIONS = ("float32", "tf32", "bf16")


@settings_group
class DeviceSettings:
    """Settings of device and precision."""

    device: str = "auto"  # cpu, cuda, cuda:N or mps; auto: the fastest available
    deterministic: bool = False  # make results on CUDA reproducible, too; slower
    precision: Literal[tuple(PRECISIONS)] = "float32"  # precision of the networks
    # Ten-second videos are evaluated fastest in batches of 256 or more.
    eval_batch_size: PositiveInt = 256  # videos per batch in evaluation

    def select(self) -> tuple[torch.device, "Precision"]:
        """Return the device and the precision. Raises InputError if the device is not available."""
        device = select_device(self.device, self.deterministic)
        return device, Precision(self.precision, device)


@settings_group
class CompileSettings:
    """Settings of compilation."""

    compile: bool = False  # compile the network, with CUDA graphs on GPUs; takes a minute and needs a C++ compiler


def select_device(name: str = "auto", deterministic: bool = False) -> torch.device:
    """Return the named device, or CUDA, Apple's GPU or the CPU for "auto". Raises InputError if it is not available."""
    if deterministic:  # slower on CUDA; on the CPU, all kernels are deterministic
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # must be set before CUDA starts
        torch.use_deterministic_algorithms(True, warn_only=True)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        found = f"{name!r} ({str(error).splitlines()[0]})"
        raise InputError("--device", found, "cpu, cuda, cuda:N or mps", "`auto` chooses what is available.") from error
    return device


def machine_name(device: str) -> str:
    """Return processor, threads and PyTorch version in words, for tables."""
    chosen = select_device(device)
    if chosen.type == "cuda":
        return f"{torch.cuda.get_device_name(chosen)}, PyTorch {torch.__version__}"
    info = Path("/proc/cpuinfo")  # on Linux only
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.machine()
    threads = torch.get_num_threads()
    name = f"{processor}, {threads} thread{'s' * (threads != 1)}, PyTorch {torch.__version__}"
    return name if chosen.type == "cpu" else f"{chosen.type}, {name}"


def default_generators(device: torch.device) -> list[torch.Generator]:
    """Return the default random generators of the CPU and of a device."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        torch.cuda.init()  # creates the generators
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    elif device.type == "mps":
        generators.append(torch.mps._get_default_mps_generator())
    return generators


def compile_network(network: nn.Module, device: torch.device) -> Callable:
    """Compile a network for training, with CUDA graphs on GPUs, where the next call overwrites its output."""
    return torch.compile(network, mode="reduce-overhead" if device.type == "cuda" else None)


class Precision:
    """Precision of a network: "float32", "tf32" (faster products on CUDA) or "bf16"; parameters stay float32."""

    def __init__(self, name: str, device: torch.device):
        if name not in PRECISIONS:
            raise ValueError(f"precision is {name!r}; expected one of {PRECISIONS}")
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        torch.backends.cudnn.allow_tf32 = name == "tf32"
        self._context = torch.autocast(device.type, torch.bfloat16) if name == "bf16" else nullcontext()

    def context(self) -> AbstractContextManager:
        """Return the context for calling a network whose output is not a dataclass; for others there is `run`."""
        return self._context

    def run(self, model: Callable, *inputs: Tensor | None, **named: Tensor) -> object:
        """Call the model and convert the tensors of its output, a dataclass, to float32."""
        with self._context:
            output = model(*inputs, **named)
        values = vars(output).items()
        in_float32 = {n: x.map(Tensor.float) if isinstance(x, AudioVisual) else x.float() for n, x in values}
        return dataclasses.replace(output, **in_float32)
