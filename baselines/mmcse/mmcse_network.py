"""MM-CSE's network (Zhao et al., AAAI 2025): vectors of each class and of the background in every segment.

B videos, T segments, C classes, D features, E = `event_dim`. Parameter names are those of the released code.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from models import HANOutput, layers
from models.layers import NumLayers, count_layers, mean_over_time
from models.pretrained import Pretrained
from utils.audio_visual import AudioVisual
from utils.settings import settings_group

MAP_ROWS, MAP_SECONDS = (2, 32), 10  # of CLAP's feature map of a ten-second clip, as in VALOR's files


@settings_group
class MMCSEConfig:
    """Settings of the network except for input widths and number of classes; the defaults are the released code's."""

    dim: PositiveInt = 256  # width D of a segment
    event_dim: PositiveInt = 128  # width E of a class in a segment
    num_heads: PositiveInt = 8  # attention heads
    ffn_dim: PositiveInt = 512  # hidden width of the feed-forward layers
    num_layers: NumLayers = 4  # encoder layers
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1  # dropout probability

    def __post_init__(self):
        layers.check_heads(self.event_dim, self.num_heads)


@dataclass
class MMCSEOutput(HANOutput):
    """HAN's output, and inputs of MM-CSE's other losses."""

    events: AudioVisual[Tensor]  # (B, T, C, E) decoupled from the segments, before the encoder
    background: AudioVisual[Tensor]  # (B, T, E) decoupled from the segments
    segments: AudioVisual[Tensor]  # (B, T, D)
    reconstructed: AudioVisual[Tensor]  # (B, T, D) from events and background
    own_maps: AudioVisual[Tensor]  # (B, T, C, C) the last layer's attention of each modality to itself
    other_maps: AudioVisual[Tensor]  # (B, T, C, C) and to the other one


def pool_clap_map(features: Tensor) -> Tensor:
    """Pool CLAP's feature map of ten seconds to one row per second: (B, 64, W) -> (B, 10, W).

    The released code interpolates the projected map (bicubic, 32 -> 1,024 columns), averages its two rows and pools it
    adaptively to ten seconds. As all of this is linear, it can be computed before the projection.
    """
    columns = features.unflatten(1, MAP_ROWS).mean(dim=1)  # (B, 32, W); row 32·i + j of the file is position (i, j)
    identity = torch.eye(MAP_ROWS[1], dtype=features.dtype, device=features.device)[None, :, None]  # (1, 32, 1, 32)
    finer = F.interpolate(identity, size=(1, 1024), mode="bicubic", align_corners=False)[0, :, 0]  # (32, 1024)
    return F.adaptive_avg_pool1d(finer, MAP_SECONDS).T @ columns


def class_networks(number: int, *parts: Callable[[], nn.Module]) -> nn.ModuleList:
    """Return one network per class."""
    return nn.ModuleList(nn.Sequential(*(part() for part in parts)) for _ in range(number))


class ClassHeads(nn.Module):
    """A linear layer from E to 1 for each class: (..., C, E) -> (..., C)."""

    def __init__(self, num_classes: int, dim: int):
        super().__init__()
        self.fc = nn.ModuleList(nn.Linear(dim, 1) for _ in range(num_classes))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = torch.cat([head.weight for head in self.fc]), torch.cat([head.bias for head in self.fc])
        return (x * weight).sum(dim=-1) + bias


