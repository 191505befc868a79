"""The files that the authors of the baselines ship: read in place of ours, written, and compared with ours."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines import compare_labels
from baselines.jomold.noise_ratios import export_noise_ratios, load_noise_ratios, save_noise_ratios
from baselines.leap.leap_network import load_class_vectors
from baselines.ma.exchange import export_cleaned_labels, load_cleaned_labels, save_cleaned_labels
from dataloaders.annotations import SplitAnnotations
from dataloaders.datasets import load_annotations
from dataloaders.llp import LLP_CLASSES
from dataloaders.pseudo_labels import export_npy, load_pseudo_labels, npy_stems
from tests.naive.made_up_data import random_pseudo_labels
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.compare import score_videos
from utils.evaluation.predictions import Predictions
from utils.evaluation.tasks import find_task
from utils.method.losses import soft_pseudo_labels
from utils.provenance import hash_of_labels

SHARED = Path(__file__).resolve().parents[3] / "shared"
REAL, LLP = SHARED / "real/labels", SHARED / "annotations/LLP"
real_files = pytest.mark.skipif(not (REAL.is_dir() and LLP.is_dir()), reason="the authors' files are not at hand")


@pytest.fixture
def train(llp_dir: Path) -> SplitAnnotations:
    return load_annotations("LLP", llp_dir, "train")


def write_exchange(path: Path, visual: dict[int, list], audio: dict[int, list]) -> Path:
    with open(path / "need_to_change.pkl", "wb") as file:
        pickle.dump([[of.get(c, []) for c in range(25)] for of in (visual, audio)], file)
    return path


def test_the_exchange_of_the_released_code_takes_its_labels_away(train: SplitAnnotations, tmp_path: Path):
    video, c = train.video_labels.nonzero()[0].tolist()
    left = load_cleaned_labels(write_exchange(tmp_path, {c: [torch.tensor(video)]}, {}), train)
    expected = train.video_labels.clone()
    expected[video, c] = False
    assert torch.equal(left.visual, expected) and torch.equal(left.audio, train.video_labels)


class Planted:
    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return Path.mkdir, (self.folder,)


def test_a_pickle_of_anything_else_is_refused_and_runs_nothing(train: SplitAnnotations, tmp_path: Path):
    absent = next(c for c in range(25) if not train.video_labels[0, c])
    for rows in ({absent: [0]}, {0: [10**6]}, {0: ["a"]}, {0: [Planted(tmp_path / "planted")]}):
        with pytest.raises(InputError, match=r"need_to_change\.pkl: found no readable exchange"):
            load_cleaned_labels(write_exchange(tmp_path, rows, {}), train)
    assert not (tmp_path / "planted").exists()


def test_noise_ratios_of_the_released_code_are_shares_of_llps_classes(train: SplitAnnotations, tmp_path: Path):
    rng = np.random.default_rng(0)
    ratios = {"audio": rng.random(25), "visual": rng.random(25)}
    np.savez(tmp_path / "noise_ratios.npz", **ratios)
    loaded = load_noise_ratios(tmp_path, train)
    np.testing.assert_allclose(loaded.visual, ratios["visual"], rtol=1e-6)
    for wrong in (
        ratios | {"audio": rng.random(24)},
        ratios | {"visual": 2 + rng.random(25)},
        {"audio": rng.random(25)},
    ):
        np.savez(tmp_path / "noise_ratios.npz", **wrong)
        with pytest.raises(InputError, match=r"noise_ratios\.npz"):
            load_noise_ratios(tmp_path, train)


def test_an_exported_exchange_is_read_as_our_own_and_names_rows_visual_first(train: SplitAnnotations, tmp_path: Path):
    labels, drawn = train.video_labels, torch.Generator().manual_seed(0)
    left = AudioVisual(*(labels & (torch.rand(labels.shape, generator=drawn) < 0.5) for _ in range(2)))
    export_cleaned_labels(left, labels, tmp_path)
    assert all(load_cleaned_labels(tmp_path, train).map(torch.equal, left))
    with open(tmp_path / "need_to_change.pkl", "rb") as file:
        removed = pickle.load(file)
    assert [len(of_modality) for of_modality in removed] == [25, 25]
    for kept, of_modality in zip((left.visual, left.audio), removed, strict=True):
        for c in range(25):
            assert of_modality[c] == [n for n in range(len(labels)) if labels[n, c] and not kept[n, c]]


def test_exported_noise_ratios_are_read_as_our_own(train: SplitAnnotations, tmp_path: Path):
    ratios = AudioVisual(torch.rand(25), torch.rand(25))
    export_noise_ratios(ratios, tmp_path)
    assert all(load_noise_ratios(tmp_path, train).map(torch.equal, ratios))
    with np.load(tmp_path / "noise_ratios.npz") as arrays:
        assert {name: (arrays[name].dtype, arrays[name].shape) for name in arrays} == {
            name: (np.float64, (25,)) for name in ("audio", "visual")
        }


VALOR = AudioVisual("CLAP/segment_pseudo_labels", "CLIP/segment_pseudo_labels")


def write_valor(folder: Path, train: SplitAnnotations, seed: int = 0) -> AudioVisual[np.ndarray]:
    """Labels as VALOR ships them, by the ids of YouTube; return them, (N, 10, 25) of each modality."""
    rng = np.random.default_rng(seed)
    possible = train.video_labels.numpy()[:, None]
    labels = AudioVisual(*(possible & (rng.random((train.num_videos, 10, 25)) < 0.5) for _ in range(2)))
    for name, of_modality in zip(VALOR, labels, strict=True):
        (folder / name).mkdir(parents=True)
        for sample_id, of_video in zip(train.sample_ids, of_modality, strict=True):
            np.save(folder / name / f"{sample_id[:11]}.npy", of_video.astype(np.int64))
    return labels


def test_labels_as_valor_ships_them_are_read_as_those_of_a_sure_teacher(train: SplitAnnotations, tmp_path: Path):
    shipped = write_valor(tmp_path, train)
    read = load_pseudo_labels(tmp_path, train)
    for labels, logits, thresholds, expected in zip(read.labels, read.logits, read.thresholds, shipped, strict=True):
        assert np.array_equal(labels.view(-1, 10, 25), expected)
        soft = soft_pseudo_labels(logits.view(-1, 10, 25), thresholds.float(), train.video_labels.float(), 2.0)
        assert np.array_equal(soft, expected)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (np.zeros((10, 24)), r"float64 and shape \(10, 24\)"),
        (np.full((10, 25), 2), "labels with the value 2"),
        (None, "no readable file"),
    ],
)
def test_labels_that_valor_would_not_ship_are_refused(train: SplitAnnotations, tmp_path: Path, wrong, found: str):
    write_valor(tmp_path, train)
    path = tmp_path / VALOR.visual / f"{train.feature_ids[3]}.npy"
    path.unlink()
    if wrong is not None:
        np.save(path, wrong)
    with pytest.raises(InputError, match=rf"CLIP/segment_pseudo_labels/{train.feature_ids[3]}\.npy: found .*{found}"):
        load_pseudo_labels(tmp_path, train)


def test_labels_in_valors_layout_are_read_as_our_own_and_are_integers(train: SplitAnnotations, tmp_path: Path):
    pseudo = random_pseudo_labels(train)
    export_npy(pseudo, tmp_path / "all", npy_stems([train]), valor=True)
    for name in ("CLAP", "CLIP"):
        (tmp_path / "all" / name).rename(tmp_path / name)
    assert all(load_pseudo_labels(tmp_path, train).labels.map(torch.equal, pseudo.labels))
    for name in VALOR:
        assert {path.stem for path in (tmp_path / name).iterdir()} == {name[:11] for name in train.sample_ids}
        assert np.load(tmp_path / name / f"{train.sample_ids[0][:11]}.npy").dtype == np.int64


def test_the_hash_of_valors_labels_knows_the_labels_alone(train: SplitAnnotations, tmp_path: Path):
    write_valor(tmp_path, train)
    before = hash_of_labels(tmp_path)
    (tmp_path / "CLIP/features").mkdir()
    np.save(tmp_path / "CLIP/features/a.npy", np.ones(3))
    assert hash_of_labels(tmp_path) == before
    np.save(tmp_path / VALOR.visual / f"{train.feature_ids[0]}.npy", np.ones((10, 25)))
    assert hash_of_labels(tmp_path) != before


def compared(ours: Path, theirs: Path, llp_dir: Path, capsys: pytest.CaptureFixture) -> list[str]:
    compare_labels.main([str(ours), str(theirs), "--annotations_dir", str(llp_dir)])
    return capsys.readouterr().out.splitlines()


def test_two_exchanges_are_compared_in_words(train: SplitAnnotations, llp_dir: Path, tmp_path: Path, capsys):
    labels, speech = train.video_labels, train.video_labels[:, 0].nonzero().flatten().tolist()
    ours, theirs = (AudioVisual(labels.clone(), labels.clone()) for _ in range(2))
    ours.visual[speech[:3], 0] = False
    theirs.visual[speech[2:], 0] = False
    ours.audio[1, 1] = False
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    save_cleaned_labels(ours, train, tmp_path / "ours")
    export_cleaned_labels(theirs, labels, tmp_path / "theirs")
    lines = compared(tmp_path / "ours", tmp_path / "theirs", llp_dir, capsys)
    total, others = int(labels.sum()), len(speech) - 2
    assert lines[0] == "Labels removed by two sources of cleaned labels, LLP train"
    row = next(line.split() for line in lines if line.startswith("Speech"))
    assert row == ["Speech", str(len(speech)), "0", "0", "0", "3", str(others), "1"]
    share = f"{300 / total:.1f} %; Speech 3, Car 0, Cheering 0"
    assert f"Visual: A removes 3 of {total} labels ({share}); 3 classes lose none." in lines
    assert "Audio: both remove the same 0." in lines and "Visual: both remove the same 1." in lines


def test_a_noise_ratio_takes_its_share_of_the_labels_away(train: SplitAnnotations, llp_dir: Path, tmp_path, capsys):
    counts = train.video_labels.sum(dim=0)
    none, one = torch.zeros(25), torch.where(counts > 0, 1 / counts.clamp(min=1), 0)
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    save_noise_ratios(AudioVisual(none, one), train, tmp_path / "ours")
    export_noise_ratios(AudioVisual(none, none), tmp_path / "theirs")
    lines = compared(tmp_path / "ours", tmp_path / "theirs", llp_dir, capsys)
    assert next(line.split() for line in lines if line.startswith("all")) == ["all", str(counts.sum().item()), *"0040"]
    assert not any("both" in line for line in lines)


def test_segment_labels_are_compared_segment_by_segment(train: SplitAnnotations, llp_dir: Path, tmp_path, capsys):
    ours, theirs = (write_valor(tmp_path / name, train, n) for n, name in enumerate(("ours", "theirs")))
    lines = compared(tmp_path / "ours", tmp_path / "theirs", llp_dir, capsys)
    given = train.video_labels.numpy()[:, None].repeat(10, axis=1)
    expected = [given.sum()]
    for a, b in zip(ours, theirs, strict=True):
        expected += [(given & ~a).sum(), (given & ~b).sum(), (given & ~a & ~b).sum()]
    assert next(line.split() for line in lines if line.startswith("all")) == ["all", *map(str, expected)]


def test_sources_of_two_kinds_and_absent_ones_are_not_compared(train, llp_dir: Path, tmp_path: Path, capsys):
    export_noise_ratios(AudioVisual(torch.zeros(25), torch.zeros(25)), tmp_path)
    write_valor(tmp_path / "valor", train)
    with pytest.raises(InputError, match="found segment labels; expected noise ratios"):
        compared(tmp_path, tmp_path / "valor", llp_dir, capsys)
    with pytest.raises(InputError, match="found neither"):
        compared(tmp_path / "absent", tmp_path, llp_dir, capsys)


def test_class_vectors_of_the_released_code_are_found_by_name(tmp_path: Path):
    names = [name.replace("_", " ") for name in LLP_CLASSES]
    vectors = {name: torch.randn(4) for name in names}
    vectors["Fry food"] = vectors.pop("Frying (food)")
    vectors["Baby cry infancy cry"] = vectors.pop("Baby cry infant cry")
    torch.save(vectors, tmp_path / "vectors.pt")
    loaded = load_class_vectors(tmp_path / "vectors.pt", LLP_CLASSES)
    assert torch.equal(loaded[LLP_CLASSES.index("Frying_(food)")], vectors["Fry food"])
    del vectors["Dog"]
    torch.save(vectors, tmp_path / "vectors.pt")
    with pytest.raises(InputError, match="without Dog"):
        load_class_vectors(tmp_path / "vectors.pt", LLP_CLASSES)


@real_files
def test_the_authors_own_files_say_what_is_known_of_them(tmp_path: Path):
    annotations = load_annotations("LLP", LLP, "train")
    shutil.copy(REAL / "ma_need_to_change.pkl", tmp_path / "need_to_change.pkl")
    labels, left = annotations.video_labels, load_cleaned_labels(tmp_path, annotations)
    lost = left.map(lambda of_modality: labels & ~of_modality)
    assert (labels.sum(), lost.visual.sum(), lost.audio.sum()) == (16_057, 3_993, 1_814)
    assert (lost.visual & lost.audio).sum() == 944 and lost.visual[:, 0].sum() == 3_427
    assert (lost.visual.sum(dim=0) == 0).sum() == 15
    shutil.copy(REAL / "jomold_noise_ratios.npz", tmp_path / "noise_ratios.npz")
    assert load_noise_ratios(tmp_path, annotations).visual[0].item() == pytest.approx(0.99399, abs=1e-5)
    vectors = load_class_vectors(REAL / "leap_label_glove_embeddings.pt", LLP_CLASSES)
    norms = dict(zip(LLP_CLASSES, vectors.norm(dim=1).tolist(), strict=True))
    assert vectors.shape == (25, 300) and 6.2 < norms["Speech"] < 7.9 and 4.2 < norms["Baby_cry_infant_cry"] < 4.4


@real_files
def test_the_authors_exchange_and_ratios_come_out_of_an_export_as_they_were(tmp_path: Path):
    annotations = load_annotations("LLP", LLP, "train")
    for folder, name in (("exchange", "ma_need_to_change.pkl"), ("noise", "jomold_noise_ratios.npz")):
        (tmp_path / folder).mkdir()
        shutil.copy(REAL / name, tmp_path / folder / name.partition("_")[2])
    left = load_cleaned_labels(tmp_path / "exchange", annotations)
    export_cleaned_labels(left, annotations.video_labels, tmp_path)
    assert all(load_cleaned_labels(tmp_path, annotations).map(torch.equal, left))
    _, counts, lost = compare_labels.labels_taken_away(tmp_path / "exchange", annotations)
    assert compare_labels.in_words("A", lost.visual.sum(dim=0), counts, LLP_CLASSES) == (
        "A removes 3,993 of 16,057 labels (24.9 %; Speech 3,427, Singing 304, Violin_fiddle 113); 15 classes lose none."
    )
    _, counts, lost = compare_labels.labels_taken_away(tmp_path / "noise", annotations)
    # The ratios are of whole numbers of labels.
    ratios = np.load(REAL / "jomold_noise_ratios.npz")
    for modality, numbers in zip(("audio", "visual"), lost, strict=True):
        np.testing.assert_allclose(ratios[modality] * counts.numpy(), numbers[0], atol=1e-6)


@real_files
def test_our_scores_of_published_predictions_are_their_authors():
    published = np.load(REAL / "llp_test_predictions.npz")
    annotations = load_annotations("LLP", LLP, "test")
    place = {name: n for n, name in enumerate(annotations.sample_ids)}
    chosen = annotations.subset(torch.tensor([place[name] for name in published["ids"]]))
    events = published["audio_visual"].transpose(0, 2, 1)  # (N, T, C)
    truth = chosen.labels.map(lambda rows: rows.view(events.shape).numpy())
    both = truth.audio & truth.visual
    predictions = Predictions(
        "LLP", "test", chosen.classes, chosen.sample_ids, AudioVisual(events, events), AudioVisual(both, both)
    )
    scores = dict(zip(find_task("LLP").score_names, score_videos(predictions).T, strict=True))
    for level in ("segment", "event"):
        ours = next(
            values for (name, metric), values in scores.items() if name.lower().startswith(level) and metric == "AV"
        )
        np.testing.assert_allclose(ours / 100, published[f"{level}_f"], atol=1e-12)
