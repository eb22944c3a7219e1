"""Leave-one-out as index pairs into the flat item array, windows over it, and batches of similar length cut to their
longest history.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from ..base.checks import whole
from .dataset import Dataset

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Examples:
    """N examples (history -> next item): the history of example i is items[first[i]:target[i]], its target items[target[i]]."""

    items: torch.Tensor    # [interactions] ids, all users' sequences one after the other
    first: torch.Tensor    # [N] positions in items
    target: torch.Tensor   # [N] positions in items

    def __len__(self) -> int:
        return len(self.target)

    @property
    def lengths(self) -> torch.Tensor:
        return self.target - self.first                                         # [N]

    def to(self, device: torch.device | str) -> "Examples":
        return Examples(self.items.to(device), self.first.to(device), self.target.to(device))

    def gather(self, index: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Examples `index` [B] as (histories [B, length] left-padded with 0, targets [B]), both int64."""
        target = self.target[index].unsqueeze(1).long()                         # [B, 1]
        position = target - torch.arange(length, 0, -1, device=index.device)    # [B, length], the latest item last
        real = position >= self.first[index].unsqueeze(1)
        histories = torch.where(real, self.items[position.clamp(min=0)], 0)
        return histories.long(), self.items[target.squeeze(1)].long()

    def gather_windows(self, index: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The items of the histories `index` [B], and for each the item after it, the last one's being the example's target:
        both [B, length] int64, padded with 0 on the right."""
        position = self.first[index].unsqueeze(1).long() + torch.arange(length, device=index.device)    # [B, length]
        real = position < self.target[index].unsqueeze(1)
        position = torch.where(real, position, 0)
        return torch.where(real, self.items[position], 0).long(), torch.where(real, self.items[position + 1], 0).long()


def _examples(*arrays: np.ndarray) -> Examples:
    return Examples(*(torch.from_numpy(array.astype(np.int32)) for array in arrays))


def leave_one_out(data: Dataset, split: Split, max_length: int) -> Examples:
    """The examples of a split: test predicts each user's last item, validation the one before, train all earlier ones.

    The history is everything before the target, cut to its latest `max_length` items; training targets start at a
    user's second item. Validation and test have one example per user, in the order of the users.
    """
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}; the splits are {', '.join(SPLITS)}.")
    max_length = whole(max_length, "max_length")
    begin, end = data.offsets[:-1], data.offsets[1:]                            # [U] positions in data.items
    if split == "train":
        counts = end - begin - 3                                                # targets begin+1 .. end-3, perhaps none
        users = np.repeat(np.arange(len(begin)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        start, target = begin[users], begin[users] + 1 + within
    else:
        start, target = begin, end - (1 if split == "test" else 2)
    first = np.maximum(start, target - max_length)
    return _examples(data.items, first, target)


def training_windows(data: Dataset, max_length: int, generator: torch.Generator) -> Examples:
    """The training sequences cut into windows of at most `max_length` items, for `Examples.gather_windows`.

    Every training target follows exactly one item of one window. Who has more than `max_length` is cut at a place that the
    generator draws, so that each epoch a target sees another part of what was before it.
    """
    max_length = whole(max_length, "max_length")
    begin, counts = data.offsets[:-1], np.diff(data.offsets) - 3                # [U] positions in data.items, targets each
    drawn = torch.randint(1, max_length + 1, (len(counts),), generator=generator).numpy()
    head = np.where(counts <= max_length, counts, drawn)                        # how many items the first window has
    number = (counts > 0) + -(-(counts - head) // max_length)                   # of windows of each user
    users = np.repeat(np.arange(len(begin)), number)
    within = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
    end = begin[users] + head[users] + within * max_length
    first = np.where(within > 0, end - max_length, begin[users])
    target = np.minimum(end, begin[users] + counts[users])
    return _examples(data.items, first, target)


def length_batches(
    lengths: torch.Tensor, batch_size: int, generator: torch.Generator | None = None, window: int = 64,
    sizes: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """Indices of all examples in batches of similar length, as a list of [B <= batch_size] tensors.

    With a generator: shuffled, then sorted by length within windows of `window` batches, and the batches shuffled, so
    that every example comes once an epoch and its companions change. Without: sorted by length over all.
    With sizes [N] an example fills so much of a batch, and a batch holds about `batch_size` of it, at least one example.
    """
    batch_size, window = whole(batch_size, "batch_size"), whole(window, "window")
    if not len(lengths):
        return []

    def cut(index: torch.Tensor) -> list[torch.Tensor]:
        index = index[torch.argsort(lengths[index], stable=True)]
        if sizes is None:
            return list(index.tensor_split(-(-len(index) // batch_size)))       # sizes differ by at most one
        filled = np.cumsum(sizes[index].numpy())
        parts = -(-int(filled[-1]) // batch_size)
        edges = np.searchsorted(filled, np.arange(1, parts) * (filled[-1] / parts), side="right")
        return [batch for batch in index.tensor_split(edges.tolist()) if len(batch)]

    if generator is None:
        return cut(torch.arange(len(lengths)))
    order = torch.randperm(len(lengths), generator=generator)
    total = len(lengths) if sizes is None else int(sizes.numpy().sum())
    parts = order.tensor_split(-(-total // (window * batch_size)))
    batches = [b for part in parts if len(part) for b in cut(part)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]
