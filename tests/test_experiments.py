"""Tables and figures of the paper: runs that are never repeated, and results beside the published ones."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import train_han
from dataloaders.feature_origin import EXTRACTION_MARKER, VIDEOS_MARKER
from experiments.__main__ import EXPERIMENTS
from experiments.__main__ import main as run_experiments
from experiments.jobs import ENTRY_POINTS, PRESETS, Job, Runner, Study, load_preset, to_flags
from experiments.orders import ORDERS, orders_table
from experiments.paper_tables import varied_videos
from tests.tiny_runs import assert_same_weights
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.predictions import Predictions, save_predictions
from utils.recipes import parse_recipe
from utils.reporting.tables import write_table
from utils.settings import parse_settings

ROOT = Path(__file__).resolve().parent.parent
NAMES = [f"{level}_{name}" for level in ("segment", "event") for name in ("A", "V", "AV", "Type", "Event")]


def study(data_root: Path, *seeds: int, preset: str = "tiny") -> Study:
    return Study(preset, data_root, data_root, seeds or (1,))


def finish(runner: Runner, job: Job, **test_scores: float) -> None:
    """Write what a finished evaluation leaves behind."""
    folder = runner.runs_dir / job.key
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"test": test_scores}))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The entry points that have been called, in order; they run for real."""
    called: list[str] = []

    def counted(name: str, main):
        def call(argv: list[str]) -> None:
            called.append(name)
            main(argv)

        return call

    for name, module in ENTRY_POINTS.items():
        monkeypatch.setattr(module, "main", counted(name, module.main))
    return called


def run_tiny(tmp_path: Path, *names: str, seeds: tuple[int, ...] = (1,)) -> None:
    flags = ["--preset", "tiny", "--device", "cpu", "--data_root", str(tmp_path / "data")]
    folders = ["--runs_dir", str(tmp_path / "runs"), "--results_dir", str(tmp_path / "results")]
    run_experiments([*names, "--seeds", *map(str, seeds), *flags, *folders])


# ---- running


def test_finished_runs_are_not_repeated_and_tables_share_them(
    tmp_path: Path, llp_dir: Path, unav_dir: Path, calls: list[str]
):
    run_tiny(tmp_path, "table4")
    assert calls == ["train_transformer", "pseudo_label_generation", *["train_han", "test_han"] * 5]
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}

    calls.clear()
    run_tiny(tmp_path, "table4")
    assert calls == []
    run_tiny(tmp_path, "figureA5", "tableA5")  # W = 0.5 without mixup and UWAV itself are rows of Table 4
    assert calls == [*["train_han", "test_han"] * 4, "test_han"]
    assert written == {path: path.stat().st_mtime_ns for path in written}

    table = json.loads((tmp_path / "results" / "table4.json").read_text())
    assert [row["labels"]["Method"] for row in table["rows"]][-2:] == ["soft+reweight+mixup"] * 2
    assert [row["note"] for row in table["rows"]][-2:] == ["published", "ours"]
    for file in ("table4.md", "table4.csv", "figureA5.png", "figureA5.md", "tableA5.csv"):
        assert (tmp_path / "results" / file).stat().st_size > 0


