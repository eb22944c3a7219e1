"""Result files: what is written comes back exactly, what is no result leaves nothing, and damage is one sentence."""

import copy
import json
from dataclasses import fields

import numpy as np
import pytest

from diffurec import ModelConfig, TrainConfig, mean_metrics
from diffurec.lab import file_digest
from diffurec.lab.results import (
    DIFFERENCES, METRICS, MODELS, RUN, SCHEMA, SPLITS, TRAINED, Result, label_runs, paired_by_seed, read_result, read_results,
    run_parameters, write_result,
)

RANKS = {"validation": [[1, 1], [12, 15], [100005, 100006]], "test": [[2, 2], [1, 1], [3706, 3706]]}
ENDLESS = pytest.mark.parametrize("value", [float("nan"), float("inf")])


def make_outcome(ranks=RANKS, seed=3, parameters=None, **changes):
    """An outcome with every part that train.ipynb writes, of three users, whose metrics are those of `ranks`."""
    means = {split: mean_metrics(np.array(r)) for split, r in ranks.items()}
    row = means["test"]
    analysis = {
        "users": 2, "steps": [{"num_steps": 1, "agreement": 1.0, **row}], "ensembles": [{"ensemble": 1, **row}],
        "uncertainty": [{"lambda_uncertainty": 0.1, "spread": 0.2, "overlap": 1.0, "diversity": 1.0, **row}],
        "map": {"tsne": [[0.5, -1], [2, 3]], "pca": [[0, 0], [0, 0]], "cluster": [0, 1], "popularity": [4, 0],
                "item": [7, 9]},
    }
    outcome = {
        "parameters": {"dataset": "random", "settings": "laptop", "variant": "baseline", "seed": seed, "epochs": 2,
                       "hidden_size": None, **(parameters or {})},
        "settings": {"model": {"hidden_size": 8}, "train": {"epochs": 2, "seed": seed, "device": "auto"}}, "seed": seed,
        "versions": {"diffurec": "0.2.0", "torch": "2"}, "machine": "a laptop",
        "data": {"name": "random", "users": 3, "items": 100006, "interactions": 30, "checksum": "c0ffee" * 8,
                 "file": None},
        "log": [{"epoch": 1, "loss": 0.1 + 0.2, "seconds": 1.5, "learning_rate": 0.001, "validation": None},
                {"epoch": 2, "loss": 0.1, "seconds": 1.5, "learning_rate": 0.001, "validation": means["validation"]}],
        "best_epoch": 2, "finished": "All 2 epochs are done.",
        "metrics": {split: {model: {m: [v, v / 2, v] for m, v in means[split].items()} for model in MODELS}
                    for split in SPLITS},
        "differences": {split: {name: {m: [0.0, -0.5, 0.5] for m in METRICS} for name in DIFFERENCES} for split in SPLITS},
        "groups": {model: {"head": {"users": 2, **row}} for model in MODELS}, "analysis": analysis,
    }
    return outcome | changes


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


# Writing and reading

def test_what_is_written_is_read_again(tmp_path):
    write_result(tmp_path / "run.json", make_outcome(), RANKS)
    found = read_result(tmp_path / "run.json")
    ranks = found.pop("ranks")
    assert found == {"schema": SCHEMA, **make_outcome(), "file": "run.json"}
    assert {*found, "ranks"} == {*Result.model_fields, "schema", "file"} and SCHEMA == 4
    assert sorted(ranks) == ["test", "validation"]
    for split, values in RANKS.items():
        assert ranks[split].dtype == np.int64 and ranks[split].tolist() == values
    assert names_in(tmp_path) == ["run.json"]


def test_a_run_without_an_analysis_is_a_result_too(tmp_path):
    write_result(tmp_path / "run.json", make_outcome(analysis={}), RANKS)
    assert read_result(tmp_path / "run.json")["analysis"] == {}


def test_ranks_stand_in_the_file_as_one_place_or_as_the_first_and_the_last(tmp_path):
    write_result(tmp_path / "run.json", make_outcome(), {split: np.array(r) for split, r in RANKS.items()})
    written = json.loads((tmp_path / "run.json").read_text())["ranks"]
    assert written == {"validation": "1 12-15 100005-100006", "test": "2 1 3706"}


