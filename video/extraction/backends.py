"""CLIP by open_clip and CLAP by laion-clap, for those who have their weights and results there. Both are extras.

Both stand where transformers' networks do and give the same features for the same weights; the tests prove it.
"""

import zipfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.errors import InputError
from video.extraction.backbone_weights import WEIGHTS, find_weights

OPEN_CLIP_MODEL = "ViT-L-14-quickgelu"
OPEN_CLIP_FILES = (WEIGHTS["open_clip"].file, "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
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


def open_clip_file(weights_dir: Path) -> Path:
    """The first file of `OPEN_CLIP_FILES` that there is; OpenAI's, a TorchScript archive, only with its published hash.

    Raises:
        InputError: when there is none, or the archive's hash is another.
    """
    path = next((weights_dir / name for name in OPEN_CLIP_FILES if (weights_dir / name).exists()), None)
    return find_weights("open_clip", weights_dir) if path is None or _is_torchscript(path) else path


def load_open_clip(weights_dir: Path) -> OpenCLIP:
    """ViT-L/14 with OpenAI's weights: their archive, or a state dict of open_clip's.

    Raises:
        InputError: when the package or the weights are absent, or the weights are damaged or another network's.
    """
    try:
        import open_clip
    except ImportError as error:
        found = f"no open_clip ({error})"
        raise InputError("--clip_backend", found, "the package", "pip install open_clip_torch") from error
    path = open_clip_file(weights_dir)
    network = open_clip.create_model(OPEN_CLIP_MODEL)
    try:
        if _is_torchscript(path):  # open_clip reads no archives with code since it loads weights only
            archive = torch.jit.load(path, map_location="cpu").state_dict()
            state = {name: tensor.float() for name, tensor in archive.items() if name not in _SIZES}
            network.load_state_dict(state, strict=True)
        else:
            open_clip.load_checkpoint(network, str(path))
    except Exception as error:  # whatever a damaged file makes torch, pickle or safetensors raise
        found = f"no weights of CLIP ViT-L/14 ({_first_line(error)})"
        raise InputError(
            path, found, "OpenAI's archive or a state dict of open_clip's", _get_from("open_clip")
        ) from error
    return OpenCLIP(network).eval()


def _is_torchscript(path: Path) -> bool:
    """Whether a file is an archive of code and weights, as OpenAI's is, rather than one of tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def load_laion_clap(weights_dir: Path) -> LaionCLAP:
    """HTSAT-tiny with fusion and LAION's 630k-fusion-best.pt.

    The package takes the tokenizers of BERT, RoBERTa and BART when it is imported, and RoBERTa when it builds its
    network, from Hugging Face's cache or hub.

    Raises:
        InputError: when the package, roberta-base or the weights are absent, or the weights are another network's.
    """
    path = find_weights("clap", weights_dir)
    try:
        from laion_clap import CLAP_Module

        module = CLAP_Module(enable_fusion=True, amodel="HTSAT-tiny", device="cpu")
    except Exception as error:  # without the package, with numpy 2, or offline without the tokenizers
        found, expected = f"no laion_clap that can be used ({_first_line(error)})", "the package and its tokenizers"
        way_out = (
            "pip install laion-clap 'numpy<2', and let it fetch bert-base-uncased, roberta-base and facebook/bart-base "
            "once; or leave out the flag: transformers gives the same features."
        )
        raise InputError("--clap_backend", found, expected, way_out) from error
    try:
        module.load_ckpt(str(path), verbose=False)
    except Exception as error:  # whatever a damaged file makes torch raise
        found = f"no weights of laion_clap ({_first_line(error)})"
        raise InputError(path, found, "a checkpoint of HTSAT-tiny with fusion", _get_from("clap")) from error
    return LaionCLAP(module.model).eval()


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _get_from(name: str) -> str:
    return f"Get {WEIGHTS[name].file} from {WEIGHTS[name].source}."
