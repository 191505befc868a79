"""Networks of LEAP, MM-Pyramid and CoLeaF, where no case of the released code holds them: what they promise."""

import pytest
import torch
from torch import Tensor, nn

from models.cmpae import CMPAE
from models.coleaf import CoLeaF
from models.evidence import concentration, presence_logit, uncertainty
from models.han import HAN, HANConfig
from models.leap import LEAP, attention_scores
from models.mm_pyramid import LevelFusion, PyramidLevel, QueryNormLayer, seconds_within
from utils.errors import InputError

SMALL = HANConfig(dim=8, num_heads=2, ffn_dim=12, num_layers=2, encoder_order="parallel", visual_dropout=0.5)
WIDTHS = (4, (6, 5))  # audio, visual


def videos(number: int = 2, num_segments: int = 10) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(number, num_segments, 4, generator=draw), torch.randn(number, num_segments, 11, generator=draw)


def seeded(network: type[nn.Module], *args: object, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    return network(*args, **settings).eval()


def small_leap() -> LEAP:
    return seeded(LEAP, 3, *WIDTHS, SMALL, torch.randn(3, 7, generator=torch.Generator().manual_seed(1)))


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
    without = seeded(HAN, 3, *WIDTHS, HANConfig(**{**vars(SMALL), "cross_attention": False}))
    expected = with_it(audio, visual, with_cross_attention=False).video_probs
    assert torch.equal(without(audio, visual).video_probs, expected)


def test_only_visual_heads_see_the_visual_dropout():
    model = seeded(HAN, 3, *WIDTHS, HANConfig(**{**vars(SMALL), "dropout": 0.0})).train()
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
    level = seeded(PyramidLevel, 1, 8, 2, 12, 0.2, 0.1)  # attention of 2 seconds, convolution of 2 more
    audio, visual = (torch.randn(1, 12, 8, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    changed = visual.clone()
    changed[:, 0] += 1
    before, after = level(audio, visual), level(audio, changed)
    for one, other in zip(before, after, strict=True):
        differs = (one != other).any(dim=-1).squeeze(0)
        assert differs[:3].any() and not differs[5:].any()


@torch.no_grad()
def test_fused_levels_are_a_sum_weighted_by_sigmoids():
    fusion = seeded(LevelFusion, 8, 2, 12, 0.2, 0.1)
    levels = [torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(s)) for s in range(4)]
    rows = torch.stack([level[1, 3] for level in levels]).unsqueeze(0)  # (1, 4, 8): one second of one video
    rows = fusion.layer(rows, rows)[0]
    by_hand = sum(torch.sigmoid(fusion.weight(row)) * row for row in rows)
    torch.testing.assert_close(fusion(levels)[1, 3], by_hand)


@torch.no_grad()
def test_a_label_s_scores_are_its_attention_logits_averaged_over_the_heads():
    layer = seeded(QueryNormLayer, 8, 2, 12, 0.0, 0.0)
    queries, context = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    attention = layer.attention
    q = queries @ attention.in_proj_weight[:8].T + attention.in_proj_bias[:8]
    k = context @ attention.in_proj_weight[8:16].T + attention.in_proj_bias[8:16]
    scores = attention_scores(layer, queries, context)
    for c in range(3):
        for t in range(5):
            heads = [(q[0, c, h : h + 4] @ k[0, t, h : h + 4]) / 4**0.5 for h in (0, 4)]
            assert scores[0, c, t].item() == pytest.approx(sum(heads).item() / 2, abs=1e-5)


@torch.no_grad()
def test_leap_s_video_probability_is_that_of_the_surer_modality():
    output = small_leap()(*videos())
    assert torch.equal(output.video_probs, torch.maximum(*output.modality_probs))
    assert output.logits.audio.shape == (2, 10, 3)


@torch.no_grad()
def test_leap_tells_its_classes_apart_by_their_vectors_alone():
    model = small_leap()
    model.label_vectors[1] = model.label_vectors[0]
    logits = model(*videos()).logits.visual
    torch.testing.assert_close(logits[..., 0], logits[..., 1])
    assert not torch.allclose(logits[..., 0], logits[..., 2])


@torch.no_grad()
def test_coleaf_parses_by_its_anchor_alone():
    model = seeded(CoLeaF, 3, *WIDTHS, SMALL)
    audio, visual = videos()
    before = model(audio, visual).video_probs
    for reference in (model.audio_reference, model.visual_reference):
        for parameter in reference.parameters():
            parameter.zero_()
    assert torch.equal(model(audio, visual).video_probs, before)


@torch.no_grad()
def test_a_reference_network_sees_its_own_modality_alone_and_its_tokens_start_equal():
    model = seeded(CoLeaF, 3, *WIDTHS, SMALL)
    for network, features in zip((model.audio_reference, model.visual_reference), videos(), strict=True):
        reference = network(features)
        assert reference.probs.shape == reference.token_probs.shape == (2, 3)
        assert reference.features.shape == (2, 10, 8)
        torch.testing.assert_close(reference.token_probs[:, 0], reference.token_probs[:, 1])


@pytest.mark.parametrize("network", [CMPAE, CoLeaF, LEAP])
def test_a_network_is_rebuilt_from_its_state(network: type[nn.Module]):
    vectors = [torch.randn(3, 7)] if network is LEAP else []
    model = seeded(network, 3, *WIDTHS, SMALL, *vectors)
    state = model.state_dict()
    rebuilt = network.from_state(state, num_heads=SMALL.num_heads, encoder_order="parallel").eval()
    rebuilt.load_state_dict(state)
    audio, visual = videos()
    assert torch.equal(rebuilt(audio, visual).video_probs, model(audio, visual).video_probs)
    assert rebuilt.sizes == {"num_classes": 3, "audio_dim": 4, "visual_dim": 11}


def test_cmpae_wants_frames_and_clips():
    with pytest.raises(InputError, match="frames and clips"):
        CMPAE(3, 4, [6], SMALL)
