"""The lab: grids of papermill runs, one run, result files, self-contained pages, and the command line."""
