"""The naive baseline has the results of the optimised code, and the benchmarks run."""

from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks import run
from benchmarks.cpu_rows import QUICK, STAGE_1, STAGE_3, han_losses, transformer_losses
from benchmarks.harness import count_operations, matrix_rates, report
from benchmarks.run import bf16_difference, gpu_rows, layer_rows, without
from dataloaders.batches import Batch, DataSettings, SplitBatches, open_batches, open_texts
from dataloaders.datasets import load_annotations
from dataloaders.pseudo_labels import export_npy, load_pseudo_labels
from models import HAN, HANConfig, TemporalTransformer, TemporalTransformerConfig
from tests.naive import naive_scores, naive_stages
from tests.naive.made_up_data import random_events, random_pseudo_labels, zero_split
from tests.naive.naive_networks import NaiveHAN, NaiveTemporalTransformer, naive_twin
from tests.tiny_data import write_llp, write_unav
from utils.audio_visual import AudioVisual
from utils.evaluation.inference import hard_events, make_pseudo_labels, run_han, temporal_transformer_logits
from utils.evaluation.tasks import find_task, true_events
from utils.method.losses import Losses
from utils.method.metrics import parsing_scores
from utils.method.thresholds import classwise_thresholds
from utils.settings import with_settings
from utils.training.device import Precision
from utils.training.loop import Recipe

CPU = torch.device("cpu")
FLOAT32 = Precision("float32", CPU)
SMALL = {"dim": 16, "num_heads": 2, "ffn_dim": 32, "num_layers": 2}


def han_data(llp_dir: Path) -> DataSettings:
    return replace(STAGE_3.data, data_dir=llp_dir)


def teacher_data(data_dir: Path) -> DataSettings:
    return replace(STAGE_1.data, data_dir=data_dir)


def pair_of_hans(split: SplitBatches) -> tuple[HAN, NaiveHAN]:
    torch.manual_seed(0)
    ours = HAN(25, split.widths.audio, split.feature_widths.visual, HANConfig(**SMALL, dropout=0.0))
    return ours, naive_twin(ours)


def pair_of_transformers(
    split: SplitBatches, texts: AudioVisual[Tensor]
) -> tuple[TemporalTransformer, NaiveTemporalTransformer]:
    torch.manual_seed(0)
    config = TemporalTransformerConfig(**SMALL, dropout=0.0)
    ours = TemporalTransformer(*split.widths, texts.audio.shape[1], texts.visual.shape[1], config)
    return ours, naive_twin(ours)


def assert_same_gradients(ours: nn.Module, slow: nn.Module) -> None:
    gradients = dict(slow.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-5, atol=1e-5, msg=name)


def test_han_has_the_naive_loss_and_gradients(llp_dir: Path, tmp_path: Path):
    annotations = load_annotations("LLP", llp_dir, "train")
    export_npy(random_pseudo_labels(annotations), tmp_path, {name: name for name in annotations.sample_ids})
    split = open_batches(annotations, han_data(llp_dir), CPU, tmp_path)
    ours, slow = pair_of_hans(split)
    files = naive_stages.VideoFiles(annotations, han_data(llp_dir), pseudo_label_dir=tmp_path)
    batch = next(split.in_order(annotations.num_videos))
    naive_batch = next(naive_stages.batches(files, annotations.num_videos, num_workers=0))

    totals = []
    for model, data in ((ours, batch), (slow, naive_batch)):
        torch.manual_seed(1)  # of mixup
        total = han_losses(model, "float32", split)(data)["total"]
        total.backward()
        totals.append(total)
    torch.testing.assert_close(*totals, rtol=1e-5, atol=1e-5)
    assert_same_gradients(ours, slow)


def test_the_temporal_transformer_has_the_naive_loss_and_gradients(unav_dir: Path):
    annotations = load_annotations("UnAV", unav_dir, "train")
    settings = teacher_data(unav_dir)
    split, texts = open_batches(annotations, settings, CPU), open_texts("UnAV", settings, CPU)
    ours, slow = pair_of_transformers(split, texts)
    files = naive_stages.VideoFiles(annotations, settings, num_segments=12)
    batch = next(split.in_order(annotations.num_videos))
    naive_batch = next(naive_stages.batches(files, annotations.num_videos, num_workers=0))

    totals = []
    for model, data in ((ours, batch), (slow, naive_batch)):
        loss = transformer_losses(model, "float32", texts)(data)["total"]
        loss.backward()
        totals.append(loss)
    torch.testing.assert_close(*totals, rtol=1e-5, atol=1e-5)
    assert_same_gradients(ours, slow)


