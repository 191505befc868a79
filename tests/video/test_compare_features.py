"""The verdicts of compare_features on differences that are known."""

import csv
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from dataloaders.feature_origin import VIDEOS_MARKER
from utils.errors import InputError
from video.extraction.compare_features import Comparison, compare_folders, main, report

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


def test_rows_turned_by_a_right_angle_and_doubled_fit_a_row_earlier(compared):
    own = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    comparison = compared([own], [2 * np.roll(own, -1, 0)])  # rows that were cut off at the start come at the end
    assert (comparison.raw_cosine, comparison.cosine, comparison.scale) == (0, 0, 2)
    assert (comparison.offset, comparison.cosine_at_offset) == (-1, 1)
    assert comparison.structure == pytest.approx(1)
    scores = comparison.videos[["cosine", "scale", "offset", "cosine_at_offset"]]
    assert scores.values.tolist() == [[0, 2, -1, 1]]


def test_the_scale_is_the_median_over_rows_and_then_over_videos(compared):
    own = np.array([[3.0, 4], [1, 0], [0, 1], [0, 0]])
    comparison = compared([own, own, own], [own * [[7], [2], [3], [1]], 2 * own, 50 * own])
    assert comparison.videos.scale.tolist() == [3, 2, 50] and comparison.scale == 3


@pytest.mark.parametrize("offset", [1, -1, 2, 3, -3])
def test_a_shift_by_segments_is_found_with_its_direction(compared, offset: int):
    published = [np.roll(rows, offset, 0) for rows in OWN]
    comparison = compared(OWN, published)
    assert comparison.offset == offset
    words = f"{abs(offset)} segment{'s' * (abs(offset) > 1)} {'later' if offset > 0 else 'earlier'}"
    assert comparison.verdict.startswith("Shifted") and words in comparison.verdict


@pytest.mark.parametrize(("shifted", "offset"), [(40, 1), (30, 0), (20, 0)])
def test_the_offset_of_most_videos_counts_or_the_smaller_one(compared, shifted: int, offset: int):
    published = [np.roll(rows, 1, 0) if number < shifted else rows for number, rows in enumerate(OWN)]
    assert compared(OWN, published).offset == offset


def test_files_of_different_lengths_are_compared_on_the_rows_that_both_have_and_called_so(compared):
    comparison = compared(OWN, [rows[:9] for rows in OWN])
    assert comparison.raw_cosine == pytest.approx(1) and comparison.scale == 1
    assert np.isnan(comparison.structure) and comparison.linear is None
    assert "Lengths differ in 60 videos" in comparison.verdict and "too few rows" in report(comparison)


def test_structures_are_compared_of_the_videos_whose_files_have_one_length(compared):
    comparison = compared(OWN, [rows[: 9 + (number > 5)] for number, rows in enumerate(OWN)])
    assert comparison.structure == pytest.approx(1, abs=1e-3) and comparison.linear == pytest.approx(1, abs=1e-2)
    assert "Lengths differ in 6 videos" in comparison.verdict
    assert "Lengths" not in compared(OWN, OWN).verdict


def test_the_similarity_of_structures_is_linear_cka_without_bias(compared):
    """Gretton et al. (2005): HSIC = E[k l] + E[k] E[l] - 2 E[k l'], here as means over all quadruples of rows."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 6, 3)).astype(np.float32)
    y += 0.3 * x

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        terms = [
            k[i, j] * m[i, j] + k[i, j] * m[q, r] - 2 * k[i, j] * m[i, q] for i, j, q, r in permutations(range(6), 4)
        ]
        return float(np.mean(terms))

    k, m = (side.astype(np.float64) @ side.T for side in (x, y))
    expected = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    assert 0.1 < expected < 0.9
    assert compared(np.split(x, 2), np.split(y, 2)).structure == pytest.approx(expected, rel=1e-9)


def test_the_similarity_of_structures_of_many_rows_is_that_of_kornblith(compared):
    """||Y'X||² / (||X'X|| ||Y'Y||) of centred features, whose bias vanishes with the number of rows."""
    rng = np.random.default_rng(0)
    own = rng.standard_normal((1000, 4))
    published = own * [2, 1, 0, 0] + rng.standard_normal((1000, 4))
    x, y = own - own.mean(0), published - published.mean(0)
    expected = (np.linalg.norm(y.T @ x) ** 2) / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    structure = compared(np.split(own, 100), np.split(published, 100)).structure
    assert structure == pytest.approx(expected, abs=0.01)


def test_independent_noise_has_no_structure_in_common(compared):
    own, published = np.random.default_rng(0).standard_normal((2, 30, 10, WIDTH))
    assert abs(compared(list(own), list(published)).structure) < 0.03


