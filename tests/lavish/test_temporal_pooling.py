"""Pooling of frames into one feature of a clip, beside its definition written out."""

import math

import torch
from torch import nn

from lavish.lavish_network import TemporalPooling, sinusoids


def frames() -> torch.Tensor:
    return torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))


def test_positions_are_sines_and_cosines_of_falling_rates_in_turn():
    expected = [[f(t / 10_000 ** (2 * i / 6)) for i in range(3) for f in (math.sin, math.cos)] for t in range(4)]
    torch.testing.assert_close(sinusoids(4, 6), torch.tensor(expected))


def test_mean_pooling_averages_frames_and_no_pooling_leaves_them():
    torch.testing.assert_close(TemporalPooling(6, "mean")(frames()), sum(frames().unbind(1)) / 5)
    assert torch.equal(TemporalPooling(6, "none")(frames()), frames())
    assert TemporalPooling(6, "mean").out_dim == TemporalPooling(6, "none").out_dim == 6


@torch.no_grad()
def test_the_pooling_transformer_normalises_before_its_sublayers_and_at_its_end():
    torch.manual_seed(0)
    pooling = TemporalPooling(6, "transformer", width=8, num_heads=2, num_layers=1).eval()
    for parameter in pooling.parameters():
        nn.init.normal_(parameter, std=0.5)
    (layer,) = pooling.encoder.layers
    assert layer.linear1.weight.shape == (16, 8) and pooling.out_dim == 8
    x = pooling.proj(frames()) + sinusoids(5, 8)
    query = layer.norm1(x)
    x = x + layer.self_attn(query, query, query)[0]
    x = x + layer.linear2(layer.linear1(layer.norm2(x)).relu())
    torch.testing.assert_close(pooling(frames()), pooling.encoder.norm(x).mean(dim=1))
