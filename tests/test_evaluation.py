"""Stage 4: tables, per-class scores, figures; and the whole chain through the bash scripts."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

import test_han as stage4
from baselines.cmpae.cmpae_decoding import CMPAEDecoding, find_gates, predict, search_gates
from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import DataSettings, open_split
from dataloaders.features import feature_path
from dataloaders.llp import LLP_CLASSES
from models import HAN, HANConfig, HANOutput
from tests.tiny_data import WIDTHS
from tests.tiny_runs import evaluate, label, pretrain, train
from tests.utils.reporting.test_precision_recall import literal_average_precision
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.inference import SplitOutput
from utils.evaluation.predictions import Predictions, load_predictions
from utils.evaluation.split_report import chosen_videos, draw_timelines, draw_training, modality_confusion
from utils.reporting.figures import COLOURS, TRUTH_COLOUR
from utils.settings import read_args
from utils.training.checkpoints import load_network, save_checkpoint
from utils.training.device import Precision

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]
VISUAL_WIDTH = WIDTHS["res152"] + WIDTHS["r2plus1d_18"]


@pytest.fixture
def run(llp_dir, tmp_path) -> Path:
    return train(llp_dir, tmp_path / "runs", "--segment_labels", "none")


def test_table_comes_as_text_markdown_csv_and_json_with_the_published_row(run, tmp_path):
    logs = evaluate(run, tmp_path / "logs")
    for kind in ("txt", "md", "csv", "json"):
        assert (logs / f"scores.{kind}").is_file()
    table = pd.read_csv(logs / "scores.csv")
    assert len(table) == 3
    text = (logs / "scores.txt").read_text()
    assert "UWAV (published)" in text
    assert "64.2" in (logs / "scores.md").read_text()  # the paper's segment-level audio F-score
    assert "simulated" not in text  # these features do not come from the simulation


def test_simulated_features_are_marked(run, llp_dir, tmp_path):
    (llp_dir / "simulation.yaml").write_text("simulated: true\n")
    assert "simulated" in (evaluate(run, tmp_path / "logs") / "scores.txt").read_text()


def test_tables_say_where_only_stage_1_has_seen_simulated_features(llp_dir, unav_dir, tmp_path):
    (unav_dir / "simulation.yaml").write_text("simulated: true\n")
    labels = label(llp_dir, pretrain(unav_dir, tmp_path / "runs", "--num_epochs", "1"))
    run = train(llp_dir, tmp_path / "runs", "--pseudo_label_dir", labels, "--num_epochs", "1")
    marked = "(stage 1: simulated features)"
    assert marked in (labels / "pseudo_label_quality.txt").read_text()
    assert marked in (evaluate(run, tmp_path / "logs") / "scores.txt").read_text()


def test_per_class_scores_and_timelines_are_written(run, tmp_path):
    logs = evaluate(run, tmp_path / "logs", "--num_figures", "2")
    for split in ("val", "test"):
        assert len(pd.read_csv(logs / f"per_class_{split}.csv")) >= 25
        figures = list((logs / f"timelines_{split}").iterdir())
        assert len(figures) == 2
        assert all(figure.read_bytes().startswith(b"\x89PNG") for figure in figures)


def drawn_seconds(axes: Axes, colour: str) -> float:
    """How long the bars of a colour are together."""
    bars = [bar for bar in axes.collections if to_hex(bar.get_facecolor()).upper() == colour]
    return sum(np.ptp(path.vertices[:, 0]) for bar in bars for path in bar.get_paths())


def parse_by_hand(model: HAN, llp_dir: Path, sample_id: str) -> HANOutput:
    """Return the network's output for one video, from its feature files."""
    arrays = [np.load(feature_path(llp_dir, name, sample_id[:11])) for name in ("vggish", "res152", "r2plus1d_18")]
    visual = np.concatenate([arrays[1].reshape(10, 8, -1).mean(axis=1), arrays[2]], axis=1)
    with torch.inference_mode():
        return model(torch.tensor(arrays[0])[None], torch.tensor(visual)[None])


