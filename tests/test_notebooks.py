"""The notebooks run from top to bottom on the built-in model, draw something, and are committed without output."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
# Progress bars where there are no widgets, and what transformers says of image processors.
HARMLESS = re.compile(r"Loading weights")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of one kernel of this interpreter, which has loaded what every notebook loads."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient, which runs notebooks, is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel, which runs notebooks, is not installed")
    import nbformat
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager

    folder = tmp_path_factory.mktemp("notebooks")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CAPTUM_GMAR_MODEL", "MPLBACKEND"):  # the built-in model, and pictures in the notebook
            patch.delenv(name, raising=False)
        for name, value in {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "IPYTHONDIR": str(folder)}.items():
            patch.setenv(name, value)
        specs = KernelSpecManager(kernel_dirs=[])  # no installed "python3", which may be another interpreter
        manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
        client = nbclient.NotebookClient(
            nbformat.v4.new_notebook(), km=manager, timeout=300, resources={"metadata": {"path": folder}}
        )
        with client.setup_kernel(cleanup_kc=True):  # ends the kernel, which nbclient leaves to who made its manager
            yield client


@pytest.fixture
def execute(kernel: Any) -> Any:
    """Runs a notebook from the beginning, as in a kernel just started; gives its outputs, each with its cell."""
    import nbformat

    def run(path: Path) -> list[tuple[str, Any]]:
        start = nbformat.v4.new_code_cell("%reset -f\nimport matplotlib.pyplot\nmatplotlib.pyplot.close('all')")
        kernel.nb = notebook = nbformat.read(path, as_version=4)
        notebook.cells.insert(0, start)
        for index, cell in enumerate(notebook.cells):
            kernel.execute_cell(cell, index)
        return [(cell.id, output) for cell in notebook.cells for output in cell.get("outputs", ())]

    return run


def test_there_are_notebooks() -> None:
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_committed_without_output(name: str) -> None:
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.parametrize("name", NAMES)
def test_runs_without_warnings_and_draws(name: str, execute: Any) -> None:
    found = execute(FOLDER / f"{name}.ipynb")
    said = [(cell, output.text) for cell, output in found if output.get("name") == "stderr"]
    assert not [(cell, line) for cell, text in said for line in text.splitlines() if not HARMLESS.search(line)]
    assert [cell for cell, output in found if "image/png" in output.get("data", ())]
