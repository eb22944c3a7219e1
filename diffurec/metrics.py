"""Ranking metrics from the rank of each user's target, and bootstrap intervals over users."""

import numpy as np
from scipy.stats import bootstrap

CUTOFFS = (5, 10, 20)


def hit_rate(ranks, k):
    """HR@k per user: 1 where the target is among the k best. ranks: [U], 1 is best."""
    return (np.asarray(ranks) <= k).astype(float)


def ndcg(ranks, k):
    """NDCG@k per user with one relevant item: 1 / log2(rank + 1) within the k best, else 0. ranks: [U]."""
    ranks = np.asarray(ranks, dtype=float)
    return np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0)


def reciprocal_rank(ranks):
    """1 / rank per user, over the whole catalogue; its mean is MRR. ranks: [U]."""
    return 1 / np.asarray(ranks, dtype=float)


def per_user(ranks):
    """All metrics for each user: {"HR@5": [U], ..., "NDCG@20": [U], "MRR": [U]}."""
    values = {f"HR@{k}": hit_rate(ranks, k) for k in CUTOFFS}
    values |= {f"NDCG@{k}": ndcg(ranks, k) for k in CUTOFFS}
    return values | {"MRR": reciprocal_rank(ranks)}


def mean_metrics(ranks):
    """Means over users: {"HR@5": float, ...}, fractions in 0..1."""
    return {name: float(value.mean()) for name, value in per_user(ranks).items()}


def bootstrap_interval(values, confidence=0.95, num_resamples=2000, seed=0):
    """(low, high) of the mean of `values` [U] over users resampled with replacement (percentile bootstrap).

    For the difference of two models pass the per-user differences: resampling them keeps the pairs together.
    """
    values = np.asarray(values, dtype=float)
    if np.ptp(values) == 0:                                                      # nothing varies: the mean is exact
        return float(values[0]), float(values[0])
    result = bootstrap(
        (values,), np.mean, confidence_level=confidence, n_resamples=num_resamples, method="percentile",
        batch=max(1, 10_000_000 // len(values)), rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def compare(ranks, baseline_ranks, confidence=0.95, num_resamples=2000, seed=0):
    """Paired comparison over the same users: {metric: (difference of means, low, high)}, positive if `ranks` is better.

    ValueError if the two do not rank the same number of users.
    """
    if len(ranks) != len(baseline_ranks):
        raise ValueError(f"The two models rank {len(ranks)} and {len(baseline_ranks)} users; a pair needs the same users.")
    ours, theirs = per_user(ranks), per_user(baseline_ranks)
    differences = {name: ours[name] - theirs[name] for name in ours}
    return {
        name: (float(d.mean()), *bootstrap_interval(d, confidence, num_resamples, seed))
        for name, d in differences.items()
    }