def test_ranks_where_nothing_is_tied_may_be_one_number_a_user(tmp_path):
    ranks = {split: np.array([2, 1.0, 3706]) for split in SPLITS}
    write_result(tmp_path / "run.json", make_outcome({split: [[2, 2], [1, 1], [3706, 3706]] for split in SPLITS}), ranks)
    assert read_result(tmp_path / "run.json")["ranks"]["test"].tolist() == RANKS["test"]


def test_every_rank_up_to_the_largest_comes_back_exactly(tmp_path):
    """A format of six or nine digits loses most of them."""
    ranks = np.unique(np.round(np.geomspace(1, 1e9, 20_000))).astype(np.int64)
    pairs = np.stack([ranks, ranks + np.arange(len(ranks)) % 2], axis=1)
    data = make_outcome()["data"] | {"users": len(ranks), "items": 10**9 + 1}
    both = {"validation": pairs, "test": pairs[::-1]}
    write_result(tmp_path / "run.json", make_outcome(both, data=data), both)
    found = read_result(tmp_path / "run.json")["ranks"]
    assert np.array_equal(found["validation"], pairs) and np.array_equal(found["test"], pairs[::-1])


def test_schema_2_is_read_and_its_half_places_are_ties_of_two(tmp_path):
    """Its metrics were those at the middle place: HR@10 of a target at 10.5 was 0, and by its places it is a half."""
    pairs = {"validation": [[1, 1], [10, 11], [7, 7]], "test": RANKS["test"]}
    old = make_outcome(pairs) | {"schema": 2, "ranks": {"validation": "1 10.5 7", "test": "2 1 3706"}}
    old["data"].pop("file")
    for metric, value in {"HR@10": 2 / 3, "NDCG@10": (1 + 1 / 3) / 3}.items():
        old["metrics"]["validation"][TRAINED][metric] = [value] * 3
    (tmp_path / "run.json").write_text(json.dumps(old).replace(TRAINED, "DiffuRec"))
    assert read_result(tmp_path / "run.json")["ranks"]["validation"].tolist() == pairs["validation"]
    old["metrics"]["validation"][TRAINED]["HR@10"] = [0.1, 0.1, 0.1]
    (tmp_path / "run.json").write_text(json.dumps(old).replace(TRAINED, "DiffuRec"))
    with pytest.raises(ValueError, match="metrics.validation.trained model.HR@10 is 0.1, and its ranks give"):
        read_result(tmp_path / "run.json")


def test_schema_3_called_every_trained_model_diffurec(tmp_path):
    write_result(tmp_path / "run.json", make_outcome(), RANKS)
    written = (tmp_path / "run.json").read_text()
    (tmp_path / "old.json").write_text(written.replace('"schema": 4', '"schema": 3').replace(TRAINED, "DiffuRec"))
    new, old = read_result(tmp_path / "run.json"), read_result(tmp_path / "old.json")
    assert [*old["metrics"]["test"], *old["differences"]["test"]] == [*MODELS, *DIFFERENCES]
    assert all(old[part] == new[part] for part in ("metrics", "differences", "groups"))


def test_lists_of_numbers_stand_in_one_line(tmp_path):
    write_result(tmp_path / "run.json", make_outcome(), RANKS)
    lines = [line.strip(" ,") for line in (tmp_path / "run.json").read_text().splitlines()]
    assert any(line.startswith('"tsne": [[') and line.endswith("]]") for line in lines)
    assert not [line for line in lines if line.lstrip("-").replace(".", "").isdigit()]


@ENDLESS
def test_an_outcome_that_json_cannot_hold_is_refused_and_nothing_is_written(tmp_path, value):
    with pytest.raises(ValueError):
        write_result(tmp_path / "run.json", make_outcome(best_epoch=value), RANKS)
    assert names_in(tmp_path) == []


@ENDLESS
def test_an_earlier_file_survives_an_outcome_that_is_refused(tmp_path, value):
    path = tmp_path / "run.json"
    write_result(path, make_outcome(), RANKS)
    before = path.read_bytes()
    with pytest.raises(ValueError):
        write_result(path, make_outcome(log=[{"loss": value}]), RANKS)
    assert path.read_bytes() == before and names_in(tmp_path) == ["run.json"]


