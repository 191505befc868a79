"""Folders of labels that another command has written, as settings of the losses that use them."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from utils.provenance import LABELS, Provenance, hash_of_labels, read_provenance
from utils.settings import settings_group


@settings_group
class LabelFolder:
    """A folder of labels, by default the newest one of its kind."""

    flag: ClassVar[str] = ""  # the field that names the folder; empty: only video labels are used
    run_prefix: ClassVar[str] = ""  # first part of the names of runs that contain such a folder
    suffix: ClassVar[str] = ""  # last part of the folder's name, after the data set's
    command: ClassVar[str] = ""  # writes the labels
    base_command: ClassVar[str] = ""  # trains the network that `command` uses, if any

    @property
    def folder(self) -> Path | None:
        """Return the folder of the labels, or None if none are used."""
        return getattr(self, self.flag) if self.flag and self.wants_labels else None

    def add_to(self, record: Provenance) -> Provenance:
        """Add the labels and their marks to a run's record. Raises InputError for other labels or another data set."""
        if self.folder is None:
            return record
        of_labels = read_provenance(self.folder)
        way_out = f"Pass a folder written by {self.command} with --{self.flag}."
        of_labels.check(self.folder, way_out, kind=LABELS.format(self.command), dataset=record.dataset)
        sources = {**record.sources, "labels": hash_of_labels(self.folder)}
        return replace(record, sources=sources).inherit(of_labels, "labels")

    @property
    def wants_labels(self) -> bool:
        """Return whether the losses use the labels."""
        return bool(self.flag)


@settings_group
class PseudoLabels(LabelFolder):
    """Settings of pseudo-labels from stage 2, or from another command that writes the same files."""

    flag: ClassVar = "pseudo_label_dir"
    suffix: ClassVar = "Dataset"
    command: ClassVar = "pseudo_label_generation.py"
    pseudo_label_dir: Path | None = None  # folder of pseudo-labels; None: the newest in output_dir
