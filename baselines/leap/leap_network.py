"""LEAP (Zhou et al., ECCV 2024): class names are queries over the segments; attention scores are segment logits.

The encoder is MM-Pyramid's (Yu et al., ACM MM 2022): attention and dilated convolution at several temporal scales.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from dataloaders.batches import SplitBatches
from models import layers
from models.han import HANOutput
from models.layers import FastDropout, FastMultiheadAttention
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.settings import settings_group
from utils.training.checkpoints import load_checkpoint

WORD_VECTORS_FILE = "glove.txt"  # in the data set's folder, by default
WAY_OUT = "Pass GloVe's text file (glove.6B.300d.txt) with --glove; see baselines/leap/README.md."
LABEL_DIM = 300  # width E of GloVe's vectors
# Names in the released code that differ from those of the data set.
RELEASED_NAMES = {"Frying_(food)": "Fry food", "Baby_cry_infant_cry": "Baby cry infancy cry"}
NUM_LEVELS = 4
ATTENTION_DROPOUT = 0.1


@settings_group
class LEAPConfig:
    """Settings of the attention layers of MM-Pyramid's encoder and LEAP's decoders."""

    dim: PositiveInt = 512  # width D of encoder and decoders
    num_heads: PositiveInt = 8  # attention heads
    ffn_dim: PositiveInt = 512  # hidden width of the feed-forward layers
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2  # dropout probability
    num_layers: layers.NumLayers = 2  # layers of a decoder

    def __post_init__(self):
        layers.check_heads(self.dim, self.num_heads)


def begin_alike(modules: Sequence[nn.Module]) -> None:
    """Copy the weights of the first module to the others, as the released code does before training."""
    for module in modules[1:]:
        module.load_state_dict(modules[0].state_dict())


class QueryNormLayer(nn.Module):
    """Pre-norm transformer layer that normalises only the queries, not keys and values."""

    def __init__(self, config: LEAPConfig):
        super().__init__()
        dim = config.dim
        self.attention = FastMultiheadAttention(dim, config.num_heads, ATTENTION_DROPOUT)
        with torch.no_grad():  # the projections of queries, keys, values and output start as copies (released code)
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
        return x + self.dropout(layers.feed_forward(self.norm2(x), self.linear1, self.linear2, self.dropout))


class Gates(nn.Module):
    """Gated sum sigmoid(L1 [own; cross])·own + sigmoid(L2 [own; cross])·cross."""

    def __init__(self, dim: int):
        super().__init__()
        self.own = nn.Linear(2 * dim, dim)
        self.cross = nn.Linear(2 * dim, dim)

    def forward(self, own: Tensor, cross: Tensor) -> Tensor:
        """Combine (B, T, D) each -> (B, T, D)."""
        both = torch.cat([own, cross], dim=-1)
        return torch.sigmoid(self.own(both)) * own + torch.sigmoid(self.cross(both)) * cross


class DilatedConvolution(nn.Module):
    """Convolution relu(x + conv1x1(relu(conv3(x)))) over time, with zero padding."""

    def __init__(self, dim: int, dilation: int):
        super().__init__()
        self.wide = nn.Conv1d(dim, dim, 3, padding=dilation, dilation=dilation)
        self.narrow = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, T, D) -> (B, T, D)."""
        convolved = self.narrow(F.relu(self.wide(x.transpose(1, 2)))).transpose(1, 2)
        return F.relu(x + convolved)


class PyramidLevel(nn.Module):
    """One temporal scale: within 2^level seconds, each modality attends to itself and to the other."""

    def __init__(self, level: int, config: LEAPConfig):
        super().__init__()
        self.reach = 2**level  # seconds
        self.self_audio, self.self_visual = QueryNormLayer(config), QueryNormLayer(config)
        self.cross = QueryNormLayer(config)  # shared by both directions
        self.gates_audio, self.gates_visual = Gates(config.dim), Gates(config.dim)
        self.convolution_audio = DilatedConvolution(config.dim, self.reach)
        self.convolution_visual = DilatedConvolution(config.dim, self.reach)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> AudioVisual[Tensor]:
        """Update each modality: (B, T, D) -> (B, T, D); the mask, (B, T) bool, is False for padding."""
        near = seconds_within(self.reach, audio.shape[1], audio.device)
        if mask is not None:  # padding attends to itself, so that its values stay finite
            near = near & layers.over_keys(mask) | torch.eye(len(near), dtype=torch.bool, device=near.device)
        audio_gated = self.gates_audio(self.self_audio(audio, audio, near), self.cross(audio, visual, near))
        visual_gated = self.gates_visual(self.self_visual(visual, visual, near), self.cross(visual, audio, near))
        if mask is not None:  # zeros after the video's end
            beyond = ~mask.unsqueeze(-1)
            audio_gated, visual_gated = audio_gated.masked_fill(beyond, 0), visual_gated.masked_fill(beyond, 0)
        return AudioVisual(self.convolution_audio(audio_gated), self.convolution_visual(visual_gated))


