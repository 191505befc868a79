"""The data sets, one row each."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dataloaders import activitynet, ave, llp, unav
from dataloaders.annotations import SplitAnnotations
from utils.errors import InputError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Dataset:
    """Properties of a data set besides its annotations."""

    name: str
    load_split: Callable[[Path, str], SplitAnnotations]
    classes: tuple[str, ...]  # (C,)
    task: str | None  # of stages 2 to 4, as in `utils.evaluation.tasks`; None: only for pre-training in stage 1
    features: tuple[str, ...]  # read by the stages by default, and simulated
    splits: tuple[str, ...] = SPLITS  # read by the stages
    pooled: bool = False  # whether feature files may have any number of rows, which are pooled to one per segment
    published_scores: str | None = None  # table of methods in data/paper_results.yaml
    published_quality: str | None = None  # table of pseudo-labels there
    segments_per_second: int = 1
    is_own: bool = False  # described by a file in configs/datasets/

    @property
    def folder(self) -> Path:
        """Return the default folder of the data set."""
        return Path("data") / self.name


LLP = Dataset(
    name="LLP",
    load_split=llp.load_split,
    classes=llp.LLP_CLASSES,
    task="parsing",
    features=("vggish", "res152", "r2plus1d_18", "clip", "clap"),
    published_scores="table1_llp",
    published_quality="table3_pseudo_label_quality_segment",
)
UNAV = Dataset("UnAV", unav.load_split, unav.UNAV_CLASSES, None, ("clip", "clap"), ("train", "val"), pooled=True)
AVE = Dataset(
    name="AVE",
    load_split=ave.load_split,
    classes=ave.AVE_CLASSES,
    task="localisation",
    features=("clip", "clap", "r2plus1d_18"),
    published_scores="table2_ave_accuracy",
)
OWN_DATASETS = Path(__file__).resolve().parents[1] / "configs" / "datasets"


def own_dataset(path: Path) -> Dataset:
    """Return the data set that a file describes; for a malformed file, one that raises the error when it is loaded."""
    name = path.stem
    try:
        of_file = activitynet.read_own_dataset(path)
    except InputError as error:
        malformed = error

        def refuse(folder: Path, split: str) -> SplitAnnotations:
            raise malformed

        return Dataset(name, refuse, (), "parsing", (), is_own=True)

    def load(folder: Path, split: str) -> SplitAnnotations:
        rate = of_file.segments_per_second
        return activitynet.load_split(folder / of_file.annotations, name, of_file.classes, rate, split)

    features, classes = tuple(of_file.features), tuple(of_file.classes)
    more = {"segments_per_second": of_file.segments_per_second, "is_own": True}
    return Dataset(name, load, classes, "parsing", features, **more)


OWN = [own_dataset(path) for path in sorted(OWN_DATASETS.glob("*.yaml"))]
DATASETS = {dataset.name: dataset for dataset in (LLP, UNAV, AVE, *OWN)}
PARSED_DATASETS = tuple(name for name, dataset in DATASETS.items() if dataset.task)  # of stages 2 to 4


def load_annotations(dataset: str, annotations_dir: Path, split: str) -> SplitAnnotations:
    """Read a split of a data set. Raises InputError for unusable files and an unknown split."""
    if split not in SPLITS:
        raise InputError(annotations_dir, f"no split {split!r}", f"one of {', '.join(SPLITS)}", "Choose one of these.")
    return DATASETS[dataset].load_split(Path(annotations_dir), split)
