"""JoMoLD, CMPAE, LSLD, LEAP, CoLeaF and MM-CSE from training to evaluation, at a size that takes seconds."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import pseudo_label_generation
import test_han
import train_han
from baselines.jomold import find_noise_ratios
from baselines.jomold.noise_ratios import load_noise_ratios
from baselines.lsld import refine_labels
from baselines.lsld.subset_texts import NAMES_FILE, label_subsets, load_names, load_subset_texts, subset_text
from dataloaders.datasets import load_annotations
from dataloaders.features import feature_path, text_features_path
from dataloaders.pseudo_labels import load_pseudo_labels
from models import HAN
from tests.tiny_data import WIDTHS, write_llp
from tests.tiny_runs import assert_same_weights, newest
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.predictions import load_predictions
from utils.evaluation.windows import han_probs
from utils.settings import read_args
from utils.trained import export, open_run, open_trained
from utils.training.checkpoints import load_network

TINY = ["--dim", "16", "--ffn_dim", "24", "--batch_size", "4", "--checkpoint_every", "1"]
CPU = ["--device", "cpu"]
DENOISED = ("jomold", "cmpae", "coleaf")
METHODS = (*DENOISED, "lsld", "leap", "mmcse")


class Tiny:
    """A folder of data, and one of runs with what the methods need before their own training."""

    def __init__(self, folder: Path):
        self.data, self.runs, self.logs = write_llp(folder / "LLP"), folder / "runs", folder / "logs"
        data = ["--data_dir", str(self.data)]
        self.train("jomold_base")
        find_noise_ratios.main(["--runs_dir", str(self.runs), *CPU])
        refine_labels.main([*data, "--runs_dir", str(self.runs), *CPU])
        framewise = ["--teacher", "framewise", "--thresholds", "search"]
        pseudo_label_generation.main([*framewise, *data, "--runs_dir", str(self.runs), *CPU])

    def train(self, method: str, *flags: str) -> Path:
        """A run of two epochs, with labels from earlier runs in the same folder."""
        where = ["--data_dir", str(self.data), "--output_dir", str(self.runs)]
        gates = ["--gates_epoch", "1"] if method == "cmpae" else []
        train_han.main(["--method", method, *where, "--num_epochs", "2", *TINY, *CPU, *gates, *flags])
        return newest(self.runs, f"HAN_{method}_LLP_")

    def evaluate(self, run: Path, *flags: str) -> Path:
        test_han.main(["--checkpoint_dir", str(run), "--logs_dir", str(self.logs), "--num_figures", "0", *CPU, *flags])
        return self.logs / run.name


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("methods"))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_and_is_evaluated_beside_its_published_scores(tiny: Tiny, method: str):
    run = tiny.train(method)
    summary = json.loads((run / "summary.json").read_text())
    args = read_args(run / "args.yaml")
    assert (args["select_on"] or "segment_Type") in summary and summary["best_epoch"] in (1, 2)
    scores = (tiny.evaluate(run) / "scores.txt").read_text()
    published = {"jomold": "JoMoLD", "cmpae": "CMPAE", "coleaf": "CoLeaf", "lsld": "LSLD", "leap": "LEAP"}.get(method)
    assert published is None or f"{published} (published)" in scores  # MM-CSE's scores could not be read
    assert "UWAV (published)" in scores


@pytest.mark.parametrize("method", METHODS)
def test_evaluations_of_a_method_are_averaged_with_one_gate_for_all_classes(tiny: Tiny, method: str, tmp_path: Path):
    logs = tiny.evaluate(tiny.train(method))
    gated = read_args(logs / "args.yaml").get("class_gates", False)
    ensemble = ["--ensemble", str(logs), str(logs), "--output_dir", str(tmp_path / "twice")]
    if gated:
        with pytest.raises(InputError, match="one gate for all classes"):
            test_han.main(ensemble)
    test_han.main([*ensemble, *(["--no-class_gates"] if gated else [])])
    kept, twice = (load_predictions(folder, "test") for folder in (logs, tmp_path / "twice"))
    assert np.array_equal(kept.probs.segments, twice.probs.segments)
    # Equal but for gates, and for probabilities that half precision rounds to the threshold.
    share = np.mean(np.array(kept.events) == np.array(twice.events))
    assert gated or share > 0.99


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_is_resumed_ends_as_an_uninterrupted_one(tiny: Tiny, method: str):
    whole = tiny.train(method)
    part = tiny.train(method, "--num_epochs", "1")
    assert part != whole
    train_han.main(["--resume", str(part), "--num_epochs", "2"])
    assert_same_weights(whole, part)


def test_mm_cse_is_exported_and_parses_features_of_any_length(tiny: Tiny, tmp_path: Path):
    run = tiny.train("mmcse")
    export(open_run(run), tmp_path / "exported")
    networks = [open_run(run), open_trained(str(tmp_path / "exported"))]
    assert all(network.description.decoding == "audio_by_video" for network in networks)
    features = AudioVisual(torch.randn(13, WIDTHS["clap"]), torch.randn(13, WIDTHS["clip"] + WIDTHS["r2plus1d_18"]))
    one, other = (han_probs(network, features, decoding="audio_by_video") for network in networks)
    assert torch.equal(one.probs.audio, other.probs.audio) and one.probs.visual.shape == (13, 25)
    output = networks[0](*features.map(lambda x: x[None, :10]))
    alone = han_probs(networks[0], features.map(lambda x: x[:10]), decoding="audio_by_video")
    torch.testing.assert_close(alone.around.audio[0], output.video_probs[0].clamp(max=1))
    torch.testing.assert_close(alone.around.visual[0], output.modality_probs.visual[0].clamp(max=1))


def test_noise_ratios_and_labels_are_found_in_the_newest_runs(tiny: Tiny):
    run = tiny.train("cmpae")
    assert Path(read_args(run / "args.yaml")["noise_ratio_dir"]).name == "LLP_Noise"
    run = tiny.train("lsld")
    assert Path(read_args(run / "args.yaml")["pseudo_label_dir"]).parent.name.startswith("Language_LLP_")


def test_methods_without_their_labels_say_what_to_run(tiny: Tiny, tmp_path: Path):
    flags = ["--data_dir", str(tiny.data), "--output_dir", str(tmp_path), *CPU]
    for method, script in (
        ("jomold", "baselines.jomold.find_noise_ratios"),
        ("lsld", "baselines.lsld.refine_labels"),
    ):
        with pytest.raises(InputError, match=script):
            train_han.main(["--method", method, *flags])


@pytest.mark.parametrize(
    ("flags", "targets", "limits"),
    [
        ({}, (1.0, 0.95), (0.6, 1.8)),  # JoMoLD's own: only visual labels are smoothed
        (
            {"audio_smoothing": 0.1, "visual_smoothing": 0.9, "audio_limit": 0.95, "visual_limit": 0.55},
            *[(0.95, 0.55)] * 2,
        ),
    ],
)
def test_noise_ratios_equal_a_loop_over_videos_and_classes(tiny: Tiny, tmp_path: Path, flags, targets, limits):
    """A label is noise where its probability times its target is below the limit times the class's mean."""
    run = newest(tiny.runs, "HAN_jomold_base_LLP_")
    folder, train = tmp_path / "noise", load_annotations("LLP", tiny.data, "train")
    given = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    find_noise_ratios.main(["--checkpoint_dir", str(run), "--output_dir", str(folder), *CPU, *given])
    ratios = load_noise_ratios(folder, train)
    args = read_args(run / "args.yaml")
    settings = {name: args[name] for name in ("num_heads", "pre_norm", "encoder_order", "cross_attention")}
    model = load_network(HAN, run / "checkpoints/checkpoint_best.pt", {}, **settings).eval()
    pooled = []  # (2, C) of each video
    for feature_id in train.feature_ids:
        arrays = [np.load(feature_path(tiny.data, name, feature_id)) for name in ("vggish", "res152", "r2plus1d_18")]
        visual = np.concatenate([arrays[1].reshape(10, 8, -1).mean(axis=1), arrays[2]], axis=1)
        with torch.inference_mode():
            output = model(torch.tensor(arrays[0])[None], torch.tensor(visual)[None], False)
        pooled.append(torch.cat([*output.modality_probs]).tolist())
    means = np.mean(pooled, axis=0)
    expected = np.zeros((2, 25))
    for m, (target, limit) in enumerate(zip(targets, limits, strict=True)):
        for c in range(25):
            labelled = [n for n in range(len(pooled)) if train.video_labels[n, c]]
            noisy = [n for n in labelled if pooled[n][m][c] * target < limit * means[m][c]]
            expected[m, c] = len(noisy) / len(labelled) if labelled else 0
    np.testing.assert_allclose(torch.stack([*ratios]), expected, atol=1e-6)
    assert not np.array_equal(expected[0], expected[1])
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["audio_mean"] == pytest.approx(expected[0, :4].mean())  # of the four classes that occur
    assert summary["visual_mean"] == pytest.approx(expected[1, :4].mean())
    with open(folder / "noise_ratios.csv", newline="", encoding="utf-8") as file:
        dog = list(csv.DictReader(file))[3]
    assert (dog["Class"], int(dog["videos"])) == ("Dog", int(train.video_labels[:, 3].sum()))
    assert float(dog["Noise ratio audio"]) == pytest.approx(expected[0, 3], abs=1e-6)
    assert float(dog["Noise ratio visual"]) == pytest.approx(expected[1, 3], abs=1e-6)


