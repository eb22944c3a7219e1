"""What the rest of the package knows of data: users' item sequences in two flat arrays, checked when they are made."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..base.checks import plain, whole
from .catalogue import Catalogue, numbers_of

MIN_INTERACTIONS = 3    # leave-one-out takes one for test, one for validation, and leaves one to start from
MOST = 2**31 - 1        # items and interactions: ids, and positions in the flat array, are 32 bits wide


class DataError(Exception):
    """Data could not be obtained, or are not what they should be; the message says what and where."""


@contextmanager
def told(sentence: str, kind: type[Exception] = DataError) -> Iterator[None]:
    """Whatever a reader raises inside comes out as `kind` with one sentence; a DataError passes.

    A damaged file can make zipfile, pandas or pyarrow raise almost anything: no list of errors would be long enough.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        kind_of_error = "" if type(error) is ValueError else f"{type(error).__name__}: "
        reason = " ".join(f"{kind_of_error}{error}".split()).removesuffix(":")      # one line
        raise kind(f"{sentence} ({reason if len(reason) < 400 else reason[:400] + '...'}).") from error


class Sequences(Sequence):
    """The users' sequences as read-only views into the flat array: sequences[u] is user u's items in time order."""

    def __init__(self, items: np.ndarray, offsets: np.ndarray) -> None:
        self._items, self._offsets = items, offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, user: Any) -> Any:
        if isinstance(user, slice):
            return [self[u] for u in range(*user.indices(len(self)))]
        if not -len(self) <= user < len(self):
            raise IndexError(f"There is no user {user}; users are numbered 0 to {len(self) - 1}.")
        user %= len(self)
        return self._items[self._offsets[user]:self._offsets[user + 1]]


