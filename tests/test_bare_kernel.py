"""The first cell of each notebook: in Colab, or on a kernel without diffurec, it alone makes the notebook run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NAMES = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "notebooks/*.ipynb", "docs/*.ipynb"], cwd=ROOT,
                       capture_output=True, text=True, check=True).stdout.split()


FIRST = "notebooks/01_sequential_recommendation.ipynb"


def first_cell(name=FIRST):
    cells = json.loads((ROOT / name).read_text(encoding="utf-8"))["cells"]
    return "".join(next(cell for cell in cells if cell["cell_type"] == "code")["source"])


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_begins_with_it(name):
    """In all the same cell, which goes to the notebook's own folder."""
    assert first_cell().count('clone / "notebooks"') == 1
    assert first_cell(name) == first_cell().replace('clone / "notebooks"', f'clone / "{Path(name).parent}"')


def test_without_a_clone_it_says_what_to_do(tmp_path):
    program = tmp_path / "cell.py"
    program.write_text("import importlib.metadata as m; m.distributions = lambda **_: []\n" + first_cell())
    done = subprocess.run([sys.executable, program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "AssertionError: Clone the repository into this kernel's folder, then run this cell again.")


@pytest.mark.network
def test_it_makes_an_empty_environment_whole(tmp_path):
    """A kernel of an environment that holds ipykernel alone, in a folder with the clone in it, as in Colab."""
    needed = ["diffurec", "notebooks", "requirements.txt", "pyproject.toml", "LICENSE"]
    listed = subprocess.run(["git", "ls-files", *needed], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split():
        if (ROOT / name).exists():
            (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "clone" / name)
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=300)
    subprocess.run([venv / "bin" / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "requirements.txt", "ipykernel"],
                   check=True, timeout=300)

    class Bare(AsyncKernelManager):
        kernel_spec = KernelSpec(argv=[str(venv / "bin" / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"])

    cells = [first_cell("notebooks/solutions/06_training_diffurec.ipynb"), """
import importlib.metadata, json
import diffurec, ipywidgets, matplotlib, torch
found = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "pandas", "matplotlib", "ipywidgets")}
print(json.dumps([str(Path.cwd()), diffurec.__file__, sys.prefix, found]))"""]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    client = NotebookClient(notebook, km=Bare(), timeout=900, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=variables)
    where, module, prefix, found = json.loads(notebook.cells[1].outputs[-1].text)
    assert (Path(where), Path(module).parent) == (tmp_path / "clone/notebooks/solutions", tmp_path / "clone/diffurec")
    pins = (ROOT / "requirements.txt").read_text().splitlines()
    assert Path(prefix) == venv and all(f"{name}=={version.split('+')[0]}" in pins for name, version in found.items())
    assert not [output for output in notebook.cells[0].outputs if output.output_type == "error"]
