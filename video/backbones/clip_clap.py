"""CLIP ViT-L/14 (Radford et al., 2021) and LAION CLAP, HTSAT-tiny with fusion (Wu et al., ICASSP 2023).

Both networks come from transformers. The optional packages open_clip and laion-clap compute the same features with the
same weights, as tests show. All features have unit length. B rows, L tokens.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def tower(width: int, hidden: int, layers: int, heads: int) -> dict[str, int]:
    """Return the sizes of a transformer under the names of the package transformers."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return dict(zip(names, (width, hidden, layers, heads), strict=True))


# Sizes of openai/clip-vit-large-patch14; quick GELU is the default of the class.
VIT_L_14 = {
    "projection_dim": 768,
    "vision_config": tower(1024, 4096, 24, 16) | {"image_size": 224, "patch_size": 14},
    "text_config": tower(768, 3072, 12, 12) | {"bos_token_id": 49406, "eos_token_id": 49407},
}
# The defaults of the classes are HTSAT-tiny and RoBERTa; only the epsilon of LAION's RoBERTa differs.
HTSAT_TINY_FUSION = {"audio_config": {"enable_fusion": True}, "text_config": {"layer_norm_eps": 1e-5}}
_SIZES = ("input_resolution", "context_length", "vocab_size")  # stored beside the weights in OpenAI's archive

# LAION's parameter names and those of transformers. LAION stores query, key and value in one matrix.
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
# Parameters not needed for embeddings: spectrograms, the tagging head, MLPs of CLAP's training loss, and buffers that
# models compute themselves.
_LEFT_OUT = re.compile(
    r"audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\."
    r"|(audio|text)_transform\."
    r"|\.(attn_mask|relative_position_index|position_ids|token_type_ids)$"
)


class _TextEncoder(nn.Module):
    """Base class of networks that encode text; those of transformers."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def text(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute text features: (B, L) both -> (B, 768) for CLIP, (B, 512) for CLAP."""
        pooled = self.network.text_model(input_ids=token_ids, attention_mask=attention_mask).pooler_output
        return F.normalize(self.network.text_projection(pooled).float(), dim=-1)


class CLIP(_TextEncoder):
    """A given `CLIPModel` of transformers, or a new one with the given sizes."""

    def __init__(self, network: nn.Module | None = None, config: dict = VIT_L_14):
        from transformers import CLIPConfig, CLIPModel

        super().__init__(CLIPModel(CLIPConfig(**config)) if network is None else network)

    def forward(self, images: Tensor) -> Tensor:
        """Compute features of images: (B, 3, 224, 224) -> (B, 768)."""
        pooled = self.network.vision_model(pixel_values=images).pooler_output
        return F.normalize(self.network.visual_projection(pooled).float(), dim=-1)


class CLAP(_TextEncoder):
    """A given `ClapModel` of transformers, or a new one with the given sizes."""

    def __init__(self, network: nn.Module | None = None, config: dict = HTSAT_TINY_FUSION):
        from transformers import ClapConfig, ClapModel

        super().__init__(ClapModel(ClapConfig(**config)) if network is None else network)

    def forward(self, mel: Tensor) -> Tensor:
        """Compute features of mel spectrograms in decibels: (B, 1001, 64) -> (B, 512)."""
        # of the four equal copies in the released code, the network uses only the first
        longer = torch.zeros(len(mel), 1, dtype=torch.bool, device=mel.device)
        pooled = self.network.audio_model(input_features=mel[:, None], is_longer=longer).pooler_output
        return F.normalize(self.network.audio_projection(pooled).float(), dim=-1)


class OpenCLIP(_TextEncoder):
    """open_clip's model with the interface of `CLIP`."""

    def forward(self, images: Tensor) -> Tensor:
        """Compute features of images: (B, 3, 224, 224) -> (B, 768)."""
        return F.normalize(self.network.encode_image(images).float(), dim=-1)

    def text(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute text features: (B, L) both -> (B, 768)."""
        length = self.network.context_length
        padded = torch.where(attention_mask.bool(), token_ids, 0)
        return F.normalize(self.network.encode_text(F.pad(padded, (0, length - padded.shape[1]))).float(), dim=-1)


class LaionCLAP(_TextEncoder):
    """laion-clap's model (`laion_clap.clap_module.model.CLAP`) with the interface of `CLAP`."""

    def forward(self, mel: Tensor) -> Tensor:
        """Compute features of mel spectrograms in decibels: (B, 1001, 64) -> (B, 512)."""
        batch = {
            "mel_fusion": mel[:, None].expand(-1, 4, -1, -1),
            "longer": torch.zeros(len(mel), 1, dtype=torch.bool, device=mel.device),
            "waveform": mel.new_zeros(len(mel), 480_000),
        }
        output = self.network.encode_audio(batch, device=mel.device)
        return F.normalize(self.network.audio_projection(output["embedding"]).float(), dim=-1)

    def text(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute text features: (B, L) both -> (B, 512)."""
        tokens = {"input_ids": token_ids, "attention_mask": attention_mask}
        return F.normalize(self.network.encode_text(tokens, device=token_ids.device).float(), dim=-1)


def from_laion_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of laion-clap to the names of transformers' ClapModel, without a prefix `module.`."""
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
    """Load a state dict of laion-clap into transformers' model. Raises RuntimeError if they do not match."""
    own = network.state_dict()
    kept = {name: own[name] for name in own if _LEFT_OUT.search(name) or name.endswith("num_batches_tracked")}
    network.load_state_dict(kept | from_laion_names(state))


def read_open_clip(path: Path) -> OpenCLIP:
    """Return open_clip's ViT-L/14 with OpenAI's weights, from their archive or a state dict of open_clip."""
    import open_clip

    network = open_clip.create_model("ViT-L-14-quickgelu")
    if is_torchscript(path):  # open_clip itself no longer reads archives that contain code
        archive = torch.jit.load(path, map_location="cpu").state_dict()
        network.load_state_dict({name: tensor.float() for name, tensor in archive.items() if name not in _SIZES})
    else:
        open_clip.load_checkpoint(network, str(path))
    return OpenCLIP(network)


def is_torchscript(path: Path) -> bool:
    """Return whether a file is an archive of code and weights, such as OpenAI's, and not one of tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def make_laion_clap(state: Mapping[str, Tensor]) -> LaionCLAP:
    """Return HTSAT-tiny with fusion and the weights of LAION's 630k-fusion-best.pt.

    The package loads the tokenizers of BERT, RoBERTa and BART, and RoBERTa itself, from Hugging Face's cache or hub.
    """
    from laion_clap import CLAP_Module

    module = CLAP_Module(enable_fusion=True, amodel="HTSAT-tiny", device="cpu")
    own = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    own.pop("text_branch.embeddings.position_ids", None)  # from earlier versions of transformers
    module.model.load_state_dict(own)
    return LaionCLAP(module.model)
