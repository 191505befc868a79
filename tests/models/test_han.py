"""HAN beside sums written out by hand, where no case of the released code tells."""

import pytest
import torch
from torch import nn

from models.han import HAN, HANConfig, HANEncoder

SIZES = {"dim": 8, "num_heads": 2, "ffn_dim": 12, "num_layers": 1}


@torch.no_grad()
def test_after_pre_norm_layers_each_modality_has_a_norm_of_its_own():
    torch.manual_seed(0)
    encoder = HANEncoder(HANConfig(**SIZES, pre_norm=True, encoder_order="parallel")).eval()
    for norm in (encoder.final_norm_a, encoder.final_norm_v):
        nn.init.normal_(norm.weight)
    audio, visual = torch.randn(2, 3, 5, 8)
    (layer,) = encoder.layers
    encoded = encoder(audio, visual)
    torch.testing.assert_close(encoded.audio, encoder.final_norm_a(layer(audio, visual)))
    torch.testing.assert_close(encoded.visual, encoder.final_norm_v(layer(visual, audio)))


@pytest.mark.parametrize(
    ("config", "projection", "mmil"),
    [
        ({}, [(16, 11), (16, 16), (8, 16)], [(16, 8), (3, 16)]),
        ({"proj_hidden_dim": 7, "mmil_hidden_dim": 9}, [(7, 11), (7, 7), (8, 7)], [(9, 8), (3, 9)]),
    ],
)
def test_projections_are_twice_as_wide_as_the_encoder_inside_and_so_is_mmil_unless_told(config, projection, mmil):
    model = HAN(3, 4, (6, 5), HANConfig(**SIZES, num_proj_layers=3, num_mmil_layers=2, **config))

    def shapes(mlp: nn.Module) -> list[tuple[int, ...]]:
        return [tuple(layer.weight.shape) for layer in mlp.layers]

    assert shapes(model.fc_fusion) == projection
    assert shapes(model.fc_frame_att) == shapes(model.fc_av_att) == mmil
    assert shapes(model.fc_a) == [(16, 4), (8, 16)]


@torch.no_grad()
def test_pooling_weights_of_half_precision_still_sum_to_one():
    torch.manual_seed(0)
    model = HAN(3, 4, (6, 5), HANConfig(**SIZES)).bfloat16().eval()
    nn.init.zeros_(model.fc_prob.weight)
    nn.init.constant_(model.fc_prob.bias, 100.0)  # every segment has every event: only the weights are left
    output = model(torch.randn(2, 10, 4).bfloat16(), torch.randn(2, 10, 11).bfloat16())
    torch.testing.assert_close(output.modality_probs.audio, torch.ones(2, 3), rtol=0, atol=1e-6)
    torch.testing.assert_close(output.modality_probs.visual, torch.ones(2, 3), rtol=0, atol=1e-6)
    # Sum over modality and time of w_modal · w_time; both weights are softmaxes of their own heads.
    features = torch.stack(output.features, dim=2)
    time = model.fc_frame_att(features).float().softmax(dim=1)
    modality = model.fc_av_att(features).float().softmax(dim=2)
    torch.testing.assert_close(output.video_probs, (time * modality).sum(dim=(1, 2)), rtol=0, atol=1e-6)
