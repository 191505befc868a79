"""MM-Pyramid (Yu et al., ACM MM 2022): attention and dilated convolution at several temporal scales; LEAP's encoder."""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from models.layers import FastDropout, FastMultiheadAttention, check_heads, feed_forward, over_keys
from utils.audio_visual import AudioVisual
from utils.settings import settings_group

NUM_LEVELS = 4
ATTENTION_DROPOUT = 0.1


@settings_group
class PyramidConfig:
    """The attention layers of MM-Pyramid, and of LEAP's decoders."""

    dim: PositiveInt = 512  # width D of encoder and decoders
    num_heads: PositiveInt = 8  # attention heads
    ffn_dim: PositiveInt = 512  # hidden width of the feed-forward layers
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2  # dropout probability

    def __post_init__(self):
        check_heads(self.dim, self.num_heads)


def begin_alike(modules: Sequence[nn.Module]) -> None:
    """Copy the first module's weights to the others of its kind, as the released code does before training."""
    for module in modules[1:]:
        module.load_state_dict(modules[0].state_dict())


class QueryNormLayer(nn.Module):
    """Transformer layer that normalises the query alone, before attending; keys and values come in as they are."""

    def __init__(self, config: PyramidConfig):
        super().__init__()
        dim = config.dim
        self.attention = FastMultiheadAttention(dim, config.num_heads, ATTENTION_DROPOUT)
        with torch.no_grad():  # queries, keys, values and output begin as copies of one layer (released code)
            linear = nn.Linear(dim, dim)
            self.attention.in_proj_weight.copy_(linear.weight.repeat(3, 1))
            self.attention.in_proj_bias.copy_(linear.bias.repeat(3))
            begin_alike([linear, self.attention.out_proj])
        self.linear1 = nn.Linear(dim, config.ffn_dim)
        self.linear2 = nn.Linear(config.ffn_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = FastDropout(config.dropout)

    def forward(self, x: Tensor, context: Tensor, near: Tensor | None = None) -> Tensor:
        """Attend from x (B, T, D) to context (B, S, D) where `near`, broadcast to (B, H, T, S), is True: (B, T, D)."""
        return self.feed_forward(self.attend(x, context, near))

    def attend(self, x: Tensor, context: Tensor, near: Tensor | None = None) -> Tensor:
        """Compute the attention sub-layer: (B, T, D) -> (B, T, D)."""
        return x + self.dropout(self.attention(self.norm1(x), context, mask=near))

    def feed_forward(self, x: Tensor) -> Tensor:
        """Compute the feed-forward sub-layer: (B, T, D) -> (B, T, D)."""
        return x + self.dropout(feed_forward(self.norm2(x), self.linear1, self.linear2, self.dropout))


class Gates(nn.Module):
    """sigmoid(L1 [own; cross])·own + sigmoid(L2 [own; cross])·cross."""

    def __init__(self, dim: int):
        super().__init__()
        self.own = nn.Linear(2 * dim, dim)
        self.cross = nn.Linear(2 * dim, dim)

    def forward(self, own: Tensor, cross: Tensor) -> Tensor:
        """(B, T, D) each -> (B, T, D)"""
        both = torch.cat([own, cross], dim=-1)
        return torch.sigmoid(self.own(both)) * own + torch.sigmoid(self.cross(both)) * cross


class DilatedConvolution(nn.Module):
    """relu(x + conv1x1(relu(conv3(x)))) over time, zeros beyond both ends of the video."""

    def __init__(self, dim: int, dilation: int):
        super().__init__()
        self.wide = nn.Conv1d(dim, dim, 3, padding=dilation, dilation=dilation)
        self.narrow = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)"""
        convolved = self.narrow(F.relu(self.wide(x.transpose(1, 2)))).transpose(1, 2)
        return F.relu(x + convolved)


class PyramidLevel(nn.Module):
    """One temporal scale: within 2^level seconds, each modality attends to itself and to the other."""

    def __init__(self, level: int, config: PyramidConfig):
        super().__init__()
        self.reach = 2**level  # seconds
        self.self_audio, self.self_visual = QueryNormLayer(config), QueryNormLayer(config)
        self.cross = QueryNormLayer(config)  # one for both directions
        self.gates_audio, self.gates_visual = Gates(config.dim), Gates(config.dim)
        self.convolution_audio = DilatedConvolution(config.dim, self.reach)
        self.convolution_visual = DilatedConvolution(config.dim, self.reach)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> AudioVisual[Tensor]:
        """Update each modality: (B, T, D) -> (B, T, D); the mask, (B, T) bool, is False for padding."""
        near = seconds_within(self.reach, audio.shape[1], audio.device)
        if mask is not None:  # padding attends to itself, so that it stays finite
            near = near & over_keys(mask) | torch.eye(len(near), dtype=torch.bool, device=near.device)
        audio_gated = self.gates_audio(self.self_audio(audio, audio, near), self.cross(audio, visual, near))
        visual_gated = self.gates_visual(self.self_visual(visual, visual, near), self.cross(visual, audio, near))
        if mask is not None:  # zeros beyond the video's end
            beyond = ~mask.unsqueeze(-1)
            audio_gated, visual_gated = audio_gated.masked_fill(beyond, 0), visual_gated.masked_fill(beyond, 0)
        return AudioVisual(self.convolution_audio(audio_gated), self.convolution_visual(visual_gated))


def seconds_within(reach: int, num_segments: int, device: torch.device) -> Tensor:
    """Return which pairs of seconds are at most `reach` apart: (T, T) bool."""
    seconds = torch.arange(num_segments, device=device)
    return (seconds.unsqueeze(1) - seconds).abs() <= reach


class LevelFusion(nn.Module):
    """Fusion of all levels second by second: a transformer layer over them, then a sum weighted by sigmoids."""

    def __init__(self, config: PyramidConfig):
        super().__init__()
        self.layer = QueryNormLayer(config)
        self.weight = nn.Linear(config.dim, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """L tensors (B, T, D) -> (B, T, D)"""
        rows = torch.stack(levels, dim=2).flatten(0, 1)  # (B·T, L, D)
        rows = self.layer(rows, rows)
        return (torch.sigmoid(self.weight(rows)) * rows).sum(dim=1).unflatten(0, levels[0].shape[:2])


class PyramidEncoder(nn.Module):
    """Levels of growing reach, each on the output of the one before it, and their fusion for each modality."""

    def __init__(self, config: PyramidConfig):
        super().__init__()
        self.levels = nn.ModuleList(PyramidLevel(level, config) for level in range(NUM_LEVELS))
        self.fusion_audio, self.fusion_visual = LevelFusion(config), LevelFusion(config)
        layers = [layer for level in self.levels for layer in (level.self_audio, level.self_visual, level.cross)]
        begin_alike([layer.linear1 for layer in layers])
        begin_alike([layer.linear2 for layer in layers])
        begin_alike([self.fusion_audio.layer, self.fusion_visual.layer])

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> AudioVisual[Tensor]:
        """Encode each modality: (B, T, D) -> (B, T, D); the mask, (B, T) bool, is False for padding."""
        outputs = []
        for level in self.levels:
            audio, visual = level(audio, visual, mask)
            outputs.append((audio, visual))
        audio_levels, visual_levels = zip(*outputs, strict=True)
        return AudioVisual(self.fusion_audio(audio_levels), self.fusion_visual(visual_levels))
