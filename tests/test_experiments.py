"""The launcher of experiment grids, with a stub of the notebook: what it runs, refuses, skips, survives and leaves."""

import asyncio
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
import torch
from nbclient import NotebookClient

from diffurec import __version__, command, load_interactions
from diffurec.base import places
from diffurec.base.files import prove_writable
from diffurec.lab import (
    check_run, expand, file_digest, grids, kernels, label_runs, launch as launcher, local, own_file, read_parameters, reading,
    run as one_run, write_result,
)
from diffurec.lab.grids import Grid, Run
from diffurec.lab.progress import Lines, Progress
from diffurec.lab.source import READING
from test_results import RANKS, make_outcome

PARAMETERS = """\
dataset = "toys"        # a second "=" in a comment
variant = "baseline"
settings = "laptop"
seed = 0
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
state = Path(checkpoint, "state.json")
first = len(json.loads(state.read_text())["log"]) + 1 if state.exists() else 1
print("starts at epoch", first, flush=True)
deadline = time.monotonic() + 120       # so that a launcher that is broken fails its test instead of hanging in it
for epoch in range(first, epochs + 1):
    while mood.startswith("slow") and epoch == 2 and Path("hold").exists():
        assert time.monotonic() < deadline, "held for too long"
        time.sleep(0.05)
    state.write_text(json.dumps({"log": [None] * epoch}))
    print(f"epoch {epoch}/", end="", flush=True)
    print(f"{epochs}  loss 1.5", flush=True)
    if mood == "stops":
        break
if mood.startswith("meets"):
    Path(mood).touch()
    while len(list(Path().glob("meets*"))) < 2:
        assert time.monotonic() < deadline, "the other one never came"
        time.sleep(0.05)
"""
LAST = """\
if Path("broken").exists():
    assert mood != "raises", "first line\\nlast line"
    if mood == "dies":
        os._exit(1)
    epochs += mood == "lies"
Path("seen").write_text(os.environ.get("DIFFUREC_DATA_DIR", "") + device)
content = json.loads(Path("result.json").read_text())
content |= {"machine": str(os.environ.get("OMP_NUM_THREADS")), "parameters": {
    "dataset": dataset, "variant": variant, "settings": settings, "seed": seed, "epochs": epochs, "rate": rate,
    "mood": mood, "grad_clip": grad_clip, "device": device}}
if mood == "empties" and Path("broken").exists():
    content["metrics"]["test"] = {}
if mood != "silent" or not Path("broken").exists():
    _ = Path(result).write_text(json.dumps(content))
"""
REPORT = """\
import time
from pathlib import Path
Path("reporting").touch()
while Path("hold-report").exists():
    time.sleep(0.05)
assert not Path("broken-report").exists(), "nothing to report"
print(grid, *sorted(path.stem for path in Path(results).glob("*.json")))
"""
DRIVER = """\
import sys
from pathlib import Path
from test_experiments import command, stand_in
stand_in(Path(sys.argv[1]))
sys.exit(command.main(["run", *sys.argv[2:]]))
"""


def check(parameters):
    """As configure_run: a rate above 1 is refused."""
    if parameters["rate"] > 1:
        raise ValueError(f"rate must be at most 1, but it is {parameters['rate']}.")
    return None, SimpleNamespace(epochs=parameters["epochs"])


def stand_in(root, put=setattr):
    """The launcher takes this folder for the repository, with its stubs for the notebooks, the check and the pages."""
    for name, path in (("ROOT", root), ("NOTEBOOK", root / "stub.ipynb"), ("REPORT", root / "report.ipynb"),
                       ("GRIDS", root / "grids")):
        put(places, name, path)
    put(grids, "check_run", check)
    put(one_run, "export_html", lambda notebook, page: page.write_text("page"))


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A repository with stubs of the notebooks: run(grid, ...) launches in this process, start(grid) in its own."""
    root = (tmp_path / "repository {braces}").resolve()
    (root / "grids").mkdir(parents=True)
    code = nbformat.v4.new_code_cell
    for name, *sources in (("stub", PARAMETERS, TRAIN, LAST), ("report", 'results = ""\ngrid = ""', REPORT)):
        first, *others = map(code, sources)
        first.metadata.tags = ["parameters"]
        nbformat.write(nbformat.v4.new_notebook(cells=[first, *others]), root / f"{name}.ipynb")
    write_result(root / "result.json", make_outcome(seed=0), RANKS)
    stand_in(root, monkeypatch.setattr)
    processes = []

    def run(grid, *more, out=root / "reports", by="run"):
        return command.main([by, str(grid), "--out", str(out), *more])

    def start(grid, *more):
        here = Path(__file__).resolve().parent
        paths = os.pathsep.join(filter(None, [str(here), str(here.parent), os.environ.get("PYTHONPATH")]))
        processes.append(subprocess.Popen(
            [sys.executable, "-c", DRIVER, root, grid, "--out", root / "reports", *more], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env=os.environ | {"PYTHONPATH": paths}))
        return processes[-1]

    def write(name, text):
        (root / "grids" / f"{name}.toml").write_text(text)

    yield SimpleNamespace(root=root, out=root / "reports", run=run, start=start, write=write,
                          files=lambda: sorted(path.name for path in (root / "reports").iterdir()))
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def said(capsys, told):
    """said(what): the one line of the launcher on stderr, and a row of docs/bad-inputs.md."""
    def row(what):
        line = capsys.readouterr().err
        told(what, line.replace("/repository {braces}", ""))
        return line

    return row


def read_until(process, *texts):
    """Reads the launch's output until each text has been in a line; its kernels."""
    missing, said = set(texts), ""
    for line in process.stdout:
        said += line
        missing -= {text for text in missing if text in line}
        if not missing:
            return psutil.Process(process.pid).children(recursive=True)
    raise AssertionError(f"The launch ended without {missing}; it said: {said}")


def finish_by_hand(lab, name="reports", **parameters):
    """A finished run, as the stub of the notebook leaves it; its page says that it was made here."""
    lab.out.mkdir(exist_ok=True)
    recorded = {"dataset": "toys", "variant": "baseline", "settings": "laptop", "seed": 0, "epochs": 2, "rate": 0.1,
                "mood": "good", "grad_clip": None} | parameters
    result = json.loads((lab.root / "result.json").read_text()) | {"parameters": recorded}
    (lab.out / f"{name}.json").write_text(json.dumps(result))
    (lab.out / f"{name}.html").write_text("finished before")
    nbformat.write(nbformat.v4.new_notebook(), lab.out / f"{name}.ipynb")


