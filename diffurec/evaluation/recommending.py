"""The best items for histories that a user gives."""

import math
import sys
from collections.abc import Iterable

import torch

from ..base.checks import whole
from ..data.histories import left_padded
from ..fast import item_chunks
from .ranking import Model, among, predicting


def recommend(
    model: Model, histories: Iterable, k: int | None = None, num_steps: int | None = None,
    generator: torch.Generator | None = None, ensemble: int | None = None, filter_seen: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best items per history and their scores x_0 . e_j: ([B, k] ids, [B, k]), best first. `model.recommend` too.

    histories: a list of id sequences of any lengths (the latest `max_length` count), or a tensor or array [B, L],
    left-padded with 0. k: None takes 20, or all items where fewer are left. Items already in the history are not
    removed, as in the evaluation of the papers; filter_seen=True removes them, also those before the latest `max_length`.
    ensemble=E averages the distributions over the catalogue of E predictions, in one step each unless num_steps
    says otherwise (Algorithm 3); the scores are then logs of mean probabilities.
    Runs in evaluation mode. ValueError for empty or all-padding histories, ids that are no whole numbers in
    1..num_items, or a k that is none or larger than a history leaves items; FloatingPointError for scores that are not
    finite.
    """
    if k is not None:
        k = whole(k, "k, of the items of the catalogue,", most=model.num_items)
    seen = left_padded(histories, model.num_items, sys.maxsize if filter_seen else model.max_length).to(model.device)
    rows, left = seen[:, -model.max_length:], model.num_items
    if filter_seen:
        distinct = (torch.nn.functional.pad(seen.sort(1).values, (1, 0)).diff(dim=1) != 0).sum(1)    # 0 comes first
        left -= int(distinct.max())
        if left < (k or 1):
            raise ValueError(f"History {int(distinct.argmax())} holds all but {left} of the {model.num_items} items, and "
                             f"{k or 1} that it does not hold cannot be recommended; ask for fewer, or without filter_seen.")
    k = k or min(20, left)
    sampling = {"num_steps": num_steps, "ensemble": ensemble}
    with predicting(model):
        prediction = model.predict(rows, generator=generator, **{n: v for n, v in sampling.items() if v is not None})
        scores = torch.empty(len(rows), 0, device=model.device)
        items = torch.empty(len(rows), 0, dtype=torch.long, device=model.device)
        for first, last in item_chunks(model.num_items):
            chunk = model.score_items(prediction, first, last)
            if not torch.stack(chunk.aminmax()).isfinite().all():                # the extremes are NaN if any is
                raise FloatingPointError("The model gives scores that are not finite; it cannot recommend.")
            if filter_seen:
                chunk = chunk.masked_fill(among(seen, first, last), -math.inf)
            best, index = chunk.topk(min(k, chunk.shape[1]), dim=1)
            scores, items = torch.cat([scores, best], dim=1), torch.cat([items, index + first], dim=1)
            scores, index = scores.topk(min(k, scores.shape[1]), dim=1)
            items = items.gather(1, index)
    return items, scores
