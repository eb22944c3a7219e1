"""Leave-one-out against a slow one and the papers' counts, no leakage, memory, and batches of similar length."""

import tracemalloc
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

from diffurec import DataError, Dataset, leave_one_out, length_batches, load_dataset
from diffurec.data import training_windows
from diffurec.data.splits import SPLITS

TRAINING_EXAMPLES = {"amazon-beauty": 131_413, "amazon-toys": 109_361, "ml-1m": 982_089}    # of the published files
USERS = {"amazon-beauty": 22_363, "amazon-toys": 19_412, "ml-1m": 6_040}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def from_sequences(sequences, num_items=20):
    return Dataset("random", num_items, np.concatenate(sequences), np.cumsum([0, *map(len, sequences)]))


def random_data(seed, users=12, longest=15):
    rng = np.random.default_rng(seed)
    return from_sequences([rng.integers(1, 21, rng.integers(3, longest + 1)) for _ in range(users)])


@pytest.fixture(scope="module", params=TRAINING_EXAMPLES)
def real_data(request):
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("diffurec.data.published.download", no_network)
            return load_dataset(request.param)
    except (DataError, FileNotFoundError):
        pytest.skip(f"{request.param} is neither in DIFFUREC_DATA_DIR nor in the cache, and tests do not download it")


def no_network(*_):
    raise DataError("This test does not download.")


def slow_examples(data, split, max_length):
    """[(history, target), ...] by the words of the protocol, user after user."""
    examples = []
    for sequence in data.sequences:
        *training, validation, test = sequence.tolist()
        if split == "train":
            examples += [(training[:k], training[k]) for k in range(1, len(training))]
        elif split == "validation":
            examples.append((training, validation))
        else:
            examples.append((training + [validation], test))
    return [(history[-max_length:], target) for history, target in examples]


def gathered(examples):
    """The same of the package, unpadded."""
    histories, targets = examples.gather(torch.arange(len(examples)), max(int(examples.lengths.max()), 1))
    return [([i for i in history if i], target) for history, target in zip(histories.tolist(), targets.tolist())]


# Leave-one-out

@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("max_length", [1, 2, 5, 50])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_leave_one_out_is_the_slow_one(split, max_length, seed):
    data = random_data(seed)
    examples = leave_one_out(data, split, max_length)
    assert gathered(examples) == slow_examples(data, split, max_length)


@pytest.mark.parametrize("split", SPLITS)
def test_the_lengths_are_those_of_the_histories(split):
    data = random_data(3)
    expected = [len(history) for history, _ in slow_examples(data, split, 5)]
    assert leave_one_out(data, split, 5).lengths.tolist() == expected


def test_users_with_three_interactions_have_one_of_each_but_training():
    data = from_sequences([[1, 2, 3], [4, 5, 6, 7], [8, 9, 10]])
    assert gathered(leave_one_out(data, "train", 50)) == [([4], 5)]
    assert gathered(leave_one_out(data, "validation", 50)) == [([1], 2), ([4, 5], 6), ([8], 9)]
    assert gathered(leave_one_out(data, "test", 50)) == [([1, 2], 3), ([4, 5, 6], 7), ([8, 9], 10)]


def test_without_longer_sequences_there_is_no_training_example():
    assert len(leave_one_out(from_sequences([[1, 2, 3], [4, 5, 6]]), "train", 50)) == 0


@pytest.mark.parametrize("split", ["valid", "TEST", "", None])
def test_an_unknown_split_is_refused_with_those_there_are(refused, split):
    with refused(f"split = {split!r}", ValueError, match="train, validation, test") as caught:
        leave_one_out(random_data(0), split, 50)
    assert repr(split) in str(caught.value)


# The published data sets

def test_the_counts_are_the_papers(real_data):
    assert len(leave_one_out(real_data, "train", 50)) == TRAINING_EXAMPLES[real_data.name]
    for split in ("validation", "test"):
        assert len(leave_one_out(real_data, split, 50)) == USERS[real_data.name] == real_data.num_users


