"""One run of a grid: its lock, its notebook executed by papermill, its files checked and put in place."""

import base64
import io
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nbformat
import papermill
from filelock import FileLock, Timeout
from nbclient.exceptions import DeadKernelError
from PIL import Image

from ..base import places
from ..data import KNOWN, load_interactions
from .grids import LaunchError, Run
from .kernels import Kernels
from .pages import export_html
from .progress import Lines, Progress, show
from .results import read_result
from .source import READING, file_digest, own_file, reading

MOST_PRINTED = 1_000_000    # characters of a notebook's cell that are kept; the notebook is saved after each cell

Outcome = Literal["finished", "failed", "left", "stopped", "queued"]    # left: to another launch


class RunError(Exception):
    """A run that did not finish; the message says why."""


class RunBusy(Exception):
    """Another launch has this run."""


@dataclass(frozen=True)
class Launch:
    """What the runs of a launch share. labelled: a run's lines begin with its name."""

    device: str
    kernels: Kernels
    progress: Progress
    labelled: bool


def finish(run: Run, label: str, launch: Launch) -> Outcome:
    """Makes what a run lacks, and says so behind the label."""
    if launch.kernels.stopped:
        return "stopped"
    outcome: Outcome
    try:
        with locked(run):
            finished = read_finished(run)
            if finished is None or not is_whole(run.file(".ipynb")):
                show(f"{label} starts." if finished is None else
                     f"{label} starts again, because its notebook is missing or damaged; its checkpoint is used.")
                launch.progress.begin(run.name, run.checkpoint)
                train(run, launch)
            elif not run.file(".html").exists():
                show(f"{label} finished before, only its page is missing.")
            else:
                launch.progress.end(run.name)
                show(f"{label} skipped, another launch has finished it meanwhile.")
                return "finished"
            write_page(run)
        outcome, said = "finished", f"finished, {run.file('.html')}"
    except RunBusy:
        launch.progress.end(run.name)
        show(f"{label} left out, another launch is running it.")
        return "left"
    except Exception as error:
        if launch.kernels.stopped:
            return "stopped"
        outcome, said = "failed", f"FAILED. {last_line(error)}"
    launch.progress.end(run.name)
    show(f"{label} {said}\n{launch.progress.times()}")
    return outcome


@contextmanager
def locked(run: Run, wait: bool = False) -> Iterator[None]:
    """Holds the run for this launch until the process ends in whatever way; RunBusy if another has it, or waits."""
    run.checkpoint.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run.checkpoint / "lock")
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise RunBusy(f"{run.name} is being run by another launch") from None
    try:
        yield
    finally:
        lock.release()


def train(run: Run, launch: Launch) -> None:
    """Executes the notebook and puts the run's notebook and result in place; RunError if it fails."""
    result = run.file(".partial.json")
    where = {"device": launch.device, "result": below_root(result), "checkpoint": below_root(run.checkpoint)}
    try:
        result.unlink(missing_ok=True)                      # what is there afterwards was written by this run
        execute(run, places.NOTEBOOK, where, launch, check=lambda: _check_result(result, run))
        result.replace(run.file(".json"))
    finally:
        result.unlink(missing_ok=True)


def execute(run: Run, notebook: Path, where: Mapping[str, str], launch: Launch,
            check: Callable[[], None] = lambda: None) -> None:
    """Executes a notebook as the run's, in place of an earlier one if `check` raises nothing; RunError otherwise."""
    executed, failed = run.file(".partial.ipynb"), run.file(".failed.ipynb")
    try:
        try:
            _with_second_try(run, notebook, executed, where, launch)
            check()
        except Exception as error:
            if isinstance(error, DeadKernelError):
                time.sleep(1)       # what ends a whole job, kernel and launch, may reach the launch a moment later
            reason = last_line(error)
            with suppress(OSError, ValueError):             # a full disk must not hide why the run failed
                if not launch.kernels.stopped:
                    _tidy(executed)
                    executed.replace(failed)
                    reason += f" (see {failed})"
            raise RunError(reason) from error
        _tidy(executed)
        executed.replace(run.file(".ipynb"))
        run.file(".html").unlink(missing_ok=True)           # that of an earlier run would be taken for this one's
        failed.unlink(missing_ok=True)
    finally:
        executed.unlink(missing_ok=True)


def write_page(run: Run) -> None:
    """Makes the page of a finished run from its notebook."""
    page = run.file(".partial.html")
    try:
        export_html(run.file(".ipynb"), page)
        page.replace(run.file(".html"))
    finally:
        page.unlink(missing_ok=True)


def read_finished(run: Run) -> dict[str, Any] | None:
    """The run's result, None if there is none; LaunchError if it is damaged, or of other parameters or other data."""
    if not run.file(".json").exists():
        return None
    try:
        result = read_result(run.file(".json"))
    except ValueError as error:
        raise LaunchError(f"In {run.out}, {error} Choose another --out, or move this file elsewhere to run "
                          f"{run.name} again.") from error
    difference = first_difference(result, run) or other_data(result["data"], run.parameters)
    if difference is not None:
        raise LaunchError(f"{run.file('.json')} was made with {difference}; choose another --out.")
    return result


