"""timm's image transformers taken apart into the steps that adapters are put between.

A block's attention part and feed-forward part are called one after the other by whoever owns the block; the order of
operations is timm's own, so the results are bitwise those of timm's forward pass. B images, N tokens, D features.
"""

from collections.abc import Mapping

import timm
import torch
import torch.nn.functional as F
from timm.models import swin_transformer_v2, vision_transformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

RANDOM, HUB = "random", "hub"
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d)


class ViTSteps:
    """A Vision Transformer. Tokens are (B, N, D).

    Args:
        network: of timm, with blocks that normalise first.
    """

    audio_first = True  # in the released read-out
    any_size = True  # spectrograms need not be as large as frames

    def __init__(self, network: VisionTransformer):
        if not all(isinstance(block, Block) for block in network.blocks):
            raise ValueError("the Vision Transformer has blocks that do not normalise first; adapters fit no others")
        self.network = network
        self.dims = [network.embed_dim] * len(network.blocks)  # D of each block

    @property
    def feature_dim(self) -> int:
        return self.network.num_features

    def embed(self, images: Tensor) -> Tensor:
        """Tokens before the first block: (B, 3, H, W) -> (B, N, D).

        Images of another size than the network's get the position embedding of their number of tokens, resized linearly
        along the sequence with the class token in it, as the release does with spectrograms.
        """
        network = self.network
        if images.shape[-2:] == network.patch_embed.img_size:
            return network.norm_pre(network.patch_drop(network._pos_embed(network.patch_embed(images))))
        patches = network.patch_embed.norm(network.patch_embed.proj(images).flatten(2).transpose(1, 2))
        prefix = [
            token.expand(len(images), -1, -1) for token in (network.cls_token, network.reg_token) if token is not None
        ]
        if network.pos_embed is None:
            tokens = torch.cat([*prefix, patches], dim=1)
        elif network.no_embed_class:
            tokens = torch.cat([*prefix, patches + self._positions(patches.shape[1])], dim=1)
        else:
            tokens = torch.cat([*prefix, patches], dim=1)
            tokens = tokens + self._positions(tokens.shape[1])
        return network.norm_pre(network.patch_drop(network.pos_drop(tokens)))

    def _positions(self, num_tokens: int) -> Tensor:
        resized = F.interpolate(self.network.pos_embed.transpose(1, 2), size=num_tokens, mode="linear")
        return resized.transpose(1, 2)  # (1, N, D)

    def enter(self, index: int, tokens: Tensor) -> Tensor:
        """What happens before block `index`: nothing."""
        return tokens

    def attention(self, index: int, tokens: Tensor) -> Tensor:
        """What the attention of block `index` adds: (B, N, D) -> (B, N, D)."""
        block = self.network.blocks[index]
        return block.drop_path1(block.ls1(block.attn(block.norm1(tokens))))

    def feed_forward(self, index: int, tokens: Tensor) -> Tensor:
        """What the feed-forward part of block `index` adds: (B, N, D) -> (B, N, D)."""
        block = self.network.blocks[index]
        return block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))

    def read_out(self, tokens: Tensor) -> Tensor:
        """The class token, or what the network pools instead: (B, N, D) -> (B, D)."""
        return self.network.forward_head(self.network.norm(tokens), pre_logits=True)


class SwinSteps:
    """A Swin Transformer V2. Tokens are (B, H, W, D): windows need the grid; D doubles from stage to stage."""

    audio_first = False
    any_size = False

    def __init__(self, network: SwinTransformerV2):
        self.network = network
        self.blocks = [block for stage in network.layers for block in stage.blocks]
        self.dims = [block.dim for block in self.blocks]
        firsts = [sum(len(stage.blocks) for stage in network.layers[:i]) for i in range(len(network.layers))]
        self._stage_from = dict(zip(firsts, network.layers, strict=True))  # by the number of its first block

    @property
    def feature_dim(self) -> int:
        return self.network.num_features

    def embed(self, images: Tensor) -> Tensor:
        """Tokens before the first block: (B, 3, H, W) -> (B, H / patch, W / patch, D)."""
        return self.network.patch_embed(images)

    def enter(self, index: int, tokens: Tensor) -> Tensor:
        """Down-sampling, where block `index` is the first of a stage that has it."""
        stage = self._stage_from.get(index)
        return tokens if stage is None else stage.downsample(tokens)

    def attention(self, index: int, tokens: Tensor) -> Tensor:
        """What the attention of block `index` adds: (B, H, W, D) -> (B, H, W, D)."""
        block = self.blocks[index]
        return block.drop_path1(block.norm1(block._attn(tokens)))

    def feed_forward(self, index: int, tokens: Tensor) -> Tensor:
        """What the feed-forward part of block `index` adds: (B, H, W, D) -> (B, H, W, D)."""
        block = self.blocks[index]
        flat = tokens.flatten(1, 2)
        return block.drop_path2(block.norm2(block.mlp(flat))).view_as(tokens)

    def read_out(self, tokens: Tensor) -> Tensor:
        """Mean over the tokens: (B, H, W, D) -> (B, D)."""
        return self.network.forward_head(self.network.norm(tokens), pre_logits=True)


def steps_of(network: nn.Module) -> ViTSteps | SwinSteps:
    """The steps of a timm network. Raises ValueError when it is neither a ViT nor a SwinV2."""
    if isinstance(network, VisionTransformer):
        return ViTSteps(network)
    if isinstance(network, SwinTransformerV2):
        return SwinSteps(network)
    raise ValueError(f"the backbone is a {type(network).__name__}; expected timm's VisionTransformer or SwinV2")


def set_trained(network: nn.Module, weights: bool, norms: bool) -> None:
    """Choose what of a backbone is trained: all of it, its normalisation layers alone, or nothing."""
    network.requires_grad_(weights)
    for module in network.modules():
        if isinstance(module, NORMS):
            module.requires_grad_(weights or norms)


def make_backbone(name: str, weights: str, image_size: int, sizes: Mapping[str, int | float]) -> nn.Module:
    """A network of timm without its classifier.

    Args:
        name: timm's, such as `swinv2_large_window12_192.ms_in22k` or `vit_base_patch16_224`.
        weights: "random", or "hub" for the pre-trained ones, from the hub or its cache.
        sizes: arguments of the network that differ from the named one's, such as `depth`; not with the hub's weights,
            of which timm would load those that fit.

    Raises:
        ValueError: for a name that timm does not know and sizes that do not fit together.
        OSError, RuntimeError: when weights cannot be had.
    """
    if weights not in (RANDOM, HUB):
        raise ValueError(f"weights are {weights!r}; expected {RANDOM!r} or {HUB!r}")
    if weights == HUB and sizes:
        raise ValueError(f"sizes of its own ({', '.join(sizes)}), for which the hub has no weights")
    try:
        return timm.create_model(name, pretrained=weights == HUB, num_classes=0, img_size=image_size, **sizes)
    except (TypeError, AssertionError, ZeroDivisionError) as error:
        raise ValueError(f"{name} with {dict(sizes)}: {error}") from error


def as_of_today(state: dict[str, Tensor], network: VisionTransformer | SwinTransformerV2) -> dict[str, Tensor]:
    """A state dict of timm, of today or of earlier versions, under the names of a network of today without classifier.

    What depends on the size of images is resized to the network's.
    """
    module = swin_transformer_v2 if isinstance(network, SwinTransformerV2) else vision_transformer
    renamed = module.checkpoint_filter_fn(state, network)
    return {key: value for key, value in renamed.items() if not key.startswith("head.")}
