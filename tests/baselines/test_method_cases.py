"""The methods between HAN and UWAV beside their released code; cases are found as in test_reference_cases.py."""

import json
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.cmpae import mutual_learning_loss
from baselines.cmpae.cmpae_network import CMPAE, CMPAEOutput, presence_logit, uncertainty
from baselines.coleaf import asymmetric_loss
from baselines.jomold import JoMoLDLosses, noise_contrastive_loss
from baselines.leap import semantic_similarity_loss
from baselines.ma import contrastive_loss, segment_cosines
from baselines.ma.exchange import absent_labels, error_rates
from models.han import HAN
from tests.test_reference_cases import Case, assert_equal_to_rounding, every_case_of, opened
from utils.audio_visual import MODALITIES, AudioVisual

# Released names of HAN's first version, and ours; what is not named here is called the same.
HAN_NAMES = {
    "fc_a": "fc_a.layers.0",
    "fc_v": "fc_v.0",
    "fc_st": "fc_v.1",
    "fc_fusion": "fc_fusion.layers.0",
    "fc_frame_att": "fc_frame_att.layers.0",
    "fc_av_att": "fc_av_att.layers.0",
    "hat_encoder.norm1": "hat_encoder.final_norm_a",
    "hat_encoder.norm2": "hat_encoder.final_norm_v",
}
CMPAE_NAMES = {"hat_encoder.norm1": "hat_encoder.final_norm_a", "hat_encoder.norm2": "hat_encoder.final_norm_v"}
UNUSED_IN_CMPAE = ("fc_global.",)
ONE_HEAD = {"num_heads": 1, "encoder_order": "parallel", "visual_dropout": 0.5}
WITH_CROSS_ATTENTION = {"cross": True, "self": False}


