"""The packed feature store: what it holds, when it packs anew, and what it does with unusable files."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dataloaders import store
from dataloaders.annotations import SplitAnnotations
from dataloaders.datasets import load_annotations
from dataloaders.feature_origin import SIMULATION_MARKER
from dataloaders.features import feature_path, read_segment_features
from dataloaders.store import open_features
from dataloaders.unav import FILE
from tests.tiny_data import WIDTHS, write_npy
from utils.errors import InputError

ALL = list(WIDTHS)


def open_llp(llp_dir: Path, features: list[str] = ALL, split: str = "train", **options):
    return open_features(load_annotations("LLP", llp_dir, split), features, llp_dir, **options)


def packed_rows(annotations: SplitAnnotations, feature: store.PackedFeature) -> torch.Tensor:
    return torch.stack([feature.values[first : first + 10] for first in feature.first_rows.tolist()])  # (N, T, D)


def list_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != ".lock"}


def test_packed_features_equal_their_files(llp_dir):
    annotations, opened = open_llp(llp_dir)
    for name, feature in opened.items():
        rows = [read_segment_features(feature_path(llp_dir, name, i), name, 10, False) for i in annotations.feature_ids]
        assert torch.equal(packed_rows(annotations, feature), torch.from_numpy(np.stack(rows)))


def test_the_frames_of_a_second_are_packed_beside_each_other_in_half_precision(llp_dir):
    annotations, opened = open_llp(llp_dir, ["res152_frames", "res152"])
    frames = opened["res152_frames"]
    assert frames.values.dtype == torch.float16 and frames.width == opened["res152"].width == WIDTHS["res152"]
    files = [np.load(feature_path(llp_dir, "res152", i)) for i in annotations.feature_ids]  # (80, D) each
    expected = torch.from_numpy(np.stack(files).reshape(len(files), 10, -1)).half()
    assert torch.equal(packed_rows(annotations, frames), expected)
    before = frames.path.stat().st_mtime_ns
    open_llp(llp_dir, ["res152_frames"])
    assert frames.path.stat().st_mtime_ns == before  # not packed again


def test_videos_of_unequal_length_are_pooled_to_their_seconds(unav_dir):
    annotations = load_annotations("UnAV", unav_dir, "train")
    path = feature_path(unav_dir, "clip", annotations.feature_ids[2])
    length = int(annotations.lengths[2])
    write_npy(path, np.arange(3 * length * 12).reshape(3 * length, 12))  # three rows a second
    _, opened = open_features(annotations, ["clip"], unav_dir)
    first = int(opened["clip"].first_rows[2])
    expected = np.load(path).reshape(length, 3, 12).mean(axis=1)
    np.testing.assert_allclose(opened["clip"].values[first : first + length].numpy(), expected, rtol=1e-6)


def test_files_and_folders_named_as_a_video_without_the_ending_are_none_of_the_features(llp_dir):
    for feature_id, make in (("tr000000003", Path.touch), ("tr000000005", Path.mkdir)):
        path = feature_path(llp_dir, "vggish", feature_id)
        path.rename(path.with_suffix(".bak"))
        make(path.with_suffix(""))
    with pytest.raises(InputError, match=r"vggish: 2 of 14 \(tr000000003, tr000000005\)"):
        open_llp(llp_dir, ["vggish"])


def test_second_opening_does_not_pack_again(llp_dir, monkeypatch):
    open_llp(llp_dir)
    monkeypatch.setattr(store, "_pack", lambda *_, **__: pytest.fail("packed again"))
    open_llp(llp_dir)


def change(llp_dir: Path) -> Path:
    path = feature_path(llp_dir, "vggish", "tr000000003")
    write_npy(path, np.ones((10, WIDTHS["vggish"])))
    os.utime(path, ns=(0, 0))  # even where the clock is too coarse to see the change
    return path


def test_changed_file_is_packed_anew(llp_dir):
    open_llp(llp_dir)
    change(llp_dir)
    annotations, opened = open_llp(llp_dir)
    assert (packed_rows(annotations, opened["vggish"])[3] == 1).all()


def test_file_of_another_size_is_packed_anew_even_if_its_time_is_the_same(llp_dir):
    _, opened = open_llp(llp_dir)
    path = feature_path(llp_dir, "vggish", "tr000000003")
    time = path.stat().st_mtime_ns
    np.save(path, np.ones((10, WIDTHS["vggish"])))  # float64
    os.utime(path, ns=(time, time))
    annotations, opened = open_llp(llp_dir)
    assert (packed_rows(annotations, opened["vggish"])[3] == 1).all()


def test_features_follow_their_videos_when_the_annotations_are_reordered(llp_dir):
    for path in (llp_dir / "feats/vggish").iterdir():
        os.utime(path, ns=(0, 0))  # no time tells one file from another
    open_llp(llp_dir)
    path = llp_dir / "AVVP_train.csv"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(lines)]) + "\n")
    annotations, opened = open_llp(llp_dir)
    rows = [np.load(feature_path(llp_dir, "vggish", i)) for i in annotations.feature_ids]
    assert torch.equal(packed_rows(annotations, opened["vggish"]), torch.from_numpy(np.stack(rows)))


def test_packed_file_of_another_format_is_packed_anew(llp_dir):
    _, opened = open_llp(llp_dir, ["vggish"])
    path, values = opened["vggish"].path, opened["vggish"].values.clone()
    path.write_bytes(
        path.read_bytes().replace(b'"format": "1"', b'"format": "0"').replace(values[0].numpy().tobytes(), bytes(24))
    )
    _, opened = open_llp(llp_dir, ["vggish"])
    assert torch.equal(opened["vggish"].values, values)


def lengthen(unav_dir: Path) -> tuple[SplitAnnotations, SplitAnnotations]:
    """The annotations before and after one training video has become two seconds longer."""
    before = load_annotations("UnAV", unav_dir, "train")
    path = unav_dir / FILE
    content = json.loads(path.read_text())
    content["database"][before.sample_ids[2]]["duration"] += 2
    path.write_text(json.dumps(content))
    return before, load_annotations("UnAV", unav_dir, "train")


def test_video_of_another_length_than_when_it_was_packed_is_packed_anew(unav_dir):
    before, after = lengthen(unav_dir)
    open_features(before, ["clip"], unav_dir)
    _, opened = open_features(after, ["clip"], unav_dir)
    first, length = int(opened["clip"].first_rows[2]), int(after.lengths[2])
    path = feature_path(unav_dir, "clip", after.feature_ids[2])
    expected = read_segment_features(path, "clip", length, pooled=True)
    assert torch.equal(opened["clip"].values[first : first + length], torch.from_numpy(expected))


@pytest.mark.parametrize("longer", [True, False])
def test_packed_file_of_other_lengths_is_refused_where_its_source_folder_is_gone(unav_dir, longer):
    before, after = lengthen(unav_dir) if longer else reversed(lengthen(unav_dir))
    open_features(before, ["clip"], unav_dir)
    (unav_dir / "feats_CLIP/segment_feats").rename(unav_dir / "elsewhere")
    with pytest.raises(InputError, match="videos of other lengths than annotated"):
        open_features(after, ["clip"], unav_dir)


def test_removed_file_is_noticed(llp_dir):
    open_llp(llp_dir)
    change(llp_dir).unlink()
    with pytest.raises(InputError, match=r"vggish: 1 of 14 \(tr000000003\)"):
        open_llp(llp_dir)


def test_added_file_is_packed(llp_dir):
    path = change(llp_dir)
    content = path.read_bytes()
    path.unlink()
    annotations, _ = open_llp(llp_dir, allow_missing=True)
    assert "tr000000003" not in annotations.feature_ids
    path.write_bytes(content)
    annotations, opened = open_llp(llp_dir)
    assert annotations.num_videos == 14
    assert (packed_rows(annotations, opened["vggish"])[3] == 1).all()


def test_allow_missing_leaves_out_videos_that_lack_any_feature_and_says_how_many(llp_dir, capsys):
    feature_path(llp_dir, "vggish", "tr000000003").unlink()
    feature_path(llp_dir, "res152", "tr000000005").unlink()
    annotations, opened = open_llp(llp_dir, allow_missing=True)
    assert "leaving out 2 of 14 videos" in capsys.readouterr().out
    assert not {"tr000000003", "tr000000005"} & set(annotations.feature_ids)
    for name, feature in opened.items():
        expected = np.stack(
            [read_segment_features(feature_path(llp_dir, name, i), name, 10, False) for i in annotations.feature_ids]
        )
        assert torch.equal(packed_rows(annotations, feature), torch.from_numpy(expected))


def test_all_files_missing_is_an_error_even_when_some_may_be(llp_dir):
    for path in (llp_dir / "feats/vggish").glob("tr*.npy"):
        path.unlink()
    with pytest.raises(InputError, match="14 of 14"):
        open_llp(llp_dir, allow_missing=True)


def test_absent_feature_folder_is_an_error_that_says_where_to_get_it(llp_dir):
    (llp_dir / "feats/vggish").rename(llp_dir / "elsewhere")
    with pytest.raises(InputError, match=r"no such folder.*data/README\.md"):
        open_llp(llp_dir)


def test_packed_file_is_used_as_it_is_when_its_source_folder_is_gone(llp_dir, capsys):
    annotations, before = open_llp(llp_dir)
    (llp_dir / "feats/vggish").rename(llp_dir / "elsewhere")
    _, after = open_llp(llp_dir)
    assert "does not exist; using" in capsys.readouterr().out
    assert torch.equal(packed_rows(annotations, before["vggish"]), packed_rows(annotations, after["vggish"]))


def test_damaged_packed_file_is_packed_anew(llp_dir):
    _, opened = open_llp(llp_dir)
    expected = opened["vggish"].values.clone()
    path = opened["vggish"].path
    path.write_bytes(path.read_bytes()[:-100])
    _, opened = open_llp(llp_dir)
    assert torch.equal(opened["vggish"].values, expected)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "unreadable file"),
        (lambda path: write_npy(path, np.zeros((9, WIDTHS["vggish"]))), "9 rows; expected 10 rows"),
        (lambda path: write_npy(path, np.full((10, WIDTHS["vggish"]), np.nan)), "NaN"),
        (lambda path: write_npy(path, np.zeros((10, 3))), "width 3"),
    ],
)
def test_unusable_file_stops_packing_and_leaves_nothing_behind(llp_dir, spoil, message):
    spoil(feature_path(llp_dir, "vggish", "tr000000003"))
    with pytest.raises(InputError, match=message):
        open_llp(llp_dir, ["vggish"])
    assert list_files(llp_dir / "packed") == set()


def test_disk_that_fills_up_while_packing_leaves_nothing_behind(llp_dir):
    program = f"""
