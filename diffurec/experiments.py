"""Runs the experiment notebook once for every cell of a grid and keeps each run as a notebook, a page and its numbers.

    python -m diffurec.experiments GRID --out DIR [--data-dir DIR] [--device auto]

GRID names a file in notebooks/experiments/grids (without .toml) or is the path of one:

    title = "..."
    [parameters]            # the same for every cell
    epochs = 16
    [axes]                  # optional: the cells are the product of these lists, in this order
    seed = [0, 1, 2]

A cell is DIR/CELL.ipynb, .json and .html, in this order: it is finished when its .json is there, and of a finished cell
that lacks its page only the page is made. Launching again skips the finished cells, and the others go on from their
checkpoints. Everything is checked before anything runs.
"""

import argparse
import ast
import difflib
import fcntl
import itertools
import json
import logging
import os
import re
import signal
import sys
import time
import tomllib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError

from .html import export_html

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "experiments" / "train.ipynb"
GRIDS = ROOT / "notebooks" / "experiments" / "grids"
WHERE = ("data_dir", "device", "result", "checkpoint")      # say where a run happens, not what it is: none is in a grid


class LaunchError(Exception):
    """A launch that is refused before anything runs; the message says what is wrong and what to do."""


class CellError(Exception):
    """A cell that ran and did not finish; the message says why."""


class CellBusy(Exception):
    """Another launch is running this cell."""


@dataclass(frozen=True)
class Cell:
    """One run of the notebook. given: the grid's parameters; all: with the notebook's defaults, without WHERE."""

    name: str
    given: dict
    all: dict
    out: Path
    checkpoint: Path

    def file(self, ending):
        return self.out / (self.name + ending)


def read_parameters(notebook):
    """The parameters of a notebook and their defaults, from its cell tagged `parameters`; LaunchError without one.

    papermill's own reading is by line, and misses a line with a second "=", in a comment for example.
    """
    try:
        cells = nbformat.read(notebook, as_version=4).cells
        source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", ()))
        pairs = [(s.target if isinstance(s, ast.AnnAssign) else s.targets[0], s.value) for s in ast.parse(source).body]
        defaults = {target.id: ast.literal_eval(value) for target, value in pairs}
    except OSError as error:
        raise LaunchError(f"The notebook {notebook} cannot be read ({error.strerror}); restore it.") from error
    except StopIteration:
        raise LaunchError(f"{notebook} has no cell tagged 'parameters'; tag the one that holds them.") from None
    except (SyntaxError, ValueError, TypeError, AttributeError) as error:
        raise LaunchError(f"The parameters of {notebook} cannot be read ({error}); its cell tagged 'parameters' must "
                          "hold lines of NAME = LITERAL only.") from error
    missing = [name for name in ("device", "result", "checkpoint") if name not in defaults]
    if missing:
        raise LaunchError(f"{notebook} does not take {', '.join(missing)}, which the launcher sets; add to its cell "
                          "tagged 'parameters'.")
    return defaults


def read_grid(grid, folder=GRIDS):
    """(name, title, parameters, axes) of a grid, by its name in the folder or by its path; LaunchError."""
    path = Path(grid) if str(grid).endswith(".toml") else folder / f"{grid}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        raise LaunchError(f"There is no grid {str(grid)!r}; take one of {known}, or give the path of a .toml file.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LaunchError(f"{path} cannot be read as TOML ({error}); correct it.") from error
    expected = {"title": str, "parameters": dict, "axes": dict}
    for key, value in content.items():
        if key not in expected:
            raise LaunchError(f"{path} holds {key!r}; a grid has title, [parameters] and [axes] only.")
        if not isinstance(value, expected[key]):
            form = "a string" if key == "title" else f"a table, [{key}]"
            raise LaunchError(f"In {path}, {key} must be {form}.")
    return path.stem, content.get("title", path.stem), content.get("parameters", {}), content.get("axes", {})


def expand(grid, defaults, out, root):
    """The cells of a grid (from read_grid) for a notebook with these defaults; LaunchError if they do not fit."""
    grid_name, _, parameters, axes = grid
    for axis, values in axes.items():
        if axis in parameters:
            raise LaunchError(f"{grid_name}: {axis} is both in [parameters] and an axis; keep one of the two.")
        if not isinstance(values, list) or not values:
            raise LaunchError(f"{grid_name}: the axis {axis} must be a list of one value or more.")
    for name, value in [*parameters.items(), *((axis, value) for axis, values in axes.items() for value in values)]:
        _check_parameter(grid_name, name, value, defaults)
    cells = {}
    for values in itertools.product(*axes.values()):
        given = {**parameters, **dict(zip(axes, values))}
        parts = [v if isinstance(v, str) else f"{axis}-{v}" for axis, v in zip(axes, values)] or [grid_name]
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(parts)).strip(".-")
        if not name:
            raise LaunchError(f"{grid_name}: no file can be named after {values}; change the axes.")
        if name.lower() in cells:
            raise LaunchError(f"{grid_name}: two cells would be named {name}; give the axes other values.")
        everything = {key: value for key, value in {**defaults, **given}.items() if key not in WHERE}
        cells[name.lower()] = Cell(name, given, everything, out, _checkpoints(out, root) / name)
    return list(cells.values())


