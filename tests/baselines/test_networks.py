"""Networks of LEAP, MM-Pyramid and CoLeaF, where no case of the released code holds them: what they promise."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from baselines.cmpae.cmpae_network import CMPAE, CMPAEConfig, concentration, presence_logit, uncertainty
from baselines.coleaf.coleaf_network import CoLeaF
from baselines.leap.leap_network import (
    LEAP,
    LEAPConfig,
    LevelFusion,
    PyramidLevel,
    QueryNormLayer,
    attention_scores,
    seconds_within,
)
from models.han import HAN, HANConfig
from utils.errors import InputError

SMALL = HANConfig(dim=8, num_heads=2, ffn_dim=12, num_layers=2, encoder_order="parallel", visual_dropout=0.5)
SIZES = {"dim": 8, "num_heads": 2, "ffn_dim": 12, "num_layers": 2}
SMALL_CMPAE = CMPAEConfig(**SIZES, encoder_order="parallel", visual_dropout=0.5)
SMALL_LEAP = LEAPConfig(**SIZES, dropout=0.1)
WIDTHS = (4, (6, 5))  # audio, visual


def videos(number: int = 2, num_segments: int = 10) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(number, num_segments, 4, generator=draw), torch.randn(number, num_segments, 11, generator=draw)


def seeded(network: type[nn.Module], *args: object, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    return network(*args, **settings).eval()


def small_leap() -> LEAP:
    return seeded(LEAP, 3, *WIDTHS, SMALL_LEAP, torch.randn(3, 7, generator=torch.Generator().manual_seed(1)))


@torch.no_grad()
def test_without_cross_attention_no_modality_of_han_sees_the_other():
    model = seeded(HAN, 3, *WIDTHS, SMALL)
    audio, visual = videos()
    alone = model(audio, visual, with_cross_attention=False)
    other = model(audio, torch.zeros_like(visual), with_cross_attention=False)
    assert torch.equal(alone.logits.audio, other.logits.audio)
    crossed = model(audio, visual).logits.audio, model(audio, torch.zeros_like(visual)).logits.audio
    assert not torch.allclose(*crossed)


@torch.no_grad()
def test_han_can_be_configured_without_cross_attention():
    audio, visual = videos()
    with_it = seeded(HAN, 3, *WIDTHS, SMALL)
    without = seeded(HAN, 3, *WIDTHS, replace(SMALL, cross_attention=False))
    expected = with_it(audio, visual, with_cross_attention=False).video_probs
    assert torch.equal(without(audio, visual).video_probs, expected)


def test_only_visual_heads_see_the_visual_dropout():
    model = seeded(HAN, 3, *WIDTHS, replace(SMALL, dropout=0.0)).train()
    audio, visual = videos()
    first, second = model(audio, visual), model(audio, visual)
    assert torch.equal(first.logits.audio, second.logits.audio)
    assert torch.equal(first.features.visual, second.features.visual)
    assert not torch.allclose(first.logits.visual, second.logits.visual)


def test_evidence_of_presence_and_absence_shares_what_is_not_uncertain():
    logits = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) * 8
    alpha = concentration(logits)
    torch.testing.assert_close(torch.sigmoid(presence_logit(logits)), alpha[:, 0] / alpha.sum(dim=1))
    assert ((uncertainty(logits) > 0) & (uncertainty(logits) < 1)).all()
    assert uncertainty(torch.tensor([-10.0, -10.0])) > 0.99


def test_seconds_within_two_of_each_other_are_a_band():
    near = seconds_within(2, 5, torch.device("cpu"))
    assert near.tolist() == [[abs(s - t) <= 2 for t in range(5)] for s in range(5)]


@torch.no_grad()
def test_a_pyramid_level_sees_no_further_than_its_attention_and_convolution_reach():
    level = seeded(PyramidLevel, 1, SMALL_LEAP)  # attention of 2 seconds, convolution of 2 more
    audio, visual = (torch.randn(1, 12, 8, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    changed = visual.clone()
    changed[:, 0] += 1
    before, after = level(audio, visual), level(audio, changed)
    for one, other in zip(before, after, strict=True):
        differs = (one != other).any(dim=-1).squeeze(0)
        assert differs[:3].any() and not differs[5:].any()


@torch.no_grad()
def test_a_label_s_scores_are_its_attention_logits_averaged_over_the_heads():
    layer = seeded(QueryNormLayer, LEAPConfig(dim=12, num_heads=3, ffn_dim=10))
    queries, context = torch.randn(1, 3, 12), torch.randn(1, 5, 12)
    expected = scores_by_loops(layer.attention, queries[0], context[0])
    torch.testing.assert_close(attention_scores(layer, queries, context)[0], expected)


# ---- LEAP once more, from its specification with PyTorch's own attention and plain loops, one video at a time


def scores_by_loops(attention: nn.Module, queries: Tensor, segments: Tensor) -> Tensor:
    """QK' / sqrt(width of a head), averaged over the heads: (C, D), (T, D) -> (C, T)."""
    width, num_heads = queries.shape[1], attention.num_heads
    q = queries @ attention.in_proj_weight[:width].T + attention.in_proj_bias[:width]
    k = segments @ attention.in_proj_weight[width : 2 * width].T + attention.in_proj_bias[width : 2 * width]
    scores = torch.zeros(len(queries), len(segments), dtype=queries.dtype)
    for c in range(len(queries)):
        for t in range(len(segments)):
            for head_q, head_k in zip(q[c].chunk(num_heads), k[t].chunk(num_heads), strict=True):
                scores[c, t] += (head_q @ head_k) / len(head_q) ** 0.5 / num_heads
    return scores


