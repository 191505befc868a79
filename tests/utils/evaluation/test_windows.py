"""Overlapping windows, against a plain loop."""

import pytest
import torch
from torch import Tensor

from models import HAN, HANConfig, TemporalTransformer, TemporalTransformerConfig
from utils.audio_visual import AudioVisual
from utils.evaluation.windows import average_over_windows, han_probs, transformer_probs, window_starts
from utils.method.decoding import decode_segments


@pytest.fixture
def han() -> HAN:
    torch.manual_seed(0)
    return HAN(5, 6, [7], HANConfig(dim=16, num_heads=2, ffn_dim=24, num_layers=2)).eval()


def random_features(num_segments: int) -> AudioVisual[Tensor]:
    return AudioVisual(torch.randn(num_segments, 6), torch.randn(num_segments, 7))


@pytest.mark.parametrize(("num_segments", "window", "stride"), [(1, 10, 1), (7, 10, 3), (10, 10, 1), (23, 10, 4)])
def test_windows_cover_every_segment_and_end_with_the_video(num_segments: int, window: int, stride: int):
    starts = window_starts(num_segments, window, stride)
    covered = {t for start in starts for t in range(start, min(start + window, num_segments))}
    assert covered == set(range(num_segments))
    assert len(set(starts)) == len(starts) and all(start + window <= max(num_segments, window) for start in starts)


@pytest.mark.parametrize(("num_segments", "stride"), [(4, 1), (10, 1), (11, 1), (27, 1), (27, 4), (30, 10)])
def test_han_over_windows_is_the_mean_of_a_plain_loop(han: HAN, num_segments: int, stride: int):
    audio, visual = features = random_features(num_segments)
    result = han_probs(han, features, stride=stride)
    for t in range(num_segments):
        rows = []
        for start in window_starts(num_segments, 10, stride):
            end = min(start + 10, num_segments)
            if start <= t < end:
                output = han(audio[None, start:end], visual[None, start:end])
                segment = output.logits.map(lambda z, at=t - start: z[0, at].sigmoid())
                rows.append(torch.stack([*segment, output.video_probs[0]]))
        expected = torch.stack(rows).mean(dim=0)
        found = torch.stack([result.probs.audio[t], result.probs.visual[t], result.around.audio[t]])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(result.around.audio[t], result.around.visual[t])


def test_a_video_of_ten_segments_is_decoded_as_in_the_evaluation(han: HAN):
    audio, visual = features = random_features(10)
    result = han_probs(han, features)
    output = han(audio[None], visual[None])
    expected = decode_segments(output.logits, output.video_probs, threshold=0.4, gate=0.4)
    found = result.probs.map(lambda p, around: (p > 0.4) & (around > 0.4), result.around)
    assert torch.equal(found.audio, expected.audio[0]) and torch.equal(found.visual, expected.visual[0])
    assert found.audio.any() and not found.audio.all()


def test_each_modality_asks_its_own_pooled_probability_where_the_method_does(han: HAN):
    audio, visual = features = random_features(10)
    around = han_probs(han, features, decoding="modality").around
    expected = han(audio[None], visual[None]).modality_probs
    torch.testing.assert_close(around.audio, expected.audio.expand(10, -1))
    torch.testing.assert_close(around.visual, expected.visual.expand(10, -1))


def test_the_transformer_scores_any_events_and_a_half_stands_for_the_threshold():
    torch.manual_seed(0)
    model = TemporalTransformer(
        6, 7, 4, 5, TemporalTransformerConfig(dim=16, num_heads=2, ffn_dim=24, num_layers=1)
    ).eval()
    audio, visual = features = random_features(25)
    texts = AudioVisual(torch.randn(3, 4), torch.randn(3, 5))
    thresholds = AudioVisual(torch.tensor([0.2, -0.3, 0.0]), torch.tensor([0.1, -torch.inf, 0.3]))
    logits = model(audio[None], visual[None], *texts).logits
    result = transformer_probs(model, features, texts, thresholds)
    assert torch.equal(result.probs.audio > 0.5, logits.audio[0] > thresholds.audio)
    assert torch.equal(result.probs.visual > 0.5, logits.visual[0] > thresholds.visual)
    assert result.around is None
    without = transformer_probs(model, features, texts)
    torch.testing.assert_close(without.probs.audio, logits.audio[0].sigmoid())


def test_batches_of_windows_do_not_change_the_averages():
    features = AudioVisual(*torch.randn(2, 50, 3).double())
    some, all_at_once = (
        average_over_windows(lambda a, v: a * v + a.mean(dim=1, keepdim=True), features, 8, 3, batch_size)
        for batch_size in (2, 100)
    )
    torch.testing.assert_close(some, all_at_once)


def test_each_network_sees_as_much_as_its_training_videos_had():
    torch.manual_seed(0)
    features, texts = random_features(100), AudioVisual(torch.randn(3, 4), torch.randn(3, 5))
    config = TemporalTransformerConfig(dim=16, num_heads=2, ffn_dim=24, num_layers=1)
    transformer = TemporalTransformer(6, 7, 4, 5, config).train()  # with dropout, unless it is switched off
    found, expected = (
        transformer_probs(transformer, features, texts, **windows).probs
        for windows in ({}, {"window": 60, "stride": 30})
    )
    assert all(found.map(torch.equal, expected))
    parser = HAN(5, 6, [7], HANConfig(dim=16, num_heads=2, ffn_dim=24, num_layers=2)).train()
    found, expected = (han_probs(parser, features, **windows).probs for windows in ({}, {"window": 10, "stride": 1}))
    assert all(found.map(torch.equal, expected))