def test_a_naive_step_learns(llp_dir: Path):
    annotations = load_annotations("LLP", llp_dir, "train")
    settings = han_data(llp_dir)
    files = naive_stages.VideoFiles(annotations, settings)
    _, model = pair_of_hans(open_batches(annotations, settings, CPU))

    def losses(batch: Batch) -> Losses:
        probs = model(*batch.features).video_probs
        return {"total": nn.functional.binary_cross_entropy(probs, batch.video_labels)}

    recipe = Recipe(lr=1e-2, warmup_epochs=0)
    values = [
        next(naive_stages.train(model, losses, files, recipe, annotations.num_videos, num_workers=0))["total"]
        for _ in range(5)
    ]
    assert values[-1] < values[0]


def test_naive_evaluation_has_the_same_scores(llp_dir: Path):
    annotations = load_annotations("LLP", llp_dir, "test")
    split = open_batches(annotations, han_data(llp_dir), CPU)
    ours, slow = pair_of_hans(split)
    for model in (ours, slow):
        nn.init.constant_(model.fc_prob.bias, 0.3)  # so that some segments are positive
    files = naive_stages.VideoFiles(annotations, han_data(llp_dir))
    prediction = find_task("LLP").decode(run_han(ours, split, 4, FLOAT32), STAGE_3.decoding)
    assert all(events.any() and not events.all() for events in prediction)
    scores = parsing_scores(prediction, true_events(annotations, CPU))
    literal = naive_stages.evaluate(slow, files, num_workers=0)
    for level in ("segment", "event"):
        assert astuple(getattr(literal, level)) == pytest.approx(astuple(getattr(scores, level)), abs=1e-9)


def test_naive_metrics_are_the_vectorised_ones():
    truth = AudioVisual(0, 1).map(lambda seed: random_events(40, seed))
    generator = torch.Generator().manual_seed(2)
    prediction = truth.map(lambda events: events ^ (torch.rand(events.shape, generator=generator) < 0.1))
    scores = parsing_scores(prediction, truth)
    literal = naive_scores.parsing_scores(prediction.map(Tensor.numpy), truth.map(Tensor.numpy))
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
    settings = teacher_data(llp_dir)
    split, texts = open_batches(annotations, settings, CPU), open_texts("LLP", settings, CPU)
    ours, slow = pair_of_transformers(split, texts)
    thresholds = AudioVisual(-2, 0).map(lambda first: torch.linspace(first, 2, 25, dtype=torch.float64))
    logits = temporal_transformer_logits(ours, split, texts, 4, FLOAT32)
    packed = make_pseudo_labels(split, logits, hard_events(logits, thresholds, annotations.video_labels), thresholds)
    naive_stages.write_pseudo_labels(
        slow, naive_stages.VideoFiles(annotations, settings), texts, thresholds, tmp_path, num_workers=0
    )
    literal = load_pseudo_labels(tmp_path, annotations)
    for ours_of, literal_of in zip(packed.logits, literal.logits, strict=True):
        torch.testing.assert_close(ours_of, literal_of, rtol=1e-5, atol=1e-5)
    for ours_of, literal_of in zip(
        (*packed.labels, *packed.thresholds), (*literal.labels, *literal.thresholds), strict=True
    ):
        assert torch.equal(ours_of, literal_of)


def test_the_operations_of_a_han_epoch_are_those_of_its_layers():
    # Twice the parameters that meet each of the two streams' segments, and the attention's products.
    layer = 2 * (4 * 512**2) + 2 * 512 * 2048
    per_segment = 128 * 1024 + 1024 * 512 + 2560 * 512 + 2 * (5 * layer + 3 * 512 * 25)
    attention = 2 * 5 * 2 * (2 * 10 * 512)
    han = HAN(25, 128, (2048, 512), HANConfig())
    counted = count_operations(lambda: han(torch.randn(1, 10, 128), torch.randn(1, 10, 2560)))
    assert counted == 20 * (per_segment + attention)


def test_matrix_rates_are_of_both_precisions():
    rates = matrix_rates(size=64)
    assert set(rates) == {"float32", "bf16"} and min(rates.values()) > 1e7