def first_difference(result: Mapping[str, Any], run: Run) -> str | None:
    """The first parameter in which a result differs from the run, as "seed = 1, not 0"; None if it is the run's."""
    recorded = READING | result["parameters"]
    for name, value in run.parameters.items():
        if name not in recorded and value is not None:      # None: as the settings have it, before there was a choice too
            return f"no {name}, not {value!r}"
        if recorded.get(name) != value:
            return f"{name} = {recorded.get(name)!r}, not {value!r}"
    return None


def other_data(seen: Mapping[str, Any], parameters: Mapping[str, Any]) -> str | None:
    """What is other about the data of a result ("data" in its file) than they are now, in words; None if nothing is."""
    dataset = parameters["dataset"]
    file = own_file(dataset)
    if file is None:
        same = dataset not in KNOWN or seen["checksum"] == KNOWN[dataset].checksum
    else:
        try:        # another file can hold the same data, and a result of schema 2 does not know its file
            same = (seen.get("file") == file_digest(file)
                    or seen["checksum"] == load_interactions(file, **reading(parameters)).checksum)
        except (OSError, ValueError) as error:
            return f"data of the checksum {seen['checksum'][:8]}, which cannot be compared ({error})"
    return None if same else f"other data (checksum {seen['checksum'][:8]}) than {dataset} holds now"


def is_whole(notebook: Path) -> bool:
    """Whether a notebook is there and can be read to its end."""
    try:
        nbformat.validate(nbformat.read(notebook, as_version=4))
        return True
    except Exception:       # nbformat raises whatever the content leads it to
        return False


def below_root(path: Path) -> str:
    """The path as a notebook is given it: relative to ROOT below it, so that it names no machine's directories."""
    return str(path.relative_to(places.ROOT) if path.is_relative_to(places.ROOT) else path)


def last_line(error: Exception) -> str:
    """Why a notebook failed, in one line."""
    if isinstance(error, papermill.PapermillExecutionError):
        text = f"{error.ename}: {error.evalue.strip().splitlines()[-1]}" if error.evalue.strip() else error.ename
    elif isinstance(error, DeadKernelError):
        text = "The kernel died: it was killed, or memory ran out."
    elif isinstance(error, (RunError, LaunchError)):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return text.strip().splitlines()[-1]            # of a traceback's many, the line that tells most


def _with_second_try(run: Run, notebook: Path, executed: Path, where: Mapping[str, str], launch: Launch) -> None:
    """Executes a notebook, and once more where its kernel did not start: on a busy machine that happens."""
    try:
        _attempt(run, notebook, executed, where, launch)
    except Exception as error:
        if launch.kernels.stopped or _began(executed):
            raise
        show(f"{run.name}: its kernel did not start, one more try. ({last_line(error)})")
        _attempt(run, notebook, executed, where, launch)


def _attempt(run: Run, notebook: Path, executed: Path, where: Mapping[str, str], launch: Launch) -> None:
    logging.getLogger("papermill").setLevel(logging.CRITICAL)       # what it would say is checked or said here
    literal = str.maketrans({"{": "{{", "}": "}}"})                 # papermill takes paths for format strings
    label = f"{run.name}: " if launch.labelled else ""
    printed, warned = Lines(sys.stdout, label), Lines(sys.stderr, label)
    try:
        papermill.execute_notebook(
            str(notebook).translate(literal), str(executed).translate(literal), {**run.given, **where},
            kernel_name="python3", language="python", kernel_manager_class=launch.kernels.manager, progress_bar=False,
            stdout_file=printed, stderr_file=warned, record_timing=False, coalesce_streams=True,
            resources={"metadata": {"path": str(places.ROOT)}},     # papermill's cwd would change that of all threads
            extra_arguments=["--log-level=50"],                     # the kernel's own log, not what the notebook prints
            on_cell_executed=_shorten, iopub_timeout=600,         # s to read what a cell printed faster than it is read
        )
    finally:
        printed.close()
        warned.close()


def _began(executed: Path) -> bool:
    """Whether a cell of the notebook has begun, or nothing is known of it."""
    try:
        cells = nbformat.read(executed, as_version=4).cells
    except Exception:       # not there or not whole: it is not the kernel that failed
        return True
    return any(cell.metadata.get("papermill", {}).get("start_time") for cell in cells)


def _shorten(cell: nbformat.NotebookNode, **_: object) -> None:
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


def _check_result(result: Path, run: Run) -> None:
    # After the death of a kernel papermill marks every cell completed: only the result tells.
    if not result.exists():
        raise RunError("The notebook ended without writing its result.")
    try:
        difference = first_difference(read_result(result), run)
    except ValueError as error:
        raise RunError(f"The notebook wrote no sound result: {error}") from None
    if difference is not None:
        raise RunError(f"The result says that the notebook ran with {difference}.")


def _tidy(path: Path) -> None:
    """Takes papermill's absolute paths, its times and its random cell name out of an executed notebook; its figures get a
    palette, a quarter of the bytes.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell["id"] = "injected-parameters"
        for output in cell.get("outputs", ()):
            if png := output.get("data", {}).get("image/png"):
                small = io.BytesIO()
                Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(128).save(small, "png", optimize=True)
                output["data"]["image/png"] = base64.b64encode(small.getvalue()).decode()
    nbformat.write(notebook, path)
