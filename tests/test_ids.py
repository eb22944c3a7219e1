"""Which item is which: recommendations by id, data matched to a model by ids, and the ids in checkpoints."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from diffurec import (
    CheckpointError, Dataset, DiffuRec, MarkovChain, ModelConfig, MostPopular, NearestItems, SASRec, TrainConfig, evaluate,
    load_interactions, load_model, rank_targets, recommend, recommend_ids, train,
)
from diffurec.base import files
from diffurec.data.catalogue import Catalogue
from diffurec.evaluation import analyse, reconstruct, some_users, training_counts
from diffurec.training import checkpoint as checkpoints

SMALL = ModelConfig(hidden_size=8, num_blocks=1, num_heads=1, max_length=5, num_diffusion_steps=4)
SETTINGS = dict(learning_rate=1e-2, eval_every=20, eval_num_steps=1)
SASREC = dict(network="sasrec", attention="causal")
ROWS = [f"u{user},i{(7 * user + time) % 30},{time}" for user in range(60) for time in range(8)]


def read(folder, rows, name="data", **changes):
    (folder / f"{name}.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    return dataclasses.replace(load_interactions(folder / f"{name}.csv"), **changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    found = read(tmp_path_factory.mktemp("data"), ROWS)
    return dataclasses.replace(found, titles=("", *(f"Title of {identity}" for identity in found.item_ids[1:])))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A checkpoint, trained until it knows that each item is followed by the next."""
    directory = tmp_path_factory.mktemp("run") / "checkpoint"
    train(new_model(data), data, TrainConfig(epochs=40, **SETTINGS), directory, log=None)
    return directory


@pytest.fixture(scope="module")
def model(run):
    return load_model(run)


def new_model(data, kind=DiffuRec, **changes):
    torch.manual_seed(0)
    return kind(data.num_items, dataclasses.replace(SMALL, **changes))


# By id

@pytest.mark.parametrize("form", [
    lambda rows: list(rows.values()),
    lambda rows: [np.array(row) for row in rows.values()],
    lambda rows: [pd.Series(row) for row in rows.values()],
    lambda rows: rows,
    lambda rows: pd.DataFrame([(user, item) for user, row in rows.items() for item in row], columns=["user", "item"]),
], ids=["lists", "arrays", "series", "dict", "table"])
def test_recommendations_by_id_are_those_by_number(model, data, form):
    rows = {"bo": ["i3", "i4"], 7: ["i1", "i2", "i5"]}
    found = model.recommend_ids(form(rows), k=4, seed=3, num_steps=2)
    numbers = [[data.item_numbers[item] for item in row] for row in rows.values()]
    items, scores = model.recommend(numbers, k=4, seed=3, num_steps=2)
    assert list(found.columns) == ["user", "rank", "item", "title", "score"]
    users = [0, 1] if isinstance(form(rows), list) else list(rows)
    assert found["user"].tolist() == [user for user in users for _ in range(4)]
    assert found["rank"].tolist() == [1, 2, 3, 4] * 2
    assert found["item"].tolist() == [data.item_ids[number] for number in items.flatten().tolist()]
    assert found["title"].tolist() == [f"Title of {item}" for item in found["item"]]
    assert found["score"].tolist() == scores.flatten().tolist()


def test_the_next_item_is_recommended(model):
    """What was trained, in ids: a mix-up of numbers would recommend another."""
    found = model.recommend_ids([["i3", "i4"], ["i28", "i29"]], k=1, seed=0)
    assert found["item"].tolist() == ["i5", "i0"]


DAYS = ["2020-01-02", "2020-01-01", "2020-02-01", "2019-12-31"]
TIMES = {
    "rows in order": dict(item=["i1", "i7", "i2", "i3"]),
    "numbers": dict(item=["i3", "i7", "i2", "i1"], timestamp=[10, 5, 9, 2]),
    "dates": dict(item=["i2", "i7", "i3", "i1"], timestamp=pd.to_datetime(DAYS)),
    "dates with a zone": dict(item=["i2", "i7", "i3", "i1"], timestamp=pd.to_datetime(DAYS, utc=True)),
    "equal times, rows in order": dict(item=["i1", "i7", "i2", "i3"], timestamp=[4.5] * 4),
}


