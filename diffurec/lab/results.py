"""Result files: what a run of train.ipynb leaves, one validation of it, and how a directory of them is told apart.

A user's rank is written "12", or "12-15" where the target shares its score with others and can take any of these.
Schema 2 had the middle of them instead: its "12.5" is read as "12-13". Schemas 2 and 3 called the model that was trained
DiffuRec, whichever it was.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import AfterValidator, BeforeValidator, Field, WrapValidator, conlist

from ..base.files import write_atomically
from ..base.records import Record, fault, record, short
from ..data.splits import Split
from ..evaluation.metrics import CUTOFFS, mean_metrics, per_user
from ..paper import RIVALS, VARIANTS, ModelConfig
from ..training import TrainConfig
from .source import READING

SCHEMA = 4
PLACES = re.compile(r"[1-9][0-9]{0,9}(-[1-9][0-9]{0,9})?")
FORMS = {2: re.compile(r"[1-9][0-9]{0,9}(\.5)?"), 3: PLACES, 4: PLACES}     # of a rank
SPLITS = ("validation", "test")
TRAINED = "trained model"       # what a result calls the model of its run, whichever it is
MODELS = ("most-popular", "Markov chain", TRAINED)
DIFFERENCES = tuple(f"{TRAINED} − {name}" for name in MODELS[:2])
METRICS = (*(f"HR@{k}" for k in CUTOFFS), *(f"NDCG@{k}" for k in CUTOFFS), "MRR")
# Parameters of a run beside the settings of the two classes. Where it ran (device, files) does not count.
RUN = ("dataset", *READING, "variant", "settings", "num_steps", "analysis_users", "must_beat_popular")
MAKING = {name for changes in (VARIANTS | RIVALS).values() for name in changes}    # settings that make a variant or a rival
KEY = ("dataset", "settings", "variant", "seed")        # the parameters that tell runs apart in a report
Key = tuple[str, str, str, int]                         # their values


def _scalar(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        raise ValueError("should be one value")
    return value


def _around_its_mean(interval: list[float]) -> list[float]:
    mean, low, high = interval
    if not low - 1e-9 <= mean <= high + 1e-9:
        raise ValueError("has its mean outside the interval")
    return interval


class Scalars(Record, extra="allow"):
    __pydantic_extra__: dict[str, Annotated[Any, AfterValidator(_scalar)]]


T = TypeVar("T")
Interval = Annotated[list[T], Field(min_length=3, max_length=3), AfterValidator(_around_its_mean)]
# In JSON 3.0 is a whole number too.
Whole = Annotated[int, BeforeValidator(lambda x: int(x) if isinstance(x, float) and x.is_integer() else x)]
Count = Annotated[Whole, Field(ge=0)]
AtLeast1 = Annotated[Whole, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Difference = Annotated[float, Field(ge=-1, le=1)]
some = partial(conlist, min_length=1)
ROWS = {"steps": ("num_steps", "agreement"), "ensembles": ("ensemble",),         # the first tells the rows apart
        "uncertainty": ("lambda_uncertainty", "spread", "overlap", "diversity")}
Map = record(("cluster", "popularity", "item"), some(Count),
             tsne=some(conlist(float, min_length=2, max_length=2)))
Analysis = record(["users"], AtLeast1, map=Map, **{
    part: some(record(METRICS, Fraction, **dict.fromkeys(names, float))) for part, names in ROWS.items()})
Group: Any = record(METRICS, Fraction, users=AtLeast1)
Result = record(
    ("machine", "finished"), str, seed=Count, best_epoch=Count, versions=record(["diffurec"], str),
    parameters=record(("dataset", "settings", "variant"), str, Scalars, seed=Count),
    settings=record(("model", "train"), Scalars),
    data=record(("users", "items", "interactions"), AtLeast1, name=str, checksum=str, file=(str | None, None)),
    log=some(record(["loss"], float, epoch=AtLeast1, seconds=Annotated[float, Field(ge=0, le=10**9)],
                    validation=record(METRICS, Fraction) | None)),
    metrics=record(SPLITS, record(MODELS, record(METRICS, Interval[Fraction]))),
    differences=record(SPLITS, record(DIFFERENCES, record(METRICS, Interval[Difference]))),
    groups=record(MODELS, Annotated[dict[str, Group], Field(min_length=1)]),
    analysis=Annotated[Analysis, WrapValidator(lambda found, check: found if found == {} else check(found))],   # or none
    ranks=record(SPLITS, str))


def run_parameters(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that say what a run is, by name, out of a mapping such as globals()."""
    settings = [f.name for kind in (ModelConfig, TrainConfig) for f in fields(kind) if f.name != "device"]
    return {name: namespace[name] for name in (*RUN, *settings)}


