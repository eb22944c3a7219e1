"""A user's own data: CSV, Parquet or RecBole's .inter to a Dataset, with a report of everything that was dropped."""

import csv
import os
import re
import textwrap
import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.checks import whole
from .dataset import MIN_INTERACTIONS, MOST, Dataset, in_time_order, told

if TYPE_CHECKING:
    import pandas as pd

# Column names that are understood, in lower case and without anything but letters and digits.
SPELLINGS = {
    "user": "user userid uid username reviewer reviewerid customer customerid visitor visitorid account "
            "accountid".split(),
    "item": "item itemid iid movie movieid film filmid asin product productid article articleid book bookid isbn "
            "business businessid track trackid song songid artist artistid video videoid game gameid".split(),
    "timestamp": "timestamp timestamps time ts unixreviewtime unixtime reviewtime date datetime createdat".split(),
}


def load_interactions(
    path: str | Path, user: str | None = None, item: str | None = None, timestamp: str | None = None,
    k_core: int | None = None, name: str | None = None,
) -> Dataset:
    """The Dataset of a .csv, .parquet or .inter file with one interaction a row.

    Args:
        user, item, timestamp: the columns' names; None finds them by the usual spellings (user_id, movieId, asin, ...).
        k_core: drop users and items with fewer than k interactions until none is left.
        name: of the data set; None takes the file's.

    Timestamps are numbers or ISO 8601 dates. Ids may be anything and are taken as they stand: text from .csv and
    .inter, so that 007 is not 7. Users and items are numbered in the order of their first row that is kept, users from
    0 and items from 1; user_ids[u] and item_ids[i] give the file's ids. Equal times stay in the order of the file.
    Users with fewer than 3 interactions, too few for leave-one-out, are dropped. `notes` says what was dropped.

    FileNotFoundError or ValueError, in one sentence, when the file is not there, a column cannot be told, a value is
    missing or no time, or nothing is left.
    """
    import pandas as pd  # here and below, because it takes half a second to load

    path = Path(path)
    k_core = None if k_core is None else whole(k_core, "k_core")
    read_columns, read = _reader(path)
    columns = _columns(path, read_columns(), {"user": user, "item": item, "timestamp": timestamp})
    table = read(list(columns.values())).set_axis(list(columns), axis=1)

    notes = []
    blank = table.isna().all(axis=1)
    if blank.any():
        notes.append(f"{blank.sum():,} rows without user, item and timestamp (blank lines) were skipped.")
        table = table[~blank]
    for role in ("user", "item"):
        _refuse(path, columns[role], table[role], table[role].isna(), f"are missing ({role} ids)")
    times = _times(path, columns["timestamp"], table["timestamp"])

    users, items = (pd.factorize(table[role])[0] for role in ("user", "item"))
    notes.append(f"{path.name} holds {_count(users, items)}.")
    kept = np.arange(len(table))
    steps = [(MIN_INTERACTIONS, k_core or 1, f"Users with fewer than {MIN_INTERACTIONS} interactions")]
    if k_core:
        steps.insert(0, (k_core, k_core, f"Users and items outside the {k_core}-core"))
    for least_user, least_item, what in steps:
        stays = _core(users[kept], items[kept], least_user, least_item)
        gone = [len(np.unique(ids[kept])) - len(np.unique(ids[kept[stays]])) for ids in (users, items)]
        if len(stays) < len(kept):
            notes.append(f"{what} were dropped: {gone[0]:,} users, {gone[1]:,} items, "
                         f"{len(kept) - len(stays):,} interactions.")
        kept = kept[stays]
    if not len(kept):
        raise ValueError(f"Nothing is left of {path}: {' '.join(notes)}")

    table, times = table.iloc[kept], times[kept]
    users, user_ids = pd.factorize(table["user"])
    items, item_ids = pd.factorize(table["item"])
    tied = pd.DataFrame({"user": users, "time": times}).duplicated(keep=False).sum()
    if tied:
        notes.append(f"{tied:,} of {len(kept):,} interactions share user and time with another; file order decides.")
    flat, offsets = in_time_order(users, items + 1, times)
    return Dataset(
        name or path.stem, len(item_ids), flat, offsets, source=f"{path.name} (columns {', '.join(columns.values())})",
        notes=tuple(notes), user_ids=tuple(user_ids.tolist()), item_ids=(None, *item_ids.tolist()))


