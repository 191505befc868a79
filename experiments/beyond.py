"""Tables beyond the paper: later methods and settings, the gain from selecting the epoch on test, and the effect of
each component of UWAV."""

from itertools import combinations, product
from pathlib import Path

import numpy as np

from dataloaders.features import text_features_path
from experiments.jobs import Job, Runner, Study
from experiments.paper_tables import ABLATION, Experiment, ParsingExperiment
from utils.evaluation.compare import score_videos
from utils.evaluation.predictions import aligned, load_predictions
from utils.evaluation.tasks import Parsing
from utils.recipes import CONFIGS, find_method, method_names
from utils.reporting.figures import intervals_figure
from utils.reporting.tables import Cell, Column, Row, Table
from utils.training.checkpoints import load_checkpoint
from utils.training.loop import LAST_STATE

SELECTION = {"LLP": "segment_Type", "AVE": "accuracy"}  # score by which epochs are selected, by data set
FACTORS = {  # components of Table 4, and CMRC, with their settings when off and on
    "soft labels": ({"segment_labels": "hard", "mixup_labels": "hard"}, {}),
    "re-weighting": ({"reweight": False}, {}),
    "mixup": ({"mixup": False}, {}),
    "CMRC": ({}, {"cmrc": 1.0}),
}
TYPE = Parsing.score_names.index(("Segment-level", "Type"))
RESAMPLES, CHUNK = 10_000, 500


