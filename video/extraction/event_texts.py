"""Text features of event names: prompts, tokens and files. C events, L tokens."""

import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from dataloaders.features import BIAS_FILE, FEATURES, text_features_path
from dataloaders.prompts import PROMPTS_FILE as SENTENCES_FILE
from dataloaders.prompts import load_prompts as load_sentences
from utils.errors import InputError
from utils.files import atomic_write, exclusive, write_text
from video.extraction.feature_networks import FeatureNetwork, Source, weights_of

PROMPTS_FILE = Path(__file__).resolve().parents[2] / "data" / "prompts.yaml"
PE_PROMPTS_FILE = PROMPTS_FILE.with_name("pe_prompts.yaml")
WITH_SENTENCES = ("LLP", "AVE")  # data sets with prompts in data/valor_prompts.yaml

# First token, last token, padding token and size of the encoders' vocabularies.
_SPECIAL_TOKENS = {
    "clip": (49406, 49407, 49407, 49408),
    "clap": (0, 2, 1, 50265),
    "pe_audio": (50281, 50282, 50283, 50368),
}
_LONGEST = 77  # largest number of tokens in a prompt


def write_event_features(
    data_dir: Path,
    networks: dict[str, FeatureNetwork],
    source: Source,
    names: tuple[str, ...],
    dataset: str | None = None,
    prompts: str = "event_names",
) -> None:
    """Write the text features (C, D) of event names for those of `networks` that encode text, unless they exist.

    `dataset` is the data set of the events, if any. Beside each file, `all_event_feats.txt` lists the events in the
    order of the rows. Several processes may call this concurrently. Raises InputError if prompts or a tokenizer are
    absent, or a file holds other events or has no list.
    """
    for feature, network in networks.items():
        if not FEATURES[feature].text_folder:
            continue
        path = text_features_path(data_dir, feature, prompts)
        listed = path.with_suffix(".txt")
        wanted = "\n".join(names) + "\n"
        with exclusive(path.parent):
            if path.exists():
                if not listed.exists() or listed.read_text() != wanted:
                    found, expected = "text features of other or unknown events", f"those of the {len(names)} events"
                    raise InputError(path, found, expected, "Choose another --output, or delete this file.")
                continue
            sentences = sentences_of(feature, names, prompts, dataset)
            tokens = hashed_words(feature, sentences) if source.drawn else tokenize(feature, sentences, source)
            features = text_features(network.network, *tokens)
            if feature == "pe_audio":
                with atomic_write(path.with_name(BIAS_FILE)) as file:
                    np.save(file, np.float32([network.network.bias]))
            write_text(listed, wanted)
            with atomic_write(path) as file:
                np.save(file, features)


def sentences_of(
    encoder: str, events: tuple[str, ...], prompts: str, dataset: str | None, prompts_file: Path = PROMPTS_FILE
) -> list[str]:
    """Return the prompt of each event for a text encoder: `A photo of Frying (food)` for `Frying_(food)`.

    The encoder is "clip", "clap" or "pe_audio", which has its own prompts in data/pe_prompts.yaml. `prompts` is
    "event_names" or "valor", whose prompts for data sets of `WITH_SENTENCES` are in data/valor_prompts.yaml. All others
    are templates in `prompts_file`, with {event} or {lower} for the event. Raises InputError for a missing template.
    """
    if encoder == "pe_audio":
        known = yaml.safe_load(PE_PROMPTS_FILE.read_text(encoding="utf-8")).get(dataset, {})
        return [known.get(event, event.replace("_", " ").lower()) for event in events]
    if prompts == "valor" and dataset in WITH_SENTENCES:
        sentences = load_sentences(SENTENCES_FILE, dataset)
        return list(sentences.audio if encoder == "clap" else sentences.visual)
    try:
        prompt = str(yaml.safe_load(prompts_file.read_text(encoding="utf-8"))[prompts][encoder])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        prompt = f"none ({error})"
    if "{event}" not in prompt and "{lower}" not in prompt:
        expected = f"under `{prompts}` one for {encoder} that contains {{event}} or {{lower}}"
        raise InputError(prompts_file, f"the prompt {prompt!r}", expected, "Correct the file.")
    names = [event.replace("_", " ") for event in events]
    return [prompt.format(event=name, lower=name.lower()) for name in names]


def tokenize(encoder: str, sentences: Sequence[str], source: Source) -> tuple[Tensor, Tensor]:
    """Return the token ids and the mask of C prompts, (C, L) int64 each. Raises InputError without a tokenizer."""
    from transformers import AutoTokenizer

    folder = weights_of({"clap": "clap tokenizer"}.get(encoder, encoder), source.weights_dir)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        found = f"no tokenizer ({str(error).splitlines()[0]})"
        raise InputError(folder, found, "tokenizer.json and its configuration", "Download them again.") from error
    tokens = tokenizer(list(sentences), padding=True, truncation=True, max_length=_LONGEST, return_tensors="pt")
    return tokens["input_ids"], tokens["attention_mask"]


def hashed_words(encoder: str, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the token ids and the mask of C prompts for networks with random weights: tokens are hashes of words."""
    first, last, padding, size = _SPECIAL_TOKENS[encoder]
    words = [re.findall(r"[a-z0-9]+", sentence.lower())[: _LONGEST - 2] for sentence in sentences]
    ids = [torch.tensor([first, *(10 + zlib.crc32(w.encode()) % (size - 20) for w in row), last]) for row in words]
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=padding), mask


@torch.inference_mode()
def text_features(network: nn.Module, token_ids: Tensor, mask: Tensor) -> np.ndarray:
    """Compute the features of C prompts: token ids and mask (C, L) -> (C, D) float32."""
    device = next(network.parameters()).device
    batches = zip(token_ids.to(device).split(64), mask.to(device).split(64), strict=True)
    return torch.cat([network.text(*batch) for batch in batches]).float().cpu().numpy()
