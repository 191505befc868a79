"""The Python of the documents runs, their links lead somewhere, the site builds, and the zoo's rows are right."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.tiny_runs import train
from tests.video.made_videos import make_video
from utils.reporting.published import published_scores

ROOT = Path(__file__).parents[1]
LIST = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md")
DOCUMENTS = [ROOT / name for name in subprocess.run(LIST, cwd=ROOT, capture_output=True, text=True).stdout.split()]
EPOCH_SECONDS = 24  # UWAV on an RTX 3090, the paper's Table A5


def python_of(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_the_example_without_data_runs():
    names: dict[str, object] = {}
    exec(python_of("README.md")[0], names)
    assert names["predicted"].audio.shape == (8, 10, 25)


def test_the_example_of_a_run_and_a_video_runs(llp_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = train(llp_dir, tmp_path / "temp_train_logs", "--segment_labels", "none")
    video = make_video(tmp_path / "holiday.mp4", 2)
    example = python_of("docs/python.md")[0]
    example = example.replace("temp_train_logs/HAN_...", str(run)).replace("drawn=None", 'drawn="small"')
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"video": video}
    exec(example, names)
    assert names["probs"].audio.shape == (10, 25)
    assert sorted(path.name for path in (tmp_path / "features").rglob("*.npy")) == ["holiday.npy"] * 2


def without_code(markdown: str) -> str:
    """Return a page without its fenced code, which may contain anything."""
    return re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    anchors: list[str] = []
    for heading in re.findall(r"^#+ +(.+?) *$", without_code(page.read_text()), re.MULTILINE):
        text = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower()
        anchors.append(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return {f"{name}-{n}" if (n := anchors[:i].count(name)) else name for i, name in enumerate(anchors)}


def test_anchors_are_those_of_github(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# UnAV-100 by `its_own` metric\n## One's [own](page.md)\n```\n# code\n```\n## A & b\n## A & b\n")
    assert anchors_of(page) == {"unav-100-by-its_own-metric", "ones-own", "a--b", "a--b-1"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_commands_of_a_document_lead_somewhere(path: Path):
    text = path.read_text()
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", re.sub(r"`[^`\n]*`", "", without_code(text))):
        if "://" in target:
            continue
        linked = (path.parent / target).resolve() if target else path
        assert linked.exists() and ROOT in (linked, *linked.parents), f"{path.name} links to {target}"
        assert not anchor or anchor in anchors_of(linked), f"{path.name} links to {target}#{anchor}"
    for script in re.findall(r"\bbash (scripts/[\w/]+\.sh)", text):
        assert (ROOT / script).exists(), f"{path.name} names {script}"
    for module in re.findall(r"\bpython -m ((?:utils|dataloaders|benchmarks|experiments|baselines)[\w.]*)", text):
        file = ROOT / module.replace(".", "/")
        assert file.with_suffix(".py").exists() or (file / "__main__.py").exists(), f"{path.name} names {module}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_requests_nothing_from_other_hosts(tmp_path: Path):
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path))
    build = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not build.returncode, build.stderr
    pages = {str(page.relative_to(tmp_path)): page.read_text() for page in tmp_path.rglob("*.html")}
    assert {"index.html", "docs/stages.html", "baselines/han/index.html", "reference/models.html"} <= pages.keys()
    # No list, table or code is left as plain text.
    paragraphs = [text for page in pages.values() for text in re.findall(r"<p>(.*?)</p>", page, re.DOTALL)]
    assert not [
        text for text in paragraphs if re.search(r"^\s*(?:- |\d+\. |\||```)", text, re.MULTILINE)
    ]  # all are rendered
    tags = [tag for page in pages.values() for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page)]
    assert tags and not [tag for tag in tags if re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag)]


def zoo() -> list[list[str]]:
    """Return the cells of the rows of docs/zoo.md that link to a recipe."""
    lines = (ROOT / "docs/zoo.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "](../configs/" in line]


def test_every_recipe_has_a_row_in_the_zoo():
    named = {name for row in zoo() for name in re.findall(r"configs/(\w+\.yaml)", row[1])}
    assert named == {path.name for path in (ROOT / "configs").glob("*.yaml")}


def test_published_scores_features_and_hours_of_the_zoo_follow_from_their_sources():
    checked = 0
    for method, configs, _, features, *cells in zoo():
        recipes = [yaml.safe_load((ROOT / path).read_text()) for path in re.findall(r"configs/\w+\.yaml", configs)]
        if "audio_features" in recipes[-1]:
            assert features == ", ".join(recipes[-1]["audio_features"] + recipes[-1]["visual_features"])
        if hours := re.search(r"about ([\d.]+) h", " ".join(cells)):
            seconds = EPOCH_SECONDS * sum(recipe["num_epochs"] for recipe in recipes)
            assert float(hours[1]) == pytest.approx(seconds / 3600, abs=0.05)
        numbers = [float(cell) for cell in cells if re.fullmatch(r"[\d.]+", cell)]
        if numbers:
            table, row = ("table1_llp", method) if len(numbers) > 1 else ("table2_ave_accuracy", method)
            table, row = ("table_a6_clip_clap_backbones", "VALOR") if "Table A6" in method else (table, row)
            scores = published_scores(table, row.replace("CoLeaF", "CoLeaf"))  # as the paper spells it
            names = [name for name in scores if not name.startswith("event_") or name == "event_Type"]
            assert numbers == [scores[name] for name in names]
            checked += 1
    assert checked == 13
