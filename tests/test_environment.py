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
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
    "scipy": "scikit-learn",
    "PIL": "pillow",
    "open_clip": "open_clip_torch",
    "pympi": "pympi-ling",
    "parso": "cosmic-ray",
}
# Training; features from videos; optional parts, imported when they are used.
TESTED = ("requirements.txt", "requirements-video.txt", "requirements-extras.txt")
# Tests and linters; the documentation site. scripts/test.sh adds them.
DEVELOPMENT = ("requirements-dev.txt", "requirements-docs.txt")
REQUIREMENTS = (*TESTED, *DEVELOPMENT)


def requirements_of(file: str) -> list[str]:
    lines = (line.split("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    return [line for line in lines if line]


def requirements() -> dict[str, str]:
    """Packages with their requirement in the last file that names them: laion-clap's bound on NumPy is the narrower."""
    return {package_of(line): line for file in REQUIREMENTS for line in requirements_of(file)}


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
    return {module: path for module, path in found if module not in {*own, *sys.stdlib_module_names}}


def normalised(name: str) -> str:
    return name.lower().replace("_", "-")


def package_of(requirement: str) -> str:
    """Return a requirement's name without extras and specifiers."""
    return normalised(re.match(r"[\w.-]+", requirement)[0])


def test_conda_and_pip_install_the_same_packages():
    sections = [entry["pip"] for entry in conda_dependencies() if isinstance(entry, dict)]
    assert sections, "environment.yaml has no pip section"
    assert sorted(sections[0]) == sorted(requirements().values())


def test_the_conda_environment_is_uwav_on_python_3_11():
    assert yaml.safe_load((ROOT / "environment.yaml").read_text())["name"] == "uwav"
    assert "python=3.11" in conda_dependencies()


@pytest.mark.parametrize("file", REQUIREMENTS)
def test_a_requirements_file_names_no_package_twice(file: str):
    packages = [package_of(line) for line in requirements_of(file)]
    assert len(packages) == len(set(packages))


def test_the_environment_of_all_backends_keeps_the_numpy_that_laion_clap_asks_for():
    assert requirements()["numpy"] == "numpy>=1.26,<2" and "laion-clap" in requirements()


def test_ci_runs_the_documented_command_with_all_requirements():
    command = f'REQUIREMENTS="{" ".join(TESTED)}" bash scripts/test.sh'
    assert all(command in (ROOT / file).read_text() for file in ("docs/getting_started.md", ".ci/run"))


def test_the_test_command_adds_what_tests_linters_and_the_site_need():
    assert f'}} {" ".join(DEVELOPMENT)}"\n' in (ROOT / "scripts/test.sh").read_text()


def test_training_installs_no_tool_of_development():
    assert not {package_of(line) for line in requirements_of("requirements.txt")} & {"pytest", "ruff", "hypothesis"}


@pytest.mark.parametrize(("module", "path"), sorted(third_party_modules().items()))
def test_every_imported_package_is_required(module: str, path: Path):
    assert normalised(DISTRIBUTIONS.get(module, module)) in requirements(), (
        f"{path} imports {module}, which no requirements file provides"
    )
