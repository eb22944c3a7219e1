"""Ranking metrics from the place of each user's target, intervals over users and paired tests."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..base.checks import whole

CUTOFFS = (5, 10, 20)
# Up to so many users who differ all patterns of their signs are counted, 2^20 at most. With few, bootstrap and t-test
# find differences between equal models too often: where 4 users differ, in 12.5 % of the cases instead of 5 %.
EXACT = 20


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


def _finite(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError("The values must be one finite number for each of at least one user, [U].")
    return values


def bootstrap_interval(
    values: ArrayLike, confidence: float = 0.95, num_resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """(low, high) of the mean of `values` [U] over users resampled with replacement (percentile bootstrap).

    For the difference of two models see `paired_interval`: where few users differ, this one is too sure of itself.
    """
    from scipy.stats import bootstrap

    values = _finite(values)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, such as 0.95, but it is {confidence!r}.")
    whole(num_resamples, "num_resamples")
    whole(seed, "seed", least=0)
    if np.ptp(values) == 0:                                                      # nothing varies: the mean is exact
        return float(values[0]), float(values[0])
    result = bootstrap(
        (values,), np.mean, confidence_level=confidence, n_resamples=num_resamples, method="percentile",
        batch=max(1, 10_000_000 // len(values)), rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _without_rounding(differences: ArrayLike) -> np.ndarray:
    """The differences [U] with 0 where rounding has left a little of two equal values."""
    differences = _finite(differences)
    return np.where(abs(differences) > 1e-12, differences, 0.0)


def _as_large(differing: np.ndarray) -> np.ndarray:
    """How many of the 2^m patterns of signs sum to as much as these [m] or more, by the number of pluses: [m + 1]."""
    sums, pluses = np.zeros(1), np.zeros(1, dtype=np.int8)
    for size in abs(differing):
        sums, pluses = np.concatenate([sums - size, sums + size]), np.concatenate([pluses, pluses + 1])
    rounding = 1e-9 * abs(differing).sum()
    return np.bincount(pluses[sums >= differing.sum() - rounding], minlength=len(differing) + 1)


def _exact_low(differing: np.ndarray, tail: float) -> float:
    """The least sum, in the mean, under which a sum as large as that of `differing` [m] has the probability `tail`.

    Each user's difference is a plus with the same probability, on its own; the sizes stay. So at 1/2 this is the
    sign-flip test, and with equal sizes the interval of Clopper and Pearson.
    """
    from scipy.optimize import brentq

    counts, plus = _as_large(differing), np.arange(len(differing) + 1)
    if counts[0]:                                                                # all are minuses: any sum is as large
        return -abs(differing).sum()
    chance = lambda p: (counts * p**plus * (1 - p)**plus[::-1]).sum() - tail     # noqa: E731
    return (2 * brentq(chance, 0, 1) - 1) * abs(differing).sum()


def paired_test(differences: ArrayLike) -> tuple[float, str]:
    """(p, name of the test) against two models being alike, from one metric's differences per user [U].

    Up to 20 users who differ: the exact sign-flip test, two-sided. If the models are alike, the sign of each of these
    differences is the toss of a coin; all 2^m outcomes are counted. With 5 users or fewer p is at least 0.0625. More
    users: the paired t-test. (1.0, "no user differs") where that is so.
    """
    from scipy.stats import t

    differences = _without_rounding(differences)
    differing = differences[differences != 0]                                    # [m]
    if not len(differing):
        return 1.0, "no user differs"
    if len(differing) <= EXACT:
        smaller = min(_as_large(differing).sum(), _as_large(-differing).sum())
        return float(min(1.0, 2 * smaller / 2**len(differing))), "exact sign-flip test"
    with np.errstate(divide="ignore"):                                           # all differ by the same
        value = differences.mean() / (differences.std(ddof=1) / np.sqrt(len(differences)))
    return float(2 * t.sf(abs(value), len(differences) - 1)), "paired t-test"


def paired_interval(
    differences: ArrayLike, confidence: float = 0.95, num_resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """(low, high) of the mean of one metric's differences per user [U]; resampling them keeps the pairs together.

    More than 20 users who differ: `bootstrap_interval`. Up to 20 it is widened to the exact interval that belongs to
    `paired_test`, so that it leaves out 0 only where that test gives p < 1 - confidence. No user differs: (0, 0).
    """
    differences = _without_rounding(differences)
    differing, users = differences[differences != 0], len(differences)           # [m]
    low, high = bootstrap_interval(differences, confidence, num_resamples, seed)
    if 0 < len(differing) <= EXACT:
        tail = (1 - confidence) / 2
        low = min(low, float(_exact_low(differing, tail) / users))
        high = max(high, float(-_exact_low(-differing, tail) / users))
    return low, high


def compare(
    ranks: Sequence | np.ndarray, baseline_ranks: Sequence | np.ndarray, confidence: float = 0.95,
    num_resamples: int = 2000, seed: int = 0,
) -> dict[str, tuple[float, float, float]]:
    """Paired comparison over the same users: {metric: (difference of means, low, high)}, positive if `ranks` is better.

    The interval is that of `paired_interval`. ValueError if the two do not rank the same number of users, or only one
    is among unseen items.
    """
    if isinstance(ranks, UnseenRanks) != isinstance(baseline_ranks, UnseenRanks):
        raise ValueError("One model is ranked among all items and the other among unseen ones; a pair needs one protocol.")
    if len(ranks) != len(baseline_ranks):
        raise ValueError(f"The two models rank {len(ranks)} and {len(baseline_ranks)} users; a pair needs the same users.")
    ours, theirs = per_user(ranks), per_user(baseline_ranks)
    differences = {name: ours[name] - theirs[name] for name in ours}
    return {
        name: (float(d.mean()), *paired_interval(d, confidence, num_resamples, seed))
        for name, d in differences.items()
    }
