"""The paper's tables: which methods and settings each compares."""

import statistics

import train_han
from experiments.collecting import Experiment, Study, against, comparison, paired_values
from experiments.jobs import Job, Runner
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


def default_of(setting: str) -> object:
    """The paper's value of a stage-3 setting."""
    return flat(train_han.Settings())[setting]


def without_defaults(**settings: object) -> dict[str, object]:
    """Settings that differ from the paper's, so that a run at the paper's values is shared with other tables."""
    return {name: value for name, value in settings.items() if value != default_of(name)}


def table1(study: Study) -> Experiment:
    """Methods on LLP."""
    ours = _methods_on_llp(study)
    published = {name: published_row("table1_llp", name) for name in published_methods("table1_llp")}

    def tables(runner: Runner) -> dict[str, Table]:
        title = "Audio-visual video parsing on LLP (paper Table 1)"
        return {"table1": comparison(study, runner, title, ours, published)}

    return Experiment("table1", _all(ours), tables)


def significance(study: Study) -> Experiment:
    """Each of our rows of Table 1 against UWAV."""
    ours = _methods_on_llp(study)
    return Experiment("significance", _all(ours), lambda runner: {"significance": against(study, runner, "UWAV", ours)})


def _methods_on_llp(study: Study) -> dict[str, tuple[Job, ...]]:
    """Our rows of Table 1."""
    pipeline = study.pipeline
    return {
        "HAN": study.over_seeds(pipeline.han),
        "MA": study.over_seeds(pipeline.ma),
        "JoMoLD": study.over_seeds(lambda seed: pipeline.denoised("jomold", seed)),
        "CMPAE": study.over_seeds(lambda seed: pipeline.denoised("cmpae", seed)),
        "VALOR": study.over_seeds(pipeline.valor),
        "LSLD": study.over_seeds(pipeline.lsld),
        "CoLeaf": study.over_seeds(lambda seed: pipeline.denoised("coleaf", seed)),
        "CoLeaf, best epoch by Type@AV": study.over_seeds(
            lambda seed: pipeline.denoised("coleaf", seed, select_on="segment_Type")
        ),
        "LEAP": study.over_seeds(pipeline.leap),
        "UWAV": study.over_seeds(pipeline.uwav),
        "VALOR's labels, UWAV's network": study.over_seeds(pipeline.valor_with_uwav_network),
        "Video labels only, UWAV's network": study.over_seeds(pipeline.video_labels_only),
    }


def table2(study: Study) -> Experiment:
    """Methods on AVE."""
    pipeline = study.pipeline
    ours = {
        "HAN": study.over_seeds(lambda seed: pipeline.han(seed, "AVE")),
        "VALOR": study.over_seeds(lambda seed: pipeline.valor(seed, "AVE")),
        "UWAV": study.over_seeds(lambda seed: pipeline.uwav(seed, "AVE")),
        "Video labels only, UWAV's network": study.over_seeds(lambda seed: pipeline.video_labels_only(seed, "AVE")),
    }
    return _accuracy_experiment(
        study, "table2", "Audio-visual event localisation on AVE (paper Table 2)", ours, "table2_ave_accuracy"
    )


def table3(study: Study) -> Experiment:
    """Quality of the pseudo-labels. Stages 1 and 2 have one seed."""
    ours = {
        "VALOR": (study.pipeline.pseudo_labels("LLP", "framewise"),),
        "UWAV": (study.pipeline.pseudo_labels("LLP"),),
    }
    table = "table3_pseudo_label_quality_segment"
    published = {name: published_segment_row(table, name) for name in published_methods(table)}

    def tables(runner: Runner) -> dict[str, Table]:
        title = "Quality of the pseudo-labels on LLP (paper Table 3)"
        return {"table3": comparison(study, runner, title, ours, published)}

    return Experiment("table3", _all(ours), tables)


def table4(study: Study) -> Experiment:
    """Ablation of soft labels, re-weighting and mixup."""
    ours = {
        name: study.over_seeds(lambda seed, settings=settings: study.pipeline.uwav(seed, **settings))
        for name, settings in ABLATION.items()
    }
    published = {name: published_row("table4_a8_ablation", name) for name in ABLATION}

    def tables(runner: Runner) -> dict[str, Table]:
        title = "Ablation on LLP (paper Tables 4 and A8)"
        return {"table4": comparison(study, runner, title, ours, published)}

    return Experiment("table4", _all(ours), tables)


