"""CMPAE (Gao, Chen and Xu, CVPR 2023): HAN's encoder with evidential heads and a video branch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dataloaders.batches import DataSettings
from dataloaders.features import PACKED
from models.han import EncoderConfig, HANEncoder, HANOutput
from models.layers import FastDropout, at_least_float32, count_layers, mean_over_time, softmax_over_time
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.settings import settings_group

ENCODER_CROSS_SHARE = 0.8  # weight of the encoder's output with cross-attention; the rest is for that without
CONTEXT_DROPOUT = 0.2
SLOPE = 0.2  # negative slope of the leaky ReLUs
LARGEST_LOGIT = 10.0
EVIDENCE_TEMPERATURE = 0.8


def concentration(logits: Tensor) -> Tensor:
    """Return alpha = e + 1 with the evidence e = exp(clamp(z, -10, 10) / 0.8), of any shape (released code)."""
    return torch.exp(logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT) / EVIDENCE_TEMPERATURE) + 1


def presence_logit(logits: Tensor) -> Tensor:
    """Return the logit of p = alpha_present / (alpha_present + alpha_absent): (presence, absence) (..., 2) -> (...)."""
    present, absent = concentration(logits).log().unbind(dim=-1)
    return present - absent


def uncertainty(logits: Tensor) -> Tensor:
    """Return u = 2 / (alpha_present + alpha_absent), in (0, 1): (..., 2) -> (...)."""
    return 2 / concentration(logits).sum(dim=-1)


@dataclass
class CMPAEOutput(HANOutput):
    """HAN's output with uncertainties. Logits are those of p = alpha_present / (alpha_present + alpha_absent)."""

    video_uncertainty: Tensor  # (B,) of the video branch
    modality_uncertainty: AudioVisual[Tensor]  # (B, C) of the pooled probabilities
    segment_uncertainty: AudioVisual[Tensor]  # (B, T, C)


@settings_group
class CMPAEData(DataSettings):
    """Settings of data folders and features."""

    visual_features: tuple[Literal[tuple(PACKED)], ...] = ("res152_frames", "r2plus1d_18")
    """frame and clip features; res152_frames: project every frame of a second; res152: project their average"""


