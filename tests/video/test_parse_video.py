"""One's own video, from the file to the page and the exports."""

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="PyAV is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from dataloaders.features import feature_path, read_segment_features, text_features_path
from dataloaders.llp import LLP_CLASSES
from models import TemporalTransformer, TemporalTransformerConfig
from models.pretrained import Description
from tests.tiny_parsers import han_run, transformer_run
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.windows import han_probs
from utils.trained import export, open_run
from video import parse_video
from video.event_models import OwnFeatures, trained_probs, windows_of
from video.video_encoding import write_video

ROOT = Path(__file__).resolve().parents[2]


def make_clip(path: Path, seconds: float, sound: bool = True) -> Path:
    """A square that moves, with noise that grows."""
    rng = np.random.default_rng(0)
    frames = [np.full((96, 128, 3), 30, np.uint8) for _ in range(round(8 * seconds))]
    for n, frame in enumerate(frames):
        frame[20:60, n % 90 : n % 90 + 30] = 200, 10 * n % 255, 40
    samples = rng.normal(0, 1, round(16_000 * seconds)) * np.linspace(100, 8000, round(16_000 * seconds))
    write_video(path, frames, 8, samples[None].clip(-32768, 32767).astype(np.int16) if sound else None, 16_000)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("video") / "clip.mp4", 12)


def parse(clip: Path, model: Path, output: Path, *flags: object) -> dict:
    """Run the command with small random feature networks. Returns the JSON export."""
    random = [] if "--weights_dir" in flags else ["--random_weights", "small"]
    where = ["--model", model, "--output_dir", output, "--device", "cpu"]
    parse_video.main([str(clip), *map(str, where), *random, *map(str, flags)])
    return json.loads((output / "events.json").read_text(encoding="utf-8"))


