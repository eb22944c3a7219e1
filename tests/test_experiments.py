"""The launcher of experiment grids, with a stub of the notebook: what it runs, refuses, skips, survives and leaves."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest

from diffurec import experiments

PARAMETERS = """\
dataset = "toys"        # a second "=" in a comment
epochs: int = 2
rate = 0.1
mood = "good"
grad_clip = None
device = "auto"
data_dir = ""
result = ""             # "" = none
checkpoint = ""
"""
TRAIN = """\
import json, os, time
from pathlib import Path
counter = Path(checkpoint, "epochs")
first = int(counter.read_text()) + 1 if counter.exists() else 1
print("starts at epoch", first, flush=True)
for epoch in range(first, epochs + 1):
    while mood == "slow" and epoch == 2 and Path("hold").exists():
        time.sleep(0.05)
    counter.write_text(str(epoch))
    print("epoch", epoch, flush=True)
"""
LAST = """\
if Path("broken").exists():
    assert mood != "raises", "first line\\nlast line"
    if mood == "dies":
        os._exit(1)
    epochs += mood == "lies"
Path("seen").write_text(os.environ.get("DIFFUREC_DATA_DIR", "") + device)
content = {"schema": 1, "metrics": {}, "parameters": {
    "dataset": dataset, "epochs": epochs, "rate": rate, "mood": mood, "grad_clip": grad_clip, "device": device}}
if mood != "silent" or not Path("broken").exists():
    _ = Path(result).write_text(json.dumps(content))
