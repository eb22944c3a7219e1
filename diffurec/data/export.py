"""A data set with its leave-one-out, as files for other libraries.

Users are numbered 0..U-1 and items 1..I in them, as here: a user is the row of a score matrix that comes back to
`rank_scores`, an item less one its column.
"""

from pathlib import Path

import numpy as np

from .dataset import Dataset
from .splits import SPLITS, leave_one_out


def write_recbole(data: Dataset, folder: str | Path, max_length: int) -> list[Path]:
    """Writes NAME.train.inter, .valid.inter and .test.inter into folder/NAME, NAME the data set's; returns the paths.

    A line is an example of `leave_one_out`: user_id, item_id_list (the history, cut to its latest `max_length` items),
    item_id. For a sequential model, RecBole's settings are

        data_path=folder, dataset=NAME, benchmark_filename=["train", "valid", "test"], MAX_ITEM_LIST_LENGTH=max_length,
        load_col={"inter": ["user_id", "item_id_list", "item_id"]}, alias_of_item_id=["item_id_list"]

    RecBole 1.2.1 reads this very split back. Its own leave-one-out, of one file, is another: whoever has three
    interactions has no validation item there, it is trained on; and times are 32-bit floats, a minute or two apart.
    """
    path = Path(folder) / data.name
    path.mkdir(parents=True, exist_ok=True)
    paths = [path / f"{data.name}.{part}.inter" for part in ("train", "valid", "test")]
    for path, split in zip(paths, SPLITS):
        examples = leave_one_out(data, split, max_length)
        first, target = examples.first.numpy(), examples.target.numpy()
        users = np.searchsorted(data.offsets, target, side="right") - 1
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write("user_id:token\titem_id_list:token_seq\titem_id:token\n")
            for user, start, end in zip(users, first, target):
                file.write(f"{user}\t{' '.join(map(str, data.items[start:end]))}\t{data.items[end]}\n")
    return paths


def write_rectools(data: Dataset, folder: str | Path) -> list[Path]:
    """Writes train.csv, validation.csv and test.csv into the folder, for RecTools' Dataset.construct; returns the paths.

    Columns: user_id, item_id, weight (1) and datetime, which is the position in the user's sequence: equal times would
    leave the order open. Train on the first file; the history before the validation item is the first file, that before
    the test item the first two.
    """
    import pandas as pd         # here, because it takes half a second to load

    lengths = np.diff(data.offsets)
    users, position = np.repeat(np.arange(data.num_users), lengths), np.arange(len(data.items))
    table = pd.DataFrame({"user_id": users, "item_id": data.items, "weight": 1, "datetime": position - data.offsets[users]})
    left = data.offsets[users + 1] - position                                   # 1 for the test item
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = [Path(folder) / f"{split}.csv" for split in SPLITS]
    for path, rows in zip(paths, (left > 2, left == 2, left == 1)):
        table[rows].to_csv(path, index=False, lineterminator="\n")
    return paths