def test_a_linear_map_is_fitted_on_every_other_video_and_judged_on_the_rest(compared):
    rng = np.random.default_rng(0)
    own = rng.standard_normal((10, 8, 5))  # of ten videos, whose names sort as their numbers do
    published = own @ rng.standard_normal((5, 5)) + 0.7 * rng.standard_normal((10, 8, 5))
    own, published = own.astype(np.float32).astype(np.float64), published.astype(np.float32).astype(np.float64)
    x, y = own - own.mean((0, 1)), published - published.mean((0, 1))
    fitted, judged = (side.reshape(-1, 5) for side in (x[::2], x[1::2]))
    ridge = Ridge(alpha=1e-3 * (fitted**2).sum() / 5, fit_intercept=False).fit(fitted, y[::2].reshape(-1, 5))
    error = y[1::2].reshape(-1, 5) - ridge.predict(judged)
    expected = 1 - (error**2).sum() / (y[1::2] ** 2).sum()
    assert 0.5 < expected < 0.95
    assert compared(list(own), list(published)).linear == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("num_videos", "told"), [(14, False), (16, True)])
def test_a_linear_map_needs_two_rows_for_each_feature(compared, num_videos: int, told: bool):
    rows = [features[:8] for features in OWN[:num_videos]]  # 56 and 64 rows to fit 32 features on
    assert (compared(rows, rows).linear is not None) == told


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({}, "Unrelated"),
        ({"raw_cosine": 0.99995, "cosine": 0.99995, "scale": 1.0005}, "The same features."),
        ({"raw_cosine": 0.99995, "cosine": 0.99995, "scale": 0.998}, "The same features except for rounding"),
        ({"raw_cosine": 0.9998, "cosine": 0.9998}, "The same features except for rounding"),
        ({"raw_cosine": 0.991, "cosine": 0.991, "scale": 0.981}, "The same features except for rounding"),
        ({"raw_cosine": 0.991, "cosine": 0.991, "scale": 0.979}, "The same features times 0.979"),
        ({"raw_cosine": 0.991, "cosine": 0.97, "scale": 0.979}, "The same features times 0.979"),
        ({"raw_cosine": 0.989, "cosine": 0.991, "scale": 0.979}, "The same network"),
        ({"raw_cosine": 0.989, "cosine": 0.989}, "The same network"),
        ({"cosine": 0.51}, "The same network"),
        ({"cosine": 0.49}, "Unrelated"),
        (
            {"offset": 1, "cosine": 0.45, "cosine_at_offset": 0.56},
            "Shifted: the published features are 1 segment later",
        ),
        (
            {"offset": -2, "cosine": 0.4, "cosine_at_offset": 0.51},
            "Shifted: the published features are 2 segments earlier",
        ),
        ({"offset": 1, "cosine": 0.45, "cosine_at_offset": 0.54}, "Unrelated"),
        ({"offset": 1, "cosine": 0.3, "cosine_at_offset": 0.49}, "Unrelated"),
        ({"linear": 0.81}, "A linear transformation"),
        ({"linear": 0.79}, "Unrelated"),
        ({"structure": 0.991}, "A linear transformation"),
        ({"structure": 0.989}, "Other weights"),
        ({"structure": 0.31}, "Other weights"),
        ({"structure": 0.29}, "Unrelated"),
        ({"whole_numbers": (False, True)}, "PCA and 8-bit quantisation of the published"),
        ({"whole_numbers": (True, False)}, "PCA and 8-bit quantisation of the own"),
        ({"whole_numbers": (True, True)}, "Unrelated"),
        ({"widths": (4, 5)}, "Another network: 4 features per row, published 5."),
    ],
)
def test_the_verdict_follows_from_the_numbers(numbers: dict[str, object], words: str):
    unrelated = Comparison(
        videos=[],
        only_own=0,
        only_published=0,
        widths=(4, 4),
        raw_cosine=0.2,
        cosine=0.1,
        scale=1.0,
        offset=0,
        cosine_at_offset=0.1,
        structure=0.0,
        linear=None,
        whole_numbers=(False, False),
    )
    assert replace(unrelated, **numbers).verdict.startswith(words)


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
    assert "8-bit quantisation of the published" in compared(OWN, quantised).verdict
    assert "8-bit quantisation of the own" in compared(quantised, OWN).verdict


def test_other_weights_are_recognised(compared):
    other = [network(1)(contents) for contents in contents_of()]
    assert compared(OWN, other).verdict.startswith("Other weights")