def test_failing_cells_among_good_ones_then_a_second_launch(lab, tmp_path, monkeypatch, capfd):
    wrong = tmp_path / "jupyter" / "kernels" / "python3"        # a default kernel of the user that is no Python at all
    wrong.mkdir(parents=True)
    (wrong / "kernel.json").write_text('{"argv": ["false"], "display_name": "Python 3", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("DIFFUREC_DATA_DIR", "")
    lab.write("grid", 'title = "Moods"\n[parameters]\nrate = 1\n[axes]\nepochs = [3]\n'
                      'mood = ["raises", "dies", "silent", "lies", "empties", "good"]')
    (lab.root / "broken").touch()
    (tmp_path / "data").mkdir()
    assert lab.run("grid", "--data-dir", str(tmp_path / "data"), "--device", "cpu") == 1
    said, errors = capfd.readouterr()
    assert errors == ""
    assert "Moods (6 runs)" in said and "[6/6] epochs-3_good: finished" in said and "left." in said
    assert said.count("epoch 3/3  loss 1.5\n") == 6             # the notebook's own lines
    for name, reason in {"raises": "AssertionError: last line", "dies": "The kernel died", "silent": "without writing",
                         "lies": "epochs = 4, not 3", "empties": "no sound result: epochs-3_empties.par"}.items():
        line = next(line for line in said.splitlines() if f"epochs-3_{name}: FAILED" in line)
        assert reason in line and f"epochs-3_{name}.failed.ipynb" in line
    assert ("5 of 6 failed: epochs-3_raises, epochs-3_dies, epochs-3_silent, epochs-3_lies, epochs-3_empties."
            in said.splitlines()[-1])
    failed = [f"epochs-3_{name}.failed.ipynb" for name in ("dies", "empties", "lies", "raises", "silent")]
    good = [f"epochs-3_good.{ending}" for ending in ("html", "ipynb", "json")]
    assert lab.files() == sorted(failed + good)
    assert "first line" in (lab.out / "epochs-3_raises.failed.ipynb").read_text()
    assert (lab.root / "seen").read_text() == str(tmp_path / "data") + "cpu"

    notebook = nbformat.read(lab.out / "epochs-3_good.ipynb", as_version=4)
    assert 'result = "reports/epochs-3_good.partial.json"' in notebook.cells[1].source
    assert 'checkpoint = "runs/reports/epochs-3_good"' in notebook.cells[1].source
    assert notebook.cells[1].id == "injected-parameters"
    assert notebook.cells[2].outputs[0].text.splitlines() == [
        "starts at epoch 1", *(f"epoch {epoch}/3  loss 1.5" for epoch in (1, 2, 3))]
    text = (lab.out / "epochs-3_good.ipynb").read_text()
    assert str(tmp_path) not in text and "start_time" not in text and "iopub" not in text

    (lab.root / "broken").unlink()
    before = (lab.out / "epochs-3_good.json").stat().st_mtime_ns
    assert lab.run("grid", "--device", "auto") == 0             # another device is no other parameter
    said = capfd.readouterr().out
    assert "epochs-3_good: skipped" in said
    assert (lab.out / "epochs-3_good.json").stat().st_mtime_ns == before
    assert said.count("starts at epoch 4") == 5                 # from the checkpoints of the failed runs
    assert not [name for name in lab.files() if "failed" in name or "partial" in name] and len(lab.files()) == 18


def test_a_grid_without_axes_is_one_cell_and_of_a_finished_cell_only_a_missing_page_is_made(lab, monkeypatch, capsys):
    lab.write("quick", 'title = "Quick"')
    with monkeypatch.context() as patch:
        patch.setattr(one_run, "export_html", lambda notebook, page: 1 / 0)
        assert lab.run("quick") == 1
    assert "FAILED. ZeroDivisionError" in capsys.readouterr().out
    assert lab.files() == ["quick.ipynb", "quick.json"]
    before = (lab.out / "quick.json").stat().st_mtime_ns
    assert lab.run("quick") == 0
    said = capsys.readouterr().out
    assert "only its page is missing" in said and "starts" not in said
    assert lab.files() == ["quick.html", "quick.ipynb", "quick.json"]
    assert (lab.out / "quick.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("what, text, parts", [
    ("that is no TOML", "epochs = ", ["grid.toml", "TOML"]),
    ("with a parameter outside its tables", "epochs = 3", ["'epochs'", "title, report, [parameters], [axes] and"]),
    ("with title = 3", "title = 3", ["title", "string"]),
    ("with report = 1", "report = 1", ["report", "true or false"]),
    ("with axes = 3", "axes = 3", ["axes", "[axes]"]),
    ("with a misspelt parameter", "[parameters]\nepoch = 3",
     ["epoch ", "did you mean epochs?", "dataset, variant, settings, seed, epochs, rate, mood, grad_clip."]),
    ("with an unknown axis", "[axes]\nzzz = [3]", ["zzz; it takes"]),
    ("with epochs = 3.0", "[parameters]\nepochs = 3.0", ["epochs = 3.0", "float", "int"]),
    ("with epochs = true", "[parameters]\nepochs = true", ["epochs = True", "bool"]),
    ("with a number in an axis of strings", "[axes]\nmood = ['good', 3]", ["mood = 3", "str"]),
    ("with the parameter result, which the launcher sets", "[parameters]\nresult = 'x'", ["result", "launcher"]),
    ("with the axis checkpoint, which the launcher sets", "[axes]\ncheckpoint = ['x']", ["checkpoint", "launcher"]),
    ("with an empty axis", "[axes]\nepochs = []", ["epochs", "one value or more"]),
    ("with an axis that is no list", "[axes]\nepochs = 3", ["epochs", "list"]),
    ("with a name as parameter and as axis", "[parameters]\nepochs = 3\n[axes]\nepochs = [3]", ["epochs", "both"]),
    ("with [with.VALUE] of no axis", "[with.good]\nepochs = 3\n[axes]\nepochs = [3]", ["[with.good]", "a value of an axis"]),
    ("with [with.VALUE] that is no table", "[axes]\nmood = ['good']\n[with]\ngood = 3", ["[with.good]", "table"]),
    ("with an axis in [with.VALUE]", "[axes]\nmood = ['good']\n[with.good]\nmood = 'bad'", ["mood", "both in [with.good]"]),
    ("with a misspelt parameter in [with.VALUE]", "[axes]\nmood = ['good']\n[with.good]\nepoch = 3", ["did you mean epochs?"]),
    ("with two cells of one name", "[axes]\nmood = ['a b', 'A/b']", ["two cells", "A-b"]),
    ("with a value that no file can be named after", "[axes]\nmood = ['/']", ["no file"]),
    ("with a cell named Report", "[axes]\nmood = ['good', 'Report']", ["named report", "change the axes"]),
    ("with lists nested 100,000 deep", "[axes]\nmood = " + "[" * 100_000, ["grid.toml", "TOML"]),
    ("with a list as the value of an axis", "[axes]\nepochs = [[1, 2]]",
     ["epochs is a list", "a string, a number, true or false"]),
    ("with a table as a value", "[parameters]\ngrad_clip = {a = 1}", ["grad_clip is a dict"]),
    ("with a date as a value", "[parameters]\ngrad_clip = 1979-05-27", ["is a date"]),
    ("with three axes of 39 values",
     "[axes]\n" + "".join(f"{axis} = {[*range(1, 40)]}\n" for axis in ("epochs", "seed", "grad_clip")),
     ["its axes make 59,319 cells, and 10,000 are the most; shorten the lists."]),
    ("with a value that a run would fail on", "[axes]\nrate = [1, 2.5]",
     ["grid: rate-2.5: rate must be at most 1, but it is 2.5."]),
])
def test_a_grid_that_does_not_fit_is_refused_in_a_sentence(lab, said, what, text, parts):
    lab.write("grid", text)
    assert lab.run("grid") == 2
    line = said(f"a grid {what}")
    assert line.count("\n") == 1 and all(part in line for part in parts), line
    assert not lab.out.exists() and not (lab.root / "runs").exists()


