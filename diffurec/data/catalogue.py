"""What the numbers of items stand for: ids and titles, with the data, with the model and in a file of their own."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..base.checks import plain

FORMAT = 1      # of a file of items


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The items 1..num_items. `data.catalogue` is that of a data set; a trained model has it as `model.catalogue`."""

    num_items: int
    numbering: str | None           # `Dataset.numbering`; None: not known
    ids: tuple | None = None        # [I + 1], ids[0] is None; None: the numbers are the ids
    titles: tuple | None = None     # [I + 1] strings
    known: bool = True              # False: the model is of a checkpoint made before ids were kept there

    @cached_property
    def numbers(self) -> dict[Any, int]:
        """{id: number}; ValueError if the ids are not known, or two items have one."""
        if not self.known:
            raise ValueError("The model knows no item ids, because its checkpoint was made before ids were kept there: give it "
                             "those of the data it was trained on, by model.catalogue = data.catalogue.")
        return numbers_of(range(1, self.num_items + 1) if self.ids is None else self.ids[1:], 1, "item_ids")

    def number(self, identity: Any) -> int | None:
        """The number of the item with this id, and of this kind (7 is not "7", nor 7.0, nor True); None if there is none."""
        identity = plain(identity)
        try:
            number = self.numbers.get(identity)
        except TypeError:           # a list, say: nothing that could be an id
            return None
        return number if number is not None and type(self.id(number)) is type(identity) else None

    def id(self, number: int) -> Any:
        return number if self.ids is None else self.ids[number]

    @staticmethod
    def numbering_of(checksum: str, ids: tuple | None) -> str:
        """A sha256, hex, of a data set's checksum and the ids of its items."""
        texts = ids and [str(identity) for identity in ids]
        return hashlib.sha256(repr((checksum, texts)).encode()).hexdigest()

    def to_json(self) -> bytes:
        """A file of items, which lies with a checkpoint and an exported model: ids and titles by number, from 0 on."""
        return as_json({"format": FORMAT, "num_items": self.num_items, "numbering": self.numbering, "ids": self.ids,
                        "titles": self.titles})

    @classmethod
    def from_json(cls, content: bytes) -> "Catalogue":
        """What `to_json` wrote; ValueError for anything else."""
        held = json.loads(content)
        if not isinstance(held, dict) or held.get("format") != FORMAT:
            raise ValueError(f"it is no file of items of format {FORMAT}")
        entries, numbering = held.get("num_items"), held.get("numbering")
        if type(entries) is not int or not isinstance(numbering, str | None):
            raise ValueError("num_items or numbering is wrong")
        ids, titles = listed(held, "ids", (str, int, float)), listed(held, "titles", (str,))
        if any(values is not None and len(values) != entries + 1 for values in (ids, titles)):
            raise ValueError(f"ids or titles are not those of {entries} items")
        return cls(entries, numbering, ids, titles)


def numbers_of(ids: Iterable, first: int, what: str) -> dict[Any, int]:
    """{id: number}, numbered from `first` on; ValueError if an id comes twice."""
    numbers: dict[Any, int] = {}
    for number, identity in enumerate(ids, first):
        if numbers.setdefault(identity, number) != number:
            raise ValueError(f"{what} hold {identity!r} twice, as {numbers[identity]} and {number}; an id is of one alone.")
    return numbers


def as_json(fields: dict[str, Any]) -> bytes:
    """JSON in which ids stand as they are; ValueError for those that are neither text nor numbers."""
    def scalar(value: Any) -> Any:
        if (own := plain(value)) is value:
            raise ValueError(f"The id {value!r} is a {type(value).__name__}, and a file keeps ids that are text or whole "
                             "numbers: make the ids text before.")
        return own

    return json.dumps(fields, default=scalar).encode()


def listed(held: dict[str, Any], name: str, kinds: tuple[type, ...]) -> tuple | None:
    """A list of a file as a tuple, whose first entry may be null; None if there is none. ValueError for other entries."""
    values = held.get(name)
    if values is None:
        return None
    if not isinstance(values, list) or not all(isinstance(value, kinds) for value in values[values[:1] == [None]:]):
        raise ValueError(f"{name} is no list of {' or '.join(kind.__name__ for kind in kinds)}")
    return tuple(values)
