"""Loading of trained networks of stage 3, with the settings that the shapes of weights do not determine."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import PositiveInt
from torch import nn

from dataloaders.batches import SplitBatches
from models import HAN, HANConfig
from utils.errors import InputError
from utils.settings import ARGS_FILE, read_args, settings_group
from utils.training.checkpoints import load_network

Config = TypeVar("Config")


@settings_group
class TrainedHAN:
    """Settings of a network that the shapes in its checkpoint do not determine (default: those of the run)."""

    num_heads: PositiveInt | None = None
    """attention heads, needed for a checkpoint without a run; None: those of the run"""
    pre_norm: bool = False  # normalise before the sub-layers instead of after them
    encoder_order: Literal["sequential", "parallel"] = "sequential"
    """sequential: visual attends to the updated audio (released code); parallel: to the layer's audio input (paper)"""
    cross_attention: bool = True  # let each modality attend to the other (off in JoMoLD's estimator)

    def check(self, where: Path | None) -> None:
        """Raise InputError if the number of heads is unknown."""
        if self.num_heads is None:
            found = "no number of attention heads, and no run settings that name it"
            expected = "the number used in training, which the weights do not determine"
            raise InputError(where, found, expected, "Pass --num_heads; the released recipe has 16.")

    def load(
        self,
        checkpoint: Path,
        run_dir: Path | None,  # whose settings determine the sizes; None or incomplete: the shapes of the weights do
        split: SplitBatches,
        network: type[nn.Module] = HAN,
        config: type = HANConfig,  # settings of `TrainedHAN` that it lacks are ignored
    ) -> nn.Module:
        """Return the checkpoint's network on the split's device. Raises InputError if it does not fit the split."""
        self.check(checkpoint)
        expected = {f"{modality}_dim": width for modality, width in split.widths._asdict().items()}
        expected["num_classes"] = len(split.annotations.classes)
        known = {field.name for field in fields(config)}
        given = {name: value for name, value in asdict(self).items() if name in known}
        whole = run_dir and config_of_run(run_dir, config, **given)
        return load_network(network, checkpoint, expected, whole, **given).to(split.device)


def config_of_run(run_dir: Path, config: type[Config], **changes: object) -> Config | None:
    """Return the settings of a run's network with some changed, or None if the run does not record all of them."""
    path, names = run_dir / ARGS_FILE, [field.name for field in fields(config)]
    args = read_args(path) if path.is_file() else {}
    return config(**{name: args[name] for name in names} | changes) if set(names) <= args.keys() else None