def test_a_value_of_an_axis_brings_parameters_of_its_own():
    grid = grids.Grid("grid", parameters={"rate": 1, "epochs": 5}, axes={"mood": ["good", "bad"], "seed": [0, 1]},
                      special={"bad": {"rate": 2}, "1": {"epochs": 6}})
    defaults = {"mood": "", "seed": 0, "rate": 0, "epochs": 0}
    runs = {run.name: run.parameters for run in grids.expand(grid, defaults, Path("out"))}
    assert {name: (p["rate"], p["epochs"]) for name, p in runs.items()} == {
        "good_seed-0": (1, 5), "good_seed-1": (1, 6), "bad_seed-0": (2, 5), "bad_seed-1": (2, 6)}


def test_an_unknown_grid_names_the_known_ones_and_a_path_is_a_grid(lab, tmp_path, said):
    lab.write("one", "")
    lab.write("two", "")
    assert lab.run("three") == 2
    assert "'three'; take one of one, two" in said("an unknown grid")
    assert lab.run(tmp_path / "absent.toml") == 2
    said("the path of a grid that is not there")
    (tmp_path / "mine.toml").write_text("[axes]\nepochs = [0, 1]")
    assert grids.read_grid(tmp_path / "mine.toml").name == "mine"


@pytest.mark.parametrize("what, source, part", [
    ("that is not there", None, "cannot be read"), ("without a cell tagged parameters", "", "no cell tagged"),
    ("with a parameter that is no literal", "x = len([])", "NAME = LITERAL"),
    ("that does not take what the launcher sets", "x = 1", "device, result"),
])
def test_a_notebook_that_cannot_be_launched_is_refused(lab, said, what, source, part):
    lab.write("grid", "")
    (lab.root / "stub.ipynb").unlink()
    if source is not None:
        tags = {"tags": ["parameters"]} if source else {}
        cell = nbformat.v4.new_code_cell(source, metadata=tags)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), lab.root / "stub.ipynb")
    assert lab.run("grid") == 2
    assert part in said(f"a notebook {what}") and not lab.out.exists()


def test_names_too_long_for_a_file_end_in_a_digest_and_stay_apart(lab, capsys):
    long = "x" * 250
    lab.write("grid", f'[axes]\nmood = ["{long}a", "{long}b"]')
    assert lab.run("grid") == 0
    names = {name.split(".")[0] for name in lab.files()}
    assert len(names) == 2 and len(lab.files()) == 6
    assert all(name.startswith("xxx") and len(name) == 180 for name in names)
    assert lab.run("grid") == 0
    assert capsys.readouterr().out.count("skipped, finished before") == 2


def test_paths_that_cannot_be_are_refused_in_a_sentence(lab, tmp_path, capsys, told):
    lab.write("grid", "")
    (tmp_path / "circle").symlink_to(tmp_path / "other")
    (tmp_path / "other").symlink_to(tmp_path / "circle")
    long = "y" * 300
    for what, arguments, out, part in (
            (None, ["grid"], tmp_path / "circle", ""), (None, ["grid"], tmp_path / "circle" / "below", ""),
            ("--out: a name of 300 characters", ["grid"], tmp_path / long, "File name too long"),
            ("a grid's name of 300 characters", [long], lab.out, "File name too long"),
            ("the path of a grid: a link that leads in a circle", [tmp_path / "circle.toml"], lab.out, "There is no grid"),
            ("--out: a name that is not UTF-8", ["grid"], tmp_path / "\udcff", "is not UTF-8"),
            ("--data-dir: a name of 300 characters", ["grid", "--data-dir", long], lab.out, "File name too long"),
            ("--data-dir: a link that leads in a circle", ["grid", "--data-dir", str(tmp_path / "circle")], lab.out,
             "there is no such directory")):
        assert lab.run(*arguments, out=out) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and part in said and "Traceback" not in said, said
        assert str(out)[-6:] in said or part
        if what:                # from Python 3.13 on another sentence is said of the others
            told(what, said)
    assert not lab.out.exists()


def test_memory_that_runs_out_before_the_launch_is_one_sentence(lab, monkeypatch, said):
    lab.write("grid", "")
    monkeypatch.setattr(launcher, "read_grid", lambda *_: (_ for _ in ()).throw(MemoryError))
    assert lab.run("grid") == 2
    assert said("too little memory") == "Memory ran out before anything was run; free some, and launch again.\n"