def additions(study: Study) -> Experiment:
    """Compare UWAV and VALOR with and without CMRC, UWAV on PE-A-Frame's labels, and three recipes of MM-CSE."""
    sizes = {"num_epochs": 60, "lr": 1e-4} | study.preset["mmcse"]
    warmup, cosine = sizes["num_epochs"] // 6, {"schedule": "cosine"}
    ours = {
        "VALOR": study.over_seeds("valor"),
        "VALOR with CMRC": study.over_seeds("valor", cmrc=1.0),
        "UWAV": study.over_seeds("uwav"),
        "UWAV with CMRC": study.over_seeds("uwav", cmrc=1.0),
        "MM-CSE, steps": study.over_seeds("mmcse"),
        "MM-CSE, cosine": study.over_seeds("mmcse", **cosine, warmup_epochs=warmup // 2),
        "MM-CSE, VALOR++'s cosine": study.over_seeds(
            "mmcse", **cosine, warmup_epochs=warmup, lr=3 * sizes["lr"], lr_min=3e-6
        ),
    }
    if text_features_path(study.data_root / "LLP", "pe_audio").is_file():
        ours["UWAV, labels of PE-A-Frame and CLIP"] = study.over_seeds("uwav", teacher="pe_frame")
        hard = study.over_seeds("uwav", teacher="pe_frame", **ABLATION["hard"])  # as VALOR's labels in Table 1
        ours["PE-A-Frame's and CLIP's labels, UWAV's network"] = hard
    return ParsingExperiment(study, "additions", "Beyond the paper, on LLP", ours)


class Selection(Experiment):
    """Test scores of the epoch selected on val and of the epoch selected on test itself."""

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Return the jobs of all rows; LAVISH is trained once for each of the two splits."""
        every = (job for jobs in self.ours.values() for job in jobs)
        return tuple(one for job in every for one in ((lavish_on_val(job), job) if is_lavish(job) else (job,)))

    def scores(self, runner: Runner, job: Job) -> tuple[float, float]:
        """Return the test scores of the epoch selected on val and of the epoch selected on test."""
        metric = SELECTION[dataset_of(job)]
        if is_lavish(job):
            val, test = (history_of(runner, one, metric) for one in (lavish_on_val(job), job))
        else:
            val = history_of(runner, job.inputs["checkpoint_dir"], metric)
            test = [*runner.test_scores(job).values()]
        return test[int(np.argmax(val))], max(test)

    def tables(self, runner: Runner) -> dict[str, Table]:
        rows = []
        for name, jobs in self.ours.items():
            on_val, on_test = np.array([self.scores(runner, job) for job in jobs]).T
            cells = tuple(Cell.over_runs(list(values)) for values in (on_val, on_test, on_test - on_val))
            rows.append(Row((name, dataset_of(jobs[0])), cells, self.mark))
        columns = tuple(Column(name, "Test score of the epoch selected on") for name in ("val", "test"))
        columns += (Column("difference"),)
        return {self.name: Table(self.title, ("Method", "Data"), columns, tuple(rows), (self.remark, *self.footnotes))}


def dataset_of(job: Job) -> str:
    """Return the data set on which a row's network was trained."""
    return job.settings["dataset"] if is_lavish(job) else job.inputs["checkpoint_dir"].settings["dataset"]


def is_lavish(job: Job) -> bool:
    """Return whether a job trains a clip classifier."""
    return job.entry_point == "train_classifier"


def lavish_on_val(job: Job) -> Job:
    """Return the same training run of LAVISH with validation on val."""
    return Job(job.entry_point, job.name + "_val", {**job.settings, "select_on": "val"}, data=job.data)


def history_of(runner: Runner, job: Job, metric: str) -> list[float]:
    """Return the validation scores of all epochs of a training run."""
    state = load_checkpoint(runner.finished_output(job) / LAST_STATE)
    return [scores[metric] for scores in state["progress"]["history"]]


def selection(study: Study) -> Experiment:
    """Compare epochs selected on val and on test, for every method with a recipe and for LAVISH on AVE."""
    ours: dict[str, tuple[Job, ...]] = {}
    for dataset, method in product(SELECTION, method_names()):
        if method.endswith("_base") or not (CONFIGS / f"{method}_{dataset.lower()}.yaml").is_file():
            continue
        name = find_method(method).published_name + ("" if dataset == "LLP" else f" on {dataset}")
        ours[name] = tuple(study.epochs(method, seed, dataset) for seed in study.seeds)
    if (study.data_root / "AVE" / "videos").is_dir():
        ours["LAVISH on AVE"] = tuple(study.lavish(seed) for seed in study.seeds)
    title = "Epochs selected on val and on test"
    remark = "Percent; LLP: segment-level Type@AV, AVE: accuracy. LAVISH, DG-SCT and AVMoE publish the second column."
    return Selection(study, "selection", title, ours, remark=remark, datasets=("UnAV", "LLP", "AVE"))


class Factorial(Experiment):
    """Main effects and pairwise interactions of UWAV's components, with bootstrap intervals over videos and seeds."""

    def effects(self, runner: Runner) -> dict[tuple[str, ...], np.ndarray]:
        """Return each effect on segment-level Type@AV: its estimate and its R resamples, (1 + R,) in percent.

        A main effect is the mean difference due to a factor over all settings of the others; an interaction is the
        change of one factor's effect due to the other. Videos and seeds are resampled with replacement.
        """
        first, scores = None, []
        for jobs in self.ours.values():
            of_seeds = []
            for job in jobs:
                run = load_predictions(runner.finished_output(job), "test")
                first = first or run
                of_seeds.append(score_videos(aligned(first, run))[:, TYPE])
            scores.append(of_seeds)
        scores = np.array(scores)  # (settings, seeds, videos)
        signs = np.array([*product((-1, 1), repeat=len(FACTORS))])  # (settings, factors)
        names = [(name,) for name in FACTORS] + [*combinations(FACTORS, 2)]
        places = [[[*FACTORS].index(name) for name in of_effect] for of_effect in names]
        contrasts = np.stack([signs[:, place].prod(axis=1) for place in places]) * 2 / len(signs)  # (effects, settings)
        by_seed = np.einsum("es,skn->ekn", contrasts, scores)
        num_seeds, num_videos = by_seed.shape[1:]
        rng, resamples = np.random.default_rng(0), []
        for _ in range(RESAMPLES // CHUNK):
            videos = rng.multinomial(num_videos, np.full(num_videos, 1 / num_videos), CHUNK) / num_videos
            seeds = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), CHUNK) / num_seeds
            resamples.append(np.einsum("ekr,rk->er", by_seed @ videos.T, seeds))
        estimates = by_seed.mean(axis=(1, 2))[:, None]
        return dict(zip(names, np.concatenate([estimates, *resamples], axis=1), strict=True))

    def intervals(self, runner: Runner) -> dict[str, tuple[float, float, float]]:
        """Return each effect with the bounds of its 95 % percentile interval."""
        effects = {" × ".join(names): values for names, values in self.effects(runner).items()}
        return {name: (x[0], *np.percentile(x[1:], (2.5, 97.5)).tolist()) for name, x in effects.items()}

    def tables(self, runner: Runner) -> dict[str, Table]:
        columns = tuple(Column(name, "Effect on Type@AV", 2) for name in ("estimate", "2.5 %", "97.5 %"))
        found = self.intervals(runner).items()
        rows = tuple(Row((name,), tuple(map(Cell, values)), self.mark) for name, values in found)
        notes = (self.remark, *self.footnotes)
        return {self.name: Table(self.title, ("Component",), columns, rows, notes)}

    def draw(self, runner: Runner, folder: Path) -> list[Path]:
        path, title = folder / f"{self.name}.png", f"{self.title} ({self.mark})"
        intervals_figure(path, self.intervals(runner), "Effect on segment-level Type@AV (points)", title)
        return [path]


def factorial(study: Study) -> Experiment:
    """Compare UWAV with every combination of its components and CMRC."""
    ours = {}
    for on in product((False, True), repeat=len(FACTORS)):
        settings = {}
        for (off, with_it), is_on in zip(FACTORS.values(), on, strict=True):
            settings |= with_it if is_on else off
        name = " + ".join(name for name, is_on in zip(FACTORS, on, strict=True) if is_on) or "none of them"
        ours[name] = study.over_seeds("uwav", **settings)
    remark = "Differences in percentage points; 95 % percentile intervals from 10,000 resamples of videos and seeds."
    title = "Components of UWAV in all combinations"
    return Factorial(study, "factorial", title, ours, remark=remark)
