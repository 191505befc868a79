"""Layers of both networks against PyTorch's own."""

import pytest
import torch
from torch import nn

from models import TemporalTransformer
from models.layers import Dropout, MultiheadAttention


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_keeps_the_mean(p, dtype):
    torch.manual_seed(0)
    x = torch.ones(1000, 1001, dtype=dtype)
    out = Dropout(p).train()(x)
    dropped = (out == 0).double().mean().item()
    assert abs(dropped - p) < 4 * (p * (1 - p) / x.numel()) ** 0.5 + 1 / 65536
    assert out.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-2 if dtype == torch.bfloat16 else 1e-4)
    assert out.dtype == dtype


def test_dropout_is_independent_between_elements_and_calls():
    torch.manual_seed(0)
    layer, x = Dropout(0.5).train(), torch.ones(200_000)
    first, second = layer(x), layer(x)
    for one, other in ((first, second), (first[:-1], first[1:]), (first[:-4], first[4:])):
        assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.01


def test_dropout_masks_the_gradient_as_it_masks_the_input():
    torch.manual_seed(0)
    x = torch.randn(7, 13, requires_grad=True)
    out = Dropout(0.4).train()(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(out == 0, 0.0, 1 / (1 - 0.4)), rtol=1e-4, atol=0)


def test_dropout_is_off_in_evaluation():
    x = torch.randn(3, 4)
    assert Dropout(0.9).eval()(x) is x


def test_dropout_of_everything_is_refused():
    with pytest.raises(ValueError, match="below 1"):
        Dropout(1.0)


@pytest.mark.parametrize("training", [False, True])
def test_attention_equals_pytorch_with_its_weights(training):
    torch.manual_seed(0)
    ours = MultiheadAttention(16, 4).train(training)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).train(training)
    theirs.load_state_dict(ours.state_dict())
    query, context = torch.randn(3, 5, 16), torch.randn(3, 5, 16)
    for q, c in ((query, context), (query, query)):
        torch.testing.assert_close(ours(q, c), theirs(q, c, c)[0])


def test_attention_with_dropout_has_the_right_mean():
    torch.manual_seed(0)
    layer = MultiheadAttention(8, 2, dropout=0.3)
    x = torch.randn(1, 5, 8)
    with torch.inference_mode():
        expected = layer.eval()(x, x)
        mean = layer.train()(x.expand(20_000, 5, 8), x.expand(20_000, 5, 8)).mean(0, keepdim=True)
    torch.testing.assert_close(mean, expected, atol=0.02, rtol=0)


def test_padding_changes_nothing_in_outputs_and_gradients():
    torch.manual_seed(0)
    sizes = {"audio_dim": 6, "visual_dim": 7, "audio_text_dim": 5, "visual_text_dim": 4}
    model = TemporalTransformer(**sizes, dim=8, num_heads=2, ffn_dim=12, num_layers=2, dropout=0.0)
    lengths = [9, 4, 1]
    audio, visual, events = torch.randn(3, 9, 6), torch.randn(3, 9, 7), (torch.randn(3, 5), torch.randn(3, 4))
    mask = torch.arange(9) < torch.tensor(lengths).unsqueeze(1)

    padded = model(audio, visual, *events, mask)
    (padded.audio_logits.square()[mask].sum() + padded.visual_logits[mask].sum()).backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for n, length in enumerate(lengths):
        alone = model(audio[n : n + 1, :length], visual[n : n + 1, :length], *events)
        torch.testing.assert_close(padded.audio_logits[n, :length], alone.audio_logits[0], atol=1e-5, rtol=1e-5)
        (alone.audio_logits.square().sum() + alone.visual_logits.sum()).backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-4, rtol=1e-4)


def test_what_lies_in_the_padding_does_not_matter():
    torch.manual_seed(0)
    model = TemporalTransformer(6, 7, 5, 4, dim=8, num_heads=2, ffn_dim=12, num_layers=1).eval()
    audio, visual, events = torch.randn(2, 5, 6), torch.randn(2, 5, 7), (torch.randn(3, 5), torch.randn(3, 4))
    mask = torch.arange(5) < torch.tensor([5, 2]).unsqueeze(1)
    before = model(audio, visual, *events, mask).audio_logits[mask]
    audio[~mask] = torch.nan
    assert torch.equal(model(audio, visual, *events, mask).audio_logits[mask], before)
