"""The notebook of docs/notebooks runs from its first cell to its last on a finished run."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

PATH = ROOT / "docs/notebooks/analysis.ipynb"


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(PATH, as_version=4)


def test_it_runs_and_draws_a_plot_in_each_part(notebook, finished, tmp_path, monkeypatch):
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    parts = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "../../results/demo" in parts[0].source
    parts[0].source = parts[0].source.replace("../../results/demo", "results/toy")
    place = {"metadata": {"path": str(finished)}}
    NotebookClient(notebook, timeout=300, resources=place).execute()  # an error of a cell raises
    assert "<run toy in results/toy: 15 of 15 members scored>" in str(parts[0].outputs)
    for part in parts[1:]:
        assert "image/png" in [kind for out in part.outputs for kind in out.get("data", {})]


def test_it_is_stored_without_outputs(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
