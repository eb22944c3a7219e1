"""Where things lie, in a checkout and where the package is installed without one.

ROOT is what relative paths of data and outputs are seen from: the repository, or the folder the caller is in. MATERIAL
holds the notebooks, the grids and the result files that notebooks read: the repository, or the copy in the package.
"""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
INSTALLED = (PACKAGE / "material").is_dir()      # in a wheel alone, from the patterns below: see pyproject.toml
ROOT = Path.cwd() if INSTALLED else PACKAGE.parent
MATERIAL = PACKAGE / "material" if INSTALLED else ROOT
CARRIED = (
    "notebooks/*.ipynb", "notebooks/*.py", "notebooks/style.mplstyle", "notebooks/sanitize.cfg",
    "notebooks/solutions/*.ipynb", "notebooks/experiments/*.ipynb", "notebooks/experiments/grids/*.toml",
    "reports/ablation-small/*.json", "reports/baselines-*/*.json", "reports/counting/*.json", "reports/deltas-small/*.json",
    "reports/forms-small/*.json", "reports/initial-scale/*.json", "reports/paper-causal/*.json", "reports/published/*.json",
    "reports/search-small/*.json", "data/published.csv",
)
NOTEBOOK = MATERIAL / "notebooks" / "experiments" / "train.ipynb"
REPORT = MATERIAL / "notebooks" / "experiments" / "report.ipynb"
GRIDS = MATERIAL / "notebooks" / "experiments" / "grids"
