"""HAN, VALOR and MA: their losses, labels and decoding against plain loops, and each from training to evaluation."""

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import pseudo_label_generation
import train_han
from baselines.han import HANLosses, HANStep
from baselines.ma import MABaseLosses, MALosses, MAStep, contrastive_loss, find_exchange
from baselines.ma.exchange import (
    FILE,
    absent_labels,
    error_rates,
    given_back,
    load_cleaned_labels,
    save_cleaned_labels,
    unrelated_videos,
)
from baselines.valor.framewise import FIXED_THRESHOLDS
from dataloaders.annotations import SplitAnnotations, Subset
from dataloaders.batches import Batch
from dataloaders.datasets import load_annotations
from dataloaders.features import feature_path, text_features_path
from dataloaders.llp import LLP_CLASSES
from dataloaders.prompts import PROMPTS_FILE, load_prompts
from dataloaders.pseudo_labels import load_pseudo_labels
from models import HAN, HANConfig, HANOutput
from tests.tiny_data import WIDTHS, write_npy
from tests.tiny_runs import assert_same_weights, evaluate, newest
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.method.decoding import decode_segments_by_modality
from utils.method.losses import Moment
from utils.settings import read_args
from utils.training.checkpoints import load_network
from utils.training.loop import Recipe

TINY = ["--dim", "16", "--ffn_dim", "24", "--num_epochs", "2", "--batch_size", "4", "--device", "cpu"]
VISUAL_THRESHOLDS = "20 15 18 14 15 18 18 15 15 15 15 18 15 15 15 15 15 15 15 16 14 15 15 15 18"
AUDIO_THRESHOLDS = "0 0 1 4 6 -2 4 4 2 2 2 1 2 3 0 2 2 2 0 2 -1 2 3 3 0"


def train(llp_dir: Path, runs: Path, method: str, *flags: str) -> Path:
    train_han.main(["--method", method, "--data_dir", str(llp_dir), "--output_dir", str(runs), *TINY, *map(str, flags)])
    return newest(runs, f"HAN_{method}_LLP_")


def label_framewise(llp_dir: Path, runs: Path, *flags: str) -> Path:
    pseudo_label_generation.main(
        [
            *("--teacher", "framewise", "--data_dir", str(llp_dir), "--runs_dir", str(runs), "--device", "cpu"),
            *map(str, flags),
        ]
    )
    return newest(runs, "Framewise_LLP_") / "LLP_Dataset"


def find(runs: Path, *flags: str) -> Path:
    find_exchange.main(["--runs_dir", str(runs), "--device", "cpu", *map(str, flags)])
    return newest(runs, "HAN_ma_base_LLP_") / "LLP_Exchange"


def split_of(labels: Tensor) -> SimpleNamespace:
    """A training split as far as a training step knows it, of labels (N, C)."""
    return SimpleNamespace(annotations=SimpleNamespace(video_labels=labels), device=torch.device("cpu"))


# ---- HAN


def test_guided_losses_equal_a_loop_over_videos_and_classes():
    generator = torch.Generator().manual_seed(0)
    probs = AudioVisual(*(torch.rand(3, 5, generator=generator) for _ in range(2)))
    video_probs = torch.rand(3, 5, generator=generator)
    labels = torch.rand(7, 5, generator=generator) < 0.4  # of the whole split
    videos = torch.tensor([6, 0, 3])
    output = HANOutput(video_probs, probs, None, None, None)
    fields = {"videos": videos, "video_labels": labels[videos].float(), "features": ()}
    batch = Batch(**{**dict.fromkeys(Batch.__dataclass_fields__), **fields})
    losses = HANStep(HANLosses(), split_of(labels), lambda network, *inputs: output)(None, batch, Moment())

    for m, (modality, smoothed) in enumerate((("audio", False), ("visual", True))):
        total = 0.0
        for b in range(3):
            for c in range(5):
                y = float(labels[videos[b], c])
                y = 0.9 * y + 0.05 if smoothed else y
                p = float(probs[m][b, c])
                total -= (y * math.log(p) + (1 - y) * math.log(1 - p)) / 15
        assert losses[f"{modality}_guided"].item() == pytest.approx(total, rel=1e-5)
    total = losses["video"] + losses["audio_guided"] + losses["visual_guided"]
    assert losses["total"].item() == pytest.approx(total.item())


