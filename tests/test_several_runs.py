"""Several runs trained together: each as it would be trained alone."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml

import find_exchange
import test_han
import train_han
from dataloaders.batches import Batch
from models import HAN
from models.layers import Dropout, MultiheadAttention
from models.streams import RandomStreams, drawn_per_run
from tests.test_training import VIDEO_LABELS_ONLY, kill_at_save
from tests.tiny_runs import assert_same_weights, evaluate, label, newest, pretrain, train
from utils.errors import InputError
from utils.networks import SingleNetwork, StackedNetworks
from utils.predictions import load_predictions

CPU = torch.device("cpu")
CANCELLED = ("fc_frame_att.layers.0.bias", "fc_av_att.layers.0.bias")
THREE = ("--num_runs", "3", "--seed", "7")
OTHER_LOSSES = (
    "--guided_labels",
    "video",
    "--contrastive_weight",
    "1",
    "--decoding",
    "modality",
    "--optimizer",
    "adam",
)


@pytest.fixture
def pseudo_label_dir(llp_dir, unav_dir, tmp_path) -> Path:
    return label(llp_dir, pretrain(unav_dir, tmp_path / "stage1", "--num_epochs", "1"))


def with_effect(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All but the biases that a softmax cancels: their gradients are rounding errors, which Adam blows up."""
    kept = {name: value for name, value in weights.items() if name not in CANCELLED}
    for name in kept:
        if name.endswith("in_proj_bias"):
            query, _, value = kept[name].chunk(3)
            kept[name] = torch.cat([query, value])
    return kept


def last_state(run: Path) -> dict:
    return torch.load(run / "checkpoints/last.pt", weights_only=True)


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--pre_norm", "--encoder_order", "parallel", "--mixup_labels", "ceiling", "--clip_norm", "0.05"),
        (*VIDEO_LABELS_ONLY, *OTHER_LOSSES, "--clip_norm", "inf", "--visual_fusion", "projected"),
        ("--precision", "bf16"),
    ],
)
def test_runs_trained_together_equal_those_trained_alone(llp_dir, pseudo_label_dir, tmp_path, flags):
    flags = (*flags, "--pseudo_label_dir", pseudo_label_dir, "--dropout", "0.3", "--lr", "1e-4")
    together = train(llp_dir, tmp_path / "together", *flags, *THREE)
    state = last_state(together)
    rounded = "bf16" in flags  # then a score may change with one decision
    tolerance = 5e-3 if rounded else 1e-5
    for run, seed in enumerate((7, 8, 9)):
        alone = last_state(train(llp_dir, tmp_path / "alone" / str(seed), *flags, "--seed", str(seed)))
        histories = zip(state["progress"][run]["history"], alone["progress"][0]["history"], strict=True)
        for here, there in histories:
            names = ["total", "video", "gradient_norm"] if rounded else [n for n in there if n != "train_seconds"]
            assert [here[n] for n in names] == pytest.approx([there[n] for n in names], rel=tolerance, abs=tolerance)
        assert torch.equal(state["generators"][run][0], alone["generators"][0])  # the same numbers were drawn
        if not rounded:
            here = {name: value[run] for name, value in state["network"].items()}
            torch.testing.assert_close(with_effect(here), with_effect(alone["network"]), rtol=1e-4, atol=1e-5)


def test_runs_trained_together_differ(llp_dir, tmp_path):
    runs = last_state(train(llp_dir, tmp_path, *VIDEO_LABELS_ONLY, *THREE))["progress"]
    assert len({run["history"][-1]["total"] for run in runs}) == 3


def test_runs_on_ave_trained_together_equal_one_trained_alone(ave_dir, tmp_path):
    flags = ("--dataset", "AVE", *VIDEO_LABELS_ONLY)
    together = last_state(train(ave_dir, tmp_path / "together", *flags, *THREE))["progress"][1]["history"]
    alone = last_state(train(ave_dir, tmp_path / "alone", *flags, "--seed", "8"))["progress"][0]["history"]
    assert [e["total"] for e in together] == pytest.approx([e["total"] for e in alone], rel=1e-5)


def test_runs_trained_together_are_the_same_from_memory_and_from_disk(llp_dir, tmp_path):
    runs = [
        train(llp_dir, tmp_path / residency, *VIDEO_LABELS_ONLY, *THREE, "--residency", residency)
        for residency in ("resident", "stream")
    ]
    assert_same_weights(*runs)


@pytest.mark.parametrize("number", [2, 4, 6])
def test_killed_runs_resume_to_the_same_weights(llp_dir, pseudo_label_dir, tmp_path, monkeypatch, number):
    flags = ("--pseudo_label_dir", pseudo_label_dir, "--num_runs", "2")
    whole = train(llp_dir, tmp_path / "whole", *flags)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at_save(patch, number)
        train(llp_dir, tmp_path / "killed", *flags)
    killed = newest(tmp_path / "killed", "HAN_")
    torch.manual_seed(99)
    train_han.main(["--resume", str(killed)])
    assert_same_weights(whole, killed)
    for run in ("run_20000", "run_20001"):
        assert_same_weights(whole / run, killed / run, "checkpoints/checkpoint_best.pt")
        assert (whole / run / "summary.json").read_text() == (killed / run / "summary.json").read_text()


