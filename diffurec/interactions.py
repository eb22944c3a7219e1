"""A user's own data: CSV, Parquet or RecBole's .inter to a Dataset, with a report of everything that was dropped."""

import csv
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from .dataset import MIN_INTERACTIONS, Dataset, in_time_order

# Column names that are understood, in lower case and without anything but letters and digits.
SPELLINGS = {
    "user": "user userid uid username reviewer reviewerid customer customerid visitor visitorid account "
            "accountid".split(),
    "item": "item itemid iid movie movieid film filmid asin product productid article articleid book bookid isbn "
            "business businessid track trackid song songid artist artistid video videoid game gameid".split(),
    "timestamp": "timestamp timestamps time ts unixreviewtime unixtime reviewtime date datetime createdat".split(),
}


def load_interactions(path, user=None, item=None, timestamp=None, k_core=None, name=None):
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
    path = Path(path)
    if k_core is not None and (isinstance(k_core, bool) or not isinstance(k_core, (int, np.integer)) or k_core < 1):
        raise ValueError(f"k_core must be a whole number of at least 1, or None, but it is {k_core!r}.")
    read_columns, read = _reader(path)
    columns = _columns(path, read_columns(), {"user": user, "item": item, "timestamp": timestamp})
    table = read(list(columns.values()))[list(columns.values())].set_axis(list(columns), axis=1)

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


def _reader(path):
    """Two functions for the kind of file: its column names, and the table of some of its columns (None: missing)."""
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet", ".inter"):
        raise ValueError(f"{path} has the suffix {path.suffix!r}; .csv, .parquet and .inter are read.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")

    def told(read):
        def guarded(*arguments):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", pd.errors.ParserWarning)     # rows longer than the header
                    return read(*arguments)
            except (ValueError, OSError, pd.errors.ParserWarning) as error:     # pandas' and arrow's are ValueErrors
                raise ValueError(f"{path} cannot be read as a {kind} file ({str(error).strip()}).") from error
        return guarded

    if kind == ".parquet":
        import pyarrow.parquet as parquet
        return (told(lambda: list(parquet.read_schema(path).names)),
                told(lambda columns: parquet.read_table(path, columns=columns).to_pandas(ignore_metadata=True)))
    options = {"sep": "\t", "quoting": csv.QUOTE_NONE} if kind == ".inter" else {}
    options |= {"dtype": str, "encoding": "utf-8-sig", "keep_default_na": False, "na_values": [""], "index_col": False,
                "skip_blank_lines": False}      # only an empty field is missing; row i stands on line i + 2
    return (told(lambda: list(pd.read_csv(path, nrows=0, **options).columns)),
            told(lambda columns: pd.read_csv(path, **options)[columns]))    # usecols= would let too long rows pass


def _columns(path, found, wanted):
    """{role: column} for user, item and timestamp: as named, or the one column with a usual spelling."""
    plain = {column: column.split(":")[0] for column in found}      # .inter writes name:type
    listed = f"{path} has the columns {', '.join(found) or '(none)'}"
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
        if len(fits) > 1:
            raise ValueError(f"{listed}, and {' and '.join(fits)} could each be the {role}: pass {role}= with one.")
        columns[role] = fits[0]
    if len(set(columns.values())) < len(columns):
        raise ValueError(f"{listed}; user, item and timestamp must be three of them, "
                         f"not {', '.join(columns.values())}.")
    return columns


def _refuse(path, column, values, bad, what):
    """ValueError naming how many values are bad and where the first of them stands, if any is."""
    if bad.any():
        row = bad.idxmax()
        place = f"row {row + 1}" if path.suffix.lower() == ".parquet" else f"line {row + 2}"
        value = "" if pd.isna(values[row]) else f" ({values[row]!r})"
        raise ValueError(f"{path}: {bad.sum():,} values of column {column} {what}; the first is on {place}{value}.")


def _times(path, column, values):
    """Times as an array of numbers [N], whatever the unit: only their order counts."""
    _refuse(path, column, values, values.isna(), "are missing (timestamps)")
    if pd.api.types.is_datetime64_any_dtype(values):
        return values.astype("int64").to_numpy()
    numbers = pd.to_numeric(values, errors="coerce")
    no_number = ~np.isfinite(numbers.astype(float))
    if not no_number.any():
        return numbers.to_numpy()
    dates = pd.to_datetime(values.astype(str), errors="coerce", format="ISO8601", utc=True)
    if not dates.isna().any():
        return dates.astype("int64").to_numpy()
    bad = min(no_number, dates.isna(), key=lambda wrong: wrong.sum())     # the reading that nearly fits
    _refuse(path, column, values, bad, "are neither numbers nor ISO dates (timestamps)")


def _core(users, items, least_user, least_item):
    """Indices of the rows left when users and items with fewer rows than that are dropped until none is."""
    kept = np.arange(len(users))
    while True:
        u, i = users[kept], items[kept]
        stays = (np.bincount(u, minlength=1)[u] >= least_user) & (np.bincount(i, minlength=1)[i] >= least_item)
        if stays.all():
            return kept
        kept = kept[stays]


def _count(users, items):
    return f"{len(users):,} interactions of {len(np.unique(users)):,} users with {len(np.unique(items)):,} items"
