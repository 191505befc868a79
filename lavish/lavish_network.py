"""LAVISH: audio-visual adapters in one frozen image transformer (Lin et al., CVPR 2023)."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lavish.image_transformers import set_trained, steps_of
from utils.settings import Share, settings_group

LARGEST_SIZE = 65_536  # upper bound of widths, depths and the like


class LavishAdapter(nn.Module):
    """Adapter of one modality: attention to the other through K latent tokens, then a bottleneck of D / r (Eq. 5 to 7).

    Without latent tokens it is a plain adapter, independent of the other modality. The released grouped 1x1
    convolutions are products of rows here, one for each of G column groups. Parameter names are the released ones.
    """

    def __init__(self, dim: int, reduction: int, num_tokens: int, groups: int):
        super().__init__()
        bottleneck = dim // reduction
        if bottleneck == 0 or dim % groups or bottleneck % groups:
            raise ValueError(f"an adapter of width {dim} with reduction {reduction} cannot have {groups} groups")
        self.groups = groups
        self.cross_modal = num_tokens > 0
        if self.cross_modal:
            self.my_tokens = nn.Parameter(torch.rand(num_tokens, dim))
            self.gate_av = nn.Parameter(torch.zeros(1))
        self.gate = nn.Parameter(torch.zeros(1))
        self.ln_before = nn.LayerNorm(dim)
        self.down_sampler = nn.Conv2d(dim, bottleneck, 1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm1d(bottleneck)
        self.up_sampler = nn.Conv2d(bottleneck, dim, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm1d(dim)
        self.ln_post = nn.LayerNorm(dim)

    def forward(self, x: Tensor, other: Tensor | None) -> Tensor:
        """Map (B, N, D), (B, M, D) of the other modality -> (B, N, D), which the caller adds to x."""
        if self.cross_modal:  # latent tokens attend to the other modality, and x to them, unscaled and unprojected
            tokens = self.my_tokens.expand(len(x), -1, -1)  # (B, K, D)
            tokens = tokens + torch.softmax(tokens @ other.transpose(1, 2), dim=-1) @ other
            x = x + self.gate_av * (torch.softmax(x @ tokens.transpose(1, 2), dim=-1) @ tokens)
        rows = self.ln_before(x).flatten(0, 1)  # (B·N, D)
        rows = F.relu(self.bn1(self._grouped(rows, self.down_sampler)))  # (B·N, D / r)
        rows = self.bn2(self._grouped(rows, self.up_sampler))
        return self.gate * self.ln_post(rows).view_as(x)

    def _grouped(self, rows: Tensor, convolution: nn.Conv2d) -> Tensor:
        """Compute a grouped 1x1 convolution on rows: (R, D_in) -> (R, D_out)."""
        weights = convolution.weight.flatten(1).unflatten(0, (self.groups, -1))  # (G, D_out / G, D_in / G)
        parts = [part @ weight.T for part, weight in zip(rows.chunk(self.groups, dim=-1), weights, strict=True)]
        return torch.cat(parts, dim=-1)


class TemporalPooling(nn.Module):
    """Temporal pooling of frame features: "none", "mean", or "transformer" (a transformer encoder, then the mean)."""

    def __init__(self, dim: int, kind: str, width: int = 256, num_heads: int = 4, num_layers: int = 2):
        super().__init__()
        self.kind = kind
        self.out_dim = width if kind == "transformer" else dim
        if kind == "transformer":
            self.proj = nn.Linear(dim, width)
            layer = nn.TransformerEncoderLayer(width, num_heads, 2 * width, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, features: Tensor) -> Tensor:
        """Pool (B, T, D) -> (B, out_dim), or (B, T, D) if "none"."""
        if self.kind == "none":
            return features
        if self.kind == "transformer":
            features = self.proj(features)
            features = self.encoder(features + sinusoids(features.shape[1], features.shape[2]).to(features))
        return features.mean(dim=1)


def sinusoids(length: int, dim: int) -> Tensor:
    """Compute sine and cosine position encodings: (T, D) float32, D even."""
    rates = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    angles = torch.arange(length).unsqueeze(1) * rates  # (T, D / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


@settings_group
class ClipNetworkSettings:
    """Architecture and initial weights of a clip classifier."""

    backbone: str = "swinv2_large_window12_192.ms_in22k"  # timm's name of a ViT or SwinV2
    backbone_sizes: tuple[str, ...] | None = None  # overrides of timm's arguments, such as depth=3 embed_dim=96
    backbone_weights: str = "hub"
    """initial weights of the backbone: hub, random, timm's weights (a file, or a folder of the hub), or a checkpoint of
    this repository; i3d_soundnet: random, or a folder with i3d.pt and soundnet.pt"""
    network_weights: Path | None = None  # initial weights of the whole network: released LAVISH weights or a checkpoint
    train_backbone: bool = False  # fine-tune the backbone
    train_norms: bool = False  # fine-tune the backbone's normalisation layers
    cross_modal: bool = True  # LAVISH's adapters attend to the other modality; if off: plain adapters
    fusion: Literal["attention", "concatenation", "i3d"] = "attention"  # fusion of i3d_soundnet; i3d: no audio
    reduction: PositiveInt = 8  # factor by which an adapter reduces the width of tokens
    num_tokens: Annotated[int, Field(ge=1, le=LARGEST_SIZE)] = 2  # latent tokens per adapter
    groups: PositiveInt = 2  # groups of an adapter's 1x1 convolutions
    head_dim: Annotated[int, Field(ge=1, le=LARGEST_SIZE)] = 512  # hidden width of the audio-visual head
    temporal: Literal["none", "mean", "transformer"] = "none"  # pooling of frame features into one clip feature
    drop_path: Share = 0.0  # drop path rate of the last block, rising linearly from 0 in the first
    checkpoint_blocks: bool = False  # recompute blocks in the backward pass: less memory, more time


@dataclass
class ClipOutput:
    """Output of a clip classifier. B clips, T frames, C classes."""

    logits: Tensor  # (B, C), or (B, T, C) when every frame is classified
    features: Tensor  # (B, D) or (B, T, D), input of the classification head


class LavishNetwork(nn.Module):
    """One image transformer for frames and spectrograms, with or without adapters, and a classification head.

    "lavish" has adapters in every block, "late_fusion" has none, and both have the released head of two linear layers;
    "vit_visual" (frames only) and "vit_audio" (spectrograms only) have one linear layer.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, model: str, settings: ClipNetworkSettings):
        super().__init__()
        self.has_visual, self.has_audio = model != "vit_audio", model != "vit_visual"
        self.train_backbone = settings.train_backbone
        self.frozen = not (model == "lavish" or settings.train_backbone or settings.train_norms)  # all but the head
        self.checkpoint_blocks = settings.checkpoint_blocks
        self.backbone = backbone
        self._steps = steps_of(backbone)
        set_trained(backbone, settings.train_backbone, settings.train_norms)
        dims = self._steps.dims if model == "lavish" else []
        sizes = (settings.reduction, settings.num_tokens if settings.cross_modal else 0, settings.groups)
        self.audio_adapter_blocks_p1 = nn.ModuleList(LavishAdapter(dim, *sizes) for dim in dims)
        self.vis_adapter_blocks_p1 = nn.ModuleList(LavishAdapter(dim, *sizes) for dim in dims)
        self.audio_adapter_blocks_p2 = nn.ModuleList(LavishAdapter(dim, *sizes) for dim in dims)
        self.vis_adapter_blocks_p2 = nn.ModuleList(LavishAdapter(dim, *sizes) for dim in dims)
        self.temporal = TemporalPooling(backbone.num_features * (self.has_visual + self.has_audio), settings.temporal)
        head_dim = settings.head_dim if self.has_visual and self.has_audio else None
        self.mlp_class = nn.Linear(self.temporal.out_dim, head_dim or num_classes)
        self.mlp_class_2 = nn.Linear(head_dim, num_classes) if head_dim else nn.Identity()
        self.any_size = self._steps.any_size  # whether spectrograms may differ in size from frames
        self.patch_size = backbone.patch_embed.patch_size  # pixels; the smallest image and spectrogram

    def train(self, mode: bool = True) -> "LavishNetwork":
        """Set the mode; a frozen backbone stays in evaluation mode, except for drop path while adapters are trained."""
        super().train(mode)
        self.backbone.train(mode and self.train_backbone)
        for module in self.backbone.modules():
            if isinstance(module, DropPath):
                module.train(mode and not self.frozen)
        return self

    def forward(self, frames: Tensor | None, spectrograms: Tensor | None) -> ClipOutput:
        """Classify clips of T frames (B, T, 3, H, W) and their spectrograms (B, T, L, F), or of one of the two."""
        return self.classify(self.encode(frames, spectrograms))

    def classify(self, features: Tensor) -> ClipOutput:
        """Pool over time and classify: (B, T, D) -> logits and the input of the head."""
        features = self.temporal(features)
        return ClipOutput(self.mlp_class_2(self.mlp_class(features)), features)

    def encode(self, frames: Tensor | None, spectrograms: Tensor | None) -> Tensor:
        """Compute the concatenated features of each frame and its spectrogram: (B, T, D) or (B, T, 2D)."""
        audio = visual = None
        if self.has_audio:
            images = spectrograms.flatten(0, 1).unsqueeze(1).expand(-1, 3, -1, -1)  # (B·T, 3, L, F)
            audio = self._steps.embed(images)
        if self.has_visual:
            visual = self._steps.embed(frames.flatten(0, 1))
        block = self._block
        if self.checkpoint_blocks and self.training:
            of_passes = {"context_fn": lambda: (nullcontext(), self._statistics_kept())}
            block = partial(checkpoint, block, use_reentrant=False, **of_passes)
        for index in range(len(self._steps.dims)):
            audio, visual = block(index, audio, visual)
        streams = (audio, visual) if self._steps.audio_first else (visual, audio)
        norm, head = self.backbone.norm, self.backbone.forward_head  # class token (ViT), or mean over tokens (SwinV2)
        features = torch.cat([head(norm(x), pre_logits=True) for x in streams if x is not None], dim=-1)  # (B·T, D)
        return features.unflatten(0, (frames if self.has_visual else spectrograms).shape[:2])

    def _block(self, index: int, audio: Tensor | None, visual: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Compute block `index` of both streams; both adapters of a pair read the tokens before either update."""
        steps = self._steps

        def updated(
            step: Callable, adapters: nn.ModuleList, tokens: Tensor | None, other: Tensor | None
        ) -> Tensor | None:
            if tokens is None:
                return None
            result = tokens + step(index, tokens)  # (B, ..., D)
            if not adapters:
                return result
            rows, other_rows = (None if x is None else x.flatten(1, -2) for x in (tokens, other))
            return result + adapters[index](rows, other_rows).view_as(tokens)

        audio, visual = (None if x is None else steps.enter(index, x) for x in (audio, visual))
        attention = steps.attention, self.audio_adapter_blocks_p1, self.vis_adapter_blocks_p1
        feed_forward = steps.feed_forward, self.audio_adapter_blocks_p2, self.vis_adapter_blocks_p2
        for step, audio_adapters, visual_adapters in (attention, feed_forward):
            streams = (audio_adapters, audio, visual), (visual_adapters, visual, audio)
            audio, visual = (updated(step, *stream) for stream in streams)
        return audio, visual

    @contextmanager
    def _statistics_kept(self) -> Iterator[None]:
        """Keep batch norm's running statistics unchanged while a checkpointed block is recomputed."""
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm1d)]
        before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        try:
            yield
        finally:
            for norm, (momentum, count) in zip(norms, before, strict=True):
                norm.momentum = momentum
                norm.num_batches_tracked.copy_(count)


def count_parameters(network: nn.Module) -> tuple[int, int]:
    """Return the numbers of trained and of all parameters, as in LAVISH's tables."""
    parameters = list(network.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)


def from_released_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of the released LAVISH for `LavishNetwork` with current timm; one of ours remains as it is.

    SwinV2's down-sampling moved from the end of a stage (timm 0.6) to the start of the next. The result lacks attention
    masks, the backbone's own classifier and what the released code does not use (`adapter_token_downsampler`, gates
    `gate_tk` of 1). Raises ValueError for other gates.
    """
    renamed = {}
    for key, value in state.items():
        if key.endswith(".gate_tk") and not torch.all(value == 1):
            raise ValueError(f"{key} of {value.flatten()[0].item():g}, where adapters of this repository assume 1")
        if key.endswith((".gate_tk", ".attn_mask")):
            continue
        if key.startswith(("adapter_token_downsampler.", "ViT.v.head.", "swin.head.")):
            continue
        if match := re.fullmatch(r"swin\.layers\.(\d+)\.(downsample\..*)", key):
            key = f"swin.layers.{int(match[1]) + 1}.{match[2]}"
        renamed[re.sub(r"^(ViT\.v|swin)\.", "backbone.", key)] = value
    return renamed