def test_a_segment_and_its_modality_both_have_to_reach_one_half():
    generator = torch.Generator().manual_seed(1)
    logits = AudioVisual(*(torch.randn(2, 3, 4, generator=generator) for _ in range(2)))
    pooled = AudioVisual(*(torch.rand(2, 4, generator=generator) for _ in range(2)))
    logits[0][0, 0, 0], pooled[0][0, 0] = 0.0, 0.5  # just reached
    decoded = decode_segments_by_modality(logits, pooled)
    for m in range(2):
        for b in range(2):
            for t in range(3):
                for c in range(4):
                    p = 1 / (1 + math.exp(-float(logits[m][b, t, c])))
                    assert decoded[m][b, t, c].item() == (p >= 0.5 and float(pooled[m][b, c]) >= 0.5)
    assert decoded[0][0, 0, 0]


def test_the_step_schedule_decays_after_every_tenth_epoch():
    recipe = Recipe(lr=3e-4, schedule="step", lr_decay=0.1, lr_decay_every=10)
    rates = [recipe.learning_rate(epoch) for epoch in (1, 10, 11, 20, 21, 40)]
    assert rates == pytest.approx([3e-4, 3e-4, 3e-5, 3e-5, 3e-6, 3e-7])


def test_visual_features_projected_apart_are_fused_linearly():
    torch.manual_seed(0)
    network = {"dim": 8, "num_heads": 1, "ffn_dim": 8, "num_layers": 1, "num_audio_proj_layers": 1}
    model = HAN(4, 6, (10, 8), HANConfig(**network, visual_fusion="projected", encoder_order="parallel")).eval()
    audio, visual = torch.randn(2, 10, 6), torch.randn(2, 10, 18)
    (first, second), fusion = model.fc_v, model.fc_fusion.layers[0]
    by_hand = fusion(torch.cat([first(visual[..., :10]), second(visual[..., 10:])], dim=-1))
    assert torch.equal(model(audio, visual).visual_inputs, by_hand)
    assert len(model.fc_a.layers) == len(model.fc_fusion.layers) == 1


def test_a_method_sets_defaults_that_flags_override_and_args_keep(llp_dir: Path, tmp_path: Path):
    run = train(llp_dir, tmp_path, "han", "--lr", "1e-3", "--dropout", "0.3", "--num_epochs", "1")
    args = read_args(run / "args.yaml")
    assert args["lr"] == 1e-3 and args["dropout"] == 0.3 and args["num_epochs"] == 1
    kept = {
        **{"method": "han", "optimizer": "adam", "schedule": "step", "lr_decay": 0.1, "lr_decay_every": 10},
        **{"num_heads": 1, "num_layers": 1, "weight_decay": 0.0, "clip_norm": math.inf, "decoding": "video"},
        **{"audio_smoothing": 0.0, "visual_smoothing": 0.1},
    }
    assert {name: args[name] for name in kept} == kept


def test_a_file_of_one_method_refuses_another(llp_dir: Path, tmp_path: Path):
    run = train(llp_dir, tmp_path, "han")
    with pytest.raises(InputError, match="han as in"):
        train_han.main(["--config", str(run / "args.yaml"), "--method", "ma_base"])


def test_han_trains_and_is_evaluated_by_its_own_decoding(llp_dir: Path, tmp_path: Path):
    run = train(llp_dir, tmp_path / "runs", "han")
    logs = evaluate(run, tmp_path / "logs")
    scores = (logs / "scores.txt").read_text()
    assert "HAN (published)" in scores and "UWAV (published)" in scores
    assert read_args(logs / "args.yaml")["decoding"] == "video"
    state = torch.load(run / "checkpoints/checkpoint_best.pt", weights_only=True)
    assert HAN.from_state(state, num_heads=1).visual_dims == (WIDTHS["res152"], WIDTHS["r2plus1d_18"])


def test_a_resumed_baseline_ends_as_an_uninterrupted_one(llp_dir: Path, tmp_path: Path):
    whole = train(llp_dir, tmp_path / "whole", "ma_base")
    run = train(llp_dir, tmp_path / "parts", "ma_base", "--num_epochs", "1")
    train_han.main(["--resume", str(run), "--num_epochs", "2"])
    assert_same_weights(whole, run)


