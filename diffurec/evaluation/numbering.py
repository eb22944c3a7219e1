"""The items of data in the numbers that a model knows them by: matched by their ids, or refused."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.catalogue import Catalogue
from ..data.dataset import Dataset

if TYPE_CHECKING:
    from .ranking import Model


def known_items(model: Any) -> Catalogue:
    """What the model's item numbers stand for; those of a model that was trained on nothing stand for themselves."""
    return getattr(model, "catalogue", None) or Catalogue(model.num_items, None)


def as_numbered_by(model: "Model", data: Dataset) -> Dataset:
    """The data with the item numbers of the model; the data themselves where these are its numbers already.

    Data of other rows, or of the same in another order, have numbers of their own. Their items are matched by the ids,
    where model and data have them, and need not be all of the model's. ValueError where that cannot be, or one is unknown.
    """
    known = known_items(model)
    if known.numbering not in (None, data.numbering) and known.ids is not None and data.item_ids is not None:
        return _matched(known, data)
    if model.num_items != data.num_items:
        raise ValueError(
            f"The model knows {model.num_items} items and the data set {data.name} has {data.num_items}; "
            "use a model with the data it was made for."
        )
    if known.numbering not in (None, data.numbering):
        lacks = [f"the model {'was trained without' if known.known else 'has forgotten its'} item ids"] * (known.ids is None)
        lacks += ["the data set has none"] * (data.item_ids is None)
        raise ValueError(
            f"The model was trained on data whose items are numbered otherwise than in the data set {data.name} (other rows or "
            f"ids: numbering {str(known.numbering)[:12]}..., not {data.numbering[:12]}...), and they cannot be matched by ids, "
            f"because {' and '.join(lacks)}: use it with the data it was trained on; data made from these say so by "
            "Dataset(..., numbered_as=data.numbering)."
        )
    return data


def _matched(known: Catalogue, data: Dataset) -> Dataset:
    there = np.unique(data.items)
    numbers = np.zeros(data.num_items + 1, np.int32)                            # [I of the data + 1] in the model's
    unknown = []
    for number in there.tolist():
        found = known.number(data.catalogue.id(number))
        if found is None:
            unknown.append(data.catalogue.id(number))
        else:
            numbers[number] = found
    if unknown:
        raise ValueError(
            f"The model does not know {len(unknown):,} of the {len(there):,} items of the data set {data.name}, the first of "
            f"them {unknown[0]!r} (its own are like {known.id(1)!r}): leave their rows out, or train on data that have them."
        )
    return Dataset(
        data.name, known.num_items, numbers[data.items], data.offsets, known.titles, source=data.source, notes=data.notes,
        user_ids=data.user_ids, item_ids=known.ids, numbered_as=known.numbering)