"""
DRIVER = """\
import sys
from pathlib import Path
from diffurec import experiments
experiments.export_html = lambda notebook, page: page.write_text("page")
root = Path(sys.argv[1])
sys.exit(experiments.main(sys.argv[2:], notebook=root / "stub.ipynb", grids=root / "grids", root=root))
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A repository with a stub notebook: run(grid, ...) launches in this process, start(grid) in another."""
    root = (tmp_path / "repository {braces}").resolve()
    (root / "grids").mkdir(parents=True)
    code = nbformat.v4.new_code_cell
    cells = [code(PARAMETERS, metadata={"tags": ["parameters"]}), code(TRAIN), code(LAST)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), root / "stub.ipynb")
    monkeypatch.setattr(experiments, "export_html", lambda notebook, page: page.write_text("page"))
    handler = signal.getsignal(signal.SIGTERM)
    processes = []

    def run(grid, *more, out=root / "reports"):
        return experiments.main([str(grid), "--out", str(out), *more], notebook=root / "stub.ipynb",
                                grids=root / "grids", root=root)

    def start(grid):
        home = str(Path(experiments.__file__).parent.parent)
        paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        processes.append(subprocess.Popen(
            [sys.executable, "-c", DRIVER, root, grid, "--out", root / "reports"], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env=os.environ | {"PYTHONPATH": paths}))
        return processes[-1]

    def write(name, text):
        (root / "grids" / f"{name}.toml").write_text(text)

    yield SimpleNamespace(root=root, out=root / "reports", run=run, start=start, write=write,
                          files=lambda: sorted(path.name for path in (root / "reports").iterdir()))
    signal.signal(signal.SIGTERM, handler)
    for process in processes:
        process.kill()
        process.communicate()


def read_until(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"The launch ended without {text!r}.")


def finish_by_hand(lab, name="reports", **parameters):
    lab.out.mkdir(exist_ok=True)
    recorded = {"dataset": "toys", "epochs": 2, "rate": 0.1, "mood": "good", "grad_clip": None} | parameters
    (lab.out / f"{name}.json").write_text(json.dumps({"schema": 1, "metrics": {}, "parameters": recorded}))
    for ending in ("ipynb", "html"):
        (lab.out / f"{name}.{ending}").write_text("finished before")


def test_failing_cells_among_good_ones_then_a_second_launch(lab, tmp_path, monkeypatch, capfd):
    wrong = tmp_path / "jupyter" / "kernels" / "python3"        # a default kernel of the user that is no Python at all
    wrong.mkdir(parents=True)
    (wrong / "kernel.json").write_text('{"argv": ["false"], "display_name": "Python 3", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("DIFFUREC_DATA_DIR", "")
    lab.write("grid", 'title = "Moods"\n[parameters]\nrate = 1\n[axes]\nepochs = [3]\n'
                      'mood = ["raises", "dies", "silent", "lies", "good"]')
    (lab.root / "broken").touch()
    (tmp_path / "data").mkdir()
    assert lab.run("grid", "--data-dir", str(tmp_path / "data"), "--device", "cpu") == 1
    said, errors = capfd.readouterr()
    assert errors == ""
    assert "Moods (5 runs)" in said and "[5/5] epochs-3_good: finished" in said and "left." in said
    assert said.count("epoch 3\n") == 5                         # the notebook's own lines
    for name, reason in {"raises": "AssertionError: last line", "dies": "The kernel died", "silent": "without writing",
                         "lies": "epochs = 4, not 3"}.items():
        line = next(line for line in said.splitlines() if f"epochs-3_{name}: FAILED" in line)
        assert reason in line and f"epochs-3_{name}.failed.ipynb" in line
    assert "4 of 5 failed: epochs-3_raises, epochs-3_dies, epochs-3_silent, epochs-3_lies." in said.splitlines()[-1]
    failed = [f"epochs-3_{name}.failed.ipynb" for name in ("dies", "lies", "raises", "silent")]
    good = [f"epochs-3_good.{ending}" for ending in ("html", "ipynb", "json")]
    assert lab.files() == sorted(failed + good)
    assert "first line" in (lab.out / "epochs-3_raises.failed.ipynb").read_text()
    assert (lab.root / "seen").read_text() == str(tmp_path / "data") + "cpu"

    notebook = nbformat.read(lab.out / "epochs-3_good.ipynb", as_version=4)
    assert 'result = "reports/epochs-3_good.partial.json"' in notebook.cells[1].source
    assert 'checkpoint = "runs/reports/epochs-3_good"' in notebook.cells[1].source
    assert notebook.cells[1].id == "injected-parameters"
    assert notebook.cells[2].outputs[0].text.splitlines() == ["starts at epoch 1", "epoch 1", "epoch 2", "epoch 3"]
    text = (lab.out / "epochs-3_good.ipynb").read_text()
    assert str(tmp_path) not in text and "start_time" not in text and "iopub" not in text

    (lab.root / "broken").unlink()
    before = (lab.out / "epochs-3_good.json").stat().st_mtime_ns
    assert lab.run("grid", "--device", "auto") == 0             # another device is no other parameter
    said = capfd.readouterr().out
    assert "epochs-3_good: skipped" in said and "epochs-3_good.json" in said
    assert (lab.out / "epochs-3_good.json").stat().st_mtime_ns == before
    assert said.count("starts at epoch 4") == 4                 # from the checkpoints of the failed runs
    assert not [name for name in lab.files() if "failed" in name or "partial" in name] and len(lab.files()) == 15


def test_a_grid_without_axes_is_one_cell_and_of_a_finished_cell_only_a_missing_page_is_made(lab, monkeypatch, capsys):
    lab.write("quick", 'title = "Quick"')
    with monkeypatch.context() as patch:
        patch.setattr(experiments, "export_html", lambda notebook, page: 1 / 0)
        assert lab.run("quick") == 1
    assert "FAILED. ZeroDivisionError" in capsys.readouterr().out
    assert lab.files() == ["quick.ipynb", "quick.json"]
    before = (lab.out / "quick.json").stat().st_mtime_ns
    assert lab.run("quick") == 0
    said = capsys.readouterr().out
    assert "only its page is missing" in said and "starts" not in said
    assert lab.files() == ["quick.html", "quick.ipynb", "quick.json"]
    assert (lab.out / "quick.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("text, parts", [
    ("epochs = ", ["grid.toml", "TOML"]),
    ("epochs = 3", ["'epochs'", "title, [parameters] and [axes]"]),
    ("title = 3", ["title", "string"]),
    ("axes = 3", ["axes", "[axes]"]),
    ("[parameters]\nepoch = 3", ["epoch ", "did you mean epochs?", "dataset, epochs, rate, mood, grad_clip."]),
    ("[axes]\nzzz = [3]", ["zzz; it takes"]),
    ("[parameters]\nepochs = 3.0", ["epochs = 3.0", "float", "int"]),
    ("[parameters]\nepochs = true", ["epochs = True", "bool"]),
    ("[axes]\nmood = ['good', 3]", ["mood = 3", "str"]),
    ("[parameters]\nresult = 'x'", ["result", "launcher"]),
    ("[axes]\ncheckpoint = ['x']", ["checkpoint", "launcher"]),
    ("[axes]\nepochs = []", ["epochs", "one value or more"]),
    ("[axes]\nepochs = 3", ["epochs", "list"]),
    ("[parameters]\nepochs = 3\n[axes]\nepochs = [3]", ["epochs", "both"]),
    ("[axes]\nmood = ['a b', 'A/b']", ["two cells", "A-b"]),
    ("[axes]\nmood = ['/']", ["no file"]),
])
def test_a_grid_that_does_not_fit_is_refused_in_a_sentence(lab, capsys, text, parts):
    lab.write("grid", text)
    assert lab.run("grid") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and all(part in said for part in parts), said
    assert not lab.out.exists() and not (lab.root / "runs").exists()


def test_an_unknown_grid_names_the_known_ones_and_a_path_is_a_grid(lab, tmp_path, capsys):
    lab.write("one", "")
    lab.write("two", "")
    assert lab.run("three") == 2
    assert "'three'; take one of one, two" in capsys.readouterr().err
    assert lab.run(tmp_path / "absent.toml") == 2
    (tmp_path / "mine.toml").write_text("[axes]\nepochs = [0, 1]")
    assert experiments.read_grid(tmp_path / "mine.toml")[0] == "mine"


@pytest.mark.parametrize("source, part", [
    (None, "cannot be read"), ("", "no cell tagged"), ("x = len([])", "NAME = LITERAL"), ("x = 1", "device, result"),
])
def test_a_notebook_that_cannot_be_launched_is_refused(lab, capsys, source, part):
    lab.write("grid", "")
    (lab.root / "stub.ipynb").unlink()
    if source is not None:
        tags = {"tags": ["parameters"]} if source else {}
        cell = nbformat.v4.new_code_cell(source, metadata=tags)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), lab.root / "stub.ipynb")
    assert lab.run("grid") == 2
    assert part in capsys.readouterr().err and not lab.out.exists()


def test_an_output_that_cannot_be_written_is_refused(lab, tmp_path, monkeypatch, capsys):
    lab.write("grid", "")
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert lab.run("grid", out=out) == 2
        assert f"Cannot write to {out}" in capsys.readouterr().err
    monkeypatch.setattr(Path, "write_text", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert lab.run("grid") == 2
    said = capsys.readouterr().err
    assert "No space left on device" in said and said.count("\n") == 1


def test_an_absent_data_directory_is_refused(lab, capsys):
    lab.write("grid", "")
    assert lab.run("grid", "--data-dir", "absent") == 2
    assert "--data-dir is absent" in capsys.readouterr().err and not lab.out.exists()


def test_a_finished_cell_of_other_parameters_is_refused_before_anything_runs(lab, capsys):
    lab.write("grid", "[axes]\nepochs = [2, 3]\nrate = [0.1]")
    finish_by_hand(lab, "epochs-3_rate-0.1", epochs=4)
    assert lab.run("grid") == 2
    said = capsys.readouterr()
    assert "epochs = 4, not 3" in said.err and said.err.count("\n") == 1 and said.out == ""
    (lab.out / "epochs-3_rate-0.1.json").write_text('{"schema": 1')
    assert lab.run("grid") == 2
    assert "no whole result" in capsys.readouterr().err


def test_where_a_cell_ran_does_not_count(lab, capsys):
    lab.write("reports", "")
    finish_by_hand(lab, device="cuda", data_dir="elsewhere", result="x", checkpoint="y")
    assert lab.run("reports", "--device", "cpu") == 0
    assert "skipped" in capsys.readouterr().out
    assert (lab.out / "reports.ipynb").read_text() == "finished before"


def test_two_outputs_do_not_share_checkpoints(lab, tmp_path):
    def checkpoint(out):
        return experiments.expand(("grid", "", {}, {}), {"epochs": 2}, out, lab.root)[0].checkpoint

    assert checkpoint(lab.root / "reports") == lab.root / "runs" / "reports" / "grid"
    assert checkpoint(lab.root / "reports" / "a") == lab.root / "runs" / "reports__a" / "grid"
    assert checkpoint(tmp_path / "outside") == tmp_path / "outside" / ".runs" / "grid"


def test_the_grids_of_the_repository_can_be_read():
    for path in experiments.GRIDS.glob("*.toml"):
        name, title, parameters, axes = experiments.read_grid(path.stem)
        assert (name, bool(title)) == (path.stem, True)
    cells = {path.stem: experiments.expand(experiments.read_grid(path.stem), experiments.read_parameters(experiments.NOTEBOOK),
                                           Path("out"), Path("elsewhere")) for path in experiments.GRIDS.glob("*.toml")}
    assert [cell.name for cell in cells["published"]] == [
        f"{dataset}_seed-{seed}" for dataset in ("amazon-toys", "amazon-beauty") for seed in range(3)]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_launch_leaves_no_kernel_and_no_half_written_file(lab, name, capsys):
    lab.write("grid", '[parameters]\nmood = "slow"')
    hold, kernels = lab.root / "hold", []
    hold.touch()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)       # should the launcher take no notice, the run ends with code 0

    def interrupt():
        while not (lab.root / "runs" / "reports" / "grid" / "epochs").exists():
            time.sleep(0.05)
        kernels.extend(psutil.Process().children())
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(3)
        hold.unlink()

    thread = threading.Thread(target=interrupt)
    thread.start()
    code = lab.run("grid")
    thread.join()
    assert code == 130 and "same command goes on" in capsys.readouterr().err
    assert kernels and psutil.wait_procs(kernels, timeout=0)[1] == []
    assert lab.files() == []


def test_a_second_launch_leaves_a_running_cell_out_and_resumes_it_after_a_kill(lab, capsys):
    lab.write("grid", '[axes]\nmood = ["slow", "good"]')
    (lab.root / "hold").touch()
    first = lab.start("grid")
    read_until(first, "epoch 1")
    assert lab.run("grid") == 3
    said = capsys.readouterr().out
    assert "slow: left out, another launch is running it" in said and "good: finished" in said
    assert said.splitlines()[-1] == "1 of 2 left to another launch: slow."

    kernels = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    assert kernels and psutil.wait_procs(kernels, timeout=10)[1] == []
    (lab.root / "hold").unlink()
    assert lab.run("grid") == 0
    said = capsys.readouterr().out
    assert "good: skipped" in said and "starts at epoch 2" in said
    assert lab.files() == [f"{name}.{ending}" for name in ("good", "slow") for ending in ("html", "ipynb", "json")]


def test_a_cell_that_another_launch_has_finished_meanwhile_is_not_run(lab, monkeypatch, capsys):
    @contextmanager
    def after_the_other(cell):
        finish_by_hand(lab)
        yield

    lab.write("reports", "")
    monkeypatch.setattr(experiments, "locked", after_the_other)
    assert lab.run("reports") == 0
    assert "skipped, another launch has finished it" in capsys.readouterr().out
