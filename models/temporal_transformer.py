"""The temporal transformer of stage 1, which predicts the pseudo-labels of stage 2 (paper section 4.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from models import layers
from models.layers import MLP, FastDropout, FastMultiheadAttention, NumLayers, Packing, feed_forward
from models.pretrained import Pretrained
from utils.audio_visual import AudioVisual
from utils.settings import Share, settings_group


@settings_group
class TemporalTransformerConfig:
    """Settings of the temporal transformer except for the widths of features; defaults are the released recipe."""

    dim: PositiveInt = 1024  # width D of the encoders
    num_heads: PositiveInt = 16  # attention heads
    ffn_dim: PositiveInt = 2048  # hidden width of the feed-forward layers
    num_layers: NumLayers = 5  # layers of each encoder
    dropout: Share = 0.3  # dropout probability
    audio_logit_scale: PositiveFloat = 3.2912  # scale of the audio logits
    visual_logit_scale: PositiveFloat = 4.6052  # scale of the visual logits
    layer_init: Literal["equal", "independent"] = "equal"
    """initial weights of the layers; equal: copies of one layer (released code); independent: drawn for each layer"""

    def __post_init__(self):
        layers.check_heads(self.dim, self.num_heads)


@dataclass
class TemporalTransformerOutput:
    """Logits of every segment and class, meaningless in padding."""

    logits: AudioVisual[Tensor]  # (B, T, C)


class EncoderLayer(nn.Module):
    """Post-norm encoder layer (paper Eq. 6, 7) with the parameter names of `nn.TransformerEncoderLayer`."""

    def __init__(self, config: TemporalTransformerConfig):
        super().__init__()
        self.self_attn = FastMultiheadAttention(config.dim, config.num_heads, config.dropout)
        self.linear1 = nn.Linear(config.dim, config.ffn_dim)
        self.linear2 = nn.Linear(config.ffn_dim, config.dim)
        self.norm1 = nn.LayerNorm(config.dim)
        self.norm2 = nn.LayerNorm(config.dim)
        self.dropout = FastDropout(config.dropout)

    def forward(self, x: Tensor, packing: Packing | None) -> Tensor:
        """Update (B, T, D), or packed rows (R, D)."""
        x = self.norm1(x + self.dropout(self.self_attn(x, x, packing)))
        return self.norm2(x + self.dropout(feed_forward(x, self.linear1, self.linear2, self.dropout)))


class Encoder(nn.Module):
    """A stack of encoder layers without positional encoding."""

    def __init__(self, config: TemporalTransformerConfig):
        super().__init__()
        self.layers = layers.stack_layers([EncoderLayer(config) for _ in range(config.num_layers)], config.layer_init)

    def forward(self, x: Tensor, packing: Packing | None) -> Tensor:
        """Encode (B, T, D), or packed rows (R, D)."""
        for layer in self.layers:
            x = layer(x, packing)
        return x


class TemporalTransformer(nn.Module, Pretrained):
    """A projection, a transformer encoder and a projection into the space of text features for each modality."""

    config_class = TemporalTransformerConfig

    def __init__(
        self,
        audio_dim: int = 512,  # width of CLAP's audio features
        visual_dim: int = 768,  # width of CLIP's image features
        audio_text_dim: int = 512,  # width of CLAP's text features
        visual_text_dim: int = 768,  # width of CLIP's text features
        config: TemporalTransformerConfig | None = None,
    ):
        super().__init__()
        self.config = config = config or TemporalTransformerConfig()
        self.sizes = {"audio_dim": audio_dim, "visual_dim": visual_dim}  # of the data
        self.sizes |= {"audio_text_dim": audio_text_dim, "visual_text_dim": visual_text_dim}
        dim = config.dim
        self.proj_a = MLP([audio_dim, 2 * dim, dim])
        self.proj_v = MLP([visual_dim, 2 * dim, dim])
        # The released keys are a_transformer.encoder.layers.i.*
        self.a_transformer = nn.ModuleDict({"encoder": Encoder(config)})
        self.v_transformer = nn.ModuleDict({"encoder": Encoder(config)})
        self.final_proj_a = MLP([dim, audio_text_dim, audio_text_dim])
        self.final_proj_v = MLP([dim, visual_text_dim, visual_text_dim])
        self.register_buffer("a_logit_scale", torch.tensor(config.audio_logit_scale))
        self.register_buffer("v_logit_scale", torch.tensor(config.visual_logit_scale))

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], config: TemporalTransformerConfig | None = None, **settings: object
    ) -> "TemporalTransformer":
        """Build the network that fits a state dict without loading its weights, as `HAN.from_state` does."""
        prefix = "a_transformer.encoder.layers"
        config = config or TemporalTransformerConfig(
            dim=state["proj_a.layers.1.weight"].shape[0],
            ffn_dim=state[f"{prefix}.0.linear1.weight"].shape[0],
            num_layers=layers.count_layers(state, prefix),
            **settings,
        )
        inputs = (state[f"{name}.layers.0.weight"].shape[1] for name in ("proj_a", "proj_v"))
        outputs = (state[f"{name}.layers.1.weight"].shape[0] for name in ("final_proj_a", "final_proj_v"))
        return cls(*inputs, *outputs, config)

    @property
    def arguments(self) -> dict[str, object]:
        """Return the arguments of the constructor."""
        return {**self.sizes, "config": self.config}

    def forward(
        self,
        audio: Tensor,  # (B, T, audio_dim)
        visual: Tensor,  # (B, T, visual_dim)
        audio_texts: Tensor,  # (C, audio_text_dim) text features of the event names
        visual_texts: Tensor,  # (C, visual_text_dim)
        mask: Tensor | None = None,  # (B, T) bool, False in padding; None: no padding
        valid_rows: Tensor | None = None,  # (R,) int64, where the flattened mask is True; saves waiting for the device
    ) -> TemporalTransformerOutput:
        """Compute the logits of segments and event names, scale · (output · text featureᵀ) (paper Eq. 8)."""
        packing = None
        if mask is not None:
            packing = Packing(mask, mask.flatten().nonzero().squeeze(1) if valid_rows is None else valid_rows)
            audio, visual = packing.pack(audio), packing.pack(visual)
        audio = self.final_proj_a(self.a_transformer["encoder"](self.proj_a(audio), packing))
        visual = self.final_proj_v(self.v_transformer["encoder"](self.proj_v(visual), packing))
        logits = AudioVisual(audio @ audio_texts.T * self.a_logit_scale, visual @ visual_texts.T * self.v_logit_scale)
        return TemporalTransformerOutput(logits if packing is None else logits.map(packing.pad))