@pytest.mark.parametrize("how", [["-m", "diffurec.experiments"], ["-m", "diffurec", "run"], ["script", "run"]])
def test_an_interrupt_while_the_modules_are_loaded_is_one_sentence(tmp_path, how):
    script = tmp_path / "diffurec"      # as pip makes one
    script.write_text("import sys\nfrom diffurec.command import main\nsys.exit(main())")
    process = subprocess.Popen(
        [sys.executable, *(script if part == "script" else part for part in how), "quickstart", "--out", tmp_path / "out",
         "--device", "abacus"], cwd=places.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))         # tests in the background ignore it
    maps = psutil.Process(process.pid).memory_maps
    while not any("libtorch" in part.path or "multiarray" in part.path for part in maps()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert (process.returncode, said) == (130, "Interrupted. The same command goes on from the last finished epoch.\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("failures", [1, 2])
def test_a_kernel_that_does_not_start_gets_one_more_try(lab, monkeypatch, capsys, failures):
    starts = lab.root / "starts"
    (lab.root / "start.sh").write_text(f"""echo x >> starts
[ $(wc -l < starts) -le {failures} ] && exit 1
exec "$0" -m ipykernel_launcher -f "$1"
""")
    monkeypatch.setattr(kernels, "get_kernel_dict", lambda: {
        "argv": ["sh", "-c", '. ./start.sh', sys.executable, "{connection_file}"], "language": "python"})
    lab.write("grid", "")
    assert lab.run("grid") == failures - 1
    said = capsys.readouterr().out
    assert said.count("grid: its kernel did not start, one more try. (") == 1 and len(starts.read_text()) == 4
    assert ("grid: finished" in said) is (failures == 1) and ("FAILED" in said) is (failures == 2)


def test_a_notebook_that_fails_in_a_cell_is_not_tried_again(lab, capsys):
    lab.write("grid", '[parameters]\nmood = "dies"')
    (lab.root / "broken").touch()
    assert lab.run("grid") == 1
    said = capsys.readouterr().out
    assert "The kernel died" in said and "one more try" not in said and said.count("starts at epoch 1") == 1


def test_what_a_cell_prints_beyond_a_million_characters_is_shown_and_not_kept(lab, capsys):
    notebook = nbformat.read(lab.root / "stub.ipynb", as_version=4)
    notebook.cells[1].source += "for i in range(30_000):\n    print('y' * 99)\nprint('z' * 50, end='')\n1 + 1"
    nbformat.write(notebook, lab.root / "stub.ipynb")
    lab.write("grid", "")
    start = time.monotonic()
    assert lab.run("grid") == 0
    assert time.monotonic() - start < 60
    assert capsys.readouterr().out.count("y" * 99 + "\n") == 30_000
    text, value = nbformat.read(lab.out / "grid.ipynb", as_version=4).cells[2].outputs
    printed = len("starts at epoch 1\n") + 2 * len("epoch 1/2  loss 1.5\n")
    assert text.text.endswith(f"\n[{3_000_050 + printed - 1_000_000:,} more characters were printed, "
                              "which the notebook leaves out.]\n")
    assert len(text.text) < 1_000_200 and value.data["text/plain"] == "2"


@pytest.mark.parametrize("piece", ["x" * 100, "x" * 99 + "\n"])
def test_lines_take_time_in_proportion_to_what_is_printed(piece):
    file = io.StringIO()
    lines = Lines(file, "a: ")
    start = time.monotonic()
    for _ in range(100_000):
        lines.write(piece)
    lines.close()
    assert time.monotonic() - start < 20
    read = file.getvalue().splitlines()
    assert all(line.startswith("a: ") for line in read) and len(read) == (100_000 if "\n" in piece else 1)
    assert "".join(line[3:] for line in read) == piece.strip() * 100_000


def test_an_output_that_cannot_be_written_is_refused(lab, tmp_path, monkeypatch, said):
    lab.write("grid", "")
    (tmp_path / "file").touch()
    for what, out in (("a file", tmp_path / "file"), ("a directory below a file", tmp_path / "file" / "below")):
        assert lab.run("grid", out=out) == 2
        assert f"Cannot write to {out}" in said(f"--out: {what}")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert lab.run("grid") == 2
    line = said("--out: a directory on a full disk")
    assert "No space left on device" in line and line.count("\n") == 1


def test_launches_that_prove_the_same_directory_at_once_do_not_meet(tmp_path):
    """With one name for both probes, each removes the other's: some of these 400 fail."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(prove_writable, [tmp_path / "out"] * 400))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("device, part", [
    *((name, "use 'auto', 'cpu', 'cuda' or 'cuda:1'.") for name in ("abacus", "meta", "cpu:1")),
    ("cuda", "this machine has no CUDA device that torch can use; take 'cpu' or 'auto'."),
    ("cuda:3", "this machine has 3 CUDA devices; take 'cpu' or 'auto'."),
])
@pytest.mark.parametrize("more", [[], ["--report-only"]])
def test_a_device_that_is_not_there_is_refused(lab, monkeypatch, said, device, part, more):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda:3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    lab.write("grid", "")
    assert lab.run("grid", "--device", device, *more) == 2
    line = said(f"--device {device}" + " where there are three" * (device == "cuda:3"))
    assert line.startswith(f"--device: There is no device '{device}'") and line.endswith(f"{part}\n") and line.count("\n") == 1
    assert not lab.out.exists() and not (lab.root / "runs").exists()


def test_the_experiment_trains_on_the_device_it_is_given():
    """Its setup cell, executed: the recorded parameters leave the device out, the configuration must not."""
    cells = {cell.id: cell.source for cell in nbformat.read(places.NOTEBOOK, as_version=4).cells}
    for device in ("cpu", "cuda:1"):
        namespace = {}
        exec(cells["parameters"] + f"\ndevice = {device!r}\n" + cells["setup"], namespace)
        assert namespace["train_config"].device == device and "device" not in namespace["parameters"]


def test_an_absent_data_directory_is_refused(lab, said):
    lab.write("grid", "")
    assert lab.run("grid", "--data-dir", "absent") == 2
    assert "--data-dir is absent" in said("--data-dir: a directory that is not there") and not lab.out.exists()


def test_a_finished_cell_of_other_parameters_is_refused_before_anything_runs(lab, capsys, told):
    lab.write("grid", "[axes]\nepochs = [2, 3]\nrate = [0.1]")
    finish_by_hand(lab, "epochs-3_rate-0.1", epochs=4)
    assert lab.run("grid") == 2
    said = capsys.readouterr()
    assert "epochs = 4, not 3" in said.err and said.err.count("\n") == 1 and said.out == ""
    assert "choose another --out" in said.err and "remove" not in said.err and "delete" not in said.err
    told("--out: a directory with a result of other parameters", said.err.replace("/repository {braces}", ""))


def test_where_a_cell_ran_does_not_count(lab, capsys):
    lab.write("reports", "")
    finish_by_hand(lab, "reports", device="cuda", data_dir="elsewhere", result="x", checkpoint="y")
    assert lab.run("reports", "--device", "cpu") == 0
    assert "skipped" in capsys.readouterr().out
    assert (lab.out / "reports.html").read_text() == "finished before"


def change(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("what, text, part", [
    ("that is cut off", '{"schema": 4', "reports.json cannot be read as JSON"),
    ("that is a list", "[]", "it has no schema"),
    ("with lists nested 100,000 deep", "[" * 100_000, "cannot be read as JSON"),
    ("of schema 1", '{"schema": 1}', "has schema 1, and this version reads 2 to 4"),
    ("that lacks most of it", '{"schema": 4, "parameters": null}', "reports.json is damaged: "),
])
def test_a_result_that_cannot_be_used_is_refused_and_left_as_it_is(lab, said, what, text, part):
    lab.write("reports", "")
    finish_by_hand(lab)
    (lab.out / "reports.json").write_text(text)
    before = lab.files()
    assert lab.run("reports") == 2
    line = said(f"--out: a directory with a result {what}")
    assert line.startswith(f"In {lab.out}, reports.json ") and part in line and line.count("\n") == 1
    assert line.endswith("Choose another --out, or move this file elsewhere to run reports again.\n")
    assert (lab.out / "reports.json").read_text() == text and lab.files() == before
    assert lab.run("reports", "--report-only") == 0         # the report names it itself


def test_a_file_of_data_that_has_changed_makes_another_run(lab, tmp_path, capsys, said):
    rows = [f"u{u},i{(u + t) % 7},{t}" for u in range(5) for t in range(4)]
    own = tmp_path / "own.csv"
    own.write_text("\n".join(["user,item,timestamp", *rows]))
    lab.write("reports", f"[parameters]\ndataset = '{own}'")
    finish_by_hand(lab, dataset=str(own))
    seen = json.loads((lab.out / "reports.json").read_text())["data"]
    checksum = load_interactions(own).checksum
    for known in ({"file": file_digest(own)}, {"checksum": checksum}, {"checksum": checksum, "file": "another file"}):
        change(lab.out / "reports.json", data=seen | known)
        assert lab.run("reports") == 0
        assert "skipped" in capsys.readouterr().out
    change(lab.out / "reports.json", data=seen | {"checksum": checksum, "file": file_digest(own)})
    own.write_text("\n".join(["user,item,timestamp", *rows[:-1]]))
    assert lab.run("reports") == 2
    assert said("--out: a directory with a result of a file of data that has changed") == (
        f"{lab.out / 'reports.json'} was made with other data (checksum {checksum[:8]}) than {own} holds now; "
        "choose another --out.\n")
    own.write_text("nothing")
    assert lab.run("reports") == 2
    line = said("--out: a directory with a result of a file of data that cannot be read any longer")
    assert f"data of the checksum {checksum[:8]}, which cannot be compared" in line


def test_a_named_data_set_that_is_another_now_makes_another_run(lab, said):
    lab.write("reports", "[parameters]\ndataset = 'ml-1m'")
    finish_by_hand(lab, dataset="ml-1m")
    assert lab.run("reports") == 2
    line = said("--out: a directory with a result of a data set that was another one then")
    assert "other data (checksum c0ffeec0) than ml-1m holds now; choose another --out." in line


def test_a_result_of_another_version_is_kept_and_that_is_said(lab, capsys):
    lab.write("reports", "")
    finish_by_hand(lab)
    change(lab.out / "reports.json", versions={"diffurec": "0.1.0"})
    assert lab.run("reports") == 0
    said = capsys.readouterr().out
    assert f"its result was made by diffurec 0.1.0, and this is {__version__}; the report tells them apart." in said
    assert "skipped" in said and "starts" not in said


@pytest.mark.parametrize("page", [True, False])
@pytest.mark.parametrize("text", [None, "", '{"cells": ['])
def test_a_notebook_that_is_missing_or_cut_is_made_again_from_the_checkpoint(lab, capsys, page, text):
    lab.write("reports", "")
    assert lab.run("reports") == 0
    capsys.readouterr()
    (lab.out / "reports.ipynb").unlink()
    if text is not None:
        (lab.out / "reports.ipynb").write_text(text)
    if not page:
        (lab.out / "reports.html").unlink()
    assert lab.run("reports") == 0
    said = capsys.readouterr().out
    assert "starts again, because its notebook is missing or damaged; its checkpoint is used." in said
    assert "starts at epoch 3" in said and lab.files() == ["reports.html", "reports.ipynb", "reports.json"]
    nbformat.validate(nbformat.read(lab.out / "reports.ipynb", as_version=4))
    assert lab.run("reports") == 0
    assert "skipped" in capsys.readouterr().out


def test_two_outputs_do_not_share_checkpoints(lab, tmp_path):
    def checkpoint(out):
        return grids.expand(Grid("grid"), {"epochs": 2}, out)[0].checkpoint

    assert checkpoint(lab.root / "reports") == lab.root / "runs" / "reports" / "grid"
    assert checkpoint(lab.root / "reports" / "a") == lab.root / "runs" / "reports" / "a" / "grid"
    outs = [lab.root, *(lab.root / out for out in ("reports__a", "a_/_b", "a__/b", "a/__b", "__", "___", "__/a", "_"))]
    assert len({checkpoint(out) for out in outs}) == len(outs)
    assert checkpoint(tmp_path / "outside") == tmp_path / "outside" / ".runs" / "grid"


def test_the_grids_of_the_repository_can_be_read():
    defaults = grids.read_parameters(places.NOTEBOOK, needed=())
    cells = {}
    for path in places.GRIDS.glob("*.toml"):
        grid = grids.read_grid(path.stem)
        assert (grid.name, bool(grid.title)) == (path.stem, True)
        cells[grid.name] = grids.expand(grid, defaults, Path("out"))
    assert [cell.name for cell in cells["published"]] == [
        f"{dataset}_seed-{seed}" for dataset in ("amazon-toys", "amazon-beauty") for seed in range(5)]


def test_two_cells_at_once_and_one_that_fails(lab, monkeypatch, capsys):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    lab.write("grid", '[axes]\nmood = ["raises", "meets-1", "meets-2", "good"]')
    (lab.root / "broken").touch()
    assert lab.run("grid", "--jobs", "2") == 1
    said, errors = capsys.readouterr()      # the launcher's own; a kernel that is told to end may complain of its sockets
    assert errors == ""
    assert "[1/4] raises: FAILED. AssertionError: last line" in said
    assert said.splitlines()[-1] == "1 of 4 failed: raises. The same command runs them again."
    for name in ("raises", "meets-1", "meets-2", "good"):
        assert f"\n{name}: epoch 1/2  loss 1.5\n" in said and f"\n{name}: epoch 2/2  loss 1.5\n" in said
    assert lab.files() == sorted(["raises.failed.ipynb"] + [
        f"{name}.{ending}" for name in ("good", "meets-1", "meets-2") for ending in ("html", "ipynb", "json")])
    threads = {json.loads((lab.out / f"{name}.json").read_text())["machine"] for name in ("meets-1", "meets-2", "good")}
    assert threads == {str(max(1, os.cpu_count() // 2))}

    (lab.root / "broken").unlink()
    assert lab.run("grid") == 0
    assert json.loads((lab.out / "raises.json").read_text())["machine"] == "None"


def run_in_kernel(monkeypatch, code, home, **variables):
    """What the code prints and displays in a kernel that is started with these variables beside the caller's own."""
    for name, value in {"HOME": str(home), **variables}.items():
        monkeypatch.setenv(name, value)
    cells = [nbformat.v4.new_code_cell(code)]
    manager = kernels.Kernels({}).manager
    NotebookClient(nbformat.v4.new_notebook(cells=cells), kernel_manager_class=manager, timeout=120).execute()
    return cells[0].outputs


def test_of_the_callers_environment_only_the_named_variables_reach_a_kernel(tmp_path, monkeypatch):
    """Settings of matplotlib and IPython do not come by the home directory either."""
    home = tmp_path / "home"
    for place in (".config/matplotlib", ".ipython/profile_default/startup", "mine"):
        (home / place).mkdir(parents=True)
    (home / ".config/matplotlib/matplotlibrc").write_text("axes.facecolor: red\n")
    (home / "mine" / "matplotlibrc").write_text("axes.facecolor: red\n")
    for startup in (home / ".ipython/profile_default/startup/first.py", home / "mine" / "started.py"):
        startup.write_text("import os; os.environ['STARTED'] = 'yes'\n")
    (home / "mine" / "json.py").write_text("raise ImportError('another json')\n")
    refused = {
        "MPLBACKEND": "Agg", "MATPLOTLIBRC": str(home / "mine" / "matplotlibrc"), "MPLCONFIGDIR": str(home / "mine"),
        "XDG_CONFIG_HOME": str(home / ".config"), "IPYTHONDIR": str(home / ".ipython"), "COLUMNS": "7",
        "PYTHONSTARTUP": str(home / "mine" / "started.py"), "PYTHONPATH": str(home / "mine"), "TORCH_LOGS": "+dynamo",
        "PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "1", "NOT_KNOWN": "x",
    }
    named = {"DIFFUREC_DATA_DIR": str(home), "OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "1",
             "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
             "PIP_INDEX_URL": "https://example.org", "https_proxy": "http://example.org"}
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    stream, figure = run_in_kernel(
        monkeypatch, "import os, json, matplotlib.pyplot as plt\n"
        "print(json.dumps([dict(os.environ), plt.rcParams['axes.facecolor']]))\n_ = plt.plot([1, 2])",
        home, **refused, **named)
    variables, color = json.loads(stream.text)
    assert color == "white" and "image/png" in figure.data
    changed = {name for name in refused if variables.get(name) == refused[name]}
    assert not changed and "STARTED" not in variables and "NOT_KNOWN" not in variables
    assert {name: variables.get(name) for name in named} == named
    assert variables["OMP_WAIT_POLICY"] == "passive" and variables["HOME"] == str(home)


def test_a_caller_may_let_waiting_threads_spin_and_relative_directories_are_the_callers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    caller = {"OMP_WAIT_POLICY": "active", "DIFFUREC_CACHE_DIR": "cache", "DIFFUREC_DATA_DIR": ""}
    found = kernels.environment(caller, tmp_path)
    assert found["OMP_WAIT_POLICY"] == "active"
    assert (found["DIFFUREC_CACHE_DIR"], found["DIFFUREC_DATA_DIR"]) == (str(tmp_path / "cache"), "")


@pytest.mark.parametrize("jobs", ["0", "-2"])
def test_less_than_one_job_is_refused(lab, said, jobs):
    lab.write("grid", "")
    assert lab.run("grid", "--jobs", jobs) == 2
    line = said(f"--jobs {jobs}")
    assert f"--jobs is {jobs}, " in line and line.count("\n") == 1 and not lab.out.exists()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_launch_leaves_no_kernel_and_no_half_written_file(lab, name, capsys):
    lab.write("grid", 'report = true\n[axes]\nmood = ["slow-1", "slow-2", "slow-3"]')
    (lab.root / "hold").touch()
    process = lab.start("grid", "--jobs", "2")
    kernels = read_until(process, "slow-1: epoch 1/2", "slow-2: epoch 1/2")
    process.send_signal(getattr(signal, name))
    process.send_signal(getattr(signal, name))          # an impatient second time does no harm
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and said.endswith("The same command goes on from the last finished epoch.\n")
    assert "FAILED" not in said and "slow-3" not in said and "Traceback" not in said
    assert len(kernels) == 2 and psutil.wait_procs(kernels, timeout=0)[1] == []
    assert lab.files() == []

    (lab.root / "hold").unlink()
    assert lab.run("grid", "--jobs", "2") == 0
    said = capsys.readouterr().out
    assert said.count("starts at epoch 2") == 2 and said.count("starts at epoch 1") == 1


@pytest.mark.parametrize(("now", "said"), [(None, None), ("causal", "no attention, not 'causal'")])
def test_a_result_from_before_a_setting_is_of_a_run_that_leaves_it_open(now, said):
    """What None stands for was all there was; a value was not run."""
    run = SimpleNamespace(parameters={"seed": 0, "attention": now})
    assert one_run.first_difference({"parameters": {"seed": 0}}, run) == said


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to a thread")
def test_a_signal_that_reaches_another_thread_than_the_first_is_handled_too(monkeypatch):
    stopped = threading.Event()

    def finish(run, label, launch):
        time.sleep(0.5)         # until the first thread waits
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        assert stopped.wait(10)
        return "stopped"

    monkeypatch.setattr(local, "finish", finish)
    with local.on_interrupt(lambda *_: stopped.set()):
        assert local.finish_all([SimpleNamespace(name="run")], None, SimpleNamespace(jobs=None)) == ["stopped"]


def test_a_launch_interrupted_in_its_report_leaves_no_kernel_and_no_half_written_file(lab, capsys):
    lab.write("grid", "report = true")
    (lab.root / "hold-report").touch()
    process = lab.start("grid")
    read_until(process, "grid: finished")
    while not (lab.root / "reporting").exists():
        assert process.poll() is None
        time.sleep(0.05)
    kernels = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and "FAILED" not in said
    assert len(kernels) == 1 and psutil.wait_procs(kernels, timeout=0)[1] == []
    assert lab.files() == ["grid.html", "grid.ipynb", "grid.json"]


def test_a_kernel_that_starts_while_the_launch_is_stopped_is_stopped_too():
    stopped = kernels.Kernels({})
    stopped.stop()
    manager = stopped.manager()
    asyncio.run(manager.start_kernel())
    assert manager.provisioner.process.wait(timeout=60) == -signal.SIGKILL
    manager.cleanup_connection_file()


def test_a_second_launch_leaves_running_cells_out_and_resumes_them_after_a_kill(lab, capsys):
    lab.write("grid", 'report = true\n[axes]\nmood = ["slow-1", "slow-2", "good"]')
    (lab.root / "hold").touch()
    first = lab.start("grid", "--jobs", "2")
    kernels = read_until(first, "slow-1: epoch 1/2", "slow-2: epoch 1/2")
    assert lab.run("grid") == 3
    said = capsys.readouterr().out
    assert "slow-1: left out, another launch is running it" in said and "good: finished" in said
    assert said.splitlines()[-1] == "2 of 3 left to another launch: slow-1, slow-2."
    assert report_of(lab) == "grid good\n"

    first.kill()
    assert len(kernels) == 2 and psutil.wait_procs(kernels, timeout=20)[1] == []
    (lab.root / "hold").unlink()
    assert lab.run("grid", "--jobs", "2") == 0
    said = capsys.readouterr().out
    assert "good: skipped" in said and said.count("starts at epoch 2") == 2
    assert report_of(lab) == "grid good slow-1 slow-2\n"
    assert lab.files() == sorted(["report.html", "report.ipynb"] + [
        f"{name}.{ending}" for name in ("good", "slow-1", "slow-2") for ending in ("html", "ipynb", "json")])


def report_of(lab):
    return nbformat.read(lab.out / "report.ipynb", as_version=4).cells[-1].outputs[0].text


def test_a_report_of_what_is_there_with_failed_cells_alone_and_after_its_own_failure(lab, tmp_path, capsys):
    lab.write("grid", 'report = true\n[axes]\nmood = ["raises", "good"]')
    (lab.root / "broken").touch()
    assert lab.run("grid") == 1
    said = capsys.readouterr().out
    assert "The report: " in said and "1 of 2 failed: raises." in said.splitlines()[-1]
    assert report_of(lab) == "grid good\n"
    notebook = (lab.out / "report.ipynb").read_text()
    assert 'results = \\"reports\\"' in notebook and str(tmp_path) not in notebook and "start_time" not in notebook

    (lab.root / "broken").unlink()
    (lab.root / "broken-report").touch()
    assert lab.run("grid") == 1
    failed = lab.out / "report.failed.ipynb"
    assert f"The report FAILED. AssertionError: nothing to report (see {failed})" in capsys.readouterr().out
    assert "nothing to report" in failed.read_text() and report_of(lab) == "grid good\n"

    (lab.root / "broken-report").unlink()
    (lab.out / "raises.json").unlink()
    assert lab.run("grid", "--report-only") == 0
    said = capsys.readouterr().out
    assert "epoch" not in said and "skipped" not in said and "in all" not in said
    assert report_of(lab) == "grid good\n" and not failed.exists()
    assert not (lab.out / "raises.json").exists() and not [name for name in lab.files() if "partial" in name]


def test_a_report_waits_for_that_of_another_launch(lab):
    lab.write("grid", "")
    report = SimpleNamespace(name="report", checkpoint=lab.root / "runs" / "reports" / "report")
    held, done = threading.Event(), []

    def hold():
        with one_run.locked(report):
            held.set()
            time.sleep(1)
            done.append(True)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert lab.run("grid", "--report-only") == 0
    assert done and lab.files() == ["report.html", "report.ipynb"]
    thread.join()


def test_a_report_that_cannot_be_made_is_refused_before_anything_runs(lab, said):
    lab.write("grid", "report = true")
    (lab.root / "stub.ipynb").replace(lab.root / "report.ipynb")
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(
        PARAMETERS, metadata={"tags": ["parameters"]})]), lab.root / "stub.ipynb")
    assert lab.run("grid") == 2
    assert "does not take results, grid" in said("a report's notebook that does not take what the launcher sets")
    assert not lab.out.exists()


