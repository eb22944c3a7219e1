"""The files the named data sets are published in: how they are read, and how they are fetched.

Every reader returns keyword arguments of Dataset: items, offsets, num_items and, where the files have them, titles and
genres. A file that is not what it should be raises DataError and has run nothing.
"""

import csv
import hashlib
import http.client
import io
import pickle
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from .dataset import DataError, in_time_order

TIMEOUT = 30            # seconds without a byte before a download is given up
WHEEL = "recbole==1.2.1"
WHEEL_FOLDER = "recbole/dataset_example/ml-100k/"
# The 19 flags that close a row of u.item, in their order there (u.genre lists the same).
GENRES = ("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
          "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western")


class PlainUnpickler(pickle.Unpickler):
    """Reads numbers, strings, lists and dicts; a pickle that asks for any class or function is refused unexecuted."""

    def find_class(self, module, name):
        raise DataError(f"The pickle asks for the global {module}.{name}: it was refused and nothing was executed.")

    def persistent_load(self, pid):
        raise DataError(f"The pickle asks for the outside object {pid!r}: it was refused and nothing was executed.")


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path, expected):
    found = sha256(path)
    if found != expected:
        raise DataError(f"{path} is not the published file: its sha256 is {found}, expected was {expected}.")


def read_pickle(path):
    """The published dicts train, val, test (user -> items, users from 0): a user's sequence is the three in a row."""
    try:
        with open(path, "rb") as file:
            raw = PlainUnpickler(file).load()
        parts = raw["train"], raw["val"], raw["test"]
        users = range(len(parts[0]))
        items = np.fromiter((item for user in users for part in parts for item in part[user]), np.int32)
        offsets = np.cumsum([0, *(sum(len(part[user]) for part in parts) for user in users)])
    except (DataError, OSError):
        raise
    except Exception as error:      # a damaged pickle can raise almost anything
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path} is damaged or not laid out as published ({reason}).") from error
    return {"items": items, "offsets": offsets, "num_items": int(items.max(initial=0))}


def _table(read, name, **options):
    """The file `name` as a table of strings; `read` gives a file's bytes."""
    try:
        return pd.read_csv(io.BytesIO(read(name)), dtype=str, quoting=csv.QUOTE_NONE, keep_default_na=False, **options)
    except (KeyError, FileNotFoundError) as error:
        raise DataError(f"{name} is missing beside the other file of ml-100k.") from error
    except (ValueError, zipfile.BadZipFile, EOFError) as error:      # pandas' ParserError is a ValueError
        raise DataError(f"{name} is damaged ({error}).") from error


def _ml_100k(ratings, films, titles, genres):
    """Users and items keep their original ids, which are 1..U and 1..I; users are counted from 0 here."""
    try:
        users, items, times = (ratings[c].astype(float).to_numpy(np.int64) for c in ("user_id", "item_id", "timestamp"))
        listed = films["item_id"].astype(int).tolist()
    except (KeyError, ValueError) as error:
        raise DataError(f"ml-100k is damaged: ids and times must be columns of numbers ({error}).") from error
    if listed != list(range(1, len(listed) + 1)) or not len(users) or users.min() < 1:
        raise DataError("ml-100k is damaged: its users and films are not numbered 1, 2, 3, ...")
    for film, names in enumerate(genres, 1):        # a file that was cut off ends in a film with none, or half of one
        if not names or not set(names) <= set(GENRES):
            raise DataError(f"ml-100k is damaged: the genres of film {film} read {names!r}.")
    items, offsets = in_time_order(users - 1, items, times)
    return {"items": items, "offsets": offsets, "num_items": len(listed),
            "titles": ("", *titles), "genres": ((), *genres)}


def read_grouplens(read):
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


def read_recbole(read):
    """ml-100k as RecBole carries it: .inter and .item, tab separated, a header of name:type, the year apart.

    RecBole took the last bracket of a title for its year: "(V)" for film 1412, which comes back to its place here. Film
    267, which GroupLens calls "unknown" and gives no year, is "unkonwn" in both columns there.
    """
    tables = [_table(read, f"ml-100k.{kind}", sep="\t") for kind in ("inter", "item")]
    ratings, films = (t.rename(columns=lambda c: c.split(":")[0]) for t in tables)
    try:
        titles = ["unknown" if title == year == "unkonwn" else f"{title} ({year})"
                  for title, year in zip(films["movie_title"], films["release_year"])]
        genres = [tuple(names.split()) for names in films["class"]]
    except KeyError as error:
        raise DataError(f"ml-100k.item is damaged: it has no column {error}.") from error
    return _ml_100k(ratings, films, titles, genres)


def _in_zip(path, folder, reader):
    try:
        with zipfile.ZipFile(path) as archive:
            return reader(lambda name: archive.read(folder + name))
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is damaged or no zip file ({error}).") from error


def read_grouplens_zip(path):
    return _in_zip(path, "ml-100k/", read_grouplens)


def download(url, path):
    """Writes what `url` gives to `path`, with a progress bar; DataError when it cannot be had, or not all of it."""
    expected, size = None, 0
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, open(path, "wb") as file:
            expected = answer.headers.get("Content-Length")
            total = int(expected) if expected else None
            with tqdm(total=total, unit="B", unit_scale=True, desc=Path(url).name, file=sys.stderr) as bar:
                while block := answer.read(1 << 16):
                    file.write(block)
                    size += len(block)
                    bar.update(len(block))
    except http.client.IncompleteRead as error:
        size += len(error.partial)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url} could not be downloaded ({getattr(error, 'reason', None) or error}).") from error
    if expected and size != int(expected):
        raise DataError(f"The download of {url} was cut off: {size:,} of {int(expected):,} bytes came.")


def read_wheel(folder):
    """ml-100k out of the RecBole wheel, which pip downloads into `folder` without its dependencies or running it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input",
               "--disable-pip-version-check", "--quiet", "--dest", str(folder), WHEEL]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20 * TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"pip could not download {WHEEL} ({error}).") from error
    wheels = list(Path(folder).glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise DataError(f"pip could not download {WHEEL} ({reason}).")
    return _in_zip(wheels[0], WHEEL_FOLDER, read_recbole)
