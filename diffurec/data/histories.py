"""Histories as a user of a model gives them, checked and left-padded."""

import reprlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F


def checked(histories: Iterable, num_items: int) -> list[np.ndarray]:
    """The ids of each history, without padding.

    histories: a list of id sequences of any lengths, or a tensor or array [B, L], left-padded with 0. ValueError for
    empty or all-padding histories, and for ids that are no whole numbers in 1..num_items.
    """
    from_tensor = isinstance(histories, (torch.Tensor, np.ndarray))
    given = [row.numpy(force=True) if isinstance(row, torch.Tensor) else row for row in histories]
    if not given:
        raise ValueError("histories is empty; give at least one history.")
    rows = []
    for user, row in enumerate(given):
        try:
            ids = np.asarray(row)
        except ValueError:                                                       # sequences within a sequence
            ids = np.asarray(row, dtype=object)
        if ids.ndim != 1 or ids.size and ids.dtype.kind not in "iu":
            raise ValueError(f"History {user} must be a sequence of whole item ids, but it is {reprlib.repr(row)}.")
        if ids.size and (ids.min() < 0 or ids.max() > num_items):
            raise ValueError(
                f"History {user} holds an item id outside 1..{num_items} "
                f"(smallest {ids.min()}, largest {ids.max()}); ids are those of the data set the model knows."
            )
        if not ids.any():
            raise ValueError(f"History {user} holds no item; a recommendation needs at least one.")
        ids = np.trim_zeros(ids, "f") if from_tensor else ids
        if not ids.all():
            raise ValueError(
                f"History {user} holds the id 0, which is no item but the padding of a tensor's rows, on their "
                "left alone; leave it out."
            )
        rows.append(ids)
    return rows


def padded(rows: Sequence[np.ndarray], max_length: int) -> torch.Tensor:
    """Left-padded ids [B, L], L the longest history's length but at most max_length, whose latest items count."""
    latest = [torch.from_numpy(row[-max_length:].astype(np.int64)) for row in rows]
    length = max(map(len, latest))
    return torch.stack([F.pad(row, (length - len(row), 0)) for row in latest])


def left_padded(histories: Iterable, num_items: int, max_length: int) -> torch.Tensor:
    """`padded` of what is `checked`."""
    return padded(checked(histories, num_items), max_length)
