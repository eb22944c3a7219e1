"""The metrics against slow obvious ones and torchmetrics, ties by their expected rank, and the bootstrap intervals."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffurec.evaluation import expected_ranks
from diffurec.metrics import (
    CUTOFFS, bootstrap_interval, compare, hit_rate, mean_metrics, ndcg, per_user, reciprocal_rank,
)

repeatable = settings(derandomize=True, deadline=None, max_examples=60, database=None)     # always the same examples
some_ranks = st.lists(st.integers(1, 100), min_size=1, max_size=30)
some_cutoff = st.integers(1, 60)
# Few different scores, so that ties are the rule; whole numbers and halves are exact in float32.
some_scores = st.lists(st.integers(-3, 3).map(lambda x: x / 2), min_size=1, max_size=6)


class Scores:
    """A model whose prediction is the scores themselves, [B, I]."""

    def __init__(self, num_items):
        self.num_items = num_items

    def score_items(self, prediction, first, last):
        return prediction[:, first - 1:last - 1]


def rank_of(scores, target):
    """The package's rank of item `target` (from 1) among the scores of items 1..I."""
    return expected_ranks(Scores(len(scores)), torch.tensor([scores]), torch.tensor([target])).item()


def sorted_rank(scores, target, order):
    """The target's place, from 1, in the items sorted by falling score, where equal ones stay in `order`."""
    ranking = sorted(order, key=lambda item: -scores[item - 1])          # Python's sort is stable
    return ranking.index(target) + 1


# Ranks

@repeatable
@given(some_scores, st.data())
def test_a_rank_is_the_mean_over_all_ways_to_break_ties(scores, data):
    items = range(1, len(scores) + 1)
    target = data.draw(st.sampled_from(items))
    every_way = [sorted_rank(scores, target, order) for order in itertools.permutations(items)]
    assert rank_of(scores, target) == pytest.approx(sum(every_way) / len(every_way))


@repeatable
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40, unique=True), st.data())
def test_without_ties_a_rank_is_the_place_in_the_sorted_list(scores, data):
    target = data.draw(st.integers(1, len(scores)))
    assert rank_of(scores, target) == sorted(scores, reverse=True).index(scores[target - 1]) + 1


@pytest.mark.parametrize("num_items", [1, 2, 3, 10, 101])
def test_equal_scores_for_all_give_the_middle_rank_to_any_target(num_items):
    for target in {1, (num_items + 1) // 2, num_items}:
        assert rank_of([0.25] * num_items, target) == (num_items + 1) / 2


@repeatable
@given(some_scores, st.data())
def test_a_tie_is_never_better_for_the_model_than_half_won(scores, data):
    """The expected rank lies midway between the best and the worst that the ties allow."""
    target = data.draw(st.integers(1, len(scores)))
    own = scores[target - 1]
    best = 1 + sum(score > own for score in scores)
    worst = sum(score >= own for score in scores)
    assert rank_of(scores, target) == (best + worst) / 2


@repeatable
@given(some_scores, st.data())
def test_the_numbering_of_the_items_does_not_change_a_rank(scores, data):
    order = data.draw(st.permutations(range(len(scores))))
    target = data.draw(st.integers(0, len(scores) - 1))
    assert rank_of(scores, target + 1) == rank_of([scores[i] for i in order], order.index(target) + 1)


def test_scores_in_float64_are_compared_in_float64():
    """1 and 1 + 1e-12 are no tie, though they are one in float32."""
    scores = torch.tensor([[1.0, 1.0 + 1e-12, 1.0 - 1e-12]], dtype=torch.float64)
    ranks = [expected_ranks(Scores(3), scores, torch.tensor([target])).item() for target in (1, 2, 3)]
    assert ranks == [2, 1, 3]


def test_infinitely_bad_and_undefined_scores_of_the_target_are_refused():
    for bad in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(FloatingPointError, match="not finite"):
            rank_of([0.1, bad, 0.3], 2)


# Metrics

@repeatable
@given(some_ranks, some_cutoff)
def test_hit_rate_is_1_where_the_target_is_in_the_first_k_of_the_list(ranks, k):
    assert hit_rate(ranks, k).tolist() == [1.0 if rank in range(1, k + 1) else 0.0 for rank in ranks]


@repeatable
@given(some_ranks, some_cutoff)
def test_ndcg_is_the_discounted_gain_over_the_ideal_one(ranks, k):
    def slow(rank):
        gains = [1 if place == rank else 0 for place in range(1, k + 1)]
        return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, start=1)) / (1 / math.log2(2))

    assert ndcg(ranks, k).tolist() == pytest.approx([slow(rank) for rank in ranks])


