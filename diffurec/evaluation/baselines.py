"""Baselines that learn by counting, evaluated like DiffuRec: most-popular, the Markov chain and the nearest items.

They count in the training part only (all but each user's last two items), as DiffuRec is trained. `choose_baseline` finds the
strongest of them on the validation split.
"""

from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..base.checks import whole
from ..data.dataset import Dataset
from .ranking import evaluate


class _Counted:
    """What `evaluate` asks of a model, for one that looks at the last `max_length` items; subclasses give score_items."""

    max_length = 1
    device = torch.device("cpu")

    def __init__(self, data: Dataset) -> None:
        self.num_items, self.catalogue = data.num_items, data.catalogue
        users = np.repeat(np.arange(data.num_users), np.diff(data.offsets))      # [interactions]
        training = np.arange(len(data.items)) < (data.offsets[1:] - 2)[users]
        self.items, self.users = data.items[training].astype(np.int64), users[training]
        self.popularity = torch.from_numpy(np.bincount(self.items, minlength=data.num_items + 1)).double()

    def predict(self, histories: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """The last items of each left-padded history, 0 where there is none: [B, L] -> [B, max_length]. Nothing is random."""
        return F.pad(histories, (self.max_length, 0))[:, -self.max_length:]

    def score_items(self, last_items: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """[B, max_length] -> [B, last - first], the scores of the items first..last-1."""
        raise NotImplementedError


class MostPopular(_Counted):
    """Scores every item by its number of training interactions, whatever the history."""

    def score_items(self, last_items: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """[B, 1] -> [B, last - first], the scores of the items first..last-1."""
        return self.popularity[first:last].expand(len(last_items), -1)


class _LastItems(_Counted):
    """Scores item j by sum_k decay^(k-1) table[i_k, j], i_k the k-th last of `length` items; among equals by popularity."""

    def __init__(self, data: Dataset, length: int, decay: float) -> None:
        super().__init__(data)
        self.max_length = whole(length, "length")
        if not isinstance(decay, Real) or isinstance(decay, bool) or not 0 < decay <= 1:
            raise ValueError(f"decay must be a number above 0 and at most 1, but it is {decay!r}.")
        # [length], the oldest first. Products, because processors round powers differently, and that can undo a tie.
        self.weights: np.ndarray = np.cumprod([1.0, *[float(decay)] * (length - 1)])[::-1]
        self.table: Any = self.counted()                                         # [I + 1, I + 1], sparse; row 0 is empty
        least = self.table.data.min(initial=1) * self.weights[0]                 # what a pair adds at least
        self.tie_break: torch.Tensor = least * self.popularity / (self.popularity.sum() + 1)   # below that: outweighs no pair

    def counted(self) -> Any:
        """The table, [I + 1, I + 1], sparse."""
        raise NotImplementedError

    def followers(self, distance: int) -> Any:
        """[I + 1, I + 1], sparse: how often item j came so many places after item i in a user's sequence."""
        from scipy.sparse import coo_matrix     # here as below, because it takes time to load

        within = self.users[distance:] == self.users[:-distance]                 # pairs within one user
        pairs = self.items[:-distance][within], self.items[distance:][within]
        return coo_matrix((np.ones(len(pairs[0])), pairs), (self.num_items + 1,) * 2).tocsr()    # duplicates are summed

    def score_items(self, last_items: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """[B, length] -> [B, last - first], the scores of the items first..last-1."""
        from scipy.sparse import csr_matrix

        rows, length = last_items.shape
        entries = np.tile(self.weights, rows), last_items.numpy().ravel(), np.arange(rows + 1) * length
        weights = csr_matrix(entries, (rows, self.num_items + 1))                # [B, I + 1]
        return torch.from_numpy((weights @ self.table)[:, first:last].toarray()) + self.tie_break[first:last]


class MarkovChain(_LastItems):
    """Scores item j by how often it followed each of the last `length` items directly, the k-th last times decay^(k-1).

    Among equals, and after items never followed, by popularity. With length=1 it is the first-order Markov chain.
    Followers are the direct ones for every k, the simpler way. Counted k places after the k-th last item, which takes a table
    for each k, the best NDCG@10 on validation was close: a little lower on ml-100k and amazon-beauty, higher on ml-1m.
    """

    def __init__(self, data: Dataset, length: int = 1, decay: float = 0.7) -> None:
        super().__init__(data, length, decay)

    def counted(self) -> Any:
        return self.followers(1)


class NearestItems(_LastItems):
    """Scores item j by its cosine with each of the last `length` items, the k-th last times decay^(k-1).

    The cosine of i and j is C_ij / sqrt(n_i n_j), C_ij how often they were at most `window` places apart in a user's
    sequence, in either order, and n_i how often i occurs. With a window as long as the sequences, and if nobody has an
    item twice, it is the cosine of the sets of users who had i and j (Sarwar et al., WWW 2001). Among equals by popularity.
    """

    def __init__(self, data: Dataset, length: int = 5, decay: float = 0.7, window: int = 10) -> None:
        self.window = whole(window, "window")
        super().__init__(data, length, decay)

    def counted(self) -> Any:
        from scipy.sparse import diags

        longest = int(np.bincount(self.users).max())
        together = self.followers(1)
        for distance in range(2, min(self.window, longest - 1) + 1):
            together = together + self.followers(distance)
        scale = diags(1 / np.sqrt(self.popularity.clamp(min=1).numpy()))         # an item that never occurs has no pair
        return (scale @ (together + together.T) @ scale).tocsr()


# What `choose_baseline` tries: the decay says nothing where only one item is looked at.
BACK: list[dict[str, Any]] = [
    {"length": 1},
    *({"length": length, "decay": decay} for length in (2, 3, 4, 5) for decay in (0.3, 0.5, 0.7, 0.9)),
]
CANDIDATES: list[tuple[type[_Counted], dict[str, Any]]] = [
    (MostPopular, {}),
    *((MarkovChain, settings) for settings in BACK),
    *((NearestItems, settings | {"window": window}) for window in (3, 10) for settings in BACK),
]


def choose_baseline(
    data: Dataset, candidates: Iterable[tuple[type[_Counted], dict[str, Any]]] = CANDIDATES
) -> tuple[_Counted, list[dict[str, Any]]]:
    """The baseline with the best NDCG@10 on the validation split, the first among equals, and all trials in their order.

    candidates: (class, its settings). A trial is {"model": name of the class, its settings, the validation metrics}.
    """
    trials: list[dict[str, Any]] = []
    best, most = None, -1.0
    for kind, settings in candidates:
        model = kind(data, **settings)
        trials.append({"model": kind.__name__, **settings, **evaluate(model, data, "validation")})
        if trials[-1]["NDCG@10"] > most:
            best, most = model, trials[-1]["NDCG@10"]
    if best is None:
        raise ValueError("There is no candidate to choose from; give at least one pair of a class and its settings.")
    return best, trials
