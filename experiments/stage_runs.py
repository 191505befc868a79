"""The jobs that the tables are made of: the four stages with the sizes of a preset, on given data folders."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import yaml

from dataloaders.provenance import MARKERS, feature_note
from experiments.jobs import Job
from utils.errors import InputError

PRESETS_DIR = Path(__file__).resolve().parent / "presets"
PRESETS = ("paper", "small", "tiny")
SECTIONS = ("transformer", "uwav", "valor", "han", "ma", "jomold", "cmpae", "lsld", "leap", "coleaf")


def load_preset(name: str) -> dict[str, dict]:
    """Return the settings of each section: a name in `PRESETS`, or the path of a YAML file.

    Raises:
        InputError: when there is no such file, or its sections are others.
    """
    path = PRESETS_DIR / f"{name}.yaml" if name in PRESETS else Path(name)
    preset = None
    with suppress(OSError, ValueError, yaml.YAMLError):
        preset = yaml.safe_load(path.read_text())
    if not isinstance(preset, dict) or preset.keys() != set(SECTIONS):
        expected = f"{', '.join(PRESETS)}, or a YAML file with the sections {', '.join(SECTIONS)}"
        raise InputError(path, "no file with these sections", expected, "See experiments/presets/small.yaml.")
    return {section: settings or {} for section, settings in preset.items()}


@dataclass(frozen=True)
class Study:
    """Makes the jobs of all experiments of one call. Equal calls make equal jobs."""

    preset_name: str
    data_root: Path  # holds LLP/, UnAV/ and AVE/
    annotations_root: Path  # holds the annotation files in folders of the same names
    seeds: tuple[int, ...]
    precision: str = "float32"

    @cached_property
    def preset(self) -> dict[str, dict]:
        return load_preset(self.preset_name)

    def note(self, *datasets: str) -> str:
        """Return what every table has to say of the data sets' features; nothing of real ones."""
        notes = [feature_note(self.data_root / dataset) for dataset in datasets]
        return ", ".join(dict.fromkeys(filter(None, notes)))

    def over_seeds(self, training: Callable[..., Job], *arguments: object, **settings: object) -> tuple[Job, ...]:
        """Return evaluations of a training, one a seed; `training` takes the seed first."""
        return tuple(self.evaluation(training(seed, *arguments, **settings)) for seed in self.seeds)

    def pretraining(self) -> Job:
        """Stage 1, which all share."""
        return self._job("train_transformer", "transformer", "UnAV", self.preset["transformer"])

    def pseudo_labels(self, dataset: str, teacher: str = "transformer") -> Job:
        """Stage 2 with UWAV's "transformer" or VALOR's "framewise" comparison."""
        settings, inputs = {"dataset": dataset}, {}
        if teacher == "transformer":
            inputs["transformer_dir"], name = self.pretraining(), f"labels_{dataset}"
        else:
            settings["teacher"], name = teacher, f"labels_{teacher}_{dataset}"
            if self.note(dataset):  # the fixed thresholds, the default on LLP, are those of its real features
                settings["thresholds"] = "search"
        return self._job("pseudo_label_generation", name, dataset, settings, inputs)

    def uwav(self, seed: int, dataset: str = "LLP", **settings: object) -> Job:
        """Stage 3, with settings that differ from UWAV's."""
        return self._han("uwav", dataset, seed, {"pseudo_label_dir": self.pseudo_labels(dataset)}, **settings)

    def valor(self, seed: int, dataset: str = "LLP", **settings: object) -> Job:
        """HAN on VALOR's labels."""
        labels = self.pseudo_labels(dataset, "framewise")
        return self._han("valor", dataset, seed, {"pseudo_label_dir": labels}, **settings)

    def valor_with_uwav_network(self, seed: int) -> Job:
        """UWAV's network and recipe on VALOR's labels: only the labels differ from the "hard" row of Table 4."""
        inputs = {"pseudo_label_dir": self.pseudo_labels("LLP", "framewise")}
        return self._han("uwav", "LLP", seed, inputs, segment_labels="hard", reweight=False, mixup=False)

    def video_labels_only(self, seed: int, dataset: str = "LLP") -> Job:
        """UWAV's network and recipe without pseudo-labels."""
        return self._han("uwav", dataset, seed, segment_labels="none")

    def han(self, seed: int, dataset: str = "LLP") -> Job:
        """HAN with guided losses (ECCV 2020)."""
        return self._han("han", dataset, seed)

    def ma(self, seed: int) -> Job:
        """MA's three stages: a base model, cleaned labels by exchange, retraining."""
        settings, inputs = {"dataset": "LLP", "seed": seed}, {"checkpoint_dir": self._han("ma_base", "LLP", seed)}
        exchange = self._job("find_exchange", f"exchange_LLP_seed{seed}", "LLP", settings, inputs)
        return self._han("ma", "LLP", seed, {"cleaned_label_dir": exchange})

    def denoised(self, seed: int, method: str, **settings: object) -> Job:
        """JoMoLD, or CMPAE and CoLeaF, which clean labels by the noise ratios of JoMoLD's estimator."""
        inputs = {"checkpoint_dir": self._han("jomold_base", "LLP", seed)}
        noise = self._job("find_noise_ratios", f"noise_LLP_seed{seed}", "LLP", {"dataset": "LLP"}, inputs)
        return self._han(method, "LLP", seed, {"noise_ratio_dir": noise}, **settings)

    def lsld(self, seed: int) -> Job:
        """HAN on segment labels from texts."""
        labels = self._job("refine_labels", "labels_language_LLP", "LLP", {})
        return self._han("lsld", "LLP", seed, {"pseudo_label_dir": labels})

    def leap(self, seed: int) -> Job:
        """LEAP on VALOR's labels."""
        return self._han("leap", "LLP", seed, {"pseudo_label_dir": self.pseudo_labels("LLP", "framewise")})

    def evaluation(self, training: Job, **settings: object) -> Job:
        """Stage 4 of a stage-3 job."""
        settings = {"num_figures": 0, "precision": self.precision, **settings}
        return Job("test_han", f"test_{training.name}", settings, {"checkpoint_dir": training}, training.data)

    def _han(
        self, method: str, dataset: str, seed: int, inputs: Mapping[str, Job] | None = None, **changes: object
    ) -> Job:
        sizes = self.preset[method.removesuffix("_base")]
        settings = {"dataset": dataset, "method": method, "seed": seed, **sizes, **changes}
        changed = ""
        for name, value in changes.items():
            changed += f"_{name}=" + ("+".join(value) if isinstance(value, tuple) else str(value))
        return self._job("train_han", f"{method}_{dataset}{changed}_seed{seed}", dataset, settings, inputs)

    def _job(
        self,
        entry_point: str,
        name: str,
        dataset: str,
        settings: Mapping[str, object],
        inputs: Mapping[str, Job] | None = None,
    ) -> Job:
        data_dir, annotations_dir = self.data_root / dataset, self.annotations_root / dataset
        where = {"data_dir": data_dir, "annotations_dir": annotations_dir, "precision": self.precision}
        markers = b"".join((data_dir / name).read_bytes() for name in MARKERS if (data_dir / name).exists())
        data = sha256(markers).hexdigest() if markers else ""
        return Job(entry_point, name, where | settings, inputs or {}, data)
