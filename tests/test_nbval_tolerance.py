"""What nbval lets differ in a cell tagged "trained", and what it does not: made-up notebooks, changed and compared."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
TABLE = "          HR@10  NDCG@10  users\nmodel     11.98     5.69    943\nbaseline   4.98    −0.24    943\n"

# (as it was committed, as it comes out now): passes in a tagged cell, and fails in any other
WITHIN = {
    "one in the last place": ("NDCG@10 5.00 %", "NDCG@10 5.01 %"),
    "one in a hundred": ("loss 5.5705", "loss 5.6123"),
    "of thousands": ("squares 1,234.50", "squares 1,230.25"),
    "with an exponent": ("error 1.25e-05", "error 1.26e-05"),
    "with another exponent": ("error 1.00e-05", "error 9.95e-06"),
    "fewer digits": ("tensor([0.12, 0.345])", "tensor([0.1199, 0.3449])"),
    "zero of either sign": ("difference -0.00", "difference 0.00"),
    "a typographic minus": ("difference −0.52 ± 0.31", "difference −0.51 ± 0.32"),
    "a table of other widths": (TABLE, TABLE.replace("  4.98", "4.975")),
    "beside a unit": ("1.52x and 99.5%", "1.53x and 99.6%"),
}
# fails in every cell
BEYOND = {
    "a word": ("better, by 0.52", "worse, by 0.52"),
    "a verdict": ("True 0.52", "False 0.52"),
    "a sign": ("difference 0.01", "difference -0.01"),
    "a typographic sign": ("difference −0.01", "difference +0.01"),
    "a sign beside zero": ("difference -0.01", "difference 0.00"),
    "two in the last place": ("p = 0.04", "p = 0.06"),
    "more than one in a hundred": ("loss 5.5705", "loss 5.6270"),
    "one number of many": ("11.98 5.69 4.98 2.24 10.92", "11.98 5.69 4.98 2.34 10.92"),
    "an exponent": ("error 1.25e-05", "error 1.25e-04"),
    "fewer digits that hide more": ("share 0.5", "share 0.41"),
    "a number turned nan": ("loss 5.5705", "loss nan"),
    "a nan turned a number": ("loss nan", "loss 5.5705"),
    "a whole number": ("rank 485 of 1,682", "rank 486 of 1,682"),
    "a whole number printed as a float": ("tensor([1., 0.])", "tensor([1., 1.])"),
    "a version": ("torch 2.13.0", "torch 2.14.0"),
    "a name": ("li2023-v1.5", "li2023-v1.6"),
    "a unit": ("5.00 %", "5.00 points"),
    "an order": ("model 11.98\nbaseline 4.98", "baseline 4.98\nmodel 11.98"),
    "the order of the numbers": ("11.98, 4.98", "4.98, 11.98"),
    "a missing row": (TABLE, "".join(TABLE.splitlines(keepends=True)[:-1])),
    "one row more": ("5.57\n5.41\n", "5.57\n5.41\n5.32\n"),
    "one number more": ("[5.57, 5.41]", "[5.57, 5.41, 5.32]"),
    "nothing at all": ("5.57", ""),
}
FORMS = ["stream", "html"]
CASES = {}              # by name, tag and form: tagged, form, committed, now, whether it passes
for form in FORMS:
    for name, texts in WITHIN.items():
        CASES[f"{name}, tagged, {form}"] = (True, form, *texts, True)
        CASES[f"{name}, not tagged, {form}"] = (False, form, *texts, False)
    for name, texts in BEYOND.items():
        CASES[f"{name}, tagged, {form}"] = (True, form, *texts, False)


def cell(tagged, form, committed, now, _):
    """A code cell that shows `now`, with the output `committed`."""
    if form == "stream":
        source, output = f"print({now!r}, end='')", new_output("stream", name="stdout", text=committed)
    else:
        source = f"from IPython.display import HTML, display\ndisplay(HTML({now!r}))"
        plain = "<IPython.core.display.HTML object>"
        output = new_output("display_data", {"text/html": committed, "text/plain": plain})
    return new_code_cell(source, outputs=[output], execution_count=1, metadata={"tags": ["trained"] if tagged else []})


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Whether nbval passes the cell of each case."""
    folder = tmp_path_factory.mktemp("notebooks")
    shutil.copy(NOTEBOOKS / "conftest.py", folder)
    nbformat.write(new_notebook(cells=[cell(*case) for case in CASES.values()]), folder / "cases.ipynb")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "--color=no", "--rootdir", folder,
         "--nbval", "--nbval-current-env", f"--nbval-sanitize-with={NOTEBOOKS / 'sanitize.cfg'}", folder],
        capture_output=True, text=True, timeout=300)
    found = re.findall(r"^(PASSED|FAILED) .*cases.ipynb::Cell (\d+)", done.stdout, re.M)
    assert len(found) == len(CASES), done.stdout[-2000:] + done.stderr
    passed = {int(number): outcome == "PASSED" for outcome, number in found}
    return {case: passed[number] for number, case in enumerate(CASES)}


@pytest.mark.parametrize("case", CASES)
def test_only_a_number_within_the_tolerance_passes_and_only_in_a_tagged_cell(outcomes, case):
    assert outcomes[case] == CASES[case][-1]
