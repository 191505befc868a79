"""CLIP by open_clip and CLAP by laion-clap, for those who have their weights and results there. Both are extras.

Both stand where transformers' networks do and give the same features for the same weights; the tests prove it.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.errors import InputError
from utils.extraction.weights import find_weights

OPEN_CLIP_MODEL = "ViT-L-14-quickgelu"
OPEN_CLIP_FILES = ("ViT-L-14.pt", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class OpenCLIP(nn.Module):
    """open_clip's model with the calls of `models.backbones.clip.CLIP`."""

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
    """laion-clap's model with the calls of `models.backbones.clap.CLAP`."""

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


def load_open_clip(weights_dir: Path) -> OpenCLIP:
    """ViT-L/14 with OpenAI's weights from a file of open_clip's or OpenAI's.

    Raises:
        InputError: when the package or the weights are absent.
    """
    try:
        import open_clip
    except ImportError as error:
        found = f"no open_clip ({error})"
        raise InputError("--clip_backend", found, "the package", "pip install open_clip_torch") from error
    path = next((weights_dir / name for name in OPEN_CLIP_FILES if (weights_dir / name).exists()), None)
    if path is None:
        found, expected = "no weights of open_clip", f"one of {', '.join(OPEN_CLIP_FILES)}"
        raise InputError(weights_dir, found, expected, "Copy open_clip's ViT-L-14 (openai) there.")
    return OpenCLIP(open_clip.create_model(OPEN_CLIP_MODEL, pretrained=str(path))).eval()


def load_laion_clap(weights_dir: Path) -> LaionCLAP:
    """HTSAT-tiny with fusion and LAION's 630k-fusion-best.pt.

    Raises:
        InputError: when the package or the weights are absent.
    """
    try:
        from laion_clap import CLAP_Module
    except Exception as error:  # it also fails without numpy 1, and offline
        found = f"no laion_clap that can be imported ({str(error).splitlines()[0]})"
        raise InputError("--clap_backend", found, "the package", "pip install laion-clap 'numpy<2'") from error
    module = CLAP_Module(enable_fusion=True, amodel="HTSAT-tiny", device="cpu")
    module.load_ckpt(str(find_weights("clap", weights_dir)), verbose=False)
    return LaionCLAP(module.model).eval()
