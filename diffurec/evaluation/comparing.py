"""Intervals and tests: of one model over users, of the difference of two over users, over seeds, and over both."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..base.checks import whole
from .metrics import UnseenRanks, per_user

# Up to so many users who differ all patterns of their signs are counted, 2^20 at most. With few, bootstrap and t-test
# find differences between equal models too often: where 4 users differ, in 12.5 % of the cases instead of 5 %.
EXACT = 20


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
        batch=max(1, 200_000 // len(values)), rng=np.random.default_rng(seed),   # what a cache holds; 3 to 8 times as fast
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


class Crossed(NamedTuple):
    """What `crossed_test` finds. error: standard error of the mean; degrees: of freedom of the t-distribution."""

    mean: float
    low: float
    high: float
    p: float
    error: float
    degrees: float


def crossed_test(differences: ArrayLike, confidence: float = 0.95) -> Crossed:
    """Would other seeds *and* other users show it too? For one metric's differences per seed and user [S, U].

    A difference is a mean, an effect of its seed, one of its user, and a rest, all drawn at random: the two-way analysis of
    variance without replication. A test over users alone takes the seeds as given, one over seeds alone the users; here
    both are uncertain. The degrees of freedom are Satterthwaite's, at least S - 1. ValueError for fewer than two seeds
    or users.
    """
    from scipy.stats import t

    values = np.asarray(differences, dtype=float)
    if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
        raise ValueError("The differences must be one finite number for each of at least two seeds and users, [S, U].")
    seeds, users = values.shape
    mean, of_seed, of_user = values.mean(), values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    rest = values - of_seed - of_user + mean
    of_each = np.array([seeds - 1, users - 1, (seeds - 1) * (users - 1)])       # degrees of freedom
    squares = np.array([users * ((of_seed - mean)**2).sum(), seeds * ((of_user - mean)**2).sum(), (rest**2).sum()]) / of_each
    if np.abs(values).max() <= 1e-12:                                            # what rounding leaves
        return Crossed(0.0, 0.0, 0.0, 1.0, 0.0, seeds - 1)
    total = max(squares[0] + squares[1] - squares[2], squares[0], squares[1])    # a variance of an effect is not negative
    error = np.sqrt(total / values.size)
    degrees = max(total**2 / (squares**2 / of_each).sum(), seeds - 1) if total else seeds - 1
    half = t.isf((1 - confidence) / 2, degrees) * error
    with np.errstate(divide="ignore"):                                           # all differ by the same
        p = 2 * t.sf(abs(mean) / error, degrees)
    return Crossed(float(mean), float(mean - half), float(mean + half), float(p), float(error), float(degrees))


def power(difference: float, error: float, degrees: float, alpha: float = 0.05) -> float:
    """The probability that a two-sided t-test finds a true difference of this size (noncentral t).

    error: standard error of the mean difference, in its unit; degrees: of freedom; alpha: the p below which it is found.
    """
    from scipy.stats import nct, t

    critical, shift = t.isf(alpha / 2, degrees), abs(difference) / error
    return float(nct.sf(critical, degrees, shift) + nct.sf(critical, degrees, -shift))


def least_difference(error: float, degrees: float, alpha: float = 0.05, wanted: float = 0.8) -> float:
    """The smallest true difference that `power` finds with the probability `wanted`, in the unit of `error`."""
    from scipy.optimize import brentq

    most = 1.0
    while power(most, 1, degrees, alpha) < wanted:
        most *= 2
    return float(error * brentq(lambda size: power(size, 1, degrees, alpha) - wanted, 0, most))


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
