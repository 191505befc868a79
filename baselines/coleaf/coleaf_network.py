"""CoLeaF (Sardari et al., ECCV 2024): two unimodal reference networks that guide CMPAE's network in training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.cmpae.cmpae_network import CMPAE, CMPAEConfig, CMPAEOutput
from models.han import HANLayer
from models.layers import FastDropout, FusedProjection, at_least_float32, softmax_over_time

HEAD_DROPOUT = 0.5


@dataclass
class ReferenceOutput:
    """Output of a reference network."""

    probs: Tensor  # (B, C) pooled over time
    token_probs: Tensor  # (B, C) of the class tokens
    features: Tensor  # (B, T, D) after the encoder


class ReferenceNetwork(nn.Module):
    """A network of one modality: class tokens and segments in one self-attention layer, time pooling as in HAN."""

    def __init__(self, num_classes: int, widths: Sequence[int], config: CMPAEConfig, drop_pooling: bool):
        super().__init__()
        self.project = FusedProjection(widths, config.dim)
        self.class_tokens = nn.Parameter(torch.zeros(num_classes, config.dim))
        self.layer = HANLayer(config)
        self.layer.cm_attn.requires_grad_(False)  # there is no other modality
        self.dropout = FastDropout(HEAD_DROPOUT)
        self.drop_pooling = drop_pooling  # whether pooling weights, too, are computed from features after dropout
        self.fc_prob = nn.Linear(config.dim, num_classes)
        self.fc_frame_att = nn.Linear(config.dim, num_classes)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> ReferenceOutput:
        """Compute the output for one modality, (B, T, sum of widths); the mask, (B, T), is False for padding."""
        segments = self.project(features)  # (B, T, D)
        tokens = self.class_tokens.expand(segments.shape[0], -1, -1)  # (B, C, D)
        valid = mask if mask is None else torch.cat([mask.new_ones(tokens.shape[:2]), mask], dim=1)
        encoded = self.layer(torch.cat([tokens, segments], dim=1), None, valid)
        tokens, segments = encoded.split([tokens.shape[1], segments.shape[1]], dim=1)
        dropped = self.dropout(segments)
        weights = self.fc_frame_att(dropped if self.drop_pooling else segments)  # (B, T, C)
        segment_probs = torch.sigmoid(self.fc_prob(dropped))
        return ReferenceOutput(
            probs=(softmax_over_time(weights, mask) * segment_probs).sum(dim=1),
            token_probs=torch.sigmoid(at_least_float32(tokens).mean(dim=-1)),
            features=segments,
        )


class CoLeaF(nn.Module):
    """The anchor, which parses videos, and the two reference networks, which are only used in training."""

    def __init__(self, num_classes: int, audio_dim: int, visual_dims: Sequence[int], config: CMPAEConfig):
        super().__init__()
        self.config = config
        self.anchor = CMPAE(num_classes, audio_dim, visual_dims, config)
        self.sizes = self.anchor.sizes
        self.audio_reference = ReferenceNetwork(num_classes, [audio_dim], config, drop_pooling=False)
        self.visual_reference = ReferenceNetwork(num_classes, visual_dims, config, drop_pooling=True)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], config: CMPAEConfig | None = None, **settings: object) -> "CoLeaF":
        """Build the network that fits a state dict as `CMPAE.from_state` does."""
        prefix = "anchor."
        of_anchor = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        anchor = CMPAE.from_state(of_anchor, config, **settings)
        return cls(anchor.sizes["num_classes"], anchor.sizes["audio_dim"], anchor.visual_dims, anchor.config)

    def forward(
        self, audio: Tensor, visual: Tensor, with_cross_attention: bool = True, mask: Tensor | None = None
    ) -> CMPAEOutput:
        """Compute the anchor's output as `CMPAE.forward` does."""
        return self.anchor(audio, visual, with_cross_attention, mask)
