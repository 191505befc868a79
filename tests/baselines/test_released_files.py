"""The files that the authors of the baselines ship, read in place of ours."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.jomold.noise_ratios import load_noise_ratios
from baselines.leap.leap_network import load_class_vectors
from baselines.ma.exchange import load_cleaned_labels
from dataloaders.annotations import SplitAnnotations
from dataloaders.datasets import load_annotations
from dataloaders.llp import LLP_CLASSES
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.compare import score_videos
from utils.evaluation.predictions import Predictions
from utils.evaluation.tasks import find_task

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
