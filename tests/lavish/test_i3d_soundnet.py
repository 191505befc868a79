"""I3D, SoundNet and how they are joined, beside plain re-derivations from the papers' tables."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavish.i3d_soundnet import I3D, I3DSoundNet, SoundNet, Unit3D, pad_same, resample
from video.backbones.drawn_weights import draw_weights_of

State = dict[str, Tensor]


def drawn(network: nn.Module) -> nn.Module:
    """In float64 and evaluation mode, with weights that let signals through."""
    draw_weights_of(network)
    return network.double().eval()


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def assert_same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12 * expected.abs().max().item())


def test_i3d_has_the_names_and_the_number_of_weights_of_the_common_port():
    state = I3D().state_dict()
    assert state["Conv3d_1a_7x7.conv3d.weight"].shape == (64, 3, 7, 7, 7)
    assert state["Mixed_4f.b2b.conv3d.weight"].shape == (128, 32, 3, 3, 3)
    assert state["logits.conv3d.weight"].shape == (400, 1024, 1, 1, 1)
    assert sum(p.numel() for p in I3D().parameters()) == 12_697_264  # with 400 logits, batch norm's gains included


def padded(x: Tensor, kernel: int, stride: int, value: float, axes: tuple[int, ...] = (2, 3, 4)) -> Tensor:
    """TensorFlow's "same": ceil(n / stride) positions, one more at the end where the padding is odd."""
    for axis in axes:
        n = x.shape[axis]
        total = max((math.ceil(n / stride) - 1) * stride + kernel - n, 0)
        before, after = list(x.shape), list(x.shape)
        before[axis], after[axis] = total // 2, total - total // 2
        x = torch.cat([x.new_full(before, value), x, x.new_full(after, value)], dim=axis)
    return x


def unit(x: Tensor, state: State, name: str, stride: int = 1) -> Tensor:
    weight = state[f"{name}.conv3d.weight"]
    x = F.conv3d(padded(x, weight.shape[-1], stride, 0.0), weight, stride=stride)
    gain, bias, mean, variance = (
        state[f"{name}.bn.{part}"].view(-1, 1, 1, 1) for part in ("weight", "bias", "running_mean", "running_var")
    )
    return ((x - mean) / (variance + 1e-3).sqrt() * gain + bias).clamp(min=0)


def mixed(x: Tensor, state: State, name: str) -> Tensor:
    pooled = F.max_pool3d(padded(x, 3, 1, -math.inf), 3, stride=1)
    branches = [
        unit(x, state, f"{name}.b0"),
        unit(unit(x, state, f"{name}.b1a"), state, f"{name}.b1b"),
        unit(unit(x, state, f"{name}.b2a"), state, f"{name}.b2b"),
        unit(pooled, state, f"{name}.b3b"),
    ]
    return torch.cat(branches, dim=1)


def i3d_by_the_paper(frames: Tensor, state: State) -> Tensor:
    """Inflated Inception-V1, figure 3 of Carreira and Zisserman, without its head: (B, 3, T, H, W)."""
    x = unit(frames, state, "Conv3d_1a_7x7", stride=2)
    x = F.max_pool3d(padded(x, 3, 2, -math.inf, (3, 4)), (1, 3, 3), stride=(1, 2, 2))
    x = unit(unit(x, state, "Conv3d_2b_1x1"), state, "Conv3d_2c_3x3")
    x = F.max_pool3d(padded(x, 3, 2, -math.inf, (3, 4)), (1, 3, 3), stride=(1, 2, 2))
    for name in ("Mixed_3b", "Mixed_3c"):
        x = mixed(x, state, name)
    x = F.max_pool3d(padded(x, 3, 2, -math.inf), 3, stride=2)
    for name in ("Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f"):
        x = mixed(x, state, name)
    x = F.max_pool3d(padded(x, 2, 2, -math.inf), 2, stride=2)
    for name in ("Mixed_5b", "Mixed_5c"):
        x = mixed(x, state, name)
    return x


def test_i3d_computes_what_the_papers_table_says():
    network = drawn(I3D())
    frames = random(1, 9, 3, 35, 40)  # odd lengths at every stage: 9 frames become 5, 3 and 2
    with torch.no_grad():
        maps = i3d_by_the_paper(frames.transpose(1, 2), network.state_dict())
        assert maps.shape == (1, 1024, 2, 2, 2)
        expected = network.logits.conv3d(maps.mean(dim=(2, 3, 4), keepdim=True)).flatten(1)
        assert_same(network(frames), expected)


