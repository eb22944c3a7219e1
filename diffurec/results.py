"""Result files: what a run of train.ipynb leaves, with a schema and a version, and how a directory of them is read."""

import json
from dataclasses import fields

import numpy as np

from .checkpoint import write_atomically
from .config import ModelConfig, TrainConfig

SCHEMA = 2
# Parameters of a run beside the settings of the two classes. Where it ran (device, files) does not count.
RUN = ("dataset", "variant", "settings", "num_steps", "analysis_users", "must_beat_popular")
REQUIRED = {
    "parameters": dict, "settings": dict, "seed": int, "versions": dict, "machine": str, "data": dict, "log": list,
    "best_epoch": int, "finished": str, "metrics": dict, "differences": dict, "groups": dict, "analysis": dict,
    "ranks": dict,
}


def run_parameters(namespace):
    """The parameters that say what a run is, by name, out of a mapping such as globals()."""
    settings = [f.name for kind in (ModelConfig, TrainConfig) for f in fields(kind) if f.name != "device"]
    return {name: namespace[name] for name in (*RUN, *settings)}


def write_result(path, outcome, ranks):
    """Writes a run's outcome, whole or not at all. ranks: {"validation": [U], "test": [U]}, each as one string."""
    written = {split: " ".join(np.format_float_positional(r, trim="-") for r in values) for split, values in ranks.items()}
    content = {"schema": SCHEMA, **outcome, "ranks": written}
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False).encode())


def read_result(path):
    """The outcome in a result file, its ranks as arrays [U]; ValueError naming what is wrong with the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict) or "schema" not in content:
        raise ValueError(f"{path.name} is not a result of train.ipynb: it has no schema.")
    if content["schema"] != SCHEMA:
        raise ValueError(f"{path.name} has schema {content['schema']!r}, and this version reads {SCHEMA}.")
    for key, kind in REQUIRED.items():
        if type(content.get(key)) is not kind:
            raise ValueError(f"{path.name} is damaged: {key} is not there as {kind.__name__}.")
    try:
        content["ranks"] = {split: np.array(content["ranks"][split].split(), float) for split in ("validation", "test")}
        users = content["data"]["users"]
        sound = all(len(r) == users and ((r >= 1) & np.isfinite(r)).all() for r in content["ranks"].values())
    except (KeyError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(f"{path.name} is damaged: its ranks or its data cannot be read ({error!r}).") from error
    if not sound:
        raise ValueError(f"{path.name} is damaged: its ranks are not one finite number of at least 1 for each of {users} users.")
    return content


def read_results(directory):
    """(results, problems) of all *.json in a directory, in the order of their names: what is no result is named."""
    results, problems = [], []
    for path in sorted(directory.glob("*.json")):
        try:
            results.append(read_result(path))
        except ValueError as error:
            problems.append(str(error))
    return results, problems
