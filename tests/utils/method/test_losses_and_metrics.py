"""Losses and metrics against numbers worked out by hand and literal loops."""

import math

import numpy as np
import pytest
import torch

from baselines.han import smooth_labels
from utils.audio_visual import AudioVisual
from utils.method import losses
from utils.method.losses import (
    audio_visual_loss,
    class_balance_weights,
    mixup_loss,
    segment_loss,
    soft_pseudo_labels,
    video_loss,
)
from utils.method.metrics import confusion_matrix, event_counts, parsing_scores, segment_accuracy, segment_counts
from utils.method.spans import maximal_spans


def runs(active: list[bool]) -> list[tuple[int, int]]:
    found, start = [], None
    for t, is_active in enumerate([*active, False]):
        if is_active and start is None:
            start = t
        elif not is_active and start is not None:
            found.append((start, t))
            start = None
    return found


def iou(a: tuple[int, int], b: tuple[int, int]) -> float:
    overlap = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return overlap / (a[1] - a[0] + b[1] - b[0] - overlap)


def test_spans_are_maximal_and_cover_what_is_active():
    first, end = maximal_spans(np.array([1, 1, 0, 1, 0, 0, 1, 1, 1], bool))
    assert (first.tolist(), end.tolist()) == ([0, 3, 6], [2, 4, 9])
    assert not len(maximal_spans(torch.zeros(4, dtype=torch.bool))[0])


def test_event_counts_equal_the_definition_spelled_out():
    generator = torch.Generator().manual_seed(0)
    for density in (0.2, 0.5, 0.8):
        prediction, truth = torch.rand(2, 20, 17, 3, generator=generator) < density
        counts = event_counts(prediction, truth)
        for n in range(20):
            for c in range(3):
                predicted, true = runs(prediction[n, :, c].tolist()), runs(truth[n, :, c].tolist())
                tp = sum(any(iou(p, t) >= 0.5 for t in true) for p in predicted)
                reached = sum(any(iou(p, t) >= 0.5 for p in predicted) for t in true)
                expected = (tp, len(predicted) - tp, len(true) - reached)
                assert (counts.tp[n, c], counts.fp[n, c], counts.fn[n, c]) == expected


def test_segment_counts_count_segments():
    prediction = torch.tensor([True, True, False, False]).view(1, 4, 1)
    truth = torch.tensor([True, False, True, False]).view(1, 4, 1)
    counts = segment_counts(prediction, truth)
    assert (counts.tp.item(), counts.fp.item(), counts.fn.item()) == (1, 1, 1)