@pytest.mark.parametrize("changes, part", [
    ({"dataset": "amazon-toy"}, "There is no data set 'amazon-toy'; take one of ml-100k, "),
    ({"dataset": "absent.csv"}, "There is no file 'absent.csv'"),
    ({"num_steps": 0}, "num_steps must be a whole number between 1 and num_diffusion_steps, here 16, but it is 0."),
    ({"num_steps": 32}, "num_steps"),
    ({"eval_num_steps": 17}, "eval_num_steps must be"),
    ({"hidden_size": 30, "num_heads": 4}, "num_heads"),
    ({"dataset": "mine.xlsx"}, "has the suffix '.xlsx'; .csv, .tsv, .txt, "),
    ({"k_core": 5}, "k_core = 5 says how a file is read, and ml-1m is none: leave it out."),
    ({"dataset": "mine.csv", "item_column": "thing"}, "has the columns user, item, time, but no 'thing': pass another item=."),
    ({"dataset": "mine.csv", "sep": ";"}, "has no ';' in its first line"),
    ({"dataset": "mine.csv", "names": "user, item, time"}, "has a header ('user,item,time'), "),
    ({"dataset": "mine.csv", "order": "first"}, "order must be 'time' or 'file', but it is 'first'."),
    ({"dataset": "mine.csv", "k_core": 0}, "k_core must be a whole number of at least 1, but it is 0."),
    ({"dataset": "z" * 300 + ".csv"}, "cannot be read (File name too long)."),
    ({"seed": 2**64}, "seed must be a whole number between 0 and 18446744073709551615, but it is 18446744073709551616."),
    ({"seed": -1}, "seed must be a whole number between 0 and 18446744073709551615, but it is -1."),
    *(({"analysis_users": users}, "analysis_users must be 0 or") for users in (9, -1, 2.5, True, None)),
])
def test_values_that_a_run_would_fail_on_are_refused(tmp_path, monkeypatch, refused, changes, part):
    for name in ("mine.csv", "mine.xlsx"):
        (tmp_path / name).write_text("user,item,time\n1,2,3\n")
    monkeypatch.setattr(places, "ROOT", tmp_path)
    good = {"variant": "baseline", "settings": "laptop", "epochs": 7, "num_diffusion_steps": 16, "num_steps": 16,
            "eval_num_steps": 1, "analysis_users": 0}
    for dataset in ("ml-100k", str(tmp_path / "mine.csv"), "mine.csv"):
        assert check_run(good | {"dataset": dataset})[1].epochs == 7
    assert check_run(good | {"dataset": "ml-1m", "seed": 2**64 - 1, "analysis_users": 10})[1].seed == 2**64 - 1
    assert check_run(good | {"dataset": "ml-1m", "num_steps": None})[0].num_diffusion_steps == 16
    what = " and ".join(f"{name} = {value!r}" for name, value in changes.items())
    with refused(f"a run with {what}", ValueError, re.escape(part)):
        check_run(good | {"dataset": "ml-1m"} | changes)