def test_a_killed_training_goes_on_and_ends_like_one_that_was_not_killed(
    tmp_path: Path, llp_dir: Path, unav_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    job = study(tmp_path / "data").training("uwav", 1)
    whole = Runner(tmp_path / "whole", "cpu").run(job)

    runner = Runner(tmp_path / "killed", "cpu")
    validations = []

    def stop_in_second_epoch(*args, **settings):
        validations.append(1)
        if len(validations) == 2:
            raise KeyboardInterrupt
        return validate(*args, **settings)

    validate = train_han.validate
    with monkeypatch.context() as patch:
        patch.setattr(train_han, "validate", stop_in_second_epoch)
        with pytest.raises(KeyboardInterrupt):
            runner.run(job)
    assert runner.output(job) is None
    assert runner.missing([job]) == [job]

    resumed = runner.run(job)
    assert "resuming after epoch 1" in (resumed / "log.txt").read_text()
    assert len(list((tmp_path / "killed" / job.key).glob("HAN_*"))) == 1
    torch.testing.assert_close(
        *(torch.load(run / "checkpoints/checkpoint_best.pt", weights_only=True) for run in (whole, resumed)),
        rtol=0,
        atol=0,
    )
    assert_same_weights(whole, resumed)


def test_runs_keep_their_settings_machine_and_time(tmp_path: Path, llp_dir: Path, unav_dir: Path):
    runner, job = Runner(tmp_path / "runs", "cpu"), study(tmp_path / "data").pseudo_labels("LLP")
    runner.run(job)
    record = runner.record(job)
    assert record["settings"]["dataset"] == "LLP"
    assert list(record["inputs"]) == ["transformer_dir"]
    assert "thread" in record["machine"]
    assert record["seconds"] > 0


def test_the_jobs_inputs_need_not_be_there_any_more_once_it_is_finished(tmp_path: Path):
    runner, job = Runner(tmp_path), study(tmp_path)
    evaluation = job.evaluation(job.training("uwav", 1))
    finish(runner, evaluation, segment_A=1.0)
    assert runner.missing([evaluation]) == []
    assert runner.run(evaluation) == tmp_path / evaluation.key


def test_missing_data_end_the_run_with_a_message(tmp_path: Path):
    with pytest.raises(InputError, match="UnAV"):
        run_tiny(tmp_path, "table4")


def test_results_of_an_unfinished_job_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no finished run"):
        Runner(tmp_path).test_scores(study(tmp_path).training("uwav", 1))


# ---- identity of runs


def test_equal_settings_make_the_same_folder_and_any_other_setting_another(tmp_path: Path):
    jobs = study(tmp_path)
    assert jobs.training("uwav", 1).key == jobs.training("uwav", 1).key
    others = [
        jobs.training("uwav", 1),
        jobs.training("uwav", 2),
        jobs.training("uwav", 1, mixup=False),
        jobs.training("valor", 1),
        study(tmp_path, preset="small").training("uwav", 1),
        study(tmp_path / "elsewhere").training("uwav", 1),
    ]
    assert len({job.key for job in others}) == len(others)


def test_the_order_of_settings_does_not_matter():
    one, other = (Job("train_han", "x", settings) for settings in ({"a": 1, "b": 2}, {"b": 2, "a": 1}))
    assert one.key == other.key


def test_other_simulated_data_in_the_same_folder_make_other_runs(tmp_path: Path, llp_dir: Path):
    jobs = study(tmp_path / "data")
    keys = [jobs.training("han", 1).key]
    for seed in (0, 1):
        (llp_dir / "simulation.yaml").write_text(f"seed: {seed}\n")
        keys.append(jobs.training("han", 1).key)
    assert len(set(keys)) == 3


def test_extracted_features_and_generated_videos_are_told_apart_as_simulated_ones_are(tmp_path: Path, llp_dir: Path):
    jobs = study(tmp_path / "data")
    keys = [jobs.training("han", 1).key]
    for marker in (EXTRACTION_MARKER, VIDEOS_MARKER):
        drawn = {"features": {"clip": {"weights": "drawn from seed 0", "drawn_weights": "real"}}}
        (llp_dir / marker).write_text(yaml.safe_dump(drawn))
        keys.append(jobs.training("han", 1).key)
    assert len(set(keys)) == 3
    of_one = study(tmp_path / "data")
    assert of_one.note("UnAV", "LLP") == "generated videos, features from random weights"
    assert "generated videos, features from random weights" in EXPERIMENTS["table1"](of_one).footnotes[1]


def test_settings_become_flags():
    settings = {"dim": 16, "mixup": False, "reweight": True, "visual_features": ("clip", "r2plus1d_18")}
    assert to_flags(settings) == [
        *("--dim", "16", "--no-mixup", "--reweight", "--visual_features", "clip", "r2plus1d_18")
    ]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_setting_is_a_flag_of_its_entry_point(tmp_path: Path, name: str, preset: str):
    for job in Runner(tmp_path).missing(EXPERIMENTS[name](study(tmp_path, preset=preset)).jobs):
        inputs = dict.fromkeys(job.inputs, "somewhere")
        flags = to_flags({**job.settings, **inputs, "output_dir": "somewhere", "device": "cpu"})
        if job.entry_point == "train_han":
            parse_recipe(train_han.Settings, "", flags, ())
        else:
            parse_settings(ENTRY_POINTS[job.entry_point].Settings(), "", flags)


def test_an_unknown_preset_and_one_with_other_sections_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="paper, small, tiny"):
        load_preset("huge")
    (tmp_path / "mine.yaml").write_text("uwav: {dim: 16}\n")
    with pytest.raises(InputError, match="transformer, lavish, uwav, cmpae, coleaf, han"):
        load_preset(str(tmp_path / "mine.yaml"))


