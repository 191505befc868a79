"""What holds for LAVISH's network beyond parity with the release."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("timm", reason="LAVISH wraps networks of timm")

from timm.layers import DropPath
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import ResPostBlock, VisionTransformer

from lavish.image_transformers import ViTSteps, set_trained, steps_of
from lavish.lavish_network import ClipNetworkSettings, LavishAdapter, LavishNetwork, TemporalPooling, count_parameters
from video.backbones.drawn_weights import draw_weights_of


def vit(**settings) -> VisionTransformer:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}
    return VisionTransformer(**sizes | settings)


def swin(**settings) -> SwinTransformerV2:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 4, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 2), "window_size": 4}
    network = SwinTransformerV2(**{"drop_path_rate": 0.0} | sizes | settings, num_classes=0)
    for parameter in network.parameters():  # its norms start at 0, which would hide every block
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def network_of(backbone: torch.nn.Module, model: str = "lavish", **settings) -> LavishNetwork:
    return LavishNetwork(backbone, 4, model, ClipNetworkSettings(**settings))


def inputs(batch: int = 2, num_frames: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(batch, num_frames, 3, 32, 32, generator=generator)
    return frames, torch.randn(batch, num_frames, 32, 32, generator=generator)


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("no_embed_class", [True, False])
@pytest.mark.parametrize("positions", ["learn", "none"])
def test_tokens_of_a_narrow_image_get_the_positions_that_timm_gives_them(
    class_token: bool, registers: int, no_embed_class: bool, positions: str
):
    network = vit(
        class_token=class_token,
        reg_tokens=registers,
        no_embed_class=no_embed_class,
        pos_embed=positions,
        global_pool="token" if class_token else "avg",
    ).eval()
    for name, parameter in network.named_parameters():
        if name in ("cls_token", "reg_token", "pos_embed"):
            torch.nn.init.normal_(parameter)
    images = torch.randn(2, 3, 64, 16)  # as many patches as 32 x 32 has, so that no position is resized
    with torch.no_grad():
        expected = network._pos_embed(network.patch_embed.proj(images).flatten(2).transpose(1, 2))
        torch.testing.assert_close(ViTSteps(network).embed(images), expected)


def open_gates(network: LavishNetwork) -> None:
    """Gates start at 0, where an adapter changes nothing."""
    for module in network.modules():
        if isinstance(module, LavishAdapter):
            module.gate.data.fill_(0.5)
            if module.cross_modal:
                module.gate_av.data.fill_(0.5)


@pytest.mark.parametrize("make", [vit, swin])
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_adapters_with_closed_gates_leave_the_output_of_the_backbone_bitwise_as_it_was(make, mode):
    backbone = make()
    network = network_of(backbone, groups=2).train(mode == "training")
    frames, spectrograms = inputs()
    with torch.no_grad():
        features = network.encode(frames, spectrograms)
        alone = [
            backbone.forward_head(backbone.forward_features(x.flatten(0, 1)), pre_logits=True)
            for x in (spectrograms.unsqueeze(2).expand(-1, -1, 3, -1, -1), frames)
        ]
    expected = torch.cat(alone if make is vit else alone[::-1], dim=-1).view(2, 3, -1)
    assert torch.equal(features, expected)


def adapter_by_the_paper(adapter: LavishAdapter, x: Tensor, y: Tensor) -> Tensor:
    """Equations 5 to 7, token by token, in evaluation mode: (N, D), (M, D) -> (N, D)."""
    state = adapter.state_dict()

    def attended(query: Tensor, rows: Tensor) -> Tensor:
        weights = torch.stack([query @ row for row in rows]).exp()
        return sum(weight * row for weight, row in zip(weights / weights.sum(), rows, strict=True))

    def batch_norm(row: Tensor, name: str) -> Tensor:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return (row - mean) / (variance + 1e-5).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]

    def layer_norm(row: Tensor, name: str) -> Tensor:
        normed = (row - row.mean()) / (row.var(correction=0) + 1e-5).sqrt()
        return normed * state[f"{name}.weight"] + state[f"{name}.bias"]

    def grouped(row: Tensor, name: str) -> Tensor:
        weights = state[f"{name}.weight"].flatten(1).chunk(adapter.groups)
        return torch.cat([weight @ part for weight, part in zip(weights, row.chunk(adapter.groups), strict=True)])

    latent = [token + attended(token, y) for token in state["my_tokens"]] if "my_tokens" in state else []
    rows = []
    for row in x:
        if latent:
            row = row + state["gate_av"] * attended(row, torch.stack(latent))
        hidden = batch_norm(grouped(layer_norm(row, "ln_before"), "down_sampler"), "bn1").clamp(min=0)
        rows.append(state["gate"] * layer_norm(batch_norm(grouped(hidden, "up_sampler"), "bn2"), "ln_post"))
    return torch.stack(rows)


@pytest.mark.parametrize(("num_tokens", "groups"), [(3, 2), (1, 1), (0, 4)])
def test_an_adapter_computes_the_papers_equations_with_gates_of_their_own(num_tokens: int, groups: int):
    adapter = LavishAdapter(16, reduction=2, num_tokens=num_tokens, groups=groups)
    draw_weights_of(adapter)
    adapter.double().eval().gate.data.fill_(0.7)
    if num_tokens:
        adapter.gate_av.data.fill_(-0.4)
    x, other = (torch.from_numpy(np.random.default_rng(n).normal(size=(2, n, 16))) for n in (5, 3))
    with torch.no_grad():
        expected = torch.stack([adapter_by_the_paper(adapter, *pair) for pair in zip(x, other, strict=True)])
        torch.testing.assert_close(adapter(x, other), expected, rtol=1e-9, atol=1e-12)


def test_an_adapter_starts_with_closed_gates_and_tokens_between_zero_and_one():
    torch.manual_seed(0)
    adapter = LavishAdapter(256, reduction=8, num_tokens=8, groups=2)
    assert adapter.gate.item() == adapter.gate_av.item() == 0
    tokens = adapter.my_tokens.detach()
    assert 0 <= tokens.min() < 0.01 and 0.99 < tokens.max() < 1
    assert abs(tokens.mean() - 0.5) < 0.03


def test_the_sizes_of_the_release_are_the_defaults():
    network = network_of(vit(embed_dim=64))
    adapter = network.vis_adapter_blocks_p1[0]
    assert adapter.my_tokens.shape == (2, 64)
    assert adapter.down_sampler.weight.shape[:2] == (64 // 8, 64 // 2)  # reduction 8, 2 groups
    assert network.mlp_class.weight.shape[0] == 512


@pytest.mark.parametrize(
    "sizes",
    [
        {"dim": 48, "reduction": 64},  # no bottleneck is left
        {"dim": 18, "reduction": 4, "groups": 4},  # 4 can be divided, 18 cannot
        {"dim": 48, "reduction": 8, "groups": 4},  # 48 can be divided, 6 cannot
    ],
)
def test_widths_that_cannot_be_divided_are_refused(sizes: dict[str, int]):
    with pytest.raises(ValueError, match="groups"):
        LavishAdapter(**{"num_tokens": 2, "groups": 2, **sizes})


@pytest.mark.parametrize(
    ("settings", "frozen"),
    [
        ({"model": "late_fusion"}, True),
        ({"model": "late_fusion", "train_backbone": True}, False),
        ({"model": "late_fusion", "train_norms": True}, False),
        ({"cross_modal": False}, False),
        ({}, False),
    ],
)
def test_a_network_is_frozen_when_nothing_below_its_head_is_trained(settings: dict[str, object], frozen: bool):
    network = network_of(vit(), **settings)
    below = [p for name, p in network.named_parameters() if not name.startswith("mlp_class")]
    assert network.frozen == frozen == (not any(p.requires_grad for p in below))


@pytest.mark.parametrize("train_backbone", [False, True])
def test_the_backbone_is_in_training_mode_and_trained_only_when_it_is_fine_tuned(train_backbone: bool):
    network = network_of(vit(), train_backbone=train_backbone).train()
    assert {module.training for module in network.backbone.modules()} == {train_backbone}
    assert {p.requires_grad for p in network.backbone.parameters()} == {train_backbone}
    assert network.vis_adapter_blocks_p1[0].bn1.training
    assert not any(module.training for module in network.eval().modules())


@pytest.mark.parametrize(
    "make", [lambda: vit(drop_path_rate=0.5), lambda: swin(drop_path_rate=0.5)], ids=["vit", "swin"]
)
def test_a_frozen_backbone_drops_paths_where_adapters_learn_and_nothing_else(make):
    adapted = network_of(make()).train()
    training = [module for module in adapted.backbone.modules() if module.training]
    assert training and all(isinstance(module, DropPath) for module in training)
    assert not any(module.training for module in network_of(make(), model="late_fusion").train().backbone.modules())
    assert not any(module.training for module in adapted.eval().modules())


def test_normalisation_layers_of_every_kind_are_trained_alone():
    layers = [torch.nn.Conv2d(2, 2, 1), torch.nn.GroupNorm(1, 2), torch.nn.BatchNorm2d(2), torch.nn.LayerNorm(2)]
    network = torch.nn.Sequential(*layers)
    for weights, norms, trained in ((0, 0, "0000"), (0, 1, "0111"), (1, 0, "1111"), (1, 1, "1111")):
        set_trained(network, bool(weights), bool(norms))
        assert "".join(str(int(layer.weight.requires_grad)) for layer in layers) == trained


def test_blocks_are_computed_again_in_the_backward_pass_where_they_are_checkpointed():
    calls = []
    for checkpointed in (False, True):
        network = network_of(vit(), checkpoint_blocks=checkpointed).train()
        counted = []
        network.backbone.blocks[1].attn.register_forward_hook(lambda *_, counted=counted: counted.append(1))
        network(*inputs()).logits.sum().backward()
        calls.append(len(counted))
    assert calls == [2, 4]  # of both modalities


def test_a_checkpointed_network_counts_each_batch_once_and_in_full():
    network = network_of(vit(), checkpoint_blocks=True).train()
    norm = network.vis_adapter_blocks_p1[0].bn1
    for step in (1, 2):
        network(*inputs()).logits.sum().backward()
        assert norm.num_batches_tracked == step and norm.momentum == 0.1


VITS = [
    {},
    {"reg_tokens": 2},
    {"reg_tokens": 2, "no_embed_class": True},
    {"pos_embed": "none"},
    {"pre_norm": True, "init_values": 0.3},
    {"class_token": False, "global_pool": "avg"},
    {"embed_norm_layer": torch.nn.LayerNorm},
    {"fc_norm": True, "global_pool": "avg"},
    {"pos_drop_rate": 0.3, "patch_drop_rate": 0.3},
]


def drawn_vit(**settings) -> VisionTransformer:
    network = vit(**settings)
    draw_weights_of(network)
    return network.eval()


@pytest.mark.parametrize("settings", VITS, ids=str)
def test_every_kind_of_vit_gives_timms_own_features(settings: dict[str, object]):
    network = drawn_vit(**settings)
    frames, _ = inputs()
    ours = network_of(network, model="vit_visual").eval()
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(frames.flatten(0, 1)), pre_logits=True)
        assert torch.equal(ours.encode(frames, None).flatten(0, 1), expected)


@pytest.mark.parametrize("settings", VITS, ids=str)
def test_images_of_another_shape_and_as_many_patches_are_embedded_as_by_timms_network_of_that_shape(
    settings: dict[str, object],
):
    network, other = drawn_vit(**settings), drawn_vit(img_size=(16, 64), **settings)  # 4 x 4 and 2 x 8 patches
    other.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 16, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.manual_seed(3)  # of what is dropped
        expected = other.train().norm_pre(other.patch_drop(other._pos_embed(other.patch_embed(images))))
        torch.manual_seed(3)
        torch.testing.assert_close(steps_of(network.train()).embed(images), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("no_embed_class", [False, True])
def test_positions_are_resized_linearly_along_the_sequence_with_the_class_token_where_it_has_one(no_embed_class: bool):
    network = vit(patch_size=16, no_embed_class=no_embed_class)  # 2 x 2 patches
    network.patch_embed.proj.weight.data.zero_()
    network.patch_embed.proj.bias.data.zero_()
    network.cls_token.data.fill_(10.0)
    row = torch.tensor([6.0, 0.0, 3.0, 9.0, 12.0])[no_embed_class:]
    network.pos_embed.data.copy_(row.view(1, -1, 1).expand(-1, -1, 32))
    with torch.no_grad():
        tokens = steps_of(network).embed(torch.zeros(1, 3, 16, 32))[0, :, 0]  # of two patches
    # Centres of 3 cells lie at 1/3, 2 and 11/3 of 5; those of 2 cells at 1/2 and 5/2 of 4.
    expected = [10.0, 1.5, 10.5] if no_embed_class else [10 + 4.0, 3.0, 11.0]
    np.testing.assert_allclose(tokens, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: vit(drop_path_rate=0.5, proj_drop_rate=0.2, attn_drop_rate=0.2, pos_drop_rate=0.2, patch_drop_rate=0.3),
        lambda: swin(drop_path_rate=0.5),
    ],
    ids=["vit", "swin"],
)
def test_a_backbone_that_is_fine_tuned_drops_what_timm_drops(make):
    network = make()
    ours = network_of(network, model="vit_visual", train_backbone=True).train()
    frames, _ = inputs()
    with torch.no_grad():
        torch.manual_seed(3)
        features = ours.encode(frames, None).flatten(0, 1)
        torch.manual_seed(3)
        expected = network.forward_head(network.forward_features(frames.flatten(0, 1)), pre_logits=True)
    assert torch.equal(features, expected)


def test_a_vit_takes_spectrograms_of_any_size_a_patch_divides():
    network = network_of(vit())
    frames, _ = inputs()
    assert network(frames, torch.randn(2, 3, 16, 40)).logits.shape == (2, 3, 4)
    assert network(frames, torch.randn(2, 3, 21, 40)).logits.shape == (2, 3, 4)  # the rest of a patch is cut off


def test_only_adapters_and_head_are_trained_unless_norms_are_asked_for():
    network = network_of(vit())
    assert not any(p.requires_grad for p in network.backbone.parameters())
    trained, total = count_parameters(network)
    assert trained == total - sum(p.numel() for p in network.backbone.parameters())
    with_norms = network_of(vit(), train_norms=True)
    names = {name for name, p in with_norms.backbone.named_parameters() if p.requires_grad}
    assert names and all("norm" in name for name in names)


def test_trained_parameters_are_those_of_adapters_and_head():
    trained, total = count_parameters(network_of(vit(), head_dim=9, reduction=4, num_tokens=3))
    norms, products = 4 * 32 + 2 * 8 + 2 * 32, 2 * 32 * 8 // 2  # of one adapter of width 32 with 2 groups
    adapter = 3 * 32 + 2 + norms + products
    head = (64 * 9 + 9) + (9 * 4 + 4)
    assert trained == 8 * adapter + head
    assert total - trained == sum(p.numel() for p in vit().parameters())


def test_every_adapter_gets_a_gradient_once_the_gates_are_open():
    network = network_of(vit(), temporal="mean")
    open_gates(network)
    network(*inputs()).logits.square().sum().backward()
    without = [name for name, p in network.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
    assert not without


@pytest.mark.parametrize("make", [vit, swin])
def test_checkpointed_blocks_give_the_same_gradients_and_running_statistics(make):
    results = []
    for checkpointed in (False, True):
        network = network_of(make(), checkpoint_blocks=checkpointed).train()
        torch.manual_seed(2)
        for parameter in network.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.3)
        network(*inputs()).logits.square().sum().backward()
        gradients = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
        results.append(gradients | dict(network.named_buffers()))
    assert results[0].keys() == results[1].keys()
    for name, kept in results[0].items():
        assert torch.equal(kept, results[1][name]), name


def test_plain_adapters_never_see_the_other_modality():
    network = network_of(vit(), cross_modal=False).eval()
    open_gates(network)
    frames, spectrograms = inputs()
    with torch.no_grad():
        heard, seen = network.encode(frames, spectrograms).chunk(2, dim=-1)
        heard_elsewhere, seen_alike = network.encode(frames, spectrograms.flip(0)).chunk(2, dim=-1)
    assert torch.equal(seen, seen_alike) and not torch.equal(heard, heard_elsewhere)


def test_cross_modal_adapters_let_what_is_heard_change_what_is_seen():
    network = network_of(vit()).eval()
    open_gates(network)
    frames, spectrograms = inputs()
    with torch.no_grad():
        seen = network.encode(frames, spectrograms).chunk(2, dim=-1)[1]
        seen_otherwise = network.encode(frames, spectrograms.flip(0)).chunk(2, dim=-1)[1]
    assert not torch.allclose(seen, seen_otherwise)


def test_frames_are_encoded_apart_and_pooled():
    frames, spectrograms = inputs()
    mean = network_of(vit(), temporal="mean").eval()
    torch.testing.assert_close(mean(frames, spectrograms).features, mean(frames.flip(1), spectrograms.flip(1)).features)
    ordered = network_of(vit(), temporal="transformer").eval()
    output = ordered(frames, spectrograms)
    assert output.logits.shape == (2, 4) and output.features.shape == (2, 256)
    assert not torch.allclose(output.logits, ordered(frames.flip(1), spectrograms.flip(1)).logits)


def test_frames_are_averaged_with_the_transformers_positions_where_a_transformer_looks_at_them():
    features = torch.randn(2, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(TemporalPooling(8, "mean")(features), features.sum(dim=1) / 5)
    pooling = TemporalPooling(8, "transformer", width=8)
    pooling.proj = pooling.encoder = torch.nn.Identity()
    positions = torch.zeros(5, 8, dtype=torch.float64)
    for t in range(5):
        for i in range(4):
            positions[t, 2 * i] = math.sin(t / 10_000 ** (2 * i / 8))
            positions[t, 2 * i + 1] = math.cos(t / 10_000 ** (2 * i / 8))
    torch.testing.assert_close(pooling(features), (features + positions).mean(dim=1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_a_network_of_one_modality_needs_no_other(modality):
    network = network_of(vit(), model=f"vit_{modality}", temporal="mean")
    frames, spectrograms = inputs()
    output = network(frames, None) if modality == "visual" else network(None, spectrograms)
    assert output.logits.shape == (2, 4)


def test_a_backbone_that_adapters_do_not_fit_is_refused():
    with pytest.raises(ValueError, match="VisionTransformer or SwinV2"):
        network_of(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="not pre-norm"):
        network_of(vit(block_fn=ResPostBlock))
