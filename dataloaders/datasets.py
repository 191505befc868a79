"""The data sets: one row each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dataloaders import ave, llp, unav
from dataloaders.annotations import SplitAnnotations
from utils.audio_visual import AudioVisual
from utils.errors import InputError

SPLITS = ("train", "val", "test")
# VALOR's, of each class in order, on logits 26.87 · cosine (CLAP) and 100 · cosine (CLIP) of the real encoders.
LLP_FIXED_THRESHOLDS = AudioVisual(
    audio=(0, 0, 1, 4, 6, -2, 4, 4, 2, 2, 2, 1, 2, 3, 0, 2, 2, 2, 0, 2, -1, 2, 3, 3, 0),
    visual=(20, 15, 18, 14, 15, 18, 18, 15, 15, 15, 15, 18, 15, 15, 15, 15, 15, 15, 15, 16, 14, 15, 15, 15, 18),
)


@dataclass(frozen=True)
class PublishedTable:
    """A table of the paper with scores on a data set."""

    number: str  # "Table 1"
    key: str  # in data/paper_results.yaml


@dataclass(frozen=True)
class Dataset:
    """What the repository has to know of a data set, besides its annotations."""

    name: str
    load_split: Callable[[Path, str], SplitAnnotations]
    classes: tuple[str, ...]  # (C,)
    task: str | None  # of stages 3 and 4, a name in `utils.evaluation.tasks`; None: stage 1 is pre-trained on it
    features: tuple[str, ...]  # those that the stages read by default, and that are simulated
    splits: tuple[str, ...] = SPLITS  # those that the stages read
    pooled: bool = False  # whether feature files may have any number of rows and are pooled to one a segment
    han_settings: Mapping[str, object] = field(default_factory=dict)  # of stages 3 and 4, where they are not LLP's
    published_scores: PublishedTable | None = None  # of methods
    published_quality: PublishedTable | None = None  # of pseudo-labels
    fixed_thresholds: AudioVisual[tuple[float, ...]] | None = None  # of the framewise teacher, (C,) of each modality
    label_texts: bool = False  # whether LSLD's texts and LEAP's word vectors of the classes are simulated

    @property
    def folder(self) -> Path:
        """Return where its files lie unless a flag says otherwise."""
        return Path("data") / self.name


DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="LLP",
            load_split=llp.load_split,
            classes=llp.LLP_CLASSES,
            task="parsing",
            features=("vggish", "res152", "r2plus1d_18", "clip", "clap"),
            published_scores=PublishedTable("Table 1", "table1_llp"),
            published_quality=PublishedTable("Table 3", "table3_pseudo_label_quality_segment"),
            fixed_thresholds=LLP_FIXED_THRESHOLDS,
            label_texts=True,
        ),
        Dataset(
            name="UnAV",
            load_split=unav.load_split,
            classes=unav.UNAV_CLASSES,
            task=None,
            features=("clip", "clap"),
            splits=("train", "val"),
            pooled=True,
        ),
        Dataset(
            name="AVE",
            load_split=ave.load_split,
            classes=ave.AVE_CLASSES,
            task="localisation",
            features=("clip", "clap", "r2plus1d_18"),
            han_settings={
                "audio_features": ("clap",),
                "visual_features": ("clip", "r2plus1d_18"),
                "batch_size": 16,
                "mixup_labels": "ceiling",
            },
            published_scores=PublishedTable("Table 2", "table2_ave_accuracy"),
        ),
    )
}
PARSED_DATASETS = tuple(name for name, dataset in DATASETS.items() if dataset.task)  # of stages 2 to 4


def load_annotations(dataset: str, annotations_dir: Path, split: str) -> SplitAnnotations:
    """Read one split of a data set. Raises InputError for unusable files and unknown names."""
    for what, name, known in (("data set", dataset, tuple(DATASETS)), ("split", split, SPLITS)):
        if name not in known:
            expected = f"one of {', '.join(known)}"
            raise InputError(annotations_dir, f"no {what} {name!r}", expected, "Choose one of these.")
    return DATASETS[dataset].load_split(Path(annotations_dir), split)