# ---- collecting


def test_tables_give_mean_and_sample_deviation_over_seeds_under_the_published_row(tmp_path: Path):
    of_three = study(tmp_path, 1, 2, 3)
    experiment, runner = EXPERIMENTS["tableA6"](of_three), Runner(tmp_path / "runs")
    values = {1: 60.0, 2: 62.0, 3: 67.0}  # mean 63, deviation sqrt((9 + 1 + 16) / 2)
    for job in experiment.jobs:
        seed = int(re.search(r"seed(\d)", job.name)[1])
        finish(runner, job, **{name: values[seed] + i for i, name in enumerate(NAMES)})
    table = experiment.tables(runner)["tableA6"]
    assert [(row.labels[0], row.note) for row in table.rows] == [
        ("VALOR", "published"),
        ("VALOR", "ours"),
        ("UWAV", "published"),
        ("UWAV", "ours"),
    ]
    for i, cell in enumerate(table.rows[3].cells):
        assert cell.mean == pytest.approx(63 + i)
        assert cell.std == pytest.approx(13**0.5)
        assert cell.runs == 3
    assert [cell.mean for cell in table.rows[2].cells][:5] == [68.9, 72.3, 65.6, 68.9, 68.3]
    assert any("seeds 1, 2, 3" in note for note in table.notes)


def test_table1_has_every_published_method_and_under_it_ours(tmp_path: Path):
    experiment, runner = EXPERIMENTS["table1"](study(tmp_path)), Runner(tmp_path / "runs")
    for job in experiment.jobs:
        finish(runner, job, **dict.fromkeys(NAMES, 50.0))
    rows = [(row.labels[0], row.note) for row in experiment.tables(runner)["table1"].rows]
    assert sum(note == "published" for _, note in rows) == 12
    for method in ("HAN", "MA", "JoMoLD", "CMPAE", "VALOR", "LSLD", "CoLeaf", "LEAP", "UWAV"):
        place = rows.index((method, "published"))
        assert rows[place + 1] == (method, "ours")


def test_every_row_of_table1_is_compared_with_uwav_over_its_seeds(tmp_path: Path):
    experiment, runner = EXPERIMENTS["significance"](study(tmp_path, 1, 2)), Runner(tmp_path / "runs")
    draw = np.random.default_rng(0)
    truth = AudioVisual(*(draw.random((2, 40, 10, 3)) < 0.3))
    for job in dict.fromkeys(experiment.jobs):
        finish(runner, job, **dict.fromkeys(NAMES, 50.0))
        wrong = 0.05 if "uwav" in job.name else 0.3
        events = truth.map(lambda x, wrong=wrong: x ^ (draw.random(x.shape) < wrong))
        classes, videos = ("Speech", "Car", "Dog"), tuple(f"video{n}" for n in range(40))
        save_predictions(runner.runs_dir / job.key, Predictions("LLP", "test", classes, videos, events, truth))
    table = experiment.tables(runner)["significance"]
    rows = {row.labels[0]: [cell.mean for cell in row.cells] for row in table.rows}
    assert "UWAV" not in rows and len(rows) == 14
    for name in ("HAN", "MA", "JoMoLD", "CMPAE", "VALOR", "LSLD", "CoLeaf", "LEAP"):
        difference, low, high, p = rows[name][:4]
        assert low < difference < high < 0 and p < 0.01


def test_accuracies_of_ave_stand_under_the_published_ones(tmp_path: Path):
    experiment, runner = EXPERIMENTS["tableA9"](study(tmp_path)), Runner(tmp_path / "runs")
    for job, accuracy in zip(experiment.jobs, (70.0, 71.0), strict=True):
        finish(runner, job, accuracy=accuracy)
    rows = experiment.tables(runner)["tableA9"].rows
    assert [(row.labels[0], row.cells[0].mean) for row in rows] == [
        ("soft", 80.3),
        ("soft", 70.0),
        ("ceiling", 80.6),
        ("ceiling", 71.0),
    ]


