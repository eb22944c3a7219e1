"""The files the named data sets are published in: how they are read, and how they are fetched.

Every reader returns keyword arguments of Dataset: items, offsets, num_items and, where the files have them, titles and
genres. A file that is not what it should be raises DataError and has run nothing.
"""

import csv
import hashlib
import io
import os
import pickle
import pickletools
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import numpy as np
from tqdm import tqdm

from .dataset import DataError, in_time_order, told

if TYPE_CHECKING:
    import pandas as pd

LARGEST = 1 << 24       # bytes of one file, packed or unpacked; the largest published ones have 5 million
TIMEOUT = 30            # seconds without a byte before a download is given up
WHEEL = "recbole==1.2.1"
WHEEL_FOLDER = "recbole/dataset_example/ml-100k/"
# The 19 flags that close a row of u.item, in their order there (u.genre lists the same).
GENRES = ("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
          "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western")

# The instructions of a pickle that plain dicts, lists, whole numbers and strings need, with the bytes that follow each.
PLAIN = {ord(code): length for code, length in {
    pickle.PROTO: 1, pickle.FRAME: 8, pickle.MARK: 0, pickle.EMPTY_DICT: 0, pickle.EMPTY_LIST: 0,
    pickle.BININT1: 1, pickle.BININT2: 2, pickle.BININT: 4, pickle.APPEND: 0, pickle.APPENDS: 0,
    pickle.SETITEM: 0, pickle.SETITEMS: 0, pickle.MEMOIZE: 0, pickle.BINPUT: 1, pickle.LONG_BINPUT: 4}.items()}
COUNTED = {ord(pickle.LONG1): 1, ord(pickle.SHORT_BINUNICODE): 1, ord(pickle.BINUNICODE): 4}    # the length comes first
# Where the unpickler itself stops: it asks PlainUnpickler for what is outside the pickle, and gets a refusal.
OUTSIDE = {ord(code) for code in (pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.PERSID, pickle.BINPERSID)}


def check_plain(content: bytes) -> None:
    """DataError when a pickle has any other instruction; nothing is executed.

    find_class alone does not guard an unpickler: registered extensions go around it, the hash of deeply nested tuples
    overflows the C stack, and lists that hold one list twice grow without end for whoever walks through them. Here
    nothing is hashed but numbers and strings, and nothing is there twice.
    """
    at, stop = 0, ord(pickle.STOP)
    while (code := content[at]) != stop and code not in OUTSIDE:
        if code in PLAIN:
            if code == pickle.LONG_BINPUT[0] and int.from_bytes(content[at + 1:at + 5], "little") > at:
                raise DataError("The pickle asks for room beyond its own: it was refused and nothing was executed.")
            at += 1 + PLAIN[code]
        elif code in COUNTED:
            begin = at + 1 + COUNTED[code]
            at = begin + int.from_bytes(content[at + 1:begin], "little")
        else:
            known = {op.code: op for op in pickletools.opcodes}.get(chr(code))
            raise DataError(f"The pickle has the instruction {known.name if known else hex(code)}, which whole "
                            "numbers, strings, lists and dicts do not need: it was refused and nothing was executed.")


class PlainUnpickler(pickle.Unpickler):
    """Reads whole numbers, strings, lists and dicts; a pickle that asks for more is refused unexecuted."""

    def __init__(self, file: IO[bytes]) -> None:
        content = file.read()
        check_plain(content)
        super().__init__(io.BytesIO(content))       # from memory: a length that lies asks for no more than there is

    def find_class(self, module: str, name: str) -> NoReturn:
        raise DataError(f"The pickle asks for the global {module}.{name}: it was refused and nothing was executed.")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise DataError(f"The pickle asks for the outside object {pid!r}: it was refused and nothing was executed.")


def read_whole(file: IO[bytes], name: str | Path, largest: int | None = LARGEST) -> bytes:
    """The bytes of an open file, which are not read, or not unpacked, beyond `largest`; None sets no bound."""
    content = file.read(-1 if largest is None else largest + 1)
    if largest is not None and len(content) > largest:
        raise DataError(f"{name} holds more than {largest:,} bytes, far more than what is published: it was not read.")
    return content


def read_file(path: str | Path, largest: int | None = LARGEST) -> bytes:
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path} is no file.")        # a pipe would be waited for
    with open(path, "rb") as file:
        return read_whole(file, path, largest)


