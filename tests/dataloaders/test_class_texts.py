"""LSLD's texts of label subsets, and word vectors of class names."""

from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.leap.leap_network import class_words, load_class_vectors
from baselines.lsld import subset_texts
from baselines.lsld.subset_texts import (
    FEATURES_FILE,
    NAMES_FILE,
    TEXTS_FILE,
    label_subsets,
    load_names,
    load_subset_texts,
    subset_text,
    texts_of,
)
from dataloaders.datasets import load_annotations
from dataloaders.features import text_features_path
from dataloaders.llp import LLP_CLASSES
from utils.errors import InputError


def test_subsets_are_all_non_empty_ones():
    assert label_subsets([7, 2]) == [(2,), (7,), (2, 7)]
    assert len(label_subsets([1, 2, 3])) == 7


def test_texts_join_the_names_and_nothing_is_other():
    names = load_names(NAMES_FILE, "LLP", LLP_CLASSES)
    assert subset_text((3, 9), names, "visual") == "Dog and playing the Cello"
    assert subset_text((3,), names, "audio") == "This is a sound of Dog"
    assert subset_text((), names, "visual") == "other"


def test_every_subset_of_every_video_s_labels_has_a_text_once(llp_dir: Path):
    train = load_annotations("LLP", llp_dir, "train")
    texts = texts_of([train, train], LLP_CLASSES, "visual")
    assert len(texts) == len(set(texts)) and {"other", *LLP_CLASSES} <= set(texts)
    for row in train.video_labels:
        for subset in label_subsets(row.nonzero().flatten().tolist()):
            assert subset_text(subset, LLP_CLASSES, "visual") in texts


def test_texts_are_printed_one_a_line(llp_dir: Path, capsys: pytest.CaptureFixture):
    subset_texts.main(["--annotations_dir", str(llp_dir), "--modality", "audio"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "This is a sound of Speeching" and lines[-1] == "This is a sound of other"


def write_texts(data_dir: Path, texts: list[str], rows: int) -> None:
    folder = text_features_path(data_dir, "clip").parent
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TEXTS_FILE).write_text("\n".join(texts) + "\n")
    np.save(folder / FEATURES_FILE, np.arange(1, 1 + 2 * rows, dtype=np.float32).reshape(rows, 2))


def test_features_are_found_by_their_text(tmp_path: Path):
    write_texts(tmp_path, ["Dog", "Cat", "other"], 3)
    features = load_subset_texts(tmp_path, "clip").of(["other", "Dog"])
    torch.testing.assert_close(features, torch.nn.functional.normalize(torch.tensor([[5.0, 6.0], [1.0, 2.0]]), dim=1))


def test_texts_and_features_that_do_not_fit_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no readable file"):
        load_subset_texts(tmp_path, "clip")
    write_texts(tmp_path, ["Dog", "Cat"], 3)
    with pytest.raises(InputError, match="3 rows for 2 texts"):
        load_subset_texts(tmp_path, "clip")
    write_texts(tmp_path, ["Dog", "Cat"], 2)
    with pytest.raises(InputError, match="no text 'other'"):
        load_subset_texts(tmp_path, "clip").of(["Dog", "other"])


def test_a_wording_of_an_unknown_class_is_refused(tmp_path: Path):
    (tmp_path / "names.yaml").write_text("LLP: {Zebra: a zebra}\n")
    with pytest.raises(InputError, match="Zebra"):
        load_names(tmp_path / "names.yaml", "LLP", LLP_CLASSES)


def test_a_class_has_the_mean_vector_of_its_words(tmp_path: Path):
    path = tmp_path / "glove.txt"
    path.write_text("the 0.5 0.5\nfry 1 2\nfood 3 6\ndog -1 -2\nfood 9 9\n")
    vectors = load_class_vectors(path, ("Frying_(food)", "Dog"))
    assert vectors.tolist() == [[2.0, 4.0], [-1.0, -2.0]]
    assert class_words("Baby_cry_infant_cry") == ("baby", "cry", "infancy", "cry")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("dog 1 2\n", "no vector for cat"),
        ("dog 1 2\ncat 1\n", r"vectors of \[1, 2\]"),
        ("dog\ncat\n", r"vectors of \[0\]"),
        ("dog 1 2\ncat one two\n", "no word vectors .*'one'"),
    ],
)
def test_word_vectors_that_cannot_be_used_are_refused(tmp_path: Path, content: str, message: str):
    (tmp_path / "glove.txt").write_text(content)
    with pytest.raises(InputError, match=message):
        load_class_vectors(tmp_path / "glove.txt", ("Dog", "Cat"))


def test_absent_word_vectors_say_where_to_get_them(tmp_path: Path):
    with pytest.raises(InputError, match=r"glove\.6B\.300d"):
        load_class_vectors(tmp_path / "none.txt", ("Dog",))
