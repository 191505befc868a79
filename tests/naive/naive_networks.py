"""Both networks as they are usually written: `nn.MultiheadAttention` with explicit masks and weights that nobody uses.

Parameter names are those of `models`, so that one state dict fits both. B videos, T segments, C classes, D features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models import HAN, HANConfig, HANOutput, TemporalTransformer, TemporalTransformerConfig, TemporalTransformerOutput
from utils.audio_visual import AudioVisual


class NaiveMLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *dims: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dims[i], dims[i + 1]) for i in range(len(dims) - 1))

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i < len(self.layers) - 1:
                x = torch.relu(x)
        return x


class NaiveEncoderLayer(nn.Module):
    """Post-norm transformer layer, with a second attention to another stream for HAN."""

    def __init__(self, config: HANConfig | TemporalTransformerConfig, cross_modal: bool):
        super().__init__()
        dim, num_heads, dropout = config.dim, config.num_heads, config.dropout
        self.self_attn = nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True)
        if cross_modal:
            self.cm_attn = nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True)
        self.linear1 = nn.Linear(dim, config.ffn_dim)
        self.linear2 = nn.Linear(config.ffn_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, padding: Tensor, other: Tensor | None = None) -> Tensor:
        """x (B, T, D), padding (B, T) bool, other (B, T, D) -> (B, T, D)"""
        num_segments = x.shape[1]
        no_mask = torch.zeros(num_segments, num_segments, dtype=torch.bool)
        masks = {"attn_mask": no_mask, "key_padding_mask": padding, "need_weights": True}
        attended, _ = self.self_attn(x, x, x, **masks)
        attended = self.dropout(attended)
        if other is not None:
            cross, _ = self.cm_attn(x, other, other, **masks)
            attended = self.dropout(cross) + attended
        x = self.norm1(x + attended)
        hidden = self.dropout(torch.relu(self.linear1(x)))
        return self.norm2(x + self.dropout(self.linear2(hidden)))


class NaiveHAN(nn.Module):
    """HAN in the released variant, whatever the configuration says but for dim, heads, ffn_dim, layers and dropout."""

    def __init__(self, num_classes: int, audio_dim: int, visual_dims: Sequence[int], config: HANConfig):
        super().__init__()
        dim = config.dim
        self.fc_a = NaiveMLP(audio_dim, 2 * dim, dim)
        self.fc_fusion = NaiveMLP(sum(visual_dims), dim)
        self.hat_encoder = nn.Module()
        self.hat_encoder.layers = nn.ModuleList(
            NaiveEncoderLayer(config, cross_modal=True) for _ in range(config.num_layers)
        )
        self.hat_encoder.final_norm_a = nn.LayerNorm(dim).requires_grad_(False)  # unused, part of the state dict
        self.hat_encoder.final_norm_v = nn.LayerNorm(dim).requires_grad_(False)
        self.fc_prob = nn.Linear(dim, num_classes)
        self.fc_frame_att = NaiveMLP(dim, num_classes)
        self.fc_av_att = NaiveMLP(dim, num_classes)

    def forward(self, audio: Tensor, visual: Tensor) -> HANOutput:
        """audio (B, T, audio_dim), visual (B, T, sum of visual_dims)"""
        audio = self.fc_a(audio)
        visual_inputs = visual = self.fc_fusion(visual)
        padding = torch.zeros(audio.shape[:2], dtype=torch.bool)
        for layer in self.hat_encoder.layers:
            audio = layer(audio, padding, visual)
            visual = layer(visual, padding, audio)
        x = torch.cat([audio.unsqueeze(-2), visual.unsqueeze(-2)], dim=-2)  # (B, T, 2, D)
        probs = torch.sigmoid(self.fc_prob(x))  # (B, T, 2, C)
        time_weights = torch.softmax(self.fc_frame_att(x), dim=1)
        modality_weights = torch.softmax(self.fc_av_att(x), dim=2)
        return HANOutput(
            video_probs=(time_weights * (modality_weights * probs)).sum(dim=2).sum(dim=1),
            modality_probs=AudioVisual(
                (time_weights * probs).sum(dim=1)[:, 0, :], (time_weights * probs).sum(dim=1)[:, 1, :]
            ),
            logits=AudioVisual(self.fc_prob(audio), self.fc_prob(visual)),
            features=AudioVisual(audio, visual),
            visual_inputs=visual_inputs,
        )


class NaiveTemporalTransformer(nn.Module):
    """The temporal transformer of stage 1."""

    def __init__(
        self,
        audio_dim: int,
        visual_dim: int,
        audio_text_dim: int,
        visual_text_dim: int,
        config: TemporalTransformerConfig,
    ):
        super().__init__()
        dim = config.dim
        self.proj_a = NaiveMLP(audio_dim, 2 * dim, dim)
        self.proj_v = NaiveMLP(visual_dim, 2 * dim, dim)
        self.a_transformer = self._transformer(config)
        self.v_transformer = self._transformer(config)
        self.final_proj_a = NaiveMLP(dim, audio_text_dim, audio_text_dim)
        self.final_proj_v = NaiveMLP(dim, visual_text_dim, visual_text_dim)
        self.register_buffer("a_logit_scale", torch.tensor(config.audio_logit_scale))
        self.register_buffer("v_logit_scale", torch.tensor(config.visual_logit_scale))

    @staticmethod
    def _transformer(config: TemporalTransformerConfig) -> nn.ModuleDict:
        encoder = nn.Module()
        encoder.layers = nn.ModuleList(NaiveEncoderLayer(config, cross_modal=False) for _ in range(config.num_layers))
        return nn.ModuleDict({"encoder": encoder})

    def forward(
        self,
        audio: Tensor,
        visual: Tensor,
        audio_texts: Tensor,
        visual_texts: Tensor,
        mask: Tensor,
        valid_rows: Tensor | None = None,
    ) -> TemporalTransformerOutput:
        """audio (B, T, audio_dim), visual (B, T, visual_dim), texts (C, text_dim) each, mask (B, T) False: padding

        `valid_rows` is what `TemporalTransformer` saves time by, and not used.
        """
        audio, visual = self.proj_a(audio), self.proj_v(visual)
        for layer in self.a_transformer["encoder"].layers:
            audio = layer(audio, ~mask)
        for layer in self.v_transformer["encoder"].layers:
            visual = layer(visual, ~mask)
        audio, visual = self.final_proj_a(audio), self.final_proj_v(visual)
        return TemporalTransformerOutput(
            AudioVisual(
                torch.matmul(audio, audio_texts.T) * self.a_logit_scale,
                torch.matmul(visual, visual_texts.T) * self.v_logit_scale,
            )
        )


def naive_twin(network: HAN | TemporalTransformer) -> NaiveHAN | NaiveTemporalTransformer:
    """The naive network of the same sizes with the same weights."""
    twin = (NaiveHAN if isinstance(network, HAN) else NaiveTemporalTransformer)(**network.arguments)
    twin.load_state_dict(network.state_dict())
    return twin
