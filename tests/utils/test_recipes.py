"""The recipe of each stage and of each method beside their papers and their authors' code, and how recipes are read."""

from pathlib import Path

import pytest
import yaml

import train_han
import train_transformer
from baselines.jomold import find_noise_ratios
from utils.errors import InputError
from utils.recipes import CONFIGS, find_method, parse_recipe
from utils.settings import flat, read_args, with_file, with_groups

UWAV = {
    **{"dim": 512, "num_heads": 16, "ffn_dim": 2048, "num_layers": 5, "dropout": 0.1, "num_proj_layers": 1},
    **{"num_mmil_layers": 1, "num_audio_proj_layers": 2, "visual_fusion": "concatenated", "pre_norm": False},
    **{"encoder_order": "sequential", "layer_init": "equal", "visual_dropout": 0.0, "cross_attention": True},
    **{"segment_labels": "soft", "temperature": 2.0, "reweight": True, "positive_weight": 0.5, "mixup": True},
    **{"weight_normalization": "sum", "mixup_alpha": 1.7, "mixup_labels": "soft"},
    **{"video_weight": 1.0, "segment_weight": 1.0, "mixup_weight": 1.0},
    **{"optimizer": "adamw", "lr": 1e-4, "lr_min": 5e-6, "schedule": "cosine", "warmup_epochs": 10, "num_epochs": 80},
    **{"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 1e-4, "clip_norm": 1.0, "batch_size": 64, "seed": 20000},
    **{"keep": "first_best", "decoding": "video", "inclusive": False},
}
HAN_ENCODER = {
    **{"dim": 512, "num_heads": 1, "ffn_dim": 512, "num_layers": 1, "dropout": 0.1, "encoder_order": "parallel"},
    **{"optimizer": "adam", "lr": 3e-4, "schedule": "step", "lr_decay": 0.1, "lr_decay_every": 10},
    **{"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "clip_norm": float("inf"), "batch_size": 16},
}
HAN_NETWORK = {
    **{**HAN_ENCODER, "num_audio_proj_layers": 1, "visual_fusion": "projected", "cross_attention": True},
    "visual_dropout": 0.0,
}
HAN_LOSSES = {
    **{"video_weight": 1.0, "audio_guided_weight": 1.0, "visual_guided_weight": 1.0},
    **{"audio_smoothing": 0.0, "visual_smoothing": 0.1},
}
CONTRASTIVE = {"contrastive_weight": 1.0, "contrastive_temperature": 0.2, "contrastive_smoothing": 0.1}
HAN = {**HAN_NETWORK, **HAN_LOSSES, "num_epochs": 40, "seed": 1, "keep": "last_best"}
MA = {**HAN, **CONTRASTIVE, "num_epochs": 12, "decoding": "modality", "keep": "last"}
JOMOLD_TRAINING = {
    **{"visual_dropout": 0.5, "lr": 5e-4, "lr_decay": 0.25, "lr_decay_every": 6, "batch_size": 128, "seed": 6},
    **{"num_epochs": 25, "decoding": "modality", "select_on": "event_A", "keep": "last_best"},
}
JOMOLD_LOSSES = {**HAN_LOSSES, **CONTRASTIVE, "audio_guided_weight": 2.0, "clean_from_epoch": 2}
CMPAE = {
    **{**HAN_ENCODER, **JOMOLD_LOSSES, **JOMOLD_TRAINING, "visual_guided_weight": 0.6, "video_weight": 0.6},
    **{"mutual_weight": 1.0, "num_epochs": 20, "seed": 0, "select_on": "mean"},
    **{"visual_features": ["res152_frames", "r2plus1d_18"]},
    **{"segment_threshold": 0.25, "gate_threshold": 0.45, "cross_share": 0.7, "class_gates": True, "gates_epoch": 8},
}
VALOR = {
    **{**UWAV, "num_heads": 8, "ffn_dim": 1024, "num_layers": 1, "num_audio_proj_layers": 1, "mixup": False},
    **{"visual_fusion": "projected", "segment_labels": "hard", "reweight": False, "inclusive": True, "lr_min": 1e-6},
    **{"betas": [0.5, 0.999], "weight_decay": 1e-3, "num_epochs": 60, "seed": 1000},
}
VALOR_PLUS = {"dim": 256, "num_layers": 4, "lr": 3e-4, "lr_min": 3e-6, "seed": 64}
CLIP_AND_CLAP = {"audio_features": ["clap"], "visual_features": ["clip", "r2plus1d_18"]}
RECIPES = {
    "uwav": UWAV,
    "han": {**HAN, "decoding": "video", "inclusive": True},
    "ma_base": MA,
    "ma": {**MA, "fused_labels": "audio"},
    "jomold_base": {**HAN, **CONTRASTIVE, **JOMOLD_TRAINING, "cross_attention": False},
    "jomold": {**HAN, **JOMOLD_LOSSES, **JOMOLD_TRAINING},
    "cmpae": CMPAE,
    "valor": VALOR,
    "valor_plus": {**VALOR, **VALOR_PLUS},
    "valor_plus_plus": {**VALOR, **VALOR_PLUS, **CLIP_AND_CLAP, "seed": 87},
    "lsld": {
        **{**HAN_NETWORK, **JOMOLD_TRAINING, "num_layers": 6, "audio_segment_weight": 3.0, "segment_weight": 1.0},
        **{"layer_init": "independent"},
        **{"video_weight": 1.0, "lr": 8e-5, "num_epochs": 20, "batch_size": 32},
    },
    "leap": {
        **{**HAN_ENCODER, "num_heads": 8, "num_layers": 2, "dropout": 0.2, "similarity_weight": 1.0, "lr": 1e-4},
        **{"video_weight": 0.0, "segment_weight": 1.0, "num_epochs": 30, "batch_size": 32, "seed": 1},
        **{"keep": "last_best", "decoding": "video", "inclusive": True},
    },
    "coleaf": {
        **{**CMPAE, "visual_guided_weight": 1.0, "video_weight": 2.0, "num_epochs": 10, "seed": 1},
        **{"gate_threshold": 0.52, "class_gates": False, "gates_epoch": 0, "select_on": "unimodal_mean"},
    },
}
RECIPES["leap"].pop("encoder_order")


@pytest.mark.parametrize("method", RECIPES)
def test_a_method_s_recipe_is_that_of_its_authors(method: str):
    settings = recipe_of(method)
    assert {name: settings[name] for name in RECIPES[method]} == RECIPES[method]


def recipe_of(method: str) -> dict[str, object]:
    """All settings of a method on LLP by the names of their flags."""
    return flat(parse_recipe(train_han.Settings, "", ["--method", method], ())[1])


def of_file(path: Path) -> dict[str, object]:
    """The settings in a file, with those that no recipe names."""
    return read_args(path) | {"config": None, "resume": None}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_names_every_setting_of_its_method_and_nothing_else(path: Path):
    if path.stem == "transformer_unav":
        kind = train_transformer.Settings
    elif path.stem.startswith(("lavish", "i3d_soundnet")):
        kind = pytest.importorskip("lavish.train_classifier").Settings
    else:
        method = find_method(path.stem.rpartition("_")[0])
        groups = {"losses": method.losses, "model": method.config, "decoding": method.decoding, "data": method.data}
        kind = with_groups(train_han.Settings, **groups)
    settings = flat(with_file(kind(), path))
    assert settings == of_file(path)
    if "dataset" in settings:
        assert path.stem == f"{settings.get('method', settings.get('model'))}_{settings['dataset']}".lower()


def test_defaults_are_those_of_uwav_s_recipes():
    assert flat(train_han.Settings()) == of_file(CONFIGS / "uwav_llp.yaml")
    assert flat(train_transformer.Settings()) == of_file(CONFIGS / "transformer_unav.yaml")


def test_a_method_has_none_of_the_settings_of_another():
    uwav, cmpae = recipe_of("uwav"), recipe_of("cmpae")
    assert not uwav.keys() & {"noise_ratio_dir", "mutual_weight", "class_gates", "cross_share", "contrastive_weight"}
    assert not cmpae.keys() & {"mixup", "temperature", "segment_labels", "pseudo_label_dir", "num_mmil_layers"}


def test_stage_1_s_defaults_are_the_released_ones():
    recipe = {
        **{"dim": 1024, "num_heads": 16, "ffn_dim": 2048, "num_layers": 5, "dropout": 0.3, "layer_init": "equal"},
        **{"audio_logit_scale": 3.2912, "visual_logit_scale": 4.6052, "occurring_weight": 5.0},
        **{"optimizer": "adamw", "lr": 1e-4, "lr_min": 1e-5, "schedule": "cosine", "warmup_epochs": 10},
        **{"betas": [0.5, 0.999], "eps": 1e-8, "weight_decay": 1e-3, "clip_norm": 2.0},
        **{"batch_size": 64, "num_epochs": 80, "seed": 1000, "checkpoint_every": 20},
    }
    settings = flat(train_transformer.Settings())
    assert {name: settings[name] for name in recipe} == recipe


def test_jomold_s_noise_ratios_are_found_with_the_released_limits():
    settings = flat(find_noise_ratios.Settings())
    limits = {"audio_limit": 0.6, "visual_limit": 1.8, "mean_batch_size": 128}
    assert {name: settings[name] for name in limits} == limits


def old_args(path: Path, **settings: object) -> Path:
    """An `args.yaml` as versions before these recipes wrote it: with the settings of all methods."""
    others = {"network": "han", "guided_labels": "none", "contrastive_weight": 0.0, "mutual_weight": 0.0}
    path.write_text(yaml.safe_dump({**others, "similarity_weight": 0.0, **settings}))
    return path


def test_settings_of_an_earlier_version_are_read_without_those_of_other_methods(tmp_path: Path):
    path = old_args(tmp_path / "args.yaml", method="uwav", lr=0.01)
    _, settings = parse_recipe(train_han.Settings, "", ["--config", str(path)], ())
    assert settings.recipe.lr == 0.01


@pytest.mark.parametrize("mixed", [{"contrastive_weight": 1.0}, {"guided_labels": "video"}])
def test_a_run_of_an_earlier_version_that_mixed_methods_is_not_continued(tmp_path: Path, mixed: dict[str, object]):
    old_args(tmp_path / "args.yaml", method="uwav", **mixed)
    with pytest.raises(InputError, match="of another method"):
        parse_recipe(train_han.Settings, "", ["--resume", str(tmp_path)], ())


@pytest.mark.parametrize("flag", [["--dataset", "AVE"], ["--method", "han"]])
def test_a_recipe_of_one_method_and_data_set_is_not_trained_for_another(flag: list[str]):
    with pytest.raises(InputError, match=rf"{flag[0]}: found {flag[1]}; .* as in .*uwav_llp.yaml"):
        parse_recipe(train_han.Settings, "", ["--config", str(CONFIGS / "uwav_llp.yaml"), *flag], ())


def test_a_method_without_a_room_or_recipe_is_refused():
    with pytest.raises(InputError, match="'nothing'; expected one of uwav, "):
        parse_recipe(train_han.Settings, "", ["--method", "nothing"], ())
    with pytest.raises(InputError, match="leap_ave"):
        parse_recipe(train_han.Settings, "", ["--method", "leap", "--dataset", "AVE"], ())
