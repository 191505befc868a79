"""Class-wise gates, and scores of events in one modality alone, beside plain loops."""

import torch
from torch import Tensor

from baselines.cmpae.cmpae_decoding import CANDIDATES, search_gates
from utils.audio_visual import AudioVisual
from utils.method.decoding import gated_events
from utils.method.metrics import parsing_scores, unimodal_scores

N, T, C = 12, 10, 4


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def visual_f(prediction: Tensor, truth: Tensor) -> float:
    nothing = torch.zeros_like(truth)
    return parsing_scores(AudioVisual(nothing, prediction), AudioVisual(nothing, truth)).event.visual


def test_an_event_needs_its_segment_and_its_class_s_gate():
    segments, pooled, gates = drawn(N, T, C, seed=0), drawn(N, C, seed=1), torch.tensor([0.1, 0.4, 0.6, 0.9])
    events = gated_events(segments, pooled, 0.25, gates)
    for n in range(N):
        for t in range(T):
            for c in range(C):
                assert events[n, t, c].item() == bool(segments[n, t, c] >= 0.25 and pooled[n, c] >= gates[c])


def test_the_search_finds_what_a_plain_loop_over_classes_and_candidates_finds():
    segments, pooled, truth = drawn(N, T, C, seed=2), drawn(N, C, seed=3), drawn(N, T, C, seed=4) < 0.3
    gates_found, f_scores = search_gates(segments, pooled, truth, segment_threshold=0.25, others=0.45)
    for c in range(C):
        best, chosen = -1.0, 0.0
        for gate in CANDIDATES:
            gates = torch.full((C,), 0.45)
            gates[c] = gate
            score = visual_f(gated_events(segments, pooled, 0.25, gates), truth)
            if score >= best - 1e-9:
                best, chosen = max(best, score), gate
        assert gates_found[c].item() == chosen
        assert abs(f_scores[c].item() - best) < 1e-9
    assert gates_found.unique().numel() > 1


def test_of_equal_gates_the_largest_wins():
    everywhere = torch.ones(2, 3, 1), torch.ones(2, 1), torch.ones(2, 3, 1).bool(), 0.25, 0.45
    gate, f_score = search_gates(*everywhere)
    assert gate.item() == 0.7 and f_score.item() == 100
    assert search_gates(*everywhere, candidates=(0.6, 0.3))[0].item() == 0.6


def test_candidates_are_those_of_the_paper():
    assert CANDIDATES == (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)


def test_unimodal_scores_are_those_of_events_that_are_in_one_modality_alone():
    pa, pv, ta, tv = (drawn(N, T, C, seed=s) < 0.4 for s in range(4))
    events = AudioVisual(pa, pv), AudioVisual(ta, tv)
    ours, whole = unimodal_scores(*events), parsing_scores(*events)
    only = [torch.zeros_like(pa) for _ in range(4)]
    for n in range(N):
        for t in range(T):
            for c in range(C):
                only[0][n, t, c] = pa[n, t, c] and not pv[n, t, c]
                only[1][n, t, c] = pv[n, t, c] and not pa[n, t, c]
                only[2][n, t, c] = ta[n, t, c] and not tv[n, t, c]
                only[3][n, t, c] = tv[n, t, c] and not ta[n, t, c]
    expected = parsing_scores(AudioVisual(*only[:2]), AudioVisual(*only[2:]))
    for level in ("segment", "event"):
        own, alone, both = (getattr(scores, level) for scores in (ours, expected, whole))
        assert (own.audio, own.visual, own.event_at_av) == (alone.audio, alone.visual, alone.event_at_av)
        assert own.audio_visual == both.audio_visual
        assert own.type_at_av == (alone.audio + alone.visual + both.audio_visual) / 3
