"""Where each layer drops, and how much: a dropout of probability p stands here for a factor of 1 - p, its mean.

The expected values are the formulas of the papers written out, with the factor wherever the released code drops.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.cmpae.cmpae_network import CMPAE
from baselines.coleaf.coleaf_network import CoLeaF
from baselines.leap.leap_network import LEAPConfig, QueryNormLayer
from models.han import HAN, HANConfig, HANLayer
from models.layers import MultiheadAttention
from models.temporal_transformer import EncoderLayer, TemporalTransformerConfig

KEPT = 0.75  # of the dropout probability that the configs below have
SIZES = {"dim": 8, "num_heads": 2, "ffn_dim": 12, "dropout": 1 - KEPT}


def scaling(network: nn.Module) -> nn.Module:
    """The network with factors in place of its dropout, and with other weights and biases than norms start with."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.forward = lambda x, kept=1 - module.p: kept * x
    return network.eval()


def segments(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def attend(layer: MultiheadAttention, query: Tensor, context: Tensor, kept: float) -> Tensor:
    """Attention of each of two heads with its weights scaled: (B, T, D) -> (B, T, D)."""
    q, k, v = (
        F.linear(x, weight, bias)
        for x, weight, bias in zip(
            (query, context, context), layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3), strict=True
        )
    )
    heads = [
        kept * torch.softmax(q[..., h] @ k[..., h].transpose(1, 2) / 4**0.5, dim=-1) @ v[..., h]
        for h in (slice(0, 4), slice(4, 8))
    ]
    return layer.out_proj(torch.cat(heads, dim=-1))


def feed_forward(layer: nn.Module, x: Tensor, kept: float) -> Tensor:
    return kept * layer.linear2(kept * F.relu(layer.linear1(x)))


@torch.no_grad()
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_a_hybrid_attention_layer_drops_attention_weights_hidden_units_and_what_each_sublayer_adds(pre_norm, alone):
    layer = scaling(HANLayer(HANConfig(**SIZES, pre_norm=pre_norm)))
    x, other = segments(2, 3, 5, 8)
    query = layer.norm1(x) if pre_norm else x
    summed = x + KEPT * attend(layer.self_attn, query, query, KEPT)
    if not alone:
        summed = summed + KEPT * attend(layer.cm_attn, query, other, KEPT)
    if pre_norm:
        expected = summed + feed_forward(layer, layer.norm2(summed), KEPT)
    else:
        summed = layer.norm1(summed)
        expected = layer.norm2(summed + feed_forward(layer, summed, KEPT))
    torch.testing.assert_close(layer(x, None if alone else other), expected)


@torch.no_grad()
def test_a_layer_of_the_temporal_transformer_drops_where_pytorch_s_drops():
    layer = scaling(EncoderLayer(TemporalTransformerConfig(**SIZES)))
    theirs = nn.TransformerEncoderLayer(8, 2, 12, 1 - KEPT, batch_first=True)
    theirs.load_state_dict(layer.state_dict())
    x = segments(3, 5, 8)
    summed = theirs.norm1(x + KEPT * attend(layer.self_attn, x, x, KEPT))
    torch.testing.assert_close(layer(x, None), theirs.norm2(summed + feed_forward(theirs, summed, KEPT)))


@torch.no_grad()
def test_a_layer_of_mm_pyramid_drops_attention_weights_by_a_probability_of_their_own():
    layer = scaling(QueryNormLayer(LEAPConfig(**SIZES)))
    x, context = segments(2, 3, 5, 8)
    summed = x + KEPT * attend(layer.attention, layer.norm1(x), context, 0.9)
    torch.testing.assert_close(layer(x, context), summed + feed_forward(layer, layer.norm2(summed), KEPT))


@torch.no_grad()
def test_the_heads_of_han_take_visual_features_that_were_dropped_and_audio_features_that_were_not():
    model = scaling(HAN(3, 4, (6, 5), HANConfig(**SIZES, visual_dropout=0.5)))
    output = model(segments(2, 5, 4), segments(2, 5, 11))
    torch.testing.assert_close(output.logits.audio, model.fc_prob(output.features.audio))
    torch.testing.assert_close(output.logits.visual, model.fc_prob(0.5 * output.features.visual))


@torch.no_grad()
def test_cmpae_drops_a_fifth_of_the_context_of_absence_and_half_of_the_visual_features():
    model = scaling(CMPAE(3, 4, (6, 5), HANConfig(**SIZES, visual_dropout=0.5)))
    output = model(segments(2, 5, 4), segments(2, 5, 11))
    audio, visual = output.features.audio, 0.5 * output.features.visual
    for x, context, logits in ((audio, model.v2a, output.logits.audio), (visual, model.a2v, output.logits.visual)):
        context = F.leaky_relu(0.8 * context[0](audio + visual), 0.2)
        alphas = [
            torch.exp(evidence.clamp(-10, 10) / 0.8) + 1
            for evidence in (model.fc_prob(x), model.fc_prob_beta(x + context))
        ]
        torch.testing.assert_close(torch.sigmoid(logits), alphas[0] / sum(alphas))


@torch.no_grad()
@pytest.mark.parametrize(("modality", "kept"), [("audio", 1.0), ("visual", 0.5)])
def test_a_reference_of_coleaf_drops_half_before_its_classifier_and_the_visual_one_before_pooling_too(
    modality: str, kept: float
):
    networks = scaling(CoLeaF(3, 4, (6, 5), HANConfig(**SIZES)))
    model = {"audio": networks.audio_reference, "visual": networks.visual_reference}[modality]
    output = model(segments(2, 5, {"audio": 4, "visual": 11}[modality]))
    weights = torch.softmax(model.fc_frame_att(kept * output.features), dim=1)
    expected = (weights * torch.sigmoid(model.fc_prob(0.5 * output.features))).sum(dim=1)
    torch.testing.assert_close(output.probs, expected)