def page_data(folder: Path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', (folder / "page.html").read_text(encoding="utf-8"))[1])


def test_a_video_becomes_a_page_and_exports(tmp_path: Path, clip: Path):
    content = parse(clip, han_run(tmp_path / "run"), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["page.html", "activitynet.json", *(f"events.{suffix}" for suffix in ("csv", "json", "vtt", "txt", "eaf"))]
    )
    assert content["events"] == list(LLP_CLASSES) and content["duration"] == pytest.approx(12, abs=0.1)
    assert np.shape(content["probabilities"]["run"]["audible"]) == (12, 25)
    with open(tmp_path / "out" / "events.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(content["spans"]) > 0
    data = page_data(tmp_path / "out")
    assert data["video"].startswith("data:video/mp4") and data["strip"]["count"] >= 12 and data["peaks"]
    assert "random weights" in data["warning"]


def test_the_probabilities_are_the_models_over_windows_of_the_features(tmp_path: Path, clip: Path):
    run = han_run(tmp_path / "run", decoding="modality")
    content = parse(clip, run, tmp_path / "out", "--features_dir", tmp_path / "features", "--stride", 2)
    names = ("vggish", "res152", "r2plus1d_18")
    rows = [read_segment_features(feature_path(tmp_path / "features", n, "clip"), n, 12, False) for n in names]
    features = AudioVisual(torch.from_numpy(rows[0]), torch.from_numpy(np.concatenate(rows[1:], axis=1)))
    result = han_probs(open_run(run), features, stride=2, decoding="modality")
    found = content["probabilities"]["run"]
    np.testing.assert_allclose(found["audible"], result.probs.audio.numpy(), atol=1e-6)
    np.testing.assert_allclose(found["visible"], result.probs.visual.numpy(), atol=1e-6)
    np.testing.assert_allclose(found["audible_around"], result.around.audio.numpy(), atol=1e-6)
    np.testing.assert_allclose(found["visible_around"], result.around.visual.numpy(), atol=1e-6)
    assert not torch.allclose(*result.around, atol=1e-4)


def test_kept_features_are_used_again_without_any_weights(tmp_path: Path, clip: Path):
    run, features = han_run(tmp_path / "run"), tmp_path / "features"
    first = parse(clip, run, tmp_path / "one", "--features_dir", features)
    again = parse(clip, run, tmp_path / "two", "--features_dir", features, "--weights_dir", tmp_path / "nowhere")
    assert first == again
    assert "random weights" in page_data(tmp_path / "two")["warning"]  # the folder still says so


def test_an_exported_folder_parses_as_the_run_does(tmp_path: Path, clip: Path):
    run, features = han_run(tmp_path / "run"), tmp_path / "features"
    of_run = parse(clip, run, tmp_path / "one", "--features_dir", features)
    export(open_run(run), tmp_path / "exported")
    of_folder = parse(clip, tmp_path / "exported", tmp_path / "two", "--features_dir", features)
    assert of_run["spans"] == of_folder["spans"]
    assert of_run["probabilities"]["run"] == of_folder["probabilities"]["exported"]


def test_the_transformer_looks_for_any_events(tmp_path: Path, clip: Path):
    run, events = transformer_run(tmp_path / "run"), ["dog barking", "glass breaking", "<b>"]
    content = parse(clip, run, tmp_path / "out", "--events", *events, "--threshold", 0.1)
    assert content["events"] == events
    probabilities = content["probabilities"]["run"]
    assert np.shape(probabilities["visible"]) == (12, 3) and probabilities["audible_around"] is None
    other = parse(clip, run, tmp_path / "other", "--events", events[1])
    alone = np.array(other["probabilities"]["run"]["audible"])[:, 0]
    np.testing.assert_allclose(alone, np.array(probabilities["audible"])[:, 1], atol=1e-6)


def test_named_events_leave_the_text_features_of_a_data_set_as_they_are(tmp_path: Path, clip: Path):
    run, features = transformer_run(tmp_path / "run"), tmp_path / "features"
    texts = text_features_path(features, "clip")
    texts.parent.mkdir(parents=True)
    texts.write_bytes(b"of a data set")
    parse(clip, run, tmp_path / "out", "--events", "dog barking", "--features_dir", features)
    assert texts.read_bytes() == b"of a data set"
    assert feature_path(features, "clip", "clip").is_file()


def test_the_transformer_without_names_looks_for_what_it_was_trained_on(tmp_path: Path, clip: Path):
    content = parse(clip, transformer_run(tmp_path / "run"), tmp_path / "out")
    assert len(content["events"]) == 100


def test_named_events_are_asked_for_without_the_thresholds_of_the_models_own_classes():
    torch.manual_seed(0)
    config = TemporalTransformerConfig(dim=16, num_heads=2, ffn_dim=24, num_layers=1)
    model = TemporalTransformer(6, 7, 4, 5, config).eval()
    model.description = Description(
        "TemporalTransformer", audio_thresholds=(0.25, -0.5, None), visual_thresholds=(1.0, None, 2.0)
    )
    features = AudioVisual(torch.randn(5, 6), torch.randn(5, 7))
    texts = AudioVisual(torch.randn(3, 4), torch.randn(3, 5))
    audio, visual = (z[0].detach() for z in model(features.audio[None], features.visual[None], *texts).logits)
    own = OwnFeatures(features, texts, {})
    of_any = trained_probs(model, own, True, 60, 30).probs
    torch.testing.assert_close(of_any.audio, audio.sigmoid())
    torch.testing.assert_close(of_any.visual, visual.sigmoid())
    of_classes = trained_probs(model, own, False, 60, 30).probs
    infinite = torch.inf
    torch.testing.assert_close(of_classes.audio, (audio - torch.tensor([0.25, -0.5, -infinite])).sigmoid())
    torch.testing.assert_close(of_classes.visual, (visual - torch.tensor([1.0, -infinite, 2.0])).sigmoid())


def test_han_sees_ten_segments_from_each_and_the_transformer_sixty_every_thirty():
    assert windows_of(False, None, None) == (10, 1) and windows_of(True, None, None) == (60, 30)
    assert windows_of(False, None, 5) == (10, 5) and windows_of(False, None, 10) == (10, 10)
    assert windows_of(True, 21, None) == (21, 10) and windows_of(True, 1, None) == (1, 1)


def test_a_silent_film_is_parsed_and_says_so(tmp_path: Path):
    silent = make_clip(tmp_path / "silent.mp4", 3, sound=False)
    parse(silent, han_run(tmp_path / "run"), tmp_path / "out")
    data = page_data(tmp_path / "out")
    assert data["segments"] == 3 and data["peaks"] is None
    assert any("no audio track" in note for note in data["notes"])


def test_a_large_video_lies_beside_the_page(tmp_path: Path, clip: Path):
    parse(clip, han_run(tmp_path / "run"), tmp_path / "out", "--embed_below", 0)
    assert page_data(tmp_path / "out")["video"] == "clip.mp4"
    assert (tmp_path / "out" / "clip.mp4").read_bytes() == clip.read_bytes()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--threshold", "1.5"], "--threshold"),
        (["--events", "dog"], "HAN"),
        (["--stride", "11"], "--stride"),
        (["--weights_dir", "nowhere"], "weights"),
    ],
)
def test_flags_that_cannot_be_are_refused_in_words(tmp_path: Path, clip: Path, flags: list[str], expected: str):
    with pytest.raises(InputError, match=expected):
        parse(clip, han_run(tmp_path / "run"), tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_events_of_the_same_name_are_refused(tmp_path: Path, clip: Path):
    with pytest.raises(InputError, match="distinct, non-empty names"):
        parse(clip, transformer_run(tmp_path / "run"), tmp_path / "out", "--events", "dog", "dog")


def test_features_of_other_widths_are_refused(tmp_path: Path, clip: Path):
    run = han_run(tmp_path / "run", visual_features=["res152"])
    with pytest.raises(InputError, match="width"):
        parse(clip, run, tmp_path / "out")


def test_a_video_without_events_says_how_to_see_more(tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture):
    assert parse(clip, han_run(tmp_path / "run"), tmp_path / "out", "--threshold", 0.999)["spans"] == []
    assert "no event above 0.999: lower the threshold" in capsys.readouterr().out


def test_a_video_that_is_not_there_or_damaged_is_refused(tmp_path: Path):
    run = han_run(tmp_path / "run")
    for weights in ([], ["--weights_dir", tmp_path / "none"]):  # before weights are looked for
        with pytest.raises(InputError, match=r"nothing\.mp4: found no such file"):
            parse(tmp_path / "nothing.mp4", run, tmp_path / "out", *weights)
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"damaged\.mp4"):
        parse(tmp_path / "damaged.mp4", run, tmp_path / "out")


