"""Text features of event names: prompts, tokens, and the text encoders of CLIP and CLAP."""

import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor
from transformers import AutoTokenizer

from utils.errors import InputError
from video.backbones.clap import CLAP
from video.backbones.clip import CLIP
from video.extraction.backbone_weights import find_weights

PROMPTS_FILE = Path(__file__).resolve().parents[2] / "data" / "prompts.yaml"
Tokenizer = Callable[[Sequence[str]], tuple[Tensor, Tensor]]  # C sentences -> token ids and mask, both (C, L) int64

# First token, last token, padding and the number of all, of the vocabularies that the encoders were trained with.
_SPECIAL_TOKENS = {"clip": (49406, 49407, 49407, 49408), "clap": (0, 2, 1, 50265)}
_LONGEST = 77  # tokens of a sentence, in both


def read_prompts(path: Path, style: str) -> dict[str, str]:
    """The sentences of one style by encoder, with {event} or {lower} in the event's place.

    Raises:
        InputError: when the file is absent or no YAML of that form.
    """
    expected = f"`{style}` with a sentence for clip and for clap that holds {{event}} or {{lower}}"
    try:
        prompts = yaml.safe_load(path.read_text(encoding="utf-8"))[style]
        chosen = {encoder: str(prompts[encoder]) for encoder in ("clip", "clap")}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(path, f"no such prompts ({error})", expected, "Correct the file, or the flag.") from error
    for encoder, sentence in chosen.items():
        if sentence.format(event="", lower="") == sentence:
            raise InputError(path, f"{encoder}: {sentence!r}", expected, "Correct the file.")
    return chosen


def fill_in(prompt: str, event: str) -> str:
    """The sentence of one event: `Frying_(food)` -> `A photo of Frying (food)`."""
    name = event.replace("_", " ")
    return prompt.format(event=name, lower=name.lower())


def tokenizer_of(encoder: str, weights_dir: Path) -> Tokenizer:
    """The tokenizer of "clip" or "clap".

    Raises:
        InputError: when its files are absent.
    """
    folder = find_weights("clip" if encoder == "clip" else "clap tokenizer", weights_dir)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        found = f"no tokenizer ({str(error).splitlines()[0]})"
        raise InputError(folder, found, "tokenizer.json and its configuration", "Download them again.") from error

    def tokenize(sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        tokens = tokenizer(list(sentences), padding=True, truncation=True, max_length=_LONGEST, return_tensors="pt")
        return tokens["input_ids"], tokens["attention_mask"]

    return tokenize


def hashed_words(encoder: str) -> Tokenizer:
    """Stands for a tokenizer where weights are drawn: every word is a token, whose number is a hash of the word."""
    first, last, padding, size = _SPECIAL_TOKENS[encoder]

    def tokenize(sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        words = [re.findall(r"[a-z0-9]+", sentence.lower())[: _LONGEST - 2] for sentence in sentences]
        ids = [[first, *(10 + zlib.crc32(w.encode()) % (size - 20) for w in row), last] for row in words]
        length = max(len(row) for row in ids)
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids])
        return torch.tensor([row + [padding] * (length - len(row)) for row in ids]), mask

    return tokenize


@torch.inference_mode()
def text_features(network: CLIP | CLAP, tokenize: Tokenizer, sentences: Sequence[str]) -> np.ndarray:
    """The features of C sentences: (C, D) float32 of unit length, on the CPU."""
    device = next(network.parameters()).device
    token_ids, mask = (tokens.to(device) for tokens in tokenize(sentences))
    rows = [network.text(token_ids[i : i + 64], mask[i : i + 64]) for i in range(0, len(token_ids), 64)]
    return torch.cat(rows).float().cpu().numpy()
