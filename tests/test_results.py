"""Result files: what is written comes back exactly, what cannot be written leaves nothing, and damage is named."""

import json
from dataclasses import fields

import numpy as np
import pytest

from diffurec import ModelConfig, TrainConfig
from diffurec.results import REQUIRED, RUN, SCHEMA, read_result, read_results, run_parameters, write_result

RANKS = {"validation": np.array([1, 12.5, 1000000.5]), "test": np.array([2.0, 1.5, 3706.0])}
ENDLESS = pytest.mark.parametrize("value", [float("nan"), float("inf")])


def make_outcome(**changes):
    outcome = {
        "parameters": {"dataset": "random", "epochs": 2}, "settings": {"model": {"hidden_size": 8}}, "seed": 3,
        "versions": {"torch": "2"}, "machine": "a laptop", "data": {"users": 3, "items": 3706},
        "log": [{"epoch": 1, "loss": 0.1 + 0.2}], "best_epoch": 1, "finished": "2026-01-01", "metrics": {"MRR": 1 / 3},
        "differences": {"MRR": [0.1, -0.2, 0.3]}, "groups": {"head": {"users": 3}}, "analysis": {},
    }
    return outcome | changes


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


# Writing and reading

def test_what_is_written_is_read_again(tmp_path):
    write_result(tmp_path / "run.json", make_outcome(), RANKS)
    found = read_result(tmp_path / "run.json")
    ranks = found.pop("ranks")
    assert found == {"schema": SCHEMA, **make_outcome()} and {*found, "ranks"} == {*REQUIRED, "schema"}
    assert sorted(ranks) == ["test", "validation"]
    for split, values in RANKS.items():
        assert ranks[split].dtype == np.float64 and np.array_equal(ranks[split], values)
    assert names_in(tmp_path) == ["run.json"]


def test_ranks_stand_in_the_file_as_short_as_they_can(tmp_path):
    write_result(tmp_path / "run.json", make_outcome(), RANKS)
    written = json.loads((tmp_path / "run.json").read_text())["ranks"]
    assert written == {"validation": "1 12.5 1000000.5", "test": "2 1.5 3706"}


def test_every_half_up_to_the_largest_rank_comes_back_exactly(tmp_path):
    """20,000 ranks with and without a half, spread over 1 to 10^9: a format of six or nine digits loses most of them."""
    ranks = np.unique(np.round(2 * np.geomspace(1, 1e9, 20_000)) / 2)
    write_result(tmp_path / "run.json", make_outcome(data={"users": len(ranks)}), {"validation": ranks, "test": ranks[::-1]})
    found = read_result(tmp_path / "run.json")["ranks"]
    assert np.array_equal(found["validation"], ranks) and np.array_equal(found["test"], ranks[::-1])


@ENDLESS
def test_an_outcome_that_json_cannot_hold_is_refused_and_nothing_is_written(tmp_path, value):
    with pytest.raises(ValueError):
        write_result(tmp_path / "run.json", make_outcome(metrics={"MRR": value}), RANKS)
    assert names_in(tmp_path) == []


@ENDLESS
def test_an_earlier_file_survives_an_outcome_that_is_refused(tmp_path, value):
    path = tmp_path / "run.json"
    write_result(path, make_outcome(), RANKS)
    before = path.read_bytes()
    with pytest.raises(ValueError):
        write_result(path, make_outcome(seed=4, log=[{"loss": value}]), RANKS)
    assert path.read_bytes() == before and names_in(tmp_path) == ["run.json"]


def test_a_later_run_replaces_an_earlier_one(tmp_path):
    for seed in (3, 4):
        write_result(tmp_path / "run.json", make_outcome(seed=seed), RANKS)
    assert read_result(tmp_path / "run.json")["seed"] == 4


# What is no result

def damaged(good):
    """{file name: (its text, what must be said of it)}, made from the text of a good file."""
    content = json.loads(good)

    def changed(**changes):
        return json.dumps(content | changes)

    def ranked(**changes):
        return changed(ranks=content["ranks"] | changes)

    def without(key, of=content):
        return {k: v for k, v in of.items() if k != key}

    few = "its ranks are not one finite number of at least 1 for each of 3 users"
    return {
        "cut.json": (good[:len(good) // 2], "cannot be read as JSON"),
        "empty.json": ("", "cannot be read as JSON"),
        "list.json": (json.dumps([content]), "it has no schema"),
        "bare.json": (json.dumps(without("schema")), "it has no schema"),
        "old.json": (changed(schema=1), f"has schema 1, and this version reads {SCHEMA}"),
        **{f"no-{key}.json": (json.dumps(without(key)), f"{key} is not there as {kind.__name__}")
           for key, kind in REQUIRED.items()},
        "seed.json": (changed(seed="3"), "seed is not there as int"),
        "few.json": (ranked(test="1 2"), few),
        "many.json": (ranked(validation="1 2 3 4"), few),
        "zero.json": (ranked(test="1 0 2"), few),
        "below.json": (ranked(validation="1 0.5 2"), few),
        "nan.json": (ranked(test="1 nan 2"), few),
        "infinite.json": (ranked(test="1 inf 2"), few),
        "words.json": (ranked(test="1 two 3"), "its ranks or its data cannot be read"),
        "numbers.json": (ranked(test=[1, 2, 3]), "its ranks or its data cannot be read"),
        "half.json": (changed(ranks=without("validation", content["ranks"])), "its ranks or its data cannot be read"),
        "users.json": (changed(data={}), "its ranks or its data cannot be read"),
    }


def test_of_a_directory_the_results_are_returned_and_everything_else_is_named_in_one_sentence(tmp_path):
    for name, seed in (("m.json", 3), ("a.json", 1), ("z.json", 2)):
        write_result(tmp_path / name, make_outcome(seed=seed), RANKS)
    bad = damaged((tmp_path / "m.json").read_text())
    for name, (text, _) in bad.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "latin.json").write_bytes('{"schema": "é"}'.encode("latin-1"))
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "notes.txt").write_text("no result, and not looked at")
    bad |= {name: ("", "cannot be read as JSON") for name in ("latin.json", "folder.json")}

    results, problems = read_results(tmp_path)
    assert [result["seed"] for result in results] == [1, 3, 2]                    # by the names of their files
    assert all(np.array_equal(result["ranks"]["test"], RANKS["test"]) for result in results)
    assert len(problems) == len(bad)
    for name, problem in zip(sorted(bad), problems):
        assert problem.startswith(f"{name} ") and bad[name][1] in problem and "\n" not in problem


def test_one_file_that_is_no_result_is_a_value_error_and_one_that_is_missing_too(tmp_path):
    write_result(tmp_path / "run.json", make_outcome(), RANKS)
    (tmp_path / "cut.json").write_text((tmp_path / "run.json").read_text()[:-1])
    for name in ("cut.json", "absent.json"):
        with pytest.raises(ValueError, match=f"^{name} cannot be read"):
            read_result(tmp_path / name)


def test_an_empty_directory_has_neither_results_nor_problems(tmp_path):
    assert read_results(tmp_path) == ([], [])


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