def test_predictions_are_kept_and_drawn_beside_the_truth_of_the_annotations(run, llp_dir, tmp_path, written_figures):
    logs = evaluate(
        run, tmp_path / "logs", "--num_figures", "1", "--segment_threshold", "0.47", "--gate_threshold", "0.45"
    )
    kept = load_predictions(logs, "test")
    model = load_network(HAN, run / "checkpoints/checkpoint_best.pt", {}, num_heads=2).eval()
    predicted, true = np.zeros((2, 2, 6, 10, 25), bool)
    probs = np.zeros((2, 6, 10, 25))
    for n, sample_id in enumerate(kept.sample_ids):
        output = parse_by_hand(model, llp_dir, sample_id)
        for m, (modality, logits) in enumerate(zip(("audio", "visual"), output.logits, strict=True)):
            probs[m, n] = logits[0].sigmoid()
            predicted[m, n] = (logits[0].sigmoid() > 0.47) & (output.video_probs[0] > 0.45)
            table = pd.read_csv(llp_dir / f"AVVP_eval_{modality}.csv", sep="\t", index_col="filename")
            onset, offset, event = table.loc[sample_id]
            true[m, n, onset:offset, LLP_CLASSES.index(event)] = True
    assert 0 < predicted[0].sum() != predicted[1].sum() > 0
    np.testing.assert_array_equal([*kept.events], predicted)
    np.testing.assert_array_equal([*kept.truth], true)
    np.testing.assert_allclose([*kept.probs.segments], probs, atol=1 / 4096)
    assert kept.probs.lengths.tolist() == [10] * 6
    precisions = pd.read_csv(logs / "average_precision_test.csv", index_col="Class")
    scores = kept.probs.segments.visual[..., 1].ravel().tolist()  # of class Car
    expected = literal_average_precision(true[1, ..., 1].ravel().tolist(), scores)
    assert precisions.loc["Car", "Average precision V"] == pytest.approx(100 * expected, abs=1e-5)
    assert precisions.index.tolist() == [*LLP_CLASSES, "mean"] and precisions.loc["Banjo"].isna()[2:].all()
    assert (logs / "pr_curves_val.png").is_file() and (logs / "pr_curves_test.png").is_file()
    per_class = pd.read_csv(logs / "per_class_test.csv")
    assert per_class["True segments A"].tolist() == true[0].sum((0, 1)).tolist()
    assert per_class["True segments V"].tolist() == true[1].sum((0, 1)).tolist()
    (axes,) = next(figure for figure in written_figures if figure.axes[0].get_title() == kept.sample_ids[0]).axes
    assert drawn_seconds(axes, TRUTH_COLOUR) == true[:, 0].sum() != predicted[:, 0].sum()
    assert drawn_seconds(axes, COLOURS[0]) == predicted[:, 0].sum()


def test_class_gates_are_the_best_ones_for_the_visual_events_of_val(llp_dir, tmp_path):
    names = [f"va{n:09d}_0_10" for n in range(6)]
    seen = torch.rand(6, 25, generator=torch.Generator().manual_seed(0)) < 0.4  # throughout a video
    lines = [f"{names[n]}\t0\t10\t{LLP_CLASSES[c]}" for n, c in seen.nonzero().tolist()]
    (llp_dir / "AVVP_eval_visual.csv").write_text("\n".join(["filename\tonset\toffset\tevent_labels", *lines]) + "\n")
    torch.manual_seed(2)
    model = HAN(25, WIDTHS["vggish"], (WIDTHS["res152"], WIDTHS["r2plus1d_18"]), HANConfig(dim=16, num_heads=2)).eval()
    with torch.no_grad():
        model.fc_prob.weight.mul_(2)  # probabilities farther from each other
    val = open_split("LLP", "val", DataSettings(data_dir=llp_dir), CPU)
    settings = CMPAEDecoding(segment_threshold=0.3, gate_threshold=0.7, cross_share=1.0, gates_epoch=3)
    asked = []

    def parse(checkpoint: Path) -> SplitOutput:
        asked.append(checkpoint.name)
        return predict(model, val, 4, Precision("float32", CPU), settings)

    gates, line = find_gates(settings, tmp_path / "checkpoint_best.pt", val, parse)
    assert asked == ["checkpoint_epoch_003.pt"] and f"Speech {gates[0]:g}, Car {gates[1]:g}" in line

    outputs = [parse_by_hand(model, llp_dir, name) for name in names]
    segments = torch.cat([output.logits.visual.sigmoid() for output in outputs])
    modalities = torch.cat([output.modality_probs.visual for output in outputs])
    true = seen.unsqueeze(1).expand(6, 10, 25)
    assert gates.tolist() == search_gates(segments, modalities, true, 0.3, 0.7)[0].tolist()
    assert len(gates.unique()) > 2


