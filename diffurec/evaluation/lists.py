"""What recommended lists show beside their accuracy: how much of the catalogue, how evenly, and how little known."""

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..base.checks import whole
from ..data.dataset import Dataset


def _times_recommended(items: ArrayLike | torch.Tensor, num_items: int) -> np.ndarray:
    """How often each item is in the lists, [I], from lists of ids [U, k]; ValueError if these are no such lists."""
    whole(num_items, "num_items")
    ids = items.numpy(force=True) if isinstance(items, torch.Tensor) else np.asarray(items)
    if ids.ndim != 2 or not ids.size or ids.dtype.kind not in "iu" or ids.min() < 1 or ids.max() > num_items:
        raise ValueError(f"items must be a list of ids within 1..{num_items} for each of at least one user, [U, k].")
    return np.bincount(ids.ravel(), minlength=num_items + 1)[1:]


def coverage(items: ArrayLike | torch.Tensor, num_items: int) -> float:
    """The share of the catalogue that is recommended to anybody, 0..1. items: [U, k] ids, as of `recommend`."""
    return float((_times_recommended(items, num_items) > 0).mean())


def gini(items: ArrayLike | torch.Tensor, num_items: int) -> float:
    """The Gini coefficient of how often each item of the catalogue is recommended. items: [U, k] ids.

    0 where all are recommended equally often, (I - 1) / I where a single one is. With the numbers of times in rising order,
    x_1..x_I, it is sum_i (2 i - I - 1) x_i / (I sum_i x_i).
    """
    times = np.sort(_times_recommended(items, num_items))
    return float((2 * np.arange(1, num_items + 1) - num_items - 1) @ times / (num_items * times.sum()))


def novelty(items: ArrayLike | torch.Tensor, data: Dataset) -> float:
    """The mean over all places of the lists of -log2 p_i, p_i the item's share of the training interactions. items: [U, k].

    In bits; the rarer what is recommended, the higher. The mean self-information of Zhou et al. (PNAS 2010), with p_i from
    interactions as in Vargas and Castells (RecSys 2011). An item that never occurs counts as if it occurred once.
    """
    times = _times_recommended(items, data.num_items)
    occurs = np.bincount(np.concatenate([s[:-2] for s in data.sequences]), minlength=data.num_items + 1)[1:]
    return float(-np.log2(np.maximum(occurs, 1) / occurs.sum()) @ times / times.sum())