def test_i3ds_batch_norms_move_by_a_hundredth_of_what_they_see():
    network = Unit3D(2, 3, (1, 1, 1)).train()
    x = random(4, 2, 2, 2, 2).float() + 5
    with torch.no_grad():
        seen = network.conv3d(x).mean(dim=(0, 2, 3, 4))
        network(x)
    torch.testing.assert_close(network.bn.running_mean, 0.01 * seen)


@pytest.mark.parametrize(("height", "width"), [(9, 8), (6, 9)])
def test_i3ds_logits_are_those_of_windows_of_two_steps_and_seven_by_seven_cells_averaged(height: int, width: int):
    network = I3D()
    for name, _ in list(network.named_children()):
        if name != "logits":
            setattr(network, name, nn.Identity())
    draw_weights_of(network)
    maps = random(2, 5, 1024, height, width)  # in place of frames
    windows = [
        maps[:, t : t + 2, :, top : top + 7, left : left + 7].mean(dim=(1, 3, 4))
        for t in range(4)
        for top in range(max(height - 6, 1))
        for left in range(width - 6)
    ]
    weight, bias = network.logits.conv3d.weight.double().flatten(1), network.logits.conv3d.bias.double()
    expected = torch.stack([window @ weight.T + bias for window in windows]).mean(dim=0)
    with torch.no_grad():
        assert_same(network.double()(maps), expected)


@pytest.mark.parametrize(
    ("length", "size", "step", "before", "after"),
    [
        (8, 7, 2, 2, 3),
        (7, 7, 2, 3, 3),
        (8, 3, 2, 0, 1),
        (5, 3, 1, 1, 1),
        (5, 2, 2, 0, 1),
        (4, 2, 2, 0, 0),
        (3, 1, 2, 0, 0),
    ],
)
def test_same_padding_adds_zeros_as_tensorflow_does(length: int, size: int, step: int, before: int, after: int):
    x = torch.ones(1, 1, length, 1, 1)
    row = pad_same(x, (size, 1, 1), (step, 1, 1)).flatten().tolist()
    assert row == [0.0] * before + [1.0] * length + [0.0] * after


def test_each_dimension_is_padded_for_its_own_length_kernel_and_stride():
    assert pad_same(torch.ones(1, 1, 8, 5, 4), (7, 3, 1), (2, 1, 1)).shape == (1, 1, 13, 7, 4)


# Filters, kernel, stride, padding and the pooling after it of conv1 to conv7, as Aytar et al. list them.
SOUNDNET = [
    (16, 64, 2, 32, 8),
    (32, 32, 2, 16, 8),
    (64, 16, 2, 8, None),
    (128, 8, 2, 4, None),
    (256, 4, 2, 2, 4),
    (512, 4, 2, 2, None),
    (1024, 4, 2, 2, None),
]


