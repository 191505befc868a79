"""Prompts, tokens and text features of events."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="pip install -r requirements-video.txt")

from dataloaders.llp import LLP_CLASSES
from utils.errors import InputError
from video.extraction.event_texts import (
    hashed_words,
    sentences_of,
    text_features,
    tokenize,
)
from video.extraction.feature_networks import WEIGHTS, Source, draw_network


def test_the_prompts_are_those_of_the_papers():
    assert sentences_of("clip", ("dog barking",), "event_names", None) == ["A photo of dog barking"]
    assert sentences_of("clap", ("dog barking",), "event_names", None) == ["This is the sound of dog barking"]
    assert sentences_of("clap", ("Dog Barking",), "valor", None) == ["This is a sound of dog barking"]
    assert sentences_of("clip", LLP_CLASSES, "event_names", "LLP")[5] == "A photo of Frying (food)"
    assert sentences_of("clip", LLP_CLASSES, "valor", "LLP")[3] == "A photo of a dog."
    assert sentences_of("clap", LLP_CLASSES, "valor", "LLP")[3] == "This is a sound of dog"
    for encoder in ("clip", "clap"):
        valor = sentences_of(encoder, LLP_CLASSES, "valor", "LLP")
        assert len(valor) == len(LLP_CLASSES) and len(set(valor)) == len(valor)


def test_prompts_without_a_place_for_the_event_are_an_error(tmp_path: Path):
    path = tmp_path / "prompts.yaml"
    path.write_text("event_names: {clip: A photo, clap: 'The sound of {event}'}")
    with pytest.raises(InputError, match="A photo"):
        sentences_of("clip", ("rain",), "event_names", None, path)
    with pytest.raises(InputError, match="other"):
        sentences_of("clip", ("rain",), "other", None)


def test_equal_words_have_equal_tokens_where_weights_are_drawn():
    token_ids, mask = hashed_words("clap", ["This is the sound of rain", "The rain"])
    assert token_ids.shape == mask.shape == (2, 8)
    assert mask.sum(1).tolist() == [8, 4]
    assert token_ids[0, 6] == token_ids[1, 2] and token_ids[1, 4:].tolist() == [1] * 4
    assert token_ids[:, 0].tolist() == [0, 0] and token_ids[0, 7] == token_ids[1, 3] == 2  # first and last token
    assert hashed_words("clip", ["word " * 200])[0].shape == (1, 77)


def write_tokenizer(folder: Path, words: list[str]) -> None:
    """A tokenizer of whole words in the files of transformers."""
    vocabulary = {word: number for number, word in enumerate(["<s>", "<pad>", "</s>", "[UNK]", *words])}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "unk_token": "[UNK]"}
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def test_a_tokenizer_is_read_from_the_weights_folder(tmp_path: Path):
    write_tokenizer(tmp_path / WEIGHTS["clap tokenizer"], ["this", "is", "rain"])
    token_ids, mask = tokenize("clap", ["This is rain", "rain"], Source(tmp_path))
    assert token_ids.tolist() == [[4, 5, 6], [6, 1, 1]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path: Path):
    (tmp_path / WEIGHTS["clap tokenizer"]).mkdir()
    with pytest.raises(InputError, match="no tokenizer"):
        tokenize("clap", ["rain"], Source(tmp_path))


@pytest.mark.parametrize("encoder", ["clip", "clap"])
def test_padding_does_not_change_text_features(encoder: str):
    network = draw_network(encoder, "small", 0)
    sentences = ["A photo of rain", "A photo of a dog that barks in the rain at night"]
    alone = text_features(network, *hashed_words(encoder, sentences[:1]))
    among = text_features(network, *hashed_words(encoder, sentences))
    np.testing.assert_allclose(among[0], alone[0], atol=1e-5)
    assert torch.from_numpy(among).norm(dim=1).sub(1).abs().max() < 1e-5


@pytest.mark.parametrize("encoder", ["clip", "clap"])
def test_more_sentences_than_the_encoder_takes_at_once_are_all_encoded_in_order(encoder: str):
    network = draw_network(encoder, "small", 0)
    sentences = [f"A photo of event {number}{' again' * (number % 3)}" for number in range(70)]
    features = text_features(network, *hashed_words(encoder, sentences))
    assert features.shape == (70, 256)
    for number in (0, 63, 64, 69):
        alone = text_features(network, *hashed_words(encoder, sentences[number : number + 1]))
        np.testing.assert_allclose(features[number], alone[0], atol=1e-5)
