"""The report of a grid, executed on results that are made up: any axis, mixed data, hostile files, one correction."""

import json

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from diffurec.base.places import REPORT, ROOT
from diffurec.lab import write_result
from diffurec.lab.kernels import Kernels
from test_results import make_outcome

USERS = 60
CHECK = """\
import json
raw = [difference(key[0], key[1:])["p over users"] for key in paired.index]
print(json.dumps([[*map(list, paired.index)], raw, paired["p over users"].tolist(), paired["difference"].tolist()]))
"""


def write(directory, name, better=0, checksum="a" * 64, version="0.2.0", **parameters):
    """A result in which the first `better` users are at rank 1 and the others at 40."""
    ranks = {split: np.where(np.arange(USERS) < better, 1, 40)[:, None].repeat(2, 1) for split in ("validation", "test")}
    data = make_outcome()["data"] | {"users": USERS, "checksum": checksum}
    seed = parameters.pop("seed", 0)
    outcome = make_outcome(ranks, seed, {"dataset": "own$^$.csv", **parameters}, data=data, versions={"diffurec": version})
    outcome["settings"]["model"]["hidden_size"] = parameters.get("hidden_size") or 8
    write_result(directory / f"{name}.json", outcome, ranks)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The executed cells of the report of one directory, by their ids."""
    directory = tmp_path_factory.mktemp("results")
    for width in (None, 64):
        for variant, better in (("baseline", 0), ("diffurecsys", 8), ("offset-noise", 30)):
            write(directory, f"{variant}-{width}", better, variant=variant, hidden_size=width)
    write(directory, "twice", variant="baseline", hidden_size=64)
    write(directory, "changed", 50, checksum="b" * 64, variant="cross-attention", version="0.1.0")
    (directory / "hostile.json").write_text("[" * 100_000)
    (directory / "null.json").write_text('{"schema": 3, "metrics": null}')
    grid = directory / "grid.toml"
    grid.write_text("[parameters]\ndataset = 'own$^$.csv'\n[axes]\nvariant = ['baseline']\nhidden_size = [64]\n")
    notebook = nbformat.read(REPORT, as_version=4)
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    parameters.source = f"results = {str(directory)!r}\ngrid = {str(grid)!r}"
    notebook.cells.append(nbformat.v4.new_code_cell(CHECK, id="check"))
    NotebookClient(notebook, kernel_manager_class=Kernels({}).manager, timeout=300,
                   resources={"metadata": {"path": str(ROOT)}}).execute()
    return {cell.id: "".join(output.get("text", "") for output in cell.outputs)
            for cell in notebook.cells if cell.cell_type == "code"}


def test_files_that_cannot_be_used_and_runs_that_do_not_fit_are_named(report):
    said = report["report-04"]
    for part in ("hostile.json cannot be read as JSON", "null.json is damaged: ",
                 "baseline-64.json and twice.json are of the same run; baseline-64.json is used.",
                 "own$^$.csv: its data were not the same (checksums aaaaaaaa in 7 runs, bbbbbbbb in 1 runs)",
                 "different versions of diffurec, 0.1.0 (1), 0.2.0 (6)"):
        assert part in said


def test_runs_are_paired_within_their_data_and_settings_and_all_p_corrected_together(report):
    index, raw, corrected, differences = json.loads(report["check"])
    plain = "laptop, epochs = 2"            # the grid asks for the notebook's own number
    assert sorted(map(tuple, index)) == sorted(
        (metric, "own$^$.csv (aaaaaaaa)", plain + more, variant) for metric in ("HR@10", "NDCG@10")
        for more in ("", ", hidden_size = 64") for variant in ("diffurecsys", "offset-noise"))
    assert len(raw) == 8 and min(raw) < 0.05 / 8 < max(raw) < 0.05
    assert corrected == pytest.approx([min(1, 8 * p) for p in raw])
    sentences = {tuple(line.split(", against")[0].split(", ")): line for line in report["report-14"].splitlines()}
    assert len(sentences) == 8
    few = sentences["own$^$.csv (aaaaaaaa)", *plain.split(", "), "diffurecsys", "HR@10"]
    many = sentences["own$^$.csv (aaaaaaaa)", *plain.split(", "), "offset-noise", "HR@10"]
    assert "over users not told apart (p = 0.062)" in few and "over users better (p = " in many