def test_timelines_show_the_truth_above_the_prediction_as_long_as_the_video_lasts(tmp_path, written_figures):
    ids, labels = ("a", "b"), torch.tensor([[True, False], [False, True]])
    annotations = SplitAnnotations("LLP", "test", ("Dog", "Car"), ids, ids, torch.tensor([3, 2]), labels, None)
    none = torch.zeros(2, 3, 2, dtype=torch.bool)
    heard, truly_seen = none.clone(), none.clone()
    heard[1, 0, 1] = truly_seen[1, :2, 1] = True
    events, truth = AudioVisual(heard.numpy(), none.numpy()), AudioVisual(none.numpy(), truly_seen.numpy())
    kept = Predictions("LLP", "test", ("Dog", "Car"), ids, events, truth)
    draw_timelines(tmp_path, annotations, kept, [1])
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]
    (axes,) = written_figures[0].axes
    assert axes.get_xlim() == (0, 2) and "Car" in [text.get_text() for text in axes.texts]  # no "Car*"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "Truth (no audible event)",
        "Prediction (no visible event)",
    ]
    assert drawn_seconds(axes, TRUTH_COLOUR) == 2 and drawn_seconds(axes, COLOURS[0]) == 1


def test_the_curves_of_a_training_are_those_of_its_history(run, tmp_path, written_figures):
    draw_training(tmp_path / "logs", run, "simulated features")
    history = torch.load(run / "checkpoints/last.pt", weights_only=True)["progress"]["history"]
    losses, scores = (figure.axes[0] for figure in written_figures)
    lines = {line.get_label(): line.get_xydata().tolist() for axes in (losses, scores) for line in axes.lines}
    assert lines["total"] == [[n, epoch["total"]] for n, epoch in enumerate(history, start=1)]
    assert lines["segment Type"] == [[n, epoch["segment_Type"]] for n, epoch in enumerate(history, start=1)]
    assert [line.get_label() for line in losses.lines] == ["video", "total"] and len(scores.lines) == 10
    best = json.loads((run / "summary.json").read_text())["best_epoch"]
    assert losses.get_title() == f"logs, kept epoch {best} (simulated features)"
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["training_losses.png", "training_scores.png"]


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_a_run_without_its_last_state_has_no_curves_of_training(run, tmp_path, content):
    (run / "checkpoints/last.pt").unlink()
    if content:
        (run / "checkpoints/last.pt").write_bytes(content)
    logs = evaluate(run, tmp_path / "logs", "--num_figures", "1")
    assert not list(logs.glob("training_*")) and (logs / "confusion_modalities_test.png").is_file()


def test_modalities_are_confused_as_counted_by_hand(run, tmp_path):
    def events(*states: int) -> AudioVisual:  # one video and class; 0 none, 1 audible, 2 visible, 3 both
        return AudioVisual(*(torch.tensor([[[bool(state & bit)] for state in states]]) for bit in (1, 2)))

    truth, prediction = events(1, 1, 1, 2, 3, 0, 0, 0), events(1, 3, 0, 1, 2, 0, 2, 0)
    counts = [[1, 0, 1, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 1]]  # audible only, visible only, both, neither
    assert modality_confusion(prediction, truth, torch.tensor([7])).tolist() == counts
    logs = evaluate(run, tmp_path / "logs")
    kept, table = load_predictions(logs, "test"), pd.read_csv(logs / "confusion_modalities_test.csv", index_col="Truth")
    audible_only = kept.truth.audio & ~kept.truth.visual
    neither = ~kept.events.audio & ~kept.events.visual
    assert table.loc["audible only", "Predicted neither"] == (audible_only & neither).sum()
    share = 100 * (audible_only & neither).sum() / audible_only.sum()
    assert table.loc["audible only", "Share (%) neither"] == pytest.approx(share)
    assert table.filter(like="Predicted").to_numpy().sum() == kept.truth.audio.size


def test_videos_to_draw_are_spread_over_the_split_or_named():
    ids = tuple("abcdefghijk")
    assert chosen_videos(ids, (), 3) == [0, 5, 10]
    assert chosen_videos(ids, (), 20) == list(range(11))
    assert chosen_videos(ids, ("k", "c", "elsewhere"), 3) == [2, 10]


