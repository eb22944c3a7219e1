"""Prints how the notebooks read: prose and code cells, length of the code cells, size, minutes to read. Nothing is enforced.

The minutes are the README's: 150 words a minute and eight seconds a line of code, without the exercises and the first cell.

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
    prose = " ".join("".join(c["source"]).split("## Exercises")[0] for c in cells if c["cell_type"] == "markdown")
    code = [line for c in cells if c["cell_type"] == "code" and "remove-cell" not in c["metadata"].get("tags", ())
            for line in "".join(c["source"]).splitlines() if line.strip()]
    rows[str(path.relative_to(NOTEBOOKS))] = {
        "code cells": len(lines), "prose cells": len(cells) - len(lines), "words": words,
        "median lines": statistics.median(lines), "longest": max(lines), "over 25": sum(n > 25 for n in lines),
        "KB": round(path.stat().st_size / 1000), "minutes": len(prose.split()) / 150 + len(code) * 8 / 60,
    }
print(pd.DataFrame(rows).T.to_string(float_format="{:.0f}".format))
