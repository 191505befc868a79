"""Devices and precisions beside what PyTorch computes when it is told so by hand."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.training.device import PRECISIONS, DeviceSettings, Precision, default_generators, select_device

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def plain_precision_afterwards() -> Iterator[None]:
    yield
    Precision("float32", CPU)  # its flags are PyTorch's, for all tests


@dataclass(frozen=True)
class Output:
    both: AudioVisual[Tensor]
    one: Tensor


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(64, 8)

    def forward(self, audio: Tensor, visual: Tensor) -> Output:
        return Output(AudioVisual(self.linear(audio), self.linear(visual)), self.linear(audio + visual))


@pytest.mark.parametrize(
    ("name", "kind"), [("float32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_networks_compute_in_the_named_precision_and_their_outputs_are_float32(name: str, kind: torch.dtype):
    model = Network()
    audio, visual = torch.randn(2, 5, 64)
    output = Precision(name, CPU).run(model, audio, visual)
    weight, bias = (parameter.to(kind) for parameter in (model.linear.weight, model.linear.bias))
    for found, x in ((output.both.audio, audio), (output.both.visual, visual), (output.one, audio + visual)):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, F.linear(x.to(kind), weight, bias).float())
    assert model.linear.weight.dtype == torch.float32


@pytest.mark.parametrize("name", PRECISIONS)
def test_matrix_products_are_in_tf32_only_where_it_is_asked_for(name: str):
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    for backend in backends:
        backend.allow_tf32 = name != "tf32"
    Precision(name, CPU)
    assert all(backend.allow_tf32 == (name == "tf32") for backend in backends)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="float16"):
        Precision("float16", CPU)


def test_the_device_is_the_named_one_or_the_fastest_there_is():
    fastest = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert select_device() == torch.device(fastest)
    assert select_device("cpu") == CPU
    for absent in ("cuda:99", "abacus"):
        with pytest.raises(InputError, match="--device"):
            select_device(absent)


def test_kernels_are_deterministic_only_on_request(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        assert DeviceSettings("cpu").select()[0] == CPU
        assert not torch.are_deterministic_algorithms_enabled() and "CUBLAS_WORKSPACE_CONFIG" not in os.environ
        DeviceSettings("cpu", deterministic=True).select()
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")  # the two that NVIDIA calls deterministic
    finally:
        torch.use_deterministic_algorithms(False)
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def test_the_generators_of_the_cpu_are_what_it_draws_from():
    (generator,) = default_generators(CPU)
    state = generator.get_state()
    drawn = torch.rand(3)
    generator.set_state(state)
    assert torch.equal(torch.rand(3), drawn)
