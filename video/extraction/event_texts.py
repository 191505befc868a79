"""Text features of a data set's classes, or of any event names, as files."""

from pathlib import Path

import numpy as np

from dataloaders.datasets import DATASETS
from dataloaders.features import FEATURES, text_features_path
from dataloaders.prompts import PROMPTS_FILE as SENTENCES_FILE
from dataloaders.prompts import load_prompts as load_sentences
from utils.errors import InputError
from utils.files import atomic_write, exclusive, write_text
from video.extraction.computing import FeatureNetwork
from video.extraction.extraction_networks import Source
from video.extraction.text_encoders import (
    PROMPTS_FILE,
    fill_in,
    hashed_words,
    read_prompts,
    text_features,
    tokenizer_of,
)

WITH_SENTENCES = ("LLP", "AVE")  # data sets that data/valor_prompts.yaml has sentences for


def classes_of(dataset: str) -> tuple[str, ...]:
    """A data set's class names in order."""
    return DATASETS[dataset].classes


def sentences_of(encoder: str, events: tuple[str, ...], prompts: str, dataset: str | None) -> list[str]:
    """What the text encoder reads of each event, in order.

    Args:
        encoder: "clip" or "clap".
        prompts: "event_names", or "valor": of a data set, the sentences of data/valor_prompts.yaml.
        dataset: whose classes the events are; None: any names.
    """
    if prompts == "valor" and dataset in WITH_SENTENCES:
        sentences = load_sentences(SENTENCES_FILE, dataset)
        return list(sentences.audio if encoder == "clap" else sentences.visual)
    prompt = read_prompts(PROMPTS_FILE, prompts)[encoder]
    return [fill_in(prompt, event) for event in events]


def write_event_features(
    data_dir: Path,
    networks: dict[str, FeatureNetwork],
    source: Source,
    names: tuple[str, ...],
    dataset: str | None = None,
    prompts: str = "event_names",
) -> None:
    """Write the text features (C, D) of event names for those of `networks` that read text, unless they are there.

    A list of the events, in the order of the rows, lies beside each file: `all_event_feats.txt` for `.npy`. Several
    processes may do this at the same time.

    Args:
        names: the events.
        dataset: whose classes they are; None: any names.

    Raises:
        InputError: when prompts or a tokenizer are absent, or a file holds other events or does not say which.
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
                    found = "text features of other events, or of another origin"
                    expected = f"none, or those of the {len(names)} events that {listed.name} lists"
                    raise InputError(path, found, expected, "Choose another --output, or delete this file.")
                continue
            tokenize = hashed_words(feature) if source.drawn else tokenizer_of(feature, source.weights_dir)
            sentences = sentences_of(feature, names, prompts, dataset)
            features = text_features(network.network, tokenize, sentences)
            write_text(listed, wanted)
            with atomic_write(path) as file:
                np.save(file, features)
