"""benchmarks/released_code.py: each step changes what it says, and the places are those of a model that drops nothing."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from diffurec import Dataset, rank_targets

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("benchmarks", "notebooks")]
import quirks  # noqa: E402
import released_code  # noqa: E402


@pytest.fixture
def small(monkeypatch):
    """A model of each step, narrow and without the noise of lambda."""
    config = released_code.ModelConfig
    monkeypatch.setattr(released_code, "ModelConfig", lambda **changes: config(
        hidden_size=8, num_blocks=1, max_length=6, lambda_uncertainty=0.0, **changes))
    return lambda step: released_code.new_model(step, 20, seed=0).eval()


def made_up_data():
    draw = np.random.default_rng(0)
    lengths = draw.integers(4, 9, 40)
    return Dataset("made up", 20, draw.integers(1, 21, lengths.sum()), np.r_[0, lengths.cumsum()])


def moved_by_padding(model):
    histories = torch.tensor([[3, 7, 5]])
    short, padded = (model.predict(torch.nn.functional.pad(histories, (pads, 0)), num_steps=1) for pads in (0, 2))
    return not torch.allclose(short, padded, atol=1e-5)


def test_each_step_has_its_change_and_those_before(small):
    more = {step: small(step).config.dropout_everywhere for step in released_code.STEPS}
    assert list(more.values()) == [False, True, True, True]
    masked = {step: isinstance(small(step).approximator.blocks[0].attention, quirks.QueryMaskedAttention) for step in more}
    assert list(masked.values()) == [False, False, True, True]
    for step in more:
        torch.manual_seed(0)
        model = small(step)
        model(torch.tensor([[0, 0, 3, 7]]), torch.tensor([5]), torch.tensor([4]), torch.randn(1, 8)).sum().backward()
        assert (model.item_embedding.weight.grad[0].norm() > 0) == (step == "index 0")
        assert not moved_by_padding(model)      # the mask's: because every history is padded to max_length


def test_with_the_mask_a_history_that_is_not_padded_is_another(small):
    model = small("mask")
    model.__class__ = released_code.DiffuRec    # without the padding to max_length
    assert moved_by_padding(model)


@pytest.mark.parametrize("step", ["as the paper", "dropouts", "mask"])
def test_places_are_those_of_rank_targets_whatever_mode_the_model_is_left_in(small, step):
    model, data = small(step), made_up_data()
    places = quirks.test_ranks(model.train(), data)      # fails where it leaves dropout on
    assert (places == rank_targets(model, data, num_steps=1)).all()


def test_index_0_is_a_rival_where_it_is_an_item(small):
    model, data = small("index 0"), made_up_data()
    places, without = quirks.test_ranks(model, data), rank_targets(model, data, num_steps=1)
    assert set((places - without).ravel()) == {0, 1}


def test_the_epoch_kept_is_the_last_at_which_any_metric_rose():
    def entry(epoch, hr, ndcg):
        values = {m: hr if m.startswith("HR") else ndcg for m in quirks.METRICS}
        return {"epoch": epoch, "validation": values}

    log = [entry(2, 0.1, 0.3), {"epoch": 3, "validation": None}, entry(4, 0.2, 0.1), entry(6, 0.1, 0.2)]
    assert quirks.kept_by_any(log) == 4           # by NDCG alone it would be 2


def test_the_released_variance_is_larger_and_the_rest_stays(small):
    model, data = small("index 0"), made_up_data()
    before = [model.diffusion.posterior_coefficients(t) for t in range(1, 32)]
    assert [name for name, _ in released_code.evaluations(model, data, 0)][1] == "32 reverse steps"
    after = [model.diffusion.posterior_coefficients(t) for t in range(1, 32)]
    assert [b[:2] for b in before] == [a[:2] for a in after] and all(a[2] >= b[2] for a, b in zip(after, before))
    assert max(a[2] / b[2] for a, b in zip(after, before)) > 1.5
