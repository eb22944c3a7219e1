"""Training that resumes bit for bit after a kill, on one process or several, its settings and checkpoints, models as files."""

from ..base.distributed import choose_device
from .checkpoint import CheckpointError
from .config import PRESETS, SETTINGS, TrainConfig, configure_run
from .loop import History, train
from .models import export, load_model

__all__ = [
    "PRESETS", "SETTINGS", "CheckpointError", "History", "TrainConfig", "choose_device", "configure_run", "export",
    "load_model", "train",
]
