"""The report of a grid, executed on results that are made up: any axis, mixed data, hostile files, one correction."""

import json
import re

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
print(json.dumps([[*map(list, rows)], [row["p"] for row in rows.values()], [row["corrected"] for row in rows.values()]]))
"""


def write(directory, name, better=0, checksum="a" * 64, version="0.2.0", **parameters):
    """A result in which the first `better` users are at rank 1 and the others at 40; of validation six more users."""
    ranks = {split: np.where(np.arange(USERS) < better + more, 1, 40)[:, None].repeat(2, 1)
             for split, more in (("validation", 6), ("test", 0))}
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
    for settings, of_seed, gain in (("li2023", [8, 9, 10], [6, 6, 6]), ("zolghadr2024", [10, 12, 9], [20, 21, 22])):
        for seed, better in enumerate(of_seed):
            for variant, more in (("baseline", 0), ("cross-attention", gain[seed])):
                write(directory, f"toys-{settings}-{variant}-{seed}", better + more, seed=seed, dataset="amazon-toys",
                      settings=settings, variant=variant)
    (directory / "hostile.json").write_text("[" * 100_000)
    (directory / "null.json").write_text('{"schema": 4, "metrics": null}')
    grid = directory / "grid.toml"
    grid.write_text("[parameters]\ndataset = 'own$^$.csv'\n[axes]\nvariant = ['baseline']\nhidden_size = [64]\n")
    notebook = nbformat.read(REPORT, as_version=4)
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    parameters.source = f"results = {str(directory)!r}\ngrid = {str(grid)!r}"
    notebook.cells.append(nbformat.v4.new_code_cell(CHECK, id="check"))
    NotebookClient(notebook, kernel_manager_class=Kernels({}).manager, timeout=300,
                   resources={"metadata": {"path": str(ROOT)}}).execute()
    return {cell.id: "\n".join(output.get("text") or output.data.get("text/markdown") or output.data.get("text/html", "")
                               for output in cell.outputs) for cell in notebook.cells if cell.cell_type == "code"}


def saying(report, *parts):
    """The output of the cell that says all of this."""
    return next(text for text in report.values() if all(part in text for part in parts))


def test_files_that_cannot_be_used_and_runs_that_do_not_fit_are_named(report):
    saying(report, "hostile.json cannot be read as JSON", "null.json is damaged: ",
           "baseline-64.json and twice.json are of the same run; baseline-64.json is used.",
           "own$^$.csv: its data were not the same (checksums aaaaaaaa in 7 runs, bbbbbbbb in 1 runs)",
           "different versions of diffurec, 0.1.0 (1), 0.2.0 (18)",
           "18 runs by diffurec 0.2.0 on a laptop\n1 runs by diffurec 0.1.0 on a laptop")


def test_runs_are_paired_within_their_data_and_settings_and_all_p_corrected_together(report):
    index, raw, corrected = json.loads(report["check"])
    plain = "laptop, epochs = 2"            # the grid asks for the notebook's own number
    assert set(map(tuple, index)) == {
        (metric, *rest) for metric in ("HR@10", "NDCG@10") for rest in (
            *(("amazon-toys", settings, "cross-attention") for settings in ("li2023", "zolghadr2024")),  # one number of epochs
            *(("own$^$.csv (aaaaaaaa)", plain + more, variant) for more in ("", ", hidden_size = 64")
              for variant in ("diffurecsys", "offset-noise")))}
    assert len(raw) == 12 and min(raw) < 0.05 / 12 < max(raw) < 0.05
    assert corrected == pytest.approx([min(1, 12 * p) for p in raw])
    said = saying(report, "of the grid's 1 runs are here.")
    _, first, second, third = (line for line in said.splitlines() if "from DiffuRec" in line)
    assert "Published: DiffuRec 4.77, + cross-attention 5.53." in first and "DiffuRec 17.22 ± 2.55" in first
    for line in (second, third):            # 8 of 60 users are a p of 0.008, of 0.1 among twelve rows
        assert "(over users alone, one seed): + offset noise better (p = " in line and "DiffuRecSys better" not in line
    assert "One seed was run" not in said and "have been found with a probability of" in said


def test_a_section_stands_where_there_is_something_to_say(report):
    """Three seeds of V1 and of DiffuRec at the settings of both papers, on one of their data sets."""
    both = saying(report, "## Is validation printed as test?", "5.53 ± 0.12")
    assert "62.22 ± 2.55" in both and "52.22 ± 2.55" in both       # validation, test
    assert both.count("</tr>") == 8 + 4                             # two heads of two lines, six metrics, two gains
    gain = re.findall(r"<td>([^<]*)", re.search(r"<th>HR@10</th>((?:\s*<td>[^<]*</td>){4})\s*</tr>", both)[1])
    assert gain[:2] == ["+2.40", f"{100 * (np.mean([36, 39, 37]) - 9) / USERS:+.2f}"]    # published, across the splits
    assert all(text.startswith(f"{100 * np.mean([22, 24, 21]) / USERS:+.2f} [") for text in gain[2:])
    first = r"<th>([^<]*)</th>\s*<td>([^<]*)</td>"                   # a row's name and its first cell, that of HR@10
    corners = dict(re.findall(first, saying(report, "## The extension or the settings?")))
    assert len(corners) == 8 and corners["seeds"] == "3" and corners["DiffuRec at li2023, %"] == "15.00 ± 1.67"
    moved = {"the settings alone": [2, 3, -1], "the settings, with cross-attention": [16, 18, 15],   # users of 60, in each seed
             "cross-attention at li2023": [6, 6, 6], "cross-attention at zolghadr2024": [20, 21, 22], "both": [22, 24, 21]}
    assert {effect: corners[effect].split()[0] for effect in moved} == {
        effect: f"{100 * np.mean(users) / USERS:+.2f}" for effect, users in moved.items()}
    interval = re.search(r"\[(.*), (.*)\]", corners["cross-attention at zolghadr2024"]).expand(r"\1 to \2")
    assert interval in saying(report, "Three questions, three *p*") and corners["both, published"] == "+2.40"