def test_each_run_has_its_own_checkpoints_tables_and_the_report_has_mean_and_deviation(llp_dir, tmp_path):
    together = train(llp_dir, tmp_path / "runs", *VIDEO_LABELS_ONLY, *THREE, "--checkpoint_every", "2")
    logs = evaluate(together, tmp_path / "logs")
    summary = json.loads((logs / "summary.json").read_text())
    assert list(summary) == ["run_7", "run_8", "run_9"]
    for name in summary:
        assert (together / name / "checkpoints/checkpoint_epoch_002.pt").exists()
        assert json.loads((logs / name / "summary.json").read_text()) == summary[name]
        evaluate(together / name, tmp_path / "one_by_one")
        alone = tmp_path / "one_by_one" / together.name / name
        for table in ("scores.csv", "per_class_test.csv"):
            assert (alone / table).read_text() == (logs / name / table).read_text()
    rows = json.loads((logs / "scores.json").read_text())["rows"]
    cell = next(row for row in rows if row["labels"]["Split"] == "test")["values"]["Segment-level Type"]
    values = torch.tensor([run["test"]["segment_Type"] for run in summary.values()], dtype=torch.float64)
    assert cell == {"mean": pytest.approx(values.mean().item()), "std": pytest.approx(values.std().item()), "runs": 3}
    assert "3 runs" in (logs / "scores.txt").read_text()


def test_the_newest_runs_are_found_and_one_checkpoint_of_them_can_be_evaluated(llp_dir, tmp_path):
    together = train(llp_dir, tmp_path / "runs", *VIDEO_LABELS_ONLY, *THREE)
    flags = ["--runs_dir", str(tmp_path / "runs"), "--num_figures", "0", "--device", "cpu", "--splits", "val"]
    test_han.main([*flags, "--logs_dir", str(tmp_path / "logs")])
    logs = tmp_path / "logs" / together.name
    assert (logs / "run_9/scores.txt").exists()
    one = together / "run_8/checkpoints/checkpoint_best.pt"
    own = ["--checkpoint", str(one), "--data_dir", str(llp_dir), "--num_heads", "2"]
    test_han.main([*flags, *own, "--output_dir", str(tmp_path / "one")])
    summary = json.loads((logs / "summary.json").read_text())
    assert json.loads((tmp_path / "one/summary.json").read_text()) == summary["run_8"]


def test_a_run_of_several_is_repeated_alone_from_its_settings(llp_dir, tmp_path):
    together = train(llp_dir, tmp_path / "runs", *VIDEO_LABELS_ONLY, *THREE)
    settings = yaml.safe_load((together / "run_8/args.yaml").read_text())
    assert (settings["seed"], settings["num_runs"]) == (8, 1)
    train_han.main(["--config", str(together / "run_8/args.yaml"), "--output_dir", str(tmp_path / "alone")])
    alone = json.loads((newest(tmp_path / "alone", "HAN_") / "summary.json").read_text())
    assert alone == json.loads((together / "run_8/summary.json").read_text())


