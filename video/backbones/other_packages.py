"""CLIP by open_clip and CLAP by laion-clap, for those who have their weights and results there. Both are extras.

Both stand where transformers' networks do and give the same features for the same weights; the tests prove it.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SIZES = ("input_resolution", "context_length", "vocab_size")  # in OpenAI's archive beside the weights


class OpenCLIP(nn.Module):
    """open_clip's model with the calls of `video.backbones.clip.CLIP`."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 224, 224) -> (B, 768)."""
        return F.normalize(self.network.encode_image(images).float(), dim=-1)

    def text(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Two (B, L) -> (B, 768). The end of a sentence is found by its token, so the mask is not needed."""
        length = self.network.context_length
        padded = torch.where(attention_mask.bool(), token_ids, 0)
        return F.normalize(self.network.encode_text(F.pad(padded, (0, length - padded.shape[1]))).float(), dim=-1)


class LaionCLAP(nn.Module):
    """laion-clap's model with the calls of `video.backbones.clap.CLAP`."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network  # laion_clap.clap_module.model.CLAP

    def forward(self, mel: Tensor) -> Tensor:
        """Mel spectrograms in decibels (B, 1001, 64) -> (B, 512)."""
        batch = {
            "mel_fusion": mel[:, None].expand(-1, 4, -1, -1),
            "longer": torch.zeros(len(mel), 1, dtype=torch.bool, device=mel.device),
            "waveform": mel.new_zeros(len(mel), 480_000),
        }
        output = self.network.encode_audio(batch, device=mel.device)
        return F.normalize(self.network.audio_projection(output["embedding"]).float(), dim=-1)

    def text(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Two (B, L) -> (B, 512)."""
        tokens = {"input_ids": token_ids, "attention_mask": attention_mask}
        return F.normalize(self.network.encode_text(tokens, device=token_ids.device).float(), dim=-1)


def read_open_clip(path: Path) -> OpenCLIP:
    """Return ViT-L/14 with OpenAI's weights: their archive, or a state dict of open_clip's."""
    import open_clip

    network = open_clip.create_model("ViT-L-14-quickgelu")
    if is_torchscript(path):  # open_clip reads no archives with code since it loads weights only
        archive = torch.jit.load(path, map_location="cpu").state_dict()
        network.load_state_dict({name: tensor.float() for name, tensor in archive.items() if name not in _SIZES})
    else:
        open_clip.load_checkpoint(network, str(path))
    return OpenCLIP(network)


def is_torchscript(path: Path) -> bool:
    """Return whether a file is an archive of code and weights, as OpenAI's is, rather than one of tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def make_laion_clap(state: Mapping[str, Tensor]) -> LaionCLAP:
    """Return HTSAT-tiny with fusion and the weights of LAION's 630k-fusion-best.pt.

    They come as a state dict, since the package itself would run whatever code a file holds.

    The package takes the tokenizers of BERT, RoBERTa and BART when it is imported, and RoBERTa when it builds its
    network, from Hugging Face's cache or hub.
    """
    from laion_clap import CLAP_Module

    module = CLAP_Module(enable_fusion=True, amodel="HTSAT-tiny", device="cpu")
    own = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    own.pop("text_branch.embeddings.position_ids", None)  # of earlier versions of transformers
    module.model.load_state_dict(own)
    return LaionCLAP(module.model)