def _check_parameter(grid, name, value, defaults):
    if name in WHERE:
        raise LaunchError(f"{grid}: {name} is set by the launcher and its options; take it out of the grid.")
    if name not in defaults:
        known = [key for key in defaults if key not in WHERE]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise LaunchError(f"{grid}: the notebook has no parameter {name}{hint}; it takes {', '.join(known)}.")
    wanted, found = type(defaults[name]), type(value)
    if not (wanted is type(None) or found is wanted or (wanted is float and found is int)):
        raise LaunchError(f"{grid}: {name} = {value!r} is of type {found.__name__}, and the notebook takes "
                          f"{wanted.__name__}, like {defaults[name]!r}.")


def _checkpoints(out, root):
    """runs/OUT for an output below the repository, where git ignores it; beside the output otherwise."""
    if out.is_relative_to(root):
        return root / "runs" / ("__".join(out.relative_to(root).parts) or "__")
    return out / ".runs"


def check_writable(directory):
    """Creates the directory and proves that something can be written to it; LaunchError if not."""
    probe = directory / ".writable"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.write_text("one line, because an empty file can be made on a full disk\n")
        probe.unlink()
    except OSError as error:
        raise LaunchError(f"Cannot write to {directory} ({error.strerror}); choose a directory that can be written to, "
                          "with space left.") from error


def first_difference(result, cell):
    """The first parameter in which a result file differs from the cell, as "seed = 1, not 0"; None if it is the cell's.

    ValueError, KeyError, TypeError, OSError: the file is no result.
    """
    recorded = dict(json.loads(result.read_text(encoding="utf-8"))["parameters"])
    for name, value in json.loads(json.dumps(cell.all)).items():
        if name not in recorded:
            return f"no {name}, not {value!r}"
        if recorded[name] != value:
            return f"{name} = {recorded[name]!r}, not {value!r}"
    return None


def is_finished(cell):
    """Whether the cell's notebook and result are there; LaunchError if its .json is of other parameters or damaged."""
    result = cell.file(".json")
    if not result.exists():
        return False
    try:
        difference = first_difference(result, cell)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LaunchError(f"{result} is no whole result; remove it to run {cell.name} again.") from error
    if difference is not None:
        raise LaunchError(f"{result} was made with {difference}; choose another --out, or remove the files of "
                          f"{cell.name} there and {cell.checkpoint}.")
    return cell.file(".ipynb").exists()


