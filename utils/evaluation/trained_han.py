"""A trained network of stage 3 from its checkpoint, with what the shapes in it do not tell."""

from dataclasses import asdict, dataclass
from pathlib import Path

from dataloaders.batches import SplitBatches
from models import HANConfig, ParsingNetwork
from utils.errors import InputError
from utils.settings import same_setting
from utils.training.checkpoints import load_network


@dataclass(frozen=True)
class TrainedHAN:
    """What the shapes in a checkpoint do not tell of the network, and its run does."""

    num_heads: int | None = same_setting(
        HANConfig,
        "num_heads",
        default=None,
        meaning="attention heads (default: as the run says; needed for a checkpoint without a run)",
    )
    pre_norm: bool = same_setting(HANConfig, "pre_norm")
    encoder_order: str = same_setting(HANConfig, "encoder_order")
    cross_attention: bool = same_setting(HANConfig, "cross_attention")

    def check(self, where: Path | None) -> None:
        """Raises InputError when nothing has told the number of heads."""
        if self.num_heads is None:
            found = "no number of attention heads, and no settings of a run that would tell"
            expected = "the number that it was trained with, which the weights do not tell"
            raise InputError(where, found, expected, "Give --num_heads; the released recipe has 16.")

    def load(self, network: type[ParsingNetwork], checkpoint: Path, split: SplitBatches) -> ParsingNetwork:
        """The network with the checkpoint's weights, on the split's device. Raises InputError when it does not fit."""
        self.check(checkpoint)
        expected = {
            "audio_dim": split.widths.audio,
            "visual_dim": split.widths.visual,
            "num_classes": len(split.annotations.classes),
        }
        return load_network(network, checkpoint, expected, **asdict(self)).to(split.device)
