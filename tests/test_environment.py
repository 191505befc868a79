"""environment.yaml, the requirements files and the imports of the repository belong together."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
# Modules whose distribution bears another name, or which come with another one.
DISTRIBUTIONS = {"yaml": "pyyaml", "sklearn": "scikit-learn", "scipy": "scikit-learn", "PIL": "pillow"}
REQUIREMENTS = ("requirements.txt", "requirements-video.txt")  # training; features from videos
# Optional, imported where they are asked for.
EXTRAS = ("open_clip", "laion_clap", "ray", "selenium", "pympi", "cosmic_ray", "parso")


def requirements() -> list[str]:
    text = "\n".join((ROOT / file).read_text() for file in REQUIREMENTS)
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def conda_dependencies() -> list[str | dict[str, list[str]]]:
    return yaml.safe_load((ROOT / "environment.yaml").read_text())["dependencies"]


def source_files() -> list[Path]:
    """Python files outside of hidden folders such as .venv."""
    files = (path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
    return [path for path in files if not any(part.startswith(".") for part in path.parts)]


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Top-level names of all absolute imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def third_party_modules() -> dict[str, Path]:
    """Modules from neither the standard library nor the repository, each with a file that imports it."""
    files = source_files()
    own = {path.parts[0].removesuffix(".py") for path in files}
    found = ((module, path) for path in files for module in imported_modules(ast.parse((ROOT / path).read_text())))
    return {module: path for module, path in found if module not in {*own, *EXTRAS, *sys.stdlib_module_names}}


def normalised(name: str) -> str:
    return name.lower().replace("_", "-")


def required_packages() -> list[str]:
    """Names of the requirements without their specifiers."""
    return [normalised(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements()]


def test_conda_and_pip_install_the_same_packages():
    sections = [entry["pip"] for entry in conda_dependencies() if isinstance(entry, dict)]
    assert sections, "environment.yaml has no pip section"
    assert sorted(sections[0]) == sorted(requirements())


def test_the_conda_environment_is_uwav_on_python_3_11():
    assert yaml.safe_load((ROOT / "environment.yaml").read_text())["name"] == "uwav"
    assert "python=3.11" in conda_dependencies()


def test_requirements_name_no_package_twice():
    assert len(required_packages()) == len(set(required_packages()))


@pytest.mark.parametrize(("module", "path"), sorted(third_party_modules().items()))
def test_every_imported_package_is_required(module: str, path: Path):
    assert normalised(DISTRIBUTIONS.get(module, module)) in required_packages(), (
        f"{path} imports {module}, which no requirements file provides"
    )