def split_frames(visual: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Split visual features (B, T, k·dims[0] + dims[1]) into those of frames (B, T, k, ·) and of clips (B, T, ·)."""
    frames_dim, clips_dim = dims
    frames, clips = visual.split([visual.shape[-1] - clips_dim, clips_dim], dim=-1)
    return frames.unflatten(-1, (-1, frames_dim)), clips


@settings_group
class CMPAEConfig(EncoderConfig):
    """Settings of CMPAE's encoder; projections and heads have one layer."""

    visual_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5  # dropout of visual features between encoder and heads


class CMPAE(nn.Module):
    """CMPAE: evidence for the presence and for the cross-modal absence of each event.

    Parameter names are those of the released code, except for `hat_encoder.norm1` and `norm2` (here `final_norm_a` and
    `_v`) and `fc_global`, which are unused. `visual_dims` are the widths of frame and clip features.
    """

    def __init__(self, num_classes: int, audio_dim: int, visual_dims: Sequence[int], config: CMPAEConfig):
        super().__init__()
        self.config = config
        self.visual_dims = tuple(visual_dims)
        if len(self.visual_dims) != 2:
            found = f"{len(self.visual_dims)} features"
            way_out = "Choose frame and clip features, such as res152 r2plus1d_18."
            raise InputError("--visual_features", found, "two features for CMPAE's network", way_out)
        self.sizes = {"num_classes": num_classes, "audio_dim": audio_dim, "visual_dim": sum(visual_dims)}  # of the data
        frames_dim, clips_dim = self.visual_dims
        dim = config.dim
        self.fc_a = nn.Sequential(nn.Linear(audio_dim, dim), nn.ELU())
        self.fc_v = nn.Sequential(nn.Linear(frames_dim, dim), nn.ELU())
        self.fc_st = nn.Sequential(nn.Linear(clips_dim, dim), nn.ELU())
        self.fc_fusion = nn.Sequential(nn.Linear(2 * dim, dim), nn.ELU())
        self.hat_encoder = HANEncoder(config)
        self.visual_dropout = FastDropout(config.visual_dropout)
        self.v2a = nn.Sequential(nn.Linear(dim, dim), FastDropout(CONTEXT_DROPOUT), nn.LeakyReLU(SLOPE))
        self.a2v = nn.Sequential(nn.Linear(dim, dim), FastDropout(CONTEXT_DROPOUT), nn.LeakyReLU(SLOPE))
        self.fc_prob = nn.Linear(dim, num_classes)
        self.fc_prob_beta = nn.Linear(dim, num_classes)
        self.fc_frame_att = nn.Linear(dim, 2 * num_classes)
        self.classifier1 = nn.Sequential(nn.Linear(dim, dim), nn.LeakyReLU(SLOPE))
        self.classifier2 = nn.Linear(dim, num_classes)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], config: CMPAEConfig | None = None, **settings: object) -> "CMPAE":
        """Build the network that fits a state dict without loading its weights, as `HAN.from_state` does."""
        config = config or CMPAEConfig(
            dim=state["fc_a.0.weight"].shape[0],
            ffn_dim=state["hat_encoder.layers.0.linear1.weight"].shape[0],
            num_layers=count_layers(state, "hat_encoder.layers"),
            **settings,
        )
        visual_dims = (state["fc_v.0.weight"].shape[1], state["fc_st.0.weight"].shape[1])
        return cls(state["fc_prob_beta.weight"].shape[0], state["fc_a.0.weight"].shape[1], visual_dims, config)

    def forward(
        self, audio: Tensor, visual: Tensor, with_cross_attention: bool = True, mask: Tensor | None = None
    ) -> CMPAEOutput:
        """Compute the output for a batch of videos, with or without cross-attention in the encoder.

        Audio is (B, T, audio_dim), visual (B, T, k·frames_dim + clips_dim) of k frames and the clip of each second; the
        mask, (B, T), is False for padding.
        """
        frames, clips = split_frames(visual, self.visual_dims)
        seconds = self.fc_v(frames).mean(dim=2)  # (B, T, D): frames are projected before they are averaged
        audio_inputs = self.fc_a(audio)
        visual_inputs = self.fc_fusion(torch.cat([seconds, self.fc_st(clips)], dim=-1))
        encoded = self.hat_encoder(audio_inputs, visual_inputs, False, mask)  # (B, T, D) each
        if with_cross_attention:
            crossed, share = self.hat_encoder(audio_inputs, visual_inputs, True, mask), ENCODER_CROSS_SHARE
            encoded = crossed.map(lambda one, other: share * one + (1 - share) * other, encoded)
        audio, visual = encoded
        features = torch.stack([audio, self.visual_dropout(visual)], dim=2)  # (B, T, 2, D)
        both = features.sum(dim=2)  # (B, T, D)
        context = torch.stack([self.v2a(both), self.a2v(both)], dim=2)  # (B, T, 2, D)
        evidence = torch.stack([self.fc_prob(features), self.fc_prob_beta(features + context)], dim=-1)
        evidence = at_least_float32(evidence)  # (B, T, 2, C, 2): presence, absence
        weights = softmax_over_time(self.fc_frame_att(features), mask).unflatten(-1, (-1, 2))  # (B, T, 2, C, 2)
        pooled = (weights * evidence).sum(dim=1)  # (B, 2, C, 2)

        hidden = self.classifier1(audio_inputs) + self.classifier1(visual_inputs)  # (B, T, D)
        video_logits = at_least_float32(self.classifier2(hidden))  # (B, T, C)
        video_alpha = concentration(mean_over_time(video_logits, mask))  # (B, C)
        return CMPAEOutput(
            video_probs=mean_over_time(torch.sigmoid(video_logits), mask),
            modality_probs=AudioVisual(*torch.sigmoid(presence_logit(pooled)).unbind(dim=1)),
            logits=AudioVisual(*presence_logit(evidence).unbind(dim=2)),
            features=encoded,
            visual_inputs=visual_inputs,
            video_uncertainty=video_alpha.shape[-1] / video_alpha.sum(dim=-1),
            modality_uncertainty=AudioVisual(*uncertainty(pooled).unbind(dim=1)),
            segment_uncertainty=AudioVisual(*uncertainty(evidence).unbind(dim=2)),
        )
