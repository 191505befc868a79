"""Parity of LAVISH with its released code, on every reference case of its kinds."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("timm", reason="LAVISH wraps networks of timm")

from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer

from lavish.lavish_network import ClipNetworkSettings, LavishAdapter, LavishNetwork, from_released_state
from tests.test_reference_cases import Case, assert_identical, every_case_of, opened
from video.filter_banks import (
    SWIN_FILTER_BANK,
    VIT_FILTER_BANK,
    clip_filter_banks,
    window_starts,
)

HEADS_OF_VIT = 4  # of the test backbone; no weight tells it


def assert_close(actual: Tensor, expected: Tensor, name: str, relative: float = 1e-4) -> None:
    """Equal to 1e-4 of the largest expected magnitude, the tolerance of LAVISH's cases."""
    tolerance = relative * expected.double().abs().max().item()
    torch.testing.assert_close(
        actual.detach().double(), expected.double(), rtol=0, atol=tolerance, msg=lambda text: f"{name}: {text}"
    )


def state_of(case: Case, prefix: str = "state") -> dict[str, Tensor]:
    return {match[1]: case[match[0]] for match in case.matching(rf"{prefix}\.(.*)")}


@every_case_of("lavish_adapter")
def test_the_adapter_equals_the_released_code_and_so_do_its_running_statistics(path: Path):
    with opened(path) as case:
        state = state_of(case)
        num_tokens, dim = state["my_tokens"].shape
        adapter = LavishAdapter(dim, case["reduction"].item(), num_tokens, case["groups"].item())
        adapter.load_state_dict(state)
        assert_close(adapter.eval()(case["x"], case["other"]), case["evaluation"], "evaluation")
        assert_close(adapter.train()(case["x"], case["other"]), case["training"], "training")
        for name, expected in state_of(case, "after_training").items():
            assert_close(adapter.state_dict()[name], expected, f"{name} after training")


def assert_same_probabilities(case: Case, backbone: torch.nn.Module, state: dict[str, Tensor]) -> None:
    bottleneck = state["audio_adapter_blocks_p1.0.bn1.weight"].numel()
    num_tokens, dim = state["audio_adapter_blocks_p1.0.my_tokens"].shape
    network = LavishNetwork(
        backbone,
        state["mlp_class_2.bias"].numel(),
        "lavish",
        ClipNetworkSettings(
            reduction=dim // bottleneck,
            num_tokens=num_tokens,
            groups=dim // state["audio_adapter_blocks_p1.0.down_sampler.weight"].shape[1],
            head_dim=state["mlp_class.bias"].numel(),
        ),
    )
    network.load_state_dict(from_released_state(state))
    with torch.inference_mode():
        logits = network.eval()(case["visual"], case["audio"]).logits  # (B, T, C)
    assert_close(logits.softmax(dim=-1).flatten(0, 1), case["probs"], "probs")


@every_case_of("lavish_vit")
def test_lavish_on_a_vit_loads_a_released_state_and_gives_its_probabilities(path: Path):
    with opened(path) as case:
        state = state_of(case)
        dim, _, patch, _ = state["ViT.v.patch_embed.proj.weight"].shape
        backbone = VisionTransformer(
            img_size=tuple(case["visual"].shape[-2:]),
            patch_size=patch,
            embed_dim=dim,
            depth=len({key.split(".")[3] for key in state if key.startswith("ViT.v.blocks.")}),
            num_heads=HEADS_OF_VIT,
            mlp_ratio=state["ViT.v.blocks.0.mlp.fc1.bias"].numel() / dim,
            num_classes=0,
        )
        assert_same_probabilities(case, backbone, state)


@every_case_of("lavish_swin")
def test_lavish_on_a_swin_v2_loads_a_state_of_timm_0_6_and_gives_its_probabilities(path: Path):
    with opened(path) as case:
        state = state_of(case)
        dim, _, patch, _ = state["swin.patch_embed.proj.weight"].shape
        names = [key.split(".") for key in state if key.startswith("swin.layers.")]
        num_stages = len({name[2] for name in names})
        depths = [len({name[4] for name in names if name[2:4] == [str(i), "blocks"]}) for i in range(num_stages)]
        windows = [value.shape[-1] for key, value in state.items() if key.endswith("attn_mask")]
        backbone = SwinTransformerV2(
            img_size=tuple(case["visual"].shape[-2:]),
            patch_size=patch,
            embed_dim=dim,
            depths=depths,
            num_heads=[len(state[f"swin.layers.{i}.blocks.0.attn.logit_scale"]) for i in range(num_stages)],
            window_size=math.isqrt(max(windows)),
            num_classes=0,
        )
        assert_same_probabilities(case, backbone, state)


@every_case_of("lavish_filter_banks")
def test_filter_banks_and_the_seconds_they_are_of_equal_the_released_code(path: Path):
    with opened(path) as case:
        samples, starts = case["pcm"].float() / 2**15, case["starts"]
        own_starts = window_starts(len(samples), len(starts))
        assert_identical(torch.from_numpy(own_starts), starts, "starts")
        for name, bank in {"vit": VIT_FILTER_BANK, "swin": SWIN_FILTER_BANK}.items():
            assert_close(clip_filter_banks(samples, own_starts, bank), case[name], name, 1e-3)  # on a log scale
