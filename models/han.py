"""Hybrid Attention Network (HAN) with MMIL pooling, the network of stage 3."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers import (
    MLP,
    Dropout,
    LayerNorm,
    Linear,
    MultiheadAttention,
    at_least_float32,
    count_layers,
    feed_forward,
    mlp_dims,
)


@dataclass
class HANOutput:
    """What one forward pass of HAN returns. B videos, T segments, C classes, D features."""

    video_probs: Tensor  # (B, C) MMIL-pooled over both modalities
    audio_probs: Tensor  # (B, C) pooled over time, audio alone
    visual_probs: Tensor  # (B, C) pooled over time, visual alone
    audio_logits: Tensor  # (B, T, C)
    visual_logits: Tensor  # (B, T, C)
    audio_features: Tensor  # (B, T, D) after the encoder
    visual_features: Tensor  # (B, T, D) after the encoder
    visual_inputs: Tensor  # (B, T, D) projected, before the encoder


class HANLayer(nn.Module):
    """One hybrid attention layer; the same weights update either modality (paper Eq. 1, 2)."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int, dropout: float, pre_norm: bool):
        super().__init__()
        self.pre_norm = pre_norm
        self.self_attn = MultiheadAttention(dim, num_heads, dropout)
        self.cm_attn = MultiheadAttention(dim, num_heads, dropout)
        self.linear1 = Linear(dim, ffn_dim)
        self.linear2 = Linear(ffn_dim, dim)
        self.norm1 = LayerNorm(dim)
        self.norm2 = LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, audio: Tensor, visual: Tensor, order: str) -> tuple[Tensor, Tensor]:
        """Update both modalities, each from itself and from the other: (B, T, D) each -> (B, T, D) each.

        Pre-norm normalises only the query side of the cross-attention, as the released code does.

        Args:
            order: "sequential": visual attends to the audio just updated; "parallel": to the audio that came in.
        """
        streams = torch.cat([audio, visual])  # (2B, T, D): self-attention sees each video by itself
        queries = self.norm1(streams) if self.pre_norm else streams
        streams = streams + self.dropout(self.self_attn(queries, queries))
        (audio_stream, visual_stream), (audio_query, visual_query) = streams.chunk(2), queries.chunk(2)
        updated_audio = self._from_other(audio_stream, audio_query, visual)
        other = updated_audio if order == "sequential" else audio
        return updated_audio, self._from_other(visual_stream, visual_query, other)

    def _from_other(self, x: Tensor, query: Tensor, other: Tensor) -> Tensor:
        """Cross-attention and feed-forward of one modality, after its self-attention: (B, T, D) -> (B, T, D)."""
        x = x + self.dropout(self.cm_attn(query, other))
        if self.pre_norm:
            return x + self.dropout(feed_forward(self.norm2(x), self.linear1, self.linear2, self.dropout))
        x = self.norm1(x)
        return self.norm2(x + self.dropout(feed_forward(x, self.linear1, self.linear2, self.dropout)))