def _reader(path: Path) -> tuple[Callable[[], list[str]], Callable[[list[str]], "pd.DataFrame"]]:
    """Two functions for the kind of file: its column names, and the table of some of its columns, in their order."""
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet", ".inter"):
        raise ValueError(f"{path} has the suffix {path.suffix!r}; .csv, .parquet and .inter are read.")
    if not os.path.isfile(path):        # unlike Path.is_file this is False, too, where a name is too long
        raise FileNotFoundError(f"There is no file {path}.")
    names, read = (_parquet if kind == ".parquet" else _text)(path)

    def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with told(f"{path} cannot be read as a {kind} file", ValueError):
                return function(*arguments)
        return call

    return guarded(names), guarded(read)


def _text(path: Path) -> tuple[Callable[[], list[str]], Callable[[list[str]], "pd.DataFrame"]]:
    """Fields are kept as text, and columns are taken by their place: pandas renames the second of two equal names."""
    import pandas as pd

    options = {"sep": "\t", "quoting": csv.QUOTE_NONE} if path.suffix.lower() == ".inter" else {}
    options |= {"dtype": str, "encoding": "utf-8-sig", "keep_default_na": False, "na_values": [""], "index_col": False,
                "skip_blank_lines": False}      # only an empty field is missing; row i stands on line i + 2

    def names() -> list[str]:
        return pd.read_csv(path, header=None, nrows=1, **options).iloc[0].fillna("").tolist()

    def read(columns: list[str]) -> "pd.DataFrame":
        found = names()
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)     # rows longer than the header
            return pd.read_csv(path, **options).iloc[:, [found.index(column) for column in columns]]
            # usecols= would let too long rows pass

    return names, read


def _parquet(path: Path) -> tuple[Callable[[], list[str]], Callable[[list[str]], "pd.DataFrame"]]:
    """Columns as they are typed; a whole number never becomes a float, as it would in pandas beside a missing one."""
    import pyarrow
    import pyarrow.parquet as parquet

    def names() -> list[str]:
        return parquet.read_schema(path).names

    def read(columns: list[str]) -> "pd.DataFrame":
        with parquet.ParquetFile(path) as file:
            if file.metadata.num_rows > MOST:
                raise ValueError(f"it claims {file.metadata.num_rows:,} rows; at most {MOST:,} can be read")
            for column in columns:
                kind = file.schema_arrow.field(column).type
                if pyarrow.types.is_nested(getattr(kind, "storage_type", kind)):       # an extension is of a plain type
                    raise ValueError(f"column {column} holds {kind}, but user, item and timestamp must be plain "
                                     "values: pass another column")
            table = file.read(columns=columns).select(columns)
        table.validate(full=True)       # text that is no UTF-8 is found here, not when it is first looked at
        plain = [column.cast(column.type.value_type) if pyarrow.types.is_dictionary(column.type) else column
                 for column in table.columns]
        return pyarrow.table(plain, names=columns).to_pandas(integer_object_nulls=True, date_as_object=False)

    return names, read