def attend(layer: QueryNormLayer, x: Tensor, context: Tensor, blocked: Tensor | None = None) -> Tensor:
    """x + attention of the normalised x to the context: (T, D), (S, D) -> (T, D)."""
    theirs = nn.MultiheadAttention(x.shape[1], layer.attention.num_heads, dtype=x.dtype).eval()
    theirs.load_state_dict(layer.attention.state_dict())
    return x + theirs(layer.norm1(x), context, context, attn_mask=blocked)[0]


def feed_forward(layer: QueryNormLayer, x: Tensor) -> Tensor:
    return x + layer.linear2(layer.linear1(layer.norm2(x)).relu())


def gated(gates: nn.Module, own: Tensor, cross: Tensor) -> Tensor:
    both = torch.cat([own, cross], dim=1)
    return gates.own(both).sigmoid() * own + gates.cross(both).sigmoid() * cross


def convolved(convolution: nn.Module, x: Tensor, dilation: int) -> Tensor:
    """relu(x + 1x1(relu(3x1(x)))), the 3x1 convolution's taps `dilation` seconds apart: (T, D) -> (T, D)."""
    wide, narrow = convolution.wide, convolution.narrow
    rows = []
    for t in range(len(x)):
        row = wide.bias.clone()
        for tap in range(3):
            second = t + (tap - 1) * dilation
            if 0 <= second < len(x):
                row = row + wide.weight[:, :, tap] @ x[second]
        rows.append((x[t] + narrow.weight[:, :, 0] @ row.relu() + narrow.bias).relu())
    return torch.stack(rows)


def fused(fusion: LevelFusion, levels: list[Tensor]) -> Tensor:
    """The levels of each second as rows of one transformer layer, summed with sigmoid weights: (T, D)."""
    seconds = []
    for rows in zip(*levels, strict=True):
        stacked = torch.stack(rows)  # (L, D)
        stacked = feed_forward(fusion.layer, attend(fusion.layer, stacked, stacked))
        seconds.append(sum(fusion.weight(row).sigmoid() * row for row in stacked))
    return torch.stack(seconds)