def write_result(path: Path, outcome: Mapping[str, Any], ranks: Mapping[str, ArrayLike]) -> None:
    """Writes a run's outcome, whole or not at all; ValueError if it is none.

    ranks: {"validation": ..., "test": ...}, each the first and last place of every user's target [U, 2], or [U] where
    nothing is tied. Each becomes one string.
    """
    written = {split: " ".join(str(first) if first == last else f"{first}-{last}" for first, last in _pairs(r).tolist())
               for split, r in ranks.items()}
    text = _text({"schema": SCHEMA, **outcome, "ranks": written})
    _checked(path.name, _parse(text))
    write_atomically(path, text.encode())


def _text(value: Any, margin: str = "\n") -> str:
    """JSON with a line for each entry, but lists of numbers, and objects that hold none but single values, in one line."""
    inner = margin + " "
    if isinstance(value, Mapping) and any(isinstance(v, (list, tuple, Mapping)) for v in value.values()):
        entries = [f"{json.dumps(key)}: {_text(v, inner)}" for key, v in value.items()]
        return "{" + inner + f",{inner}".join(entries) + margin + "}"
    if isinstance(value, (list, tuple)) and any(isinstance(v, Mapping) for v in value):
        return "[" + inner + f",{inner}".join(_text(v, inner) for v in value) + margin + "]"
    return json.dumps(value, allow_nan=False)


def _pairs(ranks: ArrayLike) -> np.ndarray:
    ranks = np.asarray(ranks)
    both = np.stack([np.floor(ranks), np.ceil(ranks)], axis=1) if ranks.ndim == 1 else ranks
    return both.astype(np.int64)


def read_result(path: Path) -> dict[str, Any]:
    """The outcome in a result file, its ranks as arrays [U, 2] int64, and its name as "file"; ValueError naming what is
    wrong with the file.
    """
    try:
        content = _parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path.name} cannot be read as JSON ({str(error) or type(error).__name__}).") from error
    return {**_checked(path.name, content), "file": path.name}


def _parse(text: str) -> Any:
    def finite(number: str) -> float:
        if not math.isfinite(value := float(number)):
            raise ValueError(f"{number} is no finite number")
        return value

    def renamed(found: dict[str, Any]) -> dict[str, Any]:       # of schemas 2 and 3
        return {name.replace("DiffuRec", TRAINED): value for name, value in found.items()}

    return json.loads(text, parse_float=finite, parse_constant=finite, object_hook=renamed)


def _checked(name: str, content: Any) -> dict[str, Any]:
    """The content of a result file with its ranks as arrays; ValueError if anything in it is not as it must be."""
    if not isinstance(content, dict) or "schema" not in content:
        raise ValueError(f"{name} is not a result of train.ipynb: it has no schema.")
    if type(content["schema"]) is not int or content["schema"] not in FORMS:
        raise ValueError(f"{name} has schema {short(repr(content['schema']))}, and this version reads "
                         f"{min(FORMS)} to {max(FORMS)}.")
    try:
        Result.model_validate(content)
        ranks = {split: _read_ranks(content, split) for split in SPLITS}
        _check_together(content, ranks)
    except ValueError as error:
        raise ValueError(f"{name} is damaged: {fault(error)}.") from error
    return {**content, "ranks": ranks}


def _read_ranks(content: dict[str, Any], split: str) -> np.ndarray:
    """The ranks of one split, [U, 2] int64; ValueError if they are not one place or two for every user."""
    users, items = content["data"]["users"], content["data"]["items"]
    form = FORMS[content["schema"]]
    words = content["ranks"][split].split(" ")
    for word in words:
        if not form.fullmatch(word):
            raise ValueError(f"ranks.{split} holds {short(repr(word))}, which is no rank")
    if len(words) != users:
        raise ValueError(f"ranks.{split} holds {len(words)} ranks and data.users is {users}")
    if content["schema"] == 2:
        ranks = _pairs(np.array(words, float))
    else:
        ranks = np.array([(int(first), int(last or first)) for first, _, last in (w.partition("-") for w in words)])
    if not ((ranks[:, 0] <= ranks[:, 1]) & (ranks[:, 1] <= items)).all():
        raise ValueError(f"ranks.{split} must lie within 1 to {items}, the first place before the last")
    return ranks


def _check_together(content: dict[str, Any], ranks: dict[str, np.ndarray]) -> None:
    """ValueError if parts of the content contradict each other."""
    for split, pairs in ranks.items():
        # In schema 2 the metrics were those at the middle place: for a tied user they can be another value.
        tolerance = 1e-6 + (float((pairs[:, 0] < pairs[:, 1]).mean()) if content["schema"] == 2 else 0)
        for metric, mean in mean_metrics(pairs).items():
            found = content["metrics"][split][TRAINED][metric][0]
            if abs(found - mean) > tolerance:
                raise ValueError(f"metrics.{split}.{TRAINED}.{metric} is {found}, and its ranks give {mean}")
    if content["seed"] != content["parameters"]["seed"]:
        raise ValueError(f"seed is {content['seed']}, and parameters.seed is {content['parameters']['seed']}")
    if analysis := content["analysis"]:
        for part, (number, *_) in ROWS.items():
            if len({row[number] for row in analysis[part]}) < len(analysis[part]):
                raise ValueError(f"analysis.{part} holds the same {number} twice")
        points = analysis["map"]
        if len({len(points[name]) for name in Map.model_fields}) > 1 or max(points["item"]) > content["data"]["items"]:
            raise ValueError("analysis.map does not hold one item of the data for each of its points")


