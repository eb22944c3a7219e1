"""A user's own data: a file's or a DataFrame's interactions to a Dataset, with a report of what was found and dropped."""

import re
import warnings
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..base.checks import whole
from .columns import MISSING, find_columns
from .dataset import MIN_INTERACTIONS, Dataset, in_time_order
from .sources import open_table
from .table import Table

if TYPE_CHECKING:
    import pandas as pd

CHOICES = {
    "order": ("time", "file"), "layout": ("rows", "sequences"), "duplicates": ("keep", "drop"), "ties": ("file", "shuffle")}
TIED = 0.05             # share of tied rows from which their order in the file is looked at
FEWEST_PAIRS = 20       # of tied neighbours: fewer can be sorted by chance
TWITTER = "%a %b %d %H:%M:%S %z %Y"     # of Foursquare and Goodreads too; pandas does not guess it


def load_interactions(
    source: "str | Path | pd.DataFrame", user: str | None = None, item: str | None = None, timestamp: str | None = None,
    k_core: int | None = None, name: str | None = None, *, sep: str | None = None, names: Sequence[str] | None = None,
    date_format: str | None = None, order: Literal["time", "file"] = "time", layout: Literal["rows", "sequences"] = "rows",
    duplicates: Literal["keep", "drop"] = "keep", ties: Literal["file", "shuffle"] = "file", seed: int = 0,
    encoding: str = "utf-8",
) -> Dataset:
    """The Dataset of a file with one interaction a row, or of a pandas DataFrame.

    Args:
        source: a DataFrame; or a path, seen from the caller's directory, of text with separators (.csv, .tsv, .txt, .dat, ...)
        or JSON lines (.json, .jsonl), each also with .gz, of .parquet, a folder of such files, .feather, or .pkl with
        the dicts of the published data sets.
        user, item, timestamp: the columns' names; None finds them by the usual spellings (user_id, movieId, asin, ...).
        k_core: drop users and items with fewer than k interactions until none is left.
        name: of the data set; None takes the file's.
        sep: what separates the fields of text, r"\\s+" for runs of spaces; None finds it.
        names: a list of the columns' names, for text without a header.
        date_format: of times that are dates, as for strptime ("%d/%m/%Y"); None finds it where only one can be meant.
        order: "time", or "file" where rows stand in order already; then no time is needed nor read.
        layout: "rows", or "sequences" of text whose line is a user and then their items in order.
        duplicates: "drop" keeps the first of the rows with the same user, item and time.
        ties: "file" keeps a user's interactions at the same time in the file's order; "shuffle" mixes them by `seed`.
        encoding: of text.

    Timestamps are numbers or dates. Ids may be anything and are taken as they stand: text from files of text, so that 007 is
    not 7. Users and items are numbered in the order of their first row that is kept, users from 0 and items from 1;
    user_ids[u] and item_ids[i] give the file's ids. Users with fewer than 3 interactions, too few for leave-one-out, are
    dropped. `notes` says what was dropped, and what else of the data changes results.

    FileNotFoundError or ValueError, in one sentence, when the file is not there, it or a column cannot be told, a value is
    missing or no time, or nothing is left. UserWarning where many times are tied and the file is sorted by item.
    """
    import pandas as pd  # here and below, because it takes half a second to load

    k_core = None if k_core is None else whole(k_core, "k_core")
    seed = whole(seed, "seed", least=0)
    opened, places = _opened(source, {"user": user, "item": item, "timestamp": timestamp}, date_format, sep=sep, names=names,
                             encoding=encoding, order=order, layout=layout, duplicates=duplicates, ties=ties)
    timed = "timestamp" in places
    columns = {role: opened.columns[place] for role, place in places.items()}
    table = opened.read(list(places.values())).set_axis(list(columns), axis=1)

    notes = []
    blank = table.isna().all(axis=1)
    if blank.any():
        *first, last = columns
        notes.append(f"{blank.sum():,} rows without {', '.join(first)} and {last} (blank lines) were skipped.")
        table = table[~blank]
    for role in ("user", "item"):
        _refuse(opened, columns[role], table[role], table[role].isna(), f"are missing ({role} ids)")
    times = _times(opened, columns["timestamp"], table["timestamp"], date_format) if timed else np.arange(len(table))
    if not timed:
        notes.append("The order of interactions is that of the file; no times were read.")

    (users, user_ids), (items, item_ids) = (pd.factorize(table[role]) for role in ("user", "item"))
    del table
    notes.append(f"{_count(users, items)} were read.")
    for role, codes, ids in (("user", users, user_ids), ("item", items, item_ids)):
        for code in [code for code, id_ in enumerate(ids) if isinstance(id_, str) and id_ in MISSING]:
            notes.append(f"{(codes == code).sum():,} rows have the {role} {ids[code]!r}, which is taken for an id.")
    kept = np.arange(len(users))
    again = pd.DataFrame({"user": users, "item": items, "time": times}).duplicated().to_numpy()
    if again.any():
        said = "were dropped" if duplicates == "drop" else 'are kept; duplicates="drop" drops them'
        notes.append(f"{again.sum():,} rows repeat another row's user, item and time: they {said}.")
        kept = kept[~again] if duplicates == "drop" else kept
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
        raise ValueError(f"Nothing is left of {opened.where}: {' '.join(notes)}")

    times = times[kept]
    (users, kept_users), (items, kept_items) = (pd.factorize(codes[kept]) for codes in (users, items))
    user_ids, item_ids = user_ids[kept_users], item_ids[kept_items]
    if timed:
        notes += _tied(opened.where, users, items, times, item_ids, ties)
    if ties == "shuffle":
        mixed = np.random.default_rng(seed).permutation(len(users))
        users, items, times = users[mixed], items[mixed], times[mixed]
    flat, offsets = in_time_order(users, items + 1, times)
    notes += _remarks(flat, offsets)
    return Dataset(
        name or Path(opened.file.removesuffix(".gz")).stem, len(item_ids), flat, offsets,
        source=f"{opened.file} (columns {', '.join(columns.values())})", notes=tuple(notes), user_ids=tuple(user_ids.tolist()),
        item_ids=(None, *item_ids.tolist()))