@pytest.mark.parametrize("what", TIMES)
def test_the_rows_of_a_table_come_in_time_order(model, what):
    """Users in the order of their first row, whatever the index."""
    table = pd.DataFrame({"user": ["bo", "al", "bo", "bo"], **TIMES[what]}, index=[9, 9, 1, 0])
    expected = model.recommend_ids({"bo": ["i1", "i2", "i3"], "al": ["i7"]}, k=3, seed=1)
    pd.testing.assert_frame_equal(model.recommend_ids(table, k=3, seed=1), expected)


@pytest.mark.parametrize("kind", [MostPopular, MarkovChain, NearestItems, SASRec])
def test_baselines_and_rivals_know_ids_too(data, kind):
    if kind is SASRec:
        model = new_model(data, SASRec, **SASREC)
        train(model, data, TrainConfig(epochs=1), log=None)
    else:
        model = kind(data)
    found = recommend_ids(model, {"bo": ["i3", "i4"]}, k=3, filter_seen=True)
    items, _ = recommend(model, [[data.item_numbers["i3"], data.item_numbers["i4"]]], k=3, filter_seen=True)
    assert found["item"].tolist() == [data.item_ids[number] for number in items[0].tolist()]
    assert found["title"].tolist() == [f"Title of {item}" for item in found["item"]]


def test_without_ids_the_numbers_are_the_ids(data):
    """A model trained on nothing; one whose data have titles alone, as ml-100k; one whose data have neither."""
    for titles, columns in ((data.titles, "user rank item title score"), (None, "user rank item score")):
        trained = new_model(data)
        train(trained, dataclasses.replace(data, item_ids=None, titles=titles), TrainConfig(epochs=1), log=None)
        for model in (trained, MostPopular(dataclasses.replace(data, item_ids=None, titles=titles))):
            found = recommend_ids(model, [[1, np.int64(2), torch.tensor(3)], torch.tensor([4])], k=2, seed=0)
            assert list(found.columns) == columns.split() and set(found["item"]) <= set(range(1, 31))
    found, items = new_model(data).recommend_ids([[1, 2]], k=3, seed=0), new_model(data).recommend([[1, 2]], k=3, seed=0)[0]
    assert found["item"].tolist() == items[0].tolist() and "title" not in found


