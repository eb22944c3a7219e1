"""What interactions can be read from: which kind a file is, and the columns of Parquet, Feather, pickles and DataFrames.

Only the columns that are asked for are read, and stay in memory.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .dataset import MOST, DataError
from .published import read_pickle
from .table import Table, nested, plain, readable, spread
from .text import LOOKED_AT, json_table, sequences_table, text_table

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

TEXT = (".csv", ".tsv", ".txt", ".dat", ".data", ".inter", ".base", ".test", ".rating")
JSON = (".json", ".jsonl")
PACKED = (".parquet", ".feather", ".pkl")
LARGEST_PICKLE = 1 << 30        # bytes


def kind_of(path: Path) -> str:
    """The ending that says how a file is read, .gz with what is before it, or "folder"; ValueError for another."""
    if os.path.isdir(path):
        return "folder"
    kind = path.suffix.lower()
    if kind == ".gz":
        kind = Path(path.stem).suffix.lower() + kind
    if kind.removesuffix(".gz") not in TEXT + JSON and kind not in PACKED:
        raise ValueError(f"{path} has the suffix {kind!r}; {', '.join(TEXT + JSON)} (each also with .gz), {', '.join(PACKED)} "
                         "and folders of .parquet are read: rename it, or read it with pandas and pass the DataFrame.")
    return kind


def open_table(source: Any, wanted: Mapping[str, str | None], *, sep: str | None, names: Sequence[str] | None, layout: str,
               encoding: str) -> Table:
    """The Table of a path or a DataFrame; FileNotFoundError or ValueError, in one sentence, if it cannot be had.

    wanted: the columns' names that the caller gave, by role; for a file without a header they help to name its columns.
    """
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        kind = "DataFrame"
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        kind = kind_of(path)
        if not os.path.exists(path):        # unlike Path.exists this is False, too, where a name is too long
            raise FileNotFoundError(f"There is no file {path}.")
    else:
        raise ValueError(f"Interactions are read from a path or a pandas DataFrame, and this is a {type(source).__name__}: "
                         "make a pandas.DataFrame of it.")
    is_text = kind.removesuffix(".gz") in TEXT
    if not is_text and (sep, names, layout) != (None, None, "rows"):
        given = next(name for name, value, none in (("sep", sep, None), ("names", names, None), ("layout", layout, "rows"))
                     if value != none)
        raise ValueError(f"{given}= is for files of text, and this is a {kind}: leave it out.")
    if kind == "DataFrame":
        return frame_table(source)
    if kind.removesuffix(".gz") in JSON:
        return json_table(path, kind, encoding)
    if is_text:
        if layout == "sequences":
            return sequences_table(path, sep, encoding)
        return text_table(path, kind, wanted, sep, names, encoding)
    return pickle_table(path) if kind == ".pkl" else columnar_table(path, kind)


def columnar_table(path: Path, kind: str) -> Table:
    """Parquet, Feather, and folders of Parquet as Spark writes them, their files in the order of their names."""
    import pyarrow
    from pyarrow import ipc, parquet

    files: list[Path] = [path]
    parts: list[dict[str, str]] = [{}]      # columns that Spark writes as a folder's name, date=2020-01-01
    if kind == "folder":
        files = sorted(file for file in path.rglob("*.parquet") if file.relative_to(path).as_posix()[0] not in "._")
        if not files:
            raise ValueError(f"{path} is a folder without a .parquet file: pass the path of a file, or read its files with "
                             "pandas and pass the DataFrame.")
        parts = [dict(part.split("=", 1) for part in file.relative_to(path).parent.parts if "=" in part) for file in files]
        kind = ".parquet"

    def some(places: list[int], rows: int | None = None) -> "pyarrow.Table":
        """The columns at these places; of the first file alone, about so many rows."""
        if kind == ".feather":
            options = ipc.IpcReadOptions(included_fields=places, use_threads=False)
            with pyarrow.memory_map(str(path)) as source, ipc.open_file(source, options=options) as file:
                table = pyarrow.Table.from_batches([file.get_batch(0)]) if rows and file.num_record_batches else file.read_all()
            order = sorted(places)
            return table.select([order.index(place) for place in places])
        names, tables = [schema.names[place] for place in places], []
        for file, part in zip(files[:1] if rows else files, parts):
            inside = [name for name in names if name not in part]
            with parquet.ParquetFile(file) as opened:
                some_rows = opened.metadata.num_rows and rows
                table = pyarrow.Table.from_batches([next(opened.iter_batches(rows, columns=inside))]) if some_rows else (
                    opened.read(inside))
            for name in names:
                if name in part:
                    table = table.append_column(name, pyarrow.array([part[name]] * len(table), pyarrow.string()))
            tables.append(table.select(names))
        return pyarrow.concat_tables(tables, promote_options="default")

    with readable(path, kind):
        if kind == ".feather":
            with pyarrow.memory_map(str(path)) as source, ipc.open_file(source) as file:
                schema = file.schema
        else:
            schema = parquet.read_schema(files[0])
            for name in parts[0]:
                schema = schema.append(pyarrow.field(name, pyarrow.string()))
            count = sum(parquet.read_metadata(file).num_rows for file in files)
            if count > MOST:
                raise ValueError(f"it claims {count:,} rows; at most {MOST:,} can be read")

    def is_nested(kind: "pyarrow.DataType") -> bool:
        return pyarrow.types.is_nested(getattr(kind, "storage_type", kind))       # an extension is of a plain type

    def hint() -> str:
        module = "feather" if kind == ".feather" else "parquet"
        lists = any(map(is_nested, schema.types)) and len(set(schema.names)) == len(schema.names)
        first = some(list(range(len(schema))), LOOKED_AT)[:LOOKED_AT].to_pydict() if lists else {}
        return spread(f"pyarrow.{module}.read_table({str(path)!r}).to_pylist()", first)

    def sample(place: int) -> list[str]:
        with readable(path, kind):
            values = some([place], LOOKED_AT).column(0)[:LOOKED_AT].to_pylist()
        return ["" if value is None else str(value) for value in values]

    def read(places: list[int]) -> "pd.DataFrame":
        with readable(path, kind):
            for place in places:
                if is_nested(schema.field(place).type):
                    raise ValueError(f"column {schema.names[place]} holds {schema.field(place).type}, but user, item and "
                                     f"timestamp must be plain values{hint() or ': pass another column'}")
            return plain(some(places))

    return Table(str(path), path.name, schema.names, sample, read, hint=hint)


def frame_table(table: "pd.DataFrame") -> Table:
    import pandas as pd

    if any(name is not None and name not in table.columns for name in table.index.names):
        table = table.reset_index([name for name in table.index.names if name is not None and name not in table.columns])
    columns = [str(name) for name in table.columns]

    def hint() -> str:
        return spread("table.to_dict('records')", {
            name: table.iloc[:LOOKED_AT, i].tolist() for i, name in enumerate(columns)})

    def read(places: list[int]) -> "pd.DataFrame":
        read = table.iloc[:, places].reset_index(drop=True)
        read.columns = range(len(places))       # two columns may have one name
        for i, place in enumerate(places):
            if isinstance(read[i].dtype, pd.CategoricalDtype):
                read[i] = read[i].astype(object)
            if read[i].dtype == object and nested(read[i]):
                raise ValueError(f"DataFrame: column {columns[place]} holds no plain values{hint()}.")
        return read

    def sample(place: int) -> list[str]:
        return ["" if pd.isna(value) is True else str(value) for value in table.iloc[:LOOKED_AT, place]]

    return Table("DataFrame", "a DataFrame", columns, sample, read, hint=hint)


def pickle_table(path: Path) -> Table:
    """The dicts train, val and test of the published data sets, with the numbers of users and items as ids."""
    with open(path, "rb") as file:
        if b"pandas" in file.read(1000):
            raise ValueError(f"{path} is an object of pandas, and a pickle can run any program when it is opened: if you trust "
                             f"it, pass load_interactions(pandas.read_pickle({str(path)!r})).")

    def read(places: list[int]) -> "pd.DataFrame":
        import pandas as pd

        try:
            found = read_pickle(path, LARGEST_PICKLE)
        except DataError as error:
            raise ValueError(str(error)) from error
        users = np.repeat(np.arange(len(found["offsets"]) - 1), np.diff(found["offsets"]))
        return pd.DataFrame({"user": users, "item": found["items"]}).iloc[:, places]

    return Table(str(path), path.name, ["user", "item"], lambda place: [], read, lambda row: f"interaction {row + 1}", False)
