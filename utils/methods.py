"""The methods that train_han.py trains, as defaults of its flags. The flags' own defaults are UWAV's."""

# Tian et al., ECCV 2020: the network, and how it is trained on video labels.
_HAN_NETWORK = {
    "dim": 512,
    "num_heads": 1,
    "ffn_dim": 512,
    "num_layers": 1,
    "num_audio_proj_layers": 1,
    "visual_fusion": "projected",
    "encoder_order": "parallel",
}
_HAN = {
    **_HAN_NETWORK,
    "segment_labels": "none",
    "guided_labels": "video",
    "visual_smoothing": 0.1,
    "decoding": "modality",
    "optimizer": "adam",
    "lr": 3e-4,
    "schedule": "step",
    "lr_decay": 0.1,
    "lr_decay_every": 10,
    "weight_decay": 0.0,
    "clip_norm": float("inf"),
    "batch_size": 16,
    "num_epochs": 40,
}
# Wu and Yang, CVPR 2021.
_MA_BASE = {**_HAN, "contrastive_weight": 1.0, "num_epochs": 12}

METHOD_DEFAULTS: dict[str, dict[str, object]] = {
    "uwav": {},
    "han": _HAN,
    # Hard pseudo-labels of `pseudo_label_generation.py --teacher framewise`, and UWAV's recipe.
    "valor": {**_HAN_NETWORK, "segment_labels": "hard", "reweight": False, "mixup": False},
    "ma_base": _MA_BASE,
    "ma": {**_MA_BASE, "guided_labels": "cleaned"},
}

# What the paper's tables call them.
PUBLISHED_NAMES = {"uwav": "UWAV", "han": "HAN", "valor": "VALOR", "ma_base": "MA", "ma": "MA"}