@pytest.mark.parametrize("what, histories, words", [
    ("an unknown id", [["i1"], ["i2", "x"]], "not know 1 of the item ids .* them 'x' of user 1 .its own are like 'i0'"),
    ("three unknown ids", {"bo": ["x", "i1", "y"], "al": ["x", "z"]}, "not know 3 of the item ids .* them 'x' of user 'bo'"),
    ("a number where ids are text", [[1]], "not know 1 of the item ids .* the first of them 1 of user 0 "),
    ("a list within a history", [["i1", ["i2"]]], "not know 1 of the item ids"),
    ("a history that is text", ["i1"], "^The history of user 0 must be a sequence of item ids, but it is 'i1'"),
    ("a history that is a set", [{"i1"}], "^The history of user 0 must be a sequence of item ids, but it is {'i1'}"),
    ("a history that is None", {"bo": None}, "^The history of user 'bo' must be a sequence of item ids, but it is None"),
    ("an empty history", {"bo": []}, "^The history of user 'bo' holds no item"),
    ("no history", {}, "^histories is empty"),
    ("a text", "i1", "^histories must be a list of sequences of item ids, a dict .* or a DataFrame, but they are 'i1'"),
    ("a table without users", pd.DataFrame({"item": ["i1"]}), "^histories have the columns item, but need user and item"),
    ("a table without rows", pd.DataFrame({"user": [], "item": []}), "^histories is empty"),
    ("a table with a missing item", pd.DataFrame({"user": ["a", "a", "b"], "item": ["i1", None, None]}),
     "^2 values of the column item of histories are missing, the first in row 1"),
    ("a table whose times are text", pd.DataFrame({"user": ["a"], "item": ["i1"], "timestamp": ["10"]}),
     "^The column timestamp of histories must hold numbers or dates, but it is of type str"),
    ("a table with a missing time", pd.DataFrame({"user": ["a"], "item": ["i1"], "timestamp": [float("nan")]}),
     "^1 values of the column timestamp of histories are missing"),
])
def test_bad_histories_by_id_are_one_sentence(model, refused, what, histories, words):
    with refused(f"recommend_ids: {what}", ValueError, words) as error:
        model.recommend_ids(histories, k=2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("identity", [0, 31, -1, True, 1.0, "1", None])
def test_what_is_no_number_of_an_item_is_unknown(data, refused, identity):
    with refused(f"recommend_ids of numbers 1..30: the id {identity!r}", ValueError, f"of them {identity!r} of"):
        new_model(data).recommend_ids([[identity]], k=1)


# Batches and seeds

def test_batches_change_nothing_but_the_random_numbers(data):
    """A model without any and a baseline give the same lists in batches of any size, with and without what was seen."""
    rows = [sequence[:1 + user % 8] for user, sequence in enumerate(data.sequences)]
    for model in (new_model(data, SASRec, **SASREC), MarkovChain(data)):
        for filter_seen in (False, True):
            items, scores = recommend(model, rows, k=7, filter_seen=filter_seen)
            for batch_size in (1, 7, 59, np.int64(60)):
                in_batches, scores_in_batches = recommend(model, rows, k=7, filter_seen=filter_seen, batch_size=batch_size)
                torch.testing.assert_close(scores_in_batches, scores, rtol=0, atol=1e-5)
                assert (in_batches == items).float().mean() > 0.99              # equal scores may change places


def test_a_seed_repeats_the_lists_and_without_they_differ(model):
    rows = [[1, 2], [3]]
    one, again, other = (model.recommend(rows, k=5, seed=seed)[1] for seed in (1, np.int64(1), 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert not torch.equal(model.recommend(rows, k=5)[1], model.recommend(rows, k=5)[1])
    in_batches = [model.recommend(rows * 5, k=5, seed=1, batch_size=3)[1] for _ in range(2)]
    assert torch.equal(*in_batches) and len(in_batches[0]) == 10
    assert len({tuple(row) for row in in_batches[0].tolist()}) == 10             # no batch has the noise of another


def test_bad_seeds_and_batches_are_one_sentence(model, refused):
    with refused("recommend: a seed and a generator", ValueError, "^seed and generator each decide the random"):
        model.recommend([[1]], seed=1, generator=torch.Generator())
    for seed in (-1, 0.5, "1"):
        with refused("recommend: seed = …", ValueError, "such as the seed, must be a whole number of at least 0"):
            model.recommend([[1]], seed=seed)
    for batch_size in (0, 1.5):
        with refused("recommend: batch_size = …", ValueError, "^batch_size must be a whole number of at least 1"):
            model.recommend([[1]], batch_size=batch_size)


@pytest.mark.parametrize("k", [np.int8(3), torch.tensor(3), np.array(3), torch.tensor(3, dtype=torch.uint8)], ids=repr)
def test_k_is_a_whole_number_of_any_kind(model, k):
    assert model.recommend([[1]], k=k)[0].shape == (1, 3)


@pytest.mark.parametrize("k", [3.0, np.float64(3), torch.tensor(3.0), torch.tensor(True), np.bool_(1), "3"], ids=repr)
def test_what_is_no_whole_number_is_no_k(model, data, refused, k):
    for one in (model, MostPopular(data)):
        with refused("recommend: k = …", ValueError, "^k, of the items of the catalogue, must be a whole number"):
            recommend(one, [[1]], k=k)


@pytest.mark.parametrize("kind", [MostPopular, MarkovChain, NearestItems])
def test_baselines_too_refuse_a_0_and_scores_that_are_not_finite(data, kind):
    baseline = kind(data)
    with pytest.raises(ValueError, match="History 1 holds the id 0"):
        recommend(baseline, [[1], [5, 0, 7]])
    for values in (baseline.popularity, getattr(baseline, "tie_break", baseline.popularity)):
        values[4] = float("nan")
    with pytest.raises(FloatingPointError, match="scores that are not finite"):
        recommend(baseline, [[1]])
    with pytest.raises(FloatingPointError, match="scores that are not finite"):
        recommend_ids(baseline, [["i1"]])


MEMORY = """
import resource, torch
from diffurec import DiffuRec, ModelConfig
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
torch.manual_seed(0)
model = DiffuRec({items}, ModelConfig(hidden_size=8, num_blocks=1, num_heads=1, max_length=10, num_diffusion_steps=4))
model.recommend([[1, 2, 3]] * 1024, k=10, num_steps=1)
before = peak()
model.recommend([[1, 2, 3]] * {users}, k=10, num_steps=1, filter_seen=True)
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_users():
    """16,384 users x 16,384 items: their scores alone would be 1 GiB."""
    script = MEMORY.format(users=16_384, items=16_384)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.4


# Other data than the model's

def every_model(run, data):
    trained = new_model(data)
    train(trained, data, TrainConfig(epochs=1), log=None)
    return [trained, load_model(run), MostPopular(data), MarkovChain(data), NearestItems(data)]


def test_the_same_rows_in_another_order_have_the_same_metrics(run, data, tmp_path):
    """Their items are numbered by their first row; baselines have no random numbers, so that every rank is the same."""
    turned = read(tmp_path, ROWS[::-1], "turned")
    assert turned.item_ids != data.item_ids and turned.user_ids == data.user_ids[::-1]
    for model in every_model(run, data)[2:]:
        assert np.array_equal(rank_targets(model, turned), rank_targets(model, data)[::-1])
    model = load_model(run)
    assert evaluate(model, turned)["HR@10"] == evaluate(model, data)["HR@10"] > 0.9
    assert evaluate(model, some_users(turned, 20))["HR@10"] > 0.9
    x_0, targets = reconstruct(model, turned)
    last = [data.item_numbers[turned.item_ids[sequence[-1]]] for sequence in turned.sequences]
    assert targets.tolist() == last                                             # in the model's numbers
    uneven = read(tmp_path, [row for row in ROWS if row < "u30"][::-1], "uneven")
    found, counts = analyse(model, uneven, 10, num_steps=1)["map"], training_counts(uneven)
    there = [uneven.item_numbers[data.item_ids[number]] for number in found["item"]]
    assert set(there) <= {sequence[-1] for sequence in uneven.sequences} and len(set(counts[there])) > 1
    assert found["popularity"] == counts[there].tolist()


def test_a_test_set_of_some_of_the_items_is_ranked_among_all(run, data, tmp_path):
    part = read(tmp_path, [row for row in ROWS if row.startswith(("u3,", "u4,", "u33,"))][::-1], "part")
    assert part.num_items < data.num_items
    users = [data.user_numbers[user] for user in part.user_ids]
    for model in every_model(run, data)[2:]:
        assert np.array_equal(rank_targets(model, part), rank_targets(model, data)[users])
    assert evaluate(load_model(run), part)["HR@10"] == 1


def test_items_that_no_row_has_need_not_be_known(run, data):
    more = dataclasses.replace(data, num_items=31, item_ids=(*data.item_ids, "new"), titles=None)
    assert evaluate(load_model(run), more)["HR@10"] > 0.9


def test_data_whose_items_the_model_does_not_know_are_refused(run, data, tmp_path, refused):
    other = {
        "whose items have other names": [row.replace(",i", ",j") for row in ROWS],
        "with two items more": [*ROWS, *(f"new,{item},{time}" for time, item in enumerate(["i1", "x", "i2", "y"]))],
    }
    for what, rows in other.items():
        unknown = read(tmp_path, rows, "unknown")
        count, first = (30, "'j0'") if "names" in what else (2, "'x'")
        for model in every_model(run, data):
            with refused(f"data {what}", ValueError, f"^The model does not know {count} of the 3. items of the data set "
                                                     f"unknown, the first of them {first} .its own are like 'i0'"):
                evaluate(model, unknown)
        with pytest.raises(ValueError, match="does not know"):
            reconstruct(load_model(run), unknown)


OTHERWISE = r"numbered otherwise than in the data set \w+ \(other rows or ids: numbering \w{12}\.\.\., not \w{12}\.\.\.\), and "


def test_without_ids_on_both_sides_other_rows_are_refused(run, data, tmp_path, refused):
    turned, bare = read(tmp_path, ROWS[::-1], "turned"), dataclasses.replace(data, item_ids=None)
    without = dataclasses.replace(turned, item_ids=None)
    cases = {
        "data without ids, and a model with": (load_model(run), without, "the data set has none:"),
        "data with ids, and a model without": (MostPopular(bare), turned, "the model was trained without item ids:"),
        "data of other rows, and no ids": (MostPopular(bare), without,
                                           "the model was trained without item ids and the data set has none:"),
    }
    for what, (model, others, why) in cases.items():
        with refused(what, ValueError, f"{OTHERWISE}they cannot be matched by ids, because {why}"):
            evaluate(model, others)
    with refused("data of fewer items, and no ids", ValueError, "knows 30 items and the data set small has 8"):
        evaluate(MostPopular(bare), Dataset("small", 8, np.arange(1, 9), np.array([0, 8])))
    assert evaluate(MostPopular(bare), some_users(bare, 5)) and evaluate(new_model(data), without)      # trained on nothing


def test_training_goes_on_with_data_in_the_numbers_of_the_model(run, data, tmp_path, refused):
    """Read in their own numbers, the other rows would make each item another one: the metric would begin anew."""
    turned, settings = read(tmp_path, ROWS[::-1], "turned"), TrainConfig(epochs=1, learning_rate=1e-6)
    assert turned.item_ids != data.item_ids
    model = load_model(run)
    assert train(model, turned, settings, log=None).best_metric > 0.8          # 0.12 at the beginning
    assert model.catalogue.ids == data.item_ids and model.catalogue.titles == data.titles
    model = load_model(run)
    with refused("training with data of other rows that have no ids", ValueError, f"{OTHERWISE}they cannot be matched"):
        train(model, dataclasses.replace(turned, item_ids=None), settings, log=None)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), load_model(run).parameters()))


# Checkpoints

def test_a_checkpoint_has_the_ids_and_titles(run, data):
    model, (path,) = load_model(run), run.glob("items-*.json")
    assert json.loads((run / "state.json").read_text())["files"]["items"] == path.name
    assert json.loads((run / "state.json").read_text())["data"] == data.checksum
    assert model.catalogue.ids == data.item_ids and model.catalogue.titles == data.titles and model.catalogue.known
    held = json.loads(path.read_text())
    assert held["ids"] == list(data.item_ids) and held["titles"] == list(data.titles)
    assert model.trained_with["learning_rate"] == 1e-2 and model.trained_with["best_epoch"] in (20, 40)


def test_ids_are_written_once(data, tmp_path, monkeypatch):
    """In the first save of a run, and not by one that goes on."""
    written, write = [], checkpoints.write_atomically
    monkeypatch.setattr(checkpoints, "write_atomically", lambda path, _: (written.append(path.name), write(path, _)))
    for epochs in (3, 5):
        train(new_model(data), data, TrainConfig(epochs=epochs), tmp_path / "run", resume=True, log=None)
    assert [name.startswith("items") for name in written].count(True) == 1 and written[0].startswith("items")
    assert load_model(tmp_path / "run").catalogue.ids == data.item_ids


def test_a_disk_that_is_full_for_the_ids_keeps_no_half_of_a_checkpoint(data, tmp_path, monkeypatch):
    """The ids are the first file to be written; the run then starts anew."""
    settings, real = TrainConfig(epochs=2), os.replace

    def full(source, target):
        if Path(target).name.startswith("items"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(CheckpointError, match="epoch 1 .*No space left"):
        train(new_model(data), data, settings, tmp_path, log=None)
    assert [path.name for path in tmp_path.iterdir()] == ["training.lock"]
    monkeypatch.undo()
    assert len(train(new_model(data), data, settings, tmp_path, resume=True, log=None).log) == 2
    assert load_model(tmp_path).catalogue.ids == data.item_ids


def test_a_model_remembers_its_training_as_its_checkpoint_does(data, tmp_path):
    model = new_model(data)
    train(model, data, TrainConfig(epochs=2), tmp_path / "run", log=None)
    assert model.trained_with == load_model(tmp_path / "run").trained_with and "device" not in model.trained_with


def older(run, folder, data, keep):
    """The checkpoint as one of format 2, or 1, left it."""
    folder.mkdir()
    for path in run.iterdir():
        if not path.name.startswith("items"):
            (folder / path.name).write_bytes(path.read_bytes())
    state = json.loads((folder / "state.json").read_text()) | {"format": 2 if keep else 1, "numbering": data.numbering}
    del state["files"]["items"]
    if not keep:
        del state["numbering"]
    (folder / "state.json").write_text(json.dumps(state))
    return load_model(folder)


FORGOTTEN = "^The model knows no item ids, because its checkpoint was made before ids were kept there: give it those"


def test_an_older_checkpoint_loads_and_says_that_it_knows_no_ids(run, data, tmp_path, refused):
    turned = read(tmp_path, ROWS[::-1], "turned")
    model = older(run, tmp_path / "2", data, keep=True)
    assert evaluate(model, data)["HR@10"] > 0.9 and not model.catalogue.known
    with refused("recommend_ids of a model whose checkpoint kept no ids", ValueError, FORGOTTEN):
        model.recommend_ids([["i1"]], k=1)
    with refused("other data and a model whose checkpoint kept no ids", ValueError,
                 OTHERWISE + "they cannot be matched by ids, because the model has forgotten its item ids:"):
        evaluate(model, turned)
    model.catalogue = data.catalogue
    assert evaluate(model, turned)["HR@10"] > 0.9 and model.recommend_ids([["i3", "i4"]], k=1, seed=0)["item"][0] == "i5"
    oldest = older(run, tmp_path / "1", data, keep=False)
    assert evaluate(oldest, data)["HR@10"] > 0.9
    with pytest.raises(ValueError, match=FORGOTTEN):
        oldest.recommend_ids([["i1"]], k=1)


def test_an_older_checkpoint_of_data_without_ids_has_lost_none(run, data, tmp_path):
    """Its numbering is that of the rows and no ids, so the numbers are the ids."""
    model = older(run, tmp_path / "2", dataclasses.replace(data, item_ids=None), keep=True)
    assert model.catalogue.known and model.recommend_ids([[4, 5]], k=1, seed=0)["item"][0] == data.item_numbers["i5"]


@pytest.mark.parametrize("what, change", [
    ("cut off", lambda content: content[:-9]), ("empty", lambda content: b""), ("a list", lambda content: b"[]"),
    ("of another format", lambda content: content.replace(b'"format": 1', b'"format": 9')),
    ("of too few ids", lambda content: content.replace(b'"i3", ', b"")),
    ("of other items", lambda content: content.replace(b'"numbering": "', b'"numbering": "0')),
    ("with an id that is a list", lambda content: content.replace(b'"i3"', b'["i3"]')),
    ("with a numbering that is a number", lambda content: content.replace(b'"numbering": "', b'"numbering": 1, "x": "')),
    ("with a number of items that is text", lambda content: content.replace(b'"num_items": 30', b'"num_items": "30"')),
    ("lost", None),
])
def test_a_damaged_file_of_items_is_one_sentence(run, data, tmp_path, refused, what, change):
    for path in run.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path, = tmp_path.glob("items-*.json")
    if change is None:
        path.unlink()
    else:
        assert change(path.read_bytes()) != path.read_bytes()
        path.write_bytes(change(path.read_bytes()))
    resumed = TrainConfig(epochs=60, **SETTINGS)
    for use in (lambda: load_model(tmp_path), lambda: train(new_model(data), data, resumed, tmp_path, resume=True, log=None)):
        with refused(f"a checkpoint's items {what}", CheckpointError, r"items-\w{12}.json is missing or damaged") as error:
            use()
        assert "\n" not in str(error.value)


def test_ids_that_cannot_be_kept_are_told_before_training(data, tmp_path, refused):
    odd = dataclasses.replace(data, item_ids=(None, *(identity.encode() for identity in data.item_ids[1:])))
    with refused("training with a checkpoint on data whose ids are bytes", ValueError, "^The id b'i0' is a bytes"):
        train(new_model(data), odd, TrainConfig(epochs=1), tmp_path / "run", log=None)
    assert not (tmp_path / "run").exists()
    train(new_model(data), odd, TrainConfig(epochs=1), log=None)


def test_a_catalogue_survives_being_a_file():
    for catalogue in (Catalogue(3, "x", (None, 2**70, "7", "\0"), ("", "a", "b", "c")), Catalogue(3, None)):
        again = Catalogue.from_json(catalogue.to_json())
        assert all(getattr(again, field.name) == getattr(catalogue, field.name) for field in dataclasses.fields(Catalogue))
