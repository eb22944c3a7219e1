"""A table of interactions before it is read: what is known of it, whatever kind of file it comes from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .dataset import DataError, told

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow


@dataclass(frozen=True)
class Table:
    """A table before it is read: its columns, the first values of each, and how to have some of them.

    where: what errors call it. file: what the data set's source calls it. times: whether it may have a column of times.
    hint: what to add where a column cannot be told.
    """

    where: str
    file: str
    columns: list[str]
    sample: Callable[[int], list[str]]                  # the first values of the column at a place, as text
    read: Callable[[list[int]], "pd.DataFrame"]         # the columns at these places
    place: Callable[[int], str] = lambda row: f"row {row + 1}"
    times: bool = True
    hint: Callable[[], str] = str       # nothing


@contextmanager
def readable(path: Path, kind: str, encoding: str = "") -> Iterator[None]:
    """Whatever a reader raises within is a ValueError of one sentence, and one of its own where it is the encoding."""
    try:
        with told(f"{path} cannot be read as a {kind} file", ValueError):
            try:
                yield
            except (UnicodeError, LookupError, ValueError) as error:
                if encoding and (isinstance(error, UnicodeError) or type(error) is LookupError or "invalid UTF8" in str(error)):
                    raise DataError(f"{path} is no text in the encoding {encoding}: pass encoding= with its own, such as "
                                    "encoding='latin-1' or 'utf-16'.") from error
                raise
    except DataError as error:
        raise ValueError(str(error)) from error


def nested(values: Sequence[Any]) -> str:
    """What values hold beside plain ones: "lists of objects", "lists", "objects", or nothing."""
    lists = [value for value in values if isinstance(value, (list, tuple, set, np.ndarray))]
    if any(isinstance(value, dict) for one in lists for value in one):
        return "lists of objects"
    return "lists" if lists else "objects" if any(isinstance(value, dict) for value in values) else ""


def spread(rows: str, values: Mapping[str, Sequence[Any]]) -> str:
    """How to make rows of the columns that hold lists or objects, "" where none does.

    rows: an expression for the rows as dicts; values: the first of each column.
    """
    held = {name: found for name, some in values.items() if (found := nested(some))}
    if not held:
        return ""
    name, most = next(((name, found) for name, found in held.items() if found != "objects"), ("", "objects"))
    flat = [other for other in values if other not in held]
    call = {"lists of objects": f"pandas.json_normalize({rows}, {name!r}, {flat!r})",
            "lists": f"pandas.DataFrame({rows}).explode({name!r})", "objects": f"pandas.json_normalize({rows})"}[most]
    listed = " and ".join(f"{name} holds {found}" for name, found in held.items())
    return f"; {listed}: load_interactions({call}) makes rows of them"


def plain(table: "pyarrow.Table") -> "pd.DataFrame":
    """Columns as they are typed; a whole number never becomes a float, as it would in pandas beside a missing one."""
    import pyarrow

    table.validate(full=True)       # text that is no UTF-8 is found here, not when it is first looked at
    columns = [column.cast(column.type.value_type) if pyarrow.types.is_dictionary(column.type) else column
               for column in table.columns]
    return pyarrow.table(columns, names=list(map(str, range(len(columns))))).to_pandas(
        integer_object_nulls=True, date_as_object=False)


