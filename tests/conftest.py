"""Fixtures that several tests share."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.tiny_data import write_ave, write_llp, write_unav


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let slow tests begin first, so that none of them is what all other processes wait for in the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def llp_dir(tmp_path: Path) -> Path:
    """A tiny LLP folder of its own."""
    return write_llp(tmp_path / "data" / "LLP")


@pytest.fixture
def unav_dir(tmp_path: Path) -> Path:
    """A tiny UnAV folder of its own."""
    return write_unav(tmp_path / "data" / "UnAV")


@pytest.fixture
def ave_dir(tmp_path: Path) -> Path:
    """A tiny AVE folder of its own."""
    return write_ave(tmp_path / "data" / "AVE")


@pytest.fixture
def written_figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that a test writes."""
    figures, save = [], Figure.savefig

    def savefig(figure: Figure, *args: object, **settings: object) -> None:
        figures.append(figure)
        save(figure, *args, **settings)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures
