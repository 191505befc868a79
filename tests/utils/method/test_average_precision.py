"""Average precision of spans: against its definition by literal loops, and against ActivityNet's own evaluation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.method.average_precision import Spans, average_precision, predicted_spans, temporal_iou

# Video, class, start, end; and the score of predicted ones.
TRUE = [(0, 0, 1, 4), (0, 0, 6, 9.5), (0, 1, 0, 10), (1, 0, 2, 7), (1, 1, 3.5, 5), (2, 1, 0, 2.5), (2, 1, 3, 9)]
PREDICTED = [
    *((0, 0, 1, 4, 0.9), (0, 0, 0, 5, 0.8), (0, 0, 5, 9, 0.75), (0, 0, 1, 9, 0.4), (1, 0, 3, 6, 0.85)),
    *((1, 0, 2, 8, 0.6), (2, 0, 0, 9, 0.7), (0, 1, 0, 4, 0.65), (0, 1, 5, 9, 0.62), (0, 1, 0, 9, 0.3)),
    *((1, 1, 3, 5, 0.95), (2, 1, 0, 9, 0.5), (2, 1, 0, 2, 0.45), (2, 1, 4, 9, 0.2)),
]
# What `compute_average_precision_detection` of ActivityNet's Evaluation/eval_detection.py (commit 2795199, run under
# Python 3) makes of them at tIoU 0.1 to 0.9.
OF_ACTIVITYNET = [
    [0.9166666667, 0.9166666667, 0.9166666667, 0.9166666667, 0.9166666667, 0.9166666667, 4 / 9, 4 / 9, 1 / 3],
    [0.9, 0.9, 0.9, 0.9, 0.75, 0.75, 0.6785714286, 0.3214285714, 0.0416666667],
]


def spans(rows: list[tuple]) -> Spans:
    columns = torch.tensor([(*row, 0) if len(row) == 4 else row for row in rows], dtype=torch.float64).view(-1, 5)
    return Spans(columns[:, 0].long(), columns[:, 1].long(), columns[:, 2:4], columns[:, 4])


def literal_average_precision(predicted: list[tuple], true: list[tuple], label: int, threshold: float) -> float:
    """The definition, one span after the other."""
    left = [row for row in true if row[1] == label]
    number, hits, found = len(left), [], 0.0
    for video, _, start, end, _ in sorted((row for row in predicted if row[1] == label), key=lambda row: -row[4]):
        ious = []
        for row in left:
            overlap = max(0, min(end, row[3]) - max(start, row[2])) if row[0] == video else 0
            ious.append(overlap / (end - start + row[3] - row[2] - overlap))
        hits.append(bool(ious) and max(ious) >= threshold)
        if hits[-1]:
            del left[ious.index(max(ious))]
    precisions = [sum(hits[: n + 1]) / (n + 1) for n in range(len(hits))]
    for n, hit in enumerate(hits):
        found += max(precisions[n:]) / number if hit else 0
    return found if number else math.nan


def test_hand_made_spans_score_as_activitynet_scores_them():
    found = average_precision(spans(PREDICTED), spans(TRUE), 2)
    np.testing.assert_allclose(found.T, OF_ACTIVITYNET, rtol=1e-9)


TIMES = st.tuples(st.integers(0, 9), st.integers(1, 6)).map(lambda pair: (pair[0], pair[0] + pair[1]))
PLACES = st.tuples(st.integers(0, 1), st.integers(0, 2), TIMES).map(lambda row: (row[0], row[1], *row[2]))
SCORES = st.permutations(range(12))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(places=st.lists(PLACES, max_size=12), true=st.lists(PLACES, max_size=8), scores=SCORES)
def test_average_precision_is_its_definition(places: list[tuple], true: list[tuple], scores: list[int]):
    predicted = [(*place, score / 12) for place, score in zip(places, scores, strict=False)]
    thresholds = (0.25, 0.5, 0.75)
    found = average_precision(spans(predicted), spans(true), 3, thresholds)
    wanted = [[literal_average_precision(predicted, true, c, threshold) for c in range(3)] for threshold in thresholds]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_true_span_is_hit_once_and_a_second_prediction_of_it_lowers_the_precision():
    true = spans([(0, 0, 0, 4), (0, 0, 6, 10)])
    twice = spans([(0, 0, 0, 4, 0.9), (0, 0, 0, 4, 0.8), (0, 0, 6, 10, 0.7)])
    assert average_precision(twice, true, 1, (0.5,)).item() == pytest.approx((1 + 2 / 3) / 2)


def test_a_class_without_truth_has_no_average_precision_and_one_without_predictions_has_0():
    found = average_precision(spans([(0, 0, 0, 4, 0.9)]), spans([(0, 1, 0, 4)]), 3, (0.5,))
    assert found[0, 1] == 0 and found[0, [0, 2]].isnan().all()


def test_the_iou_of_spans_is_their_overlap_divided_by_their_union():
    first, second = torch.tensor([[0.0, 4.0], [8.0, 9.0]]), torch.tensor([[2.0, 6.0], [0.0, 4.0], [1.0, 2.0]])
    assert temporal_iou(first, second).tolist() == [[pytest.approx(2 / 6), 1, 0.25], [0, 0, 0]]


def test_spans_are_the_runs_above_each_threshold_scored_by_their_mean_and_kept_once():
    probs = torch.zeros(2, 6, 2).double()
    probs[0, :, 1] = torch.tensor([0.0, 0.45, 0.85, 0.65, 0.0, 0.95])
    probs[1, :2, 0] = torch.tensor([0.35, 0.1], dtype=torch.float64)  # exactly 0.1 is not above it
    found = predicted_spans(probs)
    rows = zip(found.video.tolist(), found.label.tolist(), found.times.tolist(), found.score.tolist(), strict=True)
    assert sorted(rows) == [
        (0, 1, [1, 4], pytest.approx(0.65)),  # above 0.1 to 0.4
        (0, 1, [2, 3], pytest.approx(0.85)),  # above 0.7 and 0.8
        (0, 1, [2, 4], pytest.approx(0.75)),  # above 0.5 and 0.6
        (0, 1, [5, 6], pytest.approx(0.95)),
        (1, 0, [0, 1], pytest.approx(0.35)),
    ]


def test_nothing_predicted_is_no_span():
    found = predicted_spans(torch.zeros(2, 3, 4))
    assert len(found.video) == 0
    assert average_precision(found, spans([(0, 0, 0, 4)]), 4).nansum() == 0
