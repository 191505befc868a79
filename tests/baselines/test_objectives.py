"""What JoMoLD, CMPAE, LSLD, LEAP and CoLeaF minimise, beside sums written out by hand."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from baselines.cmpae import CMPAEStep, mutual_learning_loss
from baselines.cmpae.cmpae_network import CMPAEConfig, CMPAEOutput
from baselines.coleaf import (
    WEIGHTS,
    CoLeaFStep,
    asymmetric_loss,
    class_correlation_loss,
    guidance_losses,
    guided_probs,
    reference_loss,
    unimodal_shares,
)
from baselines.coleaf.coleaf_network import CoLeaF, ReferenceOutput
from baselines.jomold import JoMoLDLosses, JoMoLDStep, cleaned_targets, noise_contrastive_loss
from baselines.jomold.noise_ratios import save_noise_ratios
from baselines.leap import LEAPStep, semantic_similarity_loss
from baselines.lsld import LSLDStep
from baselines.ma import segment_cosines
from dataloaders.batches import Batch, SegmentPseudoLabels
from train_han import Settings
from utils.audio_visual import AudioVisual
from utils.method.losses import Losses, Moment, Run
from utils.recipes import parse_recipe
from utils.settings import with_settings

B, T, C, D = 6, 4, 3, 5


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 0.9 + 0.05


def output(seed: int = 0) -> CMPAEOutput:
    def pair(*shape: int) -> AudioVisual[Tensor]:
        return AudioVisual(drawn(*shape, seed=seed + sum(shape)), drawn(*shape, seed=seed + 50 + sum(shape)))

    return CMPAEOutput(
        video_probs=drawn(B, C, seed=99),
        modality_probs=pair(B, C),
        logits=pair(B, T, C),
        features=pair(B, T, D),
        visual_inputs=drawn(B, T, D),
        video_uncertainty=drawn(B, seed=98),
        modality_uncertainty=pair(B, C).map(lambda x: 1 - x),
        segment_uncertainty=pair(B, T, C),
    )


def video_labels() -> Tensor:
    return (drawn(B, C, seed=7) < 0.6).float()


def batch(segments: AudioVisual[Tensor] | None = None, logits: AudioVisual[Tensor] | None = None) -> Batch:
    pseudo = SegmentPseudoLabels(logits=logits, labels=segments)
    return Batch(torch.arange(B), (), None, None, video_labels(), None, pseudo)


def smoothed() -> AudioVisual[Tensor]:
    return AudioVisual(video_labels(), 0.9 * video_labels() + 0.05)


def losses_of(method: str) -> object:
    """The settings of the losses in a method's recipe."""
    return parse_recipe(Settings, "", ["--method", method], ())[1].losses


def saying(said: CMPAEOutput) -> Run:
    def run(network: None, *inputs: bool) -> CMPAEOutput:
        assert not inputs, "the network ran a second time, without cross-attention"
        return said

    return run


def train() -> SimpleNamespace:
    """A training split of the videos of a batch."""
    names = tuple(map(str, range(C)))
    annotations = SimpleNamespace(dataset="LLP", classes=names, video_labels=video_labels().bool())
    return SimpleNamespace(annotations=annotations, device=torch.device("cpu"))


def losses_on_ratios(method: str, folder: Path, **settings: object) -> object:
    """The settings of a recipe that cleans labels, with noise ratios of 0.6 for audio and 0.9 for visual labels."""
    ratios = AudioVisual(torch.full((C,), 0.6), torch.full((C,), 0.9))
    save_noise_ratios(ratios, train().annotations, folder)
    return with_settings(losses_of(method), noise_ratio_dir=folder, **settings)


def step_losses(step: object, given: Batch, number: int = 0) -> Losses:
    return step(None, given, Moment(1, number))


def contrast(said: CMPAEOutput) -> Tensor:
    cosines = segment_cosines(*said.features, JoMoLDLosses.contrastive_temperature)
    return noise_contrastive_loss(cosines, JoMoLDLosses.contrastive_smoothing)


def bce(probs: Tensor, targets: Tensor) -> Tensor:
    return -(targets * probs.log() + (1 - targets) * (1 - probs).log()).mean()


@pytest.mark.parametrize("method", ["jomold", "jomold_base"])
def test_jomold_s_total_is_the_sum_of_its_paper(method: str, tmp_path: Path):
    said = output()
    audio_weight = 2 if method == "jomold" else 1
    expected = (
        audio_weight * bce(said.modality_probs.audio, video_labels())
        + bce(said.modality_probs.visual, smoothed().visual)
        + bce(said.video_probs, video_labels())
        + contrast(said)
    )
    settings = losses_on_ratios(method, tmp_path) if method == "jomold" else losses_of(method)
    losses = step_losses(JoMoLDStep(settings, train(), saying(said)), batch())
    torch.testing.assert_close(losses["total"], expected)
    assert losses.keys() == {"video", "audio_guided", "visual_guided", "contrastive", "total"}


