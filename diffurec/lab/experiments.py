"""Runs the experiment notebook once for every cell of a grid and keeps each run as a notebook, a page and its numbers.

    python -m diffurec.experiments GRID --out DIR [--jobs N] [--data-dir DIR] [--device auto] [--report-only]

GRID names a file in notebooks/experiments/grids (without .toml) or is the path of one; grids.py says what it holds.

A cell is DIR/CELL.ipynb, .json and .html, in this order: it is finished when its .json is there, and of a finished cell
that lacks its page only the page is made. Launching again skips the finished cells, and the others go on from their
checkpoints. A result of other parameters, other data or another schema is left as it is, and the launch refused.
Everything is checked before anything runs. At last comes the grid's report, DIR/report.ipynb and .html.

With --jobs N, N cells run at once and share the processor's cores. Sums over other numbers of threads are rounded
otherwise: the last bits of a result can depend on N. kernels.py says which of the caller's variables reach a cell.
"""

import argparse
import fcntl
import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError

from .. import __version__
from ..base.distributed import choose_device
from ..base.files import prove_writable
from ..data import KNOWN, load_interactions
from ..early import INTERRUPTED, loaded
from .grids import (
    GRIDS, ROOT, Cell, LaunchError, check_run, checkpoints, expand, own_file, planned_epochs, read_grid,
    read_parameters,
)
from .kernels import kernel_managers
from .pages import export_html
from .progress import Lines, Progress, show
from .results import file_digest, read_result

NOTEBOOK = ROOT / "notebooks" / "experiments" / "train.ipynb"
REPORT = ROOT / "notebooks" / "experiments" / "report.ipynb"

MOST_PRINTED = 1_000_000    # characters of a notebook's cell that are kept; the notebook is saved after each cell


class CellError(Exception):
    """A cell that ran and did not finish; the message says why."""


class CellBusy(Exception):
    """Another launch is running this cell."""


@dataclass(frozen=True)
class Launch:
    """What the cells of a launch share. kernels: from kernel_managers; labelled: a cell's lines begin with its name."""

    notebook: Path
    root: Path
    device: str
    kernels: type
    progress: Progress
    labelled: bool


def check_writable(directory):
    """Creates the directory and proves that something can be written to it; LaunchError if not."""
    try:
        prove_writable(directory)
    except OSError as error:
        raise LaunchError(f"Cannot write to {directory} ({error.strerror}); choose a directory that can be written to, "
                          "with space left.") from error


def first_difference(result, cell):
    """The first parameter in which a result differs from the cell, as "seed = 1, not 0"; None if it is the cell's."""
    recorded = result["parameters"]
    for name, value in cell.all.items():
        if name not in recorded:
            return f"no {name}, not {value!r}"
        if recorded[name] != value:
            return f"{name} = {recorded[name]!r}, not {value!r}"
    return None


def other_data(seen, dataset):
    """What is other about the data of a result ("data" in its file) than they are now, in words; None if nothing is."""
    file = own_file(dataset)
    if file is None:
        same = dataset not in KNOWN or seen["checksum"] == KNOWN[dataset].checksum
    else:
        try:        # another file can hold the same data, and a result of schema 2 does not know its file
            same = seen.get("file") == file_digest(file) or seen["checksum"] == load_interactions(file).checksum
        except (OSError, ValueError) as error:
            return f"data of the checksum {seen['checksum'][:8]}, which cannot be compared ({error})"
    return None if same else f"other data (checksum {seen['checksum'][:8]}) than {dataset} holds now"


def read_finished(cell):
    """The cell's result, None if there is none; LaunchError if it is damaged, or of other parameters or other data."""
    if not cell.file(".json").exists():
        return None
    try:
        result = read_result(cell.file(".json"))
    except ValueError as error:
        raise LaunchError(f"In {cell.out}, {error} Choose another --out, or move this file elsewhere to run "
                          f"{cell.name} again.") from error
    difference = first_difference(result, cell) or other_data(result["data"], cell.all["dataset"])
    if difference is not None:
        raise LaunchError(f"{cell.file('.json')} was made with {difference}; choose another --out.")
    return result


def is_whole(notebook):
    """Whether a notebook is there and can be read to its end."""
    try:
        nbformat.validate(nbformat.read(notebook, as_version=4))
        return True
    except Exception:       # nbformat raises whatever the content leads it to
        return False