def test_class_balance_weights_are_the_shares_of_absent_and_present_pseudo_labels():
    # Two segments, pseudo-labels 1 0 and 1 1: a quarter is 0, times W = 0.5 (Eq. 18); three quarters are 1 (Eq. 19).
    frequencies, labels = torch.tensor([1.0, 0.5]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    averaged = class_balance_weights(labels, frequencies, 0.5, "mean")
    assert averaged.tolist() == [[[0.125, 0.75]], [[0.75, 0.75]]]
    summed = class_balance_weights(labels, frequencies, 0.5, "sum")
    assert summed.tolist() == [[[0.25, 1.5]], [[1.5, 1.5]]]  # C = 2 times as much


def test_another_normalization_than_sum_and_mean_is_refused():
    with pytest.raises(ValueError, match="'sum' or 'mean'"):
        class_balance_weights(torch.ones(1, 2), torch.ones(2), 0.5, "median")


def test_the_segment_loss_is_a_weighted_mean_over_segments_and_classes():
    logits = torch.logit(torch.tensor([[[0.8, 0.5], [0.4, 0.9]]]))
    targets, weights = torch.tensor([[[1.0, 0.25], [0.0, 1.0]]]), torch.tensor([[[0.5, 2.0]]])
    terms = [0.5 * -math.log(0.8), 2 * -math.log(0.5), 0.5 * -math.log(0.6), 2 * -math.log(0.9)]
    assert segment_loss(logits, targets, weights).item() == pytest.approx(sum(terms) / 4)


def test_a_soft_label_is_one_half_where_the_logit_meets_its_threshold():
    logits, thresholds, labels = torch.tensor([[[3.0, 1.0]]]), torch.tensor([1.0, 1.0]), torch.ones(1, 2)
    soft = soft_pseudo_labels(logits, thresholds, labels, temperature=2.0)
    assert soft.flatten().tolist() == pytest.approx([1 / (1 + math.exp(-1)), 0.5])
    sharp = soft_pseudo_labels(logits, thresholds, labels, temperature=1.0)
    assert sharp.flatten().tolist() == pytest.approx([1 / (1 + math.exp(-2)), 0.5])


def test_the_mixup_loss_mixes_the_losses_of_both_segments_labels():
    logits, targets = torch.logit(torch.tensor([[0.8], [0.3]])), torch.tensor([[[1.0], [0.0]]])
    own = -math.log(0.8) - math.log(0.7)
    other = -math.log(0.2) - math.log(0.3)
    loss = mixup_loss(logits, targets, 0.9, torch.tensor([1, 0]))
    assert loss.item() == pytest.approx((0.9 * own + 0.1 * other) / 2)


def test_the_loss_of_stage_1_weighs_occurring_classes_and_leaves_out_padding():
    # One video of one second and a padded one. Class 0 occurs, class 1 does not; p_av = 0.5 * 0.4 and 0.8 * 0.5.
    logits = AudioVisual(*(torch.logit(torch.tensor([[p, [0.9, 0.9]]])) for p in ([0.5, 0.8], [0.4, 0.5])))
    labels, mask = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]), torch.tensor([[True, False]])
    loss = audio_visual_loss(logits, labels, mask, occurring_weight=5.0)
    assert loss.item() == pytest.approx((5 * -math.log(0.2) - math.log(0.6)) / 2)


def test_the_video_loss_of_certain_mistakes_is_finite():
    loss = video_loss(torch.tensor([[0.0, 1.0, 0.5]]), torch.tensor([[1.0, 0.0, 1.0]]))
    assert loss.item() == pytest.approx((2 * -math.log(1e-7) - math.log(0.5)) / 3, rel=0.01)


def test_a_loss_of_probabilities_that_are_not_numbers_is_none_either():
    assert video_loss(torch.tensor([[torch.nan, 0.5]]), torch.ones(1, 2)).isnan()


def test_smoothed_labels_are_drawn_towards_one_half():
    assert smooth_labels(torch.tensor([0.0, 1.0]), 0.1).tolist() == pytest.approx([0.05, 0.95])


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.float32, "numpy", "numpy int"])
def test_scores_take_zeros_and_ones_of_any_type(kind):
    torch.manual_seed(0)
    prediction, truth = (AudioVisual(*(torch.rand(2, 3, 8, 4) > 0.6)) for _ in range(2))

    def converted(events: torch.Tensor):
        if isinstance(kind, str):
            return events.numpy().astype(np.int64) if "int" in kind else events.numpy()
        return events.to(kind)

    given = prediction.map(converted), truth.map(converted)
    assert parsing_scores(*given) == parsing_scores(prediction, truth)
    single = prediction.audio & (torch.arange(4) == 1)
    assert segment_accuracy(converted(single), converted(single)) == 100
    assert confusion_matrix(converted(single), converted(single)).trace() == 24
    with pytest.raises(ValueError, match="decide by a threshold first"):
        parsing_scores(AudioVisual(*torch.rand(2, 3, 8, 4)), truth)


def test_mixup_follows_the_loss_of_the_segments(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(losses, "segment_loss", lambda logits, targets, weights=None: (logits - targets).abs().mean())
    logits, targets, permutation = torch.randn(6, 4), torch.rand(2, 3, 4), torch.randperm(6)
    flat = targets.flatten(0, 1)
    expected = 0.3 * (logits - flat).abs().mean() + 0.7 * (logits - flat[permutation]).abs().mean()
    torch.testing.assert_close(mixup_loss(logits, targets, 0.3, permutation), expected)