def test_an_outcome_that_could_not_be_read_again_is_not_written(refused, tmp_path):
    with refused("a result whose ranks are another run's", ValueError,
                 match="run.json is damaged: metrics.test.trained model.HR@5 is .*, and its ranks give"):
        write_result(tmp_path / "run.json", make_outcome(), {**RANKS, "test": [[2, 2], [50, 50], [60, 60]]})
    assert names_in(tmp_path) == []


def test_a_later_run_replaces_an_earlier_one(tmp_path):
    for seed in (3, 4):
        write_result(tmp_path / "run.json", make_outcome(seed=seed), RANKS)
    assert read_result(tmp_path / "run.json")["seed"] == 4


# What is no result

def put(content, place, value):
    """A copy of the content with the value at a place such as "data.users"; without that place for value None."""
    content = copy.deepcopy(content)
    *path, last = place.split(".")
    inner = content
    for name in path:
        inner = inner[int(name) if isinstance(inner, list) else name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return content


NULL = "null"       # stands for JSON's null, None for a place that is taken out
CHANGES = [
    *((key, value, f": {key} is missing" if value is None else f": {key} (") for key in Result.model_fields
      for value in (None, NULL, [], 3.5)),
    ("schema", 1, "has schema 1, and this version reads 2 to 4"),
    ("schema", 5, "has schema 5, and this version reads 2 to 4"),
    ("schema", "3", "has schema '3'"), ("schema", [3], "has schema [3]"), ("schema", True, "has schema True"),
    ("schema", None, "it has no schema"),
    ("parameters", {}, "parameters.dataset is missing"),
    ("parameters.seed", "3", "parameters.seed ('3') should be a valid integer"),
    ("parameters.seed", 4, "seed is 3, and parameters.seed is 4"), ("parameters.epochs", [2], "parameters.epochs ([2])"),
    ("parameters.seed", -1, "parameters.seed (-1) should be greater than or equal to 0"),
    ("settings.model", NULL, "settings.model (None)"),
    ("versions.diffurec", 2, "versions.diffurec (2)"), ("data", {}, "data.users is missing"),
    ("data.users", "3", "data.users ('3')"), ("data.users", 4, "holds 3 ranks and data.users is 4"),
    ("data.users", 0, "data.users (0)"), ("data.items", 3705, "ranks.validation must lie within 1 to 3705"),
    ("data.file", 3, "data.file (3)"), ("log", [{}], "log.0.loss is missing"), ("log", [3], "log.0 (3)"),
    ("log", [], "log ([])"), ("metrics", {}, "metrics.validation is missing"),
    ("metrics.test", {}, "metrics.test.most-popular is missing"),
    ("metrics.test.trained model", {}, "metrics.test.trained model.HR@5 is missing"),
    ("metrics.test.trained model.MRR", [], "metrics.test.trained model.MRR ([])"),
    ("metrics.test.trained model.MRR", 0.5, "metrics.test.trained model.MRR (0.5)"),
    ("metrics.test.trained model.MRR", [0.5, "a", 0.5], "metrics.test.trained model.MRR.1 ('a')"),
    ("metrics.test.trained model.MRR", [0.5, 0.4, 1.5], "trained model.MRR.2 (1.5) should be less than or equal to 1"),
    ("metrics.test.trained model.MRR", [-0.1, -0.2, 0], "trained model.MRR.0 (-0.1) should be greater than or equal to 0"),
    ("metrics.test.most-popular.MRR", [0.5, 0.6, 0.7], "MRR ([0.5, 0.6, 0.7]) has its mean outside the interval"),
    ("metrics.test.most-popular.MRR", [0.5, 0.2, 0.3], "metrics.test.most-popular.MRR ("),
    ("metrics.test.trained model.HR@10", [0.5, 0.4, 0.6], "metrics.test.trained model.HR@10 is 0.5, and its ranks give 0.666"),
    ("differences.test", {}, "differences.test.trained model − most-popular is missing"),
    ("differences.test.trained model − most-popular.MRR", [0.0, 0.1, 0.2], "has its mean outside the interval"),
    ("groups.trained model", {}, "groups.trained model ({})"),
    ("groups.trained model.head.users", "2", "groups.trained model.head.users ('2')"),
    ("groups.trained model.head.NDCG@10", 7, "groups.trained model.head.NDCG@10 (7) should be less than or equal to 1"),
    ("groups.Markov chain", None, "groups.Markov chain is missing"),
    ("analysis.steps", [], "analysis.steps ([])"), ("analysis.map", None, "analysis.map is missing"),
    ("analysis.steps.0.agreement", "much", "analysis.steps.0.agreement ('much')"),
    ("analysis.map.tsne", [[1, 2], [3]], "analysis.map.tsne.1 ([3])"),
    ("analysis.map.item", [1], "analysis.map does not hold one item"),
    ("analysis.map.item", [1, 100007], "analysis.map does not hold one item"),
    ("analysis.steps", 2 * make_outcome()["analysis"]["steps"], "analysis.steps holds the same num_steps twice"),
    ("seed", True, "seed (True) should be a valid integer"),
    ("log.0.loss", "0.1", "log.0.loss ('0.1') should be a valid number"),
    ("log.0.loss", False, "log.0.loss (False) should be a valid number"),
    ("ranks.test", None, "ranks.test is missing"), ("ranks.test", [1, 2, 3], "ranks.test ([1, 2, 3])"),
    ("ranks.test", "", "ranks.test holds '', which is no rank"), ("ranks.test", "1 2", "ranks.test holds 2 ranks"),
    ("ranks.validation", "1 2 3 4", "ranks.validation holds 4 ranks and data.users is 3"),
    ("ranks.test", "1 2 100007", "ranks.test must lie within 1 to 100006"),
    ("ranks.test", "1 5-4 2", "the first place before the last"),
    ("ranks.test", "1 2-1000007 2", "ranks.test must lie within 1 to 100006"),
    *(("ranks.test", f"1 {word} 2", f"ranks.test holds '{word}', which is no rank") for word in (
        "0", "-3", "0.5", "1.5", "nan", "inf", "two", "1_0", "٣", "+5", "1e3", "3-", "1-2-3", "9" * 50)),
]


@pytest.mark.parametrize("place, value, part", CHANGES, ids=[f"{place} {value}"[:50] for place, value, _ in CHANGES])
def test_a_damaged_result_is_one_sentence(told, tmp_path, place, value, part):
    write_result(tmp_path / "good.json", make_outcome(), RANKS)
    text = json.dumps(put(json.loads((tmp_path / "good.json").read_text()), place, value))
    (tmp_path / "bad.json").write_text(text.replace(f'"{NULL}"', "null"))
    results, problems = read_results(tmp_path)
    assert [result["file"] for result in results] == ["good.json"]
    (problem,) = problems
    shown = NULL if value == NULL else json.dumps(value, ensure_ascii=False)
    told(f"a result without {place}" if value is None else
         f"a result with {place} = {shown if len(shown) < 40 else shown[:40] + '…'}", problem)
    assert problem.startswith("bad.json ") and part in problem and "\n" not in problem and len(problem) < 300


@pytest.mark.parametrize("text, part", [
    ("", "cannot be read as JSON"), ('{"schema": 4', "cannot be read as JSON"), ("[3]", "it has no schema"),
    ("3", "it has no schema"), ("null", "it has no schema"), ('{"format": 1}', "it has no schema"),
    ('{"schema": 4, "seed": NaN}', "cannot be read as JSON (NaN is no finite number)"),
    ('{"schema": 4, "seed": 1e999}', "cannot be read as JSON (1e999 is no finite number)"),
    ('{"schema": 4, "seed": ' + "[" * 200_000 + "]" * 200_000 + "}", "cannot be read as JSON"),
    ('{"schema": 4, "seed": ' + '{"a":' * 200_000 + "1" + "}" * 200_000 + "}", "cannot be read as JSON"),
    *((f'{{"schema": 4, "machine": {"[" * n}{"]" * n}}}', "damaged: machine ([[[[[") for n in (500, 900)),
    ('{"schema": ' + "9" * 5000 + "}", "cannot be read as JSON"),
])
def test_what_is_no_result_at_all_is_one_sentence(told, tmp_path, text, part):
    (tmp_path / "bad.json").write_text(text)
    assert read_results(tmp_path)[0] == []
    (problem,) = read_results(tmp_path)[1]
    told(f"a file of the text {text}" if text else "an empty file", problem)
    assert problem.startswith("bad.json ") and part in problem and "\n" not in problem and len(problem) < 300


def test_of_a_directory_the_results_are_returned_in_the_order_of_their_names(told, refused, tmp_path):
    for name, seed in (("m.json", 3), ("a.json", 1), ("z.json", 2)):
        write_result(tmp_path / name, make_outcome(seed=seed), RANKS)
    (tmp_path / "latin.json").write_bytes('{"schema": "é"}'.encode("latin-1"))
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "notes.txt").write_text("no result, and not looked at")
    results, problems = read_results(tmp_path)
    assert [result["seed"] for result in results] == [1, 3, 2]
    assert [problem.split(" ")[0] for problem in problems] == ["folder.json", "latin.json"]
    assert all("cannot be read as JSON" in problem for problem in problems)
    for what, problem in zip(("a directory named as a result", "a file that is not UTF-8"), problems):
        told(what, problem)
    assert read_results(tmp_path / "folder.json") == ([], [])
    with refused("a file that is not there", ValueError, match="^absent.json cannot be read"):
        read_result(tmp_path / "absent.json")