def table_a5(study: Study) -> Experiment:
    """Computing time on this machine: the median epoch of stage 3, and stage 4 on the test split."""
    training = study.pipeline.uwav(study.seeds[0])
    evaluation = study.pipeline.timed_evaluation(training)

    def tables(runner: Runner) -> dict[str, Table]:
        history = load_checkpoint(runner.finished_output(training) / LAST_STATE)["progress"]["history"]
        epoch = statistics.median(scores["train_seconds"] for scores in history)
        record = runner.record(evaluation)
        paper = "table_a5_compute_rtx3090"
        published = (
            Cell(published_value(paper, "train_seconds_per_epoch")),
            Cell(published_value(paper, "inference_seconds_test_split")),
        )
        rows = (
            Row(("UWAV", "NVIDIA GeForce RTX 3090"), published, "published"),
            Row(("UWAV", record["machine"]), (Cell(epoch), Cell(record["seconds"])), study.note("LLP") or "ours"),
        )
        columns = (Column("training epoch", "Seconds"), Column("test split", "Seconds"))
        notes = ("Test split: all of stage 4, with loading of the features and scoring.", *study.footnotes("LLP"))
        title = "Computing time on LLP (paper Table A5)"
        return {"tableA5": Table(title, ("Method", "Machine"), columns, rows, notes)}

    return Experiment("tableA5", (evaluation,), tables)


def table_a6(study: Study) -> Experiment:
    """CLIP and CLAP as HAN's features."""
    pipeline = study.pipeline
    ours = {
        "VALOR": study.over_seeds(lambda seed: pipeline.valor(seed, **CLIP_AND_CLAP)),
        "UWAV": study.over_seeds(lambda seed: pipeline.uwav(seed, **CLIP_AND_CLAP)),
    }
    published = {name: published_row("table_a6_clip_clap_backbones", name) for name in ours}

    def tables(runner: Runner) -> dict[str, Table]:
        title = "CLAP and CLIP in place of VGGish and ResNet-152 on LLP (paper Table A6)"
        return {"tableA6": comparison(study, runner, title, ours, published)}

    return Experiment("tableA6", _all(ours), tables)


def table_a7(study: Study) -> Experiment:
    """Fewer training videos; fewer classes."""
    pipeline = study.pipeline
    shares = {
        share: study.over_seeds(
            lambda seed, share=share: pipeline.uwav(seed, **without_defaults(train_fraction=share / 100))
        )
        for share in TRAINING_SHARES
    }

    def with_classes(training, number: int) -> tuple[Job, ...]:
        settings = {} if number == max(NUM_CLASSES) else {"num_classes": number}
        return study.over_seeds(lambda seed: training(seed, **settings))

    methods = {"VALOR": pipeline.valor, "UWAV": pipeline.uwav}
    classes = {(name, n): with_classes(method, n) for name, method in methods.items() for n in NUM_CLASSES}

    def tables(runner: Runner) -> dict[str, Table]:
        names = {share: f"UWAV, {share} % of the training videos" for share in shares}
        by_share = comparison(
            study,
            runner,
            "Fewer training videos of LLP (paper Table A7)",
            {names[share]: jobs for share, jobs in shares.items()},
            {names[share]: published_segment_row("table_a7_training_data_segment", share) for share in shares},
        )
        rows = {}
        for (method, number), jobs in classes.items():
            published = published_value("table_a7_num_classes_segment_type", method, number)
            runs = [[runner.summary(job)["test"]["segment_Type"]] for job in jobs]
            rows[f"{method}, {number} classes"] = ([published], runs)
        by_classes = paired_values(
            study,
            "Fewer classes of LLP (paper Table A7)",
            "Method",
            [Column("Type", "Segment-level")],
            rows,
            ("UnAV", "LLP"),
            ("F-scores in percent. The first classes in index order, and the videos that have one of them.",),
        )
        return {"tableA7_training_videos": by_share, "tableA7_classes": by_classes}

    return Experiment("tableA7", (*_all(shares), *_all(classes)), tables)


def table_a9(study: Study) -> Experiment:
    """Labels of the mixup loss on AVE."""
    pipeline = study.pipeline
    ours = {
        "soft": study.over_seeds(lambda seed: pipeline.uwav(seed, "AVE", mixup_labels="soft")),
        "ceiling": study.over_seeds(lambda seed: pipeline.uwav(seed, "AVE")),
    }
    return _accuracy_experiment(
        study, "tableA9", "Labels of the mixup loss on AVE (paper Table A9)", ours, "table_a9_ave_mixup_accuracy"
    )


def _accuracy_experiment(
    study: Study, name: str, title: str, ours: dict[str, tuple[Job, ...]], paper: str
) -> Experiment:
    def tables(runner: Runner) -> dict[str, Table]:
        rows = {}
        for method, jobs in ours.items():
            published = published_value(paper, method) if method in published_methods(paper) else None
            rows[method] = ([published], [[runner.summary(job)["test"]["accuracy"]] for job in jobs])
        notes = ("Percent of segments whose label is right.",)
        return {name: paired_values(study, title, "Method", [Column("Accuracy")], rows, ("UnAV", "AVE"), notes)}

    return Experiment(name, _all(ours), tables)


def _all(jobs: dict[object, tuple[Job, ...]]) -> tuple[Job, ...]:
    return tuple(job for of_method in jobs.values() for job in of_method)
