"""Checkpoints: the released layout loads, everything else is refused with a reason, and a full disk harms nothing."""

import pickle
import resource
import signal
from pathlib import Path

import pytest
import torch

from models import HAN, HANConfig, TemporalTransformer, TemporalTransformerConfig
from utils.errors import InputError
from utils.training.checkpoints import load_checkpoint, load_network, save_checkpoint

ROOT = Path(__file__).parents[1]
SIZES = {"dim": 16, "ffn_dim": 24, "num_layers": 2, "num_heads": 2}


def han(**settings: object) -> HAN:
    return HAN(25, 6, (10, 8), HANConfig(**SIZES, **settings))


@pytest.fixture
def han_file(tmp_path):
    path = tmp_path / "han.pt"
    save_checkpoint(han().state_dict(), path)
    return path


def refused(path, message: str, network=HAN, expected=None, **settings) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_network(network, path, expected or {}, **settings)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"num_proj_layers": 2, "num_mmil_layers": 3, "pre_norm": True},
        {"num_proj_layers": 2, "num_mmil_layers": 2, "proj_hidden_dim": 7, "mmil_hidden_dim": 9},
    ],
)
def test_network_is_rebuilt_from_its_shapes(tmp_path, variant):
    model = han(**variant).eval()
    save_checkpoint(model.state_dict(), tmp_path / "han.pt")
    pre_norm = variant.get("pre_norm", False)
    loaded = load_network(HAN, tmp_path / "han.pt", {"num_classes": 25}, num_heads=2, pre_norm=pre_norm).eval()
    audio, visual = torch.randn(3, 10, 6), torch.randn(3, 10, 18)
    assert torch.equal(model(audio, visual).video_probs, loaded(audio, visual).video_probs)


def test_released_checkpoint_loads_as_it_is():
    path = ROOT / "tests/reference_cases/han_reference_checkpoint.pt"
    state = load_checkpoint(path)
    model = load_network(HAN, path, {}, num_heads=1)
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


def test_checkpoint_of_another_stage_is_refused(tmp_path):
    transformer = TemporalTransformer(config=TemporalTransformerConfig(**SIZES))
    save_checkpoint(transformer.state_dict(), tmp_path / "tt.pt")
    refused(tmp_path / "tt.pt", "weights of another architecture")


def test_checkpoint_for_other_features_or_classes_is_refused(han_file):
    refused(han_file, "visual_dim 18 instead of 20", expected={"visual_dim": 20})
    refused(han_file, "num_classes 25 instead of 28", expected={"num_classes": 28})


def test_missing_unknown_and_misshapen_weights_are_named(han_file):
    state = load_checkpoint(han_file)
    del state["hat_encoder.layers.1.norm2.bias"]
    state["extra"] = torch.zeros(1)
    state["fc_prob.bias"] = torch.zeros(7)
    save_checkpoint(state, han_file)
    refused(han_file, r"Missing key.* \"hat_encoder\.layers\.1\.norm2\.bias\"")
    refused(han_file, 'Unexpected key.* "extra"')
    refused(han_file, r"size mismatch for fc_prob\.bias.*\[7\].*\[25\]")


def test_number_of_heads_that_does_not_divide_is_refused(han_file):
    refused(han_file, "3 for a width of 16", num_heads=3)


def test_absent_file_is_named(tmp_path):
    refused(tmp_path / "nothing.pt", "no such file")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", pickle.dumps({"weights": print}, protocol=2)])
def test_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "bad.pt").write_bytes(content)
    refused(tmp_path / "bad.pt", "something other than an intact checkpoint")


def test_truncated_checkpoint_is_refused(han_file):
    han_file.write_bytes(han_file.read_bytes()[:-100])
    refused(han_file, "something other than an intact checkpoint")


def test_whole_model_instead_of_its_state_is_refused(tmp_path):
    torch.save(han(), tmp_path / "model.pt")
    refused(tmp_path / "model.pt", "something other than an intact checkpoint")


def test_tensor_instead_of_a_state_dict_is_refused(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    refused(tmp_path / "tensor.pt", "a Tensor")


def test_disk_that_fills_up_leaves_the_old_checkpoint(han_file):
    before = han_file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write beyond the limit fails with an error
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(InputError, match="no room left while writing"):
            save_checkpoint(han().state_dict(), han_file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert han_file.read_bytes() == before
    assert [path.name for path in han_file.parent.iterdir()] == [han_file.name]


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.to_sparse(),
        lambda tensor: tensor.to("meta"),
        lambda tensor: tensor.to(torch.float8_e4m3fn),
        lambda tensor: torch.zeros(1).expand(1 << 40),
        lambda tensor: tensor[:0],
        lambda tensor: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor * float("nan"),
        lambda tensor: [1.0, 2.0],
    ],
)
def test_tensors_of_kinds_that_no_network_has_are_refused(tmp_path, change):
    state = han().state_dict()
    for key in ("fc_prob.weight", "hat_encoder.layers.0.linear1.bias"):
        torch.save(state | {key: change(state[key])}, tmp_path / "han.pt")
        refused(tmp_path / "han.pt", "found", num_heads=2)


def test_a_file_of_30_000_layers_is_refused_at_once(tmp_path):
    state = han().state_dict()
    for layer in range(30_000):
        state[f"hat_encoder.layers.{layer}.linear1.weight"] = state["hat_encoder.layers.0.linear1.weight"]
    torch.save(state, tmp_path / "han.pt")
    refused(tmp_path / "han.pt", "100", num_heads=2)
