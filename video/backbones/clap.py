"""LAION CLAP, HTSAT-tiny with fusion (Wu et al., ICASSP 2023), as transformers has it, and LAION's checkpoints."""

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The classes' defaults are HTSAT-tiny and a RoBERTa; LAION's RoBERTa has another epsilon than transformers' default.
HTSAT_TINY_FUSION = {"audio_config": {"enable_fusion": True}, "text_config": {"layer_norm_eps": 1e-5}}

# What LAION's names are called in transformers. Query, key and value lie in one matrix there.
_RENAMED = (
    (r"^module\.", ""),
    (r"^text_branch\.", "text_model."),
    (r"^audio_branch\.bn0\.", "audio_model.audio_encoder.batch_norm."),
    (r"^audio_branch\.", "audio_model.audio_encoder."),
    (r"^(audio|text)_projection\.0\.", r"\1_projection.linear1."),
    (r"^(audio|text)_projection\.2\.", r"\1_projection.linear2."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.self."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
# Of no use for embeddings: spectrograms, the tagging head, the MLPs that only its training loss used, and buffers that
# every model computes for itself.
_LEFT_OUT = re.compile(
    r"audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\."
    r"|(audio|text)_transform\."
    r"|\.(attn_mask|relative_position_index|position_ids|token_type_ids)$"
)


class CLAP(nn.Module):
    """Features of unit length.

    Args:
        network: transformers' `ClapModel` with its weights; None: a new one.
        config: of the new one.
    """

    def __init__(self, network: nn.Module | None = None, config: dict = HTSAT_TINY_FUSION):
        from transformers import ClapConfig, ClapModel

        super().__init__()
        self.network = ClapModel(ClapConfig(**config)) if network is None else network

    def forward(self, mel: Tensor) -> Tensor:
        """Mel spectrograms in decibels (B, 1001, 64) -> (B, 512).

        The released code gives the fusion four equal copies and says that none is a part of something longer; then the
        network looks at the first alone, so one is enough.
        """
        longer = torch.zeros(len(mel), 1, dtype=torch.bool, device=mel.device)
        pooled = self.network.audio_model(input_features=mel[:, None], is_longer=longer).pooler_output
        return F.normalize(self.network.audio_projection(pooled).float(), dim=-1)

    def text(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Two (B, L) -> (B, 512)."""
        pooled = self.network.text_model(input_ids=token_ids, attention_mask=attention_mask).pooler_output
        return F.normalize(self.network.text_projection(pooled).float(), dim=-1)


def from_laion_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of laion-clap under the names of transformers' ClapModel. A prefix `module.` is taken off."""
    converted = {}
    for name, tensor in state.items():
        if _LEFT_OUT.search(name):
            continue
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        if ".qkv." in name:
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                converted[name.replace(".qkv.", f".{part}.")] = rows
        else:
            converted[name] = tensor
    return converted


def load_laion_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put a state dict of laion-clap into transformers' model; torch raises RuntimeError where they do not fit."""
    own = network.state_dict()
    kept = {name: own[name] for name in own if _LEFT_OUT.search(name) or name.endswith("num_batches_tracked")}
    network.load_state_dict(kept | from_laion_names(state))