def encoded_by_hand(encoder: nn.Module, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
    """(T, D) each."""
    audio_levels, visual_levels = [], []
    for number, level in enumerate(encoder.levels):
        reach = 2**number
        blocked = torch.tensor([[abs(s - t) > reach for t in range(len(audio))] for s in range(len(audio))])
        own_audio = feed_forward(level.self_audio, attend(level.self_audio, audio, audio, blocked))
        own_visual = feed_forward(level.self_visual, attend(level.self_visual, visual, visual, blocked))
        cross_audio = feed_forward(level.cross, attend(level.cross, audio, visual, blocked))
        cross_visual = feed_forward(level.cross, attend(level.cross, visual, audio, blocked))
        audio = convolved(level.convolution_audio, gated(level.gates_audio, own_audio, cross_audio), reach)
        visual = convolved(level.convolution_visual, gated(level.gates_visual, own_visual, cross_visual), reach)
        audio_levels.append(audio)
        visual_levels.append(visual)
    assert len(audio_levels) == 4
    return fused(encoder.fusion_audio, audio_levels), fused(encoder.fusion_visual, visual_levels)


def decoded_by_hand(decoder: nn.Module, labels: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (C, D) and segments (T, D) -> logits (T, C) and probabilities of presence (C,)."""
    for layer in decoder.layers:
        updated = attend(layer, labels, segments)
        labels = feed_forward(layer, updated)
    scores = scores_by_loops(decoder.layers[-1].attention, updated, segments)
    return scores.T, decoder.presence(labels).sigmoid()[:, 0]


@torch.no_grad()
def test_leap_is_what_its_specification_says():
    config = HANConfig(dim=12, num_heads=3, ffn_dim=10, num_layers=2)
    model = seeded(LEAP, 3, *WIDTHS, config, torch.randn(3, 7, generator=torch.Generator().manual_seed(1))).double()
    for parameter in model.parameters():  # biases and norms, too
        parameter.add_(0.3 * torch.randn_like(parameter))
    audio, visual = (x.double() for x in videos())
    output = model(audio, visual)
    labels = model.label_vectors @ model.project_labels.weight.T + model.project_labels.bias
    for b in range(2):
        audio_inputs = model.project_audio.features[0](audio[b])
        frames, clips = (
            model.project_visual.features[0](visual[b, :, :6]),
            model.project_visual.features[1](visual[b, :, 6:]),
        )
        visual_inputs = model.project_visual.fusion(torch.cat([frames, clips], dim=1))
        features = encoded_by_hand(model.encoder, audio_inputs, visual_inputs)
        for m, decoder in enumerate((model.decode_audio, model.decode_visual)):
            logits, presence = decoded_by_hand(decoder, labels, features[m])
            torch.testing.assert_close(output.features[m][b], features[m])
            torch.testing.assert_close(output.logits[m][b], logits)
            torch.testing.assert_close(output.modality_probs[m][b], presence)
        torch.testing.assert_close(output.visual_inputs[b], visual_inputs)


@torch.no_grad()
def test_leap_s_video_probability_is_that_of_the_surer_modality():
    output = small_leap()(*videos())
    assert torch.equal(output.video_probs, torch.maximum(*output.modality_probs))


@torch.no_grad()
def test_leap_tells_its_classes_apart_by_their_vectors_alone():
    model = small_leap()
    model.label_vectors[1] = model.label_vectors[0]
    logits = model(*videos()).logits.visual
    torch.testing.assert_close(logits[..., 0], logits[..., 1])
    assert not torch.allclose(logits[..., 0], logits[..., 2])


def test_leap_drops_a_tenth_of_its_attention_and_of_the_rest_what_it_is_told():
    model = LEAP(3, *WIDTHS, HANConfig(dim=8, num_heads=2, ffn_dim=12, num_layers=2, dropout=0.2))
    layers = [module for module in model.modules() if isinstance(module, QueryNormLayer)]
    assert len(layers) == 4 * 3 + 2 + 2 * 2  # levels, their fusion, decoders
    assert {(layer.attention.dropout.p, layer.dropout.p) for layer in layers} == {(0.1, 0.2)}


def linear_copies(layer: QueryNormLayer) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of queries, keys, values and output of a layer's attention."""
    attention = layer.attention
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    return [*zip(weights, biases, strict=True), (attention.out_proj.weight, attention.out_proj.bias)]


def test_leap_s_layers_begin_as_the_copies_that_the_released_code_makes():
    model = LEAP(3, *WIDTHS, LEAPConfig(dim=64, ffn_dim=48))
    levels = [layer for level in model.encoder.levels for layer in (level.self_audio, level.self_visual, level.cross)]
    fusion = [model.encoder.fusion_audio.layer, model.encoder.fusion_visual.layer]
    decoders = [*model.decode_audio.layers, *model.decode_visual.layers]
    for layer in (*levels, *fusion, *decoders):
        copies = linear_copies(layer)
        assert all(torch.equal(a, b) for copy in copies for a, b in zip(copy, copies[0], strict=True))
        assert copies[0][0].abs().max() <= 1 / 8 and copies[0][1].abs().max() <= 1 / 8  # of nn.Linear, 64 wide
        assert copies[0][1].abs().min() > 0
    for group in (levels, fusion, decoders):
        first, *others = group
        assert all(torch.equal(layer.linear1.weight, first.linear1.weight) for layer in others)
        assert all(torch.equal(layer.linear2.bias, first.linear2.bias) for layer in others)
        same = [torch.equal(layer.attention.in_proj_weight, first.attention.in_proj_weight) for layer in others]
        assert all(same) if group is not levels else not any(same)  # each layer of a level draws its attention
    assert not torch.equal(levels[0].linear1.weight, decoders[0].linear1.weight)
    assert not torch.equal(fusion[0].linear1.weight, decoders[0].linear1.weight)


def frames_and_clips() -> tuple[Tensor, Tensor, Tensor]:
    """Audio (2, 10, 4), eight frames a second that differ (2, 10, 8, 6), clips (2, 10, 5)."""
    draw = torch.Generator().manual_seed(5)
    return tuple(torch.randn(*shape, generator=draw) for shape in ((2, 10, 4), (2, 10, 8, 6), (2, 10, 5)))


@torch.no_grad()
@pytest.mark.parametrize("network", [CMPAE, CoLeaF])
def test_each_frame_of_a_second_is_projected_before_they_are_averaged(network: type[nn.Module]):
    model = seeded(network, 3, *WIDTHS, SMALL_CMPAE)
    audio, frames, clips = frames_and_clips()
    visual = torch.cat([frames.flatten(2), clips], dim=-1)
    anchor = getattr(model, "anchor", model)
    seconds = torch.zeros(2, 10, 8)
    for b in range(2):
        for t in range(10):
            for k in range(8):
                seconds[b, t] += torch.nn.functional.elu(anchor.fc_v[0](frames[b, t, k])) / 8
    fused = torch.nn.functional.elu(anchor.fc_fusion[0](torch.cat([seconds, anchor.fc_st(clips)], dim=-1)))
    torch.testing.assert_close(model(audio, visual).visual_inputs, fused)
    averaged = model(audio, torch.cat([frames.mean(dim=2), clips], dim=-1)).visual_inputs
    assert not torch.allclose(averaged, fused, atol=1e-3)
    alike = torch.cat([frames[:, :, :1].expand(-1, -1, 8, -1).flatten(2), clips], dim=-1)
    of_one = model(audio, torch.cat([frames[:, :, 0], clips], dim=-1))
    torch.testing.assert_close(model(audio, alike).video_probs, of_one.video_probs)


@torch.no_grad()
def test_coleaf_parses_by_its_anchor_alone():
    model = seeded(CoLeaF, 3, *WIDTHS, SMALL_CMPAE)
    audio, visual = videos()
    before = model(audio, visual).video_probs
    for reference in (model.audio_reference, model.visual_reference):
        for parameter in reference.parameters():
            parameter.zero_()
    assert torch.equal(model(audio, visual).video_probs, before)


@torch.no_grad()
def test_coleaf_s_anchor_parses_without_cross_attention_where_asked():
    model = seeded(CoLeaF, 3, *WIDTHS, SMALL_CMPAE)
    audio, visual = videos()
    alone = model(audio, visual, with_cross_attention=False)
    other = model(audio, torch.zeros_like(visual), with_cross_attention=False)
    assert torch.equal(alone.features.audio, other.features.audio)
    assert not torch.allclose(alone.features.audio, model(audio, visual).features.audio)


@torch.no_grad()
def test_a_reference_network_sees_its_own_modality_alone_and_its_tokens_start_equal():
    model = seeded(CoLeaF, 3, *WIDTHS, SMALL_CMPAE)
    for network, features in zip((model.audio_reference, model.visual_reference), videos(), strict=True):
        reference = network(features)
        assert reference.probs.shape == reference.token_probs.shape == (2, 3)
        assert reference.features.shape == (2, 10, 8)
        assert not network.class_tokens.any()


@torch.no_grad()
def test_a_reference_network_is_what_its_specification_says():
    model = seeded(CoLeaF, 3, *WIDTHS, SMALL_CMPAE).double()
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    visual, network = videos()[1].double(), model.visual_reference
    output, layer = network(visual), network.layer
    attention = nn.MultiheadAttention(8, 2, dtype=torch.double).eval()
    attention.load_state_dict(layer.self_attn.state_dict())
    for b in range(2):
        rows = torch.cat([network.class_tokens, network.project(visual[b : b + 1])[0]])  # (3 + T, D)
        rows = layer.norm1(rows + attention(rows, rows, rows)[0])
        rows = layer.norm2(rows + layer.linear2(layer.linear1(rows).relu()))
        tokens, segments = rows[:3], rows[3:]
        shares = network.fc_frame_att(segments).softmax(dim=0)
        torch.testing.assert_close(output.probs[b], (shares * network.fc_prob(segments).sigmoid()).sum(dim=0))
        torch.testing.assert_close(output.token_probs[b], torch.stack([token.mean() for token in tokens]).sigmoid())
        torch.testing.assert_close(output.features[b], segments)


def record_inputs(network: nn.Module, *names: str) -> dict[str, Tensor]:
    """What these layers of a network are given from now on, by name."""
    inputs = {}
    for name in names:
        getattr(network, name).register_forward_pre_hook(lambda _, given, name=name: inputs.update({name: given[0]}))
    return inputs


@torch.no_grad()
def test_only_the_visual_reference_pools_dropped_features_and_both_classify_them():
    model = seeded(CoLeaF, 3, *WIDTHS, replace(SMALL_CMPAE, dropout=0.0)).train()
    networks = (model.audio_reference, model.visual_reference)
    for network, features, drops_pooling in zip(networks, videos(), (False, True), strict=True):
        inputs = record_inputs(network, "fc_prob", "fc_frame_att")
        whole = network(features).features
        dropped = torch.where(inputs["fc_prob"] == 0, 0.0, 2 * whole)
        assert 0.3 < (dropped == 0).double().mean() < 0.7
        torch.testing.assert_close(inputs["fc_prob"], dropped)
        torch.testing.assert_close(inputs["fc_frame_att"], dropped if drops_pooling else whole)


def test_class_tokens_start_at_zero():
    assert not seeded(CoLeaF, 3, *WIDTHS, SMALL_CMPAE).audio_reference.class_tokens.any()


def test_every_trained_parameter_of_the_references_has_a_gradient():
    model = seeded(CoLeaF, 3, *WIDTHS, SMALL_CMPAE)
    for network, features in zip((model.audio_reference, model.visual_reference), videos(), strict=True):
        output = network(features)
        (output.probs.sum() + output.token_probs.sum()).backward()
        assert all(parameter.grad is not None for parameter in network.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("network", [HAN, CMPAE, CoLeaF])
@torch.no_grad()
def test_without_cross_attention_a_modality_does_not_see_the_other(network: type[nn.Module]):
    model = seeded(network, 3, *WIDTHS, SMALL if network is HAN else SMALL_CMPAE)
    audio, visual = videos()
    alone, without_visual = (model(audio, x, False).features.audio for x in (visual, torch.zeros_like(visual)))
    assert torch.equal(alone, without_visual) and not torch.allclose(alone, model(audio, visual).features.audio)


def test_leap_waits_for_vectors_of_the_width_of_glove_s():
    assert torch.equal(LEAP(3, *WIDTHS, SMALL_LEAP).label_vectors, torch.zeros(3, 300))


@pytest.mark.parametrize("network", [CMPAE, CoLeaF, LEAP])
def test_a_network_is_rebuilt_from_its_state(network: type[nn.Module]):
    vectors = [torch.randn(3, 7)] if network is LEAP else []
    model = seeded(network, 3, *WIDTHS, SMALL_LEAP if network is LEAP else SMALL_CMPAE, *vectors)
    state = model.state_dict()
    told = {"num_heads": 2} if network is LEAP else {"num_heads": 2, "encoder_order": "parallel"}
    rebuilt = network.from_state(state, **told).eval()
    rebuilt.load_state_dict(state)
    audio, visual = videos()
    assert torch.equal(rebuilt(audio, visual).video_probs, model(audio, visual).video_probs)
    assert rebuilt.sizes == {"num_classes": 3, "audio_dim": 4, "visual_dim": 11}


def test_cmpae_wants_frames_and_clips():
    with pytest.raises(InputError, match="frame and clip features"):
        CMPAE(3, 4, [6], SMALL_CMPAE)


@pytest.mark.parametrize("network", [CMPAE, CoLeaF])
@torch.no_grad()
def test_evidence_is_float32_where_the_network_computes_in_bf16(network: type[nn.Module]):
    output = seeded(network, 3, *WIDTHS, SMALL_CMPAE).bfloat16()(*(x.bfloat16() for x in videos()))
    outputs = [output.video_probs, *output.modality_probs, *output.logits]
    outputs += [output.video_uncertainty, *output.modality_uncertainty, *output.segment_uncertainty]
    assert {x.dtype for x in outputs} == {torch.float32}
