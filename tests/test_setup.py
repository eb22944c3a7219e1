"""The set-up: one list of versions, two ways to install it, what make says, and the state of the notebooks."""

import ast
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from itertools import product
from pathlib import Path

import nbformat
import pandas
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from diffurec import crossed_test, load_dataset, read_results
from diffurec.base import places
from diffurec.lab import paired_by_seed, setup
from diffurec.lab.grids import read_grid

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
LINES = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
PINS = {canonicalize_name(Requirement(line).name): Requirement(line) for line in LINES}
ASKED = {"core": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
DEPENDENCIES = {part: {canonicalize_name(Requirement(line).name) for line in lines} for part, lines in ASKED.items()}
TOOLS = set(re.findall(r"([a-z-]+)==", (ROOT / "Makefile").read_text()))    # of make mutants
NOTEBOOKS = [path for path in sorted((ROOT / "notebooks").rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
DOCS = sorted((ROOT / "docs").glob("*.ipynb"))


# The versions

@pytest.mark.parametrize("line", LINES)
def test_every_line_is_an_exact_pin(line):
    assert re.fullmatch(r'[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*(; \w+ == "[^"]+")?', line)


def test_the_list_names_each_package_once_and_no_build_of_torch():
    assert len(PINS) == len(LINES)
    assert str(PINS["torch"]) == "torch==2.13.0"
    assert not [name for name in PINS if name.startswith(("nvidia", "cuda", "triton"))]


@pytest.mark.parametrize("line", [line for part in ASKED for line in ASKED[part]])
def test_the_package_asks_for_a_lower_bound_that_the_pin_meets(line):
    assert re.fullmatch(r"[A-Za-z0-9._-]+>=[0-9.]+", line)
    pin, = PINS[canonicalize_name(Requirement(line).name)].specifier
    assert pin.version in Requirement(line).specifier
    assert sum(Requirement(line).name == Requirement(other).name for part in ASKED for other in ASKED[part]) == 1


def test_the_wheel_has_every_room_and_what_is_copied():
    setuptools = PYPROJECT["tool"]["setuptools"]
    rooms = {"diffurec", *(f"diffurec.{path.parent.name}" for path in (ROOT / "diffurec").glob("*/__init__.py"))}
    assert set(setuptools["packages"]) == rooms | {"diffurec.material"}
    assert setuptools["package-data"]["diffurec.material"] == list(places.CARRIED)
    assert not (ROOT / "diffurec" / "material").exists() and (ROOT / "diffurec" / "py.typed").exists()
    assert all(list(ROOT.glob(pattern)) for pattern in places.CARRIED)
    carried = {path for pattern in places.CARRIED for path in ROOT.glob(pattern)}
    assert set(NOTEBOOKS) <= carried
    read = "\n".join(c.source for path in NOTEBOOKS for c in nbformat.read(path, 4).cells if c.cell_type == "code")
    grids = {path.parent.name for path in (ROOT / "reports").glob("*/*.json")}
    assert {grid for grid in grids if re.search(rf"(?<!\" / )[\"/]{grid}[\"/]", read)} == {
        path.parent.name for path in carried if "reports" in path.parts}


DISTRIBUTIONS = packages_distributions()       # of each importable name
SCRIPTS = [path for folder in ("tests", "notebooks", "benchmarks", "docs") for path in sorted((ROOT / folder).glob("*.py"))]
OURS = {"diffurec", *(path.stem for path in SCRIPTS)}


def imported(source):
    """The distributions outside the standard library and this repository that a Python source imports."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add(node.module.split(".")[0])
    return {canonicalize_name(DISTRIBUTIONS.get(module, [module])[0])
            for module in modules - set(sys.stdlib_module_names) - OURS}


@pytest.mark.parametrize("path", sorted((ROOT / "diffurec").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_package_asks_for_all_that_it_imports(path):
    parts = ["core", *["lab"] * (path.parent.name == "lab"), *["slurm"] * (path.name == "slurm.py")]
    allowed = set().union(*(DEPENDENCIES[part] for part in parts))
    assert imported(path.read_text(encoding="utf-8")) <= allowed


@pytest.mark.parametrize("path", sorted((ROOT / "diffurec").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_imported_that_macos_or_windows_lacks(path):
    modules = {alias.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Import)
               for alias in node.names}
    assert not modules & {"fcntl", "grp", "msvcrt", "pty", "pwd", "resource", "termios", "winreg"}


@pytest.mark.parametrize("path", [*SCRIPTS, *NOTEBOOKS, *DOCS], ids=lambda path: str(path.relative_to(ROOT)))
def test_what_tests_and_notebooks_import_is_pinned(path):
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        code = ["".join(cell["source"]) for cell in json.loads(source)["cells"] if cell["cell_type"] == "code"]
        source = "\n".join(re.sub(r"^(\s*)[%!].*", r"\1pass", text, flags=re.M) for text in code)
    if path.name == "rectools_sasrec.py":       # runs in an environment of its own, which the Makefile pins
        assert imported(source) <= set(re.findall(r"([\w-]+)(?:\[\w+\])?==", (ROOT / "Makefile").read_text(encoding="utf-8")))
        return
    assert imported(source) <= set(PINS) | TOOLS


def test_the_installed_versions_are_the_pinned_ones():
    wrong = []
    for name, pin in PINS.items():
        if pin.marker and not pin.marker.evaluate():
            continue
        try:
            found = version(name).split("+")[0]         # torch's CPU build is 2.13.0+cpu
        except PackageNotFoundError:
            found = "none"
        if found not in pin.specifier:
            wrong.append(f"{pin}, installed {found}")
    assert not wrong, f"{wrong}: `rm -rf .venv` and `make test` install the pinned ones"


def test_conda_installs_the_same_list():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *packages, from_pip = environment["dependencies"]
    assert environment["name"] == "diffurec"
    assert packages == ["python=3.11", "pip"]
    assert from_pip == {"pip": ["-r requirements.txt", "-e ."]}
    assert environment["variables"] == {"OMP_WAIT_POLICY": "passive"}       # as make
    assert packages[0].split("=")[1] in SpecifierSet(PROJECT["requires-python"])


# make

def make(folder, *arguments, **environment):
    """What `make ...` gives in the folder, free of an outer make's settings."""
    outer = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    return subprocess.run(["make", "--no-print-directory", *arguments], cwd=folder, env={**outer, **environment},
                          capture_output=True, text=True, timeout=120)


@pytest.fixture
def copy(tmp_path):
    """The set-up's files in a folder of their own, so that nothing touches the .venv in use."""
    folder = tmp_path / "a copy"
    folder.mkdir()
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


def script(folder, name, text):
    path = folder / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("arguments", [(), ("help",)])
def test_help_lists_the_targets_and_sets_nothing_up(copy, arguments):
    done = make(copy, *arguments)
    assert done.returncode == 0
    targets = ["report", "test", "lint", "site", "test-avx2", "equations", "bad-inputs", "layouts", "lab", "bench", "gpu-check",
               "witness", "mutants", "data", "help"]
    assert [line.split()[1] for line in done.stdout.splitlines()] == targets
    assert not (copy / ".venv").exists()


REAL = f'exec "{sys.executable}" "$@"'
BROKEN = {
    "not there": (None, "does not run: install Python 3.11 or newer"),
    "says nothing": ("exit 0", "does not run"),
    "version 3.9": ("echo 3.9", "is Python 3.9, and 3.11 or newer is needed"),
    "version 2.7": ("echo 2.7", "is Python 2.7, and"),
    "version 3.10": ("echo 3.10", "is Python 3.10, and"),
    "without venv": (f'case "$*" in *ensurepip*) exit 1;; *) {REAL};; esac', "apt install python3-venv"),
    "whose venv fails": (f'case "$*" in *"-m venv"*) echo "Error: read-only"; exit 1;; *) {REAL};; esac',
                     "The set-up failed, then run make again. (Error: read-only)"),
    "on a full disk": (f'case "$*" in *"-m venv"*) echo "[Errno 28] No space left on device"; exit 1;; *) {REAL};; esac',
                  "The disk is full"),
}


@pytest.mark.parametrize("target", ["data", "report"])
@pytest.mark.parametrize("case", BROKEN)
def test_what_is_missing_is_named_in_one_sentence(copy, tmp_path, case, target, told):
    text, sentence = BROKEN[case]
    python = script(tmp_path, "fake python", text) if text else str(tmp_path / "nowhere")
    done = make(copy, target, f"PYTHON={python}")
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode != 0
    assert len(said) == 1 and sentence in said[0]
    told(f"Python: {case}", said[0])
    assert not (copy / ".venv" / "set-up-in").exists()


def test_no_package_index_is_named_and_leaves_no_stamp(copy, told):
    (copy / "requirements.txt").write_text("torch==2.13.0\n")       # pip asks for each line in turn, in vain
    done = make(copy, "data", f"PYTHON={sys.executable}", PIP_INDEX_URL="http://127.0.0.1:9/", PIP_EXTRA_INDEX_URL="",
                PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="", PIP_NO_CACHE_DIR="1", PIP_RETRIES="1")
    assert done.returncode != 0
    said, *_ = done.stderr.splitlines()
    assert said.startswith("pip cannot reach a package index")
    told("no package index", re.sub(r" \(.*", "", said))       # what follows is pip's own
    assert not (copy / ".venv" / "set-up-in").exists()


FAKE = """case "$*" in
*"%d.%d"*) echo 3.11 ;;
*"-m venv"*) echo venv >> log; rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
*"-m pip"*) echo pip >> log; [ ! -e fail ] || { echo "ERROR: no"; exit 1; } ;;
*"-m diffurec"*) echo run >> log ;;
esac
"""


def test_set_up_once_and_repaired_when_it_has_to_be(copy, tmp_path):
    python = script(tmp_path, "python", FAKE)
    log = copy / "log"

    def steps():
        log.write_text("")
        done = make(copy, "data", f"PYTHON={python}")
        return done.returncode == 0, log.read_text().split()

    new, again, nothing = ["venv", "pip", "pip", "run"], ["pip", "pip", "run"], ["run"]
    (copy / "fail").touch()
    assert steps() == (False, ["venv", "pip"])
    (copy / "fail").unlink()
    assert steps() == (True, new)               # after a failure
    assert steps() == (True, nothing)
    newer = (copy / ".venv" / "set-up-in").stat().st_mtime + 10
    os.utime(copy / "requirements.txt", (newer, newer))
    (copy / "fail").touch()
    assert steps() == (False, ["pip"])          # an update that fails does not leave the old stamp
    (copy / "fail").unlink()
    os.utime(copy / "requirements.txt", (0, 0))
    assert steps() == (True, new)
    os.utime(copy / "requirements.txt", (newer, newer))
    assert steps() == (True, again)
    os.utime(copy / "requirements.txt", (0, 0))
    (copy / ".venv" / "set-up-in").unlink()
    assert steps() == (True, new)
    (copy / ".venv" / "bin" / "python").unlink()
    assert steps() == (True, new)
    (copy / ".venv" / "set-up-in").write_text("/the/folder/before/it/was/moved\n")
    assert steps() == (True, new)
    assert steps() == (True, nothing)


def test_what_the_caller_has_set_for_python_does_not_reach_it(copy, tmp_path):
    refuses = 'case "$*" in *-E*) ;; *) [ -z "$PYTHONHOME$PIP_TARGET" ] || exit 1 ;; esac\n'
    python = script(tmp_path, "python", refuses + FAKE)
    for expected in (["venv", "pip", "pip", "run"], ["run"]):
        (copy / "log").write_text("")
        done = make(copy, "data", f"PYTHON={python}", PYTHONHOME="/nowhere", PIP_TARGET="elsewhere")
        assert done.returncode == 0
        assert (copy / "log").read_text().split() == expected


# Each would change what is computed, drawn, printed or tested, or stop it.
CALLERS = {
    "MPLBACKEND": "TkAgg", "PYTHONPATH": "elsewhere", "PYTHONHOME": "/nowhere", "PYTHONSTARTUP": "start.py",
    "PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2", "PYTHONHASHSEED": "7", "PYTHONSAFEPATH": "1",
    "PYTEST_ADDOPTS": "-x", "PYTEST_PLUGINS": "none", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "IPYTHON_CONFIG": "/nowhere", "JUPYTER_PATH": "/nowhere", "JUPYTER_CONFIG_DIR": "/nowhere",
    "JUPYTER_CONFIG_PATH": "/nowhere", "JUPYTER_DATA_DIR": "/nowhere", "TORCH_LOGS": "all", "TORCHDYNAMO_DISABLE": "1",
    "PYTORCH_JIT": "0", "NPY_DISABLE_CPU_FEATURES": "AVX2", "SCIPY_ARRAY_API": "1", "SKLEARN_ASSUME_FINITE": "1",
    "TQDM_DISABLE": "1", "PIP_TARGET": "elsewhere",
    "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_PORT": "1",
}
OURS_INSTEAD = {"MATPLOTLIBRC": "/r", "IPYTHONDIR": "/nowhere", "PYTHONNOUSERSITE": "", "JUPYTER_PREFER_ENV_PATH": "0"}
REACH = {
    "DIFFUREC_DATA_DIR": "/data", "DIFFUREC_CACHE_DIR": "/cache", "OMP_NUM_THREADS": "3", "GOMP_SPINCOUNT": "0",
    "MKL_NUM_THREADS": "3", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "CUDA_VISIBLE_DEVICES": "1",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "JUPYTER_RUNTIME_DIR": "/run", "MPLCONFIGDIR": "/fonts",
}


@pytest.fixture
def reached(copy, tmp_path):
    """The environment in which a target's program runs, from that of make."""
    python = script(tmp_path, "python", FAKE.replace("echo run >> log", "env > seen"))

    def run(**environment):
        done = make(copy, "report", f"PYTHON={python}", **environment)
        assert done.returncode == 0, done.stderr
        return dict(line.split("=", 1) for line in (copy / "seen").read_text().splitlines() if "=" in line)

    return run


def test_only_what_is_named_there_reaches_the_programs(reached, copy):
    seen = reached(**CALLERS, **OURS_INSTEAD, **REACH)
    assert not CALLERS.keys() & seen.keys()
    assert {name: seen[name] for name in REACH} == REACH
    assert {name: seen[name] for name in OURS_INSTEAD} == {
        "MATPLOTLIBRC": "/dev/null", "IPYTHONDIR": str(copy / ".venv" / "ipython"),
        "PYTHONNOUSERSITE": "1", "JUPYTER_PREFER_ENV_PATH": "1"}


def test_waiting_threads_sleep_unless_the_caller_says_otherwise(reached, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert reached()["OMP_WAIT_POLICY"] == "passive"
    assert reached(OMP_WAIT_POLICY="active")["OMP_WAIT_POLICY"] == "active"


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP says what it has read")
def test_the_openmp_of_torch_heeds_it():
    done = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "OMP_WAIT_POLICY": "passive", "OMP_DISPLAY_ENV": "verbose"})
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr and "GOMP_SPINCOUNT = '0'" in done.stderr


def test_matplotlib_reads_an_empty_file_instead_of_the_callers(tmp_path):
    (tmp_path / "matplotlibrc").write_text("figure.dpi: 7\n")
    show = "import matplotlib; print(matplotlib.rcParams['figure.dpi'])"
    outer = {key: value for key, value in os.environ.items() if key != "MATPLOTLIBRC"}
    for rc, dpi in (({}, "7.0"), ({"MATPLOTLIBRC": os.devnull}, "100.0")):
        done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, timeout=120,
                              env={**outer, "MPLCONFIGDIR": str(tmp_path), **rc})
        assert (done.stdout.strip(), done.stderr) == (dpi, "")


PARTS = FAKE.replace('*"-m diffurec"*', """*test_fast*) echo fast >> log; env > seen; [ ! -e red ] ;;
*notebook_figures*) echo figures >> log; [ ! -e unreadable ] ;;
*nbval*) echo notebooks >> log; echo "$*" > compared; [ ! -e stale ] ;;
*"pytest -q"*) echo tests >> log; [ ! -e red ] ;;
*get_cpu_capability*) echo capability >> log; [ ! -e disobedient ] ;;
*"-m diffurec"*""")


@pytest.fixture
def parts(copy, tmp_path):
    """A target's success and which parts ran, when the file named here makes one of them fail."""
    python = script(tmp_path, "python", PARTS)
    (copy / "notebooks").mkdir()

    def run(target, failing="nothing"):
        (copy / "log").write_text("")
        (copy / failing).touch()
        done = make(copy, target, f"PYTHON={python}")
        (copy / failing).unlink()
        log = (copy / "log").read_text().split()
        return done.returncode == 0, log[log.index("run") + 1:]

    return run


def test_all_parts_of_the_tests_run_and_each_fails_the_whole(parts):
    every = ["tests", "notebooks", "notebooks", "figures"]
    assert parts("test") == (True, every)
    for failing in ("red", "stale", "unreadable"):
        assert parts("test", failing) == (False, every)


def test_some_notebooks_are_repeated_without_avx512_and_train_there(parts, copy):
    every = ["capability", "fast", "notebooks"]
    (copy / "runs" / "avx2" / "runs" / "tutorial").mkdir(parents=True)      # what was trained before is not taken
    assert parts("test-avx2") == (True, every)
    assert not (copy / "runs" / "avx2" / "runs").exists()
    assert {"ATEN_CPU_CAPABILITY=avx2", "ONEDNN_MAX_CPU_ISA=AVX2", "MKL_ENABLE_INSTRUCTIONS=AVX2"} <= set(
        (copy / "seen").read_text().splitlines())
    compared = [word for word in (copy / "compared").read_text().split() if word.endswith(".ipynb")]
    assert compared and all((ROOT / word.removeprefix("runs/avx2/")).is_file() for word in compared)
    for failing in ("red", "stale"):
        assert parts("test-avx2", failing) == (False, every)
    assert parts("test-avx2", "disobedient") == (False, ["capability"])


def test_ci_runs_the_tests_on_both_kinds_of_processor():
    run = ROOT / ".ci" / "run"
    assert os.access(run, os.X_OK)
    assert run.read_text().splitlines()[1] == "set -euo pipefail"
    *_, set_up, _, last = run.read_text().splitlines()
    assert set_up == "make data" and "--keep-going" in last         # set up once, before two would
    assert last.split()[-4:] == ["test", "lint", "site", "test-avx2"]


def sanitized(text):
    # nbval's own way of reading the file and of applying it
    pairs = re.findall("^regex: (.*)$\n^replace: (.*)$", (ROOT / "notebooks" / "sanitize.cfg").read_text(), re.M)
    for pattern, replacement in pairs:
        text = re.sub(pattern, replacement, text)
    return text


@pytest.mark.parametrize("text, expected", [
    ("took 12.3 s, then 1.2 min and 45 ms", "took DURATION, then DURATION and DURATION"),
    ("<object at 0x7f3a2c1d0e50>", "<object at ADDRESS>"), ("on 2026-11-24 at 03:45", "on DATE at 03:45"),
    ("on 2026-11-24T03:45:00.5", "on DATE"), ("/home/me/diffurec/data/a.npz", "PATH/a.npz"),
    ("HR@10 11.0 %, NDCG@10 / 5.6 %, 16 epochs, 20 steps", "HR@10 11.0 %, NDCG@10 / 5.6 %, 16 epochs, 20 steps"),
    ("<td>1</td></tr>", "<td>1</td></tr>"), ("1/2/3 and data/cache/a", "1/2/3 and data/cache/a"),
])
def test_what_is_replaced_before_outputs_are_compared(text, expected):
    assert sanitized(text) == expected


# The notebooks as they are committed

@pytest.mark.parametrize("path", [*NOTEBOOKS, *DOCS], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_notebook_is_committed_as_run_from_top_to_bottom(path):
    assert path.stat().st_size <= 300_000
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
             if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    home = re.search(r"(?<![\w.])/(home|Users|root|tmp|private|mnt|workspace|content)/[\w.-]+", json.dumps(outputs))
    assert home is None, f"an output shows a path of the machine it ran on: {home[0]}"
    assert str(ROOT) not in json.dumps(outputs)


# A misspelt one does nothing.
TAGS = {"trained", "parameters", "nbval-ignore-output", "movielens", "widget", "remove-cell", "hide-input"}


@pytest.mark.parametrize("path", [*NOTEBOOKS, *DOCS], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_tag_of_a_cell_is_one_that_means_something(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert {tag for cell in cells for tag in cell["metadata"].get("tags", ())} <= TAGS


TUTORIAL = [path for path in NOTEBOOKS if path.parent == ROOT / "notebooks"]
SOLUTIONS = [path for path in NOTEBOOKS if path.parent == ROOT / "notebooks" / "solutions"]


def markdown(path):
    """The prose of a notebook, one text a cell, or of a page."""
    if path.suffix == ".md":
        return [path.read_text(encoding="utf-8")]
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "data" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS, *DOCS],
                         ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(path):
    links = re.findall(r"\]\(([^)\s]+)\)", "\n".join(markdown(path)))
    missing = [link for link in links if not re.match(r"https?:|mailto:|#", link)
               and not (path.parent / link.split("#")[0]).exists()]
    assert not missing


@cache
def runs_of(grid):
    return read_results(ROOT / "reports" / grid)[0]


def of_seeds(grid, dataset, variant="baseline", settings=None):
    """{seed: result} of the runs of a grid, at all settings or at those named."""
    return {run["seed"]: run for run in runs_of(grid)
            if (run["data"]["name"], run["parameters"]["variant"]) == (dataset, variant)
            and settings in (None, run["parameters"]["settings"])}


def changed_by(mine, base, metric, split="test"):
    """(`crossed_test` of the runs minus the baseline's of the same seeds, in percentage points; it as the README writes it)."""
    seeds, apart = paired_by_seed(mine, base, metric, split)
    found = crossed_test(100 * apart)
    return found, f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}] ({len(seeds)} seeds)"


def ndcg_at_10(result, model="trained model"):
    return 100 * result["metrics"]["test"][model]["NDCG@10"][0]


def readme():
    return " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


@pytest.mark.parametrize("dataset, grid", [
    ("ml-100k", "baselines-small"), ("amazon-beauty", "baselines-paper"), ("amazon-toys", "baselines-paper")])
def test_the_readme_says_of_the_diffusion_what_the_result_files_say(dataset, grid):
    change, said = changed_by(of_seeds(grid, dataset, "without-diffusion"), of_seeds(grid, dataset), "NDCG@10")
    assert change.low < 0 < change.high                                          # "not told apart"
    assert f"{dataset} {said}" in readme().replace("−", "-")


def test_the_readme_says_of_ml_1m_what_the_result_files_say():
    without, base = (of_seeds("baselines-paper", "ml-1m", variant) for variant in ("without-diffusion", "baseline"))
    test, validation = (changed_by(without, base, "NDCG@10", split) for split in ("test", "validation"))
    assert test[0].high < 0 and validation[0].low < 0 < validation[0].high       # "behind" and "level"
    assert f"behind on the test, by {test[1]}, and level on validation, {validation[1]}" in readme().replace("−", "-")


def test_the_readme_says_of_the_tuned_rivals_what_the_result_files_say():
    base, sasrec, gru4rec = (of_seeds("baselines-tuned", "ml-100k", variant) for variant in ("baseline", "sasrec", "gru4rec"))
    ahead = [changed_by(rival, base, "NDCG@10") for rival in (sasrec, gru4rec)]
    reached = [ndcg_at_10(run) for run in gru4rec.values()]
    mean_sd = f"{statistics.mean(reached):.2f} ± {statistics.stdev(reached):.2f}"
    counted = json.loads((ROOT / "reports" / "counting" / "ml-100k.json").read_text())
    assert min(found.low for found, _ in ahead) > 0 and counted["chosen"]["model"] == "NearestItems"
    assert (f"SASRec changes DiffuRec's number by {ahead[0][1]}, GRU4Rec by {ahead[1][1]}, to {mean_sd}. "
            f"Nearest items, which only count, have {ndcg_at_10(counted, 'best counting'):.2f}.") in readme()


def test_the_readme_says_of_the_extensions_what_the_result_files_say():
    table = pandas.read_csv(ROOT / "data" / "published.csv").query("split == 'test' and kind == 'published'")
    table = table.pivot(index="dataset", columns="model", values="NDCG@10")
    said, printed, across = [], [], []
    for dataset, (variant, name) in product(("amazon-beauty", "amazon-toys"), (
            ("cross-attention", "DiffuRec + cross-attention (V1)"), ("diffurecsys", "DiffuRecSys (V2)"))):
        mine, base = (of_seeds("paper-causal", dataset, v, "zolghadr2024") for v in (variant, "baseline"))
        change, text = changed_by(mine, base, "NDCG@10")
        said.append(text)
        printed.append(table.loc[dataset, name] - table.loc[dataset, "DiffuRec"])
        validated = statistics.mean(run["metrics"]["validation"]["trained model"]["NDCG@10"][0] for run in mine.values())
        tested = statistics.mean(ndcg_at_10(run) for run in of_seeds("paper-causal", dataset, "baseline", "li2023").values())
        across.append(100 * validated - tested)
        assert change.mean < 0 and change.high < 0.1                             # "nor"
    for variant in ("baseline", "cross-attention"):                              # "not above the test"
        on_ml_1m = [run["metrics"] for run in of_seeds("paper-causal", "ml-1m", variant, "li2023").values()]
        validated, tested = (statistics.mean(of_run[split]["trained model"]["NDCG@10"][0] for of_run in on_ml_1m)
                             for split in ("validation", "test"))
        assert validated < tested
    changes = []
    for dataset, settings in product(("amazon-beauty", "amazon-toys"), ("li2023", "zolghadr2024")):
        offset, base = (of_seeds("paper-causal", dataset, variant, settings) for variant in ("offset-noise", "baseline"))
        change, text = changed_by(offset, base, "NDCG@10")
        changes.append(change.mean)
        assert text.endswith("(5 seeds)")
    assert (f"by {said[0]} on amazon-beauty and by {said[2]} on amazon-toys. With offset noise as well, which makes "
            f"DiffuRecSys, it is {said[1]} and {said[3]}. Published are {min(printed):+.2f} to {max(printed):+.2f}, over a "
            f"baseline at other settings. Our *validation* of the two lies {min(across):.2f} to {max(across):.2f} above our "
            "*test* of that baseline; not so on ml-1m, where our validation is not above our test."
            ) in readme().replace("−", "-")
    assert (f"Offset noise alone changes the number by {min(changes):+.2f} to {max(changes):+.2f} on the Amazon sets (5 seeds)."
            in readme().replace("−", "-"))


def test_the_runs_that_two_grids_share_are_the_same():
    shared = sorted((ROOT / "reports" / "paper-causal").glob("*_li2023_baseline_*.json"))
    others = [ROOT / "reports" / "baselines-paper" / path.name.replace("_li2023", "") for path in shared]
    assert shared and [path.read_bytes() for path in shared] == [path.read_bytes() for path in others]


def test_the_readme_says_of_the_dropouts_what_the_result_files_say():
    with_22, with_10 = of_seeds("released-code", "amazon-beauty"), of_seeds("baselines-paper", "amazon-beauty")
    assert all(setup(with_22[seed]) == setup(with_10[seed]) | {"dropout_everywhere": True} for seed in with_22)
    hr, said = changed_by(with_22, with_10, "HR@10")
    table = pandas.read_csv(ROOT / "data" / "published.csv").query(
        "dataset == 'amazon-beauty' and model == 'DiffuRec' and split == 'test' and kind == 'published'").iloc[0]
    assert hr.low > 0
    reached = {metric: [100 * run["metrics"]["test"]["trained model"][metric][0] for run in with_22.values()]
               for metric in ("HR@10", "NDCG@10")}
    mean_sd = {metric: f"{statistics.mean(v):.2f} ± {statistics.stdev(v):.2f}" for metric, v in reached.items()}
    assert (f"HR@10 on amazon-beauty by {said} to {mean_sd['HR@10']}, where {table['HR@10']} is published; "
            f"NDCG@10 stays at {mean_sd['NDCG@10']}, where {table['NDCG@10']} is") in readme()


@pytest.mark.parametrize("dataset, files, sentences", [
    ("amazon-toys", "published/amazon-toys_*",
     ["has {counting}; DiffuRec", "with five seeds, {model}, and {published} is published"]),
    ("ml-1m", "baselines-paper/ml-1m_baseline_*",
     ["three seeds, has {model}, and SASRec at the same settings {sasrec}.",
      "counting has {counting}, a public log of the released code {rerun}, and {published} is"])])
def test_the_readme_says_of_accuracy_what_the_result_files_say(dataset, files, sentences):
    ndcg, sasrec = ([ndcg_at_10(json.loads(path.read_text())) for path in (ROOT / "reports").glob(f"{found}.json")]
                    for found in (files, files.replace("_baseline_", "_sasrec_")))
    counted = json.loads((ROOT / "reports" / "counting" / f"{dataset}.json").read_text())
    table = pandas.read_csv(ROOT / "data" / "published.csv").query(
        "dataset == @dataset and model == 'DiffuRec' and split == 'test'").groupby("kind")["NDCG@10"].first()
    numbers = {"model": f"{statistics.mean(ndcg):.2f} ± {statistics.stdev(ndcg):.2f}",
               "sasrec": f"{statistics.mean(sasrec):.2f} ± {statistics.stdev(sasrec):.2f}", "published": table["published"],
               "rerun": table["rerun by others"], "counting": f"{ndcg_at_10(counted, 'best counting'):.2f}"}
    assert len(ndcg) == len(sasrec) == {"amazon-toys": 5, "ml-1m": 3}[dataset] and len(counted["trials"]) == 52
    assert dataset == "ml-1m" or (counted["chosen"]["model"], counted["chosen"]["length"]) == ("MarkovChain", 4)
    assert all(sentence.format(**numbers) in readme() for sentence in sentences)


@pytest.mark.parametrize("variant", ["baseline", "without-diffusion", "sasrec", "gru4rec"])
def test_the_tuned_grid_has_the_settings_that_validation_chose(variant):
    trials = [run for run in read_results(ROOT / "reports" / "search-small")[0] if run["parameters"]["variant"] == variant]
    best = max(trials, key=lambda run: run["metrics"]["validation"]["trained model"]["NDCG@10"][0])
    chosen = read_grid("baselines-tuned").special[variant]
    assert len(trials) == 16 and chosen == {name: best["parameters"][name] for name in chosen} and len(chosen) == 4


def test_the_readmes_drawing_is_what_the_program_draws(tmp_path):
    drawn = tmp_path / "model.svg"
    subprocess.run([sys.executable, ROOT / "notebooks" / "diagrams.py", drawn], check=True,
                   env={**os.environ, "MPLBACKEND": "agg"})
    assert drawn.read_bytes() == (ROOT / "docs" / "model.svg").read_bytes(), "python notebooks/diagrams.py docs/model.svg"


@pytest.mark.parametrize("path", TUTORIAL, ids=lambda path: path.name)
def test_a_notebook_of_the_tutorial_opens_and_closes_as_all_do(path):
    first, *_, last = markdown(path)
    number = TUTORIAL.index(path)
    neighbours = [other.name for other in TUTORIAL[max(0, number - 1):number + 2] if other != path]
    assert first.startswith(f"# {number + 1}. ")
    for name in neighbours:
        assert f"({name})" in first and f"({name})" in last
    assert "**What you will build" in first and "**Runtime" in first
    assert f"(solutions/{path.name})" in "\n".join(markdown(path))


def test_every_notebook_of_the_tutorial_has_its_solutions():
    assert [path.name for path in SOLUTIONS] == [path.name for path in TUTORIAL]


# A user's own runs, which git ignores, may show titles: reports/quickstart.ipynb does after `make report`.
OTHERS = [ROOT / name for name in subprocess.run(
    ["git", "ls-files", "reports/*.ipynb"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()]


@pytest.mark.parametrize("path", [*NOTEBOOKS, *DOCS, *OTHERS], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_film_title_is_in_an_output(path):
    """MovieLens may not be redistributed. (A title without its year is too often a word of English.)"""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    shown = json.dumps([cell["outputs"] for cell in cells if cell["cell_type"] == "code"], ensure_ascii=False)
    titles = [title for title in load_dataset("ml-100k").titles if re.search(r"\(\d{4}\)$", title)]
    assert len(titles) > 1_600
    assert not [title for title in titles if title in shown]


def test_binder_installs_the_same_pins():
    """repo2docker reads these files: the pins, the Python, and what is run in the repository at last."""
    binder = ROOT / ".binder"
    assert {path.name for path in binder.iterdir()} == {"requirements.txt", "runtime.txt", "postBuild"}
    assert (binder / "requirements.txt").read_text() == "-r ../requirements.txt\n"
    python = (binder / "runtime.txt").read_text().strip().removeprefix("python-")
    assert f"python={python}" in "\n".join(line for line in (ROOT / "environment.yml").read_text().splitlines())
    long_form = "python -m pip install --no-deps --no-build-isolation -e ."
    assert long_form in (binder / "postBuild").read_text() and long_form in (ROOT / "README.md").read_text()
    assert os.access(binder / "postBuild", os.X_OK)
