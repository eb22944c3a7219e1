"""Data sets: the named ones and your own files, leave-one-out, batches of similar length, histories to predict from."""

from .dataset import DataError, Dataset, in_time_order
from .export import write_recbole, write_rectools
from .histories import left_padded
from .named import KNOWN, load_dataset
from .own import check_interactions, load_interactions
from .splits import Examples, leave_one_out, length_batches, training_windows

__all__ = [
    "KNOWN", "DataError", "Dataset", "Examples", "check_interactions", "in_time_order", "left_padded", "leave_one_out",
    "length_batches", "load_dataset", "load_interactions", "training_windows", "write_recbole", "write_rectools",
]
