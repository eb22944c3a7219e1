"""Two baselines that learn by counting, evaluated like DiffuRec: most-popular and the first-order Markov chain.

Both count in the training part only (all but each user's last two items), as DiffuRec is trained.
"""

import numpy as np
import torch

from ..data.dataset import Dataset


class _Counted:
    """What `evaluate` asks of a model, for one that looks at the last item alone; subclasses give score_items."""

    max_length = 1
    device = torch.device("cpu")

    def __init__(self, data: Dataset):
        self.num_items, self.numbering = data.num_items, data.numbering
        users = np.repeat(np.arange(data.num_users), np.diff(data.offsets))      # [interactions]
        training = np.arange(len(data.items)) < (data.offsets[1:] - 2)[users]
        self.items, self.users = data.items[training].astype(np.int64), users[training]
        self.popularity = torch.from_numpy(np.bincount(self.items, minlength=data.num_items + 1)).double()

    def predict(self, histories: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """The last item of each left-padded history: [B, L] -> [B]. Nothing is random; the generator is not used."""
        return histories[:, -1]


class MostPopular(_Counted):
    """Scores every item by its number of training interactions, whatever the history."""

    def score_items(self, last_items: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """[B] -> [B, last - first], the scores of the items first..last-1."""
        return self.popularity[first:last].expand(len(last_items), -1)


class MarkovChain(_Counted):
    """Scores item j after item i by how often j followed i directly; among equals, and after an i never seen, by popularity."""

    def __init__(self, data: Dataset):
        from scipy.sparse import coo_matrix     # here, because it takes time to load

        super().__init__(data)
        follows = self.users[1:] == self.users[:-1]                              # pairs within one user
        pairs = self.items[:-1][follows], self.items[1:][follows]
        shape = (data.num_items + 1, data.num_items + 1)
        self.transitions = coo_matrix((np.ones(len(pairs[0])), pairs), shape).tocsr()   # duplicates are summed
        self.tie_break = self.popularity / (self.popularity.sum() + 1)           # below 1: never outweighs a transition

    def score_items(self, last_items: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """[B] -> [B, last - first], the scores of the items first..last-1."""
        counts = self.transitions[last_items.numpy(), first:last].toarray()
        return torch.from_numpy(counts) + self.tie_break[first:last]
