"""A data set as one .npz file without pickles: the two arrays as they are, and all else as JSON in a third, `about`.

JSON, because ids and titles come back as they were: text of any length and whole numbers of any size, side by side. The
cache of the named data sets holds such files.
"""

import io
import json
import math
import os
import uuid
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import published
from .catalogue import as_json, listed
from .dataset import DataError, told

if TYPE_CHECKING:
    from .dataset import Dataset

FORMAT_VERSION = 2      # of what is written; caches of format 1 are read too
LISTS = {"titles": (str,), "genres": (list,), "notes": (str,), "user_ids": (str, int, float), "item_ids": (str, int, float)}
TEXTS = ("name", "source", "numbered_as")


def write_saved(path: Path, data: "Dataset") -> None:
    """The whole of the file appears under `path`, or nothing does."""
    about = as_json({"format_version": FORMAT_VERSION, "num_items": data.num_items,
                     **{field: getattr(data, field) for field in (*TEXTS, *LISTS)}})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, items=data.items, offsets=data.offsets, about=np.frombuffer(about, np.uint8))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_saved(path: str | Path, largest: int | None = None) -> dict[str, Any]:
    """The arguments of Dataset in a file of `write_saved`; DataError when it is damaged or of another format.

    largest: bytes of the file, and of each of its parts, beyond which it is not read.
    """
    content = published.read_file(path, largest)
    with told(f"{path} is no whole file of a data set"), zipfile.ZipFile(io.BytesIO(content)) as archive:
        def array(name: str) -> np.ndarray:
            return _array(published.read_member(archive, f"{name}.npy", largest))

        held = archive.namelist()
        about = json.loads(array("about").tobytes()) if "about.npy" in held else None
        version = int(array("format_version")) if about is None else about["format_version"]
        if version != (1 if about is None else FORMAT_VERSION):
            raise DataError(f"{path} has format {version}; this version of diffurec reads {FORMAT_VERSION}.")
        arrays = {"items": array("items"), "offsets": array("offsets")}
        if about is None:
            return {**arrays, **_older(array, held)}
        fields = {"num_items": about["num_items"], **{name: about[name] for name in TEXTS if about[name] is not None},
                  **{name: listed(about, name, kinds) for name, kinds in LISTS.items()}}
        if not all(isinstance(fields.get(name, ""), str) for name in TEXTS):
            raise ValueError(f"{', '.join(TEXTS)} are not all text")
        fields["notes"] = fields["notes"] or ()
        if fields["genres"] is not None:
            fields["genres"] = tuple(map(tuple, fields["genres"]))
    return {**arrays, **fields}


def _older(array: Any, held: list[str]) -> dict[str, Any]:
    """What a file of format 1 has beside its two arrays."""
    fields = {"num_items": int(array("num_items")), "source": str(array("source"))}
    if "titles.npy" in held:
        fields["titles"] = tuple(array("titles").tolist())
    if "genres.npy" in held:
        fields["genres"] = tuple(tuple(names.split("|")) if names else () for names in array("genres").tolist())
    return fields


def _array(content: bytes) -> np.ndarray:
    """The array in the bytes of a .npy file, after its header was compared with what follows it.

    np.load believes the header: one that claims 1e15 entries is given memory before the first of them is looked for.
    """
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise DataError("An array is not in the format of this version of diffurec.")
    shape, _, kind = np.lib.format.read_array_header_1_0(file)
    entries, left = math.prod(shape), len(content) - file.tell()
    if not 0 <= entries <= left or entries * kind.itemsize != left:
        raise DataError(f"An array's header claims {entries} entries of {kind.itemsize} bytes, but {left} follow.")
    file.seek(0)
    return np.load(file, allow_pickle=False)