def test_the_digest_of_a_file_tells_that_it_has_changed(tmp_path):
    (tmp_path / "own.csv").write_text("user,item,timestamp\n")
    before = file_digest(tmp_path / "own.csv")
    assert before == file_digest(tmp_path / "own.csv") and len(before) == 64
    (tmp_path / "own.csv").write_text("user,item,timestamp\n1,2,3\n")
    assert file_digest(tmp_path / "own.csv") != before


# Which run a result is

def test_runs_are_paired_by_their_seeds_and_users():
    def run(first, checksum="a"):
        return {"data": {"checksum": checksum}, "ranks": {"test": np.array([[first, first], [20, 20]])}}

    seeds, apart = paired_by_seed({2: run(1), 0: run(30), 5: run(1)}, {0: run(1), 2: run(11)}, "HR@10")
    assert seeds == [0, 2] and apart.tolist() == [[-1, 0], [1, 0]]
    with pytest.raises(ValueError, match="results of seed 0 are not of the same data"):
        paired_by_seed({0: run(1)}, {0: run(1, "b")}, "HR@10")


def results_of(*outcomes):
    return [{**make_outcome(**outcome), "file": f"{number}.json"} for number, outcome in enumerate(outcomes)]


def data(checksum, users=3):
    return make_outcome()["data"] | {"checksum": checksum, "users": users}


