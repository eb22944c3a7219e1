"""The lab: grids of papermill runs, one run, engines, result files, self-contained pages."""

from ..base.places import MATERIAL, NOTEBOOK
from .grids import WHERE, check_run, check_settings, expand, read_grid, read_parameters
from .results import KEY, label_runs, paired_by_seed, read_results, run_parameters, setup, write_result
from .source import file_digest, own_file, reading

__all__ = [
    "KEY", "MATERIAL", "NOTEBOOK", "WHERE", "check_run", "check_settings", "expand", "file_digest", "label_runs",
    "own_file", "paired_by_seed", "read_grid", "read_parameters", "read_results", "reading", "run_parameters", "setup",
    "write_result",
]
