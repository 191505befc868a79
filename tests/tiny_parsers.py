"""Run folders of untrained networks that fit the small stand-ins for the feature networks."""

from pathlib import Path

import torch
import yaml
from torch import nn

from models import HAN, HANConfig, TemporalTransformer, TemporalTransformerConfig
from utils.settings import ARGS_FILE
from utils.training.loop import BEST_CHECKPOINT

SMALL_WIDTHS = {"vggish": 128, "res152": 256, "r2plus1d_18": 256, "clip": 256, "clap": 256}
TINY = {"dim": 16, "num_heads": 2, "ffn_dim": 24, "num_layers": 2}


def han_run(folder: Path, **settings: object) -> Path:
    """A run folder of an untrained HAN for LLP."""
    torch.manual_seed(0)
    visual_dims = [SMALL_WIDTHS["res152"], SMALL_WIDTHS["r2plus1d_18"]]
    network = HAN(25, SMALL_WIDTHS["vggish"], visual_dims, HANConfig(**TINY))
    of_run = {
        "dataset": "LLP",
        "audio_features": ["vggish"],
        "visual_features": ["res152", "r2plus1d_18"],
        "decoding": "video",
        "num_classes": None,
        "pre_norm": False,
        "encoder_order": "sequential",
    }
    return _write(folder, network, {**of_run, **settings})


def transformer_run(folder: Path) -> Path:
    """A run folder of an untrained temporal transformer."""
    torch.manual_seed(0)
    widths = [SMALL_WIDTHS[name] for name in ("clap", "clip", "clap", "clip")]
    network = TemporalTransformer(*widths, TemporalTransformerConfig(**TINY))
    return _write(folder, network, {"audio_features": ["clap"], "visual_features": ["clip"]})


def _write(folder: Path, network: nn.Module, settings: dict[str, object]) -> Path:
    (folder / BEST_CHECKPOINT).parent.mkdir(parents=True)
    torch.save(network.state_dict(), folder / BEST_CHECKPOINT)
    common = {"num_heads": 2, "data_dir": str(folder / "data")}
    (folder / ARGS_FILE).write_text(yaml.safe_dump({**common, **settings}))
    return folder