def seconds_within(reach: int, num_segments: int, device: torch.device) -> Tensor:
    """Return which pairs of seconds are at most `reach` apart: (T, T) bool."""
    seconds = torch.arange(num_segments, device=device)
    return (seconds.unsqueeze(1) - seconds).abs() <= reach


class LevelFusion(nn.Module):
    """Fusion of all levels in each second: a transformer layer over the levels, then a sum weighted by sigmoids."""

    def __init__(self, config: LEAPConfig):
        super().__init__()
        self.layer = QueryNormLayer(config)
        self.weight = nn.Linear(config.dim, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Fuse L tensors (B, T, D) -> (B, T, D)."""
        rows = torch.stack(levels, dim=2).flatten(0, 1)  # (B·T, L, D)
        rows = self.layer(rows, rows)
        return (torch.sigmoid(self.weight(rows)) * rows).sum(dim=1).unflatten(0, levels[0].shape[:2])


class PyramidEncoder(nn.Module):
    """A sequence of levels of growing reach, and their fusion for each modality."""

    def __init__(self, config: LEAPConfig):
        super().__init__()
        self.levels = nn.ModuleList(PyramidLevel(level, config) for level in range(NUM_LEVELS))
        self.fusion_audio, self.fusion_visual = LevelFusion(config), LevelFusion(config)
        attending = [layer for level in self.levels for layer in (level.self_audio, level.self_visual, level.cross)]
        begin_alike([layer.linear1 for layer in attending])
        begin_alike([layer.linear2 for layer in attending])
        begin_alike([self.fusion_audio.layer, self.fusion_visual.layer])

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> AudioVisual[Tensor]:
        """Encode each modality: (B, T, D) -> (B, T, D); the mask, (B, T) bool, is False for padding."""
        outputs = []
        for level in self.levels:
            audio, visual = level(audio, visual, mask)
            outputs.append((audio, visual))
        audio_levels, visual_levels = zip(*outputs, strict=True)
        return AudioVisual(self.fusion_audio(audio_levels), self.fusion_visual(visual_levels))


class LabelDecoder(nn.Module):
    """Cross-attention from the classes to the segments of one modality."""

    def __init__(self, config: LEAPConfig):
        super().__init__()
        self.layers = nn.ModuleList(QueryNormLayer(config) for _ in range(config.num_layers))
        self.presence = nn.Linear(config.dim, 1)

    def forward(self, labels: Tensor, segments: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute segment logits (B, T, C), and probabilities (B, C) that the classes occur in the modality.

        Labels are (B, C, D), segments (B, T, D); `mask`, (B, T) bool, is False for padding.
        """
        for layer in self.layers:
            queries = layer.attend(labels, segments, layers.over_keys(mask))  # with residual connection, not normalised
            labels = layer.feed_forward(queries)
        # The released code computes the scores from the updated queries, not from those used for attention.
        scores = attention_scores(self.layers[-1], queries, segments)  # (B, C, T)
        return scores.transpose(1, 2), torch.sigmoid(layers.at_least_float32(self.presence(labels))).squeeze(-1)


def attention_scores(layer: QueryNormLayer, queries: Tensor, context: Tensor) -> Tensor:
    """Compute QK' / sqrt(D/H), averaged over H heads: queries (B, C, D), context (B, T, D) -> (B, C, T)."""
    attention = layer.attention
    dim, num_heads = queries.shape[-1], attention.num_heads
    weights, biases = attention.in_proj_weight.split(dim), attention.in_proj_bias.split(dim)
    q, k = F.linear(queries, weights[0], biases[0]), F.linear(context, weights[1], biases[1])
    # As heads are adjacent slices of D, the sum over them is one product.
    return layers.at_least_float32(q @ k.transpose(1, 2)) / (num_heads * (dim / num_heads) ** 0.5)


class LEAP(nn.Module):
    """MM-Pyramid's encoder and a label decoder per modality, without MMIL pooling."""

    def __init__(
        self,
        num_classes: int,
        audio_dim: int,
        visual_dims: Sequence[int],
        config: LEAPConfig,
        label_vectors: Tensor | None = None,  # of the class names, (C, E); None: zeros until a state dict is loaded
    ):
        super().__init__()
        self.config = config
        self.sizes = {"num_classes": num_classes, "audio_dim": audio_dim, "visual_dim": sum(visual_dims)}  # of the data
        dim = config.dim
        self.project_audio = layers.FusedProjection([audio_dim], dim)
        self.project_visual = layers.FusedProjection(visual_dims, dim)
        self.encoder = PyramidEncoder(config)
        self.decode_audio, self.decode_visual = LabelDecoder(config), LabelDecoder(config)
        begin_alike([*self.decode_audio.layers, *self.decode_visual.layers])
        if label_vectors is None:
            label_vectors = torch.zeros(num_classes, LABEL_DIM)
        self.project_labels = nn.Linear(label_vectors.shape[1], dim)
        self.register_buffer("label_vectors", label_vectors.to(torch.float32))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], config: LEAPConfig | None = None, **settings: object) -> "LEAP":
        """Build the network that fits a state dict without loading its weights, as `HAN.from_state` does."""
        config = config or LEAPConfig(
            dim=state["project_labels.weight"].shape[0],
            ffn_dim=state["encoder.levels.0.cross.linear1.weight"].shape[0],
            num_layers=layers.count_layers(state, "decode_audio.layers"),
            **settings,
        )
        num_visual = layers.count_layers(state, "project_visual.features")
        visual_dims = [state[f"project_visual.features.{i}.weight"].shape[1] for i in range(num_visual)]
        audio_dim = state["project_audio.features.0.weight"].shape[1]
        return cls(state["label_vectors"].shape[0], audio_dim, visual_dims, config, state["label_vectors"])

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HANOutput:
        """Parse a batch, (B, T, widths) each; the mask is False for padding. The larger probability is the video's."""
        visual_inputs = self.project_visual(visual)
        features = self.encoder(self.project_audio(audio), visual_inputs, mask)  # (B, T, D) each
        labels = self.project_labels(self.label_vectors).expand(audio.shape[0], -1, -1)  # (B, C, D)
        audio_logits, audio_probs = self.decode_audio(labels, features.audio, mask)
        visual_logits, visual_probs = self.decode_visual(labels, features.visual, mask)
        return HANOutput(
            video_probs=torch.maximum(audio_probs, visual_probs),
            modality_probs=AudioVisual(audio_probs, visual_probs),
            logits=AudioVisual(audio_logits, visual_logits),
            features=features,
            visual_inputs=visual_inputs,
        )