class HANEncoder(nn.Module):
    """N hybrid attention layers over two streams.

    Args:
        order: "sequential": visual attends to the audio that the layer has just updated (released code);
            "parallel": both attend to the layer's inputs (paper Eq. 1, 2).
    """

    def __init__(
        self, dim: int, num_heads: int, ffn_dim: int, num_layers: int, dropout: float, pre_norm: bool, order: str
    ):
        super().__init__()
        if order not in ("sequential", "parallel"):
            raise ValueError(f"encoder order is {order!r}; expected 'sequential' or 'parallel'")
        self.pre_norm = pre_norm
        self.order = order
        self.layers = nn.ModuleList(HANLayer(dim, num_heads, ffn_dim, dropout, pre_norm) for _ in range(num_layers))
        # The released state dict holds the final norms in both variants; only the pre-norm variant applies them.
        self.final_norm_a = LayerNorm(dim)
        self.final_norm_v = LayerNorm(dim)
        if not pre_norm:
            self.final_norm_a.requires_grad_(False)
            self.final_norm_v.requires_grad_(False)

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D), (B, T, D) -> (B, T, D), (B, T, D)"""
        for layer in self.layers:
            audio, visual = layer(audio, visual, self.order)
        if self.pre_norm:
            return self.final_norm_a(audio), self.final_norm_v(visual)
        return audio, visual


class HAN(nn.Module):
    """Hybrid Attention Network with a shared segment classifier and MMIL pooling.

    Args:
        num_classes: C.
        audio_dim: width of the audio features.
        visual_dim: width of the visual features, all chosen ones concatenated.
        dim: D, the width of the encoder.
        num_proj_layers: layers of the visual input projection (1: one linear layer).
        num_mmil_layers: layers of each of the two MMIL attention heads.
        proj_hidden_dim: hidden width of the visual projection when it has several layers; None: 2·D.
        mmil_hidden_dim: hidden width of the MMIL heads when they have several layers; None: D.
        pre_norm: normalise before the sub-layers instead of after them.
        encoder_order: "sequential" (released code) or "parallel" (paper Eq. 1, 2).
        num_audio_proj_layers: layers of the audio input projection (2; 1: one linear layer, as in the first HAN).
        visual_dims: widths of the visual features when each is projected by a linear layer of its own before they are
            fused (as in the first HAN); None: they are fused as they are.
    """

    def __init__(
        self,
        num_classes: int,
        audio_dim: int,
        visual_dim: int,
        dim: int = 512,
        num_heads: int = 16,
        ffn_dim: int = 2048,
        num_layers: int = 5,
        num_proj_layers: int = 1,
        num_mmil_layers: int = 1,
        proj_hidden_dim: int | None = None,
        mmil_hidden_dim: int | None = None,
        dropout: float = 0.1,
        pre_norm: bool = False,
        encoder_order: str = "sequential",
        num_audio_proj_layers: int = 2,
        visual_dims: Sequence[int] | None = None,
    ):
        super().__init__()
        proj_hidden = [proj_hidden_dim or 2 * dim] * (num_proj_layers - 1)
        mmil_hidden = [mmil_hidden_dim or dim] * (num_mmil_layers - 1)
        self.fc_a = MLP([audio_dim, *[2 * dim] * (num_audio_proj_layers - 1), dim])
        self.visual_dims = visual_dims
        if visual_dims is not None:
            self.fc_v = nn.ModuleList(Linear(width, dim) for width in visual_dims)
            visual_dim = dim * len(visual_dims)
        self.fc_fusion = MLP([visual_dim, *proj_hidden, dim])
        self.hat_encoder = HANEncoder(dim, num_heads, ffn_dim, num_layers, dropout, pre_norm, encoder_order)
        self.fc_prob = Linear(dim, num_classes)
        self.fc_frame_att = MLP([dim, *mmil_hidden, num_classes])
        self.fc_av_att = MLP([dim, *mmil_hidden, num_classes])

    @staticmethod
    def dimensions(state: Mapping[str, Tensor]) -> dict[str, int | list[int] | None]:
        """The arguments that a state dict tells by its shapes: all but heads, dropout, pre-norm and encoder order.

        Raises:
            KeyError: when it is not a state dict of this network.
        """
        audio_projection, projection, mmil = (mlp_dims(state, name) for name in ("fc_a", "fc_fusion", "fc_frame_att"))
        visual_dims = [state[f"fc_v.{i}.weight"].shape[1] for i in range(count_layers(state, "fc_v"))] or None
        return {
            "num_classes": state["fc_prob.weight"].shape[0],
            "audio_dim": audio_projection[0],
            "visual_dim": projection[0] if visual_dims is None else sum(visual_dims),
            "dim": state["fc_prob.weight"].shape[1],
            "ffn_dim": state["hat_encoder.layers.0.linear1.weight"].shape[0],
            "num_layers": count_layers(state, "hat_encoder.layers"),
            "num_proj_layers": len(projection) - 1,
            "num_mmil_layers": len(mmil) - 1,
            "proj_hidden_dim": projection[1],
            "mmil_hidden_dim": mmil[1],
            "num_audio_proj_layers": len(audio_projection) - 1,
            "visual_dims": visual_dims,
        }

    def forward(self, audio: Tensor, visual: Tensor) -> HANOutput:
        """Parse a batch of videos.

        Args:
            audio: (B, T, audio_dim).
            visual: (B, T, visual_dim), every visual feature averaged to one row a second, concatenated.
        """
        visual_inputs = self._project_visual(visual)  # (B, T, D)
        audio, visual = self.hat_encoder(self.fc_a(audio), visual_inputs)  # (B, T, D) each
        features = torch.stack([audio, visual], dim=2)  # (B, T, 2, D)
        logits = self.fc_prob(features)  # (B, T, 2, C)
        w_time = torch.softmax(at_least_float32(self.fc_frame_att(features)), dim=1)
        w_modal = torch.softmax(at_least_float32(self.fc_av_att(features)), dim=2)
        weighted = w_time * torch.sigmoid(logits)  # (B, T, 2, C)
        # MMIL pooling: the sum over modality and time of w_modal · w_time · p
        video_probs = (w_modal * weighted).sum(dim=(1, 2))  # (B, C)
        modality_probs = weighted.sum(dim=1)  # (B, 2, C)
        return HANOutput(
            video_probs=video_probs,
            audio_probs=modality_probs[:, 0],
            visual_probs=modality_probs[:, 1],
            audio_logits=logits[:, :, 0],
            visual_logits=logits[:, :, 1],
            audio_features=audio,
            visual_features=visual,
            visual_inputs=visual_inputs,
        )

    def _project_visual(self, visual: Tensor) -> Tensor:
        """(B, T, visual_dim) -> (B, T, D)"""
        if self.visual_dims is not None:
            parts = visual.split(list(self.visual_dims), dim=-1)
            visual = torch.cat([layer(part) for layer, part in zip(self.fc_v, parts, strict=True)], dim=-1)
        return self.fc_fusion(visual)
