"""The baselines' training beside their authors' own training functions, step by step, in float64 and without dropout.

Network, losses, settings, optimiser and learning rates are the project's. A case begins with weights that its names and
shapes determine, and holds the loss of every step, and norm and sum of every weight after the last one. Cases are found
as in test_reference_cases.py; their inputs lie beside them in training_inputs.npz.
"""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import train_han
from baselines.jomold.noise_ratios import save_noise_ratios
from baselines.ma.exchange import save_cleaned_labels
from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import Batch, SegmentPseudoLabels
from models import HAN
from tests.baselines.test_method_cases import CMPAE_NAMES, HAN_NAMES, renamed, weights_that_anyone_can_fill_in
from tests.test_reference_cases import Case, every_case_of, opened
from utils.audio_visual import AudioVisual
from utils.method.losses import Losses
from utils.recipes import Method, parse_recipe
from utils.training.loop import fit

BATCH_SIZE = 8

# Patterns in the released names, one after the other, and what they are called here. Weights that no module here has
# are not used in the released code.
LEAP_NAMES = {
    r"^fc_a\b": "project_audio.features.0",
    r"^fc_v\b": "project_visual.features.0",
    r"^fc_st\b": "project_visual.features.1",
    r"^fc_fusion\b": "project_visual.fusion",
    r"^fc_l\b": "project_labels",
    r"^fc_la\b": "decode_audio.presence",
    r"^fc_lv\b": "decode_visual.presence",
    r"^AVL\.la_cma_network": "decode_audio.layers",
    r"^AVL\.lv_cma_network": "decode_visual.layers",
    r"^MMP\.fusion\.aadaptiveinteraction": "encoder.fusion_audio.layer",
    r"^MMP\.fusion\.vadaptiveinteraction": "encoder.fusion_visual.layer",
    r"^MMP\.fusion\.aselectfusion": "encoder.fusion_audio.weight",
    r"^MMP\.fusion\.vselectfusion": "encoder.fusion_visual.weight",
    r"^MMP\.capture\.anetwork\.(\d)\.net": r"encoder.levels.\1.convolution_audio",
    r"^MMP\.capture\.vnetwork\.(\d)\.net": r"encoder.levels.\1.convolution_visual",
    r"\bconvolution_(\w+)\.0": r"convolution_\1.wide",
    r"\bconvolution_(\w+)\.2": r"convolution_\1.narrow",
    r"^MMP\.capture\.msa": "encoder.levels",
    r"\basablock\.layer": "self_audio",
    r"\bvsablock\.layer": "self_visual",
    r"\bcmablock\.layer": "cross",
    r"\bla(\d)": r"gates_audio.\1",
    r"\blv(\d)": r"gates_visual.\1",
    r"\bgates_(\w+)\.1": r"gates_\1.own",
    r"\bgates_(\w+)\.2": r"gates_\1.cross",
    r"\bsublayer\.0\.norm": "norm1",
    r"\bsublayer\.1\.norm": "norm2",
    r"\bfeed_forward\.w_": "linear",
    r"\bself_attn\.linears\.3": "attention.out_proj",
    r"\bself_attn\.linears": "attention",
}
REFERENCE_NAMES = {
    r"^cls_tokens_[av]": "class_tokens",
    r"^fc_[av]\b": "project.features.0",
    r"^fc_st\b": "project.features.1",
    r"^fc_fusion\b": "project.fusion",
    r"^hat_encoder\.layers\.0": "layer",
}


def substituted(state: dict[str, Tensor], patterns: dict[str, str]) -> dict[str, Tensor]:
    """The same state with every pattern in its names replaced."""

    def ours(name: str) -> str:
        for pattern, replacement in patterns.items():
            name = re.sub(pattern, replacement, name)
        return name

    return {ours(name): value for name, value in state.items()}


