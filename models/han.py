"""Hybrid Attention Network (HAN; Tian, Li and Xu, ECCV 2020) with MMIL pooling, the network of stage 3."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from models import layers
from models.layers import MLP, FastDropout, FastMultiheadAttention, NumLayers, count_layers, feed_forward, mlp_dims
from models.pretrained import Pretrained
from utils.audio_visual import AudioVisual
from utils.settings import Share, settings_group


@settings_group
class EncoderConfig:
    """Settings of the hybrid attention encoder."""

    dim: PositiveInt = 512  # width D of the encoder
    num_heads: PositiveInt = 16  # attention heads
    ffn_dim: PositiveInt = 2048  # hidden width of the feed-forward layers
    num_layers: NumLayers = 5  # hybrid attention layers
    dropout: Share = 0.1  # dropout probability
    pre_norm: bool = False  # normalise before the sub-layers instead of after
    encoder_order: Literal["sequential", "parallel"] = "sequential"
    """sequential: visual segments attend to the updated audio (released code); parallel: to the audio input (paper)"""
    layer_init: Literal["equal", "independent"] = "equal"
    """initial weights of the layers; equal: copies of one layer (released code); independent: drawn for each layer"""

    def __post_init__(self):
        layers.check_heads(self.dim, self.num_heads)


@settings_group
class HANConfig(EncoderConfig):
    """Settings of HAN except for input widths and number of classes; the defaults are the released recipe."""

    num_proj_layers: NumLayers = 1  # layers of the visual input projection
    num_mmil_layers: NumLayers = 1  # layers of each MMIL attention head
    proj_hidden_dim: PositiveInt | None = None  # hidden width of the visual projection; None: 2·dim
    mmil_hidden_dim: PositiveInt | None = None  # hidden width of the MMIL heads; None: 2·dim
    num_audio_proj_layers: NumLayers = 2  # layers of the audio input projection (HAN, 2020: 1)
    visual_fusion: Literal["concatenated", "projected"] = "concatenated"  # projected: project each first (HAN, 2020)
    cross_attention: bool = True  # let each modality attend to the other (off in JoMoLD's estimator)
    visual_dropout: Share = 0.0  # dropout of visual features between encoder and heads (JoMoLD: 0.5)


@dataclass
class HANOutput:
    """Output of HAN. B videos, T segments, C classes, D features."""

    video_probs: Tensor  # (B, C) MMIL-pooled over both modalities and time
    modality_probs: AudioVisual[Tensor]  # (B, C) pooled over time, each modality alone
    logits: AudioVisual[Tensor]  # (B, T, C)
    features: AudioVisual[Tensor]  # (B, T, D) after the encoder
    visual_inputs: Tensor  # (B, T, D) projected, before the encoder


class HANLayer(nn.Module):
    """A hybrid attention layer (HAN, 2020), which updates either modality with the same weights."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        dim = config.dim
        self.pre_norm = config.pre_norm
        self.self_attn = FastMultiheadAttention(dim, config.num_heads, config.dropout)
        self.cm_attn = FastMultiheadAttention(dim, config.num_heads, config.dropout)
        self.linear1 = nn.Linear(dim, config.ffn_dim)
        self.linear2 = nn.Linear(config.ffn_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = FastDropout(config.dropout)

    def forward(self, x: Tensor, other: Tensor | None, mask: Tensor | None = None) -> Tensor:
        """Update one modality x by attention to itself and, if given, to the other one: (B, T, D) -> (B, T, D).

        These are Eq. 1, 2 of the paper with the feed-forward sub-layer and norms that they omit. Pre-norm normalises
        only the queries of cross-attention, as in the released code. The mask is (B, T) bool, False in padding.
        """
        keys = layers.over_keys(mask)
        query = self.norm1(x) if self.pre_norm else x
        if other is not None:
            x = x + self.dropout(self.cm_attn(query, other, mask=keys))
        x = x + self.dropout(self.self_attn(query, query, mask=keys))
        if self.pre_norm:
            return x + self.dropout(feed_forward(self.norm2(x), self.linear1, self.linear2, self.dropout))
        x = self.norm1(x)
        return self.norm2(x + self.dropout(feed_forward(x, self.linear1, self.linear2, self.dropout)))


class HANEncoder(nn.Module):
    """A stack of hybrid attention layers over both modalities; `encoder_order` "parallel" is that of Eq. 1, 2."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.pre_norm = config.pre_norm
        self.sequential = config.encoder_order == "sequential"
        self.layers = layers.stack_layers([HANLayer(config) for _ in range(config.num_layers)], config.layer_init)
        # The released state dict contains the final norms in either case; only pre-norm networks apply them.
        norms = (nn.LayerNorm(config.dim).requires_grad_(config.pre_norm) for _ in range(2))
        self.final_norm_a, self.final_norm_v = norms

    def forward(
        self, audio: Tensor, visual: Tensor, with_cross_attention: bool = True, mask: Tensor | None = None
    ) -> AudioVisual[Tensor]:
        """Encode both modalities, separately without cross-attention: (B, T, D), (B, T, D) -> (B, T, D) each."""
        for layer in self.layers:
            if not with_cross_attention:
                audio, visual = layer(audio, None, mask), layer(visual, None, mask)
                continue
            updated_audio = layer(audio, visual, mask)
            visual = layer(visual, updated_audio if self.sequential else audio, mask)
            audio = updated_audio
        if self.pre_norm:
            return AudioVisual(self.final_norm_a(audio), self.final_norm_v(visual))
        return AudioVisual(audio, visual)


class HAN(nn.Module, Pretrained):
    """HAN with MMIL pooling, for audio features of total width `audio_dim` and visual ones of widths `visual_dims`."""

    config_class = HANConfig

    def __init__(self, num_classes: int, audio_dim: int, visual_dims: Sequence[int], config: HANConfig | None = None):
        super().__init__()
        self.config = config = config or HANConfig()
        dim = config.dim
        proj_hidden = [config.proj_hidden_dim or 2 * dim] * (config.num_proj_layers - 1)
        mmil_hidden = [config.mmil_hidden_dim or 2 * dim] * (config.num_mmil_layers - 1)
        self.visual_dims = tuple(visual_dims)
        self.sizes = {"num_classes": num_classes, "audio_dim": audio_dim, "visual_dim": sum(visual_dims)}  # of the data
        self.fc_a = MLP([audio_dim, *[2 * dim] * (config.num_audio_proj_layers - 1), dim])
        fused_dim = sum(self.visual_dims)
        if config.visual_fusion == "projected":
            self.fc_v = nn.ModuleList(nn.Linear(width, dim) for width in self.visual_dims)
            fused_dim = dim * len(self.visual_dims)
        self.fc_fusion = MLP([fused_dim, *proj_hidden, dim])
        self.hat_encoder = HANEncoder(config)
        self.visual_dropout = FastDropout(config.visual_dropout)
        self.fc_prob = nn.Linear(dim, num_classes)
        self.fc_frame_att = MLP([dim, *mmil_hidden, num_classes])
        self.fc_av_att = MLP([dim, *mmil_hidden, num_classes])

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], config: HANConfig | None = None, **settings: object) -> "HAN":
        """Build the network that fits a state dict without loading its weights. Raises KeyError for another network's.

        Without the config of its training, the shapes determine the sizes, and `settings` are the other fields.
        """
        audio_projection, projection, mmil = (mlp_dims(state, name) for name in ("fc_a", "fc_fusion", "fc_frame_att"))
        projected = [state[f"fc_v.{i}.weight"].shape[1] for i in range(count_layers(state, "fc_v"))]
        config = config or HANConfig(
            dim=state["fc_prob.weight"].shape[1],
            ffn_dim=state["hat_encoder.layers.0.linear1.weight"].shape[0],
            num_layers=count_layers(state, "hat_encoder.layers"),
            num_proj_layers=len(projection) - 1,
            num_mmil_layers=len(mmil) - 1,
            proj_hidden_dim=projection[1],
            mmil_hidden_dim=mmil[1],
            num_audio_proj_layers=len(audio_projection) - 1,
            visual_fusion="projected" if projected else "concatenated",
            **settings,
        )
        return cls(state["fc_prob.weight"].shape[0], audio_projection[0], projected or projection[:1], config)

    def forward(
        self,
        audio: Tensor,  # (B, T, audio_dim)
        visual: Tensor,  # (B, T, sum of visual_dims), features averaged to one row per second, concatenated
        with_cross_attention: bool | None = None,  # None: as configured
        mask: Tensor | None = None,  # (B, T) bool, False in padding; None: no padding
    ) -> HANOutput:
        """Parse a batch of videos, with MMIL pooling of segment probabilities (paper Eq. 3 to 5)."""
        if with_cross_attention is None:
            with_cross_attention = self.config.cross_attention
        if self.config.visual_fusion == "projected":
            visual = layers.project_each(visual, self.fc_v)
        visual_inputs = self.fc_fusion(visual)  # (B, T, D)
        encoded = self.hat_encoder(self.fc_a(audio), visual_inputs, with_cross_attention, mask)  # (B, T, D) each
        features = torch.stack([encoded.audio, self.visual_dropout(encoded.visual)], dim=2)  # (B, T, 2, D)
        logits = self.fc_prob(features)  # (B, T, 2, C)
        modality_weights = torch.softmax(layers.at_least_float32(self.fc_av_att(features)), dim=2)  # Eq. 3
        time_weights = layers.softmax_over_time(self.fc_frame_att(features), mask)  # Eq. 4
        weighted = time_weights * torch.sigmoid(logits)  # (B, T, 2, C)
        return HANOutput(
            # Eq. 5: the sum over modality and time of w_modal · w_time · p
            video_probs=(modality_weights * weighted).sum(dim=(1, 2)),
            modality_probs=AudioVisual(*weighted.sum(dim=1).unbind(dim=1)),
            logits=AudioVisual(*logits.unbind(dim=2)),
            features=encoded,
            visual_inputs=visual_inputs,
        )