@pytest.mark.parametrize("step", [0, 1])
def test_cmpae_teaches_the_modalities_in_even_batches_and_the_video_in_odd_ones(step: int, tmp_path: Path):
    said = output()
    expected = (
        2 * bce(said.modality_probs.audio, video_labels())
        + 0.6 * bce(said.modality_probs.visual, smoothed().visual)
        + 0.6 * bce(said.video_probs, video_labels())
        + contrast(said)
        + mutual_learning_loss(said, video_labels(), teach_video=step == 1)
    )
    losses = step_losses(CMPAEStep(losses_on_ratios("cmpae", tmp_path), train(), saying(said)), batch(), step)
    torch.testing.assert_close(losses["total"], expected)


def test_targets_are_cleaned_from_the_second_epoch_on_and_by_default_not_before(tmp_path: Path):
    said, calls = output(), []

    def parse_alone(network: None, *inputs: bool) -> CMPAEOutput:
        calls.append((inputs, torch.is_grad_enabled()))
        return said

    own = JoMoLDStep(losses_on_ratios("jomold", tmp_path), train(), parse_alone)
    first = own.learned_targets(None, batch(), Moment(1, 0))
    assert calls == []
    torch.testing.assert_close(first, smoothed())
    second = own.learned_targets(None, batch(), Moment(2, 0))
    assert calls == [((False,), False)]  # without cross-attention, without gradients
    ratios = AudioVisual(torch.full((C,), 0.6), torch.full((C,), 0.9))
    expected = cleaned_targets(said.modality_probs, smoothed(), ratios, video_labels())
    torch.testing.assert_close(second, expected)
    assert not torch.equal(second.visual, first.visual)
    sooner = JoMoLDStep(losses_on_ratios("jomold", tmp_path, clean_from_epoch=1), train(), parse_alone)
    assert torch.equal(sooner.learned_targets(None, batch(), Moment(1, 0)).visual, second.visual)


def test_lsld_s_total_is_the_sum_of_its_paper():
    said = output()
    segments = AudioVisual((drawn(B, T, C, seed=3) < 0.4).float(), drawn(B, T, C, seed=4))
    losses = step_losses(LSLDStep(losses_of("lsld"), train(), saying(said)), batch(logits=segments.map(torch.logit)))
    expected = bce(said.video_probs, video_labels())
    for weight, logits, target in zip((3, 1), said.logits, segments, strict=True):
        expected = expected + weight * bce(torch.sigmoid(logits), target)
    torch.testing.assert_close(losses["total"], expected)
    assert losses.keys() == {"audio_segment", "visual_segment", "video", "total"}


def test_leap_s_total_is_the_sum_of_its_paper():
    said = output()
    segments = AudioVisual(*((drawn(B, T, C, seed=s) < 0.4) for s in (3, 4)))
    expected = semantic_similarity_loss(segments.map(Tensor.float), said.features)
    for logits, probs, target in zip(said.logits, said.modality_probs, segments.map(Tensor.float), strict=True):
        expected = expected + bce(torch.sigmoid(logits), target) + bce(probs, target.amax(dim=1))
    losses = step_losses(LEAPStep(losses_of("leap"), train(), saying(said)), batch(segments))
    torch.testing.assert_close(losses["total"], expected)


def test_the_class_correlation_loss_is_that_of_a_plain_loop():
    probs, guides = drawn(B, C, seed=1), drawn(B, C, seed=2)
    total = 0.0
    for b in range(B):
        for c in range(C):
            for k in range(C):
                total += float(guides[b, c] * guides[b, k] - probs[b, c] * probs[b, k]) ** 2
    assert class_correlation_loss(probs, guides).item() == pytest.approx(total * B / C, rel=1e-5)


def test_videos_weigh_in_the_contrastive_loss_and_the_mean_is_over_all_rows():
    cosines = drawn(B * T, T, seed=1) * 5
    weights = drawn(B, seed=2)
    of_videos = [noise_contrastive_loss(rows, JoMoLDLosses.contrastive_smoothing) for rows in cosines.split(T)]
    expected = sum(weight * loss for weight, loss in zip(weights, of_videos, strict=True)) / B
    torch.testing.assert_close(noise_contrastive_loss(cosines, JoMoLDLosses.contrastive_smoothing, weights), expected)


def test_a_reference_guides_only_labels_that_it_is_sure_of():
    anchor = torch.tensor([[0.3, 0.3, 0.3, 0.3]])
    reference = torch.tensor([[0.9, 0.5, 0.05, 0.9]])
    targets = torch.tensor([[1.0, 1.0, 1.0, 0.05]])
    guided = guided_probs(anchor, reference, targets, (0.1, 0.8))
    torch.testing.assert_close(guided, torch.tensor([[0.9, 0.3, 0.05, 0.05 * 0.9 + 0.95 * 0.3]]))


@pytest.mark.parametrize(("modality", "low", "high"), [("audio", 0.1, 0.8), ("visual", 0.4, 0.6)])
def test_a_reference_is_sure_from_the_thresholds_of_its_modality_on(modality: str, low: float, high: float):
    reference = torch.tensor([[low, low + 0.01, high - 0.01, high]])
    anchor, targets = torch.full((1, 4), 0.25, requires_grad=True), torch.ones(1, 4)
    guided = guided_probs(anchor, reference, targets, WEIGHTS._asdict()[modality].confident)
    torch.testing.assert_close(guided, torch.tensor([[low, 0.25, 0.25, high]]))
    assert not guided.requires_grad


