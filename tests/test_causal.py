"""The causal form: one pass over a sequence trains every prefix of it as a pass over that prefix alone would."""

import pytest
import torch

from diffurec import DiffuRec, ModelConfig
from diffurec.fast import install

ITEMS, L = 30, 7
FORMS = [{}, {"cross_attention": True}]
SEQUENCE = torch.tensor([[3, 17, 5, 5, 29, 8, 11]])                              # an item may come twice
TARGETS = torch.tensor([[17, 5, 5, 29, 8, 11, 2]])


def new_model(attention="causal", num_blocks=3, **changes):
    """No dropout, and a lambda that lets the target be heard; float64, so that equal means equal."""
    torch.manual_seed(0)
    return DiffuRec(ITEMS, ModelConfig(
        hidden_size=16, num_blocks=num_blocks, num_heads=2, max_length=L, dropout=0.0, embedding_dropout=0.0,
        lambda_uncertainty=0.5, attention=attention, **changes)).double()


def draws(length=L, rows=1, seed=0):
    """A step, noise and a lambda for each position."""
    draw = torch.Generator().manual_seed(seed)
    return (torch.randint(32, (rows, length), generator=draw), torch.randn(rows, length, 16, generator=draw).double(),
            torch.randn(rows, length, 16, generator=draw).double())


def losses(model, histories, targets, t, noise, lambda_):
    model.draw_lambda = lambda shape, generator=None: lambda_
    return model(histories, targets, t, noise)


@pytest.mark.parametrize("changes", FORMS)
def test_an_output_is_that_of_a_pass_over_its_prefix_alone(changes):
    model, (t, noise, lambda_) = new_model(**changes), draws()
    whole = losses(model, SEQUENCE, TARGETS, t, noise, lambda_)
    alone = [losses(model, SEQUENCE[:, :k], TARGETS[:, :k], t[:, :k], noise[:, :k], lambda_[:, :k])[-1]
             for k in range(1, L + 1)]
    torch.testing.assert_close(whole, torch.stack(alone), rtol=0, atol=1e-12)
    assert whole.std() > 0.01


@pytest.mark.parametrize("changes", FORMS)
def test_with_one_target_for_all_positions_it_is_the_form_that_predicts(changes):
    """So training in one pass and prediction, which knows one x_s, compute the same function."""
    model, (t, noise, lambda_) = new_model(**changes), draws()
    embedded, mask = model.embed_history(SEQUENCE)
    x_t, step = noise[:, :1].expand(-1, L, -1), t[:, :1].expand(-1, L)
    every = model.predict_x_start(embedded, mask, x_t, step, lambda_)            # [1, L, d]
    for k in range(1, L + 1):
        one, its = model.embed_history(SEQUENCE[:, :k])
        last = model.predict_x_start(one, its, noise[:, 0], t[:, 0], lambda_[:, :k])
        torch.testing.assert_close(every[:, k - 1], last, rtol=0, atol=1e-12)


@pytest.mark.parametrize("changes", FORMS)
@pytest.mark.parametrize(("num_blocks", "same"), [(1, True), (3, False)])
def test_with_one_block_both_forms_agree_at_the_last_position(changes, num_blocks, same):
    """With more the earlier positions differ, and the last one reads them. But the cross-attention is a layer before it."""
    both = [new_model(form, num_blocks, **changes) for form in ("causal", "bidirectional")]
    _, noise, lambda_ = draws()
    found = [model.predict_x_start(*model.embed_history(SEQUENCE), noise[:, 0], torch.tensor([4]), lambda_) for model in both]
    assert both[0].state_dict().keys() == both[1].state_dict().keys()
    assert torch.allclose(*found, rtol=0, atol=1e-12) == (same and not changes)


@pytest.mark.parametrize("changes", FORMS)
def test_its_gradient_is_the_sum_over_the_prefixes(changes):
    at_once, one_by_one = new_model(**changes), new_model(**changes)
    t, noise, lambda_ = draws()
    losses(at_once, SEQUENCE, TARGETS, t, noise, lambda_).sum().backward()
    for k in range(1, L + 1):
        losses(one_by_one, SEQUENCE[:, :k], TARGETS[:, :k], t[:, :k], noise[:, :k], lambda_[:, :k])[-1].backward()
    for (name, one), other in zip(at_once.named_parameters(), one_by_one.parameters()):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-10, msg=lambda m: f"{name}: {m}")


