"""The naive baseline has the results of the optimised code, and the benchmarks run."""

from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks import naive, naive_scores, run
from benchmarks.floor import Machine, han_operations
from benchmarks.gpu import gpu_rows
from benchmarks.inference_rows import random_events
from benchmarks.measure import Setup
from benchmarks.naive_networks import NaiveHAN, NaiveTemporalTransformer
from benchmarks.run import QUICK
from benchmarks.stages import han_objective
from benchmarks.training_rows import write_random_pseudo_labels
from dataloaders.batches import open_events, open_split
from dataloaders.datasets import load_annotations
from dataloaders.pseudo_labels import load_pseudo_labels
from models import HAN, TemporalTransformer
from pseudo_label_generation import make_pseudo_labels
from tests.tiny_data import write_llp, write_unav
from utils.device import Precision
from utils.evaluation import predict_events, true_events
from utils.inference import temporal_transformer_logits
from utils.metrics import parsing_scores
from utils.objectives import temporal_transformer_losses
from utils.thresholds import classwise_thresholds

CPU = torch.device("cpu")
FLOAT32 = Precision("float32", CPU)
SMALL = {"dim": 16, "num_heads": 2, "ffn_dim": 32, "num_layers": 2}


def pair_of_hans(audio_dim: int, visual_dim: int) -> tuple[HAN, NaiveHAN]:
    torch.manual_seed(0)
    dims = {"num_classes": 25, "audio_dim": audio_dim, "visual_dim": visual_dim, **SMALL, "dropout": 0.0}
    ours, slow = HAN(**dims), NaiveHAN(**dims)
    slow.load_state_dict(ours.state_dict())
    return ours, slow


def pair_of_transformers(events: tuple[Tensor, Tensor], audio_dim: int, visual_dim: int):
    torch.manual_seed(0)
    dims = {"audio_dim": audio_dim, "visual_dim": visual_dim, **SMALL, "dropout": 0.0}
    dims |= {"audio_text_dim": events[0].shape[1], "visual_text_dim": events[1].shape[1]}
    ours, slow = TemporalTransformer(**dims), NaiveTemporalTransformer(**dims)
    slow.load_state_dict(ours.state_dict())
    return ours, slow


def assert_same_gradients(ours: nn.Module, slow: nn.Module) -> None:
    gradients = dict(slow.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-5, atol=1e-5, msg=name)


def test_han_has_the_naive_loss_and_gradients(llp_dir: Path, tmp_path: Path):
    annotations = load_annotations("LLP", llp_dir, "train")
    write_random_pseudo_labels(tmp_path, annotations, set(annotations.sample_ids))
    visual = ["res152", "r2plus1d_18"]
    split = open_split(annotations, ["vggish"], visual, llp_dir, None, False, CPU, "auto", tmp_path)
    ours, slow = pair_of_hans(split.audio_width, split.visual_width)
    files = naive.VideoFiles(annotations, llp_dir, ["vggish"], visual, pseudo_dir=tmp_path)
    objective = han_objective(split)
    batch = next(split.in_order(annotations.num_videos))
    naive_batch = next(naive.batches(files, annotations.num_videos, num_workers=0))

    totals = []
    for model, data in ((ours, batch), (slow, naive_batch)):
        torch.manual_seed(1)  # of mixup
        losses = objective.losses(model(data.audio, data.visual), data, model.fc_prob)
        losses["total"].backward()
        totals.append(losses["total"])
    torch.testing.assert_close(*totals, rtol=1e-5, atol=1e-5)
    assert_same_gradients(ours, slow)


def test_the_temporal_transformer_has_the_naive_loss_and_gradients(unav_dir: Path):
    annotations = load_annotations("UnAV", unav_dir, "train")
    split = open_split(annotations, ["clap"], ["clip"], unav_dir, None, False, CPU, "auto")
    events = open_events(unav_dir, ["clap"], ["clip"], len(annotations.classes), CPU)
    ours, slow = pair_of_transformers(events, split.audio_width, split.visual_width)
    files = naive.VideoFiles(annotations, unav_dir, ["clap"], ["clip"], num_segments=12)
    batch = next(split.in_order(annotations.num_videos))
    naive_batch = next(naive.batches(files, annotations.num_videos, num_workers=0))

    totals = []
    for model, data in ((ours, batch), (slow, naive_batch)):
        loss = temporal_transformer_losses(model(data.audio, data.visual, *events, data.mask), data)["total"]
        loss.backward()
        totals.append(loss)
    torch.testing.assert_close(*totals, rtol=1e-5, atol=1e-5)
    assert_same_gradients(ours, slow)


def test_a_naive_step_learns(llp_dir: Path, tmp_path: Path):
    annotations = load_annotations("LLP", llp_dir, "train")
    write_random_pseudo_labels(tmp_path, annotations, set(annotations.sample_ids))
    files = naive.VideoFiles(annotations, llp_dir, ["vggish"], ["r2plus1d_18"], pseudo_dir=tmp_path)
    batch = next(naive.batches(files, annotations.num_videos, num_workers=0))
    _, model = pair_of_hans(batch.audio.shape[-1], batch.visual.shape[-1])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)

    def losses(batch: naive.NaiveBatch) -> dict[str, Tensor]:
        probs = model(batch.audio, batch.visual).video_probs
        return {"total": nn.functional.binary_cross_entropy(probs, batch.video_labels)}

    values = [naive.train_step(model, optimizer, losses, batch, 1.0)["total"] for _ in range(5)]
    assert values[-1] < values[0]