def test_noise_ratios_are_exported_on_request(tiny: Tiny, tmp_path: Path):
    run, train = newest(tiny.runs, "HAN_jomold_base_LLP_"), load_annotations("LLP", tiny.data, "train")
    find_noise_ratios.main(["--checkpoint_dir", str(run), "--output_dir", str(tmp_path), "--export", *CPU])
    ours = load_noise_ratios(tmp_path, train)
    (tmp_path / "noise_ratios.safetensors").unlink()
    exported = load_noise_ratios(tmp_path, train)
    assert all(exported.map(torch.equal, ours)) and ours.visual.any()


def test_language_labels_are_those_of_a_plain_loop(tiny: Tiny):
    train = load_annotations("LLP", tiny.data, "train")
    pseudo = load_pseudo_labels(newest(tiny.runs, "Language_LLP_") / "LLP_Dataset", train)
    names = load_names(NAMES_FILE, "LLP", train.classes)
    for modality, feature, labels in (
        ("audio", "clap", pseudo.labels.audio),
        ("visual", "clip", pseudo.labels.visual),
    ):
        texts = load_subset_texts(tiny.data, feature)
        for n, feature_id in enumerate(train.feature_ids):
            subsets = [*label_subsets(train.video_labels[n].nonzero().flatten().tolist()), ()]
            rows = np.load(feature_path(tiny.data, feature, feature_id))
            for t in range(10):
                cosines = [
                    float(rows[t] @ texts.of([subset_text(subset, names, modality)])[0].numpy()) for subset in subsets
                ]
                best = subsets[int(np.argmax(cosines))]
                assert tuple(labels[10 * n + t].nonzero().flatten().tolist()) == best


