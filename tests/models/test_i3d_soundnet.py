"""I3D, SoundNet and how they are joined."""

import pytest
import torch
import torch.nn.functional as F

from models.i3d_soundnet import I3D, I3DSoundNet, SoundNet, pad_same, resample


def test_i3d_has_the_names_and_the_number_of_weights_of_the_common_port():
    state = I3D().state_dict()
    assert state["Conv3d_1a_7x7.conv3d.weight"].shape == (64, 3, 7, 7, 7)
    assert state["Mixed_4f.b2b.conv3d.weight"].shape == (128, 32, 3, 3, 3)
    assert state["logits.conv3d.weight"].shape == (400, 1024, 1, 1, 1)
    assert sum(p.numel() for p in I3D().parameters()) == 12_697_264  # with 400 logits, batch norm's gains included


def test_clips_of_any_length_become_400_numbers():
    network = I3D().eval()
    with torch.no_grad():
        assert network(torch.randn(2, 5, 3, 40, 40)).shape == (2, 400)
        assert network(torch.randn(1, 16, 3, 32, 32)).shape == (1, 400)


@pytest.mark.parametrize(
    ("length", "size", "step", "expected"), [(7, 7, 2, 4), (8, 3, 2, 4), (5, 3, 1, 5), (1, 3, 2, 1)]
)
def test_same_padding_yields_a_position_for_every_stride(length: int, size: int, step: int, expected: int):
    padded = pad_same(torch.ones(1, 1, length, length, length), (size,) * 3, (step,) * 3)
    assert F.max_pool3d(padded, size, step).shape[2:] == (expected,) * 3


def test_soundnet_hears_a_second_and_ten():
    network = SoundNet().eval()
    assert network.state_dict()["conv7.weight"].shape == (1024, 512, 4, 1)
    with torch.no_grad():
        assert network(torch.randn(2, 16_000)).shape == (2, 1024)
        assert network(torch.randn(1, 160_000)).shape == (1, 1024)


def test_resampling_keeps_a_tone():
    def tone(rate: int) -> torch.Tensor:
        return torch.sin(2 * torch.pi * 440 * torch.arange(rate) / rate)[None]

    torch.testing.assert_close(resample(tone(16_000), 16_000, 22_050), tone(22_050), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("fusion", "dim"), [("attention", 256), ("concatenation", 512), ("i3d", 256)])
def test_the_fusions_classify_clips(fusion: str, dim: int):
    network = I3DSoundNet(7, fusion).eval()
    features = torch.randn(3, 1, 400 if fusion == "i3d" else 1424)
    output = network.classify(features)
    assert output.logits.shape == (3, 7) and output.features.shape == (3, dim)


def test_the_gate_weighs_the_two_modalities_with_weights_that_sum_to_one():
    network = I3DSoundNet(7).eval()
    for parameter in network.gate.parameters():
        parameter.data.zero_()  # both weights are 1/2 then
    features = torch.randn(3, 1, 1424)
    seen, heard = features.squeeze(1).split([400, 1024], dim=-1)
    mean = F.relu((network.visual_proj(seen) + network.audio_proj(heard)) / 2)
    torch.testing.assert_close(network.classify(features).features, mean)


def test_only_what_joins_the_frozen_networks_is_trained():
    trained = {name.split(".")[0] for name, p in I3DSoundNet(7).named_parameters() if p.requires_grad}
    assert trained == {"visual_proj", "audio_proj", "gate", "classifier"}
