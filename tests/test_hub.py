"""`export` and back: the layout of the Hugging Face Hub, its model card, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from test_ids import ROWS, read
from test_training import new_model, tiny_data

from diffurec import (
    CheckpointError, GRU4Rec, ModelConfig, MostPopular, TrainConfig, evaluate, export, load_interactions, load_model, train,
)

SETTINGS = TrainConfig(epochs=2, eval_every=1, eval_num_steps=1)
FILES = ["README.md", "config.json", "items.json", "model.safetensors"]


@pytest.fixture(scope="module")
def data():
    ids, titles = ([f"{letter}{item}" for item in range(1, 31)] for letter in "iT")
    return dataclasses.replace(tiny_data(), item_ids=(None, *ids), titles=("", *titles))


@pytest.fixture(scope="module")
def model(data):
    found = new_model(data)
    train(found, data, SETTINGS, log=None)
    return found


@pytest.fixture
def exported(model, data, tmp_path):
    export(model, data, tmp_path / "hub", seed=3, num_steps=2)
    return tmp_path / "hub"


def test_the_model_comes_back_as_it_was(model, data, exported):
    again = load_model(exported)
    assert sorted(path.name for path in exported.iterdir()) == FILES
    assert not again.training and again.config == model.config and again.trained_with == model.trained_with
    assert all(torch.equal(one, other) for one, other in zip(model.state_dict().values(), again.state_dict().values()))
    assert again.catalogue.ids == data.item_ids and again.catalogue.titles == data.titles
    assert evaluate(again, data, num_steps=2) == evaluate(model, data, num_steps=2)
    assert again.recommend_ids([["i3"]], k=3, seed=0).equals(model.recommend_ids([["i3"]], k=3, seed=0))
    assert list(load_file(exported / "model.safetensors")) == sorted(model.state_dict())


def test_the_card_and_the_settings_say_what_was_measured(model, data, exported):
    metrics = {split: evaluate(model, data, split, 3, num_steps=2) for split in ("validation", "test")}
    config = json.loads((exported / "config.json").read_text())
    assert config["metrics"] == metrics and config["evaluation"] == {"seed": 3, "num_steps": 2}
    counts = {"users": 40, "items": 30, "interactions": len(data.items)}
    assert config["data"] == {"name": "tiny", "checksum": data.checksum, **counts}
    assert config["model"] == dataclasses.asdict(model.config) and config["training"]["learning_rate"] == 1e-3
    _, front, text = (exported / "README.md").read_text().split("---\n", 2)
    head = yaml.safe_load(front)
    assert head["library_name"] == "diffurec" and head["tags"] == ["sequential-recommendation", "diffurec"]
    for result in head["model-index"][0]["results"]:
        assert {m["type"]: m["value"] for m in result["metrics"]} == metrics[result["dataset"]["split"]]
    assert data.checksum in text and "40 users, 30 items" in text
    assert f"| NDCG@10 | {metrics['validation']['NDCG@10']:.4f} | {metrics['test']['NDCG@10']:.4f} |" in text
    assert '"learning_rate": 0.001' in text and f'"best_epoch": {model.trained_with["best_epoch"]}' in text


def test_the_line_of_the_card_for_vectors_gives_them_without_padding(exported):
    code = (exported / "README.md").read_text().split("```python\n")[1].split("```")[0].replace("this folder", str(exported))
    names = {}
    exec(code, names)
    vectors, model = names["vectors"], names["model"]
    assert isinstance(vectors, np.ndarray) and vectors.shape == (30, 16)
    number = model.catalogue.number("i7")
    assert np.array_equal(vectors[number - 1], model.item_embedding.weight[number].detach().numpy())


@pytest.mark.parametrize("what", ["untrained", "without ids", "another network", "an older checkpoint", "a name of two lines"])
def test_other_models_and_data_go_there_and_back(model, data, tmp_path, what):
    ids, known = data.item_ids, model
    if what == "untrained":
        known = new_model(data)
    elif what == "without ids":
        ids, known = None, new_model(data)
        data = dataclasses.replace(data, item_ids=None, titles=None)
        train(known, data, SETTINGS, log=None)
    elif what == "another network":
        known = GRU4Rec(30, ModelConfig(hidden_size=8, num_blocks=1, num_heads=1, network="gru4rec", attention="causal"))
    elif what == "an older checkpoint":
        known = new_model(data)
        known.catalogue = dataclasses.replace(data.catalogue, ids=None, titles=None, known=False)
    else:
        data = dataclasses.replace(data, name='two\nlines: "and" quotes')
    export(known, data, tmp_path / "hub")
    again = load_model(tmp_path / "hub")
    assert type(again).__name__ == type(known).__name__ and again.catalogue.ids == ids and again.catalogue.known
    assert again.trained_with == known.trained_with
    yaml.safe_load((tmp_path / "hub" / "README.md").read_text().split("---\n")[1])


def test_other_rows_of_the_items_are_measured_and_the_models_items_written(tmp_path):
    (tmp_path / "a.csv").write_text("\n".join(["user_id,item_id,timestamp", *ROWS]))
    data, turned = load_interactions(tmp_path / "a.csv"), read(tmp_path, ROWS[::-1], "turned")
    model = new_model(data)
    train(model, data, SETTINGS, log=None)
    export(model, turned, tmp_path / "hub", num_steps=1)
    assert load_model(tmp_path / "hub").catalogue.ids == data.item_ids != turned.item_ids


def test_what_cannot_be_exported_is_one_sentence(model, data, tmp_path, refused, monkeypatch):
    with refused("export of a baseline", ValueError, "^A MostPopular has no weights to export; give a DiffuRec"):
        export(MostPopular(data), data, tmp_path / "hub")
    with refused("export with other data", ValueError, "knows 30 items and the data set tiny has 31"):
        export(model, tiny_data(num_items=31), tmp_path / "hub")
    for name in (*FILES, "state.json"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("mine")
        with refused(f"export into a directory with a {name}", CheckpointError, f"holds a {name} already; export into another"):
            export(model, data, tmp_path / name)
        assert [path.name for path in (tmp_path / name).iterdir()] == [name]
    (tmp_path / "file").write_text("mine")
    with refused("export below a file", CheckpointError, "Cannot write checkpoints to .*choose a directory"):
        export(model, data, tmp_path / "file" / "hub")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diffurec.training.models.write_atomically", full)
    with refused("export to a full disk", CheckpointError, "^Cannot write the model to .* .No space left on device.;"):
        export(model, data, tmp_path / "full")


def change_config(change):
    def apply(folder):
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
    return apply


def spoil(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["item_embedding.weight"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("what, damage, words", [
    ("config.json that is no JSON", lambda f: (f / "config.json").write_text("{"), "config.json is missing or damaged"),
    ("config.json of another library", change_config(lambda c: c.update(library="other")), "it is of other, format 1, and not"),
    ("config.json without its library", change_config(lambda c: c.pop("library")), "library is missing"),
    ("config.json of format 9", change_config(lambda c: c.update(format=9)), "format 9, and not of diffurec, format 1"),
    ("config.json with a wrong setting", change_config(lambda c: c["model"].update(num_heads="two")), "num_heads must be"),
    ("config.json with an unknown setting", change_config(lambda c: c["model"].update(surprise=1)), "surprise"),
    ("config.json with a billion blocks", change_config(lambda c: c["model"].update(num_blocks=10**9)), "model.num_blocks"),
    ("config.json of other items", change_config(lambda c: c.update(num_items=31)), "item_embedding.weight is .31, 16. there"),
    ("weights that are lost", lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing or damaged"),
    ("weights that are not finite", spoil, "model.safetensors is missing or damaged .item_embedding.weight is not"),
    ("items that are lost", lambda f: (f / "items.json").unlink(), "items.json is missing or damaged"),
    ("items that are no JSON", lambda f: (f / "items.json").write_text("no"), "items.json is missing or damaged"),
])
def test_a_damaged_export_is_one_sentence(exported, refused, what, damage, words):
    damage(exported)
    with refused(f"an exported model: {what}", CheckpointError, words) as error:
        load_model(exported)
    assert "\n" not in str(error.value)