def test_fewer_classes_and_videos_make_two_tables(tmp_path: Path):
    experiment, runner = EXPERIMENTS["tableA7"](study(tmp_path)), Runner(tmp_path / "runs")
    for job in dict.fromkeys(experiment.jobs):
        finish(runner, job, **dict.fromkeys(NAMES, 50.0))
    tables = experiment.tables(runner)
    assert len(tables["tableA7_training_videos"].rows) == 6
    assert len(tables["tableA7_training_videos"].columns) == 5  # the paper has the segment level only
    classes = tables["tableA7_classes"].rows
    assert [(row.labels[0], row.cells[0].mean) for row in classes if row.note == "published"][3:] == [
        ("UWAV, 25 classes", 65.9),
        ("UWAV, 20 classes", 71.4),
        ("UWAV, 15 classes", 68.4),
    ]


def test_rows_on_simulated_features_say_so(tmp_path: Path, llp_dir: Path):
    (llp_dir / "simulation.yaml").write_text("simulated: true\n")
    experiment, runner = EXPERIMENTS["table4"](study(tmp_path / "data")), Runner(tmp_path / "runs")
    for job in experiment.jobs:
        finish(runner, job, **dict.fromkeys(NAMES, 50.0))
    table = experiment.tables(runner)["table4"]
    assert {row.note for row in table.rows} == {"published", "simulated features"}
    assert any("simulated" in note for note in table.notes)


def test_videos_for_timelines_are_chosen_by_their_truth_alone():
    generator = torch.Generator().manual_seed(0)
    audio, visual, *of_method = (torch.rand(40, 10, 5, generator=generator).numpy() > 0.97 for _ in range(6))
    ids = tuple(map(str, range(40)))
    chosen = [
        varied_videos(
            Predictions("LLP", "test", tuple("abcde"), ids, AudioVisual(*predicted), AudioVisual(audio, visual)), 5
        )
        for predicted in (of_method[:2], of_method[2:])
    ]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 5
    for n in chosen[0]:
        assert (audio[n] | visual[n]).any(axis=0).sum() >= 2


def test_orders_are_looked_up_in_the_collected_tables(tmp_path: Path):
    of_two = study(tmp_path, 1, 2)
    experiment, runner = EXPERIMENTS["table3"](of_two), Runner(tmp_path / "runs")
    for job, visual in zip(experiment.jobs, (61.0, 60.5), strict=True):  # VALOR, UWAV
        finish(runner, job, **{**dict.fromkeys(NAMES, 50.0), "segment_V": visual})
    write_table(tmp_path / "results" / "table3.json", experiment.tables(runner)["table3"])
    (row,) = orders_table(tmp_path / "results").rows
    assert row.labels == ("UWAV above VALOR", "table3, Segment-level V", "NO")
    assert [cell.mean for cell in row.cells] == [60.5, 61.0, -0.5]


@pytest.mark.parametrize("name", dict.fromkeys(table for table, *_ in ORDERS))
def test_every_order_is_about_rows_and_columns_that_are_there(tmp_path: Path, name: str):
    experiment, runner = EXPERIMENTS[name.partition("_")[0]](study(tmp_path)), Runner(tmp_path / "runs")
    for job in dict.fromkeys(experiment.jobs):
        finish(runner, job, **dict.fromkeys([*NAMES, "accuracy"], 50.0))
    write_table(tmp_path / "results" / f"{name}.json", experiment.tables(runner)[name])
    rows = orders_table(tmp_path / "results").rows
    assert [row.labels[2] for row in rows] == ["yes"] * sum(table == name for table, *_ in ORDERS)


# ---- scripts


def test_every_table_has_a_script_of_its_name_and_all_runs_each():
    folder = ROOT / "scripts" / "paper"
    scripts = {path.stem: path for path in folder.glob("*.sh")}
    assert scripts.keys() == {*EXPERIMENTS, "experiment", "all"}
    for name in EXPERIMENTS:
        assert f'/experiment.sh" {name} "$@"' in scripts[name].read_text()
    listed = re.search(r"for name in (.*); do", (folder / "all.sh").read_text())[1]
    assert listed.split() == list(EXPERIMENTS)


def test_a_script_makes_its_table(tmp_path: Path, llp_dir: Path, unav_dir: Path):
    variables = {"DATA_ROOT": tmp_path / "data", "RUNS_DIR": tmp_path / "runs", "RESULTS_DIR": tmp_path / "results"}
    exports = " ".join(f"{name}={path}" for name, path in variables.items())
    command = f"{exports} OMP_NUM_THREADS=1 bash scripts/paper/table3.sh --preset tiny --device cpu"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "UWAV (ours)" in done.stdout
    rows = (tmp_path / "results" / "table3.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["VALOR", "VALOR", "PPL", "UWAV", "UWAV"]
