"""The best items for histories that a user gives: by the numbers of the items, and by their ids."""

import math
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..base.checks import plain, whole
from ..base.seeds import stream_seed
from ..data.histories import checked, padded
from ..fast import item_chunks
from .numbering import known_items
from .ranking import Model, among, predicting

if TYPE_CHECKING:
    import pandas as pd


def recommend(
    model: Model, histories: Iterable, k: int | None = None, num_steps: int | None = None,
    generator: torch.Generator | None = None, ensemble: int | None = None, filter_seen: bool = False,
    seed: int | None = None, batch_size: int = 1024,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best items per history and their scores x_0 . e_j: ([B, k] ids, [B, k]), best first. `model.recommend` too.

    histories: a list of id sequences of any lengths (the latest `max_length` count), or a tensor or array [B, L],
    left-padded with 0. k: None takes 20, or all items where fewer are left. Items already in the history are not
    removed, as in the evaluation of the papers; filter_seen=True removes them, also those before the latest `max_length`.
    A diffusion starts from random noise, so the lists differ from call to call, unless `seed` is given or a `generator`
    of the model's device (not both). Histories are taken `batch_size` at a time: no more than their scores are in memory,
    and where there are several batches the random numbers depend on it.
    ensemble=E averages the distributions over the catalogue of E predictions, in one step each unless num_steps
    says otherwise (Algorithm 3); the scores are then logs of mean probabilities.
    Runs in evaluation mode. ValueError for empty or all-padding histories, ids that are no whole numbers in
    1..num_items, or a k that is none or larger than a history leaves items; FloatingPointError for scores that are not
    finite.
    """
    if k is not None:
        k = whole(k, "k, of the items of the catalogue,", most=model.num_items)
    batch_size = whole(batch_size, "batch_size")
    if seed is not None:
        if generator is not None:
            raise ValueError("seed and generator each decide the random numbers; give one of them.")
        generator = torch.Generator(model.device).manual_seed(stream_seed(seed))
    rows, left = checked(histories, model.num_items), model.num_items
    if filter_seen:
        distinct = [len(np.unique(row)) for row in rows]
        left -= max(distinct)
        if left < (k or 1):
            raise ValueError(f"History {np.argmax(distinct)} holds all but {left} of the {model.num_items} items, and "
                             f"{k or 1} that it does not hold cannot be recommended; ask for fewer, or without filter_seen.")
    k = k or min(20, left)
    sampling = {name: value for name, value in (("num_steps", num_steps), ("ensemble", ensemble)) if value is not None}
    lists = []
    with predicting(model):
        for batch in (rows[i:i + batch_size] for i in range(0, len(rows), batch_size)):
            prediction = model.predict(padded(batch, model.max_length).to(model.device), generator=generator, **sampling)
            seen = padded(batch, max(map(len, batch))).to(model.device) if filter_seen else None
            lists.append(_best(model, prediction, k, seen))
    items, scores = (torch.cat(parts) for parts in zip(*lists))
    return items, scores


def _best(model: Model, prediction: Any, k: int, seen: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best items of each prediction and their scores, [B, k] each, without those in `seen` [B, S]."""
    items = scores = None
    for first, last in item_chunks(model.num_items):
        chunk = model.score_items(prediction, first, last)
        if not torch.stack(chunk.aminmax()).isfinite().all():                    # the extremes are NaN if any is
            raise FloatingPointError("The model gives scores that are not finite; it cannot recommend.")
        if seen is not None:
            chunk = chunk.masked_fill(among(seen, first, last), -math.inf)
        best, index = chunk.topk(min(k, chunk.shape[1]), dim=1)
        del chunk                                                                # before the next one is made
        index += first
        if items is not None and scores is not None:
            best, index = torch.cat([scores, best], dim=1), torch.cat([items, index], dim=1)
        scores, order = best.topk(min(k, best.shape[1]), dim=1)
        items = index.gather(1, order)
    assert items is not None and scores is not None                              # there is at least one item
    return items, scores


def recommend_ids(model: Model, histories: Any, k: int | None = None, **options: Any) -> "pd.DataFrame":
    """The k best items per user by the ids of the model's data, best first. `model.recommend_ids` too.

    histories: {user: item ids, the oldest first}; a list of such sequences, whose users are 0, 1, ...; or a DataFrame with
    columns user and item, one row for an interaction, in time order or with a column timestamp, of numbers or dates.
    options: those of `recommend`; without a seed or a generator the lists are random.
    Returns a DataFrame with columns user, rank (from 1), item, title (if the model's data had titles) and score. A model
    whose data had no ids, as most named data sets, and one trained on nothing, have the items' numbers for ids.
    ValueError for ids that the model does not know, for a model whose checkpoint kept none, and as `recommend`.
    """
    import pandas as pd         # here, because it takes half a second to load

    known, users, rows = known_items(model), [], []
    unknown: dict[str, Any] = {}                                                 # {id: the first user who has it}
    for user, ids in _by_user(histories):
        users.append(user)
        rows.append([known.number(identity) for identity in ids])
        for identity, number in zip(ids, rows[-1]):
            if number is None:
                unknown.setdefault(repr(identity), user)
    if unknown:
        first, user = next(iter(unknown.items()))
        raise ValueError(f"The model does not know {len(unknown):,} of the item ids in the histories, the first of them "
                         f"{first} of user {user!r} (its own are like {known.id(1)!r}): leave them out.")
    items, scores = recommend(model, rows, k, **options)
    found = items.flatten().tolist()
    table = {"user": [user for user in users for _ in range(items.shape[1])],
             "rank": np.tile(np.arange(1, items.shape[1] + 1), len(items)), "item": [known.id(number) for number in found]}
    if known.titles is not None:
        table["title"] = [known.titles[number] for number in found]
    return pd.DataFrame({**table, "score": scores.flatten().cpu().numpy()})


def _by_user(histories: Any) -> Iterator[tuple[Any, list]]:
    """(user, ids, the oldest first) of each history; ValueError for what is none."""
    if hasattr(histories, "columns"):
        yield from _of_table(histories)
        return
    if isinstance(histories, (str, bytes)) or not isinstance(histories, Iterable):
        raise ValueError("histories must be a list of sequences of item ids, a dict {user: sequence} or a DataFrame, but they "
                         f"are {reprlib.repr(histories)}.")
    for user, row in histories.items() if isinstance(histories, Mapping) else enumerate(histories):
        if isinstance(row, (str, bytes)) or not isinstance(row, Sequence) and getattr(row, "ndim", 0) != 1:
            raise ValueError(f"The history of user {user!r} must be a sequence of item ids, but it is {reprlib.repr(row)}.")
        if not len(row):
            raise ValueError(f"The history of user {user!r} holds no item; a recommendation needs at least one.")
        yield user, [plain(identity) for identity in (row if isinstance(row, Sequence) else row.tolist())]


def _of_table(table: "pd.DataFrame") -> Iterator[tuple[Any, list]]:
    import pandas as pd

    columns = [name for name in ("user", "item", "timestamp") if name in table]
    if columns[:2] != ["user", "item"]:
        raise ValueError(f"histories have the columns {', '.join(map(str, table.columns)) or '(none)'}, but need user and "
                         "item, and may have timestamp: rename them.")
    for name in columns:
        if (missing := table[name].isna()).any():
            raise ValueError(f"{missing.sum():,} values of the column {name} of histories are missing, the first in row "
                             f"{missing.argmax()}: leave these rows out.")
    order = np.arange(len(table))
    if "timestamp" in columns:
        times = table["timestamp"]
        if not pd.api.types.is_numeric_dtype(times) and not pd.api.types.is_datetime64_any_dtype(times):
            raise ValueError("The column timestamp of histories must hold numbers or dates, but it is of type "
                             f"{times.dtype}: convert it with pd.to_numeric or pd.to_datetime.")
        order = times.argsort(kind="stable").to_numpy()
    codes, users = pd.factorize(table["user"])
    order = order[np.argsort(codes[order], kind="stable")]
    items, ends = table["item"].tolist(), np.cumsum(np.bincount(codes, minlength=len(users)))
    for user, part in zip(users.tolist(), np.split(order, ends[:-1])):
        yield user, [items[row] for row in part]
