"""SASRec, GRU4Rec and DiffuRec without its diffusion: what they compute, and that all that DiffuRec goes through takes them."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from diffurec import (
    CheckpointError, Dataset, DiffuRec, GRU4Rec, ModelConfig, SASRec, TrainConfig, build_model, configure_run, evaluate,
    load_model, recommend, train,
)
from diffurec.fast import install, switched_off
from diffurec.paper.rivals import right_padded

ITEMS, L = 30, 7
SEQUENCE = torch.tensor([[3, 17, 5, 5, 29, 8, 11]])
TARGETS = torch.tensor([[17, 5, 5, 29, 8, 11, 2]])
KINDS = pytest.mark.parametrize("kind", [SASRec, GRU4Rec])
SMALL = ModelConfig(hidden_size=16, num_blocks=2, num_heads=2, max_length=L, dropout=0.0, embedding_dropout=0.0)


def new_model(kind, config=SMALL):
    torch.manual_seed(0)
    return kind(ITEMS, config).double()


def cycle(users=40, length=12):
    """Each user goes round the items from a place of its own: the next item is that of the next number."""
    items = np.concatenate([1 + (start + np.arange(length)) % ITEMS for start in range(users)])
    return Dataset("cycle", ITEMS, items, np.arange(users + 1) * length)


def test_padding_goes_behind_the_items():
    left = torch.tensor([[0, 0, 4, 5], [1, 2, 3, 4], [0, 0, 0, 9]])
    assert right_padded(left).tolist() == [[4, 5, 0, 0], [1, 2, 3, 4], [9, 0, 0, 0]]


@KINDS
def test_what_is_trained_at_a_position_is_what_is_predicted_from_its_prefix(kind):
    model = new_model(kind)
    whole = model(SEQUENCE, TARGETS)
    for k in range(1, L + 1):
        history = torch.nn.functional.pad(SEQUENCE[:, :k], (L - k, 0))           # as the evaluation pads
        loss = model.cross_entropy(model.predict(history), TARGETS[:, k - 1])
        torch.testing.assert_close(loss[0], whole[k - 1], rtol=0, atol=1e-12)
    assert whole.std() > 1e-3


@KINDS
def test_no_position_sees_a_later_item_and_the_last_sees_all(kind):
    model = new_model(kind)
    before = model.encode(SEQUENCE)
    for k in range(L):
        changed = SEQUENCE.clone()
        changed[0, k] = 23
        after = model.encode(changed)
        assert torch.equal(after[0, :k], before[0, :k]) and not torch.allclose(after[0, -1], before[0, -1])


@KINDS
def test_padding_moves_nothing_and_has_no_loss(kind):
    model = new_model(kind)
    more = torch.nn.functional.pad(SEQUENCE[:, :4], (0, 3)), torch.nn.functional.pad(TARGETS[:, :4], (0, 3))
    torch.testing.assert_close(model(*more), model(SEQUENCE[:, :4], TARGETS[:, :4]), rtol=0, atol=1e-12)
    together = model(torch.cat([SEQUENCE, more[0]]), torch.cat([TARGETS, more[1]]))
    assert together.shape == (L + 4,)


@KINDS
def test_the_fast_forms_compute_the_same(kind):
    plain, fast = new_model(kind), install(new_model(kind))
    losses = []
    for model in (plain, fast):
        losses.append(model(SEQUENCE, TARGETS))
        losses[-1].sum().backward()
    torch.testing.assert_close(*losses, rtol=0, atol=1e-10)
    for one, other in zip(plain.parameters(), fast.parameters()):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-10)
    with switched_off():
        assert type(install(fast)) is kind


def test_sasrec_without_places_is_diffurec_without_diffusion():
    """So whatever the two differ in comes from the places: it fails if a block, norm or mask of one is another's."""
    sasrec = new_model(SASRec)
    diffurec = new_model(DiffuRec, replace(SMALL, attention="causal", lambda_uncertainty=0.0))
    diffurec.item_embedding, diffurec.history_norm, diffurec.approximator = (
        sasrec.item_embedding, sasrec.history_norm, sasrec.blocks)
    t, noise = diffurec.draw_for_training(TARGETS.shape, torch.Generator().manual_seed(0))
    theirs = diffurec(SEQUENCE, TARGETS, t, noise.double())
    assert not torch.allclose(sasrec(SEQUENCE, TARGETS), theirs)
    torch.nn.init.zeros_(sasrec.place_embedding.weight)
    torch.testing.assert_close(sasrec(SEQUENCE, TARGETS), theirs, rtol=0, atol=1e-12)