# ---- VALOR


def test_fixed_thresholds_are_valors():
    for modality, printed in (("visual", VISUAL_THRESHOLDS), ("audio", AUDIO_THRESHOLDS)):
        thresholds = FIXED_THRESHOLDS["LLP"]._asdict()[modality]
        assert thresholds == tuple(map(int, printed.split()))
        assert len(thresholds) == len(LLP_CLASSES)


def test_framewise_labels_equal_a_loop_over_segments_and_classes(llp_dir: Path, tmp_path: Path):
    folder = label_framewise(llp_dir, tmp_path)
    annotations = load_annotations("LLP", llp_dir, "train")
    pseudo = load_pseudo_labels(folder, annotations)
    for m, (feature, scale) in enumerate((("clap", 26.87), ("clip", 100.0))):
        events = np.load(text_features_path(llp_dir, feature))
        for n, feature_id in enumerate(annotations.feature_ids):
            rows = np.load(feature_path(llp_dir, feature, feature_id))
            for t in range(10):
                for c in range(25):
                    cosine = rows[t] @ events[c] / np.linalg.norm(rows[t]) / np.linalg.norm(events[c])
                    logit = pseudo.logits[m][10 * n + t, c].item()
                    assert logit == pytest.approx(scale * cosine, abs=1e-3)
                    expected = logit > FIXED_THRESHOLDS["LLP"][m][c] and annotations.video_labels[n, c].item()
                    assert pseudo.labels[m][10 * n + t, c].item() == expected


@pytest.mark.parametrize("method", ["valor", "valor_plus", "valor_plus_plus"])
def test_valor_trains_on_the_newest_framewise_labels_and_is_evaluated(llp_dir: Path, tmp_path: Path, method: str):
    folder = label_framewise(llp_dir, tmp_path / "runs", "--thresholds", "search")
    quality = (folder / "pseudo_label_quality.txt").read_text()
    assert "VALOR pseudo-labels" in quality and "80.5" in quality  # the paper's Table 3
    run = train(llp_dir, tmp_path / "runs", method)
    assert read_args(run / "args.yaml")["pseudo_label_dir"] == str(folder)
    assert (evaluate(run, tmp_path / "logs") / "scores.md").exists()


def test_valor_scores_its_own_sentences_where_their_features_are_there(llp_dir: Path, tmp_path: Path):
    assert read_args(label_framewise(llp_dir, tmp_path) / "args.yaml")["prompts"] == "event_names"
    rng = np.random.default_rng(0)
    for feature in ("clip", "clap"):
        write_npy(text_features_path(llp_dir, feature, "valor"), rng.standard_normal((25, WIDTHS[feature])))
    with_sentences = label_framewise(llp_dir, tmp_path)
    assert read_args(with_sentences / "args.yaml")["prompts"] == "valor"
    by_name = label_framewise(llp_dir, tmp_path, "--prompts", "event_names")
    annotations = load_annotations("LLP", llp_dir, "val")
    one, other = (load_pseudo_labels(folder, annotations).logits.audio for folder in (with_sentences, by_name))
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("flag", ["--transformer_dir", "--checkpoint", "--num_heads"])
def test_the_framewise_teacher_refuses_what_belongs_to_a_transformer(llp_dir: Path, tmp_path: Path, flag: str):
    with pytest.raises(InputError, match=flag):
        label_framewise(llp_dir, tmp_path, flag, "1")


def test_sentences_of_just_one_modality_are_refused(llp_dir: Path, tmp_path: Path):
    write_npy(text_features_path(llp_dir, "clip", "valor"), np.ones((25, WIDTHS["clip"])))
    with pytest.raises(InputError, match=r"feats_CLAP.*no file, but"):
        label_framewise(llp_dir, tmp_path)


def test_every_class_of_both_data_sets_has_a_sentence_of_each_modality():
    for dataset, number in (("LLP", 25), ("AVE", 28)):
        prompts = load_prompts(PROMPTS_FILE, dataset)
        assert prompts.map(len) == (number, number)
    assert load_prompts(PROMPTS_FILE, "LLP").visual[3] == "A photo of a dog."


