"""VALOR (Lai, Chen and Wang, NeurIPS 2023): HAN on hard labels that CLIP and CLAP predict for single segments.

Stage 2 with `--teacher framewise` writes the labels; the training step is UWAV's with hard labels.
"""

from typing import ClassVar

from utils.method.uwav_objective import UWAVLosses
from utils.recipes import Method
from utils.settings import settings_group


@settings_group
class VALORLosses(UWAVLosses):
    """Settings of UWAV's losses on VALOR's labels."""

    command: ClassVar = "pseudo_label_generation.py --teacher framewise"
    base_command: ClassVar = ""  # VALOR's teacher is not trained
    run_prefix: ClassVar = "Framewise_"


METHODS = {
    "valor": Method("VALOR", losses=VALORLosses),
    "valor_plus": Method("VALOR+", losses=VALORLosses),  # deeper and narrower
    "valor_plus_plus": Method("VALOR++", losses=VALORLosses),  # on CLIP's and CLAP's features
}
