"""The lab: grids of papermill runs, one run, result files, self-contained pages, and the command line."""

from .results import KEY, file_digest, label_runs, read_results, run_parameters, setup, write_result

__all__ = ["KEY", "file_digest", "label_runs", "read_results", "run_parameters", "setup", "write_result"]