def test_sentences_are_in_class_order_whatever_the_file_s_order(tmp_path: Path):
    sentences = [(name, f"Sentence of {name}.") for name in LLP_CLASSES]
    path = tmp_path / "prompts.yaml"
    written = {"audio": dict(reversed(sentences)), "visual": dict(sorted(sentences))}
    path.write_text(yaml.safe_dump({"LLP": written}, sort_keys=False))
    in_order = tuple(sentence for _, sentence in sentences)
    assert load_prompts(path, "LLP") == (in_order, in_order)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda p: p["LLP"]["visual"].pop("Dog"), "sentence for Dog"),
        (lambda p: p["LLP"]["audio"].update(Wolf="A wolf."), "sentence for Wolf"),
        (lambda p: p["LLP"]["audio"].update(Dog=""), "sentence for Dog"),
        (lambda p: p.pop("LLP"), "no sentences of LLP"),
    ],
)
def test_incomplete_prompts_are_refused(tmp_path: Path, change, found: str):
    prompts = yaml.safe_load(PROMPTS_FILE.read_text())
    change(prompts)
    path = tmp_path / "prompts.yaml"
    path.write_text(yaml.safe_dump(prompts))
    with pytest.raises(InputError, match=re.escape(found)):
        load_prompts(path, "LLP")


def test_the_temporal_transformer_has_no_fixed_thresholds(llp_dir: Path, tmp_path: Path):
    with pytest.raises(InputError, match="--teacher"):
        pseudo_label_generation.main(
            [
                "--data_dir",
                str(llp_dir),
                "--transformer_dir",
                str(tmp_path),
                "--num_heads",
                "1",
                "--thresholds",
                "fixed",
            ]
        )


def test_features_of_another_space_than_the_text_are_refused(llp_dir: Path, tmp_path: Path):
    with pytest.raises(InputError, match="segments and text in one space"):
        label_framewise(llp_dir, tmp_path, "--visual_features", "clip", "r2plus1d_18")


def test_valor_learns_alike_from_its_own_layout(llp_dir: Path, tmp_path: Path):
    packed = label_framewise(llp_dir, tmp_path, "--thresholds", "search", "--export")
    shipped = tmp_path / "shipped"
    for name in ("CLAP", "CLIP"):
        shutil.copytree(packed / name, shipped / name)
    runs = [train(llp_dir, tmp_path / d.name, "valor", "--pseudo_label_dir", d) for d in (packed, shipped)]
    assert_same_weights(*runs)
    assert load_pseudo_labels(packed, load_annotations("LLP", llp_dir, "train")).labels.audio.any()


# ---- MA


@pytest.mark.parametrize("seconds", [2, 10])
def test_contrastive_loss_equals_a_loop_over_seconds(seconds: int):
    generator = torch.Generator().manual_seed(2)
    audio, visual = (torch.randn(2, seconds, 6, generator=generator) for _ in range(2))
    total = 0.0
    for b in range(2):
        for t in range(seconds):
            logits = [
                float(audio[b, t] @ visual[b, s] / audio[b, t].norm() / visual[b, s].norm()) / 0.2
                for s in range(seconds)
            ]
            log_sum = math.log(sum(math.exp(logit) for logit in logits))
            for s in range(seconds):
                target = 0.9 if s == t else 0.1 / (seconds - 1)
                total -= target * (logits[s] - log_sum) / (2 * seconds)
    assert contrastive_loss(audio, visual, temperature=0.2, label_smoothing=0.1).item() == pytest.approx(
        total, rel=1e-5
    )