def read_member(archive: zipfile.ZipFile, name: str, largest: int | None = LARGEST) -> bytes:
    """The bytes of a file in a zip. Its header may lie about their number, so they are counted as they are unpacked."""
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise FileNotFoundError(f"There is no {name} in the zip.") from None
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):      # the others unpack without a bound
        raise DataError(f"{name} is packed in another way than the published file: it was not read.")
    with archive.open(name) as file:
        return read_whole(file, name, largest)


def sha256(path: str | Path) -> str:
    return hashlib.sha256(read_file(path)).hexdigest()


def check_sha256(path: str | Path, expected: str | None) -> None:
    found = sha256(path)
    if found != expected:
        raise DataError(f"{path} is not the published file: its sha256 is {found}, expected was {expected}.")


def read_pickle(path: str | Path, largest: int = LARGEST) -> dict[str, Any]:
    """The published dicts train, val, test (user -> items, users from 0): a user's sequence is the three in a row."""
    content = read_file(path, largest)
    with told(f"{path} is damaged or not laid out as published"):
        try:
            raw = PlainUnpickler(io.BytesIO(content)).load()
        except DataError as error:
            raise DataError(f"{path} is damaged or not laid out as published: {error}") from error
        parts = raw["train"], raw["val"], raw["test"]
        users = range(len(parts[0]))
        if not all(type(part) is dict and part.keys() == set(users) for part in parts):
            raise DataError(f"{path} is not laid out as published: train, val and test are no dicts of the same users.")
        rows = [part[user] for user in users for part in parts]
        if not set(map(type, rows)) <= {list} or not set(map(type, chain.from_iterable(rows))) <= {int}:
            raise DataError(f"{path} is not laid out as published: a user's items are no list of whole numbers.")
        items = np.fromiter(chain.from_iterable(rows), np.int32)
        lengths = np.fromiter(map(len, rows), np.int64).reshape(-1, len(parts)).sum(axis=1)
    return {"items": items, "offsets": np.cumsum([0, *lengths]), "num_items": int(items.max(initial=0))}


def _table(read: Callable[[str], bytes], name: str, sep: str, **options: Any) -> "pd.DataFrame":
    """The file `name` as a table of strings; `read` gives a file's bytes."""
    import pandas as pd         # here, because it takes half a second to load

    try:
        content = read(name)
    except FileNotFoundError as error:
        raise DataError(f"{name} is missing beside the other file of ml-100k.") from error
    if content.partition(b"\n")[0].count(sep.encode()) > 100:       # each column costs pandas a kilobyte
        raise DataError(f"{name} is damaged: it has more than 100 columns.")
    with told(f"{name} is damaged"):
        return pd.read_csv(io.BytesIO(content), sep=sep, dtype=str, quoting=csv.QUOTE_NONE, keep_default_na=False,
                           **options)


def _whole(column: "pd.Series") -> np.ndarray:
    """Text as int64, through no float: beyond 2^53 a float holds only some of the whole numbers."""
    return column.str.replace(r"\.0*$", "", regex=True).astype("int64").to_numpy()


def _ml_100k(
    ratings: "pd.DataFrame", films: "pd.DataFrame", titles: Iterable[str], genres: Sequence[tuple[str, ...]]
) -> dict[str, Any]:
    """Users and items keep their original ids, which are 1..U and 1..I; users are counted from 0 here."""
    for table in (ratings, films):
        twice = table.columns[table.columns.duplicated()]
        if len(twice):
            raise DataError(f"ml-100k is damaged: the column {twice[0]} stands there twice.")
    with told("ml-100k is damaged: ids and times must be columns of numbers"):
        users, items, times = (_whole(ratings[column]) for column in ("user_id", "item_id", "timestamp"))
        listed = _whole(films["item_id"]).tolist()
    # The largest user is bounded before anything counts up to it; the items are compared with the films by Dataset.
    if listed != list(range(1, len(listed) + 1)) or not len(users) or users.min() < 1 or users.max() > len(users):
        raise DataError("ml-100k is damaged: its users and films are not numbered 1, 2, 3, ...")
    for film, names in enumerate(genres, 1):        # a file that was cut off ends in a film with none, or half of one
        if not names or not set(names) <= set(GENRES):
            raise DataError(f"ml-100k is damaged: the genres of film {film} read {names!r}.")
    items, offsets = in_time_order(users - 1, items, times)
    return {"items": items, "offsets": offsets, "num_items": len(listed),
            "titles": ("", *titles), "genres": ((), *genres)}


