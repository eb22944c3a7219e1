"""Interactions in files of text: the separator, the header, the encoding, and their columns; JSON lines; sequences."""

import codecs
import csv
import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .columns import guess_names, is_header, spelled
from .dataset import DataError
from .table import Table, nested, plain, readable, spread

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

SEPARATORS = {",": "','", "\t": r"'\t'", ";": "';'", "|": "'|'", "::": "'::'", " ": "' '", r"\s+": r"r'\s+'"}    # as written
LOOKED_AT = 100         # lines at the beginning of a file by which it is judged
BEGINNING = 1 << 17     # bytes they may have; the csv module takes no longer field
BLOCK = 1 << 21         # bytes that are parsed at once


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


def _beginning(path: Path, encoding: str) -> tuple[list[str], bool]:
    """The first lines of a file of text, and whether these are all; ValueError when there is none."""
    with (gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb")) as file:
        content = file.read(BEGINNING)
        whole = not file.read(1)
    if _is_utf8(encoding) and (content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content[:200]):
        raise UnicodeError("UTF-16")
    text = codecs.getincrementaldecoder(encoding)("replace").decode(content, final=False).removeprefix("\ufeff")
    lines = list(io.StringIO(text, newline=""))
    if not whole and len(lines) > 1:
        lines.pop()     # half a line
    if not any(line.strip() for line in lines):
        raise DataError(f"{path} is empty.")
    return lines[:LOOKED_AT], whole and len(lines) <= LOOKED_AT


def _rows(lines: list[str], whole: bool, sep: str, quoted: bool) -> list[list[str]]:
    """The fields of lines, without blank ones."""
    if quoted:
        rows = [row for row in csv.reader(lines, delimiter=sep)]
        rows = rows if whole or len(rows) < 2 else rows[:-1]        # the last may be cut within quotes
    else:
        split = re.compile(sep).split if sep == r"\s+" else lambda line: line.split(sep)
        rows = [split(line.strip() if sep == r"\s+" else line.rstrip("\r\n")) for line in lines]
    return [row for row in rows if any(map(str.strip, row))]


def _separated(path: Path, kind: str, lines: list[str], first: str, whole: bool, sep: str | None
               ) -> tuple[str, bool, list[list[str]]]:
    """(separator, whether fields may be in quotes, the first rows): what gives all lines the same number of fields."""
    if sep and sep != r"\s+" and sep not in first:
        raise DataError(f"{path} has no {sep!r} in its first line ({first[:100]!r}): pass another sep=, or leave it out to "
                        "have it found.")
    inter = kind.startswith(".inter")       # tabs, and no quotes
    tries = []
    for one in [sep] if sep else ["\t"] if inter else SEPARATORS:
        # Tables with tabs or spaces are often written without quoting: there a lone quote is a part of a title.
        for quoted in [False] if inter or len(one) > 1 else [True, False] if one in ",;|" else [False, True]:
            try:
                rows = _rows(lines, whole, one, quoted)
            except csv.Error:
                continue
            if rows and len(rows[0]) > 1:
                tries.append((one, quoted, rows))
                if len({len(row) for row in rows}) == 1 and (quoted or inter or not _has_quoted_column(rows)):
                    break
    even = list({t[0]: t for t in tries if len({len(row) for row in t[2]}) == 1}.values())      # the last way of each
    even = [t for t in even if t[0] != " " or sep or all(map(all, t[2]))]       # there are no runs of spaces
    even = [t for t in even if t[0] not in (" ", r"\s+")] or even[:1]       # within dates and titles there are spaces
    most = max((len(rows[0]) for _, _, rows in even), default=0)
    best = [t for t in even if len(t[2][0]) == most]
    if len(best) == 1:
        return best[0]
    if best:
        raise DataError(f"{path} could be separated by {' or by '.join(SEPARATORS[t[0]] for t in best)}: pass sep= with one.")
    if re.fullmatch(r"\d+:", first):
        raise DataError(
            f"{path} has lines like {first!r} above the rows of an item, as Netflix has it: read it by table = "
            f"pandas.read_csv({str(path)!r}, names=['user', 'rating', 'date'], dtype=str), and then "
            "load_interactions(table.assign(item=table.user.where(table.date.isna()).ffill()).dropna()).")
    raise DataError(_uneven(path, kind, lines, first, tries, sep))


def _has_quoted_column(rows: list[list[str]]) -> bool:
    return any(all(re.fullmatch(r'"[^"]*"', field) for field in column) for column in zip(*rows[1:] or rows))


def _uneven(path: Path, kind: str, lines: list[str], first: str, tries: list[tuple[str, bool, list[list[str]]]], sep: str | None
            ) -> str:
    """What to say of lines of which no separator makes rows."""
    if not tries:
        return (f"{path} has one column only where {', '.join(SEPARATORS.values())} are tried as separators (its first line is "
                f"{first[:100]!r}): pass sep= with another.")
    for _, _, rows in tries:
        if len({len(row) for row in rows}) > (2 if len(rows) > 4 else 1) and not any(map(spelled, rows[0])) and all(
                re.fullmatch(r"\S+", field) for row in rows for field in row if field):
            return (f"{path} has lines of different lengths, so that it holds no table: if a line is a user and then their "
                    f"items in order, pass {f'sep={sep!r}, ' if sep else ''}layout=\"sequences\", otherwise sep= with what "
                    "separates the fields.")
    one, _, rows = max(tries, key=lambda t: max(map([len(row) for row in t[2]].count, {len(row) for row in t[2]})))
    odd = next(n for n, row in enumerate(rows) if len(row) != len(rows[0]))
    filled = [n for n, line in enumerate(lines) if line.strip()]
    number = (filled[odd] if len(rows) >= len(filled) - 1 else odd) + 1     # a quoted field over several lines counts as one
    return (f"{path} cannot be read as a {kind} file: separated by {SEPARATORS.get(one, repr(one))}, the first line has "
            f"{len(rows[0])} fields and line {number} has {len(rows[odd])}; correct it, or pass another sep=.")


def text_table(path: Path, kind: str, wanted: Mapping[str, str | None], sep: str | None, names: Sequence[str] | None,
               encoding: str) -> Table:
    """Fields are kept as text; only an empty one is missing."""
    with readable(path, kind, encoding):
        lines, whole = _beginning(path, encoding)
        skipped = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith(("%", "# "))), 0)
        lines[:skipped] = [""] * skipped        # blank lines and comments at the top
        if lines[skipped].lstrip().startswith(("{", "[")) and not sep:
            raise DataError(f"{path} holds JSON: rename it to .json.")
        sep, quoted, rows = _separated(path, kind, lines, lines[skipped].strip(), whole, sep)
    width = len(rows[0])
    header = is_header(rows[0], rows[1:])
    shown = lines[skipped].strip()
    shown = repr(shown if len(shown) < 200 else shown[:200] + "...")
    if names is not None:
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise ValueError("names= must be a list of the columns' names, such as ['user', 'item', 'time'], but it is "
                             f"{names!r}.")
        if len(names) != width:
            raise ValueError(f"names= has {len(names)} names, and {path} has {width} columns (its first line is {shown}): give "
                             "a name for each.")
        if header and any(map(spelled, rows[0])):
            raise ValueError(f"{path} has a header ({shown}), which names= would make a row: leave names= out.")
        header = False
    elif not header:
        raise ValueError(_headless(path, rows, wanted, shown))
    columns = names or rows.pop(0)
    first = skipped + header        # lines before the first row

    def read(places: list[int]) -> "pd.DataFrame":
        import pyarrow
        from pyarrow import csv as reader

        odd: list[Any] = []

        def refuse(row: Any) -> str:
            odd.append(row)
            return "error"

        numbered = [str(i) for i in range(width)]       # two columns may have one name
        asked = [str(i) for i in places]
        with readable(path, kind, encoding), _stream(path, encoding, sep) as stream:
            try:
                table = reader.read_csv(
                    stream,
                    read_options=reader.ReadOptions(
                        use_threads=False, block_size=BLOCK, skip_rows=first, column_names=numbered),
                    parse_options=reader.ParseOptions(
                        delimiter=sep if len(sep) == 1 else "\x1f", quote_char='"' if quoted else False,
                        newlines_in_values=quoted, ignore_empty_lines=False, invalid_row_handler=refuse),
                    convert_options=reader.ConvertOptions(
                        include_columns=asked, column_types=dict.fromkeys(asked, pyarrow.string()), null_values=[""],
                        strings_can_be_null=True, quoted_strings_can_be_null=True))
            except pyarrow.ArrowInvalid as error:
                if not odd:
                    raise
                raise DataError(f"{path} cannot be read as a {kind} file: line {odd[0].number} has {odd[0].actual_columns} "
                                f"fields and the first one {width}; correct it, or pass another sep=.") from error
        return plain(table)

    return Table(str(path), path.name, list(columns), lambda i: [row[i] for row in rows], read,
                 lambda row: f"line {row + first + 1}")