def test_naive_evaluation_has_the_same_scores(llp_dir: Path):
    annotations = load_annotations("LLP", llp_dir, "test")
    split = open_split(annotations, ["vggish"], ["r2plus1d_18"], llp_dir, None, False, CPU, "auto")
    ours, slow = pair_of_hans(split.audio_width, split.visual_width)
    for model in (ours, slow):
        nn.init.constant_(model.fc_prob.bias, 0.3)  # so that some segments are positive
    files = naive.VideoFiles(annotations, llp_dir, ["vggish"], ["r2plus1d_18"])
    prediction, truth = predict_events(ours, split, 4, FLOAT32), true_events(annotations, CPU)
    scores = parsing_scores(prediction.audio, prediction.visual, truth.audio, truth.visual)
    literal = naive.evaluate(slow, files, num_workers=0)
    for level in ("segment", "event"):
        assert astuple(getattr(literal, level)) == pytest.approx(astuple(getattr(scores, level)), abs=1e-9)


def test_naive_metrics_are_the_vectorised_ones():
    truth = [random_events(40, seed) for seed in (0, 1)]
    generator = torch.Generator().manual_seed(2)
    streams = [events ^ (torch.rand(events.shape, generator=generator) < 0.1) for events in truth] + truth
    scores = parsing_scores(*streams)
    literal = naive_scores.parsing_scores(*(events.numpy() for events in streams))
    for level in ("segment", "event"):
        assert astuple(getattr(literal, level)) == pytest.approx(astuple(getattr(scores, level)), abs=1e-9)


def test_the_naive_threshold_search_finds_the_same_thresholds():
    labels = random_events(12, 0)
    in_video = labels.any(dim=1)
    in_video[:, :2] = True
    logits = torch.randn(labels.shape, generator=torch.Generator().manual_seed(1)) + labels
    ours = classwise_thresholds(logits, labels, in_video).thresholds
    literal = naive_scores.classwise_thresholds(logits.numpy(), labels.numpy(), in_video.numpy())
    np.testing.assert_array_equal(ours.numpy(), literal)


def test_naive_pseudo_labels_are_the_packed_ones(llp_dir: Path, tmp_path: Path):
    annotations = load_annotations("LLP", llp_dir, "train")
    split = open_split(annotations, ["clap"], ["clip"], llp_dir, None, False, CPU, "auto")
    events = open_events(llp_dir, ["clap"], ["clip"], 25, CPU)
    ours, slow = pair_of_transformers(events, split.audio_width, split.visual_width)
    thresholds = {m: torch.linspace(-2, 2, 25, dtype=torch.float64) for m in ("audio", "visual")}
    packed = make_pseudo_labels(split, temporal_transformer_logits(ours, split, events, 4, FLOAT32), thresholds)
    files = naive.VideoFiles(annotations, llp_dir, ["clap"], ["clip"])
    naive.write_pseudo_labels(slow, files, events, thresholds, tmp_path, num_workers=0)
    literal = load_pseudo_labels(tmp_path, annotations)
    for modality in ("audio", "visual"):
        logits = [getattr(pseudo, f"{modality}_logits") for pseudo in (packed, literal)]
        torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)
        assert torch.equal(getattr(packed, f"{modality}_labels"), getattr(literal, f"{modality}_labels"))
        assert torch.equal(packed.thresholds(modality), literal.thresholds(modality))


def test_the_operations_of_a_han_epoch_are_those_of_its_layers():
    dims = {"num_classes": 25, "audio_dim": 128, "visual_dim": 2560}
    # Twice the parameters that meet each of the two streams' segments, and the attention's products.
    layer = 2 * (4 * 512**2) + 2 * 512 * 2048
    per_segment = 128 * 1024 + 1024 * 512 + 2560 * 512 + 2 * (5 * layer + 3 * 512 * 25)
    attention = 2 * 5 * 2 * (2 * 10 * 512)
    own_classifier = 2 * 512 * 25  # the naive network classifies each stream once more
    assert han_operations(10, False, **dims) == 2 * 10 * (per_segment + attention + own_classifier)


def test_every_benchmark_runs_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture):
    effort = replace(
        QUICK,
        llp_videos={"train": 4, "val": 2, "test": 2},
        unav_videos=3,
        han_steps=1,
        several_steps=1,
        transformer_steps=1,
        transformer_batch=2,
        batch_size=2,
        naive_evaluated=1,
        naive_scored=4,
        searched=4,
        labelled=3,
        naive_labelled=1,
        han=SMALL,
        transformer=SMALL,
    )
    prepared = run.prepare(tmp_path, None, replace(effort, rate_seconds=0.0))
    setup = Setup(prepared.folder, effort, Machine({"float32": 1e11, "bf16": 1e12}, 1e10))
    measurements = list(run.cpu_measurements(setup, memory_videos=20))
    run.report(tmp_path / "benchmark", measurements, setup.machine)
    printed = capsys.readouterr().out
    for measurement in measurements:
        assert measurement.ours > 0
        assert measurement.what in printed
    assert (tmp_path / "benchmark_measurements.json").exists()


def test_gpu_rows_time_all_stages_and_five_seeds(tmp_path: Path):
    write_llp(tmp_path / "LLP", num_train=4, num_eval=2)
    write_unav(tmp_path / "UnAV", num_train=2, num_eval=2)
    rows = gpu_rows(tmp_path, "bf16", num_epochs=1, device="cpu")
    assert [row.what.split(",")[0] for row in rows] == [
        *("GPU: stage 3", "GPU: stage 1", "GPU: all four stages", "GPU: five seeds of stage 3 together"),
    ]
    assert rows[2].ours > rows[0].ours + rows[1].ours
    assert len(list((tmp_path / "gpu_runs").glob("HAN_*/run_*/summary.json"))) == 5