def _columns(path: Path, found: list[str], wanted: dict[str, str | None]) -> dict[str, str]:
    """{role: column} for user, item and timestamp: as named, or the one column with a usual spelling."""
    plain = {column: column.split(":")[0] for column in found}      # .inter writes name:type
    listed = f"{path} has the columns {textwrap.shorten(', '.join(found), 1000, placeholder=' ...') or '(none)'}"
    columns = {}
    for role, name in wanted.items():
        if name is not None:
            fits = [c for c in found if c == name] or [c for c in found if plain[c] == name]
            if not fits:
                raise ValueError(f"{listed}, but no {name!r}: pass another {role}=.")
        else:
            fits = [c for c in found if re.sub(r"[\W_]", "", plain[c].lower()) in SPELLINGS[role]]
            if not fits:
                raise ValueError(f"{listed}, and none of them is known to be the {role}: pass {role}= with its name.")
        if len(set(fits)) > 1:
            raise ValueError(f"{listed}, and {' and '.join(fits)} could each be the {role}: pass {role}= with one.")
        if found.count(fits[0]) > 1:
            raise ValueError(f"{listed}: {fits[0]} stands there {found.count(fits[0])} times; rename all but one.")
        columns[role] = fits[0]
    if len(set(columns.values())) < len(columns):
        raise ValueError(f"{listed}; user, item and timestamp must be three of them, "
                         f"not {', '.join(columns.values())}.")
    return columns


def _refuse(path: Path, column: str, values: "pd.Series", bad: "pd.Series", what: str) -> None:
    """ValueError naming how many values are bad and where the first of them stands, if any is."""
    import pandas as pd

    if bad.any():
        row = bad.idxmax()
        place = f"row {row + 1}" if path.suffix.lower() == ".parquet" else f"line {row + 2}"
        value = "" if pd.isna(values[row]) else f" ({repr(values[row])[:100]})"
        raise ValueError(f"{path}: {bad.sum():,} values of column {column} {what}; the first is on {place}{value}.")


def _times(path: Path, column: str, values: "pd.Series") -> np.ndarray:     # type: ignore[return]  # its end raises
    """Times as an array of numbers [N], whatever the unit: only their order counts, and that is exact."""
    import pandas as pd

    _refuse(path, column, values, values.isna(), "are missing (timestamps)")
    if pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_timedelta64_dtype(values):
        return values.astype("int64").to_numpy()
    numbers = pd.to_numeric(values, errors="coerce")
    no_number = ~np.isfinite(numbers.astype(float))
    if not no_number.any():
        rounded = numbers.dtype.kind == "f" and values.dtype.kind != "f"        # floats made of text or Decimals
        return _ranks(values) if rounded else numbers.to_numpy()
    dates = pd.to_datetime(values.astype(str), errors="coerce", format="ISO8601", utc=True)
    if not dates.isna().any():
        return dates.astype("int64").to_numpy()
    bad = min(no_number, dates.isna(), key=lambda wrong: wrong.sum())     # the reading that nearly fits
    _refuse(path, column, values, bad, "are neither numbers nor ISO dates (timestamps)")


def _ranks(values: "pd.Series") -> np.ndarray:
    """Numbers in text as numbers in the same order: as floats, neighbours beyond 2^53 would be equal."""
    import pandas as pd

    texts = values.map(lambda value: value.decode() if isinstance(value, bytes) else str(value)).astype(str)
    whole = pd.to_numeric(texts.str.replace(r"^([+-]?\d+)\.0*$", r"\1", regex=True))
    if whole.dtype.kind in "iu":        # all of them like 881250949.0: fast
        return whole.to_numpy()
    codes, texts = pd.factorize(texts)
    floats = np.array([float(text) for text in texts])
    if len(np.unique(floats)) == len(texts):        # rounding keeps the order where it makes nothing equal
        return floats[codes]
    return np.unique(np.array([Decimal(text) for text in texts], object), return_inverse=True)[1][codes]


def _core(users: np.ndarray, items: np.ndarray, least_user: int, least_item: int) -> np.ndarray:
    """Indices of the rows left when users and items with fewer rows than that are dropped until none is."""
    kept = np.arange(len(users))
    while True:
        u, i = users[kept], items[kept]
        stays = (np.bincount(u, minlength=1)[u] >= least_user) & (np.bincount(i, minlength=1)[i] >= least_item)
        if stays.all():
            return kept
        kept = kept[stays]


def _count(users: np.ndarray, items: np.ndarray) -> str:
    return f"{len(users):,} interactions of {len(np.unique(users)):,} users with {len(np.unique(items)):,} items"
