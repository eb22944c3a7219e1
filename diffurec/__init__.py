"""DiffuRec (Li et al. 2023) for sequential recommendation: data, diffusion, model, training and evaluation."""

__version__ = "0.2.0"     # first, because the modules below write it into what they save

from . import early

early.until_loaded()        # before torch

from .baselines import MarkovChain, MostPopular
from .checkpoint import CheckpointError, load_model
from .config import PRESETS, ModelConfig, TrainConfig, configure_run
from .data import load_dataset
from .dataset import DataError, Dataset
from .evaluation import evaluate, rank_targets
from .interactions import load_interactions
from .metrics import bootstrap_interval, compare, mean_metrics, paired_interval, paired_test, per_user
from .model import DiffuRec, DiffuRecSys
from .training import History, train

__all__ = [
    "PRESETS", "CheckpointError", "DataError", "Dataset", "DiffuRec", "DiffuRecSys", "History", "MarkovChain",
    "ModelConfig", "MostPopular", "TrainConfig", "bootstrap_interval", "compare", "configure_run", "evaluate",
    "load_dataset", "load_interactions", "load_model", "mean_metrics", "paired_interval", "paired_test", "per_user",
    "rank_targets", "train",
]
