"""Feature files: what is read from them and what is refused."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dataloaders.features import (
    FEATURES,
    PUBLISHED,
    FeatureError,
    feature_path,
    load_text_features,
    read_npy,
    read_segment_features,
)
from dataloaders.llp import LLP_CLASSES
from utils.errors import InputError


def random_rows(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def saved(folder: Path, rows: np.ndarray) -> Path:
    path = folder / "video.npy"
    np.save(path, rows)
    return path


def refused(problem: str, path: Path, *words: str, **options) -> None:
    options = {"feature": "vggish", "num_segments": 10, "pooled": False, **options}
    with pytest.raises(FeatureError) as error:
        read_segment_features(path, **options)
    assert error.value.problem == problem
    for word in (path.name, *words):
        assert word in str(error.value)


def test_features_lie_where_the_authors_publish_them():
    paths = {name: feature_path(Path("data/LLP"), name, "-abc_def-12").as_posix() for name in PUBLISHED}
    assert paths == {
        "vggish": "data/LLP/feats/vggish/-abc_def-12.npy",
        "res152": "data/LLP/feats/res152/-abc_def-12.npy",
        "r2plus1d_18": "data/LLP/feats/r2plus1d_18/-abc_def-12.npy",
        "clip": "data/LLP/feats_CLIP/segment_feats/-abc_def-12.npy",
        "clap": "data/LLP/feats_CLAP/segment_feats/-abc_def-12.npy",
    }


def test_features_are_as_wide_and_as_frequent_as_the_authors_publish_them():
    published = {name: (FEATURES[name].width, FEATURES[name].rows_per_second) for name in PUBLISHED}
    expected = {"vggish": (128, 1), "res152": (2048, 8), "r2plus1d_18": (512, 1), "clip": (768, 1), "clap": (512, 1)}
    assert published == expected


def test_rows_of_one_a_second_are_read_as_they_are(tmp_path):
    rows = random_rows(10, 128)
    assert np.array_equal(read_segment_features(saved(tmp_path, rows), "vggish", 10, pooled=False, width=128), rows)


def test_eight_resnet_frames_of_a_second_are_averaged(tmp_path):
    frames = random_rows(80, 16)
    segments = read_segment_features(saved(tmp_path, frames), "res152", 10, pooled=False)
    expected = np.stack([frames[8 * t : 8 * t + 8].astype(np.float64).mean(0) for t in range(10)])
    assert segments.shape == (10, 16)
    np.testing.assert_allclose(segments, expected, atol=1e-6)


@pytest.mark.parametrize(("rows", "seconds"), [(37, 12), (37, 36), (37, 37), (37, 50), (1, 5), (5, 1)])
def test_pooled_rows_are_adaptive_averages_over_time(tmp_path, rows, seconds):
    values = random_rows(rows, 6)
    pooled = read_segment_features(saved(tmp_path, values), "clip", seconds, pooled=True)
    expected = F.adaptive_avg_pool1d(torch.from_numpy(values).double().T, seconds).T
    np.testing.assert_allclose(pooled, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("dtype", ["<f2", "<f8", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_floating_point_type_and_memory_order_becomes_float32_rows(tmp_path, dtype, order):
    rows = np.asarray(random_rows(10, 4), dtype=dtype, order=order)
    read = read_segment_features(saved(tmp_path, rows), "clap", 10, pooled=False)
    assert read.dtype == np.float32 and read.dtype.isnative and read.flags.c_contiguous
    assert np.array_equal(read, rows.astype(np.float32))


def test_absent_file_is_refused(tmp_path):
    refused("missing", tmp_path / "absent.npy", "no file", "data/README.md")


@pytest.mark.parametrize("kept_bytes", [0, 5, 60, 200, 128 + 10 * 128 * 4 - 1])
def test_truncated_file_is_refused(tmp_path, kept_bytes):
    path = saved(tmp_path, random_rows(10, 128))
    path.write_bytes(path.read_bytes()[:kept_bytes])
    refused("unreadable", path, "unreadable")


def test_file_that_is_not_npy_is_refused(tmp_path):
    path = tmp_path / "video.npy"
    path.write_text("<html>404 Not Found</html>")
    refused("unreadable", path)


def test_pickled_objects_are_refused_unopened(tmp_path):
    path = tmp_path / "video.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused("unreadable", path)


def test_archive_of_arrays_is_refused(tmp_path):
    archive = io.BytesIO()
    np.savez(archive, a=random_rows(10, 128))
    path = tmp_path / "video.npy"
    path.write_bytes(archive.getvalue())
    refused("unreadable", path, "an unreadable file")


@pytest.mark.parametrize("shape", [(10,), (1, 10, 128), (0, 128), (10, 0), ()])
@pytest.mark.parametrize("pooled", [False, True])
def test_array_that_is_not_rows_of_features_is_refused(tmp_path, shape, pooled):
    refused("wrong shape", saved(tmp_path, random_rows(*shape)), str(shape), pooled=pooled)


@pytest.mark.parametrize(("feature", "rows"), [("vggish", 9), ("vggish", 80), ("res152", 79), ("res152", 10)])
def test_wrong_number_of_rows_is_refused(tmp_path, feature, rows):
    refused("wrong shape", saved(tmp_path, random_rows(rows, 4)), f"{rows} rows", feature=feature)


def test_wrong_width_is_refused(tmp_path):
    path = saved(tmp_path, random_rows(10, 127))
    refused("wrong shape", path, "width 127", "width 128", width=128)


def test_integers_are_refused(tmp_path):
    refused("wrong shape", saved(tmp_path, np.zeros((10, 128), dtype=np.int64)), "int64")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("feature", "rows", "pooled"), [("vggish", 10, False), ("res152", 80, False), ("clip", 23, True)]
)
def test_single_value_that_is_not_finite_is_refused(tmp_path, value, feature, rows, pooled):
    values = random_rows(rows, 8)
    values[rows // 2, 3] = value
    refused("not finite", saved(tmp_path, values), "NaN", feature=feature, pooled=pooled)


def test_values_beyond_float32_are_refused(tmp_path):
    refused("not finite", saved(tmp_path, np.full((10, 4), 1e300)))


def write_event_features(data_dir: Path, folder: str, rows: np.ndarray) -> None:
    (data_dir / folder).mkdir(parents=True)
    np.save(data_dir / folder / "all_event_feats.npy", rows)


@pytest.mark.parametrize(("feature", "folder"), [("clip", "feats_CLIP"), ("clap", "feats_CLAP")])
def test_event_features_are_one_row_per_class(tmp_path, feature, folder):
    rows = random_rows(25, 12)
    write_event_features(tmp_path, f"{folder}/event_feats", rows)
    assert torch.equal(load_text_features(tmp_path, feature, LLP_CLASSES), torch.from_numpy(rows))


def test_event_features_of_another_number_of_classes_are_refused(tmp_path):
    write_event_features(tmp_path, "feats_CLIP/event_feats", random_rows(100, 12))
    with pytest.raises(FeatureError, match=r"all_event_feats\.npy: found 100 rows; expected 25 rows"):
        load_text_features(tmp_path, "clip", LLP_CLASSES)


def test_event_features_with_nan_are_refused(tmp_path):
    write_event_features(tmp_path, "feats_CLAP/event_feats", np.full((25, 12), np.nan, dtype=np.float32))
    with pytest.raises(FeatureError, match="NaN"):
        load_text_features(tmp_path, "clap", LLP_CLASSES)


def test_event_features_of_a_backbone_without_text_encoder_are_refused(tmp_path):
    with pytest.raises(InputError, match="clip, clap"):
        load_text_features(tmp_path, "vggish", LLP_CLASSES)


def test_files_can_be_read_in_many_threads(tmp_path):
    path = tmp_path / "one.npy"
    np.save(path, np.arange(6, dtype=np.float32).reshape(2, 3))
    with ThreadPoolExecutor(16) as pool:
        arrays = list(pool.map(read_npy, [path] * 4000))
    assert all(np.array_equal(values, arrays[0]) for values in arrays)


def test_fortran_order_is_kept(tmp_path):
    values = np.arange(6, dtype=np.float64).reshape(2, 3)
    np.save(tmp_path / "one.npy", np.asfortranarray(values))
    assert np.array_equal(read_npy(tmp_path / "one.npy"), values)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_all_versions_of_the_format_are_read(tmp_path, version):
    values = np.arange(6, dtype=np.float64).reshape(2, 3)
    with open(tmp_path / "one.npy", "wb") as file:
        np.lib.format.write_array(file, values, version)
    assert np.array_equal(read_npy(tmp_path / "one.npy"), values)


def test_text_features_in_another_order_than_the_classes_are_refused(tmp_path: Path):
    write_event_features(tmp_path, "feats_CLIP/event_feats", random_rows(25, 12))
    listed = tmp_path / "feats_CLIP/event_feats/all_event_feats.txt"
    listed.write_text("\n".join(LLP_CLASSES) + "\n")
    load_text_features(tmp_path, "clip", LLP_CLASSES)
    listed.write_text("\n".join(LLP_CLASSES[::-1]) + "\n")
    with pytest.raises(FeatureError, match=r"all_event_feats\.txt: found other names or another order"):
        load_text_features(tmp_path, "clip", LLP_CLASSES)
