"""The data of a run: a data set by its name, or a file with the parameters that say how load_interactions reads it."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..base import places
from ..data import KNOWN, check_interactions

# Parameters of a run by their defaults; a result from before there were any was made with these.
READING: dict[str, Any] = {
    "user_column": "", "item_column": "", "time_column": "", "sep": "", "names": "", "date_format": "", "k_core": None,
    "order": "time", "layout": "rows", "duplicates": "keep", "ties": "file"}
COLUMNS = {"user_column": "user", "item_column": "item", "time_column": "timestamp"}


def own_file(dataset: str) -> Path | None:
    """The path of a data set that is given as a file or a folder; None for one that has a name."""
    is_path = dataset not in KNOWN and (Path(dataset).suffix or "/" in dataset or os.sep in dataset)
    return places.ROOT / dataset if is_path else None


def seen_from_root(dataset: str) -> str:
    """A data set as a grid names it, its path seen from ROOT, where the notebooks run, and no longer from the caller's folder.

    The kernel of the report runs in ROOT too: DIFFUREC_CALLED_FROM tells it where the launch was called.
    """
    if own_file(dataset) is None or Path(dataset).is_absolute():
        return dataset
    path = Path(os.path.normpath(Path(os.environ.get("DIFFUREC_CALLED_FROM") or os.getcwd()) / dataset))
    below = str(path.relative_to(places.ROOT) if path.is_relative_to(places.ROOT) else path)
    return below if own_file(below) else f"./{below}"       # a folder's name alone would be taken for a data set's


def reading(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of load_interactions that a run's parameters say."""
    given = {name: parameters.get(name, default) for name, default in READING.items()}
    if isinstance(given["names"], str):
        given["names"] = [name.strip() for name in given["names"].split(",")] if given["names"] else None
    return {COLUMNS.get(name, name): None if value == "" else value for name, value in given.items()}


def check_source(parameters: Mapping[str, Any]) -> None:
    """ValueError for data that are not there or cannot be read so; of a file its beginning alone is looked at."""
    dataset = parameters["dataset"]
    file = own_file(dataset)
    if file is None:
        if dataset not in KNOWN:
            raise ValueError(f"There is no data set {dataset!r}; take one of {', '.join(KNOWN)}, or the path of a file.")
        for name, default in READING.items():
            if parameters.get(name, default) != default:
                raise ValueError(f"{name} = {parameters[name]!r} says how a file is read, and {dataset} is none: leave it out.")
        return
    try:
        if not file.exists():
            raise ValueError(f"There is no file {dataset!r} to read the data from, seen from {places.ROOT}; a relative path in "
                             "a grid is seen from where the launch is called.")
        check_interactions(file, **reading(parameters))
    except OSError as error:
        raise ValueError(f"The data set {dataset[:60]!r} cannot be read ({error.strerror}).") from error


def file_digest(path: str | Path) -> str:
    """sha256 (hex) of a file, or of the files in a folder: whether the data of a run are still the same is told by it
    without reading them.
    """
    if not os.path.isdir(path):
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    inside = sorted(file.relative_to(path).as_posix() for file in Path(path).rglob("*") if file.is_file())
    return hashlib.sha256(repr([(name, file_digest(Path(path) / name)) for name in inside]).encode()).hexdigest()