class InnerModel(nn.Module):
    """A sequence of layers under the name `model`, as in the released keys."""

    def __init__(self, *modules: nn.Module):
        super().__init__()
        self.model = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class MMCSELayer(nn.Module):
    """An encoder layer for either modality: attention over the classes of a segment, and gated means over time."""

    def __init__(self, config: MMCSEConfig):
        super().__init__()
        dim = config.event_dim
        self.linear1, self.linear2 = nn.Linear(dim, config.ffn_dim), nn.Linear(config.ffn_dim, dim)
        self.dropout, self.norm1 = nn.Dropout(config.dropout), nn.LayerNorm(dim)

        def attention() -> nn.ModuleDict:
            return nn.ModuleDict(
                {"attn": nn.MultiheadAttention(dim, config.num_heads, config.dropout, batch_first=True)}
            )

        self.SECM_1 = attention()
        self.LGSF_1 = nn.ModuleDict({"glob1": nn.Linear(dim, dim), "glob2": nn.Linear(dim, dim)})
        self.SECM_2 = attention()
        self.LGSF_2 = nn.ModuleDict({"glob": nn.Linear(dim, dim)})
        self.fc1, self.fc2 = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, other: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Update one modality, (B, T, C, E), and return its attention maps to itself and to the other, (B, T, C, C).

        The feed-forward layer has no residual connection, and what is attended to in the other modality reaches the
        output only through a gate (released code). Maps are means over heads.
        """
        within, own_map = self.attend(self.SECM_1["attn"], x, x)
        across, other_map = self.attend(self.SECM_2["attn"], x, other)
        of_video = mean_over_time(F.relu(self.LGSF_1["glob2"](within)), mask)  # (B, C, E)
        own = self.gated(x, F.relu(self.LGSF_1["glob1"](within)), of_video)
        of_video = mean_over_time(F.relu(self.LGSF_2["glob"](other)), mask)
        shared = self.gated(x, F.relu(self.LGSF_2["glob"](across)), of_video)
        hidden = self.norm1(self.fc1(own) + self.fc2(shared))
        return self.linear2(self.dropout(F.relu(self.linear1(hidden)))), own_map, other_map

    @staticmethod
    def attend(attention: nn.MultiheadAttention, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Attend from the classes of each segment to those of the context's segment, with a residual connection."""
        keys = context.flatten(0, 1)
        attended, weights = attention(x.flatten(0, 1), keys, keys)
        return x + attended.view_as(x), weights.unflatten(0, x.shape[:2])

    @staticmethod
    def gated(x: Tensor, local: Tensor, of_video: Tensor) -> Tensor:
        """Add the video's term to each segment, weighted by their similarity: x and local (B, T, C, E), (B, C, E)."""
        of_video = of_video.unsqueeze(1)
        return x + torch.sigmoid(F.cosine_similarity(local, of_video, dim=-1)).unsqueeze(-1) * of_video


class MMCSEEncoder(nn.Module):
    """A stack of layers over both modalities, each of which attends to the other's input."""

    def __init__(self, config: MMCSEConfig):
        super().__init__()
        self.layers = layers.stack_layers([MMCSELayer(config)] * config.num_layers, "equal")
        # The released state dict contains norms that are never applied.
        self.final_norm_a = nn.LayerNorm(config.event_dim).requires_grad_(False)
        self.final_norm_v = nn.LayerNorm(config.event_dim).requires_grad_(False)

    def forward(self, events: AudioVisual[Tensor], mask: Tensor | None) -> tuple[AudioVisual[Tensor], ...]:
        """Return the encoded events (B, T, C, E), and the last layer's own and cross-modal attention maps."""
        for layer in self.layers:
            audio, visual = layer(*events, mask), layer(events.visual, events.audio, mask)
            events = AudioVisual(audio[0], visual[0])
        return events, AudioVisual(audio[1], visual[1]), AudioVisual(audio[2], visual[2])


