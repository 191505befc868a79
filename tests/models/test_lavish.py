"""What holds for LAVISH's network beyond parity with the release."""

import pytest
import torch

pytest.importorskip("timm", reason="LAVISH wraps networks of timm")

from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer

from models.lavish import LavishAdapter, LavishNetwork, count_parameters


def vit(**settings) -> VisionTransformer:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}
    return VisionTransformer(**sizes | settings)


def swin() -> SwinTransformerV2:
    torch.manual_seed(0)
    network = SwinTransformerV2(
        img_size=32, patch_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 2), window_size=4, num_classes=0
    )
    for parameter in network.parameters():  # its norms start at 0, which would hide every block
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def inputs(batch: int = 2, num_frames: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(batch, num_frames, 3, 32, 32, generator=generator)
    return frames, torch.randn(batch, num_frames, 32, 32, generator=generator)


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
    network = LavishNetwork(backbone, num_classes=4, groups=2).train(mode == "training")
    frames, spectrograms = inputs()
    with torch.no_grad():
        features = network.encode(frames, spectrograms)
        alone = [
            backbone.forward_head(backbone.forward_features(x.flatten(0, 1)), pre_logits=True)
            for x in (spectrograms.unsqueeze(2).expand(-1, -1, 3, -1, -1), frames)
        ]
    expected = torch.cat(alone if make is vit else alone[::-1], dim=-1).view(2, 3, -1)
    assert torch.equal(features, expected)


def test_a_vit_takes_spectrograms_of_any_size_a_patch_divides():
    network = LavishNetwork(vit(), num_classes=4)
    frames, _ = inputs()
    assert network(frames, torch.randn(2, 3, 16, 40)).logits.shape == (2, 3, 4)
    assert network(frames, torch.randn(2, 3, 21, 40)).logits.shape == (2, 3, 4)  # the rest of a patch is cut off


def test_only_adapters_and_head_are_trained_unless_norms_are_asked_for():
    network = LavishNetwork(vit(), num_classes=4)
    assert not any(p.requires_grad for p in network.backbone.parameters())
    trained, total = count_parameters(network)
    assert trained == total - sum(p.numel() for p in network.backbone.parameters())
    with_norms = LavishNetwork(vit(), num_classes=4, train_norms=True)
    names = {name for name, p in with_norms.backbone.named_parameters() if p.requires_grad}
    assert names and all("norm" in name for name in names)


def test_every_adapter_gets_a_gradient_once_the_gates_are_open():
    network = LavishNetwork(vit(), num_classes=4, temporal="mean")
    open_gates(network)
    network(*inputs()).logits.square().sum().backward()
    without = [name for name, p in network.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
    assert not without


@pytest.mark.parametrize("make", [vit, swin])
def test_checkpointed_blocks_give_the_same_gradients_and_running_statistics(make):
    results = []
    for checkpointed in (False, True):
        network = LavishNetwork(make(), num_classes=4, checkpoint_blocks=checkpointed).train()
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
    network = LavishNetwork(vit(), num_classes=4, adapters="plain").eval()
    open_gates(network)
    frames, spectrograms = inputs()
    with torch.no_grad():
        heard, seen = network.encode(frames, spectrograms).chunk(2, dim=-1)
        heard_elsewhere, seen_alike = network.encode(frames, spectrograms.flip(0)).chunk(2, dim=-1)
    assert torch.equal(seen, seen_alike) and not torch.equal(heard, heard_elsewhere)


def test_cross_modal_adapters_let_what_is_heard_change_what_is_seen():
    network = LavishNetwork(vit(), num_classes=4).eval()
    open_gates(network)
    frames, spectrograms = inputs()
    with torch.no_grad():
        seen = network.encode(frames, spectrograms).chunk(2, dim=-1)[1]
        seen_otherwise = network.encode(frames, spectrograms.flip(0)).chunk(2, dim=-1)[1]
    assert not torch.allclose(seen, seen_otherwise)


def test_frames_are_encoded_apart_and_pooled():
    frames, spectrograms = inputs()
    mean = LavishNetwork(vit(), num_classes=4, temporal="mean").eval()
    torch.testing.assert_close(mean(frames, spectrograms).features, mean(frames.flip(1), spectrograms.flip(1)).features)
    ordered = LavishNetwork(vit(), num_classes=4, temporal="transformer").eval()
    output = ordered(frames, spectrograms)
    assert output.logits.shape == (2, 4) and output.features.shape == (2, 256)
    assert not torch.allclose(output.logits, ordered(frames.flip(1), spectrograms.flip(1)).logits)


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_a_network_of_one_modality_needs_no_other(modality):
    network = LavishNetwork(vit(), num_classes=4, adapters="none", modalities=modality, head_dim=None, temporal="mean")
    frames, spectrograms = inputs()
    output = network(frames, None) if modality == "visual" else network(None, spectrograms)
    assert output.logits.shape == (2, 4)


def test_a_backbone_that_adapters_do_not_fit_is_refused():
    with pytest.raises(ValueError, match="VisionTransformer or SwinV2"):
        LavishNetwork(torch.nn.Linear(2, 2), num_classes=4)
    with pytest.raises(ValueError, match="groups"):
        LavishAdapter(dim=48, reduction=8, groups=4)
