"""The objective that stage 3 trains with, against the released code: every term, and their total.

The cases are those of `tests/test_reference_cases.py`; there the losses are called one by one, here `UWAVStep` puts
them together from a batch, so that a threshold, a frequency or a label of the wrong modality is found.
"""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dataloaders.batches import Batch, SegmentPseudoLabels
from models import HANOutput
from tests.test_reference_cases import (
    Case,
    assert_equal_to_rounding,
    build_han,
    every_case_of,
    gradient_norm,
    visual_input,
)
from utils.audio_visual import MODALITIES, AudioVisual
from utils.method import losses
from utils.method.losses import Losses, Moment, audio_visual_loss
from utils.method.uwav_objective import UWAVLosses, UWAVStep

# What the objective is told, and the name of its segment and mixup losses in the case.
VARIANTS = {
    "segment_soft_rw": {"segment_labels": "soft", "mixup_labels": "soft"},
    "segment_soft": {"segment_labels": "soft", "mixup_labels": "soft", "reweight": False},
    "segment_hard_rw": {"segment_labels": "hard", "mixup_labels": "hard"},
    "segment_hard": {"segment_labels": "hard", "mixup_labels": "hard", "reweight": False},
}


def make_batch(case: Case) -> Batch:
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


def run(network: nn.Module, *inputs: Tensor) -> HANOutput:
    return network(*inputs)


def make_step(case: Case, monkeypatch: pytest.MonkeyPatch, **settings: object) -> UWAVStep:
    """The step with the case's thresholds and frequencies, and its lambda and permutation for both modalities."""
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self: case["mixup_lambda"])
    monkeypatch.setattr(torch, "randperm", lambda number, device: case["mixup_perm"])
    thresholds = AudioVisual(case["thresholds_audio"], case["thresholds_visual"])
    frequencies = AudioVisual(case["class_freq_audio"], case["class_freq_visual"])
    return UWAVStep(UWAVLosses(**settings), thresholds, frequencies, run)


@every_case_of("han")
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_term_of_the_objective_equals_the_released_code(path: Path, variant: str, monkeypatch):
    case = Case(path)
    model, batch, precision = build_han(case), make_batch(case), case["in_audio"].dtype
    losses = make_step(case, monkeypatch, **VARIANTS[variant])(model, batch, Moment())
    assert_equal_to_rounding(losses["video"], case["loss/video"], "video", precision)
    labels = VARIANTS[variant]["mixup_labels"]
    for m in MODALITIES:
        assert_equal_to_rounding(losses[f"{m}_segment"], case[f"loss/{variant}_{m}"], f"{m} segment", precision)
        assert_equal_to_rounding(losses[f"{m}_mixup"], case[f"loss/mixup_{labels}_{m}"], f"{m} mixup", precision)


@every_case_of("han")
def test_the_total_of_the_objective_and_its_gradient_equal_the_released_code(path: Path, monkeypatch):
    case = Case(path)
    model, batch, precision = build_han(case), make_batch(case), case["in_audio"].dtype
    losses = make_step(case, monkeypatch)(model, batch, Moment())
    assert_equal_to_rounding(losses["total"], case["loss/total"], "total", precision)
    losses["total"].backward()
    assert_equal_to_rounding(gradient_norm(model), case["grad_norm"], "gradient norm", precision)


@every_case_of("han")
def test_the_terms_are_weighted_as_the_settings_say(path: Path, monkeypatch):
    case = Case(path)
    losses = make_step(case, monkeypatch, segment_weight=0.3, mixup_weight=2.0)(
        build_han(case), make_batch(case), Moment()
    )
    segment = losses["audio_segment"] + losses["visual_segment"]
    expected = losses["video"] + 0.3 * segment + 2.0 * (losses["audio_mixup"] + losses["visual_mixup"])
    torch.testing.assert_close(losses["total"], expected)


@every_case_of("han")
def test_exchanged_thresholds_are_noticed(path: Path, monkeypatch):
    case = Case(path)
    model, batch = build_han(case), make_batch(case)
    step = make_step(case, monkeypatch)
    swapped = replace(step, thresholds=AudioVisual(*reversed(step.thresholds)))
    right, wrong = (s(model, batch, Moment()) for s in (step, swapped))
    for m in MODALITIES:
        assert abs(right[f"{m}_segment"] - wrong[f"{m}_segment"]) > 1e-3


PLAIN_CLASSIFIER = nn.ModuleDict({"fc_prob": nn.Identity()})


def losses_of(
    settings: UWAVLosses,
    output: HANOutput,
    batch: Batch,
    thresholds: AudioVisual[Tensor] | None = None,
    frequencies: AudioVisual[Tensor] | None = None,
) -> Losses:
    """The losses of a network that always says the same, whose features are their own logits."""
    step = UWAVStep(settings, thresholds, frequencies, lambda network, *inputs: output)
    return step(PLAIN_CLASSIFIER, batch, Moment())