def test_other_videos_are_recognised(compared):
    other = [network(0)(contents) for contents in contents_of(seed=5)]
    assert compared(OWN, other).verdict.startswith("Unrelated")


def test_another_width_is_another_network(compared):
    comparison = compared(OWN, [rows[:, :20] for rows in OWN])
    assert comparison.verdict == "Another network: 32 features per row, published 20."
    assert "Another network" in report(comparison)


def test_eight_rows_a_second_are_averaged(compared):
    frames = [np.repeat(rows, 8, 0) for rows in OWN]
    comparison = compared(frames, OWN)
    assert comparison.verdict.startswith("The same features.")
    assert "The own files have 8 rows per published row" in comparison.verdict
    assert "The published files have 8 rows per own row" in compared(OWN, frames).verdict


def test_rows_of_one_second_are_averaged_and_not_dropped(compared):
    rng = np.random.default_rng(0)
    frames = [rows.repeat(2, 0) + np.tile([[1.0], [-1.0]], (SEGMENTS, 1)) * rng.random(WIDTH) for rows in OWN]
    assert compared(OWN, frames).raw_cosine == pytest.approx(1)


def test_the_command_prints_and_writes_every_video(compared, tmp_path: Path, capsys):
    compared(OWN[:5], OWN[:4])
    table = tmp_path / "videos.csv"
    main([str(tmp_path / "own"), str(tmp_path / "published"), "--csv", str(table)])
    printed = capsys.readouterr().out
    assert "videos in both      4 (own only 1, published only 0)" in printed
    assert "The same features." in printed
    assert len(table.read_text().splitlines()) == 5


def test_the_videos_that_fit_least_come_first_in_the_table(compared, tmp_path: Path):
    compared(OWN[:4], [OWN[0], OWN[5], -OWN[2], OWN[3]])
    main([str(tmp_path / "own"), str(tmp_path / "published"), "--csv", str(tmp_path / "videos.csv")])
    with open(tmp_path / "videos.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows[:2]] == ["video2", "video1"]
    assert rows[0]["own_shape"] == "(10, 32)" and float(rows[0]["cosine"]) < float(rows[1]["cosine"]) < 0.9


def test_a_file_without_rows_of_features_is_an_error(compared, tmp_path: Path):
    for wrong in (np.zeros((2, 10, 8)), np.zeros((0, 8)), OWN[1][:, :8]):
        with pytest.raises(InputError, match=r"video1.*2-D array"):
            compared(OWN[:2], [OWN[0], wrong])


def test_an_absent_folder_and_a_damaged_file_are_errors(compared, tmp_path: Path):
    compared(OWN[:1], OWN[:1])
    with pytest.raises(InputError, match=r"nowhere.*no folder"):
        compare_folders(tmp_path / "own", tmp_path / "nowhere")
    (tmp_path / "published" / "video0.npy").write_bytes(b"<html>")
    with pytest.raises(InputError, match=r"video0\.npy.*unreadable"):
        compare_folders(tmp_path / "own", tmp_path / "published")


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
    from video.frames import clip_pixels

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


def broken(values: np.ndarray, change: str) -> np.ndarray:
    if change == "nan":
        values[2, 3] = np.nan
    if change == "text":
        return values.astype(str)
    return values[:, :8] if change == "narrow" else values


@pytest.mark.parametrize("change", ["nan", "text", "narrow"])
def test_a_file_that_is_no_feature_file_is_named(tmp_path: Path, change: str):
    rng = np.random.default_rng(0)
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
        for video in range(4):
            np.save(tmp_path / name / f"v{video}.npy", rng.normal(size=(10, 16)).astype(np.float32))
    path = tmp_path / "other/v3.npy"
    np.save(path, broken(np.load(path), change))
    with pytest.raises(InputError, match=r"other/v3\.npy"):
        compare_folders(tmp_path / "own", tmp_path / "other")


def test_rows_of_zeros_and_constant_files_are_not_called_the_same(tmp_path: Path):
    rng = np.random.default_rng(0)
    for name in ("own", "zeros", "constant"):
        (tmp_path / name).mkdir()
    for video in range(40):
        values = rng.normal(size=(10, 16)).astype(np.float32)
        np.save(tmp_path / f"own/v{video}.npy", values)
        np.save(tmp_path / f"constant/v{video}.npy", np.ones_like(values))
        values[::2] = 0
        np.save(tmp_path / f"zeros/v{video}.npy", values)
    verdict = compare_folders(tmp_path / "own", tmp_path / "zeros").verdict
    assert verdict.startswith("Rows of zeros (0 own and 200 published ones")
    assert "same features" not in compare_folders(tmp_path / "own", tmp_path / "constant").verdict.lower()