@pytest.mark.parametrize("changes", FORMS)
@pytest.mark.parametrize("what", ["item", "target", "step", "noise", "lambda"])
def test_no_position_sees_what_is_later(changes, what):
    """Whatever changes at position 4, the losses before it stay to the last bit, and its own moves."""
    model, place = new_model(**changes), 4
    given = {"item": SEQUENCE.clone(), "target": TARGETS.clone(), **dict(zip(("step", "noise", "lambda"), draws()))}
    before = losses(model, *given.values())
    given[what] = given[what].clone()
    given[what][0, place] = {"item": 23, "target": 23, "step": 31 - given["step"][0, place]}.get(what, 1.5)
    after = losses(model, *given.values())
    assert torch.equal(before[:place], after[:place])
    assert (before[place] - after[place]).abs() > 1e-6


@pytest.mark.parametrize("changes", FORMS)
def test_padding_on_the_right_changes_nothing_and_costs_no_scores(changes):
    model, (t, noise, lambda_) = new_model(**changes), draws(length=L, rows=2)
    short = 3
    histories, targets = SEQUENCE.repeat(2, 1), TARGETS.repeat(2, 1)
    histories[1, short:] = targets[1, short:] = 0
    found = losses(model, histories, targets, t, noise, lambda_)
    assert found.shape == (L + short,) and found.isfinite().all()
    alone = losses(model, histories[1:, :short], targets[1:, :short], t[1:, :short], noise[1:, :short], lambda_[1:, :short])
    torch.testing.assert_close(found[L:], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("changes", FORMS)
def test_padding_on_the_left_does_not_change_a_prediction(changes):
    model, (_, noise, lambda_) = new_model(**changes), draws()
    padded, more = torch.nn.functional.pad(SEQUENCE, (3, 0)), torch.nn.functional.pad(lambda_, (0, 0, 3, 0))
    for form in (model, install(new_model(**changes))):
        found = [form.predict_x_start(*form.embed_history(h), noise[:, 0], torch.tensor([4]), l)
                 for h, l in ((SEQUENCE, lambda_), (padded, more))]
        torch.testing.assert_close(*found, rtol=0, atol=1e-12)


def test_a_bidirectional_model_takes_no_target_for_each_position(refused):
    model, (t, noise, _) = new_model("bidirectional"), draws()
    with refused("a target for each position and a model that is not causal", ValueError, "sees later items"):
        model(SEQUENCE, TARGETS, t, noise)


@pytest.mark.parametrize("changes", FORMS)
def test_the_fast_form_is_the_plain_one(changes):
    """More positions than steps, so that these come from a table; losses, gradients and what is predicted."""
    draw = torch.Generator().manual_seed(1)
    rows = 9
    histories, targets = (torch.randint(1, ITEMS + 1, (rows, L), generator=draw) for _ in range(2))
    ends = torch.randint(1, L + 1, (rows, 1), generator=draw)
    histories[torch.arange(L) >= ends] = 0
    targets[torch.arange(L) >= ends] = 0
    t, noise, lambda_ = draws(rows=rows)
    plain, fast = new_model(**changes), install(new_model(**changes))
    one, other = (losses(model, histories, targets, t, noise, lambda_) for model in (plain, fast))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    one.mean().backward()
    other.mean().backward()
    for (name, a), b in zip(plain.named_parameters(), fast.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-9, msg=lambda m: f"{name}: {m}")
    left = torch.stack([torch.nn.functional.pad(row[:end], (L - end, 0)) for row, end in zip(histories, ends[:, 0].tolist())])
    predicted = [model.predict(left, num_steps=3, generator=torch.Generator().manual_seed(2)) for model in (plain, fast)]
    torch.testing.assert_close(*predicted, rtol=0, atol=1e-9)
