"""Leave-one-out as index pairs into the flat item array, and batches of similar length cut to their longest history."""

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
    tensor = lambda x: torch.from_numpy(x.astype(np.int32))                     # noqa: E731
    return Examples(tensor(data.items), tensor(first), tensor(target))


def length_batches(
    lengths: torch.Tensor, batch_size: int, generator: torch.Generator | None = None, window: int = 64
) -> list[torch.Tensor]:
    """Indices of all examples in batches of similar length, as a list of [B <= batch_size] tensors.

    With a generator: shuffled, then sorted by length within windows of `window` batches, and the batches shuffled, so
    that every example comes once an epoch and its companions change. Without: sorted by length over all.
    """
    batch_size, window = whole(batch_size, "batch_size"), whole(window, "window")
    if not len(lengths):
        return []

    def cut(index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        index = index[torch.argsort(lengths[index], stable=True)]
        return index.tensor_split(-(-len(index) // batch_size))                 # sizes differ by at most one

    if generator is None:
        return list(cut(torch.arange(len(lengths))))
    order = torch.randperm(len(lengths), generator=generator)
    batches = [b for part in order.tensor_split(-(-len(order) // (window * batch_size))) for b in cut(part)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]
