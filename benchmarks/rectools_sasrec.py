"""SASRec of RecTools, trained on the files of `write_rectools`: scores for `rank_scores`. Runs in RecTools' environment.

    rectools_sasrec.py FOLDER SCORES.npz --num-items I [--epochs 10 20 30] [--width 64] [--length 50] [--seed 0]

It trains on train.csv with the softmax over all items. At each of the numbers of epochs it gives validation_E and test_E,
float32 [users, I], column j for item j + 1; an item that train.csv lacks is unknown to RecTools and comes after all others.
hits_E and ndcg_E are RecTools' own HitRate@10 and NDCG@10 of [validation, test], to compare the two ways of counting.
`make witness` sets the environment up and runs witness.py, which runs this.
"""

import argparse
import json
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from pytorch_lightning import seed_everything
from rectools.dataset import Dataset
from rectools.metrics import NDCG, HitRate
from rectools.models import SASRecModel

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("scores", type=Path)
parser.add_argument("--num-items", type=int, required=True)
parser.add_argument("--epochs", type=int, nargs="+", default=[10, 20, 30, 40, 50])
parser.add_argument("--width", type=int, default=64)
parser.add_argument("--length", type=int, default=50)
parser.add_argument("--seed", type=int, default=0)
given = parser.parse_args()

warnings.filterwarnings("ignore")       # among them: RecTools leaves items that it does not know out of histories
train, validation, test = (pd.read_csv(given.folder / f"{split}.csv") for split in ("train", "validation", "test"))
users, items = np.sort(train["user_id"].unique()), train["item_id"].nunique()
parts = {"validation": (train, validation), "test": (pd.concat([train, validation]), test)}     # histories, targets

seed_everything(given.seed, workers=True)
settings = {"n_blocks": 2, "n_heads": 2, "n_factors": given.width, "session_max_len": given.length, "dropout_rate": 0.2,
            "loss": "softmax", "lr": 0.001, "batch_size": 32}
model = SASRecModel(**settings, deterministic=True)
found, done = {}, 0
for epochs in given.epochs:
    model.fit_partial(Dataset.construct(train), min_epochs=epochs - done, max_epochs=epochs - done)
    done, own = epochs, []
    for split, (histories, targets) in parts.items():
        places = model.recommend(users, Dataset.construct(histories), k=items, filter_viewed=False)
        table = places.pivot(index="user_id", columns="item_id", values="score").loc[users]
        scores = np.repeat(table.min(axis=1).to_numpy("f4")[:, None] - 1, given.num_items, axis=1)      # of unknown items
        scores[:, table.columns.to_numpy() - 1] = table
        found[f"{split}_{epochs}"] = scores
        own.append([metric.calc(places, targets) for metric in (HitRate(10), NDCG(10, divide_by_achievable=True))])
    found[f"hits_{epochs}"], found[f"ndcg_{epochs}"] = np.array(own).T
    print(f"{epochs} epochs, loss {float(model.fit_trainer.callback_metrics['train_loss']):.4f}", flush=True)
versions = {name: version(name) for name in ("rectools", "torch", "numpy", "pandas", "pytorch-lightning")}
np.savez_compressed(given.scores, epochs=given.epochs, settings=json.dumps(settings), versions=json.dumps(versions), **found)