class MMCSE(nn.Module, Pretrained):
    """MM-CSE: class-aware decoupling, an encoder over class tokens, MMIL pooling with one head per class.

    `visual_dims` are the widths of frame features (CLIP or ResNet-152) and clip features (R(2+1)D).
    """

    config_class = MMCSEConfig

    def __init__(self, num_classes: int, audio_dim: int, visual_dims: Sequence[int], config: MMCSEConfig | None = None):
        super().__init__()
        self.config = config = config or MMCSEConfig()
        dim, width = config.dim, config.event_dim
        self.visual_dims = frames_dim, clips_dim = tuple(visual_dims)
        self.sizes = {"num_classes": num_classes, "audio_dim": audio_dim, "visual_dim": sum(visual_dims)}
        self.fc_a = nn.Linear(audio_dim, dim)
        self.fc_v, self.fc_st = nn.Linear(frames_dim, dim), nn.Linear(clips_dim, dim)
        self.fc_fusion = nn.Linear(2 * dim, dim)
        first, second = partial(nn.Linear, dim, width), partial(nn.Linear, width, width)
        drop = partial(nn.Dropout, config.dropout)
        self.v_unmix = class_networks(num_classes + 1, nn.ReLU, first, nn.ReLU, drop, second, nn.ReLU)
        self.a_unmix = class_networks(num_classes + 1, nn.ReLU, first, nn.ReLU)  # the last one is the background's
        every = (num_classes + 1) * width
        self.v_recon = InnerModel(nn.ReLU(), nn.Linear(every, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU())
        self.a_recon = nn.Sequential(nn.Linear(every, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU())
        self.av_enhance = MMCSEEncoder(config)
        self.fc_prob, self.fc_frame_att, self.fc_av_att = (ClassHeads(num_classes, width) for _ in range(3))
        self.reduce_a, self.reduce_v = (nn.Sequential(nn.Linear(2 * width, width), nn.ReLU()) for _ in range(2))
        self.alpha_a, self.alpha_v = (
            InnerModel(nn.ReLU(), first(), nn.ReLU(), drop(), nn.Linear(width, 1)) for _ in range(2)
        )

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], config: MMCSEConfig | None = None, **settings: object) -> "MMCSE":
        """Build the network that fits a state dict without loading its weights, as `HAN.from_state` does."""
        config = config or MMCSEConfig(
            dim=state["fc_a.weight"].shape[0],
            event_dim=state["fc_prob.fc.0.weight"].shape[1],
            ffn_dim=state["av_enhance.layers.0.linear1.weight"].shape[0],
            num_layers=count_layers(state, "av_enhance.layers"),
            **settings,
        )
        widths = [state[f"{name}.weight"].shape[1] for name in ("fc_a", "fc_v", "fc_st")]
        return cls(count_layers(state, "fc_prob.fc"), widths[0], widths[1:], config)

    def forward(
        self,
        audio: Tensor,  # (B, T, audio_dim), or CLAP's feature map (B, 64, audio_dim) of ten seconds
        visual: Tensor,  # (B, T, sum of visual_dims), frame features averaged to one row per second
        mask: Tensor | None = None,  # (B, T) bool, False in padding; None: no padding
    ) -> MMCSEOutput:
        """Parse a batch of videos."""
        if audio.shape[1] == MAP_ROWS[0] * MAP_ROWS[1] != visual.shape[1]:
            audio = pool_clap_map(audio)
        segments = AudioVisual(self.fc_a(audio), self.fc_fusion(layers.project_each(visual, [self.fc_v, self.fc_st])))
        decoupled, mixed, reconstructed = [], [], []
        for x, unmix, recon, reduce, alpha in (
            (segments.audio, self.a_unmix, self.a_recon, self.reduce_a, self.alpha_a),
            (segments.visual, self.v_unmix, self.v_recon, self.reduce_v, self.alpha_v),
        ):
            every = torch.stack([network(x) for network in unmix], dim=2)  # (B, T, C + 1, E)
            events, background = every[:, :, :-1], every[:, :, -1:]
            share = torch.sigmoid(alpha(x)).unsqueeze(-1)  # (B, T, 1, 1)
            both = torch.cat([share * events, ((1 - share) * background).expand_as(events)], dim=-1)
            decoupled.append((events, background.squeeze(2)))
            mixed.append(reduce(both))
            reconstructed.append(recon(every.flatten(2)))
        encoded, own_maps, other_maps = self.av_enhance(AudioVisual(*mixed), mask)

        stacked = torch.stack([*encoded], dim=2)  # (B, T, 2, C, E)
        logits = self.fc_prob(stacked)  # (B, T, 2, C)
        modality_weights = torch.softmax(layers.at_least_float32(self.fc_av_att(stacked)), dim=2)
        weighted = layers.softmax_over_time(self.fc_frame_att(stacked), mask) * torch.sigmoid(logits)
        return MMCSEOutput(
            video_probs=(modality_weights * weighted).sum(dim=(1, 2)),  # may be up to 2
            modality_probs=AudioVisual(*weighted.sum(dim=1).unbind(dim=1)),
            logits=AudioVisual(*logits.unbind(dim=2)),
            features=encoded.map(lambda x: x.flatten(2)),
            visual_inputs=segments.visual,
            events=AudioVisual(decoupled[0][0], decoupled[1][0]),
            background=AudioVisual(decoupled[0][1], decoupled[1][1]),
            segments=segments,
            reconstructed=AudioVisual(*reconstructed),
            own_maps=own_maps,
            other_maps=other_maps,
        )
