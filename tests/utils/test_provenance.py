"""What a folder's content was made from, and marks on their way through all stages."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import pseudo_label_generation
import test_han
from baselines.jomold import find_noise_ratios
from baselines.ma import find_exchange
from dataloaders.feature_origin import SIMULATION_MARKER
from tests.tiny_data import write_llp, write_unav
from tests.tiny_runs import evaluate, label, newest, pretrain, train
from utils import provenance, trained
from utils.errors import InputError
from utils.evaluation import compare
from utils.provenance import (
    PROVENANCE_FILE,
    Provenance,
    hash_of_labels,
    read_provenance,
    state_of_code,
    write_provenance,
)
from utils.settings import ARGS_FILE
from video.pages.__main__ import main as write_pages

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
hashes = st.dictionaries(names, st.text("0123456789abcdef", min_size=1, max_size=8), min_size=1, max_size=3)
records = st.builds(
    Provenance,
    kind=names,
    dataset=names,
    classes=st.lists(names, min_size=1, max_size=3).map(tuple),
    videos=hashes,
    sources=hashes,
    marks=st.lists(names, max_size=2).map(tuple),
    command=names,
    versions=hashes,
    commit=names,
    clean=st.booleans(),
    seconds=st.floats(0, 1e6),
)
COMPARED = ("kind", "dataset", "classes", "videos", "sources")


def check(found: Provenance, wanted: Provenance) -> None:
    found.check(Path("run"), "Go back.", **{name: getattr(wanted, name) for name in COMPARED})


@given(records)
def test_a_record_is_read_as_it_was_written_and_fits_itself(tmp_path_factory, record: Provenance):
    folder = tmp_path_factory.mktemp("record")
    write_provenance(folder, record)
    assert read_provenance(folder) == record
    check(record, record)


@given(records, st.sampled_from(COMPARED), st.data())
def test_any_field_that_has_changed_is_refused_by_name(record: Provenance, field: str, data: st.DataObject):
    value = getattr(record, field)
    if isinstance(value, str):
        changed = f"other {value}"
    elif isinstance(value, tuple):
        changed = (*value, "another")
    else:
        changed = {**value, data.draw(st.sampled_from(sorted(value))): "other"}
    with pytest.raises(InputError, match=field):
        check(record, replace(record, **{field: changed}))


@given(records, st.sampled_from(COMPARED))
def test_what_an_earlier_version_did_not_write_is_not_compared(record: Provenance, field: str):
    check(replace(record, **{field: type(getattr(record, field))()}), record)
    check(Provenance(), record)


def test_marks_are_inherited_once_with_the_name_of_their_source():
    own = Provenance(marks=("simulated features",))
    source = Provenance(marks=("simulated features", "random weights", "stage 1: generated videos"))
    assert own.inherit(source, "labels").note == (
        "simulated features, labels: random weights, stage 1: generated videos"
    )


@pytest.mark.parametrize("content", ["", "[]", '{"classes": 3}', '{"marks": [1]}', "\0"])
def test_a_damaged_record_is_named(tmp_path: Path, content: str):
    (tmp_path / PROVENANCE_FILE).write_text(content)
    with pytest.raises(InputError, match=PROVENANCE_FILE):
        read_provenance(tmp_path)


def git(folder: Path, *arguments: str) -> None:
    author = ["-c", "user.name=A", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(folder), *author, *arguments], check=True, capture_output=True)


def test_a_record_names_the_commit_and_whether_its_files_are_changed(tmp_path: Path):
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("a = 1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "begin")
    commit = (tmp_path / ".git" / (tmp_path / ".git/HEAD").read_text().split()[1]).read_text().strip()
    (tmp_path / "notes.txt").write_text("tracked by nobody")
    assert state_of_code(tmp_path) == {"commit": commit, "clean": True}
    (tmp_path / "code.py").write_text("a = 2\n")
    state_of_code.cache_clear()
    assert state_of_code(tmp_path) == {"commit": commit, "clean": False}


@pytest.mark.parametrize("lacking", ["git", "repository"])
def test_without_git_or_a_repository_the_commit_is_null(tmp_path: Path, monkeypatch, lacking: str):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    if lacking == "git":
        monkeypatch.setenv("PATH", str(tmp_path))
    write_provenance(tmp_path, Provenance())
    record = json.loads((tmp_path / PROVENANCE_FILE).read_text())
    assert (record["commit"], record["clean"]) == (None, None) and record["versions"]


# ---- through the stages


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> Path:
    """Stages 1 and 2, and a base run of JoMoLD and of MA each; stage 1 has learned from simulated features."""
    folder = tmp_path_factory.mktemp("stages")
    write_unav(folder / "UnAV")
    (folder / "UnAV" / SIMULATION_MARKER).write_text("seed: 1\n")
    write_llp(folder / "LLP")
    label(folder / "LLP", pretrain(folder / "UnAV", folder / "runs"))
    for method in ("jomold_base", "ma_base"):
        train(folder / "LLP", folder / "runs", "--method", method, "--num_epochs", "1")
    return folder


def labels_of(stages: Path) -> Path:
    return newest(stages / "runs", "TemporalTransformer_") / "LLP_Dataset"


def test_stage_1_s_mark_is_in_every_table_page_and_export(stages: Path, tmp_path: Path, capsys, monkeypatch):
    labels = labels_of(stages)
    run = train(stages / "LLP", tmp_path, "--pseudo_label_dir", labels, "--num_epochs", "1")
    monkeypatch.chdir(tmp_path)  # relative folders of the settings would lead elsewhere
    moved = tmp_path / "moved"
    shutil.move(run, moved)
    logs = evaluate(moved, tmp_path / "logs")
    mark = "stage 1: simulated features"
    assert mark in (labels / "pseudo_label_quality.md").read_text()
    for file in ("scores.md", "scores.csv", "scores.json", "per_class_test.csv", "timelines.html"):
        assert mark in (logs / file).read_text(), file
    write_pages([str(logs), "--output", str(tmp_path / "page.html")])
    assert mark in (tmp_path / "page.html").read_text()
    capsys.readouterr()
    compare.main([str(logs), str(logs), "--resamples", "10"])
    assert capsys.readouterr().out.count(f"({mark})") == 2
    trained.main([str(moved), str(tmp_path / "exported")])
    assert json.loads((tmp_path / "exported/config.json").read_text())["description"]["note"] == mark


def test_a_network_that_has_learned_from_simulated_features_says_so_on_real_ones(stages: Path, tmp_path: Path):
    shutil.copytree(stages / "LLP", tmp_path / "LLP")
    (tmp_path / "LLP" / SIMULATION_MARKER).write_text("seed: 1\n")
    run = train(tmp_path / "LLP", tmp_path, "--method", "han", "--num_epochs", "1")
    (tmp_path / "LLP" / SIMULATION_MARKER).unlink()  # the packed features keep it
    assert "(simulated features)" in (evaluate(run, tmp_path / "logs") / "scores.txt").read_text()
    logs = evaluate(run, tmp_path / "real", "--data_dir", stages / "LLP")
    assert "training: simulated features" in (logs / "scores.md").read_text()


@pytest.mark.parametrize("command", [find_noise_ratios, find_exchange])
def test_labels_are_made_with_their_own_base_method_and_say_what_it_learned_from(stages, tmp_path, command):
    right, wrong = ("jomold_base", "ma_base") if command is find_noise_ratios else ("ma_base", "jomold_base")
    base = newest(stages / "runs", f"HAN_{wrong}_")
    with pytest.raises(InputError, match=f"kind: a run of train_han.py --method {wrong}"):
        command.main(["--checkpoint_dir", str(base), "--output_dir", str(tmp_path / "labels"), "--device", "cpu"])
    assert not (tmp_path / "labels").exists()
    base = newest(stages / "runs", f"HAN_{right}_")
    with pytest.raises(InputError, match="dataset: LLP"):
        command.main(["--checkpoint_dir", str(base), "--dataset", "AVE", "--output_dir", str(tmp_path / "labels")])
    record = read_provenance(base)
    write_provenance(base, replace(record, marks=("random weights",)))
    command.main(["--checkpoint_dir", str(base), "--output_dir", str(tmp_path / "labels"), "--device", "cpu"])
    write_provenance(base, record)
    table = next((tmp_path / "labels").glob("*.md")).read_text()
    assert "Made from base run: random weights." in table


@pytest.mark.parametrize(
    ("method", "expected"), [("valor", "framewise"), ("leap", "framewise"), ("lsld", "baselines.lsld.refine_labels")]
)
def test_a_method_does_not_learn_from_another_teacher_s_labels(
    stages: Path, tmp_path: Path, method: str, expected: str
):
    flags = ["--method", method, "--pseudo_label_dir", labels_of(stages)]
    with pytest.raises(InputError, match=f"found kind: labels of .*temporal_transformer; expected .*{expected}"):
        train(stages / "LLP", tmp_path, *flags)
    assert not list(tmp_path.glob("HAN_*"))


def test_a_run_does_not_go_on_with_other_features_labels_or_videos(stages: Path, tmp_path: Path):
    shutil.copytree(stages / "LLP", tmp_path / "LLP")
    shutil.copytree(labels_of(stages), tmp_path / "labels")
    run = train(tmp_path / "LLP", tmp_path, "--pseudo_label_dir", tmp_path / "labels", "--num_epochs", "1")
    for name in ("LLP", "labels"):
        shutil.copytree(tmp_path / name, tmp_path / f"{name} as it was")

    def refused(message: str, folder: str) -> None:
        with pytest.raises(InputError, match=message):
            train(tmp_path / "LLP", tmp_path, "--resume", run, "--num_epochs", "2")
        shutil.rmtree(tmp_path / folder)
        shutil.copytree(tmp_path / f"{folder} as it was", tmp_path / folder)

    features = sorted((tmp_path / "LLP/feats/vggish").glob("*.npy"))
    shutil.copy(features[0], tmp_path / "other.npy")
    for path in features[1:]:
        shutil.copy(features[0], path)
    refused(r"other sources \(.*train vggish", "LLP")
    annotations = tmp_path / "LLP/AVVP_train.csv"
    annotations.write_text("".join(annotations.read_text().splitlines(keepends=True)[:-2]))
    refused(r"other videos \(train\)", "LLP")
    label(tmp_path / "LLP", newest(stages / "runs", "TemporalTransformer_"), "--threshold_type", "class_agnostic",
          "--output_dir", tmp_path / "labels")  # fmt: skip
    refused(r"other sources \(.*labels", "labels")
    train(tmp_path / "LLP", tmp_path, "--resume", run, "--num_epochs", "2")


def test_a_command_does_not_write_into_another_one_s_folder(stages: Path, tmp_path: Path):
    base = newest(stages / "runs", "HAN_jomold_base_")
    before = (base / ARGS_FILE).read_text(), (base / "summary.json").read_text()
    commands = (
        lambda: evaluate(base, tmp_path, "--output_dir", base),
        lambda: find_noise_ratios.main(["--checkpoint_dir", str(base), "--output_dir", str(base), "--device", "cpu"]),
        lambda: label(stages / "LLP", newest(stages / "runs", "TemporalTransformer_"), "--output_dir", base),
    )
    for command in commands:
        with pytest.raises(InputError, match=r"kind: a run of train_han\.py.*--output_dir"):
            command()
    assert before == ((base / ARGS_FILE).read_text(), (base / "summary.json").read_text())


def test_thresholds_are_exported_with_the_network_that_they_were_found_for(stages: Path, tmp_path: Path):
    other = pretrain(stages / "UnAV", tmp_path, "--num_epochs", "1", "--seed", "5")
    with pytest.raises(InputError, match=r"other sources \(weights\)"):
        trained.main([str(other), str(tmp_path / "exported"), "--pseudo_label_dir", str(labels_of(stages))])
    framewise = tmp_path / "Framewise"
    pseudo_label_generation.main(
        ["--teacher", "framewise", "--thresholds", "search", "--data_dir", str(stages / "LLP"), "--device", "cpu",
         "--prompts", "event_names", "--output_dir", str(framewise)]
    )  # fmt: skip
    with pytest.raises(InputError, match="teacher framewise"):
        trained.main([str(other), str(tmp_path / "exported"), "--pseudo_label_dir", str(framewise)])


def test_features_of_other_widths_in_another_split_are_named(stages: Path, tmp_path: Path):
    shutil.copytree(stages / "LLP", tmp_path / "LLP", ignore=shutil.ignore_patterns("packed"))
    names = {split: (tmp_path / f"LLP/AVVP_{split}_pd.csv") for split in ("val", "test")}
    ids = {line[:11] for line in names["val"].read_text().splitlines()[1:]}
    for path in (tmp_path / "LLP/feats/vggish").glob("*.npy"):
        if path.stem in ids:
            np.save(path, np.load(path)[:, :3])
    with pytest.raises(InputError, match=r"LLP features: found widths that differ: train 6.*, val 3"):
        train(tmp_path / "LLP", tmp_path, "--method", "han", "--num_epochs", "1")


def test_folders_of_earlier_versions_are_read_with_what_their_settings_say(stages: Path, tmp_path: Path):
    transformer, base = (newest(stages / "runs", prefix) for prefix in ("TemporalTransformer_", "HAN_jomold_base_"))
    for source, name in ((transformer, "transformer"), (transformer / "LLP_Dataset", "labels"), (base, "base")):
        shutil.copytree(source, tmp_path / name)
        (tmp_path / name / PROVENANCE_FILE).unlink()
    assert read_provenance(tmp_path / "transformer").marks == ("simulated features",)
    labels = read_provenance(tmp_path / "labels")
    assert (labels.dataset, labels.marks) == ("LLP", ("stage 1: simulated features",))
    assert labels.kind == "labels of pseudo_label_generation.py --teacher temporal_transformer"
    assert read_provenance(tmp_path / "base").kind == "a run of train_han.py --method jomold_base"
    assert read_provenance(tmp_path) == replace(Provenance(), command=read_provenance(tmp_path).command)


def test_labels_that_are_made_again_alike_are_the_same(stages: Path, tmp_path: Path):
    labels, again = labels_of(stages), tmp_path / "labels"
    before = hash_of_labels(labels)
    for _ in range(4):  # files of one content, whose metadata come in any order
        label(stages / "LLP", labels.parent, "--output_dir", again)
        assert hash_of_labels(again) == before
    tensors = load_file(again / "train.safetensors")
    tensors["audio_labels"][0, 0] ^= True
    save_file(tensors, again / "train.safetensors")
    assert hash_of_labels(again) != before


def test_a_method_s_name_is_not_the_beginning_of_another_one_s():
    record = Provenance("a run of train_han.py --method ma_base")
    with pytest.raises(InputError, match="kind"):
        record.check(Path("run"), "Name another.", kind="a run of train_han.py --method ma")
    Provenance("labels of x.py --teacher y").check(Path("run"), "Name another.", kind="labels of x.py")


def test_a_run_does_not_go_on_with_other_video_labels(stages: Path, tmp_path: Path):
    shutil.copytree(stages / "LLP", tmp_path / "LLP")
    run = train(tmp_path / "LLP", tmp_path, "--method", "han", "--num_epochs", "1")
    path = tmp_path / "LLP/AVVP_train.csv"
    header, first, *lines = path.read_text().splitlines()
    name, events = first.split("\t")
    path.write_text("\n".join([header, f"{name}\t{'Clapping' if events != 'Clapping' else 'Dog'}", *lines]) + "\n")
    with pytest.raises(InputError, match=r"other videos \(train\)"):
        train(tmp_path / "LLP", tmp_path, "--resume", run, "--num_epochs", "2")


def test_an_evaluation_whose_page_fails_is_not_finished(stages: Path, tmp_path: Path, monkeypatch):
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    run = newest(stages / "runs", "HAN_jomold_base_")
    monkeypatch.setattr(test_han, "write_pages", fail)
    with pytest.raises(KeyboardInterrupt):
        evaluate(run, tmp_path)
    assert (tmp_path / run.name / "scores.md").exists() and not (tmp_path / run.name / "summary.json").exists()