def check_interactions(
    source: "str | Path | pd.DataFrame", user: str | None = None, item: str | None = None, timestamp: str | None = None,
    k_core: int | None = None, *, date_format: str | None = None, encoding: str = "utf-8", **how: Any
) -> None:
    """Raises what load_interactions raises for these arguments before it reads more than a file's beginning."""
    if k_core is not None:
        whole(k_core, "k_core")
    _opened(source, {"user": user, "item": item, "timestamp": timestamp}, date_format, encoding=encoding, **how)


def _opened(source: Any, wanted: dict[str, str | None], date_format: str | None, *, sep: str | None,
            names: Sequence[str] | None, encoding: str, **choices: str) -> tuple[Table, dict[str, int]]:
    """(table, {role: place of its column}) of what is to be loaded; no role timestamp where the order is the file's."""
    for option, value in choices.items():
        if value not in CHOICES[option]:
            raise ValueError(f"{option} must be {' or '.join(map(repr, CHOICES[option]))}, but it is {value!r}.")
    opened = open_table(source, wanted, sep=sep, names=names, layout=choices["layout"], encoding=encoding)
    if choices["order"] == "file" or not opened.times:
        of_times = {"timestamp": wanted.pop("timestamp"), "date_format": date_format,
                    **{option: choices[option] for option in ("duplicates", "ties") if choices[option] != CHOICES[option][0]}}
        for option, given in of_times.items():
            if given is not None:
                raise ValueError(f"{option}={given!r} is of times, and where the order is the file's none are read: leave it "
                                 "out.")
    return opened, find_columns(opened.where, opened.columns, wanted, opened.sample, opened.hint)


def _tied(where: str, users: np.ndarray, items: np.ndarray, times: np.ndarray, item_ids: Any, ties: str) -> list[str]:
    """What to say of interactions that share user and time; a warning where the file's order tells the item's number.

    Within a tie the item that comes next is then a larger one: a model learns this, and its metrics are no longer of taste.
    """
    import pandas as pd

    order = np.lexsort((times, users))
    same = (users[order][1:] == users[order][:-1]) & (times[order][1:] == times[order][:-1])      # [N - 1]
    tied = int((np.append(same, False) | np.append(False, same)).sum())
    if not tied:
        return []
    if ties == "shuffle":
        return [f"{tied:,} of {len(users):,} interactions share user and time with another; their order is random."]
    notes = [f"{tied:,} of {len(users):,} interactions share user and time with another; file order decides."]
    numbers = pd.to_numeric(pd.Series(item_ids).astype(str), errors="coerce")
    by_id = np.argsort(np.argsort(numbers if numbers.notna().all() else np.asarray(item_ids).astype(str), kind="stable"))
    grouped = (items[1:] != items[:-1]).sum() < 1.05 * len(item_ids) and len(items) >= 2 * len(item_ids)
    for rank in [by_id, *([np.arange(len(item_ids))] if grouped else [])]:      # by id; or all rows of an item together
        steps = np.diff(rank[items[order]])[same]
        steps = steps[steps != 0]
        if tied > TIED * len(users) and len(steps) >= FEWEST_PAIRS and max((steps > 0).mean(), (steps < 0).mean()) >= 0.95:
            notes.append("Within these ties the file is sorted by item, which a model can learn in place of taste: "
                         'ties="shuffle" puts them in a random order.')
            warnings.warn(f"{where}: {notes[0].replace('; file order decides.', '.')} {notes[1]}", stacklevel=3)
            break
    return notes


