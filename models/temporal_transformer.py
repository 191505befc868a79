"""The temporal transformer of stage 1, which writes the pseudo-labels of stage 2."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers import MLP, Dropout, MultiheadAttention, Packing, count_layers, feed_forward


@dataclass
class TemporalTransformerOutput:
    """Logits of every segment and class; those of padded segments carry no meaning."""

    audio_logits: Tensor  # (B, T, C)
    visual_logits: Tensor  # (B, T, C)


class EncoderLayer(nn.Module):
    """Post-norm transformer encoder layer, parameter names as in `nn.TransformerEncoderLayer`."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int, dropout: float):
        super().__init__()
        self.self_attn = MultiheadAttention(dim, num_heads, dropout)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, packing: Packing | None) -> Tensor:
        """(B, T, D), or (R, D) when packed -> the same"""
        x = self.norm1(x + self.dropout(self.self_attn(x, x, packing)))
        return self.norm2(x + self.dropout(feed_forward(x, self.linear1, self.linear2, self.dropout)))


class Encoder(nn.Module):
    """A stack of encoder layers without positional encoding."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int, num_layers: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(dim, num_heads, ffn_dim, dropout) for _ in range(num_layers))

    def forward(self, x: Tensor, packing: Packing | None) -> Tensor:
        """(B, T, D), or (R, D) when packed -> the same"""
        for layer in self.layers:
            x = layer(x, packing)
        return x


class TemporalTransformer(nn.Module):
    """Two independent streams of projection, transformer encoder and projection into the text encoders' spaces.

    Args:
        audio_dim: width of the audio features (CLAP: 512).
        visual_dim: width of the visual features (CLIP: 768).
        audio_text_dim: width of the audio events' text features (CLAP: 512).
        visual_text_dim: width of the visual events' text features (CLIP: 768).
        dim: D, the width of the encoders.
    """

    def __init__(
        self,
        audio_dim: int = 512,
        visual_dim: int = 768,
        audio_text_dim: int = 512,
        visual_text_dim: int = 768,
        dim: int = 1024,
        num_heads: int = 16,
        ffn_dim: int = 2048,
        num_layers: int = 5,
        dropout: float = 0.3,
        audio_logit_scale: float = 3.2912,
        visual_logit_scale: float = 4.6052,
    ):
        super().__init__()
        self.proj_a = MLP([audio_dim, 2 * dim, dim])
        self.proj_v = MLP([visual_dim, 2 * dim, dim])
        # The released keys read a_transformer.encoder.layers.i.*
        self.a_transformer = nn.ModuleDict({"encoder": Encoder(dim, num_heads, ffn_dim, num_layers, dropout)})
        self.v_transformer = nn.ModuleDict({"encoder": Encoder(dim, num_heads, ffn_dim, num_layers, dropout)})
        self.final_proj_a = MLP([dim, audio_text_dim, audio_text_dim])
        self.final_proj_v = MLP([dim, visual_text_dim, visual_text_dim])
        self.register_buffer("a_logit_scale", torch.tensor(audio_logit_scale))
        self.register_buffer("v_logit_scale", torch.tensor(visual_logit_scale))

    @staticmethod
    def dimensions(state: Mapping[str, Tensor]) -> dict[str, int]:
        """The arguments that a state dict tells by its shapes: all but heads, dropout and the logit scales.

        Raises:
            KeyError: when it is not a state dict of this network.
        """
        layers = "a_transformer.encoder.layers"
        return {
            "audio_dim": state["proj_a.layers.0.weight"].shape[1],
            "visual_dim": state["proj_v.layers.0.weight"].shape[1],
            "audio_text_dim": state["final_proj_a.layers.1.weight"].shape[0],
            "visual_text_dim": state["final_proj_v.layers.1.weight"].shape[0],
            "dim": state["proj_a.layers.1.weight"].shape[0],
            "ffn_dim": state[f"{layers}.0.linear1.weight"].shape[0],
            "num_layers": count_layers(state, layers),
        }

    def forward(
        self,
        audio: Tensor,
        visual: Tensor,
        audio_events: Tensor,
        visual_events: Tensor,
        mask: Tensor | None = None,
        valid_rows: Tensor | None = None,
    ) -> TemporalTransformerOutput:
        """Score every segment against every event name.

        Args:
            audio: (B, T, audio_dim).
            visual: (B, T, visual_dim).
            audio_events: (C, audio_text_dim) text features of the event names.
            visual_events: (C, visual_text_dim) text features of the event names.
            mask: (B, T) bool, False where a segment is padding. None: no padding.
            valid_rows: (R,) int64, where the flattened mask is True, if it is known; it saves a wait for the device.
        """
        packing = None
        if mask is not None:
            packing = Packing(mask, mask.flatten().nonzero().squeeze(1) if valid_rows is None else valid_rows)
            audio, visual = packing.pack(audio), packing.pack(visual)
        audio = self.final_proj_a(self.a_transformer["encoder"](self.proj_a(audio), packing))
        visual = self.final_proj_v(self.v_transformer["encoder"](self.proj_v(visual), packing))
        audio_logits = audio @ audio_events.T * self.a_logit_scale
        visual_logits = visual @ visual_events.T * self.v_logit_scale
        if packing is not None:
            audio_logits, visual_logits = packing.pad(audio_logits), packing.pad(visual_logits)
        return TemporalTransformerOutput(audio_logits, visual_logits)