@repeatable
@given(some_ranks)
def test_the_reciprocal_rank_is_1_over_the_rank(ranks):
    assert reciprocal_rank(ranks).tolist() == pytest.approx([1 / rank for rank in ranks])


@repeatable
@given(st.lists(some_scores, min_size=1, max_size=4), st.data())
def test_with_ties_the_metrics_take_the_expected_rank(lists, data):
    """From scores to means: half ranks count as they are, so 5.5 is no hit at 5."""
    expected, ranks = [], []
    for scores in lists:
        items = range(1, len(scores) + 1)
        target = data.draw(st.sampled_from(items))
        ways = [sorted_rank(scores, target, order) for order in itertools.permutations(items)]
        expected.append(sum(ways) / len(ways))
        ranks.append(rank_of(scores, target))
    found, n = mean_metrics(ranks), len(lists)
    for k in CUTOFFS:
        assert found[f"HR@{k}"] == pytest.approx(sum(rank <= k for rank in expected) / n)
        assert found[f"NDCG@{k}"] == pytest.approx(sum(1 / math.log2(rank + 1) for rank in expected if rank <= k) / n)
    assert found["MRR"] == pytest.approx(sum(1 / rank for rank in expected) / n)


def test_half_ranks_at_the_cutoff():
    assert hit_rate([5, 5.5, 6], 5).tolist() == [1, 0, 0]
    assert ndcg([1.5, 5.5], 5).tolist() == pytest.approx([1 / math.log2(2.5), 0])


@repeatable
@given(some_ranks, some_cutoff)
def test_hit_rate_and_ndcg_do_not_fall_with_k_and_ndcg_is_never_above_hit_rate(ranks, k):
    assert (hit_rate(ranks, k) <= hit_rate(ranks, k + 1)).all()
    assert (ndcg(ranks, k) <= ndcg(ranks, k + 1)).all()
    assert (ndcg(ranks, k) <= hit_rate(ranks, k)).all()


@repeatable
@given(some_ranks)
def test_the_mean_is_over_users(ranks):
    found = mean_metrics(ranks)
    assert list(found) == ["HR@5", "HR@10", "HR@20", "NDCG@5", "NDCG@10", "NDCG@20", "MRR"]
    for name, values in per_user(ranks).items():
        assert len(values) == len(ranks)
        assert type(found[name]) is float and found[name] == pytest.approx(sum(values.tolist()) / len(ranks))


@pytest.fixture(scope="module")
def ranked_lists():
    """40 users' scores of 50 items without ties, and one target each; torchmetrics wants scores above 0."""
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(np.stack([1 + rng.permutation(50) for _ in range(40)])).float()
    return scores, torch.from_numpy(rng.integers(1, 51, 40))


@pytest.mark.parametrize("k", [1, 5, 10, 20, 50])
def test_torchmetrics_gives_the_same_values(ranked_lists, k):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")             # its own imports
        retrieval = pytest.importorskip("torchmetrics.functional.retrieval")
    scores, targets = ranked_lists
    ranks = expected_ranks(Scores(50), scores, targets).numpy()
    found = {name: [] for name in ("hit", "ndcg", "rr")}
    for row, target in zip(scores, targets):
        relevant = torch.zeros(50, dtype=torch.bool)
        relevant[target - 1] = True
        found["hit"].append(float(retrieval.retrieval_hit_rate(row, relevant, top_k=k)))
        found["ndcg"].append(float(retrieval.retrieval_normalized_dcg(row, relevant.long(), top_k=k)))
        found["rr"].append(float(retrieval.retrieval_reciprocal_rank(row, relevant)))
    np.testing.assert_allclose(hit_rate(ranks, k), found["hit"])
    np.testing.assert_allclose(ndcg(ranks, k), found["ndcg"], rtol=1e-5)        # torchmetrics counts in float32
    np.testing.assert_allclose(reciprocal_rank(ranks), found["rr"], rtol=1e-6)


# Bootstrap intervals

