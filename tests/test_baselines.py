"""Most-popular and the Markov chain against slow, obvious counting."""

import numpy as np
import torch

from diffurec import Dataset, MarkovChain, MostPopular, evaluate, rank_targets

SEQUENCES = [[1, 2, 3, 4], [1, 2, 1, 5, 3], [2, 1, 2, 4, 5, 3], [4, 5, 1]]      # training: [1 2], [1 2 1], [2 1 2 4], [4]


def dataset(sequences=SEQUENCES, num_items=6):
    offsets = np.cumsum([0, *map(len, sequences)])
    return Dataset("small", num_items, np.concatenate(sequences).astype(np.int32), offsets)


def scores(model, last_item):
    prediction = model.predict(torch.tensor([[0, last_item]]))
    return model.score_items(prediction, 1, model.num_items + 1)[0].tolist()


def test_most_popular_counts_the_training_part_only():
    assert scores(MostPopular(dataset()), last_item=3) == [4, 4, 0, 2, 0, 0]


def test_markov_chain_counts_transitions_within_a_user_and_breaks_ties_by_popularity():
    """After 2 come 1 (twice) and 4 (once); the other items follow in the order of their counts 4, 4, 0, 2, 0, 0."""
    found = scores(MarkovChain(dataset()), last_item=2)
    assert [int(score) for score in found] == [2, 0, 0, 1, 0, 0]
    assert np.argsort(found)[::-1][:3].tolist() == [0, 3, 1]
    assert found[2] == found[4] == found[5] == 0                                  # never seen in training: equal


def test_markov_chain_falls_back_to_popularity_after_an_item_never_followed():
    data = dataset()
    order = [np.argsort(scores(model, last_item=3), kind="stable").tolist() for model in (MarkovChain(data), MostPopular(data))]
    assert order[0] == order[1]


def test_transitions_equal_slow_counting_on_random_sequences():
    """Seed 0, 50 users, 12 items; any pair counted wrongly or across two users fails."""
    rng = np.random.default_rng(0)
    sequences = [rng.integers(1, 13, rng.integers(3, 12)).tolist() for _ in range(50)]
    expected = np.zeros((13, 13))
    for sequence in sequences:
        for item, following in zip(sequence[:-2], sequence[1:-2]):
            expected[item, following] += 1
    model = MarkovChain(dataset(sequences, 12))
    assert np.array_equal(model.transitions.toarray(), expected)
    assert np.array_equal(np.floor([scores(model, i) for i in range(1, 13)]), expected[1:, 1:])


def test_scores_of_a_span_are_a_part_of_all_scores():
    model = MarkovChain(dataset())
    last_items = torch.tensor([1, 2, 4])
    assert torch.equal(model.score_items(last_items, 2, 5), model.score_items(last_items, 1, 7)[:, 1:4])


def test_they_go_through_the_same_evaluation():
    """By hand: the test targets 4, 3, 3, 1 stand at ranks 3, 5, 5, 1.5 of the counts above (three tie for 4 to 6)."""
    data = dataset()
    assert rank_targets(MostPopular(data), data, "test").tolist() == [3, 5, 5, 1.5]
    assert evaluate(MostPopular(data), data, "test")["HR@5"] == 1.0
    assert set(evaluate(MarkovChain(data), data, "validation")) == set(evaluate(MostPopular(data), data, "test"))