def _headless(path: Path, rows: list[list[str]], wanted: Mapping[str, str | None], shown: str) -> str:
    """What to say of a file whose first line is no header, with the call that reads it."""
    names = guess_names(rows, wanted)
    untimed = 'and order="file" if the rows stand in order' if len(names) == 2 else (
        'with "time" for the column of the time, or with order="file" if there is none and the rows stand in order')
    if len(names) > 2 and all(field.isdecimal() for row in rows for field in row):
        untimed += ', or instead layout="sequences" if a line is a user and then their items'
    call = f"names={names}" if "time" in names else f"names={names}, {untimed}"
    return (f"{path} has no header (its first line is {shown}): pass {call}; look first which column is the user's, which the "
            "item's.")


@contextmanager
def _stream(path: Path, encoding: str, sep: str) -> Iterator["pyarrow.NativeFile"]:
    """A file of text as UTF-8, unpacked, with a separator of several characters replaced by one."""
    import pyarrow

    with pyarrow.input_stream(path, compression="gzip" if path.suffix.lower() == ".gz" else None) as stream:
        if not _is_utf8(encoding):
            stream = pyarrow.transcoding_input_stream(stream, encoding, "utf-8")
        if len(sep) > 1:
            stream = pyarrow.lib.TransformInputStream(stream, _OneSeparator(sep))
        yield stream