def test_a_relative_path_is_seen_from_where_the_launch_is_called(lab, tmp_path, monkeypatch, said):
    rows = "".join(f"u{u},i{(u + t) % 7},{t}\n" for u in range(5) for t in range(4))
    (lab.root / "below").mkdir()
    for folder in (lab.root / "below", lab.root, tmp_path):
        (folder / "mine.csv").write_text("user,item,timestamp\n" + rows)
    grid = Grid("grid", parameters={"dataset": "mine.csv"}, axes={"seed": [0]})
    defaults = {"dataset": "ml-100k", "seed": 0}
    for folder, dataset in ((lab.root / "below", "below/mine.csv"), (lab.root, "mine.csv"), (tmp_path, f"{tmp_path}/mine.csv")):
        monkeypatch.chdir(folder)
        run, = expand(grid, defaults, lab.out)
        assert run.given["dataset"] == run.parameters["dataset"] == dataset and own_file(dataset) == folder / "mine.csv"
        with monkeypatch.context() as kernel:       # that of the report
            kernel.setenv("DIFFUREC_CALLED_FROM", kernels.environment({}, tmp_path)["DIFFUREC_CALLED_FROM"])
            kernel.chdir(lab.root)
            assert expand(grid, defaults, lab.out)[0].parameters == run.parameters
    for dataset in ("ml-1m", f"{tmp_path}/mine.csv"):
        assert expand(Grid("grid", parameters={"dataset": dataset}), defaults, lab.out)[0].parameters["dataset"] == dataset
    folder = expand(Grid("grid", parameters={"dataset": "./by_day"}), defaults, lab.out)[0].parameters["dataset"]
    assert own_file(folder) == tmp_path / "by_day"


