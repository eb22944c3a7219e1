"""Training that resumes bit for bit after a kill, on one process or several, its settings and its checkpoints."""

from ..base.distributed import choose_device
from .checkpoint import CheckpointError, load_model
from .config import PRESETS, SETTINGS, TrainConfig, configure_run
from .loop import History, train

__all__ = [
    "PRESETS", "SETTINGS", "CheckpointError", "History", "TrainConfig", "choose_device", "configure_run", "load_model", "train",
]