@contextmanager
def locked(cell):
    """Holds the cell for this launch, and lets go when the process ends in whatever way; CellBusy if another has it."""
    cell.checkpoint.mkdir(parents=True, exist_ok=True)
    with open(cell.checkpoint / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CellBusy(f"{cell.name} is being run by another launch") from None
        yield


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels with the interpreter that runs this module, whatever "python3" is installed as for the user."""

    @property
    def kernel_spec(self):
        return KernelSpec(**get_kernel_dict())


def run_cell(cell, notebook, root, device):
    """Executes the notebook and puts the cell's notebook and result in place; CellError if it fails."""
    executed, result = cell.file(".partial.ipynb"), cell.file(".partial.json")
    failed = cell.file(".failed.ipynb")
    try:
        result.unlink(missing_ok=True)                      # what is there afterwards was written by this run
        try:
            _execute(cell, notebook, executed, root, {
                "device": device, "result": _below(root, result), "checkpoint": _below(root, cell.checkpoint)})
            _check_result(result, cell)
        except Exception as error:
            reason = _last_line(error)
            with suppress(OSError, ValueError):             # a full disk must not hide why the cell failed
                _tidy(executed)
                executed.replace(failed)
                reason += f" (see {failed})"
            raise CellError(reason) from error
        _tidy(executed)
        executed.replace(cell.file(".ipynb"))
        cell.file(".html").unlink(missing_ok=True)          # that of an earlier run would be taken for this one's
        result.replace(cell.file(".json"))
        failed.unlink(missing_ok=True)
    finally:
        for path in (executed, result):
            path.unlink(missing_ok=True)


def write_page(cell):
    """Makes the page of a finished cell from its notebook."""
    page = cell.file(".partial.html")
    try:
        export_html(cell.file(".ipynb"), page)
        page.replace(cell.file(".html"))
    finally:
        page.unlink(missing_ok=True)


def _execute(cell, notebook, executed, root, where):
    logging.getLogger("papermill").setLevel(logging.CRITICAL)       # what it would say is checked or said here
    literal = str.maketrans({"{": "{{", "}": "}}"})                 # papermill takes paths for format strings
    papermill.execute_notebook(
        str(notebook).translate(literal), str(executed).translate(literal), {**cell.given, **where}, cwd=root,
        kernel_name="python3", language="python", kernel_manager_class=ThisInterpreter, progress_bar=False,
        stdout_file=sys.stdout, stderr_file=sys.stderr, record_timing=False, coalesce_streams=True,
        extra_arguments=["--log-level=50"],                         # the kernel's own log, not what the notebook prints
    )


def _below(root, path):
    """The path as the notebook is given it: relative to the repository, so that it names no machine's directories."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _check_result(result, cell):
    # After the death of a kernel papermill marks every cell completed: only the result tells.
    try:
        difference = first_difference(result, cell)
    except FileNotFoundError:
        raise CellError("The notebook ended without writing its result.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CellError(f"The notebook wrote a result that cannot be read ({error!r}).") from None
    if difference is not None:
        raise CellError(f"The result says that the notebook ran with {difference}.")


def _tidy(path):
    """Takes papermill's absolute paths, its times and its random cell name out of an executed notebook."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell["id"] = "injected-parameters"
    nbformat.write(notebook, path)


def _last_line(error):
    if isinstance(error, papermill.PapermillExecutionError):
        text = f"{error.ename}: {error.evalue.strip().splitlines()[-1]}" if error.evalue.strip() else error.ename
    elif isinstance(error, DeadKernelError):
        text = "The kernel died: it was killed, or memory ran out."
    elif isinstance(error, (CellError, LaunchError)):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return text.strip().splitlines()[-1]            # of a traceback's many, the line that tells most


def run_cells(cells, notebook, root, device):
    """Runs the cells that are not finished, one after another; the exit code: 0, 1 (some failed), 3 (some left out)."""
    todo = [cell for cell in cells if not (is_finished(cell) and cell.file(".html").exists())]
    for cell in cells:
        if cell not in todo:
            _say(f"{cell.name}: skipped, finished before. To run it again delete {cell.file('.json')}; to train it "
                 f"anew also {cell.checkpoint}.")
    start, failed, left = time.monotonic(), [], []
    for number, cell in enumerate(todo, start=1):
        label = f"[{number}/{len(todo)}] {cell.name}:"
        try:
            with locked(cell):
                if not is_finished(cell):
                    _say(f"{label} starts.")
                    run_cell(cell, notebook, root, device)
                elif cell.file(".html").exists():
                    _say(f"{label} skipped, another launch has finished it meanwhile.")
                    continue
                else:
                    _say(f"{label} finished before, only its page is missing.")
                write_page(cell)
            outcome = f"finished, {cell.file('.html')}"
        except CellBusy:
            _say(f"{label} left out, another launch is running it.")
            left.append(cell.name)
            continue
        except Exception as error:
            outcome = f"FAILED. {_last_line(error)}"
            failed.append(cell.name)
        elapsed = time.monotonic() - start
        remaining = elapsed / number * (len(todo) - number)
        _say(f"{label} {outcome}\n{_span(elapsed)} in all, about {_span(remaining)} left.")
    if failed:
        _say(f"{len(failed)} of {len(cells)} failed: {', '.join(failed)}. The same command runs them again.")
    if left:
        _say(f"{len(left)} of {len(cells)} left to another launch: {', '.join(left)}.")
    return 1 if failed else 3 if left else 0


def _say(line):
    print(line, flush=True)


def _span(seconds):
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def main(arguments=None, notebook=NOTEBOOK, grids=GRIDS, root=ROOT):
    """The command line. 0: all finished, 1: a cell failed, 2: refused, 3: left to another launch, 130: interrupted."""
    parser = argparse.ArgumentParser(prog="python -m diffurec.experiments", description="Run a grid of experiments.")
    parser.add_argument("grid", metavar="GRID", help="a file in notebooks/experiments/grids, or a .toml file")
    parser.add_argument("--out", type=Path, required=True, help="directory for CELL.ipynb, CELL.html, CELL.json")
    parser.add_argument("--data-dir", type=Path, help="directory that holds the data sets (as DIFFUREC_DATA_DIR)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    signal.signal(signal.SIGTERM, signal.default_int_handler)       # stops the kernel as Ctrl-C does
    try:
        grid = read_grid(options.grid, grids)
        cells = expand(grid, read_parameters(notebook), out, root)
        if options.data_dir and not options.data_dir.is_dir():
            raise LaunchError(f"--data-dir is {options.data_dir}, but there is no such directory.")
        for cell in cells:
            is_finished(cell)
        check_writable(out)
        check_writable(cells[0].checkpoint.parent)
        if options.data_dir:        # by the environment, not as a parameter: so the notebook names no machine's path
            os.environ["DIFFUREC_DATA_DIR"] = str(options.data_dir.resolve())
        _say(f"{grid[1]} ({len(cells)} {'run' if len(cells) == 1 else 'runs'})")
        return run_cells(cells, notebook, root, options.device)
    except LaunchError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from the last finished epoch.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