def test_parameters_of_reading_are_arguments_of_load_interactions():
    parameters = read_parameters(places.NOTEBOOK, ["dataset"])
    assert {name: parameters[name] for name in READING} == READING
    defaults = inspect.signature(load_interactions).parameters
    for name, value in reading({}).items():
        assert value == defaults[name].default
    given = reading({"item_column": "track", "names": "user, track,time", "sep": ";", "k_core": 5, "order": "file"})
    assert given == reading({}) | {
        "item": "track", "names": ["user", "track", "time"], "sep": ";", "k_core": 5, "order": "file"}


def test_a_result_without_the_parameters_of_reading_was_made_with_their_defaults(lab, said):
    run = Run("grid", {}, {"seed": 0, **READING}, lab.out, lab.out)
    assert one_run.first_difference({"parameters": {"seed": 0}}, run) is None
    run = Run("grid", {}, {"seed": 0, **READING, "ties": "shuffle"}, lab.out, lab.out)
    assert one_run.first_difference({"parameters": {"seed": 0}}, run) == "ties = 'file', not 'shuffle'"
    old, new = {"dataset": "mine.csv", "settings": "laptop", "variant": "baseline", "seed": 0}, 1
    results = [{"parameters": old, "data": {"checksum": "c", "users": 1, "items": 1, "interactions": 1}, "file": "a.json",
                "settings": {"model": {}, "train": {}}, "versions": {"diffurec": "0"}}]
    assert label_runs(results, [{**old, **READING, "seed": new}])[1] == {("mine.csv", "laptop", "baseline", new)}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def log(folder, epochs):
    """A checkpoint's state after so many epochs, as one that was just written."""
    folder.mkdir(exist_ok=True)
    (folder / "new").write_text(json.dumps({"log": [{"epoch": epoch} for epoch in range(1, epochs + 1)]}))
    os.utime(folder / "new", ns=(epochs, epochs))
    (folder / "new").replace(folder / "state.json")


