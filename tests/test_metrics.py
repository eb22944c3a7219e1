"""The metrics against slow obvious ones and torchmetrics, ties against all orders, intervals and paired tests."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test, ttest_1samp

from diffurec import expected_ranks, tied_ranks
from diffurec.evaluation.comparing import (
    EXACT, bootstrap_interval, compare, crossed_test, least_difference, paired_interval, paired_test, power,
)
from diffurec.evaluation.metrics import CUTOFFS, hit_rate, mean_metrics, ndcg, per_user, reciprocal_rank

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


def places_of(scores, target):
    """The package's first and last place of item `target` (from 1) among the scores of items 1..I."""
    return tied_ranks(Scores(len(scores)), torch.tensor([scores]), torch.tensor([target]))[0].tolist()


def rank_of(scores, target):
    """The same for the mean place."""
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
@given(some_scores, st.data())
def test_the_places_are_the_first_and_the_last_over_all_ways_to_break_ties(scores, data):
    items = range(1, len(scores) + 1)
    target = data.draw(st.sampled_from(items))
    every_way = [sorted_rank(scores, target, order) for order in itertools.permutations(items)]
    assert places_of(scores, target) == [min(every_way), max(every_way)]
    assert set(every_way) == set(range(min(every_way), max(every_way) + 1))


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
def test_with_ties_the_metrics_are_the_means_over_all_orders_of_equal_items(lists, data):
    """From scores to means, every permutation of the items counted once."""
    every_way, places = [], []
    for scores in lists:
        items = range(1, len(scores) + 1)
        target = data.draw(st.sampled_from(items))
        every_way.append([sorted_rank(scores, target, order) for order in itertools.permutations(items)])
        places.append(places_of(scores, target))
    found = mean_metrics(places)
    for k in CUTOFFS:
        hits = [np.mean([rank <= k for rank in ways]) for ways in every_way]
        gains = [np.mean([1 / math.log2(rank + 1) if rank <= k else 0 for rank in ways]) for ways in every_way]
        assert found[f"HR@{k}"] == pytest.approx(np.mean(hits), abs=1e-12)
        assert found[f"NDCG@{k}"] == pytest.approx(np.mean(gains), abs=1e-12)
    assert found["MRR"] == pytest.approx(np.mean([np.mean([1 / rank for rank in ways]) for ways in every_way]), abs=1e-12)


@repeatable
@given(st.lists(st.tuples(st.integers(1, 90), st.integers(0, 60)), min_size=1, max_size=20), some_cutoff)
def test_the_metrics_of_tied_targets_are_the_means_over_their_places(groups, k):
    places = np.array([(first, first + more) for first, more in groups])
    every = [range(first, last + 1) for first, last in places]
    for found, slow in (
        (hit_rate(places, k), lambda place: place <= k),
        (ndcg(places, k), lambda place: 1 / math.log2(place + 1) if place <= k else 0),
        (reciprocal_rank(places), lambda place: 1 / place),
    ):
        assert found.dtype == float
        np.testing.assert_allclose(found, [math.fsum(map(slow, e)) / len(e) for e in every], rtol=0, atol=1e-12)


def test_large_tie_groups_are_exact_and_cheap():
    """22,000 users with ties of 12,000 items; sums of all 12,000 terms for some of them."""
    rng = np.random.default_rng(0)
    first = rng.integers(1, 100, 22_000)
    places = np.stack([first, first + 11_999], axis=1)
    for value in per_user(places).values():
        assert value.shape == (22_000,)
    for user in range(5):
        terms = [1 / place for place in range(first[user], first[user] + 12_000)]
        assert reciprocal_rank(places)[user] == pytest.approx(math.fsum(terms) / 12_000, abs=1e-15)
        assert hit_rate(places, 20)[user] == max(0, 21 - first[user]) / 12_000


