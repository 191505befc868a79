"""The objective that stage 3 trains with, against the released code: every term, and their total.

The cases are those of `tests/test_reference_cases.py`; there the losses are called one by one, here `HANObjective` puts
them together from a batch, so that a threshold, a frequency or a label of the wrong modality is found.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dataloaders.batches import Batch, SegmentPseudoLabels
from tests.test_reference_cases import (
    Case,
    assert_equal_to_rounding,
    every_case_of,
    gradient_norm,
    han_of,
    visual_input,
)
from utils.audio_visual import MODALITIES, AudioVisual
from utils.method.objectives import HANLosses, HANObjective

# What the objective is told, and the name of its segment and mixup losses in the case.
VARIANTS = {
    "segment_soft_rw": {"segment_labels": "soft", "mixup_labels": "soft"},
    "segment_soft": {"segment_labels": "soft", "mixup_labels": "soft", "reweight": False},
    "segment_hard_rw": {"segment_labels": "hard", "mixup_labels": "hard"},
    "segment_hard": {"segment_labels": "hard", "mixup_labels": "hard", "reweight": False},
}


def batch_of(case: Case) -> Batch:
    """The whole case as one batch of its videos."""
    logits = AudioVisual(case["teacher_logits_audio"], case["teacher_logits_visual"])
    labels = AudioVisual(case["pseudo_audio"].bool(), case["pseudo_visual"].bool())
    return Batch(
        videos=torch.arange(len(case["video_labels"])),
        features=AudioVisual(case["in_audio"], visual_input(case)),
        mask=None,
        valid_rows=None,
        video_labels=case["video_labels"],
        labels=None,
        pseudo=SegmentPseudoLabels(logits, labels),
    )


def objective_of(case: Case, monkeypatch: pytest.MonkeyPatch, **settings: object) -> HANObjective:
    """The objective with the case's thresholds and frequencies, and its lambda and permutation for both modalities."""
    draw = case["mixup_lambda"], case["mixup_perm"]
    monkeypatch.setattr(HANObjective, "_draw_mixup", lambda self, features: draw)
    thresholds = AudioVisual(case["thresholds_audio"], case["thresholds_visual"])
    frequencies = AudioVisual(case["class_freq_audio"], case["class_freq_visual"])
    return HANObjective(HANLosses(**settings), thresholds, frequencies)


@every_case_of("han")
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_term_of_the_objective_equals_the_released_code(path: Path, variant: str, monkeypatch):
    case = Case(path)
    model, batch, precision = han_of(case), batch_of(case), case["in_audio"].dtype
    objective = objective_of(case, monkeypatch, **VARIANTS[variant])
    losses = objective(model(*batch.features), batch, model.fc_prob)
    assert_equal_to_rounding(losses["video"], case["loss/video"], "video", precision)
    labels = VARIANTS[variant]["mixup_labels"]
    for m in MODALITIES:
        assert_equal_to_rounding(losses[f"{m}_segment"], case[f"loss/{variant}_{m}"], f"{m} segment", precision)
        assert_equal_to_rounding(losses[f"{m}_mixup"], case[f"loss/mixup_{labels}_{m}"], f"{m} mixup", precision)


@every_case_of("han")
def test_the_total_of_the_objective_and_its_gradient_equal_the_released_code(path: Path, monkeypatch):
    case = Case(path)
    model, batch, precision = han_of(case), batch_of(case), case["in_audio"].dtype
    losses = objective_of(case, monkeypatch)(model(*batch.features), batch, model.fc_prob)
    assert_equal_to_rounding(losses["total"], case["loss/total"], "total", precision)
    losses["total"].backward()
    assert_equal_to_rounding(gradient_norm(model), case["grad_norm"], "gradient norm", precision)


@every_case_of("han")
def test_the_terms_are_weighted_as_the_settings_say(path: Path, monkeypatch):
    case = Case(path)
    model, batch = han_of(case), batch_of(case)
    objective = objective_of(case, monkeypatch, segment_weight=0.3, mixup_weight=2.0)
    losses = objective(model(*batch.features), batch, model.fc_prob)
    segment = losses["audio_segment"] + losses["visual_segment"]
    expected = losses["video"] + 0.3 * segment + 2.0 * (losses["audio_mixup"] + losses["visual_mixup"])
    torch.testing.assert_close(losses["total"], expected)


@every_case_of("han")
def test_exchanged_thresholds_are_noticed(path: Path, monkeypatch):
    case = Case(path)
    model, batch = han_of(case), batch_of(case)
    objective = objective_of(case, monkeypatch)
    swapped = replace(objective, thresholds=AudioVisual(*reversed(objective.thresholds)))
    output = model(*batch.features)
    right, wrong = (o(output, batch, model.fc_prob) for o in (objective, swapped))
    for m in MODALITIES:
        assert abs(right[f"{m}_segment"] - wrong[f"{m}_segment"]) > 1e-3
