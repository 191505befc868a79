"""Which networks make features, and what the record of a folder says of them."""

import argparse
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="pip install -r requirements-video.txt")

from video.extraction.extraction_networks import (
    Source,
    add_network_flags,
    build_network,
    settings_of,
    source_of,
    text_settings_of,
)


def test_flags_say_where_networks_come_from():
    parser = argparse.ArgumentParser()
    add_network_flags(parser)
    assert source_of(parser.parse_args([])) == Source(Path("weights"), None, 0, "transformers", "transformers")
    assert source_of(parser.parse_args(["--random_weights"])).drawn == "real"
    flags = "--weights_dir w --random_weights small --seed 3 --clip_backend open_clip --clap_backend laion_clap"
    assert source_of(parser.parse_args(flags.split())) == Source(Path("w"), "small", 3, "open_clip", "laion_clap")


def test_the_record_says_how_each_feature_is_made():
    published = {"drawn_weights": None, "precision": "bf16"}
    assert settings_of(["vggish", "clip"], Source(Path("w")), "centre", "bf16") == {
        "vggish": {"weights": "vggish-10086976.pth", **published},
        "clip": {"weights": "clip-vit-large-patch14", **published, "recipe": "centre", "backend": "transformers"},
    }
    drawn = {"weights": "drawn from seed 7", "drawn_weights": "real", "precision": "float32"}
    assert text_settings_of(["clap"], Source(Path("w"), "real", 7), "valor", "float32") == {
        "clap valor_prompt_feats.npy": {**drawn, "backend": "transformers"},
    }


def test_random_weights_follow_the_seed():
    one, again, other = (build_network("vggish", Source(Path("w"), "small", seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
