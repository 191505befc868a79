"""Layers of both networks against PyTorch's own."""

import pytest
import torch
from torch import nn

from models import HAN, HANConfig, TemporalTransformer, TemporalTransformerConfig
from models.layers import FastDropout, FastMultiheadAttention, MultiheadAttention, Packing
from utils.errors import InputError


@pytest.mark.parametrize("config", [HANConfig, TemporalTransformerConfig])
def test_a_width_that_cannot_be_divided_among_the_heads_is_refused(config):
    with pytest.raises(InputError, match="--num_heads: found 3 for a width of 16"):
        config(dim=16, num_heads=3)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_keeps_the_mean(p, dtype):
    torch.manual_seed(0)
    x = torch.ones(1000, 1001, dtype=dtype)
    out = FastDropout(p).train()(x)
    dropped = (out == 0).double().mean().item()
    assert abs(dropped - p) < 4 * (p * (1 - p) / x.numel()) ** 0.5 + 1 / 65536
    assert out.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-2 if dtype == torch.bfloat16 else 1e-4)
    assert out.dtype == dtype


def test_dropout_is_independent_between_elements_and_calls():
    torch.manual_seed(0)
    layer, x = FastDropout(0.5).train(), torch.ones(200_000)
    first, second = layer(x), layer(x)
    for one, other in ((first, second), (first[:-1], first[1:]), (first[:-4], first[4:])):
        assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.01


def test_dropout_masks_the_gradient_as_it_masks_the_input():
    torch.manual_seed(0)
    x = torch.randn(7, 13, requires_grad=True)
    out = FastDropout(0.4).train()(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(out == 0, 0.0, 1 / (1 - 0.4)), rtol=1e-4, atol=0)


def test_dropout_is_off_in_evaluation():
    x = torch.randn(3, 4)
    assert FastDropout(0.9).eval()(x) is x


def test_dropout_takes_sixteen_random_bits_an_element_and_no_more():
    x, p = torch.ones(1_000_004), 0.3
    torch.manual_seed(0)
    out, next_number = FastDropout(p).train()(x), torch.rand(1)
    torch.manual_seed(0)
    words = torch.empty(250_001, dtype=torch.int64).random_(-(2**63), None)  # four elements each
    kept = words.view(torch.int16).int() + 2**15 >= 19661  # 0.3 · 65536, rounded
    assert torch.equal(out > 0, kept)
    assert torch.equal(next_number, torch.rand(1))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", [MultiheadAttention, FastMultiheadAttention])
def test_attention_equals_pytorch_with_its_weights(kind, training):
    torch.manual_seed(0)
    ours = kind(16, 4).train(training)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).train(training)
    theirs.load_state_dict(ours.state_dict())
    query, context = torch.randn(3, 5, 16), torch.randn(3, 5, 16)
    for q, c in ((query, context), (query, query)):
        torch.testing.assert_close(ours(q, c), theirs(q, c, c)[0])


@pytest.mark.parametrize("kind", [MultiheadAttention, FastMultiheadAttention])
def test_attention_with_dropout_has_the_right_mean(kind):
    torch.manual_seed(0)
    layer = kind(8, 2, dropout=0.3)
    x = torch.randn(1, 5, 8)
    with torch.inference_mode():
        expected = layer.eval()(x, x)
        mean = layer.train()(x.expand(20_000, 5, 8), x.expand(20_000, 5, 8)).mean(0, keepdim=True)
    torch.testing.assert_close(mean, expected, atol=0.02, rtol=0)
    assert not torch.equal(layer(x, x), layer(x, x))


@pytest.mark.parametrize("kind", [MultiheadAttention, FastMultiheadAttention])
def test_attention_starts_with_the_weights_that_pytorch_s_starts_with(kind):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4).state_dict()
    torch.manual_seed(0)
    ours = kind(16, 4).state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert torch.equal(ours[name], weight), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fast_attention_equals_the_plain_one_on_padded_videos(dtype):
    torch.manual_seed(0)
    plain, fast = MultiheadAttention(16, 4), FastMultiheadAttention(16, 4)
    fast.load_state_dict(plain.state_dict())
    plain, fast = plain.to(dtype), fast.to(dtype)
    query, context = torch.randn(3, 7, 16, dtype=dtype), torch.randn(3, 7, 16, dtype=dtype)
    mask = torch.arange(7) < torch.tensor([7, 4, 1]).unsqueeze(1)
    packing = Packing(mask, mask.flatten().nonzero().squeeze(1))
    packed = fast(packing.pack(query), packing.pack(context), packing)
    tolerance = {"atol": 2e-2, "rtol": 2e-2} if dtype == torch.bfloat16 else {"atol": 1e-6, "rtol": 1e-5}
    torch.testing.assert_close(packed, plain(query, context, mask[:, None, None, :])[mask], **tolerance)
    torch.testing.assert_close(fast(query, context), plain(query, context), **tolerance)