import resource
from pathlib import Path
from dataloaders.datasets import load_annotations
from dataloaders.store import open_features
from utils.errors import InputError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
folder = Path({str(llp_dir)!r})
try:
    open_features(load_annotations("LLP", folder, "train"), ["res152"], folder)
except InputError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert "no room left while writing" in run.stdout, run.stderr
    assert list_files(llp_dir / "packed") == set()


def test_a_file_that_was_replaced_by_one_of_the_same_size_and_time_is_packed_anew(llp_dir):
    annotations, packed = open_llp(llp_dir, ["vggish"])
    path = feature_path(llp_dir, "vggish", annotations.feature_ids[0])
    status, other = path.stat(), path.with_name("other.npy")
    np.save(other, np.load(path) + 1)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert other.stat().st_size == status.st_size
    os.replace(other, path)
    _, again = open_llp(llp_dir, ["vggish"])
    row = again["vggish"].first_rows[0]
    assert torch.equal(again["vggish"].values[row], packed["vggish"].values[row] + 1)


def test_two_data_folders_may_take_turns_in_one_packed_folder(llp_dir, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(llp_dir, other)
    for path in (other / "feats/vggish").glob("*.npy"):
        np.save(path, np.load(path) + 1)
    for data_dir, added in ((llp_dir, 0), (other, 1), (llp_dir, 0)):
        annotations = load_annotations("LLP", llp_dir, "train")
        _, packed = open_features(annotations, ["vggish"], data_dir, tmp_path / "packed")
        first = np.load(feature_path(llp_dir, "vggish", annotations.feature_ids[0]))[0]
        row = packed["vggish"].values[packed["vggish"].first_rows[0]]
        np.testing.assert_array_equal(row, first + np.float32(added))


def test_a_pack_that_is_replaced_while_it_is_opened_is_read_as_one_of_both(llp_dir, tmp_path, monkeypatch):
    """Another process packs other features to the same place once the manifest was read."""
    other, annotations = tmp_path / "other", load_annotations("LLP", llp_dir, "train")
    shutil.copytree(llp_dir, other)
    for path in (other / "feats/vggish").glob("*.npy"):
        np.save(path, np.load(path) + 1)
    _, before = open_features(annotations, ["vggish"], llp_dir, tmp_path / "packed")
    read = store._open

    def replaced(*arguments):
        pack = read(*arguments)
        monkeypatch.setattr(store, "_open", read)
        open_features(annotations, ["vggish"], other, tmp_path / "packed")
        return pack

    monkeypatch.setattr(store, "_open", replaced)
    _, found = open_features(annotations, ["vggish"], llp_dir, tmp_path / "packed")
    assert torch.equal(found["vggish"].values, before["vggish"].values)


def test_a_pack_knows_its_content_and_the_marks_of_its_source(llp_dir, tmp_path):
    (llp_dir / SIMULATION_MARKER).write_text("seed: 1\n")
    _, packed = open_llp(llp_dir, ["vggish"])
    values = packed["vggish"].values.numpy()
    assert packed["vggish"].sha256 == hashlib.sha256(values.tobytes()).hexdigest()
    (llp_dir / SIMULATION_MARKER).unlink()
    shutil.rmtree(llp_dir / "feats")
    assert open_llp(llp_dir, ["vggish"])[1]["vggish"].marks == ("simulated features",)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are Unix's")
def test_a_named_pipe_in_place_of_a_pack_is_replaced_without_waiting(llp_dir):
    (llp_dir / "packed").mkdir()
    os.mkfifo(llp_dir / "packed" / "vggish_train.safetensors")
    assert open_llp(llp_dir, ["vggish"])[1]["vggish"].values.shape[0] > 0