def test_partners_share_no_label_and_are_drawn_by_the_seed():
    labels = torch.rand(40, 6, generator=torch.Generator().manual_seed(3)) < 0.25
    labels[0] = True  # shares a label with every labelled video
    labels[1:, 0] |= ~labels[1:].any(dim=1)
    draws = [unrelated_videos(labels, torch.Generator().manual_seed(seed), rows=7) for seed in (5, 5, 6)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert draws[0][0] == -1
    for n, partner in enumerate(draws[0].tolist()):
        unrelated = [m for m in range(40) if not (labels[n] & labels[m]).any()]
        assert partner in unrelated if unrelated else partner == -1


def test_the_contrastive_loss_matches_encoded_audio_with_the_visual_inputs():
    """Cosines over the temperature are 2 at the same second and 0 at the other one; these learn 0.8 and 0.2."""
    seconds = torch.eye(2).unsqueeze(0)
    features = AudioVisual(seconds, seconds.flip(1))
    labels = torch.zeros(1, 2)
    output = HANOutput(labels, AudioVisual(labels, labels), None, features, seconds)
    settings = MABaseLosses(contrastive_weight=1, contrastive_temperature=0.5, contrastive_smoothing=0.2)
    batch = Batch(torch.arange(1), features, None, None, labels, None, None)
    losses = MAStep(settings, split_of(labels), lambda network, *inputs: output)(None, batch, Moment())
    assert losses["contrastive"].item() == pytest.approx(math.log(math.exp(2) + 1) - 0.8 * 2)


def test_error_rates_and_absent_labels_equal_a_loop():
    generator = torch.Generator().manual_seed(4)
    probs = torch.rand(30, 4, generator=generator)
    labels = torch.rand(30, 4, generator=generator) < 0.5
    labels[:, 3] = False  # a class that does not occur
    wrong = [sum((probs[n, c] > 0.5).item() != labels[n, c].item() for n in range(30)) for c in range(4)]
    rates = error_rates(probs, labels)
    assert rates.tolist() == pytest.approx([number / max(wrong) for number in wrong], rel=1e-5)
    exchanged = AudioVisual(*(torch.rand(30, 4, generator=generator) for _ in range(2)))
    absent = absent_labels(exchanged, rates)
    for n in range(30):
        for c in range(4):
            audio, visual = (float(exchanged[m][n, c] / rates[c]) for m in range(2))
            assert absent[n, c].item() == (audio < 0.5 and visual < 0.5)


def test_a_class_that_is_never_decided_wrongly_keeps_its_labels():
    labels = torch.tensor([[True, True], [True, True]])
    rates = error_rates(torch.tensor([[0.9, 0.1], [0.8, 0.1]]), labels)
    assert rates.tolist() == [0, 1]
    assert not absent_labels(AudioVisual(torch.zeros(1, 2), torch.zeros(1, 2)), rates)[0, 0]
    assert error_rates(torch.ones(2, 2), labels).tolist() == [0, 0]  # nothing is wrong at all


def test_a_probability_of_just_one_half_decides_against_the_class():
    labels = torch.tensor([[True, False], [True, True], [False, False]])
    rates = error_rates(torch.tensor([[0.5, 0.5], [0.4, 0.9], [0.1, 0.6]]), labels)
    assert rates.tolist() == pytest.approx([1, 0.5])
    low, half = torch.tensor([[0.3]]), torch.tensor([[0.4]])  # of a rate of 0.8
    pairs = ((low, low), (half, low), (low, half))
    found = [absent_labels(AudioVisual(*pair), torch.tensor([0.8])).item() for pair in pairs]
    assert found == [True, False, False]


@pytest.mark.parametrize("fused_labels", ["audio", "video"])
def test_removed_labels_become_zero_and_leave_the_fused_target_with_the_audio(tmp_path: Path, fused_labels: str):
    labels = torch.tensor([[1, 1, 1, 1, 0]]).bool()
    left = AudioVisual(torch.tensor([[0, 0, 1, 1, 0]]).bool(), torch.tensor([[0, 1, 0, 1, 0]]).bool())
    of_videos = {"lengths": torch.tensor([2]), "video_labels": labels, "labels": None}
    annotations = SplitAnnotations("LLP", "train", LLP_CLASSES[:5], ("a",), ("a",), **of_videos)
    save_cleaned_labels(left, annotations, tmp_path)
    train = SimpleNamespace(annotations=annotations, device=torch.device("cpu"))
    settings = MALosses(cleaned_label_dir=tmp_path, fused_labels=fused_labels, contrastive_weight=0)
    probs = [torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.3]]), torch.tensor([[0.2, 0.4, 0.6, 0.8, 0.1]])]
    video, seconds = torch.tensor([[0.5, 0.3, 0.2, 0.9, 0.4]]), torch.eye(2).unsqueeze(0)
    output = HANOutput(video, AudioVisual(*probs), None, AudioVisual(seconds, seconds), seconds)
    batch = Batch(torch.arange(1), (), None, None, labels.float(), None, None)
    losses = MAStep(settings, train, lambda network, *inputs: output)(None, batch, Moment())

    # As `step3_retrain/dataloader.py` makes them: pa and the label of the video are one array there.
    label = [1.0, 1.0, 1.0, 1.0, 0.0]
    pv, pa = [0.9 * y + 0.05 for y in label], list(label)
    for c in range(5):
        if label[c]:
            pv[c] = 0.0 if not left.visual[0, c] else pv[c]
            pa[c] = 0.0 if not left.audio[0, c] else pa[c]
    fused = pa if fused_labels == "audio" else label
    for name, p, target in (("audio_guided", probs[0], pa), ("visual_guided", probs[1], pv), ("video", video, fused)):
        expected = [-(t * math.log(x) + (1 - t) * math.log(1 - x)) for x, t in zip(p[0].tolist(), target, strict=True)]
        assert losses[name].item() == pytest.approx(sum(expected) / 5, rel=1e-5)