def test_the_script_runs_from_any_folder(tmp_path: Path, clip: Path):
    run = han_run(tmp_path / "runs" / "HAN_run")
    (run / "summary.json").write_text("{}")
    command = ["bash", str(ROOT / "scripts" / "parse_video.sh"), clip.name, "--random_weights", "small"]
    environment = {"RUNS_DIR": str(tmp_path / "runs"), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = subprocess.run(
        [*command, "--output_dir", str(tmp_path / "out"), "--device", "cpu"],
        cwd=clip.parent,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "page.html").is_file()


def test_another_video_of_the_same_name_does_not_get_the_kept_features(tmp_path: Path, clip: Path):
    run, features = han_run(tmp_path / "run"), tmp_path / "features"
    parse(clip, run, tmp_path / "one", "--features_dir", features)
    (tmp_path / "other").mkdir()
    other = make_clip(tmp_path / "other" / clip.name, 11.9)
    with pytest.raises(InputError, match="another video with this name"):
        parse(other, run, tmp_path / "two", "--features_dir", features)


@pytest.mark.parametrize("flags", [["--seed", 3], ["--recipe", "valor"]])
def test_flags_that_the_kept_features_contradict_are_not_ignored(tmp_path: Path, clip: Path, flags: list):
    features = tmp_path / "features"
    run = transformer_run(tmp_path / "run") if "--recipe" in flags else han_run(tmp_path / "run")
    parse(clip, run, tmp_path / "one", "--features_dir", features)
    with pytest.raises(InputError, match="features"):
        parse(clip, run, tmp_path / "two", "--features_dir", features, *flags)


def test_a_video_is_not_overwritten_by_what_is_written_of_it(tmp_path: Path, clip: Path):
    own = tmp_path / "page.html"
    shutil.copy(clip, own)
    with pytest.raises(InputError, match="Rename the video"):
        parse(own, han_run(tmp_path / "run"), tmp_path)
    assert own.read_bytes() == clip.read_bytes()


@pytest.mark.parametrize("name", ["dog\nbarking", "dog\0", "\udcff", " "])
def test_names_that_no_file_can_hold_are_refused(tmp_path: Path, clip: Path, name: str):
    with pytest.raises(InputError, match="printable"):
        parse(clip, transformer_run(tmp_path / "run"), tmp_path / "out", "--events", name)


def test_a_model_of_features_that_no_network_computes_is_refused(tmp_path: Path, clip: Path):
    network = open_run(han_run(tmp_path / "run"))
    network.description = replace(network.description, audio_features=("ear",))
    export(network, tmp_path / "exported")
    with pytest.raises(InputError, match=r"features ear; expected features among vggish"):
        parse(clip, tmp_path / "exported", tmp_path / "out")


def test_the_warning_of_random_weights_is_in_every_file(tmp_path: Path, clip: Path):
    parse(clip, han_run(tmp_path / "run"), tmp_path / "out", "--threshold", 0.01)
    for path in (tmp_path / "out").iterdir():
        assert "random weights" in path.read_text(encoding="utf-8"), path


def test_kept_features_are_read_where_nothing_can_be_written(tmp_path: Path, clip: Path, monkeypatch):
    run, features = han_run(tmp_path / "run"), tmp_path / "features"
    first = parse(clip, run, tmp_path / "one", "--features_dir", features)
    for name in ("extraction.yaml", "videos.json", ".lock"):  # as with published features
        (features / name).unlink()
    before = sorted(features.rglob("*"))
    again = parse(clip, run, tmp_path / "two", "--features_dir", features)
    assert first["spans"] == again["spans"] and sorted(features.rglob("*")) == before
