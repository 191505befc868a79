"""README's Python runs, and the links of the documents lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "data/README.md",
]


def test_the_example_for_notebooks_runs():
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(example, names)
    assert names["predicted"].audio.shape == (8, 10, 25)


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
