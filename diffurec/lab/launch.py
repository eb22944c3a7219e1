"""Runs the experiment notebook once for every run of a grid and keeps each as a notebook, a page and its numbers.

A run is DIR/RUN.ipynb, .json and .html, in this order: it is finished when its .json is there, and of a finished run
that lacks its page only the page is made. Launching again skips the finished runs, and the others go on from their
checkpoints. A result of other parameters, other data or another schema is left as it is, and the launch refused.
Everything is checked before anything runs. At last comes the grid's report, DIR/report.ipynb and .html.

With --jobs N, N runs go on at once and share the processor's cores. Sums over other numbers of threads are rounded
otherwise: the last bits of a result can depend on N. With --engine slurm the runs are jobs of a cluster (slurm.py). With
--only RUN that run is made alone, and no report: so another scheduler can call one launch for each run, and at last
`diffurec report`. kernels.py says which of the caller's variables reach a run.
"""

import argparse
import difflib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import __version__
from ..base import places
from ..base.distributed import choose_device
from ..base.files import prove_writable
from ..early import INTERRUPTED
from . import local
from .grids import Grid, LaunchError, Run, checkpoint_folder, expand, planned_epochs, read_grid, read_parameters
from .kernels import Kernels
from .local import on_interrupt
from .progress import Progress, show
from .run import Launch, below_root, execute, is_whole, last_line, locked, read_finished, write_page


