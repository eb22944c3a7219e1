"""The lab: grids of papermill runs, one run, engines, result files, self-contained pages."""

from ..base.places import MATERIAL, NOTEBOOK
from .grids import WHERE, check_run, check_settings, expand, read_grid, read_parameters
from .results import KEY, file_digest, label_runs, read_results, run_parameters, setup, write_result

__all__ = [
    "KEY", "MATERIAL", "NOTEBOOK", "WHERE", "check_run", "check_settings", "expand", "file_digest", "label_runs",
    "read_grid", "read_parameters", "read_results", "run_parameters", "setup", "write_result",
]
