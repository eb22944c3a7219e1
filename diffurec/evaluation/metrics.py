"""Ranking metrics from the place of each user's target."""

import numpy as np
from numpy.typing import ArrayLike

from ..base.checks import whole

CUTOFFS = (5, 10, 20)


class UnseenRanks(np.ndarray):
    """Places among the items that the user has not seen, of `rank_targets(..., filter_seen=True)` or `rank_scores`.

    An array like any other, but its metrics have other names, "HR@10 (unseen)", so that they are not taken for those
    among all items, and `compare` refuses the two together. Places out of a file: np.array(...).view(UnseenRanks).
    """

    __array_priority__ = 1.0        # what is concatenated with them is of their kind


def places(ranks: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last place of each target, [U] int64 each. ranks: [U, 2], or [U] where nothing is tied.

    A place in the middle of two, such as 1.5, is read as a tie of these two. ValueError if these are no places.
    """
    ranks = np.asarray(ranks, dtype=float)
    if ranks.ndim == 1:
        ranks = np.stack([np.floor(ranks), np.ceil(ranks)], axis=1)
    if ranks.ndim != 2 or ranks.shape[1] != 2:
        raise ValueError(f"ranks must be a place for each user, [U], or two, [U, 2]; these are {[*ranks.shape]}.")
    first, last = ranks.T
    if not ((first >= 1) & (first <= last) & np.isfinite(last) & (ranks.T == np.floor(ranks.T)).all(0)).all():
        raise ValueError("ranks must be whole numbers from 1 on, and a last place must not come before the first.")
    return first.astype(np.int64), last.astype(np.int64)


def hit_rate(ranks: ArrayLike, k: int) -> np.ndarray:
    """HR@k per user: the share of the places from first to last that are among the k best. ranks: [U, 2] or [U]."""
    whole(k, "k")
    first, last = places(ranks)
    tied = last - first + 1
    return np.clip(k - first + 1, 0, tied) / tied


def ndcg(ranks: ArrayLike, k: int) -> np.ndarray:
    """NDCG@k per user with one relevant item: the mean, over the places from first to last, of 1 / log2(place + 1)
    within the k best and 0 below. ranks: [U, 2] or [U].
    """
    whole(k, "k")
    first, last = places(ranks)
    gain = np.concatenate([[0], 1 / np.log2(np.arange(1, k + 1) + 1), [0]])      # [k + 2], of the places 0..k+1
    total = gain.cumsum()
    summed = total[np.minimum(last, k)] - total[np.minimum(first - 1, k)]
    return np.where(first == last, gain[np.minimum(first, k + 1)], summed / (last - first + 1))


def reciprocal_rank(ranks: ArrayLike) -> np.ndarray:
    """1 / place per user, over the whole catalogue, the mean from first to last; its mean over users is MRR."""
    from scipy.special import digamma       # here as below, because scipy takes a second to load

    first, last = places(ranks)
    tied = last - first + 1
    return np.where(tied == 1, 1 / first, (digamma(last + 1) - digamma(first)) / tied)     # 1/first + ... + 1/last


def per_user(ranks: ArrayLike) -> dict[str, np.ndarray]:
    """All metrics for each user: {"HR@5": [U], ..., "NDCG@20": [U], "MRR": [U]}. ranks: [U, 2], or [U] without ties.

    Each is the expectation when every place from the first to the last is equally likely, as in a random order of the
    items with equal scores. It is not the metric at the mean place: of the places 1 to 20 half are hits at 10.
    """
    values = {f"HR@{k}": hit_rate(ranks, k) for k in CUTOFFS}
    values |= {f"NDCG@{k}": ndcg(ranks, k) for k in CUTOFFS}
    values["MRR"] = reciprocal_rank(ranks)
    return {f"{name} (unseen)": v for name, v in values.items()} if isinstance(ranks, UnseenRanks) else values


def mean_metrics(ranks: ArrayLike) -> dict[str, float]:
    """Means over users: {"HR@5": float, ...}, fractions in 0..1."""
    return {name: float(value.mean()) for name, value in per_user(ranks).items()}
