"""The package outside a checkout: a wheel in an environment of its own, called from another folder."""

import json
import os
import random
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from diffurec import __version__, command, read_results
from diffurec.base import places

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "notebooks"))
import so_far  # noqa: E402    of the checkout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """installed(*arguments) runs `diffurec` of the wheel in a folder of its own, installed.folder."""
    base = tmp_path_factory.mktemp("installed")
    source, venv, folder = base / "source", base / "venv", base / "elsewhere"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in files:
        if not name.startswith(("tests/", ".")) and (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip"]
    for step in ([*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", base, source],
                 [sys.executable, "-m", "venv", "--without-pip", venv]):
        subprocess.run(step, check=True, timeout=300)
    inside, = venv.glob("lib/python*/site-packages")
    # The packages of the tests' environment, but not what it has of diffurec: a .pth of a .pth is not read.
    (inside / "others.pth").write_text(sysconfig.get_path("purelib"))
    wheel, = base.glob("*.whl")
    subprocess.run([*pip, "--python", venv, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True, timeout=300)
    folder.mkdir()
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "DIFFUREC"))}
    variables["JUPYTER_PATH"] = str(Path(sys.prefix, "share", "jupyter"))        # nbconvert's templates are no package

    def run(*arguments, program="diffurec"):
        return subprocess.run([venv / "bin" / program, *arguments], cwd=folder, env=variables, capture_output=True, text=True,
                              timeout=300)

    run.folder, run.wheel = folder, wheel
    return run


def test_the_command_is_there_and_the_wheel_is_small(installed):
    done = installed("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"diffurec {__version__}\n", "")
    assert installed.wheel.stat().st_size < 20e6        # most of it: the result files that notebooks read


def test_a_grid_of_ones_own_runs_from_another_folder(installed):
    draw = random.Random(0)
    rows = [f"u{user},i{draw.randrange(12)},{time}" for user in range(30) for time in range(6)]
    (installed.folder / "own.csv").write_text("\n".join(["user,item,timestamp", *rows]))
    (installed.folder / "small.toml").write_text(
        'report = true\n[parameters]\ndataset = "own.csv"\nepochs = 1\nhidden_size = 8\nnum_heads = 2\n'
        "must_beat_popular = false\nnum_steps = 2\neval_num_steps = 2\n")
    done = installed("run", "small.toml", "--out", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    out = installed.folder / "out"
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert names == {f"{name}.{end}" for name in ("small", "report") for end in ("html", "ipynb")} | {"small.json"}
    result = json.loads((out / "small.json").read_text())
    assert result["parameters"]["dataset"] == "own.csv" and result["data"]["users"] == 30
    assert (out / ".runs" / "small" / "state.json").exists()        # wherever the next launch is called from
    text = (out / "small.ipynb").read_text()
    assert 'dataset = \\"own.csv\\"' in text and str(installed.folder) not in text


def test_the_notebooks_are_copied_and_read_what_came_with_them(installed):
    done = installed("-m", "diffurec", "copy", "mine", program="python")
    assert done.returncode == 0 and done.stderr == ""
    mine = installed.folder / "mine"
    copied = {str(path.relative_to(mine)) for path in mine.rglob("*") if path.is_file()}
    assert copied == {str(path.relative_to(ROOT)) for pattern in places.CARRIED for path in ROOT.glob(pattern)}
    assert done.stdout == f"{len(copied)} files are in mine: open mine/notebooks in JupyterLab.\n"
    assert (mine / "notebooks" / "01_sequential_recommendation.ipynb").read_bytes() == (
        ROOT / "notebooks" / "01_sequential_recommendation.ipynb").read_bytes()
    done = installed("-c", "import sys; sys.path.insert(0, 'mine/notebooks'); import so_far, diffurec\n"
                           "print(diffurec.read_results(so_far.RESULTS)[0], diffurec)", program="python")
    results = str(read_results(so_far.RESULTS)[0])
    assert results != "[]" and results in done.stdout and "site-packages/diffurec/" in done.stdout, done.stderr


def test_nothing_is_copied_over_what_is_there(tmp_path, capsys, told):
    mine = tmp_path / "copy"
    assert command.main(["copy", str(mine)]) == 0
    assert capsys.readouterr().out.endswith(f" files are in {mine}: open {mine / 'notebooks'} in JupyterLab.\n")
    (mine / "notebooks" / "so_far.py").write_text("# mine")
    (mine / "notebooks" / "quirks.py").unlink()
    (tmp_path / "file").touch()
    first = mine / "notebooks" / "01_sequential_recommendation.ipynb"
    for what, directory, there in (("a directory that has one", mine, first), ("a file", tmp_path / "file", None)):
        assert command.main(["copy", str(directory)]) == 2
        said, errors = capsys.readouterr()
        assert said == "" and errors == (
            f"{there} is there already, so nothing was copied; choose another directory.\n" if there else
            f"Cannot copy to {directory} (Not a directory); choose a directory that can be written to, with 50 MB left.\n")
        told(f"`copy` to {what}", errors)
    assert (mine / "notebooks" / "so_far.py").read_text() == "# mine" and not (mine / "notebooks" / "quirks.py").exists()


def test_a_torch_that_is_too_old_is_named(tmp_path, told):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("__version__ = '2.8.1+cpu'\n")
    done = subprocess.run([sys.executable, "-c", "import diffurec"], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)}, timeout=60)
    said = done.stderr.splitlines()[-1]
    assert said == ("ImportError: diffurec needs torch 2.9 or newer, and this is torch 2.8.1+cpu: pip install 'torch>=2.9'.")
    told("a torch that is too old", said)