def test_random_orders_of_the_equal_items_give_the_metrics_on_average():
    # 30 users, 40 items with 4 different scores, 4,000 orders each, seed fixed. A user's HR has a deviation of at most
    # 0.5 over the orders, so the mean over all has a standard error of at most 0.5 / sqrt(120,000) = 0.0015; bound: 4 of
    # them. NDCG and MRR vary less than HR. The metrics at the mean place miss most means by more than that.
    rng, orders = np.random.default_rng(0), 4000
    scores, targets = rng.integers(0, 4, (30, 40)), rng.integers(0, 40, 30)
    sampled = np.empty((30, orders))
    for user in range(30):
        keys = rng.random((orders, 40))                                          # equal scores in order of these
        own, key = scores[user, targets[user]], keys[:, targets[user]]
        ahead = (scores[user] > own) | ((scores[user] == own) & (keys < key[:, None]))
        sampled[user] = 1 + ahead.sum(1)
    places = [places_of(row.tolist(), target + 1) for row, target in zip(scores, targets)]
    found, means = mean_metrics(places), mean_metrics(sampled.ravel())
    at_mean = mean_metrics(np.floor(np.mean(places, axis=1)))
    assert all(abs(found[name] - means[name]) < 0.006 for name in found)
    assert sum(abs(at_mean[name] - means[name]) > 0.006 for name in found) >= 5


def test_a_tie_over_the_cutoff_is_a_hit_in_part():
    assert hit_rate([[1, 20], [10, 11], [5, 5], [6, 9]], 5).tolist() == [0.25, 0, 1, 0]
    assert ndcg([[1, 2], [5, 6]], 5).tolist() == pytest.approx([(1 + 1 / math.log2(3)) / 2, 1 / math.log2(6) / 2])
    assert reciprocal_rank([[1, 2], [4, 4]]).tolist() == [0.75, 0.25]


@pytest.mark.parametrize("k", [1, 5, 200])
def test_one_place_and_the_same_place_twice_are_the_same_to_the_last_bit(k):
    ranks = np.arange(1, 101)
    twice = np.stack([ranks, ranks], axis=1)
    assert hit_rate(ranks, k).tolist() == hit_rate(twice, k).tolist() == (ranks <= k).astype(float).tolist()
    assert ndcg(ranks, k).tolist() == ndcg(twice, k).tolist() == np.where(ranks <= k, 1 / np.log2(ranks + 1), 0).tolist()
    assert reciprocal_rank(ranks).tolist() == reciprocal_rank(twice).tolist() == (1 / ranks).tolist()


def test_a_place_between_two_is_a_tie_of_these():
    """As result files hold it that were written when ranks were mean places."""
    for metric in (lambda ranks: hit_rate(ranks, 5), lambda ranks: ndcg(ranks, 5), reciprocal_rank):
        assert metric([5.5, 1.5, 3]).tolist() == metric([[5, 6], [1, 2], [3, 3]]).tolist()


@pytest.mark.parametrize("ranks", [[0, 1], [1, math.nan], [math.inf, 2], [-1], [[1.5, 2]], [[3, 2]], [[0, 2]], [[1, math.inf]]])
def test_what_is_no_place_is_refused(refused, ranks):
    for metric in (lambda r: hit_rate(r, 5), lambda r: ndcg(r, 5), reciprocal_rank, mean_metrics):
        with refused(f"ranks = {ranks}", ValueError, match="^ranks must be whole numbers from 1 on"):
            metric(ranks)


@pytest.mark.parametrize("ranks", [3, [[1, 2, 3]], [[[1, 2]]]])
def test_ranks_of_another_shape_are_refused(refused, ranks):
    with refused(f"ranks = {ranks}", ValueError,
                 match=r"^ranks must be a place for each user, \[U\], or two, \[U, 2\]; these are \["):
        mean_metrics(ranks)


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "5", None, math.nan], ids=repr)
def test_a_bad_cutoff_is_refused(refused, k):
    for metric in (hit_rate, ndcg):
        with refused("k = …", ValueError, match="^k must be a whole number of at least 1, but it is "):
            metric([1, 2], k)


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
    assert (low, high) == bootstrap_interval(differences) == paired_interval(differences)
    assert low > 0


def test_the_comparisons_options_reach_the_bootstrap():
    ours, theirs = np.random.default_rng(0).integers(1, 40, (2, 80))
    _, *interval = compare(ours, theirs, confidence=0.5, num_resamples=300, seed=9)["MRR"]
    differences = reciprocal_rank(ours) - reciprocal_rank(theirs)
    assert tuple(interval) == bootstrap_interval(differences, 0.5, 300, 9)


def test_an_interval_is_of_95_percent_by_2000_resamples_and_seed_0_unless_said_otherwise():
    ours, theirs = np.random.default_rng(0).integers(1, 40, (2, 80))
    differences = reciprocal_rank(ours) - reciprocal_rank(theirs)
    expected = bootstrap_interval(differences, 0.95, 2000, 0)
    assert bootstrap_interval(differences) == paired_interval(differences) == expected
    assert compare(ours, theirs)["MRR"][1:] == expected
    for others in ((0.95, 2001, 0), (0.95, 1999, 0), (0.95, 2000, 1), (0.94, 2000, 0)):
        assert bootstrap_interval(differences, *others) != expected


