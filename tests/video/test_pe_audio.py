"""PE-A-Frame: parity with transformers' own forward, and the traps of its use."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import pseudo_label_generation
from baselines.pe_frame import FIXED_PROBABILITY, fixed_thresholds, pool_frames
from dataloaders.datasets import load_annotations
from dataloaders.features import feature_path, load_text_features, read_npy, read_segment_features, text_features_path
from dataloaders.pseudo_labels import load_pseudo_labels
from simulation.simulate import simulate
from tests.tiny_runs import newest, train
from tests.video.made_videos import make_video
from utils.errors import InputError
from video import parse_video
from video.backbones.drawn_weights import draw_weights_of, small_pe_audio
from video.backbones.pe_audio import PEAudio
from video.extract_features import main as extract_features
from video.extraction.event_texts import sentences_of
from video.extraction.extraction_inputs import pe_clips, read_inputs

RATE = 48_000


@pytest.fixture(scope="module")
def network() -> PEAudio:
    """The stand-in with weights that names and shapes determine, logit scale and bias among them."""
    network = small_pe_audio().eval()
    draw_weights_of(network)
    return network


def waves(seconds: float, number: int = 1, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(number, round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def texts(number: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(10, 50_000, (number, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.inference_mode()
def test_logits_are_those_of_transformers_whose_axes_are_audio_text_frames(network: PEAudio):
    sound, tokens = waves(3, 2), texts(2)
    output = network.network(input_values=sound.unsqueeze(1), **tokens)
    frames, words = network(sound), network.text(tokens["input_ids"], tokens["attention_mask"])
    assert frames.shape[:2] == (2, 75) and output.logits_audio_text.shape == (2, 2, 75)
    torch.testing.assert_close((frames @ words.T + network.bias).mT, output.logits_audio_text, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(output.logits_audio_text.sigmoid(), torch.tensor(0.5), atol=1e-3)  # as if all were 0


@torch.inference_mode()
def test_texts_are_read_before_the_final_norm_as_the_original_reads_them(network: PEAudio):
    tokens = texts(3)
    before = network.text(**{"token_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]})
    weight = network.network.text_model.final_norm.weight
    kept = weight.clone()
    weight.mul_(7)
    after = network.text(tokens["input_ids"], tokens["attention_mask"])
    weight.copy_(kept)
    assert torch.equal(before, after)


@torch.inference_mode()
def test_a_shorter_clip_of_a_batch_is_what_it_is_alone(network: PEAudio):
    sound = waves(4, 3)
    sound[1, 2 * RATE :] = torch.nan
    together, alone = network(sound), network(sound[1:2, : 2 * RATE])[0]
    torch.testing.assert_close(together[1, :50], alone, atol=1e-6, rtol=0)
    assert together[1, 50:].isnan().all() and together[[0, 2]].isfinite().all()


@torch.inference_mode()
def test_what_is_not_finite_within_a_clip_is_not_taken_for_its_end(network: PEAudio):
    broken = small_pe_audio().eval()
    draw_weights_of(broken)
    broken.network.audio_head.proj.weight.fill_(torch.nan)
    assert broken(waves(1)).isinf().any() and not broken(waves(1)).isnan().any()


def test_clips_of_ten_seconds_are_silent_after_the_sound_and_nan_after_the_last_segment():
    samples = np.full(int(12.5 * RATE), 16384, np.int16)
    rows = np.arange(14)[:, None] * RATE + [0, RATE]
    clips = pe_clips(samples, rows)
    assert clips.shape == (2, 480_000) and (clips[0] == 0.5).all()
    assert (clips[1, : 5 * RATE // 2] == 0.5).all() and (clips[1, 5 * RATE // 2 : 4 * RATE] == 0).all()
    assert np.isnan(clips[1, 4 * RATE :]).all()
    assert 480_000 % 1920 == 0 == RATE % 1920  # 40 ms: nothing is left to be reflected


def test_extraction_writes_25_rows_a_second_whatever_the_batch_and_texts_with_scale_and_bias(tmp_path: Path, network):
    videos = [make_video(tmp_path / f"videos/v{n}.mp4", seconds, seed=n) for n, seconds in enumerate((2, 13, 61))]
    flags = ["--videos", *map(str, videos), "--features", "pe_audio", "--random_weights", "small", "--device", "cpu"]
    flags += ["--events", "dog barking", "Frying_(food)"]
    for batch_size in ("1", "40"):
        extract_features([*flags, "--output", str(tmp_path / batch_size), "--batch_size", batch_size])
    for n, seconds in enumerate((2, 13, 61)):
        one, other = (read_npy(feature_path(tmp_path / size, "pe_audio", f"v{n}")) for size in ("1", "40"))
        assert one.shape == (25 * seconds, 256)
        np.testing.assert_allclose(one, other, atol=2e-5)
        averaged = read_segment_features(feature_path(tmp_path / "1", "pe_audio", f"v{n}"), "pe_audio", seconds, False)
        np.testing.assert_allclose(averaged, one.reshape(seconds, 25, 256).mean(1), atol=1e-6)
    ((inputs, _),) = read_inputs(videos[0], ["pe_audio"], None, "centre")
    with torch.inference_mode():
        direct = network(torch.from_numpy(inputs["pe_audio"]))[0, :50]
    np.testing.assert_allclose(direct, read_npy(feature_path(tmp_path / "1", "pe_audio", "v0")), atol=1e-5)
    words = load_text_features(tmp_path / "1", "pe_audio", ("dog barking", "Frying_(food)"))
    bias = read_npy(text_features_path(tmp_path / "1", "pe_audio").with_name("logit_bias.npy"))
    assert words.shape == (2, 256) and bias == np.float32([network.bias])


def test_finer_segments_are_refused(tmp_path: Path):
    video = make_video(tmp_path / "v.mp4", 2)
    with pytest.raises(InputError, match="--segments_per_second: found 2 for pe_audio"):
        next(read_inputs(video, ["pe_audio"], None, "centre", segments_per_second=2))


def test_phrases_are_plain_and_of_the_data_set():
    assert sentences_of("pe_audio", ("Frying_(food)", "Car"), "event_names", "LLP") == ["frying food", "a car driving"]
    assert sentences_of("pe_audio", ("Glass_breaking",), "valor", None) == ["glass breaking"]


def test_frames_of_a_segment_are_pooled_as_the_setting_says():
    logits = torch.tensor([[-2.0, 0.0, 3.0, 1.0, -1.0, 0.5]]).T.unsqueeze(0)  # (1, 6, 1)
    probs = [1 / (1 + math.exp(-x)) for x in logits.flatten().tolist()]
    mean = sum(probs) / 6
    expected = {"mean_probability": math.log(mean / (1 - mean)), "mean_logit": 1.5 / 6, "max": 3.0, "top5": 3.5 / 5}
    for how, value in expected.items():
        assert pool_frames(logits, how).item() == pytest.approx(value, abs=1e-6)


def test_a_segment_of_certain_frames_has_a_finite_logit():
    assert pool_frames(torch.full((1, 25, 2), 90.0), "mean_probability").isfinite().all()


def test_the_teacher_writes_labels_that_han_learns_from(tmp_path: Path):
    sizes = {"train": 8, "val": 6, "test": 4}
    folder = simulate("LLP", tmp_path / "data", None, sizes, features=["pe_audio", "clip"])
    where = [
        "--data_dir",
        str(folder),
        "--runs_dir",
        str(tmp_path / "runs"),
        "--teacher",
        "pe_frame",
        "--device",
        "cpu",
    ]
    pseudo_label_generation.main([*where, "--thresholds", "fixed", "--frame_pooling", "mean_logit"])
    labels_dir = newest(tmp_path / "runs", "PEFrame_LLP_") / "LLP_Dataset"
    annotations = load_annotations("LLP", folder, "train")
    found = load_pseudo_labels(labels_dir, annotations)
    words = load_text_features(folder, "pe_audio", annotations.classes)
    n, rows = 3, torch.arange(30, 40)
    frames = torch.from_numpy(read_npy(feature_path(folder, "pe_audio", annotations.feature_ids[n])))
    logits = (frames @ words.T).view(10, 25, -1).mean(1)
    torch.testing.assert_close(found.logits.audio[rows], logits, atol=1e-4, rtol=0)
    expected = (torch.sigmoid(logits) > FIXED_PROBABILITY) & annotations.video_labels[n]
    assert torch.equal(found.labels.audio[rows], expected)
    assert fixed_thresholds("LLP").audio.sigmoid().tolist() == pytest.approx([0.3] * 25)
    features = ("--audio_features", "pe_audio", "--visual_features", "clip")
    run = train(folder, tmp_path / "runs", "--pseudo_label_dir", labels_dir, *features)
    assert (run / "summary.json").is_file()
    with pytest.raises(InputError, match="--prompts: found valor with --teacher pe_frame"):
        pseudo_label_generation.main([*where, "--prompts", "valor"])
    (folder / "feats_PE/event_feats/logit_bias.npy").unlink()
    with pytest.raises(InputError, match=r"logit_bias\.npy: found no readable file"):
        pseudo_label_generation.main(where)


def test_own_video_has_boundaries_of_40_ms_for_what_is_audible(tmp_path: Path):
    video = make_video(tmp_path / "v.mp4", 2)
    flags = [
        "--networks",
        "pe_frame",
        "--events",
        "dog barking",
        "rain",
        "--random_weights",
        "small",
        "--device",
        "cpu",
    ]
    parse_video.main([str(video), *flags, "--output_dir", str(tmp_path / "out"), "--threshold", "0.6"])
    lines = [line.split(",") for line in (tmp_path / "out/events.csv").read_text().splitlines()[1:]]
    times = [float(time) for line in lines if line[1] == "audible" for time in line[2:4]]
    assert times and all(round(time / 0.04, 6) == round(time / 0.04) for time in times)
    assert any(time % 1 for time in times)
