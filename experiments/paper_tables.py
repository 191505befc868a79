"""The paper's tables: which methods and settings each compares."""

import statistics
from dataclasses import dataclass

import train_han
from experiments.collecting import (
    AVEExperiment,
    Experiment,
    ParsingExperiment,
    ScoreExperiment,
    SignificanceExperiment,
)
from experiments.jobs import Job, Runner
from experiments.stage_runs import Study
from utils.reporting.published import published_methods, published_row, published_segment_row, published_value
from utils.reporting.tables import Cell, Column, Row, Table
from utils.settings import flat
from utils.training.checkpoints import load_checkpoint
from utils.training.loop import LAST_STATE

# The rows of Table 4/A8, as stage-3 settings. The last is UWAV.
ABLATION: dict[str, dict[str, object]] = {
    "hard": {"segment_labels": "hard", "reweight": False, "mixup": False},
    "soft": {"reweight": False, "mixup": False},
    "soft+reweight": {"mixup": False},
    "soft+mixup": {"reweight": False},
    "soft+reweight+mixup": {},
}
# The published numbers are VALOR's with CLAP for VGGish and CLIP for ResNet-152; R(2+1)D stays.
CLIP_AND_CLAP = {"audio_features": ("clap",), "visual_features": ("clip", "r2plus1d_18")}
TRAINING_SHARES = (100, 80, 60)  # percent
NUM_CLASSES = (25, 20, 15)


def without_defaults(**settings: object) -> dict[str, object]:
    """Return the stage-3 settings that differ from the paper's, so that tables share the runs at the paper's values."""
    defaults = flat(train_han.Settings())
    return {name: value for name, value in settings.items() if value != defaults[name]}


def table1(study: Study) -> Experiment:
    """Methods on LLP."""
    title = "Audio-visual video parsing on LLP (paper Table 1)"
    published = {name: published_row("table1_llp", name) for name in published_methods("table1_llp")}
    return ParsingExperiment(study, "table1", title, _methods_on_llp(study), published)


def significance(study: Study) -> Experiment:
    """Each of our rows of Table 1 against UWAV."""
    return SignificanceExperiment(study, "significance", "Methods against UWAV on LLP", _methods_on_llp(study), "UWAV")


def _methods_on_llp(study: Study) -> dict[str, tuple[Job, ...]]:
    """Our rows of Table 1."""
    return {
        "HAN": study.over_seeds(study.han),
        "MA": study.over_seeds(study.ma),
        "JoMoLD": study.over_seeds(study.denoised, "jomold"),
        "CMPAE": study.over_seeds(study.denoised, "cmpae"),
        "VALOR": study.over_seeds(study.valor),
        "LSLD": study.over_seeds(study.lsld),
        "CoLeaf": study.over_seeds(study.denoised, "coleaf"),
        "CoLeaf, best epoch by Type@AV": study.over_seeds(study.denoised, "coleaf", select_on="segment_Type"),
        "LEAP": study.over_seeds(study.leap),
        "UWAV": study.over_seeds(study.uwav),
        "VALOR's labels, UWAV's network": study.over_seeds(study.valor_with_uwav_network),
        "Video labels only, UWAV's network": study.over_seeds(study.video_labels_only),
    }


def table2(study: Study) -> Experiment:
    """Methods on AVE."""
    ours = {
        "HAN": study.over_seeds(study.han, "AVE"),
        "VALOR": study.over_seeds(study.valor, "AVE"),
        "UWAV": study.over_seeds(study.uwav, "AVE"),
        "Video labels only, UWAV's network": study.over_seeds(study.video_labels_only, "AVE"),
    }
    published = {name: published_value("table2_ave_accuracy", name) for name in ("HAN", "VALOR", "UWAV")}
    return AVEExperiment(study, "table2", "Audio-visual event localisation on AVE (paper Table 2)", ours, published)


def table3(study: Study) -> Experiment:
    """Quality of the pseudo-labels. Stages 1 and 2 have one seed."""
    paper = "table3_pseudo_label_quality_segment"
    ours = {"VALOR": (study.pseudo_labels("LLP", "framewise"),), "UWAV": (study.pseudo_labels("LLP"),)}
    published = {name: published_segment_row(paper, name) for name in published_methods(paper)}
    return ParsingExperiment(study, "table3", "Quality of the pseudo-labels on LLP (paper Table 3)", ours, published)


