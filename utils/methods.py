"""The methods that train_han.py trains: each is a set of defaults of its flags. The flags' own defaults are UWAV's."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Method:
    """One method of the paper's Table 1, or one of its stages."""

    published_name: str  # what the paper's tables call it
    settings: Mapping[str, object] = field(default_factory=dict)
    teacher_prefix: str = "TemporalTransformer_"  # of the runs whose pseudo-labels it learns
    teacher_script: str = "pseudo_label_generation.py"  # which makes them


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
_MA_BASE = {**_HAN, "contrastive_weight": 1.0, "num_epochs": 12, "decoding": "modality"}
# Cheng et al., ECCV 2022. The estimator has no cross-attention; its labels are not cleaned.
_JOMOLD_BASE = {
    **_HAN,
    "visual_dropout": 0.5,
    "contrastive_loss": "log_of_sum",
    "contrastive_weight": 1.0,
    "decoding": "modality",
    "lr": 5e-4,
    "lr_decay": 0.25,
    "lr_decay_every": 6,
    "num_epochs": 25,
    "batch_size": 128,
    "seed": 6,
    "cross_attention": False,
    "select_on": "event_A",
}
_JOMOLD = {**_JOMOLD_BASE, "cross_attention": True, "guided_labels": "denoised", "audio_guided_weight": 2.0}
# Gao, Chen and Xu, CVPR 2023.
_CMPAE = {
    **_JOMOLD,
    "network": "cmpae",
    "visual_guided_weight": 0.6,
    "video_weight": 0.6,
    "mutual_weight": 1.0,
    "num_epochs": 20,
    "seed": 0,
    "select_on": "mean",
    "segment_threshold": 0.25,
    "gate_threshold": 0.45,
    "cross_share": 0.7,
    "class_gates": True,
    "gates_epoch": 8,
    "checkpoint_every": 4,
}
# Fan et al., NeurIPS 2023, on ResNet and VGGish.
_LSLD = {
    **_JOMOLD_BASE,
    "cross_attention": True,
    "num_layers": 6,
    "segment_labels": "refined",
    "guided_labels": "none",
    "contrastive_weight": 0.0,
    "audio_segment_weight": 3.0,
    "reweight": False,
    "mixup": False,
    "lr": 8e-5,
    "num_epochs": 20,
    "batch_size": 32,
}
# Zhou et al., ECCV 2024. Its video loss has no gradient; num_layers are those of a decoder.
_LEAP = {
    **_HAN,
    "network": "leap",
    "num_heads": 8,
    "num_layers": 2,
    "dropout": 0.2,
    "segment_labels": "hard",
    "reweight": False,
    "mixup": False,
    "guided_labels": "segments",
    "similarity_weight": 1.0,
    "video_weight": 0.0,
    "lr": 1e-4,
    "num_epochs": 30,
    "batch_size": 32,
    "seed": 1,
}
# Sardari et al., ECCV 2024, on CMPAE's network.
_COLEAF = {
    **_CMPAE,
    "network": "coleaf",
    "visual_guided_weight": 1.0,
    "video_weight": 2.0,
    "num_epochs": 10,
    "seed": 1,
    "select_on": "unimodal_mean",
    "gate_threshold": 0.52,
    "class_gates": False,
    "gates_epoch": 0,
    "checkpoint_every": 20,
}

METHODS: dict[str, Method] = {
    "uwav": Method("UWAV"),
    "han": Method("HAN", _HAN),
    # Hard pseudo-labels of `pseudo_label_generation.py --teacher framewise`, and UWAV's recipe.
    "valor": Method(
        "VALOR",
        {**_HAN_NETWORK, "segment_labels": "hard", "reweight": False, "mixup": False},
        teacher_prefix="Framewise_",
    ),
    "ma_base": Method("MA", _MA_BASE),
    "ma": Method("MA", {**_MA_BASE, "guided_labels": "cleaned"}),
    "jomold_base": Method("JoMoLD", _JOMOLD_BASE),
    "jomold": Method("JoMoLD", _JOMOLD),
    "cmpae": Method("CMPAE", _CMPAE),
    "lsld": Method("LSLD", _LSLD, teacher_prefix="Language_", teacher_script="baselines.lsld.refine_labels"),
    "leap": Method("LEAP", _LEAP, teacher_prefix="Framewise_"),
    "coleaf": Method("CoLeaf", _COLEAF),
}
