"""Writes docs/equations.md, where the module computes each equation and algorithm of [2]: `make equations`.

Read from the comments that name them, as "# [2] eq. 16".
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "equations.md"
NAMED = {       # those of [2] that a model computes by; (18), (21) and (22) define what these use
    "eq. 15": "item distributions by the sum of [1]",
    "eq. 16": "item distributions by cross-attention",
    "eq. 17": "offset noise",
    "eq. 19": "x_0 from the target's embedding",
    "eq. 20": "x_s from x_0 and noise",
    "eq. 23": "mean of the posterior",
    "eq. 24": "inner products with the catalogue",
    "eq. 25": "cross-entropy over them",
    "eq. 26": "rounding: the largest inner product",
    "Algorithm 1": "training",
    "Algorithm 2": "the reverse process",
    "Algorithm 3": "ensembles of predictions in one step",
}


def places():
    """{equation: [(path, line's number, code)]} of the comments in the paper's room."""
    found = {}
    for path in sorted((ROOT / "diffurec" / "paper").glob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            code, _, comment = line.partition("  # [2] ")
            if name := re.match(r"eq\. \d+|Algorithm \d+", comment):
                found.setdefault(name[0], []).append((path.relative_to(ROOT), number, code.strip()))
    return found


def page():
    lines = [
        "# Equations and lines", "",
        "Where the module computes what [2] (Zolghadr, Winther, Jeha 2024) numbers. Written by `make equations`.", "",
        "| in [2] | what | where | code |", "|---|---|---|---|",
    ]
    for name, what in NAMED.items():
        for path, number, code in places().get(name, []):
            where = f"[{path.name}, line {number}](../{path.as_posix()}#L{number})"
            lines.append(f"| {name} | {what} | {where} | `{code.replace('|', '&#124;')}` |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
