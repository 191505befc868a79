"""Training: the same weights whichever way the data come, after a kill, and from a run's own settings."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import pseudo_label_generation
import train_han
import train_transformer
from dataloaders.batches import DataSettings, open_split
from dataloaders.datasets import load_annotations
from dataloaders.features import feature_path, text_features_path
from models import TemporalTransformer
from test_han import find_settings
from tests.tiny_runs import assert_same_weights, evaluate, label, newest, pretrain, train
from utils.errors import InputError
from utils.evaluation.predictions import load_predictions
from utils.provenance import read_provenance
from utils.trained import newest_han
from utils.training import loop

VIDEO_LABELS_ONLY = ("--segment_labels", "none")


@pytest.fixture
def pseudo_label_dir(llp_dir, unav_dir, tmp_path) -> Path:
    return label(llp_dir, pretrain(unav_dir, tmp_path / "stage1", "--num_epochs", "1"))


def test_han_trains_to_the_same_weights_from_memory_and_from_disk(llp_dir, pseudo_label_dir, tmp_path, capsys):
    runs = [
        train(llp_dir, tmp_path / residency, "--pseudo_label_dir", pseudo_label_dir, "--residency", residency)
        for residency in ("resident", "stream")
    ]
    assert capsys.readouterr().out.count("LLP train: 0.00 GB of features") == 1
    assert_same_weights(*runs)


def test_progress_within_a_long_epoch_is_also_shown_without_a_terminal(llp_dir, tmp_path, capsys, monkeypatch):
    train(llp_dir, tmp_path / "short", *VIDEO_LABELS_ONLY)
    assert "epoch 1/" not in capsys.readouterr().err
    monkeypatch.setattr(loop, "LOG_SECONDS", 0)
    train(llp_dir, tmp_path / "long", *VIDEO_LABELS_ONLY)
    assert "epoch 1/" in capsys.readouterr().err


def test_transformer_trains_to_the_same_weights_from_memory_and_from_disk(unav_dir, tmp_path, capsys):
    runs = [pretrain(unav_dir, tmp_path / residency, "--residency", residency) for residency in ("resident", "stream")]
    assert capsys.readouterr().out.count("UnAV train: 0.00 GB of features") == 1
    assert_same_weights(*runs)


def test_stage_1_minimises_the_loss_of_videos_that_are_parsed_alone(unav_dir, tmp_path):
    flags = ("--num_epochs", "1", "--batch_size", "10", "--dropout", "0", "--lr", "1e-30")  # as good as untrained
    run = pretrain(unav_dir, tmp_path, *flags)
    state = torch.load(run / "checkpoints/last.pt", weights_only=True)
    model = TemporalTransformer.from_state(state["network"], num_heads=2, dropout=0.0)
    model.load_state_dict(state["network"])
    annotations = load_annotations("UnAV", unav_dir, "train")
    texts = [torch.from_numpy(np.load(text_features_path(unav_dir, name))) for name in ("clap", "clip")]
    total = 0.0
    for n, feature_id in enumerate(annotations.feature_ids):
        rows = [np.load(feature_path(unav_dir, name, feature_id)) for name in ("clap", "clip")]
        logits = model(*(torch.from_numpy(x)[None] for x in rows), *texts).logits
        probs = logits.audio[0].sigmoid() * logits.visual[0].sigmoid()
        labels = annotations.subset(torch.tensor([n])).labels.audio.float()
        weights = torch.where(labels.any(dim=0), 5.0, 1.0).expand_as(labels)
        total += torch.nn.functional.binary_cross_entropy(probs, labels, weights, reduction="sum").item()
    expected = total / (annotations.lengths.sum().item() * 100)
    assert state["progress"]["history"][0]["total"] == pytest.approx(expected, rel=1e-5)


def kill_at_save(monkeypatch, number: int) -> None:
    """Let the process die while it saves for the `number`-th time, after the bytes but before the file is whole."""
    saved = 0
    save = torch.save

    def dying_save(*args, **kwargs):
        nonlocal saved
        saved += 1
        save(*args, **kwargs)
        if saved == number:
            raise KeyboardInterrupt

    monkeypatch.setattr("utils.training.checkpoints.torch.save", dying_save)


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_killed_han_run_resumes_to_the_same_weights(llp_dir, pseudo_label_dir, tmp_path, monkeypatch, number):
    flags = ("--pseudo_label_dir", pseudo_label_dir, "--checkpoint_every", "2")
    whole = train(llp_dir, tmp_path / "whole", *flags)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at_save(patch, number)
        train(llp_dir, tmp_path / "killed", *flags)
    killed = newest(tmp_path / "killed", "HAN_")
    assert not (killed / "summary.json").exists()
    torch.manual_seed(99)  # whatever the new process's generator would be
    train_han.main(["--resume", str(killed)])
    assert_same_weights(whole, killed)
    assert_same_weights(whole, killed, "checkpoints/checkpoint_best.pt")
    assert_same_weights(whole, killed, "checkpoints/checkpoint_epoch_002.pt")
    assert (whole / "summary.json").read_text() == (killed / "summary.json").read_text()


def test_killed_transformer_run_resumes_to_the_same_weights(unav_dir, tmp_path, monkeypatch):
    whole = pretrain(unav_dir, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at_save(patch, 3)
        pretrain(unav_dir, tmp_path / "killed")
    killed = newest(tmp_path / "killed", "TemporalTransformer_")
    pretrain(unav_dir, tmp_path / "killed", "--resume", killed)
    assert_same_weights(whole, killed)


def test_args_yaml_repeats_a_run(llp_dir, pseudo_label_dir, tmp_path):
    first = train(llp_dir, tmp_path / "first", "--pseudo_label_dir", pseudo_label_dir, "--mixup_alpha", "0.4")
    train_han.main(["--config", str(first / "args.yaml"), "--output_dir", str(tmp_path / "second")])
    second = newest(tmp_path / "second", "HAN_")
    assert_same_weights(first, second)
    settings = [yaml.safe_load((run / "args.yaml").read_text()) for run in (first, second)]
    assert settings[0] | {"output_dir": None} == settings[1] | {"output_dir": None}
    assert settings[0]["mixup_alpha"] == 0.4


def test_another_seed_trains_to_other_weights(llp_dir, tmp_path):
    runs = [train(llp_dir, tmp_path / seed, *VIDEO_LABELS_ONLY, "--seed", seed) for seed in ("1", "2")]
    with pytest.raises(AssertionError):
        assert_same_weights(*runs, "checkpoints/checkpoint_best.pt")


@pytest.mark.parametrize(
    ("flags", "variant"),
    [
        (("--segment_labels", "hard", "--no-reweight", "--no-mixup"), "hard"),
        (("--no-reweight", "--no-mixup"), "soft"),
        (("--no-mixup", "--weight_normalization", "mean"), "soft_reweight"),
        (("--no-reweight", "--mixup_labels", "hard", "--temperature", "1"), "soft_mixup"),
        (("--mixup_labels", "ceiling", "--encoder_order", "parallel", "--pre_norm"), "soft_reweight_mixup"),
    ],
)
def test_every_variant_trains_and_names_its_folder(llp_dir, pseudo_label_dir, tmp_path, flags, variant):
    run = train(llp_dir, tmp_path / "runs", "--pseudo_label_dir", pseudo_label_dir, *flags)
    assert run.name.startswith(f"HAN_{variant}_LLP_")
    assert json.loads((run / "summary.json").read_text())["best_epoch"] >= 1


def test_run_folder_holds_what_was_promised(llp_dir, tmp_path):
    run = train(llp_dir, tmp_path / "runs", *VIDEO_LABELS_ONLY, "--checkpoint_every", "2")
    assert {path.name for path in run.iterdir() if not path.name.startswith(("events", "."))} == {
        *("args.yaml", "log.txt", "provenance.json", "summary.json", "checkpoints"),
    }
    assert {path.name for path in (run / "checkpoints").iterdir()} == {
        *("checkpoint_best.pt", "checkpoint_epoch_002.pt", "last.pt"),
    }
    assert (run / "log.txt").read_text().count("epoch ") == 4  # three epochs and which was best


def test_tensorboard_shows_losses_learning_rate_gradient_norm_and_scores(llp_dir, pseudo_label_dir, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(llp_dir, tmp_path / "runs", "--pseudo_label_dir", pseudo_label_dir)
    events = EventAccumulator(str(run))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {f"train/{name}" for name in ("total", "video", "audio_segment", "visual_mixup")} <= tags
    assert {"train/learning_rate", "train/gradient_norm", "val/segment_Type", "val/event_Event"} <= tags
    assert [event.step for event in events.Scalars("train/total")] == [1, 2, 3]


def test_learning_rate_follows_the_schedule(llp_dir, tmp_path):
    run = train(
        llp_dir,
        tmp_path / "runs",
        *VIDEO_LABELS_ONLY,
        *("--num_epochs", "4", "--warmup_epochs", "2", "--lr", "0.1", "--lr_min", "0.02"),
    )
    history = torch.load(run / "checkpoints/last.pt", weights_only=True)["progress"]["history"]
    assert [epoch["learning_rate"] for epoch in history] == pytest.approx([0.05, 0.1, 0.06, 0.02])


def test_loss_that_is_not_finite_stops_the_run(llp_dir, tmp_path):
    with pytest.raises(InputError, match=r"non-finite .* in epoch"):
        train(llp_dir, tmp_path / "runs", *VIDEO_LABELS_ONLY, "--lr", "1e30", "--clip_norm", "1e30")


def test_settings_of_another_script_are_refused(llp_dir, unav_dir, tmp_path):
    run = pretrain(unav_dir, tmp_path / "stage1", "--num_epochs", "1")
    with pytest.raises(InputError, match="unknown settings"):
        train(llp_dir, tmp_path / "runs", "--config", run / "args.yaml")


def test_a_named_run_is_found_like_any_other(llp_dir, unav_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # not among the runs of whoever runs the tests
    named = ("--num_epochs", "1", "--name", "first_try")
    transformer = pretrain(unav_dir, tmp_path, *named[:2])
    train_transformer.main(["--config", str(transformer / "args.yaml"), *named])
    (transformer,) = tmp_path.glob("TemporalTransformer_first_try_UnAV_*")
    pseudo_label_generation.main(["--data_dir", str(llp_dir), "--runs_dir", str(tmp_path), "--device", "cpu"])
    run = train(llp_dir, tmp_path, *named)
    assert run.name.startswith("HAN_first_try_LLP_")
    settings = yaml.safe_load((run / "args.yaml").read_text())
    assert settings["pseudo_label_dir"] == str(transformer / "LLP_Dataset")
    assert find_settings(["--runs_dir", str(tmp_path)]).checkpoint_dir == run == newest_han(tmp_path)


def test_labels_are_found_among_the_runs_of_old_for_a_run_that_goes_elsewhere(llp_dir, unav_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = label(llp_dir, pretrain(unav_dir, Path("temp_train_logs"), "--num_epochs", "1"))
    run = train(llp_dir, tmp_path / "elsewhere", "--num_epochs", "1")
    assert yaml.safe_load((run / "args.yaml").read_text())["pseudo_label_dir"] == str(labels)


@pytest.mark.parametrize("stage", [1, 3])
def test_a_run_says_where_and_how_long_it_was_trained_in_all_its_parts(stage, llp_dir, unav_dir, tmp_path):
    begin, resume = (pretrain, train_transformer.main) if stage == 1 else (train, train_han.main)
    flags = ("--num_epochs", "1", *(VIDEO_LABELS_ONLY if stage == 3 else ()))
    run = begin(unav_dir if stage == 1 else llp_dir, tmp_path, *flags)
    first = read_provenance(run).seconds
    resume(["--resume", str(run), "--num_epochs", "2"])
    history = torch.load(run / "checkpoints/last.pt", weights_only=True)["progress"]["history"]
    seconds = sum(epoch["train_seconds"] + epoch["validation_seconds"] for epoch in history)
    assert len(history) == 2 and read_provenance(run).seconds == pytest.approx(seconds, abs=0.01) and seconds > first
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["device"], summary["threads"]) == ("cpu", torch.get_num_threads())


def test_training_without_pseudo_labels_says_what_to_run_first(llp_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"stage 1 \(train_transformer\.py\).* stage 2 \(pseudo_label_generation\.py\)"
    ):
        train(llp_dir, tmp_path / "nothing")


def test_state_of_another_network_is_not_resumed(llp_dir, tmp_path):
    run = train(llp_dir, tmp_path / "runs", *VIDEO_LABELS_ONLY)
    settings = yaml.safe_load((run / "args.yaml").read_text())
    (run / "args.yaml").write_text(yaml.safe_dump(settings | {"dim": 32}))
    with pytest.raises(InputError, match="a state that does not fit"):
        train_han.main(["--resume", str(run)])


def test_missing_features_stop_training_and_are_left_out_on_request(llp_dir, tmp_path):
    for feature in ("feats/vggish", "feats/res152"):
        (llp_dir / feature / "tr000000000.npy").unlink()
    with pytest.raises(InputError, match="tr000000000"):
        train(llp_dir, tmp_path / "runs", *VIDEO_LABELS_ONLY)
    run = train(llp_dir, tmp_path / "runs", *VIDEO_LABELS_ONLY, "--allow_missing")
    assert "13 training videos" in (run / "log.txt").read_text()
    for feature in ("feats/vggish", "feats/r2plus1d_18"):
        next((llp_dir / feature).glob("te*.npy")).unlink()
    marks = "13 of 14 LLP train videos"
    assert read_provenance(run).note == marks
    evaluated = evaluate(run, tmp_path / "logs")  # the run remembers that videos may be missing
    scores, number = (evaluated / "scores.txt").read_text(), len(load_predictions(evaluated, "test").sample_ids)
    assert f"{number} of {number + 1} LLP test videos" in scores and marks in scores
    assert f"{number} of {number + 1} LLP test videos" in (evaluated / "timelines.html").read_text()


def test_input_widths_follow_from_the_chosen_features(llp_dir, tmp_path):
    run = train(
        llp_dir,
        tmp_path / "runs",
        *VIDEO_LABELS_ONLY,
        *("--audio_features", "clap", "--visual_features", "clip", "r2plus1d_18"),
    )
    weights = torch.load(run / "checkpoints/checkpoint_best.pt", weights_only=True)
    assert weights["fc_a.layers.0.weight"].shape[1] == 9
    assert weights["fc_fusion.layers.0.weight"].shape[1] == 12 + 8


def test_bf16_trains_close_to_float32(llp_dir, pseudo_label_dir, tmp_path):
    losses = []
    for precision in ("float32", "bf16"):
        run = train(
            llp_dir,
            tmp_path / precision,
            *("--pseudo_label_dir", pseudo_label_dir, "--precision", precision, "--dropout", "0"),
        )
        history = torch.load(run / "checkpoints/last.pt", weights_only=True)["progress"]["history"]
        losses.append(history[-1]["total"])
        weights = torch.load(run / "checkpoints/checkpoint_best.pt", weights_only=True)
        assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    assert math.isclose(*losses, rel_tol=0.02)
    assert losses[0] != losses[1]


def test_batches_run_over_every_video_once_in_another_order_each_epoch(llp_dir):
    split = open_split("LLP", "train", DataSettings(data_dir=llp_dir), torch.device("cpu"))
    whole = next(split.in_order(100)).features.audio
    orders = []
    for epoch in (1, 2):
        audio = torch.cat([batch.features.audio for batch in split.shuffled(4, seed=0, epoch=epoch)])
        matches = (audio.flatten(1)[:, None] == whole.flatten(1)[None]).all(-1)  # (N, N)
        assert (matches.sum(0) == 1).all() and (matches.sum(1) == 1).all()
        orders.append(matches.float().argmax(1).tolist())
    assert orders[0] != orders[1]


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for the CPU needs g++")
@pytest.mark.parametrize(("dropout", "tolerance"), [("0", 1e-4), ("0.1", 0.1)])  # compiled code draws other numbers
def test_compiled_network_trains_to_the_same_losses(llp_dir, tmp_path, dropout, tolerance):
    flags = (*VIDEO_LABELS_ONLY, "--dropout", dropout, "--num_layers", "1", "--batch_size", "7")
    histories = []
    for flag in ("--no-compile", "--compile"):
        run = train(llp_dir, tmp_path / flag, *flags, flag)
        histories.append(torch.load(run / "checkpoints/last.pt", weights_only=True)["progress"]["history"])
    for eager, compiled in zip(*histories, strict=True):
        assert compiled["total"] == pytest.approx(eager["total"], rel=tolerance)


def test_deterministic_training_equals_itself_and_the_default_on_the_cpu(llp_dir, tmp_path):
    try:
        runs = [
            train(llp_dir, tmp_path / str(n), *VIDEO_LABELS_ONLY, *flags)
            for n, flags in enumerate([("--deterministic",), ("--deterministic",), ()])
        ]
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same_weights(runs[0], runs[1])
    assert_same_weights(runs[0], runs[2])