def test_without_diffusion_neither_noise_nor_target_is_heard():
    config, _ = configure_run({"variant": "without-diffusion", "settings": "laptop", "dropout": 0.0, "embedding_dropout": 0.0})
    model, sequence = new_model(build_model, config), SEQUENCE[:, :3]
    losses = [model(sequence, TARGETS[:, 2], torch.tensor([t]), noise)
              for t, noise in ((3, torch.zeros(1, 64).double()), (30, torch.ones(1, 64).double()))]
    assert torch.equal(*losses)


@pytest.mark.parametrize("variant", ["sasrec", "gru4rec", "without-diffusion"])
def test_it_learns_a_cycle_and_is_loaded_resumed_and_asked_like_diffurec(variant, tmp_path):
    """It fails if training does not reach the embeddings: untrained, one user in three is a hit at 10."""
    parameters = {"variant": variant, "settings": "laptop", "hidden_size": 32, "max_length": 8, "epochs": 25, "batch_size": 64,
                  "learning_rate": 5e-3}
    config, training = configure_run(parameters)
    data = cycle()
    torch.manual_seed(0)
    model = build_model(ITEMS, config)
    train(model, data, replace(training, epochs=24), tmp_path / "run", log=None)
    metrics = evaluate(model, data, "test")
    assert metrics["HR@5"] > 0.9, metrics
    loaded = load_model(tmp_path / "run")
    assert loaded.config == config and isinstance(loaded, {"sasrec": SASRec, "gru4rec": GRU4Rec}.get(variant, DiffuRec))
    assert evaluate(loaded, data, "test") == metrics
    items, _ = recommend(loaded, [[1, 2, 3], [8]], k=2)
    assert 4 in items[0] and 9 in items[1]
    torch.manual_seed(0)
    whole, resumed = build_model(ITEMS, config), build_model(ITEMS, config)
    once = train(whole, data, training, log=None)
    again = train(resumed, data, training, tmp_path / "run", resume=True, log=None)
    assert [e["loss"] for e in once.log] == [e["loss"] for e in again.log]


def test_a_checkpoint_of_another_network_is_refused(refused, tmp_path):
    torch.manual_seed(0)
    settings = TrainConfig(epochs=1, eval_every=1)
    train(SASRec(ITEMS, SMALL), cycle(), settings, tmp_path / "run", log=None)
    with refused("a checkpoint of SASRec for GRU4Rec", CheckpointError, match="network = 'sasrec', not 'gru4rec'"):
        train(GRU4Rec(ITEMS, SMALL), cycle(), settings, tmp_path / "run", resume=True, log=None)


@pytest.mark.parametrize("changes", [
    {"network": "sasrec"}, {"network": "gru4rec", "attention": "causal", "cross_attention": True},
    {"network": "sasrec", "attention": "causal", "offset_noise": "shared"},
], ids=["bidirectional", "cross-attention", "offset noise"])
def test_settings_of_diffurec_are_refused_in_another_network(refused, changes):
    with refused(None, ValueError, match="set attention to 'causal', and leave out"):
        ModelConfig(**changes)


def test_a_class_is_its_network_and_diffurec_refuses_anothers_settings(refused):
    assert asdict(SASRec(ITEMS, SMALL).config) == asdict(SMALL) | {"network": "sasrec", "attention": "causal"}
    assert type(build_model(ITEMS, GRU4Rec(ITEMS, SMALL).config)) is GRU4Rec
    with refused("DiffuRec with the settings of SASRec", ValueError, match="build_model"):
        DiffuRec(ITEMS, SASRec(ITEMS, SMALL).config)