def test_labels_that_both_modalities_lose_can_be_given_back():
    # Labels 0 to 3 are removed from both, from audio, from visual, from neither; class 4 is no label, video 1 has none.
    labels = torch.tensor([[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]]).bool()
    audio = torch.tensor([[0, 0, 1, 1, 0], [0, 0, 0, 0, 0]]).bool()
    visual = torch.tensor([[0, 1, 0, 1, 0], [0, 0, 0, 0, 0]]).bool()
    kept = given_back(AudioVisual(audio, visual), labels)
    assert kept.audio.int().tolist() == [[1, 0, 1, 1, 0], [0, 0, 0, 0, 0]]
    assert kept.visual.int().tolist() == [[1, 1, 0, 1, 0], [0, 0, 0, 0, 0]]


@pytest.fixture
def three_videos() -> tuple[SplitAnnotations, AudioVisual[Tensor]]:
    """Two classes: audio loses the first one's label of the first video, visual that and both labels of the second."""
    labels = torch.tensor([[True, True], [True, False], [True, True]])
    none = torch.zeros(3, 2, 2, dtype=torch.bool)
    audible, visible = none.clone(), none.clone()
    audible[0, 1, 1] = audible[1, 0, 0] = audible[2, :, :] = True  # the first class is not heard in the first video
    visible[0, 0, 0] = True  # nothing else is seen
    annotations = SplitAnnotations(
        *("LLP", "train", ("Dog", "Car"), ("a", "b", "c"), ("a", "b", "c")),
        lengths=torch.tensor([2, 2, 2]),
        video_labels=labels,
        labels=AudioVisual(audible.flatten(0, 1), visible.flatten(0, 1)),
    )
    left = AudioVisual(
        torch.tensor([[False, True], [True, False], [True, True]]),
        torch.tensor([[False, False], [True, False], [True, False]]),
    )
    return annotations, left


def test_the_report_of_an_exchange_counts_the_labels_that_each_modality_loses(three_videos):
    annotations, left = three_videos
    rates = AudioVisual(torch.tensor([0.5, 1.5]), torch.tensor([2.0, 0.25]))
    table = find_exchange.cleaning_table(annotations, left, rates)
    assert [column.full_name for column in table.columns] == [
        "videos",
        *("Audio removed (%)", "Audio error rate", "Visual removed (%)", "Visual error rate"),
    ]
    cells = {row.labels[0]: [cell.mean for cell in row.cells] for row in table.rows}
    assert cells == {
        "Dog": pytest.approx([3, 100 / 3, 0.5, 100 / 3, 2.0], rel=1e-6),
        "Car": pytest.approx([2, 0, 1.5, 100, 0.25], rel=1e-6),
    }


def test_an_exchange_is_summarised_by_what_it_removes_and_by_how_much_of_it_is_truly_absent(three_videos):
    annotations, left = three_videos
    assert find_exchange.summarise(annotations, left, annotations, left) == {
        **{"labels": 5, "removed_from_audio": 1, "removed_from_visual": 3, "removed_from_both": 1},
        "val_audio_precision": 100,
        "val_audio_recall": 100,
        "val_visual_precision": pytest.approx(200 / 3),  # all but that of the first class in the first video
        "val_visual_recall": 50,  # four labels are not seen: two of them in the last video and one in each other
    }
    nothing = AudioVisual(annotations.video_labels, annotations.video_labels)
    assert find_exchange.agreement(annotations, nothing)["audio_precision"] == 100


