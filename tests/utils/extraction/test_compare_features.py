"""The verdicts of compare_features on differences that are known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataloaders.provenance import VIDEOS_MARKER
from utils.errors import InputError
from utils.extraction.compare_features import compare_folders, main, report

NUM_VIDEOS, SEGMENTS, LATENT, WIDTH = 60, 10, 12, 32


def network(seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """A random two-layer network; its ReLU features have a mean far from zero, as real ones do."""
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((LATENT, 64)) / np.sqrt(LATENT), rng.standard_normal((64, WIDTH)) / 8
    return lambda contents: np.maximum(np.maximum(contents @ first, 0) @ second + 0.3, 0)


def contents_of(num_videos: int = NUM_VIDEOS, seed: int = 0) -> list[np.ndarray]:
    """What happens in each video: (T, LATENT), with something of its own in every segment."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((1, LATENT)) + 1.5 * rng.standard_normal((SEGMENTS, LATENT)) for _ in range(num_videos)]


@pytest.fixture
def compared(tmp_path: Path):
    """Writes two lists of features and compares them."""

    def compare(own: list[np.ndarray], published: list[np.ndarray]):
        for name, features in (("own", own), ("published", published)):
            (tmp_path / name).mkdir(exist_ok=True)
            for number, rows in enumerate(features):
                np.save(tmp_path / name / f"video{number}.npy", rows.astype(np.float32))
        return compare_folders(tmp_path / "own", tmp_path / "published")

    return compare


OWN = [network(0)(contents) for contents in contents_of()]


def test_equal_features_are_called_the_same(compared):
    comparison = compared(OWN, OWN)
    assert comparison.verdict == "The same features."
    assert comparison.cosine == pytest.approx(1)
    assert comparison.offset == 0


def test_normalised_features_are_the_same_but_for_their_scale(compared):
    doubled = [2.5 * rows for rows in OWN]
    comparison = compared(OWN, doubled)
    assert comparison.scale == pytest.approx(2.5)
    assert "times 2.5" in comparison.verdict


@pytest.mark.parametrize("offset", [1, -1, 2])
def test_a_shift_by_segments_is_found_with_its_direction(compared, offset: int):
    published = [np.roll(rows, offset, 0) for rows in OWN]
    comparison = compared(OWN, published)
    assert comparison.offset == offset
    words = f"{abs(offset)} segment{'s' * (abs(offset) > 1)} {'later' if offset > 0 else 'earlier'}"
    assert comparison.verdict.startswith("Shifted") and words in comparison.verdict


def test_other_pixels_of_the_same_moments_look_like_cropping(compared):
    rng = np.random.default_rng(1)
    cropped = [network(0)(contents + 0.6 * rng.standard_normal(contents.shape)) for contents in contents_of()]
    assert "cropped instead of squashed" in compared(OWN, cropped).verdict


def test_a_rotation_is_recognised_as_pca(compared):
    rng = np.random.default_rng(2)
    rotation = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0]
    assert "PCA" in compared(OWN, [(rows - 0.3) @ rotation for rows in OWN]).verdict


def test_whitening_is_recognised_as_linear(compared):
    rng = np.random.default_rng(2)
    rotation = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0] * np.logspace(0, 1, WIDTH)
    comparison = compared(OWN, [rows @ rotation for rows in OWN])
    assert comparison.verdict.startswith("A linear transformation")


def test_eight_bits_are_recognised_as_vggish_post_processing(compared):
    rng = np.random.default_rng(2)
    rotation = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0]
    quantised = [np.clip(np.round((rows @ rotation + 2) * 64), 0, 255) for rows in OWN]
    assert "8-bit quantisation applied to the published" in compared(OWN, quantised).verdict
    assert "8-bit quantisation applied to the own" in compared(quantised, OWN).verdict


def test_other_weights_are_recognised(compared):
    other = [network(1)(contents) for contents in contents_of()]
    assert compared(OWN, other).verdict.startswith("Other weights")


def test_other_videos_are_recognised(compared):
    other = [network(0)(contents) for contents in contents_of(seed=5)]
    assert compared(OWN, other).verdict.startswith("Unrelated")


def test_another_width_is_another_network(compared):
    comparison = compared(OWN, [rows[:, :20] for rows in OWN])
    assert comparison.verdict == "Another network: 32 features a row, published 20."
    assert "Another network" in report(comparison)


def test_eight_rows_a_second_are_averaged(compared):
    frames = [np.repeat(rows, 8, 0) for rows in OWN]
    comparison = compared(frames, OWN)
    assert comparison.verdict.startswith("The same features.")
    assert "The own files have 8 rows for one" in comparison.verdict


def test_the_command_prints_and_writes_every_video(compared, tmp_path: Path, capsys):
    compared(OWN[:5], OWN[:4])
    table = tmp_path / "videos.csv"
    main([str(tmp_path / "own"), str(tmp_path / "published"), "--csv", str(table)])
    printed = capsys.readouterr().out
    assert "videos in both      4 (own only 1, published only 0)" in printed
    assert "The same features." in printed
    assert len(table.read_text().splitlines()) == 5


def test_the_command_says_which_side_is_not_of_real_videos(tmp_path: Path, capsys):
    for name in ("own", "LLP"):
        folder = tmp_path / name / "feats" / "vggish"
        folder.mkdir(parents=True)
        np.save(folder / "video.npy", OWN[0].astype(np.float32))
    (tmp_path / "own" / VIDEOS_MARKER).touch()
    main([str(tmp_path / "own" / "feats" / "vggish"), str(tmp_path / "LLP" / "feats" / "vggish")])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("note")] == ["note                the own ones: generated videos"]


def test_folders_without_a_common_video_are_an_error(compared, tmp_path: Path):
    compared(OWN[:1], OWN[:1])
    (tmp_path / "own" / "video0.npy").rename(tmp_path / "own" / "other.npy")
    with pytest.raises(InputError, match="none of the 1 videos"):
        compare_folders(tmp_path / "own", tmp_path / "published")


def test_cropping_is_recognised_in_features_of_real_pixels(compared):
    """The pixels of random images, squashed by one side and cropped by the other."""
    pytest.importorskip("PIL")
    from dataloaders.video.frames import clip_pixels

    rng = np.random.default_rng(3)
    project = rng.standard_normal((14 * 14 * 3, WIDTH)) / 20

    def features(images: np.ndarray) -> np.ndarray:
        pixels = np.stack([clip_pixels(image) for image in images])  # (T, 224, 224, 3)
        small = pixels.reshape(len(images), 14, 16, 14, 16, 3).mean((2, 4)).reshape(len(images), -1)
        return np.maximum(small @ project, 0)

    squashed, cropped = [], []
    for _ in range(12):
        coarse = rng.integers(0, 255, (SEGMENTS, 3, 4, 3), np.uint8)
        images = coarse.repeat(40, 1).repeat(40, 2)  # (T, 120, 160, 3)
        squashed.append(features(images))
        cropped.append(features(images[:, :, 10:150]))
    assert "cropped instead of squashed" in compared(squashed, cropped).verdict