def test_no_held_out_item_is_seen_in_training(real_data):
    """By position: a training example's items, history and target, all lie before its user's validation item."""
    train, validation, test = (leave_one_out(real_data, split, 50) for split in SPLITS)
    seen = np.zeros(len(real_data.items) + 1, dtype=int)             # +1 where an example begins, -1 after its end
    np.add.at(seen, train.first.numpy(), 1)
    np.add.at(seen, train.target.numpy() + 1, -1)
    in_training = np.cumsum(seen)[:-1] > 0
    assert not in_training[validation.target.numpy()].any()
    assert not in_training[test.target.numpy()].any()
    assert in_training.sum() > 0.5 * len(real_data.items)


def test_targets_follow_their_histories_within_one_user(real_data):
    owner = np.repeat(np.arange(real_data.num_users), np.diff(real_data.offsets))
    for split in SPLITS:
        examples = leave_one_out(real_data, split, 50)
        first, target = examples.first.numpy(), examples.target.numpy()
        assert (owner[first] == owner[target]).all()
        assert (first < target).all() and (target - first <= 50).all()


def test_every_target_is_a_target_once_over_the_three_splits(real_data):
    """All positions but each user's first: no interaction is lost, none is a target of two splits."""
    targets = np.concatenate([leave_one_out(real_data, split, 50).target.numpy() for split in SPLITS])
    expected = np.delete(np.arange(len(real_data.items)), real_data.offsets[:-1])
    assert np.array_equal(np.sort(targets), expected)


def test_the_training_split_takes_little_memory(real_data):
    """Below 100 MB with the data's own arrays, while it is made and afterwards; the histories written out take 200."""
    tracemalloc.start()
    try:
        examples = leave_one_out(real_data, "train", 50)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    own = real_data.items.nbytes + real_data.offsets.nbytes
    kept = sum(x.element_size() * x.nelement() for x in (examples.items, examples.first, examples.target))
    assert own + kept < 100e6 and own + peak < 100e6


def test_sorting_by_length_saves_most_of_the_padding(real_data):
    # Padding per real item at batch 512, shuffled with seed 0. Bound: a tenth of what batches without sorting need; the
    # saving was 80-fold or more on the Amazon sets and 18-fold on ml-1m, where most histories are full.
    examples = leave_one_out(real_data, "train", 50)

    def padding(batches):
        return sum(int(examples.lengths[b].max()) * len(b) - int(examples.lengths[b].sum()) for b in batches)

    unsorted = torch.randperm(len(examples), generator=seeded(0)).split(512)
    assert padding(length_batches(examples.lengths, 512, seeded(0))) < padding(unsorted) / 10
    assert padding(length_batches(examples.lengths, 512)) < padding(unsorted) / 10


# Batches

@pytest.mark.parametrize("n, batch_size, window", [(1, 1, 64), (1, 8, 64), (7, 8, 64), (8, 8, 64), (9, 8, 64),
                                                   (100, 1, 3), (1000, 7, 2), (1000, 64, 64)])
@pytest.mark.parametrize("seed", [None, 0])
def test_every_example_comes_once_in_batches_that_are_not_too_large(n, batch_size, window, seed):
    lengths = torch.randint(1, 51, (n,), generator=seeded(1))
    batches = length_batches(lengths, batch_size, None if seed is None else seeded(seed), window)
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert sorted(torch.cat(batches).tolist()) == list(range(n))


def test_batches_are_hardly_smaller_than_asked():
    """1,000 examples in batches of 64 are 16 batches, the least there can be, of nearly the same size."""
    sizes = [len(batch) for batch in length_batches(torch.ones(1000), 64)]
    assert len(sizes) == 16 and max(sizes) - min(sizes) <= 1