def test_an_ensemble_of_one_run_is_that_run_and_needs_no_data(run, llp_dir, tmp_path):
    decoding = ("--segment_threshold", "0.47", "--gate_threshold", "0.45")
    logs = evaluate(run, tmp_path / "logs", *decoding)
    llp_dir.rename(tmp_path / "elsewhere")
    run.rename(tmp_path / "run")
    stage4.main(["--ensemble", str(logs)])
    ensemble = tmp_path / "logs/ensemble"
    assert read_args(ensemble / "args.yaml")["segment_threshold"] == 0.47
    assert json.loads((ensemble / "summary.json").read_text()) == json.loads((logs / "summary.json").read_text())
    written = {path.name for path in logs.iterdir() if not path.name.startswith("timelines_")}
    assert written <= {path.name for path in ensemble.iterdir()}
    for name in ("per_class_test.csv", "average_precision_test.csv"):
        one, other = (pd.read_csv(folder / name) for folder in (logs, ensemble))
        pd.testing.assert_frame_equal(one, other)


def test_an_ensemble_of_two_runs_decodes_the_mean_of_their_probabilities_and_has_the_marks_of_both(llp_dir, tmp_path):
    flags = ("--segment_labels", "none", "--num_epochs", "1")
    logs = [evaluate(train(llp_dir, tmp_path / "runs", *flags), tmp_path / "logs")]
    (llp_dir / "simulation.yaml").write_text("simulated: true\n")
    logs.append(evaluate(train(llp_dir, tmp_path / "runs", *flags, "--seed", "1"), tmp_path / "logs"))
    output, threshold = tmp_path / "both", ("--segment_threshold", "0.48", "--gate_threshold", "0.46")
    where = ["--ensemble", *map(str, logs), "--output_dir", str(output)]
    stage4.main([*where, *threshold, "--decoding", "modality", "--splits", "test"])
    kept, one, other = (load_predictions(folder, "test") for folder in (output, *logs))
    for m in range(2):
        segments = (one.probs.segments[m].astype(float) + other.probs.segments[m]) / 2
        modality = (one.probs.modality[m].astype(float) + other.probs.modality[m]) / 2
        events = (segments >= 0.48) & (modality >= 0.46)[:, None]
        assert np.array_equal(kept.events[m], events) and 0 < events.sum() < events.size
    assert "both (simulated features)" in (output / "scores.txt").read_text()
    assert not (output / "per_class_val.csv").exists()
    assert "simulated features" in (output / "average_precision_test.csv").read_text()


def test_an_ensemble_that_cannot_be_made_says_why(run, tmp_path):
    logs = evaluate(run, tmp_path / "logs", "--splits", "val")
    with pytest.raises(InputError, match=r"--output_dir: .* expected a folder other than the averaged runs'"):
        stage4.main(["--ensemble", str(logs), "--output_dir", str(logs)])
    with pytest.raises(InputError, match="--ensemble: found a run or checkpoint, too"):
        stage4.main(["--ensemble", str(logs), "--checkpoint_dir", str(run)])
    with pytest.raises(InputError, match="nowhere: found no such folder"):
        stage4.main(["--ensemble", str(tmp_path / "nowhere")])
    with pytest.raises(InputError, match="dataset: LLP; expected AVE"):
        stage4.main(["--ensemble", str(logs), "--dataset", "AVE"])
    with pytest.raises(InputError, match=r"a run of train_han\.py .* expected an evaluation"):
        stage4.main(["--ensemble", str(logs), str(run)])
    with pytest.raises(InputError, match=r"predictions_test\.npz: found no readable predictions"):
        stage4.main(["--ensemble", str(logs), "--splits", "test"])
    assert not (tmp_path / "logs/ensemble").exists()


def test_named_videos_are_drawn(run, tmp_path):
    logs = evaluate(run, tmp_path / "logs", "--figure_videos", "te000000003_0_10")
    assert [path.name for path in (logs / "timelines_test").iterdir()] == ["te000000003_0_10.png"]


def test_validation_score_is_that_of_the_best_epoch(run, tmp_path):
    logs = evaluate(run, tmp_path / "logs")
    best = json.loads((run / "summary.json").read_text())["segment_Type"]
    assert json.loads((logs / "summary.json").read_text())["val"]["segment_Type"] == pytest.approx(best)


