"""The defaults of each stage and of each method beside their papers and their authors' code.

A method's row says only where it differs from UWAV; a number that slips there is one that nobody gave.
"""

import pytest

import train_han
import train_transformer
from baselines.jomold import find_noise_ratios
from utils.command_settings import entries_of, parse_settings

UWAV = {
    **{"dim": 512, "num_heads": 16, "ffn_dim": 2048, "num_layers": 5, "dropout": 0.1, "num_proj_layers": 1},
    **{"num_mmil_layers": 1, "num_audio_proj_layers": 2, "visual_fusion": "concatenated", "pre_norm": False},
    **{"encoder_order": "sequential", "layer_init": "equal", "visual_dropout": 0.0, "cross_attention": True},
    **{"segment_labels": "soft", "temperature": 2.0, "reweight": True, "positive_weight": 0.5, "mixup": True},
    **{"weight_normalization": "sum", "mixup_alpha": 1.7, "mixup_labels": "soft", "guided_labels": "none"},
    **{"video_weight": 1.0, "segment_weight": 1.0, "mixup_weight": 1.0, "contrastive_weight": 0.0},
    **{"audio_segment_weight": 1.0, "mutual_weight": 0.0, "similarity_weight": 0.0},
    **{"optimizer": "adamw", "lr": 1e-4, "lr_min": 5e-6, "schedule": "cosine", "warmup_epochs": 10, "num_epochs": 80},
    **{"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-4, "clip_norm": 1.0, "batch_size": 64, "seed": 20000},
}
HAN = {
    **{"dim": 512, "num_heads": 1, "ffn_dim": 512, "num_layers": 1, "dropout": 0.1, "num_audio_proj_layers": 1},
    **{"visual_fusion": "projected", "encoder_order": "parallel", "cross_attention": True, "visual_dropout": 0.0},
    **{"segment_labels": "none", "guided_labels": "video", "audio_smoothing": 0.0, "visual_smoothing": 0.1},
    **{"optimizer": "adam", "lr": 3e-4, "schedule": "step", "lr_decay": 0.1, "lr_decay_every": 10},
    **{"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "clip_norm": float("inf")},
    **{"batch_size": 16, "num_epochs": 40},
}
MA_BASE = {**HAN, "contrastive_weight": 1.0, "contrastive_loss": "cross_entropy", "num_epochs": 12}
JOMOLD = {
    **{**HAN, "guided_labels": "denoised", "visual_dropout": 0.5, "audio_guided_weight": 2.0, "clean_from_epoch": 2},
    **{"contrastive_loss": "log_of_sum", "contrastive_weight": 1.0, "contrastive_temperature": 0.2},
    **{"contrastive_smoothing": 0.1, "visual_guided_weight": 1.0, "lr": 5e-4, "lr_decay": 0.25, "lr_decay_every": 6},
    **{"num_epochs": 25, "batch_size": 128, "seed": 6, "decoding": "modality", "select_on": "event_A"},
}
CMPAE = {
    **{**JOMOLD, "visual_guided_weight": 0.6, "video_weight": 0.6, "mutual_weight": 1.0, "num_epochs": 20, "seed": 0},
    **{"segment_threshold": 0.25, "gate_threshold": 0.45, "cross_share": 0.7, "class_gates": True, "gates_epoch": 8},
    "select_on": "mean",
}
RECIPES = {
    "uwav": UWAV,
    "han": HAN,
    "ma_base": MA_BASE,
    "ma": {**MA_BASE, "guided_labels": "cleaned"},
    "jomold_base": {**JOMOLD, "cross_attention": False, "guided_labels": "video", "audio_guided_weight": 1.0},
    "jomold": JOMOLD,
    "cmpae": CMPAE,
    "lsld": {
        **{**HAN, "visual_dropout": 0.5, "num_layers": 6, "segment_labels": "refined", "guided_labels": "none"},
        **{"audio_segment_weight": 3.0, "contrastive_weight": 0.0, "reweight": False, "mixup": False, "seed": 6},
        **{"lr": 8e-5, "lr_decay": 0.25, "lr_decay_every": 6, "num_epochs": 20, "batch_size": 32},
        **{"decoding": "modality", "select_on": "event_A"},
    },
    "leap": {
        **{**HAN, "num_heads": 8, "num_layers": 2, "dropout": 0.2, "segment_labels": "hard", "reweight": False},
        **{"mixup": False, "guided_labels": "segments", "similarity_weight": 1.0, "video_weight": 0.0, "lr": 1e-4},
        **{"num_epochs": 30, "batch_size": 32, "seed": 1},
    },
    "coleaf": {
        **{**CMPAE, "visual_guided_weight": 1.0, "video_weight": 2.0, "num_epochs": 10, "seed": 1},
        **{"gate_threshold": 0.52, "class_gates": False, "gates_epoch": 0, "select_on": "unimodal_mean"},
    },
}


def flat(settings: object) -> dict[str, object]:
    """All settings by the names of their flags."""
    entries = entries_of(type(settings))
    return {e.name: getattr(getattr(settings, e.group) if e.group else settings, e.name) for e in entries}


@pytest.mark.parametrize("method", RECIPES)
def test_a_method_s_defaults_are_those_of_its_authors(method: str):
    settings = flat(parse_settings(train_han.Settings, "", ["--method", method], train_han.settings_of_method))
    assert {name: settings[name] for name in RECIPES[method]} == RECIPES[method]


def test_stage_1_s_defaults_are_the_released_ones():
    recipe = {
        **{"dim": 1024, "num_heads": 16, "ffn_dim": 2048, "num_layers": 5, "dropout": 0.3, "layer_init": "equal"},
        **{"audio_logit_scale": 3.2912, "visual_logit_scale": 4.6052, "occurring_weight": 5.0},
        **{"optimizer": "adamw", "lr": 1e-4, "lr_min": 1e-5, "schedule": "cosine", "warmup_epochs": 10},
        **{"betas": (0.5, 0.999), "eps": 1e-8, "weight_decay": 1e-3, "clip_norm": 2.0},
        **{"batch_size": 64, "num_epochs": 80, "seed": 1000, "checkpoint_every": 20},
    }
    settings = flat(parse_settings(train_transformer.Settings, "", []))
    assert {name: settings[name] for name in recipe} == recipe


def test_jomold_s_noise_ratios_are_found_with_the_released_limits():
    settings = flat(parse_settings(find_noise_ratios.Settings, "", []))
    limits = {"audio_limit": 0.6, "visual_limit": 1.8, "mean_batch_size": 128}
    assert {name: settings[name] for name in limits} == limits
