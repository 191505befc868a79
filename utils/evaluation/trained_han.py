"""A trained network of stage 3 from its checkpoint, with what the shapes in it do not tell."""

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
    """What the shapes in a checkpoint do not tell of the network, and its run does."""

    num_heads: PositiveInt | None = None
    """attention heads (default: as the run says; needed for a checkpoint without a run)"""
    pre_norm: bool = False  # normalise before the sub-layers instead of after them
    encoder_order: Literal["sequential", "parallel"] = "sequential"
    """sequential: visual attends to the audio just updated (released); parallel: to the layer's input (paper)"""
    cross_attention: bool = True  # let each modality attend to the other (off in JoMoLD's estimator)

    def check(self, where: Path | None) -> None:
        """Raise InputError when nothing has told the number of heads."""
        if self.num_heads is None:
            found = "no number of attention heads, and no settings of a run that would tell"
            expected = "the number that it was trained with, which the weights do not tell"
            raise InputError(where, found, expected, "Give --num_heads; the released recipe has 16.")

    def load(
        self,
        checkpoint: Path,
        run_dir: Path | None,
        split: SplitBatches,
        network: type[nn.Module] = HAN,
        config: type = HANConfig,
    ) -> nn.Module:
        """Return the network with the checkpoint's weights, on the split's device.

        Args:
            run_dir: the run, by whose settings the network was built; None, or an earlier version's: as shapes and
                these settings tell.
            config: the network's settings; those of `TrainedHAN` that it does not have are passed over.

        Raises:
            InputError: when the checkpoint does not fit the network or the split.
        """
        self.check(checkpoint)
        expected = {
            "audio_dim": split.widths.audio,
            "visual_dim": split.widths.visual,
            "num_classes": len(split.annotations.classes),
        }
        known = {field.name for field in fields(config)}
        told = {name: value for name, value in asdict(self).items() if name in known}
        whole = run_dir and config_of_run(run_dir, config, **told)
        return load_network(network, checkpoint, expected, whole, **told).to(split.device)


def config_of_run(run_dir: Path, config: type[Config], **changes: object) -> Config | None:
    """Return the settings that a run's network was built with, but for some; None where it does not tell all."""
    path, names = run_dir / ARGS_FILE, [field.name for field in fields(config)]
    args = read_args(path) if path.is_file() else {}
    return config(**{name: args[name] for name in names} | changes) if set(names) <= args.keys() else None