def first_han_state(released: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return renamed(released["MMIL_Net"], HAN_NAMES)


def first_cmpae_state(released: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return substituted(released["MMIL_Net"], {rf"^{re.escape(name)}\b": own for name, own in CMPAE_NAMES.items()})


def first_coleaf_state(released: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    state = {f"anchor.{name}": value for name, value in first_cmpae_state(released).items()}
    for network, own in (("Self_Audio_Net", "audio_reference"), ("Self_Video_Net", "visual_reference")):
        reference = substituted(released[network], REFERENCE_NAMES)
        reference["class_tokens"] = reference["class_tokens"].squeeze(0)
        state |= {f"{own}.{name}": value for name, value in reference.items()}
    return state


def first_leap_state(released: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    state = substituted(released["AVVPNet"], LEAP_NAMES)
    for layer in [name.removesuffix(".0.weight") for name in state if name.endswith("attention.0.weight")]:
        for kind in ("weight", "bias"):  # of queries, keys and values
            state[f"{layer}.in_proj_{kind}"] = torch.cat([state[f"{layer}.{i}.{kind}"] for i in range(3)])
    return state


FIRST_STATES = {
    "HAN": first_han_state,
    "CMPAE": first_cmpae_state,
    "CoLeaF": first_coleaf_state,
    "LEAP": first_leap_state,
}


class VideosInOrder:
    """A split whose batches come in the order of its videos."""

    device = torch.device("cpu")

    def __init__(self, case: Case, inputs: Case):
        frames, clips = inputs["frames_of_a_second"], inputs["clips"]  # all frames of a second are alike
        self.audio_dim, self.visual_dims = inputs["audio"].shape[-1], (frames.shape[-1], clips.shape[-1])
        self.features = AudioVisual(inputs["audio"].double(), torch.cat([frames, clips], dim=-1).double())
        self.labels = inputs["labels"].double()
        self.num_videos, self.num_classes = self.labels.shape
        classes = tuple(map(str, range(self.num_classes)))
        names = tuple(f"video_{n}" for n in range(self.num_videos))
        of_video = {"feature_ids": names, "sample_ids": names, "lengths": torch.full((self.num_videos,), 10)}
        of_video |= {"video_labels": self.labels.bool(), "labels": None}
        self.annotations = SplitAnnotations("LLP", "train", classes, **of_video)
        self.segments = AudioVisual(case["audio_labels"], case["visual_labels"]) if "audio_labels" in case else None

    def shuffled(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        for videos in torch.arange(self.num_videos).split(batch_size):
            features = self.features.map(lambda of_all, videos=videos: of_all[videos])
            segments = self.segments and self.segments.map(lambda of_all, videos=videos: of_all[videos])
            pseudo = segments and SegmentPseudoLabels(None, segments)
            yield Batch(videos, features, None, None, self.labels[videos], None, pseudo)

    def check_features(self) -> None:
        pass


def first_network(method: Method, settings: train_han.Settings, case: Case, videos: VideosInOrder) -> nn.Module:
    """The method's network with the weights that training begins with, without any dropout."""
    released = {
        network: weights_that_anyone_can_fill_in(shapes, torch.float64)
        for network, shapes in json.loads(case.array("state_keys").item()).items()
    }
    state = FIRST_STATES[method.network.__name__](released)
    vectors = []
    if "label_vectors" in case:
        vectors = [case["label_vectors"]]
        state["label_vectors"] = case["label_vectors"]
    widths = videos.audio_dim, videos.visual_dims
    network = method.network(videos.num_classes, *widths, settings.model, *vectors).double()
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def clamped_segment_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """LEAP's authors clamp segment probabilities; the project's loss takes logits, which differs from 16 upwards."""
    return F.binary_cross_entropy(torch.sigmoid(logits).clamp(1e-7, 1 - 1e-7), targets)


def run(network: nn.Module, *inputs: Tensor | bool) -> object:
    return network(*inputs)


def weights_by_released_name(network: nn.Module) -> dict[str, Tensor]:
    names = {own: released for released, own in HAN_NAMES.items()} if isinstance(network, HAN) else {}
    return renamed({name: weight.detach() for name, weight in network.named_parameters()}, names)


def assert_equal_to_nine_digits(actual: Tensor, expected: Tensor, name: str) -> None:
    """Equal to 1e-9 relative, or to 1e-11 where a weight has no gradient but rounding."""
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11, msg=lambda text: f"{name}: {text}")


def check_training(path: Path, run_dir: Path, name: str, num_epochs: int) -> None:
    """Train by a method's recipe, and compare every loss and every weight."""
    flags = ["--method", name, "--num_epochs", str(num_epochs), "--batch_size", str(BATCH_SIZE)]
    with opened(path) as case:
        videos = VideosInOrder(case, Case(path.with_name("training_inputs.npz")))
        ratios = None  # JoMoLD's estimator has no use for them, but its case holds them
        if "audio" in case:
            ratios = AudioVisual(case["audio"].float(), case["visual"].float())
        if name in ("jomold", "cmpae", "coleaf"):
            save_noise_ratios(ratios, videos.annotations, run_dir / "ratios")
            flags += ["--noise_ratio_dir", str(run_dir / "ratios")]
        if name == "ma":
            left = AudioVisual(case["kept_audio"], case["kept_visual"])
            save_cleaned_labels(left, videos.annotations, run_dir / "labels")
            flags += ["--cleaned_label_dir", str(run_dir / "labels")]
        method, settings = parse_recipe(train_han.Settings, "", flags, ())
        network = first_network(method, settings, case, videos)
        step = method.make_step(settings.losses, videos, run)
        expected_losses = iter(case["losses"])

        def checked(*inputs: object) -> Losses:
            losses = step(*inputs)
            steps = 2 if method.takes_steps else 1
            expected = sum(next(expected_losses) for _ in range(steps))
            assert_equal_to_nine_digits(losses["total"].detach(), expected, f"loss, {inputs[2]}")
            return losses

        several = {"takes_steps": method.takes_steps}
        recipe, log = settings.recipe, logging.getLogger()
        fit(network, videos, checked, lambda: {"none": 0.0}, recipe, "none", run_dir, log, **several)
        assert not list(expected_losses), "the authors' training has more steps"
        weights = weights_by_released_name(network)
        names = json.loads(case.array("names").item())
        for name, norm, total in zip(names, case["norms"], case["sums"], strict=True):
            assert_equal_to_nine_digits(weights[name].norm(), norm, f"norm of {name}")
            assert_equal_to_nine_digits(weights[name].sum(), total, f"sum of {name}")


@pytest.fixture(autouse=True)
def float64_without_checkpoints(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Constants that a loss makes are float64, too; the weights of a run, up to a gigabyte, are not saved."""
    monkeypatch.setattr("utils.training.loop.save_checkpoint", lambda state, path: None)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@every_case_of("training_han")
def test_han_trains_as_with_its_authors_code(path: Path, tmp_path: Path):
    check_training(path, tmp_path, "han", num_epochs=12)


@every_case_of("training_ma_base")
def test_ma_s_base_trains_as_with_its_authors_code(path: Path, tmp_path: Path):
    check_training(path, tmp_path, "ma_base", num_epochs=12)


@every_case_of("training_ma_retrain")
def test_ma_retrains_as_with_its_authors_code(path: Path, tmp_path: Path):
    if path.name == "training_ma_retrain_as_published.npz":
        pytest.skip("its labels do not belong to its losses, see docs/baselines.md")
    check_training(path, tmp_path, "ma", num_epochs=12)


@every_case_of("training_jomold_base")
def test_jomold_s_estimator_trains_as_with_its_authors_code(path: Path, tmp_path: Path):
    check_training(path, tmp_path, "jomold_base", num_epochs=8)


@every_case_of("training_jomold")
def test_jomold_trains_as_with_its_authors_code(path: Path, tmp_path: Path):
    check_training(path, tmp_path, "jomold", num_epochs=8)


@every_case_of("training_cmpae")
def test_cmpae_trains_as_with_its_authors_code(path: Path, tmp_path: Path):
    check_training(path, tmp_path, "cmpae", num_epochs=8)


@pytest.mark.slow
@every_case_of("training_coleaf")
def test_coleaf_trains_as_with_its_authors_code(path: Path, tmp_path: Path):
    check_training(path, tmp_path, "coleaf", num_epochs=8)


@pytest.mark.slow
@every_case_of("training_leap")
def test_leap_trains_as_with_its_authors_code(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("baselines.leap.segment_loss", clamped_segment_loss)
    check_training(path, tmp_path, "leap", num_epochs=12)