def test_visual_language_labels_are_probabilities_and_audio_ones_are_hard(tiny: Tiny):
    train = load_annotations("LLP", tiny.data, "train")
    pseudo = load_pseudo_labels(newest(tiny.runs, "Language_LLP_") / "LLP_Dataset", train)
    audio, visual = pseudo.logits.map(torch.sigmoid)
    assert torch.equal(audio, pseudo.labels.audio.float())
    assert ((visual > 0) & (visual < 1)).any() and torch.isfinite(visual).all()


def test_visual_language_labels_are_softened_where_segments_with_and_without_them_overlap(tiny: Tiny):
    """4 cosines of a label whose cosine some unlabelled segment exceeds, 0.4 cosines of such a segment (LSLD)."""
    train = load_annotations("LLP", tiny.data, "train")
    pseudo = load_pseudo_labels(newest(tiny.runs, "Language_LLP_") / "LLP_Dataset", train)
    names = load_subset_texts(tiny.data, "clip").of(train.classes).numpy()
    rows = np.concatenate([np.load(feature_path(tiny.data, "clip", feature_id)) for feature_id in train.feature_ids])
    cosines = rows @ names.T / np.linalg.norm(rows, axis=1, keepdims=True)
    labels, found = pseudo.labels.visual.numpy(), torch.sigmoid(pseudo.logits.visual).numpy()
    kinds = set()
    for c in range(25):
        without = max(cosines[r, c] for r in range(len(rows)) if not labels[r, c])
        with_label = min((cosines[r, c] for r in range(len(rows)) if labels[r, c]), default=np.inf)
        for r in range(len(rows)):
            label, cosine, expected = labels[r, c], cosines[r, c], float(labels[r, c])
            if label and cosine < without and 0 < 4 * cosine < 1:
                expected = 4 * cosine
                kinds.add("kept")
            if not label and cosine > with_label and 0 < 0.4 * cosine < 1:
                expected = 0.4 * cosine
                kinds.add("dropped")
            assert found[r, c] == pytest.approx(expected, abs=1e-4)
    assert kinds == {"kept", "dropped"}


