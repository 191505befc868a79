"""timm's image transformers, split into the steps between which adapters are inserted.

B images, N tokens, D features. The caller computes a block's attention part, then its feed-forward part, in timm's own
order of operations, so that results are bitwise equal to timm's forward pass.
"""

from collections.abc import Mapping

import timm
import torch
import torch.nn.functional as F
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d)


class ViTSteps:
    """A pre-norm Vision Transformer. Tokens are (B, N, D)."""

    audio_first = True  # order of the modalities in the released head
    any_size = True  # spectrograms need not have the size of frames

    def __init__(self, network: VisionTransformer):
        if not all(isinstance(block, Block) for block in network.blocks):
            raise ValueError("the Vision Transformer has blocks that are not pre-norm, which adapters require")
        self.network = network
        self.dims = [network.embed_dim] * len(network.blocks)  # D of each block

    def embed(self, images: Tensor) -> Tensor:
        """Compute tokens before the first block: (B, 3, H, W) -> (B, N, D)."""
        network = self.network
        if images.shape[-2:] == network.patch_embed.img_size:
            return network.norm_pre(network.patch_drop(network._pos_embed(network.patch_embed(images))))
        patches = network.patch_embed.norm(network.patch_embed.proj(images).flatten(2).transpose(1, 2))
        prefix = [token for token in (network.cls_token, network.reg_token) if token is not None]
        tokens = torch.cat([*(token.expand(len(images), -1, -1) for token in prefix), patches], dim=1)
        if network.pos_embed is not None:  # resized along the sequence, class token included, as released
            length = patches.shape[1] if network.no_embed_class else tokens.shape[1]
            positions = F.interpolate(network.pos_embed.transpose(1, 2), size=length, mode="linear").transpose(1, 2)
            tokens = tokens + F.pad(positions, (0, 0, tokens.shape[1] - length, 0))  # on the last tokens
        return network.norm_pre(network.patch_drop(network.pos_drop(tokens)))

    def enter(self, index: int, tokens: Tensor) -> Tensor:
        """Return the tokens unchanged: no down-sampling precedes a block."""
        return tokens

    def attention(self, index: int, tokens: Tensor) -> Tensor:
        """Compute the residual of block `index`'s attention: (B, N, D) -> (B, N, D)."""
        block = self.network.blocks[index]
        return block.drop_path1(block.ls1(block.attn(block.norm1(tokens))))

    def feed_forward(self, index: int, tokens: Tensor) -> Tensor:
        """Compute the residual of block `index`'s feed-forward part: (B, N, D) -> (B, N, D)."""
        block = self.network.blocks[index]
        return block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))


class SwinSteps:
    """A Swin Transformer V2. Tokens are (B, H, W, D), as windows need the grid; D doubles from stage to stage."""

    audio_first = False
    any_size = False

    def __init__(self, network: SwinTransformerV2):
        self.network = network
        self.blocks = [block for stage in network.layers for block in stage.blocks]
        self.dims = [block.dim for block in self.blocks]
        # by the index of a stage's first block
        self.downsampling = {self.blocks.index(stage.blocks[0]): stage.downsample for stage in network.layers}

    def embed(self, images: Tensor) -> Tensor:
        """Compute tokens before the first block: (B, 3, H, W) -> (B, H / patch, W / patch, D)."""
        return self.network.patch_embed(images)

    def enter(self, index: int, tokens: Tensor) -> Tensor:
        """Down-sample the tokens if block `index` begins a stage with down-sampling."""
        return self.downsampling[index](tokens) if index in self.downsampling else tokens

    def attention(self, index: int, tokens: Tensor) -> Tensor:
        """Compute the residual of block `index`'s attention: (B, H, W, D) -> (B, H, W, D)."""
        block = self.blocks[index]
        return block.drop_path1(block.norm1(block._attn(tokens)))

    def feed_forward(self, index: int, tokens: Tensor) -> Tensor:
        """Compute the residual of block `index`'s feed-forward part: (B, H, W, D) -> (B, H, W, D)."""
        block = self.blocks[index]
        return block.drop_path2(block.norm2(block.mlp(tokens.flatten(1, 2)))).view_as(tokens)


def steps_of(network: nn.Module) -> ViTSteps | SwinSteps:
    """Return the steps of a timm network. Raises ValueError if it is neither a ViT nor a SwinV2."""
    if isinstance(network, VisionTransformer):
        return ViTSteps(network)
    if isinstance(network, SwinTransformerV2):
        return SwinSteps(network)
    raise ValueError(f"the backbone is a {type(network).__name__}; expected timm's VisionTransformer or SwinV2")


def set_trained(network: nn.Module, weights: bool, norms: bool) -> None:
    """Set which part of a backbone is trained: all of it, its normalisation layers only, or nothing."""
    network.requires_grad_(weights)
    for module in network.modules():
        if isinstance(module, NORMS):
            module.requires_grad_(weights or norms)


def make_backbone(
    name: str, image_size: int, sizes: Mapping[str, int | float], drop_path: float = 0.0, pretrained: bool = False
) -> VisionTransformer | SwinTransformerV2:
    """Return a timm network, such as `vit_base_patch16_224`, without its classifier, with random or the hub's weights.

    `sizes` override arguments such as `depth`; they require random weights, since timm would load only hub weights that
    fit. Raises ValueError for an unknown name and for invalid sizes, OSError or RuntimeError for absent weights.
    """
    if pretrained and sizes:
        raise ValueError(f"changed sizes ({', '.join(sizes)}), for which the hub has no weights")
    try:
        options = {"num_classes": 0, "img_size": image_size, "drop_path_rate": drop_path, **sizes}
        return timm.create_model(name, pretrained=pretrained, **options)
    except (TypeError, AssertionError, ZeroDivisionError) as error:
        raise ValueError(f"{name} with {dict(sizes)}: {error}") from error
