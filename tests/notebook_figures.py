"""Prints how the notebooks read: prose and code cells, length of the code cells, size. Nothing is enforced.

    python tests/notebook_figures.py
"""

import json
import statistics
from pathlib import Path

import pandas as pd

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"

rows = {}
for path in sorted(NOTEBOOKS.rglob("*.ipynb")):
    if ".ipynb_checkpoints" in path.parts:
        continue
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if "".join(c["source"]).strip()]
    lines = [len("".join(c["source"]).splitlines()) for c in cells if c["cell_type"] == "code"]
    words = sum(len("".join(c["source"]).split()) for c in cells if c["cell_type"] == "markdown")
    rows[str(path.relative_to(NOTEBOOKS))] = {
        "code cells": len(lines), "prose cells": len(cells) - len(lines), "words": words,
        "median lines": statistics.median(lines), "longest": max(lines), "over 25": sum(n > 25 for n in lines),
        "KB": round(path.stat().st_size / 1000),
    }
print(pd.DataFrame(rows).T.to_string(float_format="{:.0f}".format))