def test_mixup_draws_anew_for_each_modality_and_step(monkeypatch):
    draws: list[tuple[float, tuple[int, ...]]] = []  # lambda and permutation

    def record(logits: Tensor, targets: Tensor, lam: Tensor, permutation: Tensor) -> Tensor:
        draws.append((lam.item(), tuple(permutation.tolist())))
        return logits.sum()

    monkeypatch.setattr(losses, "mixup_loss", record)
    segments = AudioVisual(*torch.zeros(2, 4, 10, 1))
    labels = segments.audio[:, 0]
    batch = Batch(torch.arange(4), segments, None, None, labels, None, SegmentPseudoLabels(None, segments))
    output = HANOutput(labels, None, segments, segments, segments.visual)
    for _ in range(20):
        losses_of(UWAVLosses(segment_labels="hard", mixup_labels="hard", reweight=False), output, batch)
    assert [len(set(drawn)) for drawn in zip(*draws, strict=True)] == [40, 40]


@pytest.mark.parametrize("alpha", [0.5, 1.7])
def test_mixup_s_lambda_is_beta_distributed_and_its_permutation_is_of_all_segments(alpha: float, monkeypatch):
    torch.manual_seed(0)
    draws: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(losses, "mixup_loss", lambda logits, targets, lam, order: draws.append((lam, order)))
    step, features, num_draws = UWAVStep(UWAVLosses(mixup_alpha=alpha), None, None, run), torch.zeros(2, 3, 1), 2000
    for _ in range(num_draws):
        step.mixup(PLAIN_CLASSIFIER, features, features)
    lambdas, partners = map(torch.stack, zip(*draws, strict=True))
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(lambdas.mean().item() - 0.5) < 4 * (variance / num_draws) ** 0.5
    assert lambdas.var().item() == pytest.approx(variance, rel=0.1)
    assert (partners.sort(dim=1).values == torch.arange(6)).all()
    shares = torch.nn.functional.one_hot(partners, 6).double().mean(dim=0)  # of each partner of each segment
    torch.testing.assert_close(shares, torch.full((6, 6), 1 / 6).double(), atol=0.04, rtol=0)


def batch_of_one_segment(teacher_logits: AudioVisual[Tensor] | None = None) -> Batch:
    """The first of two classes occurs in the only video, of one segment."""
    pseudo = SegmentPseudoLabels(teacher_logits, AudioVisual(*torch.tensor([[[[True, False]]]] * 2)))
    labels = torch.tensor([[1.0, 0.0]])
    return Batch(torch.arange(1), AudioVisual(*torch.zeros(2, 1, 1, 2)), None, None, labels, None, pseudo)


@pytest.mark.parametrize(("normalization", "audio", "visual"), [("sum", 0.825, 0.475), ("mean", 0.4125, 0.2375)])
def test_segment_losses_are_weighed_by_each_modality_s_frequencies_and_the_chosen_w(
    normalization: str, audio: float, visual: float
):
    """Every probability is 1/2. Audio: (2 - 1.5)·0.3 where y = 1, 1.5 where y = 0; visual: (2 - 0.5)·0.3 and 0.5."""
    weighting = {"positive_weight": 0.3, "weight_normalization": normalization}
    settings = UWAVLosses(segment_labels="hard", mixup=False, **weighting)
    frequencies = AudioVisual(torch.tensor([1.0, 0.5]), torch.tensor([0.25, 0.25]))
    batch = batch_of_one_segment()
    output = HANOutput(batch.video_labels, None, batch.features, batch.features, None)
    losses = losses_of(settings, output, batch, frequencies=frequencies)
    assert losses["audio_segment"].item() == pytest.approx(audio * math.log(2))
    assert losses["visual_segment"].item() == pytest.approx(visual * math.log(2))


@pytest.mark.parametrize(("kind", "audio", "visual"), [("soft", 0.75, 0.25), ("ceiling", 1, 1)])
def test_mixed_features_learn_soft_labels_or_these_rounded_up(kind: str, audio: float, visual: float):
    """The cross-entropy of a logit z against a target q is log(1 + e^z) - q·z; z is 2, q of the absent class is 0."""
    logits = AudioVisual(*torch.tensor([[[[math.log(9), 5.0]]], [[[-math.log(9), 5.0]]]]))
    batch = batch_of_one_segment(logits)
    features = AudioVisual(*torch.full((2, 1, 1, 2), 2.0))
    output = HANOutput(batch.video_labels, None, features, features, None)
    settings = UWAVLosses(mixup_labels=kind, reweight=False)
    losses = losses_of(settings, output, batch, AudioVisual(*torch.zeros(2, 2)))
    for loss, target in ((losses["audio_mixup"], audio), (losses["visual_mixup"], visual)):
        assert loss.item() == pytest.approx(math.log(1 + math.exp(2)) - target)  # the mean of two classes


@pytest.mark.parametrize(
    ("mask", "weight", "segments", "positive", "negative"), [(None, 5, 2, 5, 7), ([[True, False]], 3, 1, 3, 1)]
)
def test_stage_1_weighs_segments_of_classes_that_occur_and_leaves_out_padding(
    mask: list[list[bool]] | None, weight: float, segments: int, positive: int, negative: int
):
    """Every probability is 1/4; the first of two classes occurs in the first of two segments, and weighs in both."""
    labels = torch.tensor([[[True, False], [False, False]]])
    zeros = AudioVisual(*torch.zeros(2, 1, 2, 2))
    mask = None if mask is None else torch.tensor(mask)
    loss = audio_visual_loss(zeros, labels, mask, weight)
    expected = -(positive * math.log(0.25) + negative * math.log(0.75)) / (2 * segments)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