@pytest.mark.parametrize("confidence, z", [(0.5, 0.67449), (0.95, 1.95996), (0.99, 2.57583)])
def test_the_interval_of_many_users_is_that_of_the_normal_approximation(confidence, z):
    # Uniform values, 1,000 users. Bound: 0.2 standard errors of the mean at each end. The ends come from 10,000
    # resamples, which leaves them a deviation of 0.013, 0.027 and 0.058 standard errors; the seeds are fixed.
    values = np.random.default_rng(1).random(1000)
    error = values.std() / math.sqrt(1000)
    low, high = bootstrap_interval(values, confidence, num_resamples=10_000, seed=2)
    assert low == pytest.approx(values.mean() - z * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + z * error, abs=0.2 * error)


@pytest.mark.parametrize("values", [[0.3], [0.0] * 7, [1.0] * 100])
def test_the_interval_of_constant_values_is_a_point(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bootstrap_interval(values) == (values[0], values[0])


def test_the_interval_is_repeatable_by_its_seed():
    values = np.random.default_rng(1).random(50)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_the_interval_leaves_the_global_random_numbers_alone():
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    bootstrap_interval([0.1, 0.5, 0.9], num_resamples=100)
    assert np.random.random() == expected


def test_the_interval_contains_the_mean_and_stays_within_the_values():
    values = (np.random.default_rng(1).random(200) < 0.1).astype(float)
    low, high = bootstrap_interval(values)
    assert 0 <= low < values.mean() < high <= 1


@pytest.mark.parametrize("confidence, least, most", [(0.5, 65, 135), (0.95, 175, 199)])
def test_the_interval_covers_the_true_mean_as_often_as_it_says(confidence, least, most):
    # 200 data sets of 100 users with HR 0.3. Bounds: 5 binomial deviations, 100 +- 35 and 190 - 15; above, 199, as a
    # true 95 % covers all 200 with a chance of 0.00004. Seeds fixed. An interval half or twice as wide fails.
    covered = 0
    for number in range(200):
        values = (np.random.default_rng([7, number]).random(100) < 0.3).astype(float)
        low, high = bootstrap_interval(values, confidence, num_resamples=500, seed=number)
        covered += low <= 0.3 <= high
    assert least <= covered <= most


# Comparisons

def test_a_model_compared_with_itself_differs_by_nothing():
    ranks = np.random.default_rng(0).integers(1, 100, 50)
    assert compare(ranks, ranks) == {name: (0.0, 0.0, 0.0) for name in mean_metrics(ranks)}


def test_a_better_model_differs_by_a_positive_number():
    ours, theirs = [1, 2, 3, 30], [10, 20, 30, 30]
    for name, (difference, low, high) in compare(ours, theirs).items():
        assert difference == pytest.approx(mean_metrics(ours)[name] - mean_metrics(theirs)[name])
        assert difference > 0 and low <= difference <= high


def test_swapping_the_models_turns_the_sign():
    ours, theirs = np.random.default_rng(0).integers(1, 40, (2, 80))
    there, back = compare(ours, theirs), compare(theirs, ours)
    for name in there:
        assert there[name][0] == pytest.approx(-back[name][0])


def test_the_comparison_is_paired():
    """Two models that differ in 50 of 1,000 users: the interval is that of the differences, not that of two groups."""
    # The deviation of the differences in HR@10 is at most sqrt(0.05) = 0.22, that of two independent groups about
    # sqrt(2 * 0.25 * 0.75) = 0.6; bound: half of the unpaired width. The seeds are fixed.
    rng = np.random.default_rng(0)
    theirs = rng.integers(1, 41, 1000)
    ours = theirs.copy()
    ours[rng.choice(1000, 50, replace=False)] = 1
    difference, low, high = compare(ours, theirs)["HR@10"]
    unpaired = 2 * 1.96 * math.sqrt((hit_rate(ours, 10).var() + hit_rate(theirs, 10).var()) / 1000)
    assert high - low < unpaired / 2
    differences = hit_rate(ours, 10) - hit_rate(theirs, 10)
    assert (low, high) == bootstrap_interval(differences)
    assert low > 0


def test_the_comparisons_options_reach_the_bootstrap():
    ours, theirs = np.random.default_rng(0).integers(1, 40, (2, 80))
    _, *interval = compare(ours, theirs, confidence=0.5, num_resamples=300, seed=9)["MRR"]
    differences = reciprocal_rank(ours) - reciprocal_rank(theirs)
    assert tuple(interval) == bootstrap_interval(differences, 0.5, 300, 9)


def test_models_that_rank_different_numbers_of_users_are_not_compared():
    with pytest.raises(ValueError, match="rank 3 and 2 users"):
        compare([1, 2, 3], [1, 2])