def test_without_a_generator_the_batches_are_sorted_by_length():
    lengths = torch.randint(1, 51, (500,), generator=seeded(1))
    order = torch.cat(length_batches(lengths, 32))
    assert (lengths[order].diff() >= 0).all()


def test_examples_of_one_length_keep_their_order_without_a_generator():
    assert torch.equal(torch.cat(length_batches(torch.full((100,), 7), 8)), torch.arange(100))


def test_the_generator_decides_the_batches():
    lengths = torch.randint(1, 51, (500,), generator=seeded(1))
    one, same, other = (torch.cat(length_batches(lengths, 32, seeded(seed))) for seed in (2, 2, 3))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_batches_leave_the_global_random_numbers_alone():
    before = torch.get_rng_state()
    length_batches(torch.randint(1, 51, (500,), generator=seeded(1)), 32, seeded(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_examples_companions_change_from_epoch_to_epoch():
    """Among 500 examples of one length in batches of 10, two epochs share few pairs: 9 companions of 499."""
    # Example 0 meets 9 others twice; 3 or more shared companions have a chance of 0.0006, the seeds are fixed.
    lengths = torch.full((500,), 5)

    def companions(seed):
        batch, = [b for b in length_batches(lengths, 10, seeded(seed)) if (b == 0).any()]
        return set(batch.tolist()) - {0}

    assert len(companions(1) & companions(2)) < 3


def test_the_batches_do_not_come_in_the_order_of_their_lengths():
    # Shuffled, 63 batches rise or fall at random; 62 neighbours all rising would mean no shuffling. Bound: 15 to 47
    # rising, 4 deviations of 62 fair coins; the seed is fixed.
    lengths = torch.arange(630)
    means = torch.tensor([b.float().mean() for b in length_batches(lengths, 10, seeded(0))])
    assert len(means) == 63
    assert 15 <= int((means.diff() > 0).sum()) <= 47


def test_within_a_window_a_batch_holds_neighbours_in_length():
    lengths = torch.arange(640)
    for batch in length_batches(lengths, 10, seeded(0)):                    # 64 batches, one window: sorted as a whole
        assert batch.max() - batch.min() == 9


def test_a_window_is_64_batches_unless_said_otherwise():
    lengths = torch.randint(1, 51, (1030,), generator=seeded(1))                # 5 windows of 256, or 4 of 260
    one, asked, wider = (length_batches(lengths, 4, seeded(0), *window) for window in ((), (64,), (65,)))
    assert torch.equal(torch.cat(one), torch.cat(asked)) and not torch.equal(torch.cat(one), torch.cat(wider))


# Gathering

def test_examples_are_not_changed_by_mistake():
    with pytest.raises(FrozenInstanceError):
        leave_one_out(random_data(0), "test", 5).first = torch.tensor([0])


@pytest.mark.parametrize("length", [1, 4, 7, 12])
@pytest.mark.parametrize("split", SPLITS)
def test_gather_is_the_slow_one(split, length):
    """Left-padded with 0 to `length`, and cut to the latest `length` where a history is longer."""
    data = random_data(4)
    examples, slow = leave_one_out(data, split, 7), slow_examples(data, split, 7)
    index = torch.randperm(len(examples), generator=seeded(0))
    histories, targets = examples.gather(index, length)
    for row, i in enumerate(index.tolist()):
        history, target = slow[i]
        latest = history[-length:]
        assert histories[row].tolist() == [0] * (length - len(latest)) + latest
        assert targets[row].item() == target


def test_gathered_ids_are_int64():
    histories, targets = leave_one_out(random_data(0), "test", 5).gather(torch.tensor([0, 1]), 5)
    assert histories.dtype == targets.dtype == torch.int64
    assert histories.shape == (2, 5) and targets.shape == (2,)


def test_a_row_comes_as_often_as_it_is_asked_for():
    examples = leave_one_out(random_data(0), "train", 5)
    histories, targets = examples.gather(torch.tensor([3, 3, 0]), 5)
    assert torch.equal(histories[0], histories[1]) and targets[0] == targets[1]


def test_examples_move_to_another_device_as_a_whole():
    examples = leave_one_out(random_data(0), "train", 5)
    moved = examples.to("meta")
    assert {x.device.type for x in (moved.items, moved.first, moved.target)} == {"meta"}
    assert gathered(examples.to("cpu")) == gathered(examples)


# Sizes that are none.

@pytest.mark.parametrize("value", [0, -1, 2.5, True, "5", None])
def test_sizes_that_are_none(refused, value):
    with refused("max_length = …", ValueError, match="max_length must be a whole number of at least 1, but it is"):
        leave_one_out(random_data(0), "test", value)
    for name, arguments in (("batch_size", {"batch_size": value}), ("window", {"batch_size": 2, "window": value})):
        with refused(f"{name} = …", ValueError, match=f"{name} must be a whole number of at least 1, but it is"):
            length_batches(torch.ones(3), **arguments, generator=seeded(0))


@pytest.mark.parametrize("generator", [None, seeded(0)])
def test_no_examples_make_no_batches(generator):
    assert length_batches(torch.ones(0), 4, generator) == []


@pytest.mark.parametrize("max_length", [1, 2, 5, 30])
@pytest.mark.parametrize("seed", range(5))
def test_windows_have_every_training_target_once_after_the_item_before_it(max_length, seed):
    data = random_data(seed)
    windows = training_windows(data, max_length, seeded(seed))
    histories, targets = windows.gather_windows(torch.arange(len(windows)), max_length)
    pairs = torch.stack([histories, targets])[:, histories != 0].T.tolist()
    spans = [(data.items[begin:end - 3], data.items[begin + 1:end - 2]) for begin, end in zip(data.offsets, data.offsets[1:])]
    expected = [list(pair) for inputs, followers in spans for pair in zip(inputs, followers)]
    assert sorted(pairs) == sorted(expected) and torch.equal(histories != 0, targets != 0)
    assert torch.equal((histories != 0).sum(1), windows.lengths) and windows.lengths.min() > 0
    places = [place for first, last in zip(windows.first, windows.target) for place in range(first + 1, last + 1)]
    assert sorted(places) == leave_one_out(data, "train", max_length).target.sort().values.tolist()


def test_only_who_has_more_than_a_window_is_cut_and_at_another_place_each_epoch():
    data = from_sequences([np.arange(1, 11), np.arange(1, 20)])                  # 7 and 16 inputs
    order, cuts = seeded(0), set()
    for _ in range(100):
        windows = training_windows(data, 7, order)
        assert windows.first[0] == 0 and windows.lengths[0] == 7
        assert windows.lengths[1:].sum() == 16 and (windows.lengths[2:-1] == 7).all() and windows.lengths.max() <= 7
        cuts.add(int(windows.lengths[1]))
    assert cuts == set(range(1, 8))


def test_without_a_training_target_there_is_no_window():
    windows = training_windows(from_sequences([[1, 2, 3], [4, 5, 6]]), 5, seeded(0))
    assert len(windows) == 0 and length_batches(windows.lengths, 4, seeded(0), sizes=windows.lengths) == []


@pytest.mark.parametrize("generator", [None, seeded(1)])
@pytest.mark.parametrize(("batch_size", "window"), [(1, 1), (40, 3), (100, 64), (10**6, 2)])
def test_batches_are_filled_by_size(batch_size, window, generator):
    """Every example once. A batch is about as full as was asked: by less than one example more or, on average, less."""
    lengths = torch.randint(1, 21, (300,), generator=seeded(0))
    batches = length_batches(lengths, batch_size, generator, window, sizes=lengths)
    assert torch.cat(batches).sort().values.tolist() == list(range(300))
    filled = [int(lengths[batch].sum()) for batch in batches]
    assert max(filled) < batch_size + 20
    assert batch_size < 20 or len(batches) <= -(-sum(filled) // batch_size) * (1 + 1 / window) + 1
