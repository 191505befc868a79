"""The notebooks run from the first cell to the last, and were saved with their outputs."""

from pathlib import Path

import pytest

pytest.importorskip("av", reason="PyAV is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path):
    notebook = nbformat.read(path, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in code)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": path.parent}}).execute()
    assert all(output.output_type != "error" for cell in code for output in cell.outputs)


def test_there_are_two_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["from_video_to_events", "quick_look"]
