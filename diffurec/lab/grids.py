"""A grid of experiments: read from its file, expanded into runs, and checked before anything runs.

    title = "..."           # optional, like every part
    report = true           # make the report of all runs when they have ended
    [parameters]            # the same for every run
    epochs = 16
    [axes]                  # the runs are the product of these lists, in this order
    variant = ["baseline", "sasrec"]
    seed = [0, 1, 2]
    [with.sasrec]           # of the runs with this value of an axis; they come before [parameters]
    learning_rate = 0.003
"""

import ast
import difflib
import hashlib
import itertools
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..base import places
from ..paper import ModelConfig
from ..training import TrainConfig, configure_run
from .source import check_source, seen_from_root

MOST_RUNS = 10_000
LONGEST_NAME = 180      # of a run; file systems take 255 bytes, and endings like .partial.html.partial come after it
WHERE = ("data_dir", "device", "result", "checkpoint")      # say where a run happens, not what it is: none is in a grid


class LaunchError(Exception):
    """A launch that is refused before anything runs; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Grid:
    """A grid as its file has it: parameters and axes by name, and whether a report is made after the runs."""

    name: str
    title: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, list] = field(default_factory=dict)
    special: dict[str, dict[str, Any]] = field(default_factory=dict)     # parameters by the value of an axis: [with.VALUE]
    report: bool = False


@dataclass(frozen=True)
class Run:
    """One run of a grid. given: the grid's parameters; parameters: with the notebook's defaults, without WHERE."""

    name: str
    given: dict[str, Any]
    parameters: dict[str, Any]
    out: Path
    checkpoint: Path

    def file(self, ending: str) -> Path:
        return self.out / (self.name + ending)


def read_parameters(notebook: Path, needed: Iterable[str]) -> dict[str, Any]:
    """The parameters of a notebook and their defaults, from its cell tagged `parameters`; LaunchError if one lacks.

    papermill's own reading is by line, and misses a line with a second "=", in a comment for example.
    """
    import nbformat         # of the extra `lab`; result files are read without it

    try:
        cells = nbformat.read(notebook, as_version=4).cells
        source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", ()))
        pairs = [(s.target if isinstance(s, ast.AnnAssign) else s.targets[0], s.value) for s in ast.parse(source).body]
        defaults = {target.id: ast.literal_eval(value) for target, value in pairs}      # type: ignore[union-attr]
    except OSError as error:
        raise LaunchError(f"The notebook {notebook} cannot be read ({error.strerror}); restore it.") from error
    except StopIteration:
        raise LaunchError(f"{notebook} has no cell tagged 'parameters'; tag the one that holds them.") from None
    except (SyntaxError, ValueError, TypeError, AttributeError, KeyError, RecursionError, MemoryError) as error:
        raise LaunchError(f"The parameters of {notebook} cannot be read ({error}); its cell tagged 'parameters' must "
                          "hold lines of NAME = LITERAL only.") from error
    missing = [name for name in needed if name not in defaults]
    if missing:
        raise LaunchError(f"{notebook} does not take {', '.join(missing)}, which the launcher sets; add to its cell "
                          "tagged 'parameters'.")
    return defaults


def read_grid(grid: str | Path) -> Grid:
    """The Grid of this name, or at this path; LaunchError."""
    path = Path(grid) if str(grid).endswith(".toml") else places.GRIDS / f"{grid}.toml"
    try:
        there = path.is_file()
    except OSError as error:
        raise LaunchError(f"The grid {str(grid)[:60]!r} cannot be read ({error.strerror}); give another.") from error
    if not there:
        known = ", ".join(sorted(p.stem for p in places.GRIDS.glob("*.toml")))
        raise LaunchError(f"There is no grid {str(grid)!r}; take one of {known}, or give the path of a .toml file.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise LaunchError(f"{path} cannot be read as TOML ({error}); correct it.") from error
    forms = {"title": (str, "a string"), "report": (bool, "true or false"),
             "parameters": (dict, "a table, [parameters]"), "axes": (dict, "a table, [axes]"),
             "with": (dict, "tables, [with.VALUE]")}
    for key, value in content.items():
        if key not in forms:
            raise LaunchError(f"{path} holds {key!r}; a grid has title, report, [parameters], [axes] and [with.VALUE] only.")
        if not isinstance(value, forms[key][0]):
            raise LaunchError(f"In {path}, {key} must be {forms[key][1]}.")
    return Grid(path.stem, special=content.pop("with", {}), **{"title": path.stem, **content})


def expand(grid: Grid, defaults: Mapping[str, Any], out: Path) -> list[Run]:
    """The runs of a grid for a notebook with these defaults; LaunchError if they do not fit."""
    parameters, axes = grid.parameters, grid.axes
    for axis, values in axes.items():
        if axis in parameters:
            raise LaunchError(f"{grid.name}: {axis} is both in [parameters] and an axis; keep one of the two.")
        if not isinstance(values, list) or not values:
            raise LaunchError(f"{grid.name}: the axis {axis} must be a list of one value or more.")
    for name, value in [*parameters.items(), *((axis, value) for axis, values in axes.items() for value in values)]:
        _check_parameter(grid.name, name, value, defaults)
    for wanted, more in grid.special.items():
        if not isinstance(more, dict) or wanted not in {str(value) for values in axes.values() for value in values}:
            raise LaunchError(f"{grid.name}: [with.{wanted}] must be a table, and {wanted} a value of an axis.")
        for name, value in more.items():
            if name in axes:
                raise LaunchError(f"{grid.name}: {name} is both in [with.{wanted}] and an axis; keep one of the two.")
            _check_parameter(grid.name, name, value, defaults)
    if (count := math.prod(map(len, axes.values()))) > MOST_RUNS:
        raise LaunchError(f"{grid.name}: its axes make {count:,} cells, and {MOST_RUNS:,} are the most; "
                          "shorten the lists.")
    runs = {}
    for point in itertools.product(*axes.values()):
        given = {**parameters, **dict(zip(axes, point))}
        for value in point:
            given |= grid.special.get(str(value), {})
        if "dataset" in given:
            given["dataset"] = seen_from_root(given["dataset"])
        parts = [v if isinstance(v, str) else f"{axis}-{v}" for axis, v in zip(axes, point)] or [grid.name]
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(parts)).strip(".-")
        if len(name) > LONGEST_NAME:
            digest = hashlib.sha256(name.lower().encode()).hexdigest()[:12]
            name = f"{name[:LONGEST_NAME - 13]}-{digest}"
        if not name:
            raise LaunchError(f"{grid.name}: no file can be named after {point}; change the axes.")
        if name.lower() == "report":
            raise LaunchError(f"{grid.name}: a cell would be named report, and its files be taken for the report's; "
                              f"change the {'axes' if axes else 'name of the grid'}.")
        if name.lower() in runs:
            raise LaunchError(f"{grid.name}: two cells would be named {name}; give the axes other values.")
        everything = {key: value for key, value in {**defaults, **given}.items() if key not in WHERE}
        runs[name.lower()] = Run(name, given, everything, out, checkpoint_folder(out) / name)
    return list(runs.values())


def _check_parameter(grid: str, name: str, value: object, defaults: Mapping[str, Any]) -> None:
    if name in WHERE:
        raise LaunchError(f"{grid}: {name} is set by the launcher and its options; take it out of the grid.")
    if name not in defaults:
        known = [key for key in defaults if key not in WHERE]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise LaunchError(f"{grid}: the notebook has no parameter {name}{hint}; it takes {', '.join(known)}.")
    wanted, found = type(defaults[name]), type(value)
    if found not in (str, int, float, bool):
        raise LaunchError(f"{grid}: {name} is a {found.__name__}, and a parameter is a string, a number, true or "
                          "false.")
    if not (wanted is type(None) or found is wanted or (wanted is float and found is int)):
        raise LaunchError(f"{grid}: {name} = {value!r} is of type {found.__name__}, and the notebook takes "
                          f"{wanted.__name__}, like {defaults[name]!r}.")


def checkpoint_folder(out: Path) -> Path:
    """runs/OUT for an output below the repository, where git ignores it; in the output, as .runs, otherwise.

    No two outputs share one: that of the repository itself is runs/__, and a name that begins so gets one _ more.
    """
    root = places.ROOT
    if places.INSTALLED or not out.is_relative_to(root):
        return out / ".runs"        # the same wherever a launch is called from, so that two launches see each other
    first, *below = out.relative_to(root).parts or ("",)
    if not first:
        return root / "runs" / "__"
    return root.joinpath("runs", "_" + first if first.startswith("__") else first, *below)


def check_run(parameters: Mapping[str, Any]) -> tuple[ModelConfig, TrainConfig]:
    """(ModelConfig, TrainConfig) of a run with these parameters; ValueError for a value that it would fail on."""
    check_source(parameters)
    return check_settings(parameters)


def check_settings(parameters: Mapping[str, Any]) -> tuple[ModelConfig, TrainConfig]:
    """The same of a run whose data are there: what else would fail only when it has been trained."""
    model, training = configure_run(parameters)
    for name, steps in (("num_steps", parameters["num_steps"]), ("eval_num_steps", training.eval_num_steps)):
        if steps is not None and not (type(steps) is int and 1 <= steps <= model.num_diffusion_steps):
            raise ValueError(f"{name} must be a whole number between 1 and num_diffusion_steps, here "
                             f"{model.num_diffusion_steps}, but it is {steps!r}.")
    users = parameters["analysis_users"]
    if type(users) is not int or users != 0 and users < 10:
        raise ValueError(f"analysis_users must be 0 or a whole number of at least 10, but it is {users!r}.")
    return model, training


def planned_epochs(grid: Grid, runs: Iterable[Run]) -> dict[str, int]:
    """How many epochs each run trains at most, by its name; LaunchError for parameters that it would fail on."""
    epochs = {}
    for run in runs:
        try:
            epochs[run.name] = check_run(run.parameters)[1].epochs
        except ValueError as error:
            raise LaunchError(f"{grid.name}: {run.name}: {error}") from error
    return epochs
