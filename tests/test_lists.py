"""Coverage, Gini coefficient and novelty of small lists, against values computed by hand."""

import numpy as np
import pytest
import torch

from diffurec import Dataset, MostPopular, coverage, gini, novelty, recommend

ITEMS = [[1, 2], [1, 3], [1, 2]]        # of 5 items 1 comes three times, 2 twice, 3 once
# Training: 1 four times, 2 twice, 3 and 4 once; 5 is never in it.
DATA = Dataset("small", 5, np.array([1, 1, 1, 1, 5, 5, 2, 2, 3, 4, 5, 5], dtype=np.int32), np.array([0, 6, 12]))


@pytest.mark.parametrize("form", [list, np.array, torch.tensor])
def test_values_by_hand(form):
    """Gini: sum (2 i - 6) x_i / (5 * 6) of x = 0, 0, 1, 2, 3. Novelty: 1 bit of item 1, 2 of item 2, 3 of item 3."""
    items = form(ITEMS)
    assert coverage(items, 5) == 3 / 5
    assert gini(items, 5) == pytest.approx((0 * 1 + 2 * 2 + 4 * 3) / 30)
    assert novelty(items, DATA) == pytest.approx((3 * 1 + 2 * 2 + 1 * 3) / 6)


def test_extremes():
    everything, one = [[1, 2], [3, 4]], [[3], [3], [3]]
    assert (coverage(everything, 4), gini(everything, 4)) == (1, 0)
    assert (coverage(one, 4), gini(one, 4)) == (1 / 4, 3 / 4)
    assert novelty([[5]], DATA) == novelty([[4]], DATA) == 3        # never in training, once in training
    assert gini([[1]], 1) == 0


def test_gini_is_half_the_mean_difference_relative_to_the_mean():
    """Its other definition, on random lists, seed 0."""
    items = np.random.default_rng(0).integers(1, 30, (40, 5))
    times = np.bincount(items.ravel(), minlength=31)[1:]
    assert gini(items, 30) == pytest.approx(abs(times[:, None] - times).mean() / 2 / times.mean())


def test_lists_of_a_model():
    items, _ = recommend(MostPopular(DATA), [[1], [2], [3]], k=2)
    assert coverage(items, 5) == 2 / 5 and novelty(items, DATA) == pytest.approx(1.5)


def test_what_is_no_list_of_items_is_refused(refused):
    for items in ([1, 2], [], [[]], [[0]], [[6]], [[1.5]], [["a"]], [[True]]):
        for value in (lambda: coverage(items, 5), lambda: gini(items, 5), lambda: novelty(items, DATA)):
            with refused("lists of items that are none", ValueError, match=r"^items must be a list of ids within 1\.\.5"):
                value()
    for value in (coverage, gini):
        with refused("num_items = … of lists", ValueError, match="^num_items must be a whole number of at least 1"):
            value([[1]], 0)