def test_an_exchange_that_leaves_nothing_is_not_learned_from(llp_dir: Path, tmp_path: Path):
    annotations = load_annotations("LLP", llp_dir, "train")
    nothing = torch.zeros_like(annotations.video_labels)
    save_cleaned_labels(AudioVisual(nothing, nothing), annotations, tmp_path)
    with pytest.raises(InputError, match="no label at all"):
        load_cleaned_labels(tmp_path, annotations)


def test_labels_lost_by_both_modalities_are_given_back_on_request(llp_dir: Path, tmp_path: Path):
    train(llp_dir, tmp_path, "ma_base", "--lr", "1e-2", "--num_epochs", "8")
    annotations = load_annotations("LLP", llp_dir, "train")
    lost = annotations.video_labels
    without = load_cleaned_labels(find(tmp_path), annotations)
    lost = lost & ~without.audio & ~without.visual
    assert lost.any()
    given_back = load_cleaned_labels(find(tmp_path, "--keep_one_modality"), annotations)
    assert torch.equal(given_back.audio, without.audio | lost) and torch.equal(given_back.visual, without.visual | lost)


def test_exchanged_labels_equal_a_loop_over_videos(llp_dir: Path, tmp_path: Path):
    run = train(llp_dir, tmp_path, "ma_base", "--lr", "1e-2", "--num_epochs", "12")
    folder = find(tmp_path)
    annotations = load_annotations("LLP", llp_dir, "train")
    cleaned = load_cleaned_labels(folder, annotations)

    model = load_network(HAN, run / "checkpoints/checkpoint_best.pt", {}, num_heads=1, encoder_order="parallel").eval()
    streams = []  # audio (10, 6), visual (10, 18) of each video
    for feature_id in annotations.feature_ids:
        arrays = [np.load(feature_path(llp_dir, name, feature_id)) for name in ("vggish", "res152", "r2plus1d_18")]
        arrays[1] = arrays[1].reshape(10, 8, -1).mean(axis=1)
        streams.append((torch.tensor(arrays[0]), torch.tensor(np.concatenate(arrays[1:], axis=1))))

    @torch.inference_mode()
    def pooled(audio: torch.Tensor, visual: torch.Tensor) -> list[torch.Tensor]:
        output = model(audio[None], visual[None])
        return [probs[0] for probs in output.modality_probs]

    labels = annotations.video_labels
    own = [pooled(*stream) for stream in streams]
    rates = [error_rates(torch.stack([p[m] for p in own]), labels) for m in range(2)]
    partners = unrelated_videos(labels, torch.Generator().manual_seed(2)).tolist()
    removed = 0
    for n, partner in enumerate(partners):
        heard = pooled(streams[n][0], streams[partner][1])
        seen = pooled(streams[partner][0], streams[n][1])
        for c in labels[n].nonzero().squeeze(1).tolist():
            for kept, left, probs in ((0, cleaned.audio, heard), (1, cleaned.visual, seen)):
                absent = all(float(probs[m][c]) < 0.5 * float(rates[kept][c]) for m in range(2))
                assert left[n, c].item() == (not absent)
                removed += absent
    assert 0 < removed < 2 * int(labels.sum())

    find(tmp_path, "--output_dir", tmp_path / "kept", "--keep_one_modality")
    kept = load_cleaned_labels(tmp_path / "kept", annotations)
    neither = labels & ~cleaned.audio & ~cleaned.visual
    assert neither.any()
    for ours, before in zip(kept, cleaned, strict=True):
        assert torch.equal(ours, before | neither)