def test_any_axis_of_a_grid_tells_runs_apart():
    axes = [{"hidden_size": None}, {"hidden_size": 64}, {"hidden_size": 64, "learning_rate": 0.01}]
    runs, missing, remarks = label_runs(
        results_of(*({"parameters": p, "seed": seed} for p in axes for seed in (0, 1))),
        planned=[make_outcome(seed=seed)["parameters"] | p for p in (*axes, {"epochs": 9}) for seed in (0, 1)])
    labels = ["laptop, epochs = 2", "laptop, epochs = 2, hidden_size = 64",
              "laptop, epochs = 2, hidden_size = 64, learning_rate = 0.01"]
    assert [*runs] == [("random", label, "baseline", seed) for label in labels for seed in (0, 1)]
    assert missing == {("random", "laptop, epochs = 9", "baseline", seed) for seed in (0, 1)} and remarks == []


def test_what_all_runs_of_a_data_set_and_settings_share_is_not_in_their_label():
    """As in a grid that gives one data set other epochs: [with.ml-1m]."""
    own = [("a", 2, 0.1), ("b", 9, 0.1), ("b", 9, 0.2)]
    runs, _, remarks = label_runs(results_of(*(
        {"parameters": {"dataset": name, "epochs": epochs, "learning_rate": rate}} for name, epochs, rate in own)))
    assert [", ".join(key[:2]) for key in runs] == [
        "a, laptop", "b, laptop, learning_rate = 0.1", "b, laptop, learning_rate = 0.2"]
    assert remarks == []


def test_runs_that_differ_in_the_four_alone_have_no_more_in_their_label():
    outcomes = [{"seed": seed, "parameters": {"variant": variant}}
                for variant in ("baseline", "diffurecsys") for seed in (0, 1)]
    runs, missing, remarks = label_runs(results_of(*outcomes))
    assert [*runs] == [("random", "laptop", v, s) for v in ("baseline", "diffurecsys") for s in (0, 1)]
    assert (missing, remarks) == (set(), [])