class _OneSeparator:
    """Replaces a separator of several characters, or runs of spaces, in what is read: in whole lines, and the last rest."""

    def __init__(self, sep: str) -> None:
        self.sep, self.rest = sep, b""

    def __call__(self, content: Any) -> bytes:
        head, end, rest = (self.rest + bytes(content)).rpartition(b"\n")
        lines, self.rest = (head + end, rest) if len(content) else (rest, b"")      # nothing: the end of the file
        if self.sep == r"\s+":
            return re.sub(rb"[ \t]+", b"\x1f", re.sub(rb"(?m)^[ \t]+|[ \t\r]+$", b"", lines))
        return lines.replace(self.sep.encode(), b"\x1f")


def _lines(path: Path, encoding: str) -> IO[str]:
    encoding = "utf-8-sig" if _is_utf8(encoding) else encoding      # a byte order mark is no part of the first line
    return gzip.open(path, "rt", encoding=encoding) if path.suffix.lower() == ".gz" else open(path, encoding=encoding)


def sequences_table(path: Path, sep: str | None, encoding: str) -> Table:
    """A line is a user and then their items, separated by spaces, tabs or commas, or by another separator that is there."""
    with readable(path, path.suffix, encoding):
        first = next(line for line in _beginning(path, encoding)[0] if line.strip())
    spaces = re.compile(r"[\s,]+")
    if sep is None and not spaces.search(first.strip()):
        sep = next((one for one in SEPARATORS if one in first), None)
    split = spaces.split if sep in (None, " ", r"\s+") else lambda line: line.split(sep)

    def read(places: list[int]) -> "pd.DataFrame":
        import pandas as pd

        users: list[str | None] = []
        items: list[str | None] = []
        with readable(path, path.suffix, encoding), _lines(path, encoding) as file:
            for line in file:
                user, *row = [field.strip() for field in split(line.strip())]
                row = row if not row or row[-1] else row[:-1]       # a separator at the end of the line
                users += [user.removesuffix(":") or None] * len(row)
                items += [item or None for item in row]
        return pd.DataFrame({"user": users, "item": items}, dtype="str").iloc[:, places]

    return Table(str(path), path.name, ["user", "item"], lambda place: [], read, lambda row: f"interaction {row + 1}", False)


