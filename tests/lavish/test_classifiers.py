"""lavish/train_classifier.py and lavish/test_classifier.py on a few generated clips."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("timm", reason="LAVISH wraps networks of timm")
pytest.importorskip("av", reason="clips are decoded by PyAV")

from dataloaders.ave import AVE_CLASSES
from lavish import clip_tasks as evaluation
from lavish import prepare_clips, test_classifier, train_classifier
from lavish.clip_networks import make_clip_network
from lavish.clip_settings import clip_recipe
from simulation import generated_clips
from simulation.generated_clips import draw, play, save_clip
from tests.tiny_clips import tiny_flags, write_tiny_ucf
from tests.tiny_runs import newest
from utils.errors import InputError
from utils.settings import parse_settings
from utils.training import loop
from utils.training.checkpoints import load_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_ucf(tmp_path_factory.mktemp("ucf"))


def train(folder: Path, output_dir: Path, *flags: str) -> Path:
    train_classifier.main(tiny_flags(folder, "--output_dir", str(output_dir), *flags))
    return max(output_dir.glob("Clips_*"), key=lambda path: path.stat().st_mtime_ns)


def tiny_settings(folder: Path, *flags: str) -> train_classifier.Settings:
    argv = tiny_flags(folder, *flags)
    return parse_settings(clip_recipe(train_classifier.Settings(), argv), "", argv)


def last_state(run: Path) -> dict:
    return load_checkpoint(run / loop.LAST_STATE)


def assert_same(state: dict, other: dict) -> None:
    assert state.keys() == other.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, other[name]), name


def test_training_leaves_frozen_weights_bitwise_as_they_were(folder: Path, tmp_path: Path):
    torch.manual_seed(0)
    before = make_clip_network(tiny_settings(folder), 2).state_dict()
    after = last_state(train(folder, tmp_path))["network"]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any(name.startswith("backbone.") for name in changed)
    assert {"vis_adapter_blocks_p1.0.gate", "audio_adapter_blocks_p2.0.gate", "mlp_class.weight"} <= changed


@pytest.mark.parametrize("flags", [["--flip", "--random_crop", "--max_masked_bands", "4"], ["--model", "late_fusion"]])
def test_a_killed_run_resumes_to_bitwise_the_same_end(folder: Path, tmp_path: Path, monkeypatch, flags: list[str]):
    whole = last_state(train(folder, tmp_path / "whole", *flags))
    classify, calls = evaluation.classify, []

    def killed(*inputs):
        calls.append(1)
        if len(calls) == 6:  # three steps and two batches of validation make an epoch
            raise KeyboardInterrupt
        return classify(*inputs)

    monkeypatch.setattr(train_classifier, "classify", killed)
    monkeypatch.setattr(evaluation, "classify", killed)
    with pytest.raises(KeyboardInterrupt):
        train(folder, tmp_path / "killed", *flags)
    monkeypatch.undo()
    (run,) = (tmp_path / "killed").glob("Clips_*")
    assert last_state(run)["progress"]["epoch"] in (1, 2)
    train_classifier.main(["--resume", str(run)])
    resumed = last_state(run)
    assert_same(resumed["network"], whole["network"])
    timeless = [
        [{k: v for k, v in epoch.items() if not k.endswith("seconds")} for epoch in s["progress"]["history"]]
        for s in (resumed, whole)
    ]
    assert timeless[0] == timeless[1]


def test_accumulated_parts_of_a_batch_give_the_step_of_the_whole_batch(folder: Path, tmp_path: Path):
    flags = ["--model", "late_fusion", "--num_epochs", "1", "--batch_size", "8"]
    whole = last_state(train(folder, tmp_path / "whole", *flags))["network"]
    parts = last_state(train(folder, tmp_path / "parts", *flags, "--accumulate", "4"))["network"]
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
    assert not torch.equal(
        whole["mlp_class.weight"],
        make_clip_network(tiny_settings(folder, *flags), 2).mlp_class.weight,
    )


def test_the_released_recipe_of_ave_steps_twice_after_every_eighth_batch_and_the_last(
    folder: Path, tmp_path: Path, monkeypatch
):
    recipe = clip_recipe(train_classifier.Settings(), []).recipe
    assert (recipe.second_step_every, recipe.keep) == (8, "last_best")
    steps = []
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: steps.append(1))
    for every, expected in ((None, 2), ("8", 3), ("1", 4)):  # two batches an epoch
        steps.clear()
        train(
            folder, tmp_path / f"runs{every}", "--num_epochs", "1", *(["--second_step_every", every] if every else [])
        )
        assert len(steps) == expected


def test_the_head_learns_at_its_own_rate(folder: Path, tmp_path: Path):
    state = last_state(train(folder, tmp_path, "--lr", "1e-3", "--head_lr", "1e-4"))
    rates = {group["lr"]: len(group["params"]) for group in state["optimizer"]["param_groups"]}
    assert sorted(rates) == pytest.approx([1e-4, 1e-3]) and rates[min(rates)] == 4


def test_training_stops_when_patience_is_out(folder: Path, tmp_path: Path):
    state = last_state(
        train(folder, tmp_path, "--patience", "1", "--num_epochs", "9", "--lr", "1e-9", "--head_lr", "1e-9")
    )
    assert state["progress"]["epoch"] == 2 and state["progress"]["best_epoch"] == 1


def test_chosen_on_test_nothing_is_held_out_of_training(folder: Path, tmp_path: Path, capsys):
    train(folder, tmp_path, "--num_epochs", "1", "--select_on", "test")
    assert "12 training clips, 4 clips of test to select" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags",
    [
        ["--model", "vit_visual"],
        ["--model", "vit_visual", "--train_backbone"],
        ["--model", "vit_audio"],
        [
            *["--backbone", "swinv2_tiny_window8_256", "--image_size", "32", "--backbone_sizes"],
            *["window_size=4", "embed_dim=24"],
        ],
        ["--model", "lavish", "--no-cross_modal", "--train_norms"],
        ["--model", "lavish", "--temporal", "transformer", "--precision", "bf16", "--checkpoint_blocks"],
    ],
)
def test_every_model_trains_and_is_evaluated(folder: Path, tmp_path: Path, flags: list[str]):
    run = train(folder, tmp_path, "--num_epochs", "1", *flags)
    test_classifier.main(["--checkpoint_dir", str(run), "--logs_dir", str(tmp_path / "logs"), "--device", "cpu"])
    results = tmp_path / "logs" / run.name
    table = json.loads((results / "scores.json").read_text())
    assert [row["labels"]["Split"] for row in table["rows"]] == ["val", "test"]
    assert table["rows"][0]["values"].keys() == {"top-1", "top-5", "M parameters trained", "M parameters all"}
    assert "random backbone" in table["rows"][0]["note"] or "--train_backbone" in flags
    for name in ("per_class_test.csv", "confusion_test.csv", "confusion_test.png", "probabilities_val.pt"):
        assert (results / name).stat().st_size > 0
    best = json.loads((run / "summary.json").read_text())
    assert table["rows"][0]["values"]["top-1"]["mean"] == pytest.approx(best["top1"], abs=1e-6)


@pytest.mark.parametrize("fusion", ["attention", "i3d"])
def test_i3d_and_soundnet_train_on_frames_and_waveforms(folder: Path, tmp_path: Path, fusion: str):
    flags = ["--model", "i3d_soundnet", "--sound", "waveform", "--waveform_seconds", "1.2", "--fusion", fusion]
    run = train(folder, tmp_path, "--num_epochs", "1", "--image_size", "20", "--packed_frames", "4", *flags)
    test_classifier.main(["--checkpoint_dir", str(run), "--logs_dir", str(tmp_path / "logs"), "--device", "cpu"])
    evaluated = json.loads((tmp_path / "logs" / run.name / "summary.json").read_text())["val"]["top1"]
    assert evaluated == pytest.approx(json.loads((run / "summary.json").read_text())["top1"])
    settings = tiny_settings(folder, "--image_size", "20", "--packed_frames", "4", *flags)
    first, trained = make_clip_network(settings, 2).state_dict(), load_checkpoint(run / loop.BEST_CHECKPOINT)
    assert first.keys() == trained.keys() and any("classifier" in name for name in trained)


def write_tiny_ave(folder: Path) -> Path:
    """Six videos of ten seconds: one class or background in every second."""
    rng = np.random.default_rng(0)
    lines = []
    for n in range(6):
        save_clip(folder / f"videos/{n:011d}.avi", draw("disc", 24, rng, 100), play(400.0 * (1 + n % 2), 10.0, rng))
        lines.append(f"{AVE_CLASSES[n % 2]}&{n:011d}&good&{n}&10")
    (folder / "Annotations.txt").write_text("Category&VideoID&Quality&StartTime&EndTime\n" + "\n".join(lines) + "\n")
    for name, chosen in {"trainSet": lines[:4], "valSet": lines[4:5], "testSet": lines[5:]}.items():
        (folder / f"{name}.txt").write_text("\n".join(chosen) + "\n")
    return folder


def ave_flags(folder: Path, *more: str) -> list[str]:
    """Flags of lavish/train_classifier.py for the tiny AVE."""
    flags = tiny_flags(folder)
    flags[flags.index("--dataset") + 1] = "AVE"
    flags[flags.index("--annotations_dir") + 1] = str(folder)
    flags[flags.index("--packed_frames") + 1] = "10"
    return [*flags, *more]


def test_ave_is_learned_second_by_second_and_its_table_is_marked_as_supervised(tmp_path: Path):
    folder = write_tiny_ave(tmp_path / "ave")
    train_classifier.main(ave_flags(folder, "--output_dir", str(tmp_path / "runs")))
    (run,) = (tmp_path / "runs").glob("Clips_lavish_AVE_*")
    test_classifier.main(["--checkpoint_dir", str(run), "--logs_dir", str(tmp_path / "logs"), "--device", "cpu"])
    rows = json.loads((tmp_path / "logs" / run.name / "scores.json").read_text())["rows"]
    assert "supervised" in rows[0]["note"]
    assert {row["labels"]["Method"] for row in rows} >= {"UWAV", "LAVISH", run.name}
    counts = (tmp_path / "logs" / run.name / "per_class_test.csv").read_text()
    assert counts.count("background") == 1 and "Seconds true" in counts


def test_videos_of_ave_without_sound_are_refused_left_out_or_kept_as_silence(tmp_path: Path, capsys):
    folder = write_tiny_ave(tmp_path / "ave")
    save_clip(folder / f"videos/{1:011d}.avi", draw("disc", 24, np.random.default_rng(0), 100), None)
    flags = ave_flags(folder, "--num_epochs", "0")
    with pytest.raises(InputError, match=r"1 of 6 items without an audio track .*: 00000000001; .*--allow_missing"):
        train_classifier.main(flags)
    capsys.readouterr()
    for more, said in {"--allow_missing": "3 training clips", "--no-sound_only": "4 training clips"}.items():
        train_classifier.main([*flags, more])
        assert said in capsys.readouterr().out
    train_classifier.main([*flags, "--allow_missing", "--num_epochs", "1", "--output_dir", str(tmp_path / "partial")])
    run = newest(tmp_path / "partial", "")
    test_classifier.main(["--checkpoint_dir", str(run), "--logs_dir", str(tmp_path / "logs"), "--device", "cpu"])
    assert "1 AVE train clips missing" in (tmp_path / "logs" / run.name / "scores.txt").read_text()


@pytest.mark.parametrize("flags", [["--num_frames", "5"], ["--packed_frames", "8"]])
def test_ave_needs_a_frame_for_each_of_its_ten_seconds(tmp_path: Path, flags: list[str]):
    folder = write_tiny_ave(tmp_path / "ave")
    with pytest.raises(InputError, match=f"{flags[0]}: found {flags[1]}; expected 10 for AVE"):
        train_classifier.main(ave_flags(folder, *flags))
    assert not (folder / "packed_clips").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--accumulate", "3"], "a divisor of --batch_size"),
        (["--temporal", "none"], "mean or transformer for UCF101"),
        (["--sound", "waveform"], "expected waveform for i3d_soundnet"),
        (["--backbone", "resnet18"], "ViT or SwinV2"),
        (["--backbone", "unheard_of"], "ViT or SwinV2"),
        (["--backbone_sizes", "embed_dim=15"], "ViT or SwinV2"),
        (["--num_frames", "5"], "were packed"),
        (["--groups", "3"], "groups"),
        (
            ["--backbone", "swinv2_tiny_window8_256", "--backbone_sizes", "window_size=2"],
            "which has a fixed input size",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_way_out(folder: Path, flags: list[str], message: str):
    with pytest.raises(InputError, match=message):
        train_classifier.main(tiny_flags(folder, *flags))


def test_a_released_checkpoint_is_evaluated_without_training(folder: Path, tmp_path: Path):
    trained = train(folder, tmp_path / "own", "--num_epochs", "1")
    own = load_checkpoint(trained / loop.BEST_CHECKPOINT)
    released = {name.replace("backbone.", "ViT.v.", 1): tensor for name, tensor in own.items()}
    torch.save(released | {"adapter_token_downsampler.0.weight": torch.zeros(2, 2)}, tmp_path / "released.pt")
    run = train(folder, tmp_path, "--num_epochs", "0", "--network_weights", str(tmp_path / "released.pt"))
    assert_same(load_checkpoint(run / loop.BEST_CHECKPOINT), own)
    scores = []
    for one in (run, trained):
        test_classifier.main(["--checkpoint_dir", str(one), "--logs_dir", str(tmp_path / "logs"), "--device", "cpu"])
        scores.append(json.loads((tmp_path / "logs" / one.name / "summary.json").read_text()))
    assert scores[0] == scores[1] and scores[0].keys() == {"val", "test"}


def test_weights_of_another_network_are_refused(folder: Path, tmp_path: Path):
    torch.save({"mlp_class.weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="weights of another architecture"):
        train_classifier.main(tiny_flags(folder, "--network_weights", str(tmp_path / "other.pt")))


def evaluate(run: Path, logs_dir: Path, *flags: str) -> list[dict]:
    """The rows of the scores of a run."""
    argv = ["--checkpoint_dir", str(run), "--logs_dir", str(logs_dir), "--device", "cpu", *flags]
    test_classifier.main(argv)
    return json.loads((logs_dir / run.name / "scores.json").read_text())["rows"]


def test_a_run_chosen_on_test_is_marked_and_not_evaluated_on_what_it_was_trained_on(
    folder: Path, tmp_path: Path, capsys
):
    run = train(folder, tmp_path, "--num_epochs", "1", "--select_on", "test")
    capsys.readouterr()
    (row,) = evaluate(run, tmp_path / "logs")
    assert row["labels"]["Split"] == "test" and "best epoch chosen on test" in row["note"]
    assert "val: not evaluated" in capsys.readouterr().out
    results = tmp_path / "logs" / run.name
    for name in ("scores.txt", "per_class_test.csv", "confusion_test.csv"):
        assert "best epoch chosen on test" in (results / name).read_text()
    with pytest.raises(InputError, match="moved them to training"):
        evaluate(run, tmp_path / "logs", "--splits", "val")


def test_a_run_chosen_on_val_bears_no_such_mark(folder: Path, tmp_path: Path):
    rows = evaluate(train(folder, tmp_path, "--num_epochs", "1"), tmp_path / "logs")
    assert not any("chosen on test" in row["note"] for row in rows)


@pytest.mark.parametrize("summary", [None, "", "{", "[]", "{}", '{"trained_parameters": "9", "parameters": 9}'])
def test_a_run_whose_summary_is_absent_or_damaged_is_refused_before_anything_is_computed(
    folder: Path, tmp_path: Path, monkeypatch, summary: str | None
):
    run = tmp_path / "run"
    run.mkdir()
    (run / "args.yaml").write_text("model: lavish\npieces: false\ndataset: UCF101\n")
    if summary is not None:
        (run / "summary.json").write_text(summary)
    monkeypatch.setattr("lavish.clip_networks.open_clips", lambda settings: pytest.fail("data were opened"))
    with pytest.raises(InputError, match=r"summary\.json: found no summary.*--resume"):
        evaluate(run, tmp_path / "logs")


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_empty_split_is_an_error(tmp_path: Path, split: str):
    folder = write_tiny_ucf(tmp_path / "ucf", clips=1)
    name = {"val": "trainlist01.txt", "test": "testlist01.txt"}[split]
    path = folder / "lists" / name
    lines = path.read_text().splitlines()
    # One group to train on leaves none to hold out; without sound nothing is left to test on.
    path.write_text("\n".join(line for line in lines if ("_g02" if split == "val" else "Mime") in line) + "\n")
    with pytest.raises(InputError, match=f"split {split}: found no clips"):
        train(folder, tmp_path, "--select_on", split)


@pytest.mark.parametrize(
    "flags",
    [["--packed_frames", str(9 * 10**18)], ["--waveform_seconds", "1e-9"], ["--head_dim", str(10**12)]],
)
def test_absurd_sizes_are_refused(folder: Path, flags: list[str]):
    with pytest.raises(InputError, match=f"{flags[0]}: .*(greater|less) than or equal"):
        tiny_settings(folder, *flags)


def test_defaults_depend_on_the_data_set_and_on_pieces(folder: Path):
    assert tiny_settings(folder).recipe.patience is None
    assert train_classifier.ClipRecipe().patience == 5
    waveform = tiny_settings(folder, "--model", "i3d_soundnet").data
    assert waveform.format.waveform_seconds == 10.0
    assert tiny_settings(folder, "--model", "i3d_soundnet", "--pieces").data.format.waveform_seconds == 3.2


def test_preparing_takes_the_settings_of_a_training(folder: Path, tmp_path: Path, capsys, monkeypatch):
    run = train(folder, tmp_path, "--num_epochs", "0", "--flip")
    capsys.readouterr()
    monkeypatch.setattr("lavish.packing.decode_clip", lambda *args: pytest.fail("packed anew"))
    prepare_clips.main(["--config", str(run / "args.yaml")])
    assert "16 items packed" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--flip", "--num_frames", "--lr"])
def test_preparing_offers_no_flag_that_changes_nothing(flag: str, capsys):
    with pytest.raises(SystemExit):
        prepare_clips.main(["--help"])
    assert f"{flag} " not in capsys.readouterr().out


@pytest.mark.parametrize("script", ["prepare", "train", "test"])
def test_every_script_uses_the_interpreter_of_the_environment(script: str):
    lines = (Path(__file__).parents[2] / f"scripts/lavish/{script}.sh").read_text().splitlines()
    assert "source scripts/python.sh" in lines
    assert any(line.startswith('"$PYTHON" ') for line in lines)
    assert not any(line.startswith("python ") for line in lines)


@pytest.mark.parametrize("flags", [["--size", "0"], ["--size", "17"], ["--seconds", "nan"], ["--clips_per_group", "0"]])
def test_videos_that_cannot_be_generated_are_refused(tmp_path: Path, flags: list[str]):
    with pytest.raises(InputError, match=flags[0]):
        generated_clips.main(["--output_dir", str(tmp_path / "videos"), *flags])
    assert not (tmp_path / "videos").exists()


def test_weights_that_are_not_finite_are_not_evaluated(folder: Path, tmp_path: Path):
    run = train(folder, tmp_path, "--num_epochs", "1")
    state = load_checkpoint(run / loop.BEST_CHECKPOINT)
    torch.save(state | {"mlp_class.weight": state["mlp_class.weight"] * float("nan")}, run / loop.BEST_CHECKPOINT)
    with pytest.raises(InputError, match=r"not finite numbers, such as mlp_class\.weight"):
        evaluate(run, tmp_path / "logs")


def test_a_classifier_is_held_against_the_lists_that_it_learned(folder: Path, tmp_path: Path):
    run, lists = train(folder, tmp_path, "--num_epochs", "1"), tmp_path / "lists"
    shutil.copytree(folder / "lists", lists)
    evaluate(run, tmp_path / "logs", "--annotations_dir", str(lists))
    numbered = (lists / "classInd.txt").read_text()
    train_list = (lists / "trainlist01.txt").read_text()
    (lists / "classInd.txt").write_text("1 Drum\n2 Clap\n3 Mime\n")
    swapped = {"Clap": "2", "Drum": "1", "Mime": "3"}
    lines = [f"{line.split()[0]} {swapped[line.partition('/')[0]]}" for line in train_list.splitlines()]
    (lists / "trainlist01.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"classes: Clap, Drum; expected Drum, Clap"):
        evaluate(run, tmp_path / "logs", "--annotations_dir", str(lists))
    (lists / "classInd.txt").write_text(numbered)
    kept = [line for line in train_list.splitlines() if "g03_c01" not in line]  # which the test list has now
    (lists / "trainlist01.txt").write_text("\n".join(kept) + "\n")
    with (lists / "testlist01.txt").open("a") as file:
        file.write("Clap/v_Clap_g03_c01.avi\n")
    with pytest.raises(InputError, match=r"other videos \(train\)"):
        evaluate(run, tmp_path / "logs", "--annotations_dir", str(lists))


def test_a_run_does_not_go_on_with_other_clips(folder: Path, tmp_path: Path):
    shutil.copytree(folder, tmp_path / "ucf")
    run = train(tmp_path / "ucf", tmp_path, "--num_epochs", "1")
    lists = tmp_path / "ucf/lists/trainlist01.txt"
    lists.write_text("".join(lists.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(InputError, match=r"other videos \("):
        train(tmp_path / "ucf", tmp_path, "--resume", str(run), "--num_epochs", "2")