FEW = [(4, 0), (5, 0), (6, 0), (3, 2), (9, 1), (10, 2), (14, 6), (15, 5), (20, 0)]


def few_differ(better, worse, users=943):
    return np.repeat([1.0, -1.0, 0.0], [better, worse, users - better - worse])


@pytest.mark.parametrize("better, worse", FEW)
def test_users_who_differ_by_one_hit_are_a_sign_test(better, worse):
    """4 of 943 one way are p = 0.125, and no proof that a model is better."""
    p, name = paired_test(few_differ(better, worse))
    assert name == "exact sign-flip test"
    assert p == pytest.approx(binomtest(better, better + worse).pvalue, rel=1e-12)
    assert paired_test(few_differ(worse, better)) == (p, name)


@pytest.mark.parametrize("users", [12, 200])
@pytest.mark.parametrize("number", range(5))
def test_the_exact_test_is_that_of_scipy(number, users):
    differences = np.zeros(users)
    differences[:12] = np.random.default_rng(number).normal(0.4, 1, 12)
    p, _ = paired_test(differences)
    expected = permutation_test((differences[:12],), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    assert p == pytest.approx(expected, rel=1e-9)


def test_the_exact_test_is_the_same_in_every_unit_and_never_above_1():
    """Of 8 toss-ups all fall on one side in 2 of 256 cases; 1 and -1 are surpassed or met by 3 of 4 both ways."""
    for unit in (1e-6, 1.0, 1e6):
        assert paired_test(unit * few_differ(8, 0)) == (2 / 256, "exact sign-flip test")
        assert paired_test(unit * few_differ(1, 1)) == (1.0, "exact sign-flip test")


def test_more_users_who_differ_are_a_t_test():
    rng = np.random.default_rng(0)
    differences = np.zeros(300)
    differences[:EXACT] = rng.normal(0.2, 1, EXACT)
    assert paired_test(differences)[1] == "exact sign-flip test"
    differences[EXACT] = 0.1
    p, name = paired_test(differences)
    assert name == "paired t-test" and p == pytest.approx(ttest_1samp(differences, 0).pvalue, rel=1e-12)


def test_the_kinds_of_test_agree_where_one_takes_over_from_the_other():
    # 20 users who differ and 21, of 500; normal differences, seed fixed. 0.03: about as far apart as one user brings them.
    differences = np.zeros(500)
    differences[:20] = np.random.default_rng(1).normal(0.5, 1, 20)
    exact, _ = paired_test(differences)
    differences[20] = 1e-6
    assert paired_test(differences)[0] == pytest.approx(exact, abs=0.03)


def test_users_who_do_not_differ_decide_nothing():
    assert paired_test(np.zeros(50)) == (1.0, "no user differs")
    assert paired_interval(np.zeros(50)) == (0, 0)
    for zeros in (0, 10, 10_000):
        assert paired_test(few_differ(7, 1, 8 + zeros))[0] == pytest.approx(0.0703125)


def test_what_rounding_leaves_is_no_difference():
    """Ten users better by 1e-17 are no proof of anything, and do not hide that only four others differ."""
    noise = np.repeat([1e-17, 0.0], [10, 90])
    assert paired_test(noise) == (1.0, "no user differs") and paired_interval(noise) == (0, 0)
    assert paired_test(np.concatenate([noise, np.ones(4)]))[0] == 0.125


def test_users_who_all_differ_by_the_same_are_decided_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert paired_test(np.ones(30))[0] < 1e-6
        assert paired_test(np.ones(3))[0] == 0.25 and paired_interval(np.ones(3))[0] < 0
        assert paired_interval(np.ones(30)) == (1, 1)


@pytest.mark.parametrize("better, worse", FEW)
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_with_few_users_who_differ_the_interval_leaves_0_out_as_the_exact_test_says(better, worse, confidence):
    for differences in (few_differ(better, worse), few_differ(worse, better)):
        p, _ = paired_test(differences)
        low, high = paired_interval(differences, confidence)
        assert low <= differences.mean() <= high
        assert (low <= 0 <= high) == (p >= 1 - confidence)


def test_the_interval_of_a_single_user_who_differs_is_widened_to_the_exact_one():
    """One plus of size 1 among 10 has the probability 0.025 where its own is 0.025, and the mean is (2 * 0.025 - 1) / 10."""
    low, high = paired_interval(few_differ(1, 0, users=10))
    assert low == pytest.approx(-0.095) and high == bootstrap_interval(few_differ(1, 0, users=10))[1]


def test_four_users_of_943_are_no_difference_in_a_comparison():
    theirs = np.full(943, 30)
    ours = theirs.copy()
    ours[:4] = 1
    for name, (difference, low, high) in compare(ours, theirs).items():
        assert low <= 0 < difference <= high, name
    assert bootstrap_interval(hit_rate(ours, 10) - hit_rate(theirs, 10))[0] > 0          # too sure of itself


def test_swapping_the_models_turns_the_exact_interval_round():
    differences = np.zeros(100)
    differences[:8] = np.random.default_rng(0).normal(0.3, 1, 8)
    widened = np.array(paired_interval(differences)), -np.array(paired_interval(-differences))[::-1]
    np.testing.assert_allclose(*widened, atol=0.02)                               # but for the bootstrap's draws


def test_the_exact_interval_is_that_of_clopper_and_pearson_where_the_sizes_are_equal():
    """9 of 10 better: the share of pluses is 0.555 to 0.997; a wider bootstrap interval would count."""
    low, _ = paired_interval(few_differ(9, 1, 10), num_resamples=50)
    share = binomtest(9, 10).proportion_ci(0.95, method="exact")
    assert low == pytest.approx(2 * share.low - 1, abs=1e-9)


@pytest.mark.parametrize("differ", [3, 8, 16, 21, 30])
@pytest.mark.parametrize("kind", ["hits", "gains"])
def test_equal_models_are_seldom_found_different(differ, kind):
    # 400 comparisons of 300 users, `differ` of whom differ with a random sign, seeds fixed. At 5 % 20 false alarms are
    # expected, with a deviation of 4.4. Up to 20 users an exact test has at most 5 %: bound 20 + 3 * 4.4 = 33. Above
    # it, hits come in whole numbers: 15 to 6 has an exact p of 0.078 and passes, 31 expected, bound 31 + 3 * 5.4 = 47.
    alarms = {"test": 0, "interval": 0}
    for number in range(400):
        rng = np.random.default_rng([differ, number])
        differences = np.zeros(300)
        differences[:differ] = rng.choice([-1, 1], differ) * (1 if kind == "hits" else rng.random(differ))
        low, high = paired_interval(differences, num_resamples=300, seed=number)
        alarms["test"] += paired_test(differences)[0] < 0.05
        alarms["interval"] += not low <= 0 <= high
    assert max(alarms.values()) <= (33 if differ <= EXACT else 47), alarms


def test_the_interval_of_few_differences_covers_the_true_mean_at_least_as_often_as_it_says():
    # 300 data sets of 200 users, of whom 4 % are better and 1 % worse by one hit: about ten differ. Below 95 % - 3
    # deviations of 1.26 % = 91.2 % it would not hold; bootstrap alone covers 90 %. Seeds fixed.
    covered = 0
    for number in range(300):
        rng = np.random.default_rng([5, number])
        differences = rng.choice([1.0, -1.0, 0.0], 200, p=[0.04, 0.01, 0.95])
        low, high = paired_interval(differences, num_resamples=500, seed=number)
        covered += low <= 0.03 <= high
    assert covered >= 0.912 * 300


@pytest.mark.parametrize("values", [[], [math.nan, 1.0], [math.inf], [[1.0, 2.0]]], ids=repr)
def test_values_that_are_not_a_finite_number_for_each_user_are_refused(refused, values):
    for function in (bootstrap_interval, paired_interval, paired_test):
        with refused(f"an interval over the values {values}", ValueError,
                     match="^The values must be one finite number for each of at least one user"):
            function(values)


@pytest.mark.parametrize("options, message", [
    ({"confidence": 0}, "^confidence must be between 0 and 1, such as 0.95, but it is 0.$"),
    *(({"confidence": bad}, "^confidence must be between 0 and 1") for bad in (1, 1.5, 95)),
    ({"confidence": math.nan}, "^confidence must be between 0 and 1"),
    ({"num_resamples": 0}, "^num_resamples must be a whole number of at least 1, but it is 0.$"),
    ({"num_resamples": 10.5}, "^num_resamples must be a whole number of at least 1, but it is 10.5.$"),
    ({"seed": -1}, "^seed must be a whole number of at least 0, but it is -1.$"),
    ({"seed": None}, "^seed must be a whole number of at least 0, but it is None.$"),
])
def test_a_bad_option_of_an_interval_is_refused_in_a_sentence(refused, options, message):
    name, = options
    for values in ([0.0, 0.0], [0.1, 0.5, 0.9]):
        for call in (lambda: bootstrap_interval(values, **options), lambda: paired_interval(values, **options)):
            with refused(f"{name} = … of an interval", ValueError, match=message):
                call()
    with refused(f"{name} = … of an interval", ValueError, match=message):
        compare([1, 2], [2, 3], **options)


def test_models_that_rank_different_numbers_of_users_are_not_compared(refused):
    with refused("a comparison of ranks of 3 and of 2 users", ValueError, match="rank 3 and 2 users"):
        compare([1, 2, 3], [1, 2])


def test_seeds_that_agree_or_users_that_agree_leave_the_t_test_of_the_others():
    values = np.random.default_rng(0).normal(0.1, 1, 40)
    for differences in (np.tile(values, (5, 1)), np.tile(values[:, None], (1, 7))):
        found, expected = crossed_test(differences), ttest_1samp(values, 0)
        interval = expected.confidence_interval(0.95)
        np.testing.assert_allclose([found.mean, found.p, found.low, found.high, found.degrees, found.error],
                                   [values.mean(), expected.pvalue, *interval, 39, values.std(ddof=1) / np.sqrt(40)])


def crossed(number, of_seed, of_user, rest, seeds=5, users=120):
    rng = np.random.default_rng([21, number])
    return (rng.normal(0, of_seed, (seeds, 1)) + rng.normal(0, of_user, users) + rng.normal(0, rest, (seeds, users)))


@pytest.mark.parametrize("of_seed, of_user, rest", [(0.1, 1, 1), (0.1, 0.1, 1), (0, 1, 1), (0.3, 0, 1), (0, 0, 1)])
def test_over_users_and_seeds_equal_models_are_seldom_found_different(of_seed, of_user, rest):
    # 600 comparisons, seeds fixed. At 5 % 30 false alarms are expected, with a deviation of 5.3: bound 30 + 3 * 5.3 = 46.
    alarms = [crossed_test(crossed(number, of_seed, of_user, rest)).p < 0.05 for number in range(600)]
    assert sum(alarms) <= 46


def test_a_test_over_users_or_seeds_alone_is_too_sure_of_itself_where_both_vary():
    samples = [crossed(number, 0.2, 1, 1) for number in range(600)]
    over_users = sum(ttest_1samp(sample.mean(0), 0).pvalue < 0.05 for sample in samples)
    over_seeds = sum(ttest_1samp(sample.mean(1), 0).pvalue < 0.05 for sample in samples)
    assert min(over_users, over_seeds) > 60, (over_users, over_seeds)             # 30 would be 5 %


def test_over_users_and_seeds_no_difference_is_none_and_equal_ones_are_decided():
    assert crossed_test(np.zeros((3, 9))) == (0, 0, 0, 1, 0, 2)
    assert crossed_test(np.full((3, 9), 0.5))[:4] == (0.5, 0.5, 0.5, 0)


@pytest.mark.parametrize("values", [[[1.0, 2.0]], [[1.0], [2.0]], [1.0, 2.0], [[1.0, math.nan], [0.0, 1.0]]])
def test_one_seed_or_one_user_is_refused(refused, values):
    with refused(None, ValueError, "at least two seeds and users"):
        crossed_test(values)


@pytest.mark.parametrize("size, number, expected", [(0.5, 20, 0.5645), (0.5, 34, 0.8078), (0.8, 15, 0.8213), (0, 9, 0.05)])
def test_the_power_is_that_of_the_tables(size, number, expected):
    """Of the paired t-test, as statistics packages print it, for a difference of `size` deviations and so many pairs."""
    assert power(size, 1 / np.sqrt(number), number - 1) == pytest.approx(expected, abs=5e-5)


def test_the_least_difference_is_found_with_the_power_asked_for():
    for wanted in (0.5, 0.8, 0.95):
        assert power(least_difference(0.2, 4, wanted=wanted), 0.2, 4) == pytest.approx(wanted)
    assert least_difference(0.2, 4, alpha=0.01) > least_difference(0.2, 4) > 2 * 0.2