def make_network(settings: Any, train: SplitBatches) -> LEAP:
    """Return a randomly initialised LEAP with the word vectors of the split's classes."""
    classes = train.annotations.classes
    path = settings.losses.glove or settings.data.folder(settings.dataset) / WORD_VECTORS_FILE
    vectors = load_class_vectors(path, classes)
    return LEAP(len(classes), train.widths.audio, train.feature_widths.visual, settings.model, vectors)


def class_words(name: str) -> tuple[str, ...]:
    """Return the lower-case words of a class's name in the released code: Frying_(food) -> fry, food."""
    return tuple(re.findall(r"[a-z]+", RELEASED_NAMES.get(name, name).lower()))


def load_class_vectors(path: Path, classes: Sequence[str]) -> Tensor:
    """Read the mean vector of each class name's words, (C, E) float32, from GloVe's text format or LEAP's `.pt` file.

    Raises InputError if the file is absent or lacks a word, or if the line of a word is malformed.
    """
    if path.suffix == ".pt":  # the released `label_glove_embeddings.pt`, by class name
        vectors = {class_words(name): vector for name, vector in load_checkpoint(path).items()}
        shapes = {vector.shape for vector in vectors.values() if isinstance(vector, Tensor)}
        absent = [name for name in classes if class_words(name) not in vectors]
        if absent or len(shapes) != 1 or len(next(iter(shapes))) != 1:
            found = f"{len(vectors)} vectors of {len(shapes)} shapes"
            found += f", without {', '.join(absent[:5])}" * bool(absent)
            raise InputError(path, found, "a vector of one width for every class", WAY_OUT)
        return torch.stack([vectors[class_words(name)].float() for name in classes])
    wanted = {word for name in classes for word in class_words(name)}
    lines: dict[str, str] = {}  # a word's vector as text
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                word, _, numbers = line.rstrip("\n").partition(" ")
                if word in wanted:
                    lines.setdefault(word, numbers)
        vectors = {word: torch.tensor([float(x) for x in numbers.split()]) for word, numbers in lines.items()}
    except (OSError, ValueError) as error:
        raise InputError(path, f"no word vectors ({error})", "GloVe's text format", WAY_OUT) from error
    widths = {len(vector) for vector in vectors.values()}
    if absent := sorted(wanted - vectors.keys()):
        raise InputError(path, f"no vector for {', '.join(absent[:5])}", "one for every word of the names", WAY_OUT)
    if len(widths) > 1 or not min(widths):
        raise InputError(path, f"vectors of {sorted(widths)} numbers", "vectors of one width", WAY_OUT)
    return torch.stack([torch.stack([vectors[word] for word in class_words(name)]).mean(dim=0) for name in classes])