def test_class_gates_are_searched_with_the_checkpoint_of_the_named_epoch(tiny: Tiny):
    run = tiny.train("cmpae")
    assert "visual gates of checkpoint_epoch_001.pt" in (tiny.evaluate(run) / "log.txt").read_text()
    best = tiny.evaluate(run, "--gates_epoch", "0", "--output_dir", str(tiny.logs / "best"))
    assert best == tiny.logs / run.name
    assert "visual gates of checkpoint_best.pt" in (tiny.logs / "best" / "log.txt").read_text()


def test_scores_of_events_in_one_modality_come_on_request(tiny: Tiny):
    run = tiny.train("coleaf")
    without = tiny.evaluate(run)
    assert not (without / "unimodal_scores.md").exists()
    folder = tiny.evaluate(run, "--unimodal_scores")
    assert (folder / "unimodal_scores.md").exists()
    scores = json.loads((folder / "summary.json").read_text())["test"]
    assert scores["unimodal_segment_AV"] == scores["segment_AV"] and len(scores) == 20


@pytest.mark.parametrize("select_on", ["event_AV", "mean", "unimodal_mean", "unimodal_segment_A"])
def test_the_best_epoch_is_selected_by_any_score(tiny: Tiny, select_on: str):
    run = tiny.train("han", "--select_on", select_on)
    history = torch.load(run / "checkpoints/last.pt", weights_only=True)["progress"]["history"]
    best = max(history, key=lambda scores: scores[select_on])
    summary = json.loads((run / "summary.json").read_text())
    assert summary[select_on] == best[select_on]
    if select_on == "mean":
        ten = [best[f"{level}_{name}"] for level in ("segment", "event") for name in ("A", "V", "AV", "Type", "Event")]
        assert best["mean"] == pytest.approx(sum(ten) / 10)


def test_leap_without_word_vectors_says_where_to_get_them(tiny: Tiny, tmp_path: Path):
    with pytest.raises(InputError, match=r"glove\.6B\.300d"):
        tiny.train("leap", "--glove", str(tmp_path / "absent.txt"))


@pytest.mark.parametrize(
    ("method", "flags"),
    [
        ("leap", ["--mixup"]),
        ("leap", ["--cross_share", "0.7"]),
        ("leap", ["--segment_labels", "none"]),
        ("uwav", ["--mutual_weight", "1"]),
        ("han", ["--similarity_weight", "1"]),
        ("cmpae", ["--no-cross_attention"]),
        ("cmpae", ["--segment_labels", "hard", "--mixup"]),
    ],
)
def test_a_method_has_no_flags_of_another(method: str, flags: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as ended:
        train_han.main(["--method", method, *flags, "--data_dir", "nowhere"])
    assert ended.value.code == 2 and flags[0] in capsys.readouterr().err


def test_han_and_ma_are_decoded_as_their_own_code_decodes(tiny: Tiny):
    for method, decoding in (("han", "video"), ("ma_base", "modality")):
        assert read_args(tiny.train(method) / "args.yaml")["decoding"] == decoding
    run = tiny.train("han", "--decoding", "modality")
    assert read_args(run / "args.yaml")["decoding"] == "modality"


def test_labels_need_the_texts_of_every_subset(tiny: Tiny, tmp_path: Path):
    data = shutil.copytree(tiny.data, tmp_path / "LLP")
    path = text_features_path(data, "clip").parent / "lsld_texts.txt"
    path.write_text(path.read_text().replace("other", "nothing"))
    with pytest.raises(InputError, match="no text 'other'"):
        refine_labels.main(["--data_dir", str(data), "--runs_dir", str(tmp_path / "runs"), *CPU])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--select_on", "accuracy"], "--select_on: found accuracy; expected a score of LLP"),
        (["--dataset", "AVE", "--method", "jomold"], "jomold_ave.yaml: found no such file; expected a recipe"),
        (["--dataset", "AVE", "--method", "han", "--select_on", "event_A"], "found event_A; expected a score of AVE"),
        (["--method", "cmpae", "--num_epochs", "7"], "--gates_epoch: found epoch 8 of 7"),
        (["--method", "cmpae", "--checkpoint_every", "3"], "found epoch 8 of 20, with checkpoints every 3 epochs"),
        (["--method", "cmpae", "--decoding", "video"], "--class_gates: found --decoding video"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_before_data_are_read(flags: list[str], message: str):
    with pytest.raises(InputError, match=message):
        train_han.main([*flags, "--data_dir", "nowhere"])
