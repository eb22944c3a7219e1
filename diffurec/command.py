"""The command line.

    diffurec run GRID --out DIR [--jobs N] [--data-dir DIR] [--device auto] [--only RUN]
                                [--engine slurm --slurm KEY=VALUE ... [--no-wait]]
    diffurec report GRID --out DIR
    diffurec fetch NAME ...
    diffurec copy DIR

GRID names a file in notebooks/experiments/grids (without .toml) or is the path of one. lab/launch.py says what `run`
and `report` do. `python -m diffurec` is the same; `python -m diffurec.experiments` and `.fetch` are `run` and `fetch`.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__, fetch
from .base.places import CARRIED, MATERIAL
from .data import KNOWN
from .early import loaded


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code. 0: done, 1: something failed, 2: refused, 3: runs left to another launch, 130: interrupted."""
    options = _parser().parse_args(arguments)
    return options.act(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="diffurec", description="Experiments with DiffuRec, and what they need.")
    parser.add_argument("--version", action="version", version=f"diffurec {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    grid = argparse.ArgumentParser(add_help=False)
    grid.add_argument("grid", metavar="GRID", help="a file in notebooks/experiments/grids, or a .toml file")
    grid.add_argument("--out", type=Path, required=True, help="directory for RUN.ipynb, RUN.html, RUN.json")
    grid.add_argument("--data-dir", type=Path, help="directory that holds the data sets (as DIFFUREC_DATA_DIR)")
    grid.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")

    run = commands.add_parser("run", parents=[grid], help="run a grid of experiments")
    run.add_argument("--jobs", type=int, metavar="N", help="how many runs go on at once (default 1; with slurm all)")
    run.add_argument("--engine", choices=("local", "slurm"), default="local", help="where the runs go on (default local)")
    run.add_argument("--slurm", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                     help="time=MINUTES of a job, and options of sbatch: partition=gpu gpus_per_node=1 mem=16G ...")
    run.add_argument("--no-wait", action="store_true", help="with slurm: submit the jobs and return")
    part = run.add_mutually_exclusive_group()
    part.add_argument("--only", metavar="RUN", help="this run of the grid alone, and no report")
    part.add_argument("--report-only", action="store_true", help=argparse.SUPPRESS)        # `report`'s former name
    run.set_defaults(act=_launch)

    report = commands.add_parser("report", parents=[grid], help="make the report of the runs that are there")
    report.set_defaults(act=_launch, jobs=None, engine="local", slurm=[], no_wait=False, only=None, report_only=True)

    named = commands.add_parser("fetch", help="fetch data sets beforehand and print what they hold")
    named.add_argument("names", nargs="+", metavar="NAME", help=f"one of {', '.join(KNOWN)}")
    named.set_defaults(act=_fetch)

    copy = commands.add_parser("copy", help="put the notebooks, the grids and the results they read into a directory")
    copy.add_argument("directory", type=Path, metavar="DIR", help="where no such files are yet")
    copy.set_defaults(act=_copy)
    return parser


def _launch(options: argparse.Namespace) -> int:
    try:
        from .lab.launch import launch
    except ModuleNotFoundError as error:
        print(f"Grids need the package {error.name}, which is not installed: pip install 'diffurec[lab]'.", file=sys.stderr)
        return 2
    loaded()
    return launch(options)


def _fetch(options: argparse.Namespace) -> int:
    loaded()
    return fetch.main(options.names)


def _copy(options: argparse.Namespace) -> int:
    """Copies MATERIAL, nothing where one of its files is there already."""
    directory = options.directory
    files = [path.relative_to(MATERIAL) for pattern in CARRIED for path in sorted(MATERIAL.glob(pattern))]
    try:
        if there := [file for file in files if (directory / file).exists()]:
            print(f"{directory / there[0]} is there already, so nothing was copied; choose another directory.",
                  file=sys.stderr)
            return 2
        for file in files:
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(MATERIAL / file, directory / file)
    except OSError as error:
        print(f"Cannot copy to {directory} ({error.strerror}); choose a directory that can be written to, with 50 MB left.",
              file=sys.stderr)
        return 2
    print(f"{len(files)} files are in {directory}: open {directory / 'notebooks'} in JupyterLab.")
    return 0