@pytest.mark.parametrize(
    ("flags", "message"), [(("--num_runs", "0"), "at least 1"), ((*THREE, "--compile"), "one run")]
)
def test_impossible_numbers_of_runs_are_refused(llp_dir, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        train(llp_dir, tmp_path, *VIDEO_LABELS_ONLY, *flags)
    assert not list(tmp_path.glob("HAN_*"))


@pytest.mark.parametrize("flags", [("--num_runs", "2"), ("--num_runs", "1"), ("--seed", "8"), ("--dim", "32")])
def test_runs_are_not_resumed_with_what_does_not_fit_and_keep_their_settings(llp_dir, tmp_path, flags):
    run = train(llp_dir, tmp_path, *VIDEO_LABELS_ONLY, *THREE, "--num_epochs", "2")
    settings = (run / "args.yaml").read_text()
    with pytest.raises(InputError):
        train_han.main(["--resume", str(run), *flags])
    assert (run / "args.yaml").read_text() == settings
    train_han.main(["--resume", str(run), "--num_epochs", "3"])
    assert json.loads((run / "run_8/summary.json").read_text())["best_epoch"] >= 1
    assert yaml.safe_load((run / "run_8/args.yaml").read_text())["num_epochs"] == 3


def test_state_of_another_kind_of_device_is_not_resumed(llp_dir, tmp_path):
    run = train(llp_dir, tmp_path, *VIDEO_LABELS_ONLY, *THREE)
    state = last_state(run)
    for generators in state["generators"]:
        generators.append(torch.zeros(16, dtype=torch.uint8))
    torch.save(state, run / "checkpoints/last.pt")
    with pytest.raises(InputError, match="another kind of device"):
        train_han.main(["--resume", str(run)])


@pytest.mark.parametrize("method", ["han", "valor", "ma_base"])
def test_baselines_train_several_runs(llp_dir, pseudo_label_dir, tmp_path, method):
    flags = ("--method", method, "--pseudo_label_dir", pseudo_label_dir, "--num_heads", "1", "--num_layers", "1")
    run = train(llp_dir, tmp_path, *flags, "--num_runs", "2")
    assert (evaluate(run, tmp_path / "logs") / "run_20001/scores.txt").exists()


def test_what_takes_one_run_says_so_of_several(llp_dir, tmp_path):
    run = train(llp_dir, tmp_path, "--method", "ma_base", *THREE)
    with pytest.raises(InputError, match="run_<seed>"):
        find_exchange.main(["--checkpoint_dir", str(run), "--device", "cpu"])
    logs = evaluate(run, tmp_path / "logs")
    with pytest.raises(InputError, match="run_<seed>"):
        load_predictions(logs, "test")
    assert load_predictions(logs / "run_8", "test").split == "test"


def test_exchange_of_one_of_several_base_models_is_found(llp_dir, tmp_path):
    run = train(llp_dir, tmp_path, "--method", "ma_base", *THREE)
    find_exchange.main(["--checkpoint_dir", str(run / "run_8"), "--device", "cpu"])
    retrained = train(llp_dir, tmp_path, "--method", "ma")
    settings = yaml.safe_load((retrained / "args.yaml").read_text())
    assert settings["cleaned_label_dir"] == str(run / "run_8/LLP_Exchange")


def test_one_of_several_runs_is_not_resumed_alone(llp_dir, tmp_path):
    run = train(llp_dir, tmp_path, *VIDEO_LABELS_ONLY, *THREE)
    with pytest.raises(InputError, match="the folder above it"):
        train_han.main(["--resume", str(run / "run_8")])


def streams_of(seeds) -> RandomStreams:
    streams = RandomStreams(CPU)
    for seed in seeds:
        torch.manual_seed(seed)
        streams.add_run()
    return streams


def test_every_run_draws_from_its_own_stream_and_gradients_flow():
    layer = Dropout(0.4)
    x = torch.ones(3, 50, requires_grad=True)
    streams = streams_of((1, 2, 3))
    with streams.active():
        twice = torch.vmap(lambda row: layer(layer(row)), randomness="error")(x)
    twice.sum().backward()
    for run, seed in enumerate((1, 2, 3)):
        torch.manual_seed(seed)
        alone = layer(layer(torch.ones(50)))
        assert torch.equal(twice[run], alone)
        assert torch.equal(x.grad[run], alone)  # of ones: the factor each element was multiplied by


def test_attention_of_every_run_equals_its_own():
    attention = MultiheadAttention(8, 2, dropout=0.5)
    x = torch.randn(2, 3, 4, 8)
    with streams_of((5, 6)).active():
        together = torch.vmap(lambda y: attention(y, y), randomness="error")(x)
    for run, seed in enumerate((5, 6)):
        torch.manual_seed(seed)
        torch.testing.assert_close(together[run], attention(x[run], x[run]))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_several_runs_compute_in_the_layouts_and_types_of_one(monkeypatch, precision):
    # Which numbers a GPU's kernel draws depends on the layout and type of its input; here it is the CPU's branch.
    seen: list[tuple] = []
    types: list[list[torch.dtype]] = []

    def noted(draw, *tensors):
        def note_and_draw(*tensors):
            seen.append(tuple((t.shape, t.stride(), t.dtype) for t in tensors))
            return draw(*tensors)

        return drawn_per_run(note_and_draw, *tensors)

    monkeypatch.setattr("models.layers.drawn_per_run", noted)

    def step(network: HAN, batch: Batch) -> dict:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = network(batch.audio, batch.visual)
        types.append([getattr(output, field.name).dtype for field in fields(output)])
        return {"total": output.video_probs.sum()}

    def make() -> HAN:
        return HAN(4, 6, 8, dim=16, num_heads=2, ffn_dim=24, num_layers=2)

    def batch(*leading: int) -> Batch:
        audio, visual = torch.randn(*leading, 3, 10, 6), torch.randn(*leading, 3, 10, 8)
        return Batch(torch.zeros(*leading, 3), audio, visual, None, None, torch.zeros(*leading, 3, 4), None, None, None)

    SingleNetwork(make(), 1, CPU).losses(step, batch())
    alone = list(seen)
    seen.clear()
    StackedNetworks(make, (1, 2), CPU).losses(step, batch(2))
    assert seen == [layout for layout in alone for _ in range(2)]
    assert types[0] == types[1]


def test_drawing_without_a_tensor_of_the_runs_says_so():
    with streams_of((1,)).active(), pytest.raises(ValueError, match="no tensor of the runs"):
        drawn_per_run(torch.rand_like, torch.zeros(3))
