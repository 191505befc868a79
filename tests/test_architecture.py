"""Imports go one way, as docs/design.md says, and what it forbids is not there."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each line may import from the lines above it.
LAYERS = (
    ("utils/errors.py", "utils/settings.py", "utils/audio_visual.py"),
    ("utils/files.py", "utils/entry_point.py"),
    ("models", "dataloaders"),
    ("dataloaders/video",),
    ("dataloaders/clips", "dataloaders/simulation"),
    ("utils/method",),
    ("utils/training", "utils/reporting"),
    ("utils/evaluation",),
    ("utils/extraction",),
    ("utils/cli",),
    ("utils/pages",),
    ("entry points",),
    ("experiments",),
    ("benchmarks",),
)
PLACE = {name: place for place, names in enumerate(LAYERS) for name in names}
SOURCES = sorted(
    path.relative_to(ROOT)
    for path in ROOT.rglob("*.py")
    if not any(part.startswith(".") or part in ("tests", "__init__.py") for part in path.relative_to(ROOT).parts)
)


def package_of(path: Path) -> str | None:
    """The line of `LAYERS` that a file belongs to; None: not one of ours."""
    parts = path.parts
    if len(parts) == 1:
        return "entry points" if (ROOT / path).is_file() else None
    for size in (2, 1):
        if "/".join(parts[:size]) in PLACE:
            return "/".join(parts[:size])
    return None


def imported_files(path: Path) -> set[Path]:
    """Files of this repository that a file imports from."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = (Path(*name.split(".")) for name in names)
    found = set()
    for file in files:
        found |= {f for f in (file.with_suffix(".py"), file / "__init__.py") if (ROOT / f).is_file()}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_file_imports_only_from_packages_below_its_own(path: Path):
    own = package_of(path)
    assert own is not None, f"{path} lies in no package of docs/design.md"
    for imported in imported_files(path):
        other = package_of(imported)
        if other != own and imported.name != "__init__.py":
            assert PLACE[other] < PLACE[own], f"{path} imports {imported}"


def test_the_packages_of_the_design_exist():
    for names in LAYERS:
        assert all(name == "entry points" or (ROOT / name).exists() for name in names)
    text = (ROOT / "docs/design.md").read_text()
    assert all(name.split("/")[-1].removesuffix(".py") in text for names in LAYERS for name in names)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_no_attribute_is_built_from_strings(path: Path):
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr"):
            assert not isinstance(node.args[1], ast.JoinedStr), f"{path}, line {node.lineno}"


def test_an_import_from_above_is_noticed():
    assert PLACE[package_of(Path("utils/cli/settings.py"))] > PLACE[package_of(Path("models/han.py"))]
    assert Path("models/han.py") in imported_files(Path("models/__init__.py"))