def test_the_time_left_counts_what_this_launch_made(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    progress = Progress({"resumed": 10, "stopped": 20, "waiting": 10})
    log(tmp_path / "resumed", 5)
    log(tmp_path / "waiting", 4)        # of another launch
    for name in ("resumed", "stopped"):
        progress.begin(name, tmp_path / name)
    assert progress.bar.n == 5 and progress.bar.initial == 5
    for epochs in (6, 7):
        log(tmp_path / "resumed", epochs)
        progress.look()
        progress.look()
    (tmp_path / "resumed" / "state.json").write_text("{")
    progress.look()
    assert progress.bar.n == 7 and progress.bar.initial == 5
    log(tmp_path / "stopped", 1)
    progress.end("stopped")
    assert progress.bar.n == 27 and progress.bar.n - progress.bar.initial == 3
    progress.start -= 30                                        # 3 epochs in 30 s, 13 to come
    assert progress.times() in ("30 s in all, about 2 min left.", "31 s in all, about 2 min left.")
    assert Progress({"page": 3}).times() == "0 s in all."       # nothing is known yet


def test_epochs_are_seen_while_a_run_goes_on(tmp_path):
    deadline = time.monotonic() + 30
    with Progress({"run": 3}) as progress:
        progress.begin("run", tmp_path / "run")
        for epochs in (1, 2):
            log(tmp_path / "run", epochs)
            while progress.made < epochs:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    assert not progress.thread.is_alive()


def test_a_terminal_shows_one_bar_over_all_cells(lab, monkeypatch, capsys):
    lab.write("grid", '[parameters]\nepochs = 3\n[axes]\nmood = ["good", "stops"]')
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert lab.run("grid") == 0
    frames = terminal.getvalue().split("\r")
    assert any("0/6" in frame for frame in frames) and "6/6" in frames[-1]
    said = capsys.readouterr().out
    assert "good: epoch 3/3  loss 1.5\n" in said and said.count("in all, about") == 2      # known from the checkpoints


def test_a_cell_that_another_launch_has_finished_meanwhile_is_not_run(lab, monkeypatch, capsys):
    @contextmanager
    def after_the_other(cell):
        finish_by_hand(lab)
        yield

    lab.write("reports", "")
    monkeypatch.setattr(one_run, "locked", after_the_other)
    assert lab.run("reports") == 0
    assert "skipped, another launch has finished it" in capsys.readouterr().out


def test_one_run_of_a_grid_alone_and_at_last_the_report(lab, capsys, told):
    lab.write("grid", 'report = true\n[axes]\nmood = ["good", "fine", "raises"]')
    (lab.root / "broken").touch()
    assert lab.run("grid", "--only", "fine") == 0
    said = capsys.readouterr().out
    assert "grid (1 run)\n[1/1] fine: starts.\nstarts at epoch 1\n" in said
    assert lab.files() == ["fine.html", "fine.ipynb", "fine.json"]
    assert lab.run("grid", "--only", "fine") == 0
    assert "fine: skipped" in capsys.readouterr().out
    assert lab.run("grid", "--only", "raises") == 1
    assert capsys.readouterr().out.endswith("1 of 1 failed: raises. The same command runs them again.\n")
    assert lab.run("grid", by="report") == 0
    assert report_of(lab) == "grid fine\n" and "good.json" not in lab.files()
    with one_run.locked(SimpleNamespace(name="good", checkpoint=lab.root / "runs" / "reports" / "good")):
        assert lab.run("grid", "--only", "good") == 3
    capsys.readouterr()
    assert lab.run("grid", "--only", "god") == 2
    said = capsys.readouterr().err
    assert said == "--only is 'god', and grid has no such run; a near one is good.\n"
    told("--only with a run that the grid has not", said)


def test_a_package_that_grids_need_and_is_not_there_is_named(tmp_path, monkeypatch, capsys, told):
    monkeypatch.setitem(sys.modules, "papermill", None)
    for module in ("launch", "run", "local"):
        monkeypatch.delitem(sys.modules, f"diffurec.lab.{module}")
        monkeypatch.delattr(f"diffurec.lab.{module}", raising=False)
    assert command.main(["report", "quickstart", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said == "Grids need the package papermill, which is not installed: pip install 'diffurec[lab]'.\n"
    told("a package that is not installed", said)
    assert not (tmp_path / "out").exists()
