"""Metrics against literal per-video loops, on random events."""

import torch

from utils.method.metrics import event_counts, segment_counts


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
