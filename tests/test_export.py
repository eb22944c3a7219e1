r"""Files for other libraries, read back: the split is the same. And scores that another library made from such files.

rectools_scores.npz is what benchmarks/rectools_sasrec.py made of the files that write_rectools(repeating(), FOLDER) writes:

    .venv-rectools/bin/python benchmarks/rectools_sasrec.py FOLDER tests/rectools_scores.npz --num-items 12 \
        --epochs 100 300 --width 16 --length 6
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from diffurec import Dataset, leave_one_out, mean_metrics, rank_scores
from diffurec.data import write_recbole, write_rectools
from diffurec.data.splits import SPLITS


def from_sequences(sequences, num_items=20):
    return Dataset("made up", num_items, np.concatenate(sequences), np.cumsum([0, *map(len, sequences)]))


def random_data():
    """Users of 3 to 12 interactions, some items more than once."""
    rng = np.random.default_rng(0)
    return from_sequences([rng.integers(1, 21, n) for n in (3, 12, 4, 3, 7, *rng.integers(3, 13, 20))])


def repeating():
    """20 users who go through 12 items in order, each from another one on, and now and then leave one out."""
    rng = np.random.default_rng(0)
    return from_sequences([(user + np.cumsum(rng.integers(1, 3, 9))) % 12 + 1 for user in range(20)], 12)


def examples(data, split, max_length):
    """[(user, history, target), ...] of `leave_one_out`."""
    found = leave_one_out(data, split, max_length)
    histories, targets = found.gather(torch.arange(len(found)), max_length)
    users = np.searchsorted(data.offsets, found.target.numpy(), side="right") - 1
    return [(int(u), [i for i in h if i], t) for u, h, t in zip(users, histories.tolist(), targets.tolist())]


@pytest.mark.parametrize("max_length", [1, 6, 50])
def test_recboles_files_hold_the_split(tmp_path, max_length):
    data = random_data()
    paths = write_recbole(data, tmp_path, max_length)
    folder = tmp_path / "made up"           # RecBole looks for data_path/NAME/NAME.PART.inter
    assert paths == [folder / f"made up.{part}.inter" for part in ("train", "valid", "test")]
    for path, split in zip(paths, SPLITS):
        header, *lines = path.read_text().splitlines()
        assert header == "user_id:token\titem_id_list:token_seq\titem_id:token"
        fields = [line.split("\t") for line in lines]
        assert [(int(u), [int(i) for i in h.split(" ")], int(t)) for u, h, t in fields] == examples(data, split, max_length)


def test_rectools_files_hold_the_split(tmp_path):
    """However the rows come, the order within a user is that of the times."""
    data = random_data()
    paths = write_rectools(data, tmp_path / "new" / "folder")
    assert paths == [tmp_path / "new" / "folder" / f"{split}.csv" for split in SPLITS]
    tables = [pd.read_csv(path) for path in paths]
    for table in tables:
        assert list(table.columns) == ["user_id", "item_id", "weight", "datetime"] and (table["weight"] == 1).all()

    def sequences(*parts):
        shuffled = pd.concat(parts).sample(frac=1, random_state=0)
        assert not shuffled.duplicated(["user_id", "datetime"]).any()
        return shuffled.sort_values("datetime").groupby("user_id")["item_id"].agg(list).tolist()       # by user

    train, validation, test = tables
    for split, before, held_out in (("validation", [train], validation), ("test", [train, validation], test)):
        wanted = examples(data, split, 50)
        assert sequences(*before) == [history for _, history, _ in wanted]
        assert held_out["user_id"].tolist() == list(range(data.num_users))
        assert held_out["item_id"].tolist() == [target for _, _, target in wanted]


# What came back from RecTools

@pytest.fixture(scope="module")
def scores():
    with np.load(Path(__file__).with_name("rectools_scores.npz")) as file:
        return dict(file)


@pytest.mark.parametrize("epochs", [100, 300])
@pytest.mark.parametrize("part, split", [(0, "validation"), (1, "test")])
def test_our_metrics_of_rectools_sasrec_are_those_that_rectools_computes(scores, epochs, part, split):
    """20 users, 12 items, no target tied. With the columns moved, by half a round, they are not."""
    given, data = scores[f"{split}_{epochs}"], repeating()
    found, moved = (mean_metrics(rank_scores(s, data, split)) for s in (given, np.roll(given, 6, axis=1)))
    assert found["HR@10"] == pytest.approx(scores[f"hits_{epochs}"][part])
    assert found["NDCG@10"] == pytest.approx(scores[f"ndcg_{epochs}"][part])
    assert moved["NDCG@10"] < found["NDCG@10"] - 0.1


def test_rectools_sasrec_learns_from_our_files_what_follows(scores):
    """One of two items follows. By chance NDCG@5 is 0.25; who knows the two and tosses a coin has 0.82."""
    early, late = (mean_metrics(rank_scores(scores[f"test_{epochs}"], repeating()))["NDCG@5"] for epochs in (100, 300))
    assert 0.5 < early < late and late > 0.75
