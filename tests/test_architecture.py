"""Imports go one way, as docs/design.md says, and what it forbids is not there."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each line may import from the lines above it.
LAYERS = (
    ("utils/errors.py", "utils/audio_visual.py"),
    ("utils/files.py",),
    ("utils/entry_point.py", "utils/settings.py"),
    ("models", "dataloaders"),
    ("utils/provenance.py",),
    ("utils/method",),
    ("utils/training", "utils/reporting"),
    ("utils/evaluation",),
    ("utils",),
    ("baselines",),
    ("video",),
    ("lavish", "simulation"),
    ("entry points",),
    ("experiments",),
    ("tests/naive",),
    ("benchmarks", "docs"),
)
PLACE = {name: place for place, names in enumerate(LAYERS) for name in names}
SOURCES = sorted(
    path.relative_to(ROOT)
    for path in ROOT.rglob("*.py")
    if path.stat().st_size and not any(p.startswith(".") or p == "tests" for p in path.relative_to(ROOT).parts)
)


def find_package(path: Path) -> str | None:
    """The package in `LAYERS` that a file belongs to; None: none of them."""
    if len(path.parts) == 1:
        return "entry points"
    names = ("/".join(path.parts[:size]) for size in (2, 1))
    return next((name for name in names if name in PLACE), None)


def imported_files(path: Path, root: Path = ROOT) -> set[Path]:
    """Files of this repository that a file imports from; there is nothing to import from an empty one."""
    names = set()
    for node in ast.walk(ast.parse((root / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = (Path(*name.split(".")) for name in names)
    found = set()
    for file in files:
        candidates = (file.with_suffix(".py"), file / "__init__.py")
        found |= {f for f in candidates if (root / f).is_file() and (root / f).stat().st_size}
    return found


def forbidden_imports(path: Path, root: Path = ROOT) -> set[Path]:
    """Files that a file imports from although their package is neither its own nor below it."""
    own = find_package(path)
    return {
        imported
        for imported in imported_files(path, root)
        if find_package(imported) != own and PLACE[find_package(imported)] >= PLACE[own]
    }


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_file_imports_only_from_packages_below_its_own(path: Path):
    assert find_package(path) is not None, f"{path} lies in no package of docs/design.md"
    assert not forbidden_imports(path)


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


def test_training_and_evaluation_import_what_only_tables_and_figures_need_when_they_need_it():
    program = "import sys, train_han, test_han; print(*{'pandas', 'matplotlib', 'tensorboard'} & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not run.stdout.strip()


@pytest.mark.parametrize("statement", ["from models import HAN", "from models.han import HAN", "import models.han"])
def test_an_import_from_above_or_beside_is_noticed(tmp_path: Path, statement: str):
    files = {
        "models/__init__.py": "from models.han import HAN",
        "models/han.py": "HAN = None",
        "dataloaders/store.py": statement,
        "utils/method/__init__.py": "from video import main",
        "video/__init__.py": statement,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = {name for name in files if forbidden_imports(Path(name), tmp_path)}
    assert found == {"dataloaders/store.py", "utils/method/__init__.py"}