def soundnet_by_the_paper(samples: Tensor, state: State) -> Tensor:
    """(B, L) in SoundNet's range of -256 to 256 -> (B, 1024, places)."""
    x = samples[:, None]
    for number, (width, kernel, stride, padding, pool) in enumerate(SOUNDNET, start=1):
        weight, bias = state[f"conv{number}.weight"].squeeze(-1), state[f"conv{number}.bias"]
        assert weight.shape[0] == width and weight.shape[2] == kernel
        x = F.conv1d(x, weight, bias, stride=stride, padding=padding)
        norm = {part: state[f"batchnorm{number}.{part}"][:, None] for part in ("weight", "bias")}
        mean, variance = (state[f"batchnorm{number}.running_{part}"][:, None] for part in ("mean", "var"))
        x = ((x - mean) / (variance + 1e-5).sqrt() * norm["weight"] + norm["bias"]).clamp(min=0)
        if pool:
            pool = min(pool, x.shape[-1])
            x = x[..., : x.shape[-1] // pool * pool].unflatten(-1, (-1, pool)).amax(dim=-1)
    return x


@pytest.mark.parametrize(
    ("length", "places"),
    [
        (47_999, 3),  # 66,149 samples at 22,050 Hz; layer by layer 33,075 / 8; 2,068 / 8; 130; 66; 34 / 4; 5; 3
        (1_601, 1),  # 2,206 samples; 1,104 / 8; 70 / 8; 5; 3; 2, of which the pooling takes what there is; 1; 1
    ],
)
def test_soundnet_computes_what_the_papers_table_says_on_sound_of_its_own_rate_and_range(length: int, places: int):
    network = drawn(SoundNet())
    samples = random(2, length) / 4
    resampled = torch.from_numpy(scipy.signal.resample(samples.numpy(), round(length * 22_050 / 16_000), axis=1))
    expected = soundnet_by_the_paper(256 * resampled, network.state_dict())
    assert expected.shape == (2, 1024, places)
    with torch.no_grad():  # sound is resampled in float32
        torch.testing.assert_close(network.float()(samples).double(), expected.mean(dim=-1), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("old", "new", "length"), [(16_000, 22_050, 3_001), (22_050, 16_000, 3_000), (16_000, 16_000, 9)]
)
def test_resampling_is_scipys_by_fourier_transform(old: int, new: int, length: int):
    samples = random(2, length)
    expected = scipy.signal.resample(samples.numpy(), round(length * new / old), axis=1)
    np.testing.assert_allclose(resample(samples, old, new).numpy(), expected, rtol=0, atol=1e-5)


def joined(fusion: str, train_backbone: bool = False) -> I3DSoundNet:
    """Without weights in its two networks, which `classify` does not use."""
    network = I3DSoundNet(7, fusion, train_backbone)
    network.backbone = nn.ModuleDict()
    return drawn(network)


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


@pytest.mark.parametrize("fusion", ["attention", "concatenation", "i3d"])
def test_fusions_compute_what_the_report_says(fusion: str):
    network = joined(fusion)
    state, seen, heard = network.state_dict(), random(3, 400), random(3, 1024).flip(0)
    visual = linear(seen, state, "visual_proj")
    if fusion == "i3d":
        features, fused = seen, visual
    else:
        features, audio = torch.cat([seen, heard], dim=-1), linear(heard, state, "audio_proj")
        fused = both = torch.cat([visual, audio], dim=-1)
        if fusion == "attention":
            hidden = linear(both, state, "gate.0").clamp(min=0)  # 512 -> 64 -> 32 -> 2
            gates = linear(linear(hidden, state, "gate.2").clamp(min=0), state, "gate.4").exp()
            gates = gates / gates.sum(dim=-1, keepdim=True)
            fused = gates[:, :1] * visual + gates[:, 1:] * audio
            assert (hidden.shape[1], state["gate.2.bias"].shape[0]) == (64, 32)
    with torch.no_grad():
        output = network.classify(features.unsqueeze(1))
    assert_same(output.features, fused.clamp(min=0))
    assert_same(output.logits, linear(fused.clamp(min=0), state, "classifier"))


def test_half_of_the_fused_features_are_dropped_in_training_alone():
    network = joined("i3d")
    network.visual_proj.bias.data.fill_(1.0)
    network.visual_proj.weight.data.zero_()
    network.classifier = nn.Identity()
    torch.manual_seed(0)
    with torch.no_grad():
        output = network.train().classify(random(100, 1, 400))
        dropped = output.logits
        assert set(dropped.unique().tolist()) == {0.0, 2.0}
        assert 0.48 < (dropped == 0).double().mean() < 0.52 and (output.features == 1).all()
        assert (network.eval().classify(random(100, 1, 400)).logits == 1).all()


def test_a_clip_is_what_i3d_sees_and_soundnet_hears_side_by_side():
    network = drawn(I3DSoundNet(7)).float()
    frames, samples = random(1, 4, 3, 20, 20).float(), random(1, 8_000).float()
    with torch.no_grad():
        features = network.encode(frames, samples)
        seen, heard = network.backbone["i3d"](frames), network.backbone["soundnet"](samples)
        assert torch.equal(features, torch.cat([seen, heard], dim=-1)[:, None])
        assert torch.equal(network(frames, samples).logits, network.classify(features).logits)


def test_i3d_alone_hears_nothing():
    network = drawn(I3DSoundNet(7, "i3d"))
    assert network.has_visual and not network.has_audio and list(network.backbone) == ["i3d"]
    with torch.no_grad():
        assert network(random(1, 4, 3, 20, 20), None).logits.shape == (1, 7)


@pytest.mark.parametrize("train_backbone", [False, True])
def test_i3d_and_soundnet_are_trained_only_when_they_are_fine_tuned(train_backbone: bool):
    network = I3DSoundNet(7, train_backbone=train_backbone).train()
    trained = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"visual_proj", "audio_proj", "gate", "classifier"} | ({"backbone"} if train_backbone else set())
    assert network.training and network.frozen != train_backbone
    modes = {module.training for module in network.backbone.modules()}
    assert modes == {train_backbone}  # batch norm's statistics stay with frozen weights