def _remarks(items: np.ndarray, offsets: np.ndarray) -> list[str]:
    """What else of sequences changes results: an item right after itself, and targets that training never saw."""
    notes = []
    follows = np.ones(len(items), bool)
    follows[offsets[:-1]] = False       # each user's first
    repeats = int((follows[1:] & (items[1:] == items[:-1])).sum())
    if repeats:
        notes.append(f"{repeats:,} interactions are with the same item as the user's one before; they are kept.")
    training = np.ones(len(items), bool)
    training[offsets[1:] - 1] = training[offsets[1:] - 2] = False
    seen = np.zeros(items.max() + 1, bool)
    seen[items[training]] = True
    unseen = [int((~seen[items[offsets[1:] - back]]).sum()) for back in (2, 1)]
    if any(unseen):
        notes.append(f"{unseen[0]:,} of {len(offsets) - 1:,} validation targets and {unseen[1]:,} of the test targets are "
                     "items that training never saw: no model can have learned them.")
    return notes


def _refuse(table: Table, column: str, values: "pd.Series", bad: "pd.Series", what: str, advice: str = "") -> None:
    """ValueError naming how many values are bad and where the first of them stands, if any is."""
    import pandas as pd

    if bad.any():
        row = bad.idxmax()
        value = "" if pd.isna(values[row]) else f" ({repr(values[row])[:100]})"
        raise ValueError(f"{table.where}: {bad.sum():,} values of column {column} {what}; the first is on "
                         f"{table.place(row)}{value}{advice}.")


def _times(table: Table, column: str, values: "pd.Series", date_format: str | None) -> np.ndarray:
    """Times as an array of numbers [N], whatever the unit: only their order counts, and that is exact."""
    import pandas as pd

    _refuse(table, column, values, values.isna(), "are missing (timestamps)")
    values = values.infer_objects()     # a DataFrame may hold anything as objects
    if pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_timedelta64_dtype(values):
        return values.astype("int64").to_numpy()
    if date_format is not None:
        dates = _parsed(values.astype(str), date_format)
        _refuse(table, column, values, dates.isna(), f"are no dates of the form {date_format!r} (timestamps)",
                ": pass another date_format=, or leave it out to have it found")
        return dates.astype("int64").to_numpy()
    numbers = pd.to_numeric(values, errors="coerce")
    no_number = ~np.isfinite(numbers.astype(float))
    if not no_number.any():
        rounded = numbers.dtype.kind == "f" and values.dtype.kind != "f"        # floats made of text or Decimals
        return _ranks(values) if rounded else numbers.to_numpy(getattr(numbers.dtype, "numpy_dtype", numbers.dtype))
    texts = values.astype(str).str.replace(r"\s*(UTC|GMT)$", "Z", regex=True)
    dates = pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=True)
    if not dates.isna().any():
        return dates.astype("int64").to_numpy()
    found = _formats(texts)
    fits = {form: parsed for form in found if not (parsed := _parsed(texts, form)).isna().any()}
    first, *others = fits.values() or [None]
    if first is not None and all((first == other).all() for other in others):
        return first.astype("int64").to_numpy()
    bad = min([no_number, dates.isna(), *(_parsed(texts, form).isna() for form in found if form not in fits)],
              key=lambda wrong: wrong.sum()) if first is None else pd.Series(True, values.index)      # what nearly fits
    if first is None:
        _refuse(table, column, values, bad, "are neither numbers nor dates of one form that can be told (timestamps)",
                ": correct it, pass date_format=, such as date_format='%d/%m/%Y %H:%M', or take another column by timestamp=")
    _refuse(table, column, values, bad, "are dates that can be read in two ways (timestamps)",
            f": pass date_format={' or date_format='.join(map(repr, fits))}")
    raise AssertionError        # one of the two has raised


def _parsed(texts: "pd.Series", form: str) -> "pd.Series":
    """Dates of one form; NaT where a text is none. Each different text is parsed once."""
    import pandas as pd

    codes, different = pd.factorize(texts)
    try:
        dates = pd.Series(pd.to_datetime(pd.Series(different), format=form, errors="coerce", utc=True))
    except ValueError as error:
        raise ValueError(f"date_format={form!r} is no form of a date ({error}): pass one as for strptime, such as "
                         "'%d/%m/%Y'.") from error
    return pd.Series(dates.to_numpy()[codes], texts.index)


def _formats(texts: "pd.Series") -> list[str]:
    """Forms of dates that the first texts may have, with the day before the month and after it."""
    from pandas.tseries.api import guess_datetime_format

    forms = {TWITTER: None}
    for text in texts.iloc[:100].str.replace(r"pm$", "AM", case=False, regex=True).unique():     # pandas guesses no PM
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")     # that the day is first though it was said to be last: both are tried
            guessed = sorted({guess_datetime_format(text, dayfirst=first) for first in (False, True)} - {None})
        for form in guessed:
            if form.startswith("%Y"):       # after the year comes the month
                form = re.sub(r"%d(\W?)%m", r"%m\1%d", form)
            elif "%m" in form:
                forms[re.sub("%[dm]", lambda found: "%m" if found[0] == "%d" else "%d", form)] = None
            forms[form] = None
    return list(forms)


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