def read_grouplens(read: Callable[[str], bytes]) -> dict[str, Any]:
    """ml-100k as GroupLens publishes it: u.data (tabs) and u.item (pipes, latin-1; titles with the year, 19 flags)."""
    ratings = _table(read, "u.data", sep="\t", names=["user_id", "item_id", "rating", "timestamp"])
    films = _table(read, "u.item", sep="|", header=None, encoding="latin-1")
    if films.shape[1] != 5 + len(GENRES):
        raise DataError(f"u.item is damaged: it has {films.shape[1]} columns, not {5 + len(GENRES)}.")
    flags = films.iloc[:, 5:]       # [I, 19]
    if not flags.isin(["0", "1"]).all(axis=None):
        raise DataError("u.item is damaged: a genre's flag is neither 0 nor 1.")
    genres = [tuple(g for g, on in zip(GENRES, row) if on) for row in flags.to_numpy() == "1"]
    return _ml_100k(ratings, films.rename(columns={0: "item_id"}), films[1].str.strip(), genres)


def read_recbole(read: Callable[[str], bytes]) -> dict[str, Any]:
    """ml-100k as RecBole carries it: .inter and .item, tab separated, a header of name:type, the year apart.

    RecBole took the last bracket of a title for its year: "(V)" for film 1412, which comes back to its place here. Film
    267, which GroupLens calls "unknown" and gives no year, is "unkonwn" in both columns there.
    """
    tables = [_table(read, f"ml-100k.{kind}", sep="\t") for kind in ("inter", "item")]
    ratings, films = (t.rename(columns=lambda c: c.split(":")[0]) for t in tables)
    for column in ("item_id", "movie_title", "release_year", "class"):
        if column not in films:
            raise DataError(f"ml-100k.item is damaged: it has no column {column!r}.")
    with told("ml-100k.item is damaged: a row is short"):
        titles = ["unknown" if title == year == "unkonwn" else f"{title} ({year})"
                  for title, year in zip(films["movie_title"], films["release_year"])]
        genres = [tuple(names.split()) for names in films["class"]]
    return _ml_100k(ratings, films, titles, genres)


def _in_zip(path: str | Path, folder: str, reader: Callable[[Callable[[str], bytes]], dict[str, Any]]) -> dict[str, Any]:
    content = read_file(path)
    with told(f"{path} is damaged or no zip file"), zipfile.ZipFile(io.BytesIO(content)) as archive:
        return reader(lambda name: read_member(archive, folder + name))


def read_grouplens_zip(path: str | Path) -> dict[str, Any]:
    return _in_zip(path, "ml-100k/", read_grouplens)


class _Bounded(io.BufferedWriter):
    """A file that takes no more than LARGEST bytes."""

    def write(self, block: Any) -> int:
        if self.tell() + len(block) > LARGEST:
            raise OSError(f"it gives more than {LARGEST:,} bytes, far more than what is published")
        return super().write(block)


def download(url: str, path: Path) -> None:
    """Writes what `url` gives to `path`, with a progress bar; DataError when it cannot be had, or not all of it."""
    import pooch                # here, because what it needs takes a while to load

    with tqdm(total=LARGEST, unit="B", unit_scale=True, desc=Path(url).name, file=sys.stderr) as bar:   # pooch sets total
        get = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=TIMEOUT)
        try:
            with _Bounded(open(path, "wb", buffering=0)) as file:
                get(url, file, None)
        except (OSError, ValueError) as error:      # those of requests among them, and of a length that is no number
            cause: BaseException = error
            while cause.__context__:                # requests wraps it in several sentences of its own
                cause = cause.__context__
            raise DataError(f"{url} could not be downloaded, or not all of it ({cause}).") from error


def read_wheel(folder: str | Path) -> dict[str, Any]:
    """ml-100k out of the RecBole wheel, which pip downloads into `folder` without its dependencies or running it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input",
               "--disable-pip-version-check", "--quiet", "--dest", str(folder), WHEEL]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20 * TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"pip could not download {WHEEL} ({error}).") from error
    wheels = list(Path(folder).glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise DataError(f"pip could not download {WHEEL} ({reason}).")
    return _in_zip(wheels[0], WHEEL_FOLDER, read_recbole)