def table4(study: Study) -> Experiment:
    """Ablation of soft labels, re-weighting and mixup."""
    ours = {name: study.over_seeds(study.uwav, **settings) for name, settings in ABLATION.items()}
    published = {name: published_row("table4_a8_ablation", name) for name in ABLATION}
    return ParsingExperiment(study, "table4", "Ablation on LLP (paper Tables 4 and A8)", ours, published)


class ComputingTime(Experiment):
    """The median epoch of stage 3, and stage 4 on the test split, on this machine."""

    datasets = ("LLP",)

    def tables(self, runner: Runner) -> dict[str, Table]:
        paper = "table_a5_compute_rtx3090"
        names = ("train_seconds_per_epoch", "inference_seconds_test_split")
        published = tuple(Cell(published_value(paper, name)) for name in names)
        (evaluation,) = self.jobs
        training = runner.finished_output(evaluation.inputs["checkpoint_dir"])
        history = load_checkpoint(training / LAST_STATE)["progress"]["history"]
        epoch = statistics.median(scores["train_seconds"] for scores in history)
        record = runner.record(evaluation)
        rows = (
            Row(("UWAV", "NVIDIA GeForce RTX 3090"), published, "published"),
            Row(("UWAV", record["machine"]), (Cell(epoch), Cell(record["seconds"])), self.mark),
        )
        columns = (Column("training epoch", "Seconds"), Column("test split", "Seconds"))
        notes = ("Test split: all of stage 4, with loading of the features and scoring.", *self.footnotes)
        return {self.name: Table(self.title, ("Method", "Machine"), columns, rows, notes)}


def table_a5(study: Study) -> Experiment:
    """Computing time on this machine."""
    evaluation = study.evaluation(study.uwav(study.seeds[0]), splits=("test",))  # alone, for its running time
    return ComputingTime(study, "tableA5", "Computing time on LLP (paper Table A5)", {"UWAV": (evaluation,)})


def table_a6(study: Study) -> Experiment:
    """CLIP and CLAP as HAN's features."""
    ours = {
        "VALOR": study.over_seeds(study.valor, **CLIP_AND_CLAP),
        "UWAV": study.over_seeds(study.uwav, **CLIP_AND_CLAP),
    }
    published = {name: published_row("table_a6_clip_clap_backbones", name) for name in ours}
    title = "CLAP and CLIP in place of VGGish and ResNet-152 on LLP (paper Table A6)"
    return ParsingExperiment(study, "tableA6", title, ours, published)


@dataclass(frozen=True)
class FewerData(Experiment):
    """Two tables: fewer training videos, and fewer classes."""

    by_share: ParsingExperiment
    by_classes: ScoreExperiment

    def tables(self, runner: Runner) -> dict[str, Table]:
        return self.by_share.tables(runner) | self.by_classes.tables(runner)


def table_a7(study: Study) -> Experiment:
    """Fewer training videos; fewer classes."""
    shares, published_shares = {}, {}
    for share in TRAINING_SHARES:
        name = f"UWAV, {share} % of the training videos"
        shares[name] = study.over_seeds(study.uwav, **without_defaults(train_fraction=share / 100))
        published_shares[name] = published_segment_row("table_a7_training_data_segment", share)
    classes, published_classes = {}, {}
    for method, training in {"VALOR": study.valor, "UWAV": study.uwav}.items():
        for number in NUM_CLASSES:
            name = f"{method}, {number} classes"
            settings = {} if number == max(NUM_CLASSES) else {"num_classes": number}
            classes[name] = study.over_seeds(training, **settings)
            published_classes[name] = published_value("table_a7_num_classes_segment_type", method, number)
    first = "F-scores in percent. The first classes in index order, and the videos that have one of them."
    return FewerData(
        study,
        "tableA7",
        "Fewer data (paper Table A7)",
        shares | classes,
        ParsingExperiment(
            study, "tableA7_training_videos", "Fewer training videos of LLP (paper Table A7)", shares, published_shares
        ),
        ScoreExperiment(
            study, "tableA7_classes", "Fewer classes of LLP (paper Table A7)", classes, published_classes, remark=first
        ),
    )


def table_a9(study: Study) -> Experiment:
    """Labels of the mixup loss on AVE."""
    uwav = study.uwav
    ours = {"soft": study.over_seeds(uwav, "AVE", mixup_labels="soft"), "ceiling": study.over_seeds(uwav, "AVE")}
    published = {name: published_value("table_a9_ave_mixup_accuracy", name) for name in ours}
    return AVEExperiment(study, "tableA9", "Labels of the mixup loss on AVE (paper Table A9)", ours, published)