def weights_that_anyone_can_fill_in(
    shapes: dict[str, list[int]], precision: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Random weights that depend on the released names and shapes alone; their numbers are drawn in float32."""
    state = {}
    for name, shape in shapes.items():
        draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        x = torch.randn(shape, generator=draw, dtype=torch.float32).to(precision)
        if len(shape) > 1:
            state[name] = x / x[0].numel() ** 0.5
        else:
            state[name] = 1 + 0.1 * x if name.endswith("weight") else 0.1 * x
    return state


def renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """The same state under our names of the modules."""

    def ours(name: str) -> str:
        module, parameter = name.rsplit(".", 1)
        return f"{names.get(module, module)}.{parameter}"

    return {ours(name): value for name, value in state.items()}


def read_state(case: Case) -> dict[str, Tensor]:
    return weights_that_anyone_can_fill_in(json.loads(case.array("state_keys").item()))


def first_han(state: dict[str, Tensor]) -> HAN:
    """The first HAN, one head, with released weights."""
    state = renamed(state, HAN_NAMES)
    model = HAN.from_state(state, **ONE_HEAD)
    model.load_state_dict(state)
    return model.eval()


def leaves(case: Case, *names: str) -> dict[str, Tensor]:
    """Inputs whose gradients are asked for."""
    return {name: case[name].clone().requires_grad_() for name in names}


def assert_gradients(case: Case, inputs: dict[str, Tensor], prefix: str) -> None:
    for name, x in inputs.items():
        gradient = torch.zeros_like(x) if x.grad is None else x.grad
        assert_equal_to_rounding(gradient, case[f"{prefix}{name}"], f"{prefix}{name}", x.dtype)


@every_case_of("ma_exchange")
def test_ma_s_exchange_removes_the_labels_that_its_authors_code_removes(path: Path):
    with opened(path) as case:
        labels = case["labels"].bool()
        for kept, exchanged in (("audio", "pictures"), ("visual", "sound")):
            rates = error_rates(case[f"own_{kept}"], labels)
            beside = AudioVisual(*(case[f"{modality}_beside_foreign_{exchanged}"] for modality in MODALITIES))
            assert torch.equal(labels & absent_labels(beside, rates), case[f"removed_{kept}"])


@every_case_of("method_jomold")
@torch.no_grad()
def test_jomold_s_network_equals_the_released_code(path: Path):
    with opened(path) as case:
        model = first_han(read_state(case))
        clips = case["visual3d"]
        frames = case["visual2d"].float().unflatten(1, (clips.shape[1], -1)).mean(dim=2)
        for suffix, with_cross_attention in WITH_CROSS_ATTENTION.items():
            output = model(case["audio"], torch.cat([frames, clips], dim=-1), with_cross_attention)
            cosines = segment_cosines(*output.features, JoMoLDLosses.contrastive_temperature)
            for name, actual in {
                "video": output.video_probs,
                "audio": output.modality_probs.audio,
                "visual": output.modality_probs.visual,
                "segments": torch.sigmoid(torch.stack(output.logits, dim=2)),
                "cosines": cosines,
                "nce": noise_contrastive_loss(cosines, JoMoLDLosses.contrastive_smoothing),
            }.items():
                key = f"{name}_{suffix}"
                assert_equal_to_rounding(actual, case[key], key, torch.float32)


@every_case_of("method_cmpae")
@torch.no_grad()
def test_cmpae_s_network_equals_the_released_code(path: Path):
    with opened(path) as case:
        state = {
            name: value
            for name, value in renamed(read_state(case), CMPAE_NAMES).items()
            if not name.startswith(UNUSED_IN_CMPAE)
        }
        model = CMPAE.from_state(state, **ONE_HEAD).eval()
        model.load_state_dict(state)
        clips = case["visual3d"]
        frames = case["visual2d"].float().unflatten(1, (clips.shape[1], -1))  # (B, T, 8, 2048)
        visual = torch.cat([frames.flatten(2), clips], dim=-1)
        for suffix, with_cross_attention in WITH_CROSS_ATTENTION.items():
            output = model(case["audio"], visual, with_cross_attention)
            num_videos, num_segments, _ = output.logits.audio.shape
            own_seconds = torch.arange(num_segments).repeat(num_videos)
            for number, actual in enumerate(
                (
                    output.video_probs,
                    output.modality_probs.audio,
                    output.modality_probs.visual,
                    torch.sigmoid(torch.stack(output.logits, dim=2)),
                    segment_cosines(*output.features, JoMoLDLosses.contrastive_temperature),
                    own_seconds,
                    output.video_uncertainty,
                    output.modality_uncertainty.audio,
                    output.modality_uncertainty.visual,
                    torch.stack(output.segment_uncertainty, dim=2),
                )
            ):
                key = f"out{number}_{suffix}"
                assert_equal_to_rounding(actual, case[key], key, torch.float32)


@every_case_of("method_cmpae_losses")
def test_cmpae_s_mutual_loss_and_evidence_equal_the_released_code(path: Path):
    with opened(path) as case:
        for batches, teach_video in (("odd", True), ("even", False)):
            inputs = leaves(
                case,
                "video",
                "audio",
                "visual",
                "video_uncertainty",
                "audio_uncertainty",
                "visual_uncertainty",
            )
            output = CMPAEOutput(
                video_probs=inputs["video"],
                modality_probs=AudioVisual(inputs["audio"], inputs["visual"]),
                video_uncertainty=inputs["video_uncertainty"],
                modality_uncertainty=AudioVisual(inputs["audio_uncertainty"], inputs["visual_uncertainty"]),
                **dict.fromkeys(("logits", "features", "visual_inputs", "segment_uncertainty")),
            )
            loss = mutual_learning_loss(output, case["labels"], teach_video)
            assert_equal_to_rounding(loss, case[f"loss_{batches}"], f"loss_{batches}", torch.float32)
            loss.backward()
            assert_gradients(case, inputs, f"grad_{batches}_")
        logits = case["logits"]
        assert_equal_to_rounding(torch.sigmoid(presence_logit(logits)), case["p"], "p", torch.float32)
        assert_equal_to_rounding(uncertainty(logits), case["u"], "u", torch.float32)


@every_case_of("method_coleaf_losses")
def test_coleaf_s_asymmetric_loss_equals_the_released_code(path: Path):
    with opened(path) as case:
        inputs = leaves(case, "probs")
        loss = asymmetric_loss(inputs["probs"], case["targets"])
        assert_equal_to_rounding(loss, case["loss"], "loss", torch.float32)
        loss.backward()
        assert_equal_to_rounding(inputs["probs"].grad, case["grad"], "grad", torch.float32)


@every_case_of("method_leap_losses")
def test_leap_s_semantic_similarity_loss_equals_the_released_code(path: Path):
    with opened(path) as case:
        inputs = {name: case[f"{name}_features"].clone().requires_grad_() for name in ("audio", "visual")}
        labels = AudioVisual(case["audio_labels"], case["visual_labels"])
        loss = semantic_similarity_loss(labels, AudioVisual(*inputs.values()))
        assert_equal_to_rounding(loss, case["loss"], "loss", torch.float32)
        loss.backward()
        assert_gradients(case, inputs, "grad_")


def test_ma_s_contrastive_loss_puts_nine_tenths_on_the_own_second():
    draw = torch.Generator().manual_seed(0)
    audio, visual = (torch.randn(3, 10, 6, generator=draw) for _ in range(2))
    log_probs = segment_cosines(audio, visual, JoMoLDLosses.contrastive_temperature).log_softmax(dim=1)
    own = torch.arange(10).repeat(3).unsqueeze(1)
    shares = torch.full((30, 10), 0.1 / 9).scatter(1, own, 0.9)
    expected = -(shares * log_probs).sum(dim=1).mean()
    torch.testing.assert_close(contrastive_loss(audio, visual, 0.2, 0.1), expected)


def test_jomold_s_contrastive_loss_is_not_the_smoothed_cross_entropy_of_ma():
    cosines = torch.randn(30, 10, generator=torch.Generator().manual_seed(0))
    own = torch.arange(10).repeat(3)
    smoothed = F.cross_entropy(cosines, own, label_smoothing=0.1 * 10 / 9)  # 0.9 and 0.1 / 9
    log_of_the_sum = noise_contrastive_loss(cosines, JoMoLDLosses.contrastive_smoothing)
    shares = torch.full((30, 10), 0.1 / 9).scatter(1, own.unsqueeze(1), 0.9)
    torch.testing.assert_close(log_of_the_sum, -(shares * cosines.softmax(dim=1)).sum(dim=1).log().mean())
    assert log_of_the_sum < smoothed - 0.01