@pytest.mark.slow
def test_every_benchmark_runs_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture):
    effort = {
        **QUICK,
        "llp_videos": {"train": 4, "val": 2, "test": 2},
        "unav_videos": 3,
        "han_steps": 1,
        "labelled": 3,
        "naive_videos": 1,
        "stage_1": with_settings(STAGE_1, batch_size=2, **SMALL),
        "stage_3": with_settings(STAGE_3, batch_size=2, **SMALL),
    }
    setup = run.Setup(tmp_path, None, {"float32": 1e11, "bf16": 1e12}, **effort)
    measurements = run.cpu_rows(setup)
    report(tmp_path / "benchmark", "Speed", measurements, setup.rates)
    table = capsys.readouterr().out.rpartition("Speed\n")[2]
    assert len(measurements) == 9 and "float32 100 GFLOP/s" in table
    for measurement in measurements:
        assert measurement.ours > 0
        assert measurement.what in table and measurement.sample in table
    assert (tmp_path / "benchmark_measurements.json").exists()


def test_gpu_rows_time_all_stages_and_several_seeds(tmp_path: Path):
    write_llp(tmp_path / "LLP", num_train=4, num_eval=2)
    write_unav(tmp_path / "UnAV", num_train=2, num_eval=2)
    network = ("--dim", "16", "--num_heads", "2", "--ffn_dim", "32", "--num_layers", "1")
    rows = gpu_rows(tmp_path, "bf16", num_epochs=1, device="cpu", num_seeds=2, network=network)
    assert [row.what for row in rows] == [
        "GPU: stage 3, 1 epochs",
        "GPU: stage 1, 1 epochs",
        "GPU: all four stages",
        "GPU: stage 3 of 2 seeds in parallel",
    ]
    assert len(list((tmp_path / "gpu_runs").glob("HAN_*/run_*/summary.json"))) == 2
    assert len(list((tmp_path / "gpu_logs").glob("HAN_*/summary.json"))) == 1


def test_the_difference_of_precisions_is_a_table_over_seeds(tmp_path: Path):
    network = ("--dim", "16", "--num_heads", "2", "--ffn_dim", "24", "--num_layers", "1")
    one_epoch = ("--num_epochs", "1", "--warmup_epochs", "0")
    table = bf16_difference(tmp_path, None, (4, 4, 3), (1, 2), network, one_epoch, one_epoch)
    assert [row.labels for row in table.rows] == [("float32",), ("bf16",), ("bf16 - float32",)]
    first, second, mean = table.rows[0].cells
    assert mean.mean == pytest.approx((first.mean + second.mean) / 2)


@pytest.mark.parametrize("layer", ["FastDropout", "FastMultiheadAttention"])
def test_han_computes_the_same_without_a_fast_layer(layer: str):
    torch.manual_seed(0)
    han = HAN(25, 6, (10, 8), HANConfig(**SMALL)).eval()
    features = torch.randn(3, 10, 6), torch.randn(3, 10, 18)
    expected, given = han(*features), without(layer, han, *features)
    torch.testing.assert_close(given.video_probs, expected.video_probs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(given.logits, expected.logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", ["FastMultiheadAttention", "Packing"])
def test_the_temporal_transformer_computes_the_same_without_a_fast_layer(tmp_path: Path, layer: str):
    torch.manual_seed(0)
    network = TemporalTransformer(9, 12, 9, 12, TemporalTransformerConfig(**SMALL)).eval()
    split = zero_split(tmp_path, "UnAV", "train", torch.tensor([3, 5, 7, 9]))
    batch = next(split.in_order(4))
    assert (~batch.mask).float().mean() == pytest.approx(1 / 3, abs=0.05)
    inputs = (torch.randn(4, 9, 9), torch.randn(4, 9, 12), torch.randn(7, 9), torch.randn(7, 12))
    inputs = (*inputs, batch.mask, batch.valid_rows)
    expected, given = network(*inputs).logits, without(layer, network, *inputs).logits
    for ours, other in zip(expected, given, strict=True):
        torch.testing.assert_close(other[batch.mask], ours[batch.mask], rtol=1e-5, atol=1e-5)


def test_the_benchmark_of_layers_reports_every_job_in_both_precisions(tmp_path: Path):
    small = with_settings(STAGE_1, **SMALL), with_settings(STAGE_3, **SMALL)
    rows = layer_rows(tmp_path, 1, *small, longest=9, videos=(4, 4, 3))
    for precision in ("float32", "bf16"):
        assert sum(precision in row.what for row in rows) == 5