def test_a_rival_is_paired_with_diffurec_though_its_network_is_another():
    """And not with a DiffuRec of another width."""
    networks = [("baseline", {}), ("sasrec", {"network": "sasrec", "attention": "causal"}), ("gru4rec", {"hidden_size": 16})]
    runs, _, remarks = label_runs(results_of(*({
        "parameters": {"variant": variant}, "settings": make_outcome()["settings"] | {"model": {"hidden_size": 8} | model}
    } for variant, model in networks)))
    assert [key[2] for key in runs] == ["baseline", "sasrec"] and "other settings" in remarks[0]


def test_of_two_files_of_one_run_the_first_is_used_and_both_are_named():
    runs, _, remarks = label_runs(results_of({}, {}, {"seed": 4}))
    assert [run["file"] for run in runs.values()] == ["0.json", "2.json"]
    assert remarks == ["0.json and 1.json are of the same run; 0.json is used."]


def test_runs_over_different_data_stand_apart():
    """They cannot be paired: a key holds the data that its run saw."""
    outcomes = [{"data": data(c * 64), "parameters": {"variant": v}} for c in "ab" for v in ("baseline", "diffurecsys")]
    runs, missing, remarks = label_runs(results_of(*outcomes), planned=[make_outcome()["parameters"]])
    assert [key[0] for key in runs] == ["random (aaaaaaaa)"] * 2 + ["random (bbbbbbbb)"] * 2 and missing == set()
    assert remarks == ["random: its data were not the same (checksums aaaaaaaa in 2 runs, bbbbbbbb in 2 runs); they are "
                       "shown apart and not paired."]


def test_different_versions_are_named():
    _, _, remarks = label_runs(results_of({"versions": {"diffurec": "0.1.0"}}, {"seed": 4}, {"seed": 5}))
    assert remarks == ["Warning: the runs were made by different versions of diffurec, 0.1.0 (1), 0.2.0 (2); a "
                       "difference between them can come from the version."]


def test_a_setting_that_an_older_run_does_not_name_had_its_default():
    newer = {"settings": {"model": {"hidden_size": 8, "dropout_everywhere": False}, "train": {"epochs": 2, "seed": 4}}}
    runs, _, remarks = label_runs(results_of({}, {"seed": 4, **newer}))
    assert len(runs) == 2 and remarks == []
    newer["settings"]["model"]["dropout_everywhere"] = True
    assert len(label_runs(results_of({}, {"seed": 4, **newer}))[0]) == 1


@pytest.mark.parametrize("changes", [
    {"settings": {"model": {"hidden_size": 16}, "train": {"epochs": 2, "seed": 4}}}, {"data": data("c0ffee" * 8, users=4)},
])
def test_equal_parameters_with_other_settings_or_another_size_of_the_data_are_left_out(changes):
    runs, _, remarks = label_runs(results_of({}, {"seed": 4, **changes}))
    assert [run["file"] for run in runs.values()] == ["0.json"]
    assert remarks == ["1.json has the parameters of 0.json, but other settings or another size of the data; it is left out."]


# The parameters of a run

def all_parameters():
    names = {f.name for kind in (ModelConfig, TrainConfig) for f in fields(kind)} | set(RUN)
    return {name: f"the {name}" for name in names}


def test_the_parameters_of_a_run_are_all_settings_and_what_it_ran_but_not_where():
    expected = {name: value for name, value in all_parameters().items() if name != "device"}
    assert {"hidden_size", "cross_attention", "epochs", "seed", "dataset", "variant"} <= set(expected)
    assert run_parameters({**all_parameters(), "output": "a file", "np": np}) == expected


@pytest.mark.parametrize("name", ["dataset", "analysis_users", "hidden_size", "patience"])
def test_a_parameter_that_is_missing_is_a_key_error(name):
    namespace = all_parameters()
    del namespace[name]
    with pytest.raises(KeyError, match=name):
        run_parameters(namespace)


def test_a_device_need_not_be_among_the_parameters():
    namespace = all_parameters()
    del namespace["device"]
    assert run_parameters(namespace) == namespace
