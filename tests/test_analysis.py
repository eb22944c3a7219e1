"""What a trained model is looked at for, each number against a slow and obvious version of it."""

import json
from collections import Counter
from itertools import combinations
from math import ceil

import numpy as np
import pytest
import torch
from test_evaluation import NUM_ITEMS, TINY, make_data

from diffurec import Dataset, DiffuRec, ModelConfig, evaluate, mean_metrics, rank_targets, stream_seed, tied_ranks
from diffurec.evaluation import analysis
from diffurec.evaluation.analysis import (
    BATCH, analyse, ensemble_sizes, group_metrics, head_items, reconstruct, some_users, steps_needed, target_map,
    training_counts, uncertainty,
)

K = 5       # of top lists: with all 20 items in them, every two lists would agree


def make_model(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DiffuRec(NUM_ITEMS, ModelConfig(**{**vars(TINY), **changes})).eval()


def skewed_data(seed=0, users=37):
    """Low item numbers are the popular ones, as a rule but not always."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 13, users)
    items = np.minimum(rng.geometric(0.15, lengths.sum()), NUM_ITEMS)
    return Dataset("skewed", NUM_ITEMS, items, np.cumsum([0, *lengths]))


def data_of_lengths(*lengths):
    rng = np.random.default_rng(0)
    return Dataset("lengths", NUM_ITEMS, rng.integers(1, NUM_ITEMS + 1, sum(lengths)), np.cumsum([0, *lengths]))


def some_ranks(data, seed=0):
    """First and last places of the users' targets, [U, 2]; about one in five is not tied."""
    rng = np.random.default_rng(seed)
    first = rng.integers(1, NUM_ITEMS - 5, data.num_users)
    return np.stack([first, first + rng.integers(0, 5, data.num_users)], axis=1)


def slow_counts(data):
    """{item: how often it occurs in training}"""
    counts = Counter()
    for sequence in data.sequences:
        for item in sequence[:len(sequence) - 2].tolist():
            counts[item] += 1
    return counts


def slow_top(model, x, k=K):
    """The k items with the highest x . e_j, one user's x: [d]."""
    embedding = model.item_embedding.weight.detach().double()
    scores = [float(x.double() @ embedding[j]) for j in range(1, NUM_ITEMS + 1)]
    return set(sorted(range(1, NUM_ITEMS + 1), key=lambda j: -scores[j - 1])[:k])


# Counts and users

def test_training_counts_are_those_of_a_loop_over_all_but_the_last_two_items():
    data = make_data()
    counts, slow = training_counts(data), slow_counts(data)
    assert counts.tolist() == [slow[item] for item in range(NUM_ITEMS + 1)]
    assert counts[0] == 0 and counts.sum() == len(data.items) - 2 * data.num_users


def test_items_that_never_occur_in_training_count_zero():
    data = Dataset("one", NUM_ITEMS, np.array([4, 4, 7, 9, 20]), np.array([0, 5]))
    assert training_counts(data).tolist() == [2 if j == 4 else int(j == 7) for j in range(NUM_ITEMS + 1)]


@pytest.mark.parametrize("count", [1, 10, 36])
def test_some_users_keep_their_sequences_their_order_and_the_items(count):
    data = make_data(num_items=300)
    found = some_users(data, count, seed=2)
    assert (found.name, found.num_items, found.num_users) == (data.name, data.num_items, count)
    everyone = iter([s.tolist() for s in data.sequences])
    assert all(any(s.tolist() == other for other in everyone) for s in found.sequences)    # a subsequence, none twice


def test_what_is_known_of_the_items_goes_with_some_users():
    data = make_data()
    titles, genres = tuple(f"title {j}" for j in range(NUM_ITEMS + 1)), (("a",),) * (NUM_ITEMS + 1)
    found = some_users(Dataset(data.name, NUM_ITEMS, data.items, data.offsets, titles, genres, "drawn"), 5)
    assert (found.titles, found.genres, found.source) == (titles, genres, "drawn")


def test_the_seed_decides_the_users():
    draw = lambda seed: some_users(make_data(num_items=300), 10, seed).checksum  # noqa: E731
    assert draw(1) == draw(1) and draw(1) != draw(2)


@pytest.mark.parametrize("count", [37, 38, 10 ** 6])
def test_asking_for_more_users_than_there_are_gives_all(count):
    data = make_data()
    assert some_users(data, count).checksum == data.checksum


# Groups

@pytest.mark.parametrize("split, held_out", [("validation", 2), ("test", 1)])
@pytest.mark.parametrize("make", [make_data, skewed_data])
def test_the_groups_are_those_of_a_slow_version(make, split, held_out):
    data = make()
    ranks, counts, lengths = some_ranks(data), slow_counts(data), [len(s) for s in data.sequences]
    head = sorted(range(1, NUM_ITEMS + 1), key=lambda j: (-counts[j], j))[:NUM_ITEMS // 5]
    edges = [sorted(lengths)[ceil(share * data.num_users / 5) - 1] for share in (1, 2, 3, 4)]
    members = {}
    for user, sequence in enumerate(data.sequences):
        members.setdefault("head" if sequence[-held_out] in head else "tail", []).append(user)
        members.setdefault(sum(edge < len(sequence) for edge in edges), []).append(user)
    expected = {}
    for name, users in members.items():
        own = [lengths[u] for u in users]
        name = name if name in ("head", "tail") else f"length {min(own)}-{max(own)}"
        expected[name] = {"users": len(users), **mean_metrics(ranks[users])}
    assert group_metrics(ranks, data, split) == expected and len(expected) == 7


@pytest.mark.parametrize("users", [1, 2, 4, 37, 400])
def test_both_ways_of_grouping_cover_every_user_once_and_give_the_overall_mean(users):
    data = skewed_data(users=users)
    ranks = some_ranks(data)
    groups = group_metrics(ranks, data)
    by_length = [group for name, group in groups.items() if name.startswith("length ")]
    by_popularity = [groups[name] for name in ("head", "tail") if name in groups]
    assert len(by_length) + len(by_popularity) == len(groups) and 1 <= len(by_length) <= 5
    for parts in (by_length, by_popularity):
        assert sum(part["users"] for part in parts) == users
        for name, mean in mean_metrics(ranks).items():
            assert sum(part["users"] * part[name] for part in parts) / users == pytest.approx(mean)


def test_five_different_lengths_in_equal_numbers_are_five_groups():
    data = data_of_lengths(7, 3, 4, 5, 6, 6, 5, 4, 3, 7)
    groups = group_metrics(np.arange(1.0, 11), data)
    assert {name: group["users"] for name, group in groups.items() if "length" in name} == {
        f"length {n}-{n}": 2 for n in (3, 4, 5, 6, 7)}
    assert groups["length 3-3"]["MRR"] == pytest.approx((1 / 2 + 1 / 9) / 2)
    assert groups["length 7-7"]["MRR"] == pytest.approx((1 + 1 / 10) / 2)


@pytest.mark.parametrize("lengths, expected", [
    ((5,) * 9, {"length 5-5": 9}),
    ((3,) * 8 + (4, 9), {"length 3-3": 8, "length 4-9": 2}),
    ((3,) * 5 + (4, 5, 6, 7, 8), {"length 3-3": 5, "length 4-4": 1, "length 5-6": 2, "length 7-8": 2}),
])
def test_users_of_one_length_stay_together(lengths, expected):
    data = data_of_lengths(*lengths)
    groups = group_metrics(some_ranks(data), data)
    assert {name: group["users"] for name, group in groups.items() if "length" in name} == expected


def test_the_head_is_what_training_knows_well_whatever_is_held_out():
    """Item 1 is half of training; item 20 is held out twice by every user, and no more popular for that."""
    data = Dataset("held", NUM_ITEMS, np.array([1, 1, 2, 3, 4, 5, 20, 1, 1, 1, 6, 2, 20, 1]), np.array([0, 7, 14]))
    assert group_metrics(np.array([1.0, 4.0]), data)["head"]["MRR"] == 1 / 4      # user 1's target is item 1
    assert group_metrics(np.array([1.0, 4.0]), data)["tail"]["MRR"] == 1          # user 0's is item 20


def test_the_head_is_a_fifth_of_the_items_by_training_not_the_released_codes():
    """Items 1 to 4 of 20; item 9 is held out so often that the released code, which counts that too, has it in its head."""
    data = Dataset("head", NUM_ITEMS, np.array([1, 1, 2, 3, 4, 9, 9, 1, 2, 3, 4, 9, 9]), np.array([0, 7, 13]))
    assert head_items(data).tolist() == [1, 2, 3, 4]
    counts = np.bincount(data.items, minlength=NUM_ITEMS + 1)[1:]
    released = np.flatnonzero(counts >= np.percentile(counts, 80)) + 1
    assert 9 in released
    assert group_metrics(np.array([1, 2]), data)["tail"]["users"] == 2


def test_a_tie_at_the_edge_of_the_head_does_not_make_it_larger():
    data = Dataset("even", NUM_ITEMS, np.arange(NUM_ITEMS, 0, -1), np.array([0, NUM_ITEMS]))
    assert head_items(data).tolist() == [3, 4, 5, 6]                              # 1 and 2 are held out, all others once
    assert len(head_items(data_of_lengths(5))) == 4


def test_tied_ranks_are_grouped_as_they_are():
    data = data_of_lengths(3, 3, 9)
    groups = group_metrics(np.array([[1, 20], [1, 1], [6, 15]]), data)
    assert groups["length 3-3"]["HR@10"] == pytest.approx((1 / 2 + 1) / 2)
    assert groups["length 9-9"]["HR@10"] == pytest.approx(1 / 2)


def test_ranks_of_other_users_are_not_grouped():
    with pytest.raises(ValueError, match="^There are 3 ranks for the 37 users of the data set random.$"):
        group_metrics([1, 2, 3], make_data())


# Reconstruction

def test_without_lambda_a_reconstruction_is_the_prediction_for_each_user_alone():
    """No noise has a say then, so that neither the batch nor its seed counts; only rounding may differ."""
    data, model = make_data(), make_model(lambda_uncertainty=0.0)
    x_0, targets = reconstruct(model, data, seed=5, num_steps=1)
    assert targets.tolist() == [s[-1] for s in data.sequences]
    for user, sequence in enumerate(data.sequences):
        history = torch.from_numpy(sequence[:-1][-TINY.max_length:].astype(np.int64)).unsqueeze(0)
        torch.testing.assert_close(x_0[user], model.predict(history, num_steps=1)[0], rtol=1e-5, atol=1e-5)
    assert x_0.std(0).min() > 0.1                                                  # users are told apart


@pytest.mark.parametrize("num_steps", [None, 1])
def test_reconstructions_are_ranked_as_in_the_evaluation(num_steps):
    """700 users are several batches, each with random numbers of its own."""
    data, model = make_data(users=700), make_model()
    x_0, targets = reconstruct(model, data, seed=3, num_steps=num_steps)
    ranks = tied_ranks(model, x_0, targets).numpy()
    assert np.array_equal(ranks, rank_targets(model, data, "test", seed=3, batch_size=BATCH, num_steps=num_steps))
    assert not np.array_equal(ranks, rank_targets(model, data, "test", seed=4, batch_size=BATCH, num_steps=num_steps))


@pytest.mark.parametrize("training", [True, False])
def test_a_reconstruction_has_no_dropout_and_leaves_the_models_mode_and_random_numbers_as_they_were(training):
    data, model, before = make_data(), make_model(), torch.get_rng_state()
    expected, _ = reconstruct(model, data)
    model.train(training)
    x_0, _ = reconstruct(model, data)
    assert torch.equal(x_0, expected) and not x_0.requires_grad
    assert all(module.training == training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_reconstruction_that_fails_leaves_the_models_mode_as_it_was():
    model = make_model().train()
    with pytest.raises(ValueError, match="num_steps"):
        reconstruct(model, make_data(), num_steps=0)
    assert model.training


# What is refused

@pytest.mark.parametrize("call, message", [
    (lambda data, model: some_users(data, 0), "^count must be a whole number of at least 1, but it is 0.$"),
    (lambda data, model: some_users(data, 2.5), "^count must be a whole number of at least 1, but it is 2.5.$"),
    (lambda data, model: some_users(data, 3, -1), "^seed must be a whole number of at least 0, but it is -1.$"),
    (lambda data, model: some_users(data, 3, None), "^seed must be a whole number of at least 0, but it is None.$"),
    (lambda data, model: steps_needed(model, data, k=0), "^k must be a whole number of at least 1, but it is 0.$"),
    (lambda data, model: uncertainty(model, data, repeats=1), "^repeats must be a whole number of at least 2, but it is 1.$"),
    (lambda data, model: reconstruct(model, data, seed=-1), "the seed, must be a whole number of at least 0, but it is -1.$"),
    (lambda data, model: reconstruct(model, make_data(num_items=30)),
     "^The model knows 20 items and the data set random has 30"),
])
def test_a_bad_argument_is_refused_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call(make_data(), make_model())


# Steps

def test_each_number_of_steps_has_its_agreement_and_the_metrics_of_the_evaluation():
    data, model = make_data(), make_model()
    rows = steps_needed(model, data, seed=1, k=K)
    assert [row["num_steps"] for row in rows] == [1, 2, 3]
    full, _ = reconstruct(model, data, 1, 3)
    for row in rows:
        x_0, _ = reconstruct(model, data, 1, row["num_steps"])
        shared = [len(slow_top(model, a) & slow_top(model, b)) / K for a, b in zip(x_0, full)]
        assert row["agreement"] == pytest.approx(np.mean(shared))
        metrics = {name: row[name] for name in row if name not in ("num_steps", "agreement")}
        assert metrics == evaluate(model, data, seed=1, num_steps=row["num_steps"])
    assert rows[-1]["agreement"] == 1 and rows[0]["agreement"] < 0.95


def test_the_steps_end_with_all_steps_of_the_model_once():
    data = make_data(users=3)
    for total, expected in ((1, [1]), (4, [1, 2, 4]), (6, [1, 2, 4, 6])):
        assert [row["num_steps"] for row in steps_needed(make_model(num_diffusion_steps=total), data)] == expected


def test_a_list_longer_than_the_catalogue_agrees_wholly():
    assert {row["agreement"] for row in steps_needed(make_model(), make_data(), k=NUM_ITEMS + 1)} == {1}


# Uncertainty

def test_the_spread_of_samples_is_that_of_a_slow_version():
    """At lambda 1, the model's own, so that its samples can be had without changing it."""
    data, model, repeats = make_data(), make_model(), 3
    row = uncertainty(model, data, seed=2, repeats=repeats, k=K, num_steps=2)[-1]
    assert row["lambda_uncertainty"] == 1 == model.config.lambda_uncertainty
    samples = [reconstruct(model, data, stream_seed(2, r), 2)[0] for r in range(repeats)]
    spread, overlap, diversity = [], [], []
    for user in range(data.num_users):
        lists = [slow_top(model, x_0[user]) for x_0 in samples]
        diversity.append(len(set().union(*lists)) / K)
        for a, b in combinations(range(repeats), 2):
            x, y = samples[a][user].double(), samples[b][user].double()
            spread.append(1 - float(x @ y / (x.norm() * y.norm())))
            overlap.append(len(lists[a] & lists[b]) / K)
    assert row["spread"] == pytest.approx(np.mean(spread))
    assert row["overlap"] == pytest.approx(np.mean(overlap))
    assert row["diversity"] == pytest.approx(np.mean(diversity))
    runs = [evaluate(model, data, seed=stream_seed(2, r), num_steps=2) for r in range(repeats)]
    for name in runs[0]:
        assert row[name] == pytest.approx(np.mean([metrics[name] for metrics in runs]))


@pytest.mark.parametrize("num_steps", [None, 1])
def test_samples_are_alike_without_lambda_and_ever_less_alike_with_more_of_it(num_steps):
    """Weights, users and noise are fixed. Spread grows about as lambda^2, so tenfold lambda is far from chance: a step
    would have to add nothing, or a lambda not to reach the model, for this to fail."""
    rows = uncertainty(make_model(), make_data(), k=K, num_steps=num_steps)
    assert [row["lambda_uncertainty"] for row in rows] == [0, 0.001, 0.01, 0.1, 1]
    assert abs(rows[0]["spread"]) < 1e-12 and rows[0]["overlap"] == rows[0]["diversity"] == 1
    spread = [row["spread"] for row in rows]
    assert all(later > 10 * earlier for earlier, later in zip(spread[1:-1], spread[2:])) and spread[-1] > 0.05
    assert rows[-1]["overlap"] < 0.9 and 1.1 < rows[-1]["diversity"] <= 4
    assert all(row["overlap"] >= later["overlap"] for row, later in zip(rows, rows[1:]))


@pytest.mark.parametrize("training", [True, False])
def test_the_model_itself_is_not_changed_by_other_lambdas(training):
    data, model = make_data(), make_model(lambda_uncertainty=0.3).train(training)
    config, weights = model.config, {name: value.clone() for name, value in model.state_dict().items()}
    uncertainty(model, data, repeats=2)
    assert model.config is config and model.config.lambda_uncertainty == 0.3
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(module.training == training for module in model.modules())


# Ensembles

def test_ensembles_are_those_of_the_evaluation():
    data, model = make_data(), make_model()
    rows = ensemble_sizes(model, data, seed=6)
    assert [row["ensemble"] for row in rows] == [1, 2, 4, 8, 16]
    for row in rows:
        assert row == {"ensemble": row["ensemble"], **evaluate(model, data, seed=6, ensemble=row["ensemble"])}
    assert len({row["MRR"] for row in rows}) > 1


# The map

def test_the_map_has_a_row_for_each_user_and_comes_out_the_same_again():
    data, model = skewed_data(), make_model()
    counts = training_counts(data)
    found = target_map(model, data, counts, seed=1)
    assert set(found) == {"tsne", "pca", "cluster", "popularity", "item"}
    assert all(len(values) == data.num_users for values in found.values())
    assert all(np.shape(found[name]) == (data.num_users, 2) and np.isfinite(found[name]).all() for name in ("tsne", "pca"))
    assert set(found["cluster"]) == set(range(5))
    slow = slow_counts(data)
    assert found["item"] == [s[-1] for s in data.sequences]
    assert found["popularity"] == [slow[s[-1]] for s in data.sequences]
    assert json.loads(json.dumps(found, allow_nan=False)) == found == target_map(model, data, counts, seed=1)
    assert target_map(model, data, counts, seed=2)["pca"] != found["pca"]         # another sample of the users' targets


def test_a_seed_above_32_bits_has_a_map():
    """scikit-learn takes none, and would refuse it after all of the training."""
    data, model = make_data(), make_model()
    found = target_map(model, data, training_counts(data), seed=2**63)
    assert len(found["tsne"]) == data.num_users


def test_the_plane_is_that_of_the_two_largest_components():
    """pca's columns against the singular values of the centred x_0; the sign of a component is free."""
    data, model = make_data(), make_model()
    x_0 = reconstruct(model, data, 1)[0].double()
    left, values, _ = torch.linalg.svd(x_0 - x_0.mean(0), full_matrices=False)
    expected = (left * values)[:, :2].abs().numpy()
    found = np.abs(target_map(model, data, training_counts(data), seed=1)["pca"])
    assert np.abs(found - expected).max() <= 0.0005 + 1e-6                        # they are rounded to three decimals


@pytest.mark.parametrize("users", [2, 3, 6])
def test_a_few_users_have_a_map_too(users):
    data = make_data(users=users)
    found = target_map(make_model(), data, training_counts(data))
    assert len(found["tsne"]) == users and set(found["cluster"]) == set(range(min(5, users)))


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("users", [1, 2, 40])
def test_targets_that_do_not_differ_lie_all_in_one_place(users):
    """One user, or a model that has collapsed: t-SNE divides by their deviation, and crashes on what comes of it."""
    class Collapsed(DiffuRec):
        def predict(self, histories, *_):
            return torch.full((len(histories), 8), 0.5)

    data = make_data(users=users)
    found = target_map(Collapsed(NUM_ITEMS, TINY), data, training_counts(data))
    assert found["tsne"] == found["pca"] == [[0, 0]] * users and found["cluster"] == [0] * users


def test_targets_that_hardly_differ_still_have_a_map():
    class Nearly(DiffuRec):
        def predict(self, histories, *_):
            return 0.5 + 1e-6 * self.item_embedding(histories[:, -1]).detach()

    data = make_data()
    found = target_map(Nearly(NUM_ITEMS, TINY), data, training_counts(data))
    assert np.isfinite(found["tsne"]).all() and np.ptp(found["tsne"]) > 0


# All of it

def test_nothing_is_analysed_for_no_users():
    assert analyse(None, None, 0) == {}


def test_an_analysis_is_its_parts_for_some_users_and_can_be_written_as_json():
    data, model = skewed_data(), make_model()
    found = analyse(model, data, 15, seed=4, num_steps=1)
    users = some_users(data, 15, 4)
    assert found["users"] == 15 and set(found) == {"users", "steps", "uncertainty", "ensembles", "map"}
    assert found["steps"] == steps_needed(model, users, 4)
    assert found["uncertainty"] == uncertainty(model, users, 4, num_steps=1)
    assert found["uncertainty"] != uncertainty(model, users, 4)
    assert found["ensembles"] == ensemble_sizes(model, users, 4)
    assert found["map"] == target_map(model, users, training_counts(data), 4)     # popularity among all users
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_an_analysis_is_for_all_users_where_there_are_fewer(monkeypatch):
    monkeypatch.setattr(analysis, "LAMBDAS", (0.1,))
    assert analyse(make_model(), make_data(), 1000)["users"] == 37