def test_a_video_weighs_by_the_share_of_events_that_one_modality_has_alone():
    audio = torch.tensor([[0.9, 0.9, 0.1], [0.1, 0.1, 0.5], [0.9, 0.1, 0.1]])
    visual = torch.tensor([[0.9, 0.1, 0.1], [0.9, 0.1, 0.5], [0.1, 0.1, 0.1]])
    shares = unimodal_shares(AudioVisual(audio, visual))
    assert shares.audio.tolist() == [0.5, 0.0, 1.0] and shares.visual.tolist() == [0.0, 0.5, 0.0]


def reference(seed: int) -> ReferenceOutput:
    return ReferenceOutput(drawn(B, C, seed=seed), drawn(B, C, seed=seed + 1), drawn(B, T, D, seed=seed + 2))


@pytest.mark.parametrize(
    ("modality", "early_tokens", "tokens", "reaches"), [("audio", 1.2, 0.001, 0.5), ("visual", 1.0, 0.0, 0.6)]
)
def test_a_reference_learns_alone_for_three_epochs_and_then_from_the_anchor_too(
    modality: str, early_tokens: float, tokens: float, reaches: float
):
    own, targets, anchor = reference(20), torch.ones(B, C), drawn(B, C, seed=30)
    anchor[0, 0] = reaches
    early = asymmetric_loss(own.probs, targets) + early_tokens * asymmetric_loss(own.token_probs, targets)
    later = 0.5 * asymmetric_loss(own.probs, targets) + tokens * asymmetric_loss(own.token_probs, targets)
    later = later + 0.5 * asymmetric_loss(own.probs, targets * (anchor >= reaches))
    for epoch, expected in ((1, early), (3, early), (4, later)):
        loss = reference_loss(own, targets, anchor, WEIGHTS._asdict()[modality], epoch)
        torch.testing.assert_close(loss, expected)


def test_labels_are_confirmed_by_a_pass_of_its_own_and_references_see_averaged_frames(tmp_path: Path, monkeypatch):
    torch.manual_seed(0)
    network = CoLeaF(C, 4, (6, 5), CMPAEConfig(dim=8, num_heads=1, ffn_dim=8, num_layers=1, dropout=0.5)).train()
    frames, clips = drawn(B, T, 8, 6, seed=1), drawn(B, T, 5, seed=2)
    of_batch = batch()
    of_batch.features = AudioVisual(drawn(B, T, 4), torch.cat([frames.flatten(2), clips], dim=-1))
    passes, seen, confirming = [], [], []

    def run(module: torch.nn.Module, *inputs: Tensor | bool) -> object:
        found = module(*inputs)
        if module is network and len(inputs) == 2:
            passes.append((found.modality_probs, torch.is_grad_enabled()))
        if module is network.visual_reference:
            seen.append(inputs[0])
        return found

    def remember(reference, targets, anchor_probs, weights, epoch):
        confirming.append(anchor_probs)
        return reference_loss(reference, targets, anchor_probs, weights, epoch)

    monkeypatch.setattr("baselines.coleaf.reference_loss", remember)
    step = CoLeaFStep(losses_on_ratios("coleaf", tmp_path), train(), run)
    step(network, of_batch, Moment(epoch=1), lambda: torch.zeros(()))
    (trained, with_gradients), (own, without) = passes
    assert with_gradients and not without and not torch.equal(trained.audio, own.audio)
    assert torch.equal(confirming[0], own.audio) and torch.equal(confirming[1], own.visual)
    torch.testing.assert_close(seen[0], torch.cat([frames.sum(dim=2) / 8, clips], dim=-1))


def test_guidance_changes_the_anchor_and_not_the_references():
    said = output()
    said.modality_probs = said.modality_probs.map(lambda p: p.requires_grad_())
    said.features = said.features.map(lambda f: f.requires_grad_())
    references = AudioVisual(reference(40), reference(50))
    labels = video_labels()
    losses = guidance_losses(said, references, AudioVisual(labels, labels), losses_of("coleaf"))
    losses["total"].backward()
    assert all(x.grad.abs().sum() > 0 for x in (*said.modality_probs, *said.features))
    expected = 1e-4 * (losses["audio_correlation"] + losses["visual_correlation"])
    expected = expected + 0.009 * losses["audio_reference_contrast"] + losses["visual_reference_contrast"]
    torch.testing.assert_close(losses["total"], expected)


def test_the_asymmetric_loss_forgives_probabilities_below_its_margin():
    probs = torch.tensor([0.03, 0.5])
    loss = asymmetric_loss(probs, torch.zeros(2))
    assert loss.item() == pytest.approx(-0.45 * math.log(0.55), rel=1e-5)


def test_the_asymmetric_loss_of_a_missed_event_is_finite():
    loss = asymmetric_loss(torch.zeros(1), torch.ones(1))
    assert loss.item() == pytest.approx(-math.log(1e-8), rel=1e-6)
