"""README's Python runs, and the links of the documents lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.tiny_runs import train
from tests.video.made_videos import make_video

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "data/README.md",
]


EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_example_without_data_runs():
    names: dict[str, object] = {}
    exec(EXAMPLES[0], names)
    assert names["predicted"].audio.shape == (8, 10, 25)


def test_the_example_of_a_run_and_a_video_runs(llp_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = train(llp_dir, tmp_path / "temp_train_logs", "--segment_labels", "none")
    video = make_video(tmp_path / "holiday.mp4", 2)
    example = EXAMPLES[1].replace("temp_train_logs/HAN_...", str(run)).replace("drawn=None", 'drawn="small"')
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"video": video}
    exec(example, names)
    assert names["probs"].audio.shape == (10, 25)
    assert sorted(path.name for path in (tmp_path / "features").rglob("*.npy")) == ["holiday.npy"] * 2


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_scripts_of_a_document_exist(path: Path):
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#]+?)\)", text):
        assert "://" in target or (path.parent / target).exists(), f"{path.name} links to {target}"
    for script in re.findall(r"\bbash (scripts/[\w/]+\.sh)", text):
        assert (ROOT / script).exists(), f"{path.name} names {script}"
    for module in re.findall(r"\bpython -m ((?:utils|dataloaders|benchmarks|experiments)[\w.]*)", text):
        file = ROOT / module.replace(".", "/")
        assert file.with_suffix(".py").exists() or (file / "__main__.py").exists(), f"{path.name} names {module}"