def read_results(directory: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """(results, problems) of all *.json in a directory, in the order of their names: what is no result is named."""
    results, problems = [], []
    for path in sorted(directory.glob("*.json")):
        try:
            results.append(read_result(path))
        except ValueError as error:
            problems.append(str(error))
    return results, problems


def paired_by_seed(
    mine: Mapping[int, Mapping[str, Any]], base: Mapping[int, Mapping[str, Any]], metric: str, split: Split = "test"
) -> tuple[list[int], NDArray[np.float64]]:
    """(the seeds that both have, the metric of `mine` minus that of `base` for each of them and each user [S, U]).

    mine, base: {seed: result} of two models. ValueError if a seed's two results are not of the same data.
    """
    seeds, rows = sorted(mine.keys() & base.keys()), []
    for seed in seeds:
        if mine[seed]["data"]["checksum"] != base[seed]["data"]["checksum"]:
            raise ValueError(f"The two results of seed {seed} are not of the same data, so that their users cannot be paired.")
        values, others = (per_user(run[seed]["ranks"][split])[metric] for run in (mine, base))
        rows.append(values - others)
    return seeds, np.array(rows)


def setup(run: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run but for the seed, the device and what makes a variant or a rival; a setting that is younger than
    the run has its default, which is off.
    """
    both = asdict(ModelConfig()) | asdict(TrainConfig()) | run["settings"]["model"] | run["settings"]["train"]
    return {k: v for k, v in both.items() if k not in ("seed", "device", *MAKING)}


def label_runs(
    results: Collection[dict[str, Any]], planned: Collection[Mapping[str, Any]] = ()
) -> tuple[dict[Key, dict[str, Any]], set[Key], list[str]]:
    """({key: result}, {keys of planned runs that are not there}, remarks) for the results of one directory.

    A key is (dataset, settings, variant, seed). Other parameters in which runs of one data set and settings differ stand
    behind the settings, as in "laptop, hidden_size = 64"; behind a data set that was not the same in all of them its
    checksum's beginning. Who pairs runs by their keys pairs no different data and no different settings. planned: the
    parameters of the grid's runs. remarks: a sentence on each result that is left out, and on data and versions that are
    mixed.
    """
    everything = [READING | dict(p) for p in (*planned, *(r["parameters"] for r in results))]
    together: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for p in everything:
        together.setdefault((p["dataset"], p["settings"]), []).append(p)
    telling = {group: sorted(name for name in {*chain.from_iterable(of_group)}.difference(KEY)
                             if len({p.get(name) for p in of_group}) > 1) for group, of_group in together.items()}
    checksums: dict[str, Counter[str]] = {}
    for run in results:
        checksums.setdefault(run["parameters"]["dataset"], Counter())[run["data"]["checksum"]] += 1
    mixed = {dataset for dataset, found in checksums.items() if len(found) > 1}

    def key(parameters: Mapping[str, Any], checksum: str | None = None) -> Key:
        parameters = READING | dict(parameters)
        dataset, settings, variant, seed = (parameters[name] for name in KEY)
        more = [f"{name} = {parameters[name]}" for name in telling[dataset, settings] if parameters.get(name) not in (None, "")]
        if checksum and dataset in mixed:
            dataset += f" ({checksum[:8]})"
        return dataset, ", ".join([settings, *more]), variant, seed

    runs: dict[Key, dict[str, Any]] = {}
    first: dict[tuple[str, str], tuple[str, Any]] = {}
    remarks = []
    for run in results:
        found = key(run["parameters"], run["data"]["checksum"])
        alike = setup(run), {name: run["data"][name] for name in ("users", "items", "interactions")}
        model = first.setdefault(found[:2], (run["file"], alike))
        if found in runs:
            used = runs[found]["file"]
            remarks.append(f"{used} and {run['file']} are of the same run; {used} is used.")
        elif model[1] != alike:
            remarks.append(f"{run['file']} has the parameters of {model[0]}, but other settings or another size of the "
                           "data; it is left out.")
        else:
            runs[found] = run
    for dataset in sorted(mixed):
        listed = ", ".join(f"{checksum[:8]} in {n} runs" for checksum, n in checksums[dataset].items())
        remarks.append(f"{dataset}: its data were not the same (checksums {listed}); they are shown apart and not "
                       "paired.")
    versions = Counter(run["versions"]["diffurec"] for run in runs.values())
    if len(versions) > 1:
        listed = ", ".join(f"{version} ({n})" for version, n in sorted(versions.items()))
        remarks.append(f"Warning: the runs were made by different versions of diffurec, {listed}; a difference between "
                       "them can come from the version.")
    there = {key(run["parameters"]) for run in results}
    return runs, {key(p) for p in planned} - there, remarks