@contextmanager
def locked(cell, wait=False):
    """Holds the cell for this launch until the process ends in whatever way; CellBusy if another has it, or waits."""
    cell.checkpoint.mkdir(parents=True, exist_ok=True)
    with open(cell.checkpoint / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CellBusy(f"{cell.name} is being run by another launch") from None
        yield


@contextmanager
def on_interrupt(stop):
    """Within, Ctrl-C and SIGTERM call `stop` and raise nothing."""
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_cell(cell, launch):
    """Executes the notebook and puts the cell's notebook and result in place; CellError if it fails."""
    result = cell.file(".partial.json")
    where = {"device": launch.device, "result": _below(launch.root, result),
             "checkpoint": _below(launch.root, cell.checkpoint)}
    try:
        result.unlink(missing_ok=True)                      # what is there afterwards was written by this run
        run_notebook(cell, launch.notebook, where, launch, check=lambda: _check_result(result, cell))
        result.replace(cell.file(".json"))
    finally:
        result.unlink(missing_ok=True)


def run_notebook(cell, notebook, where, launch, check=lambda: None):
    """Executes a notebook as the cell's, in place of an earlier one if `check` raises nothing; CellError otherwise."""
    executed, failed = cell.file(".partial.ipynb"), cell.file(".failed.ipynb")
    try:
        try:
            _execute(cell, notebook, executed, where, launch)
            check()
        except Exception as error:
            reason = _last_line(error)
            with suppress(OSError, ValueError):             # a full disk must not hide why the cell failed
                if not launch.kernels.stopped:
                    _tidy(executed)
                    executed.replace(failed)
                    reason += f" (see {failed})"
            raise CellError(reason) from error
        _tidy(executed)
        executed.replace(cell.file(".ipynb"))
        cell.file(".html").unlink(missing_ok=True)          # that of an earlier run would be taken for this one's
        failed.unlink(missing_ok=True)
    finally:
        executed.unlink(missing_ok=True)


def write_page(cell):
    """Makes the page of a finished cell from its notebook."""
    page = cell.file(".partial.html")
    try:
        export_html(cell.file(".ipynb"), page)
        page.replace(cell.file(".html"))
    finally:
        page.unlink(missing_ok=True)


def _execute(cell, notebook, executed, where, launch):
    """Executes a notebook, and once more where its kernel did not start: on a busy machine that happens."""
    try:
        _attempt(cell, notebook, executed, where, launch)
    except Exception as error:
        if launch.kernels.stopped or _began(executed):
            raise
        show(f"{cell.name}: its kernel did not start, one more try. ({_last_line(error)})")
        _attempt(cell, notebook, executed, where, launch)


def _began(executed):
    """Whether a cell of the notebook has begun, or nothing is known of it."""
    try:
        cells = nbformat.read(executed, as_version=4).cells
    except Exception:       # not there or not whole: it is not the kernel that failed
        return True
    return any(cell.metadata.get("papermill", {}).get("start_time") for cell in cells)


def _shorten(cell, **_):
    """Takes from a cell that has just been executed what it printed beyond MOST_PRINTED, and says so in its place."""
    kept, left, beyond = [], MOST_PRINTED, 0
    for output in cell.get("outputs", ()):
        if output.output_type == "stream":
            beyond += max(0, len(output.text) - left)
            output.text = output.text[:left]
            left -= len(output.text)
        if output.output_type != "stream" or output.text:
            kept.append(output)
    if beyond:
        kept.append(nbformat.v4.new_output("stream", name="stdout", text=(
            f"\n[{beyond:,} more characters were printed, which the notebook leaves out.]\n")))
        cell.outputs = kept


def _attempt(cell, notebook, executed, where, launch):
    logging.getLogger("papermill").setLevel(logging.CRITICAL)       # what it would say is checked or said here
    literal = str.maketrans({"{": "{{", "}": "}}"})                 # papermill takes paths for format strings
    label = f"{cell.name}: " if launch.labelled else ""
    printed = Lines(sys.stdout, label, partial(launch.progress.read, cell.name))
    warned = Lines(sys.stderr, label)
    try:
        papermill.execute_notebook(
            str(notebook).translate(literal), str(executed).translate(literal), {**cell.given, **where},
            kernel_name="python3", language="python", kernel_manager_class=launch.kernels, progress_bar=False,
            stdout_file=printed, stderr_file=warned, record_timing=False, coalesce_streams=True,
            resources={"metadata": {"path": str(launch.root)}},     # papermill's cwd would change that of all threads
            extra_arguments=["--log-level=50"],                     # the kernel's own log, not what the notebook prints
            on_cell_executed=_shorten, iopub_timeout=600,         # s to read what a cell printed faster than it is read
        )
    finally:
        printed.close()
        warned.close()


def _below(root, path):
    """The path as the notebook is given it: relative to the repository, so that it names no machine's directories."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _check_result(result, cell):
    # After the death of a kernel papermill marks every cell completed: only the result tells.
    if not result.exists():
        raise CellError("The notebook ended without writing its result.")
    try:
        difference = first_difference(read_result(result), cell)
    except ValueError as error:
        raise CellError(f"The notebook wrote no sound result: {error}") from None
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


def run_cells(cells, launch, jobs):
    """Runs the cells, `jobs` at once; the names of those that failed and of those left to another launch."""
    labels = [f"[{number}/{len(cells)}] {cell.name}:" for number, cell in enumerate(cells, start=1)]
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(partial(_finish, launch), cells, labels))
    return tuple([cell.name for cell, outcome in zip(cells, outcomes) if outcome == wanted]
                 for wanted in ("failed", "left"))


def _finish(launch, cell, label):
    """Runs what a cell lacks, and says so; "finished", "failed", "left" (to another launch) or "stopped"."""
    if launch.kernels.stopped:
        return "stopped"
    try:
        with locked(cell):
            finished = read_finished(cell)
            if finished is None or not is_whole(cell.file(".ipynb")):
                show(f"{label} starts." if finished is None else
                     f"{label} starts again, because its notebook is missing or damaged; its checkpoint is used.")
                run_cell(cell, launch)
            elif not cell.file(".html").exists():
                show(f"{label} finished before, only its page is missing.")
            else:
                launch.progress.end(cell.name)
                show(f"{label} skipped, another launch has finished it meanwhile.")
                return "finished"
            write_page(cell)
        outcome, said = "finished", f"finished, {cell.file('.html')}"
    except CellBusy:
        launch.progress.end(cell.name)
        show(f"{label} left out, another launch is running it.")
        return "left"
    except Exception as error:
        if launch.kernels.stopped:
            return "stopped"
        outcome, said = "failed", f"FAILED. {_last_line(error)}"
    launch.progress.end(cell.name)
    show(f"{label} {said}\n{launch.progress.times()}")
    return outcome


def make_report(grid, out, notebook, launch):
    """Executes the report notebook on the results in `out`, whatever cells are finished; whether it did not fail.

    grid: its name or its path, as on the command line.
    """
    name = _below(launch.root, Path(grid).resolve()) if grid.endswith(".toml") else grid
    cell = Cell("report", {"results": _below(launch.root, out), "grid": name}, {}, out,
                checkpoints(out, launch.root) / "report")
    try:
        with locked(cell, wait=True):       # for the report of another launch, made without what was finished since
            run_notebook(cell, notebook, {}, launch)
            write_page(cell)
    except Exception as error:
        if not launch.kernels.stopped:
            show(f"The report FAILED. {_last_line(error)}")
        return False
    show(f"The report: {cell.file('.html')}")
    return True


def _parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m diffurec.experiments", description="Run a grid of experiments.")
    parser.add_argument("grid", metavar="GRID", help="a file in notebooks/experiments/grids, or a .toml file")
    parser.add_argument("--out", type=Path, required=True, help="directory for CELL.ipynb, CELL.html, CELL.json")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="how many cells run at once (default 1)")
    parser.add_argument("--data-dir", type=Path, help="directory that holds the data sets (as DIFFUREC_DATA_DIR)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--report-only", action="store_true", help="run no cell, make the report of what is there")
    return parser.parse_args(arguments)


def _resolved(options):
    """The output directory as an absolute path; LaunchError if it leads nowhere, or a notebook cannot hold its name."""
    for name, path in (("--out", options.out), ("GRID", options.grid)):
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise LaunchError(f"{name} is {ascii(str(path))}, which is not UTF-8; choose another name.") from None
    try:
        return options.out.resolve()
    except (OSError, RuntimeError) as error:        # RuntimeError up to Python 3.12
        raise LaunchError(f"--out is {options.out}, whose links lead in a circle; choose another directory.") from error


def _check_device(name):
    """LaunchError if the kernels could not train there. Nothing is put on a GPU, which may take one process only."""
    try:
        choose_device(name)
    except ValueError as error:
        raise LaunchError(f"--device: {error}") from error


def _prepare(options, out, notebook, grids, root, report, check):
    """The grid, its cells, their epochs and their results by name, all checked; LaunchError. Makes directories."""
    if options.jobs < 1:
        raise LaunchError(f"--jobs is {options.jobs}, but at least one cell must run at a time.")
    _check_device(options.device)
    grid = read_grid(options.grid, grids)
    cells = expand(grid, read_parameters(notebook, needed=("device", "result", "checkpoint")), out, root)
    if grid.report or options.report_only:
        read_parameters(report, needed=("results", "grid"))
    if options.data_dir and not options.data_dir.is_dir():
        raise LaunchError(f"--data-dir is {options.data_dir}, but there is no such directory.")
    if options.report_only:     # the report itself says what it cannot use
        check_writable(out)
        return grid, cells, {}, {}
    epochs = planned_epochs(grid, cells, check)
    results = {cell.name: read_finished(cell) for cell in cells}
    check_writable(out)
    check_writable(cells[0].checkpoint.parent)
    return grid, cells, epochs, results


def _todo(cells, results):
    """The cells that lack something; what is said of the others."""
    todo = []
    for cell in cells:
        result = results[cell.name]
        if result is None or not cell.file(".html").exists() or not is_whole(cell.file(".ipynb")):
            todo.append(cell)
            continue
        show(f"{cell.name}: skipped, finished before. Another --out runs it again.")
        if (version := result["versions"]["diffurec"]) != __version__:
            show(f"{cell.name}: its result was made by diffurec {version}, and this is {__version__}; the report tells "
                 "them apart.")
    return todo


def main(arguments=None, notebook=NOTEBOOK, grids=GRIDS, root=ROOT, report=REPORT, check=check_run):
    """The command line. check: takes a cell's parameters, returns its ModelConfig and TrainConfig; or a ValueError.

    0: all finished, 1: a cell or the report failed, 2: refused, 3: cells left to another launch, 130: interrupted.
    """
    try:
        options = _parse(arguments)
        out = _resolved(options)
        grid, cells, epochs, results = _prepare(options, out, notebook, grids, root, report, check)
        show(f"{grid.title} ({len(cells)} {'run' if len(cells) == 1 else 'runs'})")
        todo = [] if options.report_only else _todo(cells, results)
        variables = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // options.jobs))} if options.jobs > 1 else {}
        if options.data_dir:        # by the environment, not as a parameter: so the notebook names no machine's path
            variables["DIFFUREC_DATA_DIR"] = str(options.data_dir.resolve())
        progress = Progress({cell.name: epochs[cell.name] for cell in todo})
        launch = Launch(notebook, root, options.device, kernel_managers(variables), progress, len(cells) > 1)
        with on_interrupt(launch.kernels.stop):
            failed, left = run_cells(todo, launch, options.jobs)
            progress.bar.close()
            reported = (grid.report or options.report_only) and not launch.kernels.stopped
            sound = not reported or make_report(options.grid, out, report, launch)
        if launch.kernels.stopped:
            raise KeyboardInterrupt
    except LaunchError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:        # of a cell or the report it is said there
        print(f"{error.filename or 'A file'} cannot be used ({error.strerror}); choose another path.", file=sys.stderr)
        return 2
    except MemoryError:
        print("Memory ran out before anything was run; free some, and launch again.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130
    if failed:
        show(f"{len(failed)} of {len(cells)} failed: {', '.join(failed)}. The same command runs them again.")
    if left:
        show(f"{len(left)} of {len(cells)} left to another launch: {', '.join(left)}.")
    return 1 if failed or not sound else 3 if left else 0


if __name__ == "__main__":
    loaded()
    sys.exit(main())