def test_ma_runs_through_its_three_stages(llp_dir: Path, tmp_path: Path):
    train(llp_dir, tmp_path / "runs", "ma_base", "--seed", "7", "--audio_features", "clap")
    folder = find(tmp_path / "runs")
    args = read_args(folder / "args.yaml")
    assert (args["data_dir"], args["audio_features"], args["num_heads"]) == (str(llp_dir), ["clap"], 1)  # of the run
    assert args["seed"] == 2  # its own
    assert "Speech" in (folder / "removed_labels.md").read_text()
    run = train(llp_dir, tmp_path / "runs", "ma")
    assert read_args(run / "args.yaml")["cleaned_label_dir"] == str(folder)
    assert (evaluate(run, tmp_path / "logs") / "scores.md").exists()


def test_an_exchange_is_exported_on_request_of_all_of_llp(llp_dir: Path, tmp_path: Path):
    train(llp_dir, tmp_path, "ma_base", "--lr", "1e-2", "--num_epochs", "8")
    folder, annotations = find(tmp_path, "--export"), load_annotations("LLP", llp_dir, "train")
    ours = load_cleaned_labels(folder, annotations)
    (folder / FILE).unlink()
    exported = load_cleaned_labels(folder, annotations)
    assert all(exported.map(torch.equal, ours)) and not torch.equal(ours.visual, annotations.video_labels)
    assert not (find(tmp_path) / "need_to_change.pkl").exists()  # no file of an earlier export stays
    with pytest.raises(InputError, match="--export: found a part of LLP"):
        find(tmp_path, "--export", "--num_classes", "2")


def test_cleaned_labels_come_back_in_the_order_of_the_annotations(llp_dir: Path, tmp_path: Path):
    annotations = load_annotations("LLP", llp_dir, "train")
    audio, visual = annotations.video_labels.clone(), annotations.video_labels.clone()
    audio[3] = False
    save_cleaned_labels(AudioVisual(audio, visual), annotations, tmp_path)
    part = annotations.subset(torch.tensor([5, 3]))
    loaded = load_cleaned_labels(tmp_path, part)
    assert torch.equal(loaded.audio, audio[[5, 3]]) and torch.equal(loaded.visual, visual[[5, 3]])


def test_a_run_on_fewer_classes_takes_the_first_cleaned_labels(llp_dir: Path, tmp_path: Path):
    annotations = load_annotations("LLP", llp_dir, "train")
    labels = AudioVisual(annotations.video_labels, torch.zeros_like(annotations.video_labels))
    save_cleaned_labels(labels, annotations, tmp_path)
    part = Subset(num_classes=2).annotations(annotations)
    loaded = load_cleaned_labels(tmp_path, part)
    assert part.classes == LLP_CLASSES[:2] and torch.equal(loaded.audio, part.video_labels)
    assert loaded.visual.shape == part.video_labels.shape and not loaded.visual.any()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"dataset": "AVE"}, "a record of AVE"),
        ({"classes": LLP_CLASSES[::-1]}, "a record of LLP"),
        ({"sample_ids": tuple(f"other{n}" for n in range(14))}, "14 absent and 0 repeated videos"),
        ({"video_labels": torch.ones(14, 25).bool()}, "labels that the annotations lack"),
    ],
)
def test_cleaned_labels_of_other_data_are_refused(llp_dir: Path, tmp_path: Path, change: dict, found: str):
    annotations = load_annotations("LLP", llp_dir, "train")
    others = replace(annotations, **change)
    save_cleaned_labels(AudioVisual(others.video_labels, others.video_labels), others, tmp_path)
    with pytest.raises(InputError, match=found):
        load_cleaned_labels(tmp_path, annotations)


def test_absent_and_damaged_cleaned_labels_are_refused(llp_dir: Path, tmp_path: Path):
    annotations = load_annotations("LLP", llp_dir, "train")
    with pytest.raises(InputError, match=r"baselines\.ma\.find_exchange"):
        load_cleaned_labels(tmp_path, annotations)
    (tmp_path / FILE).write_bytes(b"not safetensors")
    with pytest.raises(InputError, match="no readable record"):
        load_cleaned_labels(tmp_path, annotations)


def test_retraining_without_an_exchange_says_what_to_run(llp_dir: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # not among the runs of whoever runs the tests
    run = train(llp_dir, tmp_path, "ma_base")
    shutil.rmtree(run / "LLP_Exchange", ignore_errors=True)
    with pytest.raises(InputError, match=r"train_han\.py --method ma_base.*find_exchange"):
        train(llp_dir, tmp_path, "ma")