def launch(options: argparse.Namespace) -> int:
    """`diffurec run` and `diffurec report`, with their options by name.

    0: all finished, 1: a run or the report failed, 2: refused, 3: runs left to another launch, 130: interrupted.
    """
    try:
        engine, out = _engine(options), _resolved(options)
        grid, runs, epochs, results = _prepare(options, out)
        show(f"{grid.title} ({len(runs)} {'run' if len(runs) == 1 else 'runs'})")
        todo = [] if options.report_only else _todo(runs, results)
        jobs = options.jobs or 1 if engine is local else 1      # that share this machine
        variables = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))} if jobs > 1 else {}
        if options.data_dir:        # by the environment, not as a parameter: so the notebook names no machine's path
            variables["DIFFUREC_DATA_DIR"] = str(options.data_dir.resolve())
        progress = Progress({run.name: epochs[run.name] for run in todo})
        kernels = Kernels(variables)
        shared = Launch(options.device, kernels, progress, labelled=len(runs) > 1)
        with on_interrupt(kernels.stop):
            with progress:
                outcomes = engine.finish_all(todo, shared, options)
            report = _reported(options, grid) and "queued" not in outcomes
            sound = not report or kernels.stopped or make_report(options.grid, out, shared)
        if kernels.stopped:
            raise KeyboardInterrupt
    except LaunchError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:        # of a run or the report it is said there
        print(f"{error.filename or 'A file'} cannot be used ({error.strerror}); choose another path.", file=sys.stderr)
        return 2
    except MemoryError:
        print("Memory ran out before anything was run; free some, and launch again.", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(str(error) or INTERRUPTED, file=sys.stderr)
        return 130
    failed, left = ([run.name for run, outcome in zip(todo, outcomes) if outcome == kind] for kind in ("failed", "left"))
    if failed:
        show(f"{len(failed)} of {len(runs)} failed: {', '.join(failed)}. The same command runs them again.")
    if left:
        show(f"{len(left)} of {len(runs)} left to another launch: {', '.join(left)}.")
    return 1 if failed or not sound else 3 if left else 0


def make_report(grid: str, out: Path, launch: Launch) -> bool:
    """Executes the report notebook on the results in `out`, whatever runs are finished; whether it did not fail.

    grid: its name or its path, as on the command line.
    """
    name = below_root(Path(grid).resolve()) if grid.endswith(".toml") else grid
    report = Run("report", {"results": below_root(out), "grid": name}, {}, out, checkpoint_folder(out) / "report")
    try:
        with locked(report, wait=True):     # for the report of another launch, made without what was finished since
            execute(report, places.REPORT, {}, launch)
            write_page(report)
    except Exception as error:
        if not launch.kernels.stopped:
            show(f"The report FAILED. {last_line(error)}")
        return False
    show(f"The report: {report.file('.html')}")
    return True


def _reported(options: argparse.Namespace, grid: Grid) -> bool:
    return options.report_only or grid.report and options.only is None


def _engine(options: argparse.Namespace) -> ModuleType:
    """The module whose `finish_all` finishes the runs; LaunchError."""
    if options.engine == "local":
        if options.slurm or options.no_wait:
            raise LaunchError("--slurm and --no-wait are for jobs of a cluster; add --engine slurm, or leave them out.")
        return local
    try:
        from . import slurm
    except ModuleNotFoundError as error:
        raise LaunchError(f"--engine slurm needs the package {error.name}, which is not installed: "
                          "pip install 'diffurec[slurm]'.") from error
    slurm.read_settings(options.slurm)
    return slurm


def _resolved(options: argparse.Namespace) -> Path:
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


def _prepare(options: argparse.Namespace, out: Path) -> tuple[
        Grid, list[Run], dict[str, int], dict[str, dict[str, Any] | None]]:
    """The grid, its runs, their epochs and their results by name, all checked; LaunchError. Makes directories."""
    if options.jobs is not None and options.jobs < 1:
        raise LaunchError(f"--jobs is {options.jobs}, but at least one run must go on at a time.")
    try:
        # puts nothing on a GPU, which may take one process only
        choose_device(options.device, here=options.engine == "local")
    except ValueError as error:
        raise LaunchError(f"--device: {error}") from error
    grid = read_grid(options.grid)
    runs = expand(grid, read_parameters(places.NOTEBOOK, needed=("device", "result", "checkpoint")), out)
    if options.only is not None:
        runs = [_named(options.only, grid, runs)]
    if _reported(options, grid):
        read_parameters(places.REPORT, needed=("results", "grid"))
    if options.data_dir and not options.data_dir.is_dir():
        raise LaunchError(f"--data-dir is {options.data_dir}, but there is no such directory.")
    if options.report_only:     # the report itself says what it cannot use
        _check_writable(out)
        return grid, runs, {}, {}
    epochs = planned_epochs(grid, runs)
    results = {run.name: read_finished(run) for run in runs}
    _check_writable(out)
    _check_writable(runs[0].checkpoint.parent)
    return grid, runs, epochs, results


def _named(name: str, grid: Grid, runs: list[Run]) -> Run:
    """The run of this name; LaunchError."""
    by_name = {run.name: run for run in runs}
    if name not in by_name:
        near = difflib.get_close_matches(name, by_name, n=1, cutoff=0)[0]
        raise LaunchError(f"--only is {name!r}, and {grid.name} has no such run; a near one is {near}.")
    return by_name[name]


def _check_writable(directory: Path) -> None:
    """Creates the directory and proves that something can be written to it; LaunchError if not."""
    try:
        prove_writable(directory)
    except OSError as error:
        raise LaunchError(f"Cannot write to {directory} ({error.strerror}); choose a directory that can be written to, "
                          "with space left.") from error


def _todo(runs: list[Run], results: dict[str, dict[str, Any] | None]) -> list[Run]:
    """The runs that lack something; says of the others that they are skipped."""
    todo = []
    for run in runs:
        result = results[run.name]
        if result is None or not run.file(".html").exists() or not is_whole(run.file(".ipynb")):
            todo.append(run)
            continue
        show(f"{run.name}: skipped, finished before. Another --out runs it again.")
        if (version := result["versions"]["diffurec"]) != __version__:
            show(f"{run.name}: its result was made by diffurec {version}, and this is {__version__}; the report tells "
                 "them apart.")
    return todo