def json_table(path: Path, kind: str, encoding: str) -> Table:
    """A JSON object a line. A column is of text or of numbers, as its first values are."""
    with readable(path, kind, encoding):
        lines, _ = _beginning(path, encoding)
        objects = []
        for number, line in enumerate(lines, start=1):
            try:
                if line.strip():
                    objects.append(json.loads(line))
            except ValueError:
                objects.append(None)
            if objects and not isinstance(objects[-1], dict):
                raise DataError(_no_lines(path, line, number))
    columns = list(dict.fromkeys(name for one in objects for name in one))
    values = {name: [one[name] for one in objects if one.get(name) is not None] for name in columns}
    opened = f"gzip.open({str(path)!r})" if path.suffix == ".gz" else f"open({str(path)!r})"

    def hint() -> str:
        return spread(f"[json.loads(line) for line in {opened}]", values)

    def read(places: list[int]) -> "pd.DataFrame":
        import pyarrow

        names = [columns[place] for place in places]
        for name in names:
            if nested(values[name]):
                raise ValueError(f"{path}: column {name} holds no plain values{hint()}.")
        types = {name: set(map(type, values[name])) for name in names}
        kinds = {name: pyarrow.string() if held <= {str} else pyarrow.int64() if held <= {int} else pyarrow.float64()
                 for name, held in types.items()}
        with readable(path, kind, encoding):
            try:
                table = _json_columns(path, encoding, kinds)
            except pyarrow.ArrowInvalid as error:
                if "to int64" not in str(error) or len(names) < 3:
                    raise
                table = _json_columns(path, encoding, kinds | {names[2]: pyarrow.float64()})    # times with a fraction
        return plain(table.select(names))

    return Table(str(path), path.name, columns, lambda i: [str(value) for value in values[columns[i]]], read,
                 lambda row: f"object {row + 1}", hint=hint)


def _json_columns(path: Path, encoding: str, kinds: "dict[str, pyarrow.DataType]") -> "pyarrow.Table":
    import pyarrow
    from pyarrow import json as reader

    with _stream(path, encoding, ",") as stream:
        return reader.read_json(
            stream, read_options=reader.ReadOptions(use_threads=False, block_size=BLOCK),
            parse_options=reader.ParseOptions(explicit_schema=pyarrow.schema(kinds), unexpected_field_behavior="ignore"))


def _no_lines(path: Path, line: str, number: int) -> str:
    """What to say of a .json that has something else in a line than an object."""
    if line.lstrip().startswith(("{'", "{u'")):
        opened = f"gzip.open({str(path)!r}, 'rt')" if path.suffix == ".gz" else f"open({str(path)!r})"
        return (f"{path} holds dicts of Python and not JSON: pass load_interactions(pandas.DataFrame(map(ast.literal_eval, "
                f"{opened}))).")
    if number == 1:
        return (f"{path} is not JSON with an object on each line: pass load_interactions(pandas.read_json({str(path)!r}, "
                "dtype=False)) if it is a list of objects.")
    return f"{path} cannot be read as JSON lines: line {number} is no JSON object ({line.strip()[:100]!r}); correct it."