def test_run_keeps_the_settings_it_was_trained_with(llp_dir, tmp_path):
    flags = ("--encoder_order", "parallel", "--pre_norm", "--audio_features", "clap", "--visual_features", "clip")
    run = train(llp_dir, tmp_path / "runs", "--segment_labels", "none", *flags)
    logs = evaluate(run, tmp_path / "logs")
    best = json.loads((run / "summary.json").read_text())["segment_Type"]
    assert json.loads((logs / "summary.json").read_text())["val"]["segment_Type"] == pytest.approx(best)


def test_bare_checkpoint_in_the_released_layout_is_evaluated(llp_dir, tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "released"
    save_checkpoint(
        HAN(25, WIDTHS["vggish"], (VISUAL_WIDTH,), HANConfig(dim=32, ffn_dim=24, num_layers=1)).state_dict(),
        folder / "checkpoints" / "checkpoint_best.pt",
    )
    with pytest.raises(InputError, match="no number of attention heads"):
        evaluate(folder, tmp_path / "logs", "--data_dir", llp_dir)
    logs = evaluate(folder, tmp_path / "logs", "--data_dir", llp_dir, "--num_heads", "4")
    assert json.loads((logs / "summary.json").read_text()).keys() == {"val", "test"}
    assert "assuming encoder_order sequential" in (logs / "log.txt").read_text()


def test_videos_to_draw_that_are_in_no_evaluated_split_are_named(run, tmp_path):
    with pytest.raises(InputError, match="--figure_videos: found nowhere; expected videos of val"):
        evaluate(run, tmp_path / "logs", "--splits", "val", "--figure_videos", "va000000000_0_10", "nowhere")


def test_checkpoint_trained_on_other_features_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="visual_dim 18 instead of 12"):
        evaluate(run, tmp_path / "logs", "--visual_features", "clip")


def test_run_folder_without_checkpoint_is_refused(llp_dir, tmp_path):
    with pytest.raises(InputError, match="nothing: found no such folder"):
        evaluate(tmp_path / "nothing", tmp_path / "logs", "--data_dir", llp_dir)


def run_script(name: str, **variables: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(
        ["bash", str(ROOT / "scripts" / name)], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["LLP", "AVE"])
def test_demo_runs_from_nothing_to_the_table_and_figures(tmp_path, dataset):
    done = run_script(
        "demo.sh",
        DATASET=dataset,
        DEMO_DIR=str(tmp_path),
        NUM_PRETRAIN="8",
        NUM_TRAIN="8",
        NUM_EVAL="4",
        STAGE1="--dim 16 --num_heads 2 --ffn_dim 16 --num_layers 1 --num_epochs 1",
        STAGE3="--dim 16 --num_heads 2 --ffn_dim 16 --num_layers 1 --num_epochs 1",
    )
    assert done.returncode == 0, done.stderr
    assert "published" in done.stdout
    (logs,) = (tmp_path / "test_logs").iterdir()
    assert "simulated" in (logs / "scores.txt").read_text()
    assert list((logs / "timelines_test").glob("*.png"))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("pseudo_label_generation.sh", "Run stage 1 first"),
        ("train_han.sh", "Run stage 1 (train_transformer.py) unless it is finished, then stage 2 (pseudo_label_gen"),
        ("test_han.sh", "Run stage 3 first"),
    ],
)
def test_script_without_its_predecessor_says_what_to_run(tmp_path, script, message):
    if script == "train_han.sh" and any((ROOT / "temp_train_logs").glob("TemporalTransformer_*")):
        pytest.skip("there are runs whose labels it finds")
    done = run_script(script, RUNS_DIR=str(tmp_path), OUTPUT_DIR=str(tmp_path), LOGS_DIR=str(tmp_path))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_script_without_data_says_what_is_missing(tmp_path):
    done = run_script("train_transformer.sh", DATA_DIR=str(tmp_path / "nowhere"), OUTPUT_DIR=str(tmp_path))
    assert done.returncode == 2
    assert "nowhere" in done.stderr and "Traceback" not in done.stderr


def test_every_stage_script_passes_its_extra_arguments_on():
    for script in ("train_transformer.sh", "pseudo_label_generation.sh", "train_han.sh", "test_han.sh"):
        done = subprocess.run(
            ["bash", str(ROOT / "scripts" / script), "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and "--data_dir" in done.stdout