@dataclass(frozen=True, eq=False)
class Dataset:
    """U users' interactions with I items: user u's sequence [i_1 ... i_n] is items[offsets[u]:offsets[u+1]].

    Items are numbered 1..num_items; 0 is padding and never occurs. Both arrays are read-only. What belongs to an item
    is indexed by its number, so titles[0], genres[0] and item_ids[0] stand for the padding. `item_numbers` and
    `user_numbers` lead back from an id to its number; data without ids have the numbers for ids.
    """

    name: str
    num_items: int              # I, the size of the catalogue
    items: np.ndarray           # [interactions] int32, users one after the other, each in time order
    offsets: np.ndarray         # [U + 1] int64
    titles: tuple | None = None     # [I + 1] strings
    genres: tuple | None = None     # [I + 1] tuples of strings
    source: str = ""            # where the data came from, in one line
    notes: tuple = ()           # sentences: what was dropped, what is odd
    user_ids: tuple | None = None   # [U] the ids in the user's own file
    item_ids: tuple | None = None   # [I + 1] the same for items, item_ids[0] is None
    numbered_as: str | None = None  # `numbering` of the data whose item numbers these are; None: they are their own

    def __post_init__(self) -> None:
        def require(condition: Any, sentence: str) -> None:
            if not condition:
                raise ValueError(f"{self.name}: {sentence}")

        object.__setattr__(self, "num_items", whole(self.num_items, f"{self.name}: num_items", most=MOST))
        for field in ("items", "offsets"):
            array = getattr(self, field)
            require(isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in "iu",
                    f"{field} must be a one-dimensional array of whole numbers.")
        items, offsets = self.items, self.offsets
        require(len(items) <= MOST, f"there may be at most {MOST} interactions, but there are {len(items)}.")
        require(len(offsets) >= 2, "offsets must hold at least one user.")
        require(offsets[0] == 0 and offsets[-1] == len(items),
                f"offsets must run from 0 to the number of interactions, {len(items)}, "
                f"but they run from {offsets[0]} to {offsets[-1]}.")
        require((offsets[1:] >= offsets[:-1]).all(), "offsets must not fall.")     # a difference could overflow
        short = np.flatnonzero(np.diff(offsets) < MIN_INTERACTIONS)
        require(not len(short), f"{len(short)} users have fewer than {MIN_INTERACTIONS} interactions, "
                                f"the first of them user {short[0] if len(short) else None}.")
        wrong = np.flatnonzero((items < 1) | (items > self.num_items))
        require(not len(wrong), f"item ids must lie within 1..{self.num_items}, but {len(wrong)} do not, "
                                f"the first of them {items[wrong[0]] if len(wrong) else None}.")
        for field, length in (("titles", self.num_items + 1), ("genres", self.num_items + 1),
                              ("item_ids", self.num_items + 1), ("user_ids", self.num_users)):
            value = getattr(self, field)
            require(value is None or len(value) == length, f"{field} must have {length} entries.")
        for field, kind in (("items", np.int32), ("offsets", np.int64)):
            array = np.ascontiguousarray(getattr(self, field), dtype=kind).view()
            array.flags.writeable = False
            object.__setattr__(self, field, array)

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def sequences(self) -> Sequences:
        return Sequences(self.items, self.offsets)

    @cached_property
    def checksum(self) -> str:
        """sha256 (hex) of num_items and the offsets as little-endian int64, then the items as little-endian int32."""
        digest = hashlib.sha256(np.array([self.num_items], "<i8").tobytes())
        digest.update(self.offsets.astype("<i8").tobytes())
        digest.update(self.items.astype("<i4").tobytes())
        return digest.hexdigest()

    @cached_property
    def numbering(self) -> str:
        """What says which item a number stands for: data of one numbering suit one model. A sha256, hex.

        It is of the checksum and the item ids, so that two files are alike only where all their rows are; a part of a
        data set, or data made from it, name the whole in `numbered_as`.
        """
        return self.numbered_as or Catalogue.numbering_of(self.checksum, self.item_ids)

    @cached_property
    def catalogue(self) -> Catalogue:
        """What the item numbers stand for; a model keeps that of the data it was trained on."""
        ids = None if self.item_ids is None else tuple(map(plain, self.item_ids))
        return Catalogue(self.num_items, self.numbering, ids, self.titles)

    @property
    def item_numbers(self) -> dict[Any, int]:
        """{id: number} of the items."""
        return self.catalogue.numbers

    @cached_property
    def user_numbers(self) -> dict[Any, int]:
        """{id: number} of the users."""
        ids = range(self.num_users) if self.user_ids is None else map(plain, self.user_ids)
        return numbers_of(ids, 0, f"user_ids of {self.name}")

    def save(self, path: str | Path) -> None:
        """Writes all of it to one .npz file without pickles, whole or not at all; `Dataset.load` reads it back.

        ValueError for ids that are neither text nor numbers. OSError if it cannot be written.
        """
        from .saved import write_saved

        write_saved(Path(path), self)

    @classmethod
    def load(cls, path: str | Path) -> "Dataset":
        """The data set in a file of `save`; DataError if it is not there, damaged or of another format."""
        from .saved import read_saved

        try:
            return cls(**{"name": Path(path).stem, **read_saved(path)})     # a cache of format 1 has no name
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror or error}).") from error
        except ValueError as error:
            raise DataError(f"{path} is damaged: {error}") from error

    def summary(self) -> str:
        """The numbers of the data set, where it came from and what to know of it, as a few lines of text."""
        lengths = np.diff(self.offsets)
        density = len(self.items) / (self.num_users * self.num_items)
        return "\n".join([
            f"{self.name}: {self.num_users:,} users, {self.num_items:,} items, {len(self.items):,} interactions",
            f"  interactions of a user: mean {lengths.mean():.2f}, median {np.median(lengths):g}, "
            f"{lengths.min()} to {lengths.max():,}; density {density:.3%}",
            f"  source: {self.source or 'not stated'}",
            f"  checksum: {self.checksum}",
            *(f"  note: {note}" for note in self.notes),
        ])


def in_time_order(users: np.ndarray, items: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(items, offsets) of rows given as three arrays [N]: sorted by user, then time, then their order in the file.

    Users are numbered 0..U-1. The sort is stable, so that equal times stay in file order.
    """
    order = np.lexsort((times, users))      # the last key is the first criterion; lexsort is stable
    offsets = np.concatenate([[0], np.cumsum(np.bincount(users))])
    return items[order], offsets        # as wide as they came: Dataset looks at the ids before it narrows them