SIZES = {"dim": 8, "num_heads": 2, "ffn_dim": 12}


def encoders(layer_init: str) -> dict[str, nn.ModuleList]:
    """The layers of every encoder of both networks."""
    han = HAN(5, 6, (7,), HANConfig(**SIZES, layer_init=layer_init))
    config = TemporalTransformerConfig(**SIZES, layer_init=layer_init)
    transformer = TemporalTransformer(6, 7, 5, 4, config)
    return {
        "HAN": han.hat_encoder.layers,
        "audio": transformer.a_transformer["encoder"].layers,
        "visual": transformer.v_transformer["encoder"].layers,
    }


@pytest.mark.parametrize("encoder", ["HAN", "audio", "visual"])
def test_all_layers_start_with_the_same_weights_and_are_trained_apart(encoder: str):
    first, *others = [dict(layer.named_parameters()) for layer in encoders("equal")[encoder]]
    assert len(others) == 4
    for layer in others:
        assert layer.keys() == first.keys()
        for name, weight in layer.items():
            assert torch.equal(weight, first[name]) and weight is not first[name], name


@pytest.mark.parametrize("encoder", ["HAN", "audio", "visual"])
def test_layers_start_with_weights_of_their_own_where_asked(encoder: str):
    first, *others = [dict(layer.named_parameters()) for layer in encoders("independent")[encoder]]
    drawn = [name for name, weight in first.items() if weight.std() > 0]  # norms and some biases start as constants
    assert len(drawn) >= 4
    assert not any(torch.equal(layer[name], first[name]) for layer in others for name in drawn)


def test_the_two_encoders_of_the_temporal_transformer_start_apart():
    of_both = encoders("equal")
    assert not torch.equal(of_both["audio"][0].linear1.weight, of_both["visual"][0].linear1.weight)


def test_padding_changes_nothing_in_outputs_and_gradients():
    torch.manual_seed(0)
    sizes = {"audio_dim": 6, "visual_dim": 7, "audio_text_dim": 5, "visual_text_dim": 4}
    config = TemporalTransformerConfig(dim=8, num_heads=2, ffn_dim=12, num_layers=2, dropout=0.0)
    model = TemporalTransformer(**sizes, config=config)
    lengths = [9, 4, 1]
    audio, visual, texts = torch.randn(3, 9, 6), torch.randn(3, 9, 7), (torch.randn(3, 5), torch.randn(3, 4))
    mask = torch.arange(9) < torch.tensor(lengths).unsqueeze(1)

    padded = model(audio, visual, *texts, mask)
    (padded.logits.audio.square()[mask].sum() + padded.logits.visual[mask].sum()).backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for n, length in enumerate(lengths):
        alone = model(audio[n : n + 1, :length], visual[n : n + 1, :length], *texts)
        torch.testing.assert_close(padded.logits.audio[n, :length], alone.logits.audio[0], atol=1e-5, rtol=1e-5)
        (alone.logits.audio.square().sum() + alone.logits.visual.sum()).backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-4, rtol=1e-4)


def test_what_lies_in_the_padding_does_not_matter():
    torch.manual_seed(0)
    config = TemporalTransformerConfig(dim=8, num_heads=2, ffn_dim=12, num_layers=1)
    model = TemporalTransformer(6, 7, 5, 4, config).eval()
    audio, visual, texts = torch.randn(2, 5, 6), torch.randn(2, 5, 7), (torch.randn(3, 5), torch.randn(3, 4))
    mask = torch.arange(5) < torch.tensor([5, 2]).unsqueeze(1)
    before = model(audio, visual, *texts, mask).logits.audio[mask]
    audio[~mask] = torch.nan
    assert torch.equal(model(audio, visual, *texts, mask).logits.audio[mask], before)
