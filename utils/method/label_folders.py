"""Folders of labels that another command has written, as settings of the losses that learn from them."""

from pathlib import Path
from typing import ClassVar

from utils.settings import settings_group


@settings_group
class LabelFolder:
    """A folder of labels, by default the newest one of its kind."""

    flag: ClassVar[str] = ""  # the field that names the folder; empty: video labels are all that is learned
    run_prefix: ClassVar[str] = ""  # begins the names of the runs that the labels lie in
    suffix: ClassVar[str] = ""  # ends the folder's name, after the data set's
    command: ClassVar[str] = ""  # writes the labels

    @property
    def wants_labels(self) -> bool:
        """Whether the labels are learned at all."""
        return bool(self.flag)


@settings_group
class PseudoLabels(LabelFolder):
    """Pseudo-labels of stage 2, or of another command that writes its files."""

    flag: ClassVar = "pseudo_label_dir"
    suffix: ClassVar = "Dataset"
    command: ClassVar = "pseudo_label_generation.py"
    pseudo_label_dir: Path | None = None
    """folder of pseudo-labels (default: the newest in output_dir)"""
