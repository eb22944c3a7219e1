"""The model against a plain version of the published one; masks, padding, dropout, recommend, and the settings."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from diffurec import PRESETS, DiffuRec, ModelConfig, TrainConfig
from diffurec.fast import catalogue, install

NUM_ITEMS = 30
SMALL = ModelConfig(hidden_size=16, num_blocks=3, num_heads=4, max_length=8)
QUICK = dataclasses.replace(SMALL, num_diffusion_steps=4)          # where the number of steps does not matter
NO_LAMBDA = dataclasses.replace(QUICK, lambda_uncertainty=0.0)     # noise and steps have no say: nothing is random


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def make_model(config=SMALL, num_items=NUM_ITEMS, seed=0):
    """A model in evaluation mode whose every weight is random: biases of 0 and gains of 1 would hide mistakes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = DiffuRec(num_items, config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter is not model.item_embedding.weight:
                    parameter += 0.2 * torch.randn_like(parameter)
    return model


def some_histories(batch, length, seed=1):
    return torch.randint(1, NUM_ITEMS + 1, (batch, length), generator=seeded(seed))


def inputs_of(model, histories, seed=2, lambda_scale=1.0):
    """(x_t, t, lambda) for a batch; a lambda of order 1 lets errors in the step and the noise show."""
    batch, length, d = *histories.shape, model.config.hidden_size
    generator = seeded(seed)
    x_t = torch.randn(batch, d, generator=generator)
    t = torch.randint(model.config.num_diffusion_steps, (batch,), generator=generator)
    return x_t, t, lambda_scale * torch.randn(batch, length, d, generator=generator)


# The published model once more, written position by position and head by head, in float64.

class Plain:
    def __init__(self, model):
        self.weights = {name: value.double() for name, value in model.state_dict().items()}
        self.config = model.config

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def layer_norm(self, name, x):
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return centred / deviation * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    @staticmethod
    def gelu(x):
        return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))

    def step_embedding(self, step):
        """Cosines, then sines, of step * 1000 / T at frequencies 10000^(-i / (d/2)); Linear - SiLU - Linear. [d]."""
        half = self.config.hidden_size // 2
        angles = [step * 1000 / self.config.num_diffusion_steps * 10_000 ** (-i / half) for i in range(half)]
        x = torch.tensor([math.cos(a) for a in angles] + [math.sin(a) for a in angles], dtype=torch.float64)
        x = self.linear("step_embedding.mlp.0", x)
        return self.linear("step_embedding.mlp.2", x / (1 + torch.exp(-x)))

    def attention(self, name, x):
        """[n, d] -> [n, d], every position asking every position, one head after the other."""
        d, heads = self.config.hidden_size, self.config.num_heads
        width = d // heads
        query = self.linear(f"{name}.query", x)
        both = self.linear(f"{name}.key_value", x)
        key, value = both[:, :d], both[:, d:]
        answers = []
        for position in range(len(x)):
            parts = []
            for head in range(heads):
                own = slice(head * width, (head + 1) * width)
                scores = torch.stack([(query[position, own] * k).sum() / math.sqrt(width) for k in key[:, own]])
                shares = torch.exp(scores) / torch.exp(scores).sum()
                parts.append((shares.unsqueeze(1) * value[:, own]).sum(0))
            answers.append(torch.cat(parts))
        return self.linear(f"{name}.out", torch.stack(answers))

    def x_start(self, history, x_t, step, lambda_):
        """history: [n] ids without padding; x_t: [d]; lambda_: [n, d] -> [d]."""
        e = self.layer_norm("history_norm", self.weights["item_embedding.weight"][history])
        x = e + lambda_.double() * (x_t.double() + self.step_embedding(step))
        for block in range(self.config.num_blocks):
            name = f"approximator.blocks.{block}"
            x = x + self.attention(f"{name}.attention", self.layer_norm(f"{name}.attention_norm", x))
            hidden = self.gelu(self.linear(f"{name}.feed_forward.0", self.layer_norm(f"{name}.feed_forward_norm", x)))
            x = x + self.linear(f"{name}.feed_forward.2", hidden)
        return self.layer_norm("approximator.norm", x[-1])

    def loss(self, history, target, step, noise, lambda_):
        """-log of the softmax over the items 1..I of x_0_hat . e_j, at the target; step counts from 0."""
        betas = torch.linspace(0.0001 * 1000 / 32 + 0.01, 0.02 * 1000 / 32 + 0.01, 32, dtype=torch.float64)
        product = torch.prod(1 - betas[:step + 1])
        items = self.weights["item_embedding.weight"]
        x_s = product.sqrt() * items[target] + (1 - product).sqrt() * noise.double()
        x_start = self.x_start(history, x_s, step, lambda_)
        scores = [float(x_start @ item) for item in items[1:]]
        return math.log(sum(math.exp(score) for score in scores)) - scores[target - 1]


@pytest.mark.parametrize("length", [1, 2, 5, 8])
@pytest.mark.parametrize("lambda_scale", [0.001, 1.0])
def test_the_approximator_is_the_published_one(length, lambda_scale):
    model = make_model()
    histories = some_histories(4, length)
    x_t, t, lambda_ = inputs_of(model, histories, lambda_scale=lambda_scale)
    embedded, key_mask = model.embed_history(histories)
    found = model.predict_x_start(embedded, key_mask, x_t, t, lambda_)
    plain = Plain(model)
    expected = torch.stack([plain.x_start(h, x, int(s), l) for h, x, s, l in zip(histories, x_t, t, lambda_)])
    # float32 against float64. The step's angle, up to 970, is known to 3e-5 in float32; lambda of order 1 shows it.
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 if lambda_scale < 1 else 1e-4)


@pytest.mark.parametrize("num_blocks, num_heads", [(1, 1), (1, 2), (2, 8)])
def test_the_approximator_is_the_published_one_for_other_numbers_of_blocks_and_heads(num_blocks, num_heads):
    model = make_model(dataclasses.replace(SMALL, num_blocks=num_blocks, num_heads=num_heads))
    histories = some_histories(2, 4)
    x_t, t, lambda_ = inputs_of(model, histories, lambda_scale=0.001)
    embedded, key_mask = model.embed_history(histories)
    plain = Plain(model)
    expected = torch.stack([plain.x_start(h, x, int(s), l) for h, x, s, l in zip(histories, x_t, t, lambda_)])
    found = model.predict_x_start(embedded, key_mask, x_t, t, lambda_)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 5, 32, 1000])
def test_the_step_embedding_is_the_published_one(num_steps):
    model = make_model(dataclasses.replace(SMALL, num_diffusion_steps=num_steps))
    t = torch.arange(0, num_steps, max(1, num_steps // 20))
    expected = torch.stack([Plain(model).step_embedding(int(step)) for step in t])
    torch.testing.assert_close(model.step_embedding(t).double(), expected, rtol=0, atol=1e-4)


def test_the_loss_is_the_plain_cross_entropy_of_the_published_model():
    model = make_model()
    histories, targets = some_histories(5, 4), torch.tensor([1, 30, 7, 12, 7])
    noise, t = torch.randn(5, 16, generator=seeded(3)), torch.tensor([0, 31, 15, 3, 20])
    lambda_ = model.draw_lambda((5, 4, 16), seeded(4))
    found = model(histories, targets, t, noise, seeded(4))
    plain = Plain(model)
    expected = [plain.loss(*row) for row in zip(histories, targets.tolist(), t.tolist(), noise, lambda_)]
    assert found.shape == (5,)
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=2e-5)


def test_the_loss_uses_the_noised_target(monkeypatch):
    """With a lambda of order 1, other noise, steps and targets change x_0_hat, and the loss follows the plain one."""
    model = make_model()
    histories, targets = some_histories(3, 2), torch.tensor([4, 5, 6])
    noise, t = torch.randn(3, 16, generator=seeded(3)), torch.tensor([2, 10, 25])
    lambda_ = torch.randn(3, 2, 16, generator=seeded(4))
    monkeypatch.setattr(model, "draw_lambda", lambda shape, generator=None: lambda_)
    plain = Plain(model)
    expected = [plain.loss(*row) for row in zip(histories, targets.tolist(), t.tolist(), noise, lambda_)]
    torch.testing.assert_close(
        model(histories, targets, t, noise).double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=2e-4)


def test_the_probabilities_of_all_items_add_up_to_1_without_the_padding():
    model = make_model(NO_LAMBDA)
    histories = some_histories(1, 5).expand(NUM_ITEMS, -1)
    t, noise = torch.zeros(NUM_ITEMS, dtype=torch.long), torch.zeros(NUM_ITEMS, 16)
    losses = model(histories, torch.arange(1, NUM_ITEMS + 1), t, noise)
    assert torch.exp(-losses).sum().item() == pytest.approx(1, abs=1e-5)


def test_lambda_has_mean_and_standard_deviation_delta():
    # 400,000 draws. Bound: 5 standard errors, 0.8 % of delta in the mean and 0.56 % in the deviation; seed fixed.
    model, n = make_model(dataclasses.replace(SMALL, lambda_uncertainty=0.25)), 400_000
    draws = model.draw_lambda((n // 16, 16), seeded(1)).double()
    assert abs(draws.mean().item() - 0.25) < 5 * 0.25 / math.sqrt(n)
    assert abs(draws.std().item() / 0.25 - 1) < 5 / math.sqrt(2 * n)


# Masks, order, padding

def pad(histories, width):
    return torch.nn.functional.pad(histories, (width, 0))


@pytest.mark.parametrize("width", [1, 2, 5, 40])
def test_left_padding_does_not_change_x_0_hat(width):
    model = make_model()
    histories = some_histories(4, 3)
    x_t, t, lambda_ = inputs_of(model, histories)
    padding = 10 * torch.randn(4, width, 16, generator=seeded(9))           # whatever is drawn at padded positions
    embedded, key_mask = model.embed_history(histories)
    alone = model.predict_x_start(embedded, key_mask, x_t, t, lambda_)
    embedded, key_mask = model.embed_history(pad(histories, width))
    padded = model.predict_x_start(embedded, key_mask, x_t, t, torch.cat([padding, lambda_], dim=1))
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("width", [1, 7])
def test_left_padding_does_not_change_the_loss(width, monkeypatch):
    model = make_model()
    histories, targets, t = some_histories(4, 3), torch.tensor([1, 2, 3, 4]), torch.tensor([0, 5, 20, 31])
    noise, lambda_ = torch.randn(4, 16, generator=seeded(3)), torch.randn(4, 10, 16, generator=seeded(4))
    monkeypatch.setattr(model, "draw_lambda", lambda shape, generator=None: lambda_[:, -shape[1]:])
    alone, padded = model(histories, targets, t, noise), model(pad(histories, width), targets, t, noise)
    torch.testing.assert_close(padded, alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("width", [1, 7])
def test_left_padding_does_not_change_the_ranking(width, monkeypatch):
    """Through all 32 steps, with lambda of order 1 and the same draws at the real positions."""
    model = make_model()
    histories, lambda_ = some_histories(4, 3), torch.randn(4, 10, 16, generator=seeded(4))
    monkeypatch.setattr(model, "draw_lambda", lambda shape, generator=None: lambda_[:, -shape[1]:])
    alone = model.predict(histories, generator=seeded(5))
    padded = model.predict(pad(histories, width), generator=seeded(5))
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-5)
    order = [model.score_items(x, 1, NUM_ITEMS + 1).argsort(descending=True) for x in (alone, padded)]
    assert torch.equal(*order)


def test_a_short_history_beside_a_long_one_is_ranked_as_if_alone():
    model = make_model(NO_LAMBDA)
    histories = [[3], [1, 2, 3, 4, 5, 6, 7, 8], [9, 4]]
    items, scores = model.recommend(histories, k=5)
    for row, history in enumerate(histories):
        alone, alone_scores = model.recommend([history], k=5)
        assert torch.equal(items[row], alone[0])
        torch.testing.assert_close(scores[row], alone_scores[0], rtol=0, atol=1e-5)


def test_the_order_of_all_but_the_last_item_does_not_matter():
    model = make_model()
    histories = some_histories(4, 6)
    x_t, t, lambda_ = inputs_of(model, histories)
    order = torch.tensor([3, 0, 4, 2, 1, 5])
    embedded, key_mask = model.embed_history(histories)
    before = model.predict_x_start(embedded, key_mask, x_t, t, lambda_)
    after = model.predict_x_start(embedded[:, order], key_mask, x_t, t, lambda_[:, order])
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


def test_the_order_of_all_but_the_last_item_does_not_matter_to_a_recommendation():
    model = make_model(NO_LAMBDA)
    items, _ = model.recommend([[1, 2, 3, 4, 5], [4, 2, 1, 3, 5]], k=NUM_ITEMS)
    assert torch.equal(items[0], items[1])


def test_another_last_item_changes_x_0_hat():
    """The same items, another one last: by more than 100 times the tolerance of the tests for equality."""
    model = make_model(NO_LAMBDA)
    one, other = model.predict(torch.tensor([[1, 2, 3, 4, 5], [1, 2, 5, 4, 3]]), generator=seeded(0))
    assert (one - other).abs().max() > 1e-3


def test_every_item_of_the_history_counts():
    model = make_model(NO_LAMBDA)
    history = torch.tensor([1, 2, 3, 4, 5])
    before = model.predict(history.unsqueeze(0), generator=seeded(0))
    for position in range(5):
        changed = history.clone()
        changed[position] = 9
        after = model.predict(changed.unsqueeze(0), generator=seeded(0))
        assert (before - after).abs().max() > 1e-3, position


@pytest.fixture
def padded_batch():
    histories = torch.tensor([[0, 0, 0, 5], [0, 1, 2, 3], [4, 5, 6, 7]])
    return histories, torch.tensor([6, 7, 8]), torch.tensor([0, 10, 31]), torch.randn(3, 16, generator=seeded(3))


def test_the_padding_gets_no_gradient(padded_batch):
    model = make_model()
    model(*padded_batch, seeded(1)).mean().backward()
    gradient = model.item_embedding.weight.grad
    assert not gradient[0].any()
    assert (gradient[1:] != 0).any(dim=1).all()                     # every item is in the softmax


def test_the_padding_gets_no_gradient_even_where_it_is_read(padded_batch):
    """The mask keeps the padding out of the loss; the embedding itself refuses its gradient as well."""
    model = make_model()
    embedded, _ = model.embed_history(padded_batch[0])
    embedded.sum().backward()
    gradient = model.item_embedding.weight.grad
    assert not gradient[0].any() and gradient[1].any()


def test_the_gradients_are_finite_with_padding(padded_batch):
    model = make_model()
    model(*padded_batch, seeded(1)).mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_the_paddings_embedding_stays_zero_in_training_with_weight_decay(padded_batch, optimizer):
    model = make_model().train()
    steps = optimizer(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(5):
        steps.zero_grad()
        model(*padded_batch, seeded(1)).mean().backward()
        steps.step()
    assert not model.item_embedding.weight[0].any()


@pytest.mark.parametrize("embedding_std", [0.02, 0.1, 1.0])
def test_embedding_std_is_the_standard_deviation_of_the_items(embedding_std):
    # 32,000 numbers. Bound: 5 standard errors, 2 % of the deviation and 2.8 % of it in the mean; the seed is fixed.
    torch.manual_seed(0)
    weight = DiffuRec(2000, dataclasses.replace(SMALL, embedding_std=embedding_std)).item_embedding.weight
    assert abs(weight[1:].std().item() / embedding_std - 1) < 5 / math.sqrt(2 * 32_000)
    assert abs(weight[1:].mean().item()) < 5 * embedding_std / math.sqrt(32_000)
    assert not weight[0].any()


# Dropout

def two_losses(model, padded_batch):
    torch.manual_seed(0)
    return [model(*padded_batch, seeded(1)) for _ in range(2)]


@pytest.mark.parametrize("dropout, embedding_dropout", [(0.5, 0.0), (0.0, 0.5)])
def test_each_dropout_is_active_in_training_only(padded_batch, dropout, embedding_dropout):
    model = make_model(dataclasses.replace(SMALL, dropout=dropout, embedding_dropout=embedding_dropout))
    assert torch.equal(*two_losses(model.eval(), padded_batch))
    assert not torch.equal(*two_losses(model.train(), padded_batch))


def test_without_dropout_training_and_evaluation_are_the_same(padded_batch):
    model = make_model(dataclasses.replace(SMALL, dropout=0.0, embedding_dropout=0.0))
    torch.testing.assert_close(two_losses(model.train(), padded_batch)[0], two_losses(model.eval(), padded_batch)[0])


def test_the_widened_weights_are_drawn_by_xavier():
    """Deviation sqrt(2 / (inputs + outputs)); PyTorch's own is 9 % less or more. 4 %: 3.6 standard errors; seed 0."""
    torch.manual_seed(0)
    for block in DiffuRec(NUM_ITEMS, dataclasses.replace(SMALL, hidden_size=64)).approximator.blocks:
        for linear in (block.attention.out, block.feed_forward[0], block.feed_forward[2]):
            assert linear.weight.std().item() == pytest.approx(math.sqrt(2 / sum(linear.weight.shape)), rel=0.04)


def test_predictions_carry_no_gradients():
    model = make_model(QUICK)
    assert not model.predict(torch.ones(2, 3, dtype=torch.long), num_steps=1).requires_grad


def dropped_in_a_pass(config):
    """The probabilities of the dropouts that a prediction passes, in order."""
    model, calls = make_model(config), []
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(lambda module, *_: calls.append(module.p))
    model.predict(some_histories(1, 3), num_steps=1, generator=seeded(0))
    return [p for p in calls if p]


def test_dropout_stands_after_attention_feed_forward_and_the_last_block():
    """Five sites in a model of two blocks, all at `dropout`, and one on the history at `embedding_dropout`."""
    assert dropped_in_a_pass(dataclasses.replace(SMALL, num_blocks=2)) == [0.3, 0.1, 0.1, 0.1, 0.1, 0.1]


def test_dropout_everywhere_stands_where_the_released_code_has_it():
    """22 in a pass of four blocks, where there are 10 without."""
    config = dataclasses.replace(SMALL, num_blocks=4)
    assert len(dropped_in_a_pass(config)) == 10
    everywhere = dropped_in_a_pass(dataclasses.replace(config, dropout_everywhere=True))
    assert everywhere == [0.3] + 21 * [0.1]


@pytest.mark.parametrize("place", ["attention.dropout", "feed_forward.1.1", "last_dropout"])
@pytest.mark.parametrize("fast", [False, True])
def test_each_of_the_released_dropouts_changes_a_training_pass_and_no_prediction(padded_batch, place, fast):
    model = make_model(dataclasses.replace(SMALL, dropout=0.0, embedding_dropout=0.0, dropout_everywhere=True))
    model = install(model) if fast else model
    for block in model.approximator.blocks:
        block.get_submodule(place).p = 0.5
    assert torch.equal(*two_losses(model.eval(), padded_batch))
    assert not torch.equal(*two_losses(model.train(), padded_batch))


def test_the_historys_dropout_comes_before_its_layernorm():
    """Then all d elements of a position are 0 in the mean and not just the kept ones; after it, dropped ones would be 0."""
    torch.manual_seed(0)
    model = DiffuRec(NUM_ITEMS, dataclasses.replace(SMALL, embedding_dropout=0.5))
    embedded, _ = model.embed_history(some_histories(4, 6))
    torch.testing.assert_close(embedded.mean(-1), torch.zeros(4, 6), rtol=0, atol=1e-6)
    assert (embedded != 0).all()


# recommend

@pytest.mark.parametrize("k", [1, 5, NUM_ITEMS])
def test_recommend_is_the_brute_force_top_k(k):
    model, histories = make_model(QUICK), some_histories(4, 5)
    items, scores = model.recommend(histories, k=k, generator=seeded(7))
    prediction, weight = model.predict(histories, generator=seeded(7)), model.item_embedding.weight.detach()
    assert items.shape == scores.shape == (4, k) and items.dtype == torch.int64
    for row in range(4):
        every = [(float(prediction[row] @ weight[j]), j) for j in range(1, NUM_ITEMS + 1)]
        best = sorted(every, reverse=True)[:k]
        assert items[row].tolist() == [j for _, j in best]
        assert scores[row].tolist() == pytest.approx([score for score, _ in best], abs=1e-5)


def test_scores_are_sorted_best_first():
    _, scores = make_model(QUICK).recommend(some_histories(4, 5), k=20, generator=seeded(7))
    assert (scores.diff(dim=1) <= 0).all()


def test_the_padding_is_never_recommended():
    """Asked for the whole catalogue, the answer is every item once and not 0, even where 0 would score best."""
    model = make_model(QUICK)
    items, scores = model.recommend(torch.tensor([[0, 0, 5], [1, 2, 3]]), k=NUM_ITEMS, generator=seeded(7))
    assert (scores[:, -1] < 0).all()                                # the padding's zero vector would score 0
    for row in items:
        assert sorted(row.tolist()) == list(range(1, NUM_ITEMS + 1))


def test_items_of_the_history_are_not_removed():
    items, _ = make_model(QUICK).recommend([list(range(1, 9))], k=NUM_ITEMS, generator=seeded(7))
    assert set(range(1, 9)) <= set(items[0].tolist())


@pytest.mark.parametrize("chunk", [1, 3, 7, NUM_ITEMS])
@pytest.mark.parametrize("ensemble", [None, 2])
def test_without_the_items_of_the_history_the_others_stay_in_their_order(monkeypatch, chunk, ensemble):
    """Also without those that the model does not read: it reads the latest 8."""
    model, histories = make_model(QUICK), [[9, 9, 2], [*range(20, 0, -2), *range(1, 16, 2)], [4]]
    every, scores = model.recommend(histories, k=NUM_ITEMS, generator=seeded(7), ensemble=ensemble)
    monkeypatch.setattr(catalogue, "ITEM_CHUNK", chunk)
    items, found = model.recommend(histories, k=12, generator=seeded(7), ensemble=ensemble, filter_seen=True)
    for row, history in enumerate(histories):
        kept = [j for j, item in enumerate(every[row].tolist()) if item not in history][:12]
        assert items[row].tolist() == every[row, kept].tolist()
        torch.testing.assert_close(found[row], scores[row, kept], rtol=0, atol=1e-5)


def test_more_items_than_a_history_leaves_cannot_be_recommended(refused):
    model, histories = make_model(QUICK), [[1], [*range(1, NUM_ITEMS - 2), 1, 1]]         # 27 of 30, two of them again
    items, _ = model.recommend(histories, generator=seeded(7), filter_seen=True)
    assert items.shape == (2, 3) and set(items[1].tolist()) == {28, 29, 30}
    with refused("filter_seen, a k larger than a history leaves items", ValueError, match=(
            "^History 1 holds all but 3 of the 30 items, and 4 that it does not hold cannot be recommended; ask for fewer")):
        model.recommend(histories, k=4, filter_seen=True)
    with pytest.raises(ValueError, match="^History 0 holds all but 0 of the 30 items, and 1 that it does not hold"):
        model.recommend([range(1, NUM_ITEMS + 1)], filter_seen=True)
    assert model.recommend([[1]], k=NUM_ITEMS - 1, filter_seen=True)[0].shape == (1, NUM_ITEMS - 1)


@pytest.mark.parametrize("chunk", [1, 3, 7, 29, 30, 31])
@pytest.mark.parametrize("k", [1, 5, NUM_ITEMS])
def test_scoring_the_catalogue_in_chunks_changes_nothing(monkeypatch, chunk, k):
    model, histories = make_model(QUICK), some_histories(4, 5)
    items, scores = model.recommend(histories, k=k, generator=seeded(7))
    monkeypatch.setattr(catalogue, "ITEM_CHUNK", chunk)
    in_chunks, scores_in_chunks = model.recommend(histories, k=k, generator=seeded(7))
    assert torch.equal(in_chunks, items)
    torch.testing.assert_close(scores_in_chunks, scores, rtol=0, atol=1e-5)


def test_the_chunks_are_as_large_as_they_say(monkeypatch):
    model, spans = make_model(QUICK), []
    score_items = model.score_items
    monkeypatch.setattr(catalogue, "ITEM_CHUNK", 7)
    monkeypatch.setattr(model, "score_items", lambda x, *span: spans.append(span) or score_items(x, *span))
    model.recommend([[1]], k=5, generator=seeded(7))
    assert spans == [(1, 8), (8, 15), (15, 22), (22, 29), (29, 31)]


@pytest.mark.parametrize("form", [
    lambda rows: [row.tolist() for row in rows],
    lambda rows: [tuple(row.tolist()) for row in rows],
    lambda rows: list(rows),
    lambda rows: rows.numpy(),
    lambda rows: rows.int(),
    lambda rows: pad(rows, 3),
], ids=["lists", "tuples", "tensors", "array", "int32", "padded"])
def test_a_history_may_come_in_any_form(form):
    model, rows = make_model(QUICK), some_histories(3, 4)
    expected, expected_scores = model.recommend(rows, k=5, generator=seeded(7))
    items, scores = model.recommend(form(rows), k=5, generator=seeded(7))
    assert torch.equal(items, expected) and torch.equal(scores, expected_scores)


def test_lists_of_different_lengths_agree_with_the_left_padded_tensor():
    model = make_model(QUICK)
    lists, tensor = [[5], [1, 2, 3], [7, 8]], torch.tensor([[0, 0, 5], [1, 2, 3], [0, 7, 8]])
    for one, other in zip(model.recommend(lists, generator=seeded(7)), model.recommend(tensor, generator=seeded(7))):
        assert torch.equal(one, other)


def test_the_latest_items_of_a_long_history_count():
    model = make_model(QUICK)
    long = list(range(1, 31))
    items, scores = model.recommend([long], k=5, generator=seeded(7))
    latest, latest_scores = model.recommend([long[-8:]], k=5, generator=seeded(7))
    assert torch.equal(items, latest) and torch.equal(scores, latest_scores)
    _, oldest_scores = model.recommend([long[:8]], k=5, generator=seeded(7))
    assert not torch.allclose(scores, oldest_scores, rtol=0, atol=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_recommend_runs_in_evaluation_mode_and_leaves_the_mode_as_it_was(training):
    model = make_model(QUICK)
    expected = model.recommend([[1, 2]], k=5, generator=seeded(7))[1]
    model.train(training)
    scores = model.recommend([[1, 2]], k=5, generator=seeded(7))[1]
    assert torch.equal(scores, expected)
    assert all(module.training == training for module in model.modules())


def test_recommend_leaves_the_mode_as_it_was_when_it_fails():
    model = make_model(QUICK).train()
    with pytest.raises(ValueError):
        model.recommend([[1, 2]], num_steps=0)
    assert model.training


def test_recommend_needs_no_gradients():
    items, scores = make_model(QUICK).recommend([[1, 2]], k=5)
    assert not scores.requires_grad


def test_recommend_does_not_change_its_histories():
    histories = pad(some_histories(2, 12), 2)
    before = histories.clone()
    make_model(QUICK).recommend(histories, k=3, generator=seeded(1))
    assert torch.equal(histories, before)


def test_the_generator_decides_the_recommendation():
    model = make_model(QUICK)
    run = lambda seed: model.recommend(some_histories(3, 4), k=5, generator=seeded(seed))[1]  # noqa: E731
    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_with_a_generator_the_global_random_numbers_stay_untouched():
    model, before = make_model(QUICK), torch.get_rng_state()
    model.recommend([[1, 2]], k=5, generator=seeded(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_seed_repeats_a_model():
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        weights.append(DiffuRec(NUM_ITEMS, SMALL).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("num_steps, calls", [(1, 1), (5, 5), (32, 32), (None, 32)])
def test_num_steps_is_the_number_of_calls_of_the_approximator(num_steps, calls):
    model, count = make_model(SMALL), []
    model.approximator.register_forward_hook(lambda *_: count.append(1))
    model.recommend([[1, 2]], k=5, num_steps=num_steps)
    assert len(count) == calls


def test_lambda_is_drawn_anew_at_every_step(monkeypatch):
    model, draws = make_model(QUICK), []
    draw_lambda = model.draw_lambda
    monkeypatch.setattr(model, "draw_lambda", lambda *a: draws.append(draw_lambda(*a)) or draws[-1])
    model.predict(some_histories(1, 3), num_steps=4, generator=seeded(1))
    assert len(draws) == 4 and len({float(d[0, 0, 0]) for d in draws}) == 4


def fails(call):
    """The message of the ValueError that call() raises: one clear sentence, whole and without a line break."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message and ". " not in message, message
    return message


@pytest.mark.parametrize("histories, named", [
    ([[1, 31]], ["History 0", "1..30", "largest 31"]),
    ([[1, 2], [3, 31]], ["History 1", "largest 31"]),
    ([[4, -1]], ["History 0", "smallest -1"]),
    ([[-1, 4]], ["History 0", "smallest -1"]),
    (torch.tensor([[1, 2], [3, 31]]), ["History 1", "largest 31"]),
    ([[1, 2], [1.0, 2.5]], ["History 1", "whole item ids"]),
    (torch.ones(2, 3), ["History 0", "whole item ids"]),
    ([[1], [float("nan")]], ["History 1", "whole item ids"]),
    ([[[1, 2]]], ["History 0", "sequence"]),
    ([1, 2, 3], ["History 0", "sequence"]),
    (torch.tensor([1, 2, 3]), ["History 0", "sequence"]),
    ([], ["histories is empty"]),
    (torch.zeros(0, 4, dtype=torch.long), ["histories is empty"]),
    ([[1], []], ["History 1", "no item"]),
    ([[0, 0]], ["History 0", "no item"]),
    (torch.tensor([[1, 2], [0, 0]]), ["History 1", "no item"]),
])
def test_a_bad_history_is_refused_in_a_sentence_that_names_it(told, histories, named):
    message = fails(lambda: make_model(QUICK).recommend(histories, k=3))
    told(" ".join(f"the histories {histories}".split()), message)
    assert all(part in message for part in named), message


@pytest.mark.parametrize("history", [[5, 0, 7], [0, 5], [5, 0], (3, 0), np.array([0, 1])], ids=repr)
def test_a_0_within_a_list_is_refused_and_not_dropped(told, history):
    message = fails(lambda: make_model(QUICK).recommend([[1], history], k=3))
    assert "History 1 holds the id 0" in message and "leave it out" in message
    told(f"the history {history}", message)


@pytest.mark.parametrize("form", [torch.tensor, np.array])
def test_a_0_is_padding_on_the_left_of_a_padded_row_alone(form):
    model = make_model(QUICK)
    found = model.recommend(form([[0, 5, 7]]), k=3, generator=seeded(1))
    for one, other in zip(found, model.recommend([[5, 7]], k=3, generator=seeded(1))):
        assert torch.equal(one, other)
    for row in ([5, 0, 7], [5, 7, 0]):
        assert "History 0 holds the id 0" in fails(lambda: model.recommend(form([row]), k=3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("row", [1, NUM_ITEMS])
def test_scores_that_are_not_finite_are_no_recommendation(refused, bad, row):
    model = make_model(QUICK)
    with torch.no_grad():
        model.item_embedding.weight[row] = bad
    with refused("a model whose scores are not finite", FloatingPointError, "scores that are not finite"):
        model.recommend([[2, 3]], k=1)


def test_the_default_k_fits_a_small_catalogue():
    assert make_model(QUICK).recommend([[1]])[0].shape == (1, 20)
    small = DiffuRec(10, QUICK)
    assert small.recommend([[1]])[0].shape == (1, 10)


def test_numpys_whole_numbers_are_whole_numbers():
    model, one = make_model(QUICK), np.int64
    items, _ = model.recommend([[1]], k=one(3), num_steps=np.uint8(2), generator=seeded(1), ensemble=np.int32(2))
    expected, _ = model.recommend([[1]], k=3, num_steps=2, generator=seeded(1), ensemble=2)
    assert torch.equal(items, expected)
    assert DiffuRec(one(10), QUICK).num_items == 10


@pytest.mark.parametrize("k", [0, -1, NUM_ITEMS + 1, float("nan")])
def test_a_bad_k_is_refused_in_a_sentence_that_names_it(told, k):
    message = fails(lambda: make_model(QUICK).recommend([[1]], k=k))
    told(f"k = {k} of 30 items", message)
    assert f"is {k}." in message and "between 1 and 30" in message


@pytest.mark.parametrize("num_steps", [0, -1, 5])
def test_a_bad_number_of_steps_is_refused_in_a_sentence_that_names_it(told, num_steps):
    message = fails(lambda: make_model(QUICK).recommend([[1]], k=3, num_steps=num_steps))
    told(f"num_steps = {num_steps!r} of 4 reverse steps", message)
    assert f"is {num_steps}." in message and "1 and 4" in message


@pytest.mark.parametrize("num_items", [0, -1])
def test_a_catalogue_without_items_is_refused(told, num_items):
    message = fails(lambda: DiffuRec(num_items, SMALL))
    told(f"a model of {num_items} items", message)
    assert f"is {num_items}." in message


@pytest.mark.parametrize("histories, options", [
    ([[1]], {"k": 2.5}), ([[1]], {"k": "3"}), ([[1]], {"k": True}),
    ([[1]], {"num_steps": 2.5}), ([[1]], {"num_steps": "2"}), ([[1]], {"num_steps": True}),
    ([[True, False]], {}), ([["a", "b"]], {}), (["abc"], {}), ([None], {}), ([[1, None]], {}), ([[1, [2]]], {}),
    ([[10 ** 30]], {}),
], ids=repr)
def test_what_is_no_whole_number_is_refused_in_one_sentence(told, histories, options):
    message = fails(lambda: make_model(QUICK).recommend(histories, **{"k": 3, **options}))
    limits = {"k": "of 30 items", "num_steps": "of 4 reverse steps"}
    told(next((f"{name} = {value!r} {limits[name]}" for name, value in options.items()), f"the histories {histories}"), message)


@pytest.mark.parametrize("kind", [np.uint16, np.uint32, np.uint64])
def test_unsigned_ids_are_whole_numbers_too(kind):
    items, _ = make_model(QUICK).recommend([np.array([1, 2], dtype=kind)], k=3, generator=seeded(1))
    assert torch.equal(items, make_model(QUICK).recommend([[1, 2]], k=3, generator=seeded(1))[0])


# Settings

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("kind, settings", [
    *((ModelConfig, {name: value})
      for name in ("hidden_size", "num_blocks", "num_heads", "max_length", "num_diffusion_steps")
      for value in (0, -1, 2.0, "4", None, NAN)),
    *((ModelConfig, {name: value}) for name in ("dropout", "embedding_dropout") for value in (-0.1, 1, 1.0, 1.5, NAN)),
    *((ModelConfig, {"embedding_std": value}) for value in (0, -0.1, NAN)),
    *((ModelConfig, {"lambda_uncertainty": value}) for value in (-0.001, NAN)),
    *((ModelConfig, {"noise_schedule": value}) for value in ("quadratic", "", None, 3)),
    *((ModelConfig, {"cross_attention": value}) for value in (0, 1, "True", None, NAN)),
    *((ModelConfig, {"offset_noise": value}) for value in ("Constant", "", None, True, 0.1)),
    *((ModelConfig, {"offset_strength": value}) for value in (-0.1, NAN)),
    *((ModelConfig, {"activation": value}) for value in ("ReLU", "silu", "", None, 3)),
    *((TrainConfig, {name: value})
      for name in ("epochs", "batch_size", "lr_step", "eval_every", "patience")
      for value in (0, -1, 2.0, "4", None, NAN)),
    *((TrainConfig, {"seed": value}) for value in (-1, 1.5, "0", None, NAN)),
    *((TrainConfig, {name: value}) for name in ("learning_rate", "lr_gamma", "grad_clip") for value in (0, -0.1, NAN)),
    *((TrainConfig, {"weight_decay": value}) for value in (-0.1, NAN)),
    *((TrainConfig, {"eval_num_steps": value}) for value in (0, -1, NAN)),
    *((TrainConfig, {"precision": value}) for value in ("float16", "bf16", "", None, 16)),
])
def test_a_setting_out_of_range_is_refused_in_a_sentence_that_names_it(told, kind, settings):
    message = fails(lambda: kind(**settings))
    (name, value), = settings.items()
    told(f"{kind.__name__}({name}=…)", message)
    assert message.startswith(f"{name} must be ") and message.endswith(f"but it is {value!r}."), message


@pytest.mark.parametrize("kind, settings", [
    *((ModelConfig, {name: True}) for name in ("num_blocks", "num_heads", "max_length", "num_diffusion_steps")),
    *((ModelConfig, {name: value})
      for name in ("dropout", "embedding_dropout", "embedding_std", "lambda_uncertainty", "offset_strength")
      for value in ("0.1", None)),
    *((ModelConfig, {name: False}) for name in ("dropout", "embedding_dropout", "lambda_uncertainty", "offset_strength")),
    (ModelConfig, {"embedding_std": True}), (ModelConfig, {"embedding_std": INF}),
    (ModelConfig, {"lambda_uncertainty": INF}), (ModelConfig, {"offset_strength": INF}),
    (ModelConfig, {"noise_schedule": ["linear"]}), (ModelConfig, {"offset_noise": ["constant"]}),
    (ModelConfig, {"activation": ["relu"]}), (TrainConfig, {"precision": ["bfloat16"]}),
    *((TrainConfig, {name: True}) for name in ("epochs", "batch_size", "lr_step", "eval_every", "patience", "seed")),
    *((TrainConfig, {name: value}) for name in ("learning_rate", "weight_decay", "lr_gamma")
      for value in ("0.001", None, True, INF)),
    *((TrainConfig, {"grad_clip": value}) for value in ("1", True)),
    *((TrainConfig, {"eval_num_steps": value}) for value in ("3", 2.5, True)),
], ids=lambda part: part.__name__ if isinstance(part, type) else repr(part))
def test_strings_bools_and_infinities_are_no_numbers(told, kind, settings):
    name, = settings
    told(f"{kind.__name__}({name}=…)", fails(lambda: kind(**settings)))


def test_a_width_that_the_heads_do_not_divide_is_refused(told):
    message = fails(lambda: ModelConfig(hidden_size=10, num_heads=4))
    told("ModelConfig(hidden_size=10, num_heads=4)", message)
    assert "10 is not divisible by 4" in message


def test_an_odd_width_is_refused(told):
    message = fails(lambda: ModelConfig(hidden_size=9, num_heads=3))
    told("ModelConfig(hidden_size=9, num_heads=3)", message)
    assert "is 9." in message


@pytest.mark.parametrize("kind, wrong, meant", [
    (ModelConfig, "hiden_size", "hidden_size"), (ModelConfig, "num_head", "num_heads"),
    (TrainConfig, "learningrate", "learning_rate"), (TrainConfig, "batchsize", "batch_size"),
])
def test_an_unknown_setting_is_refused_with_the_nearest_known_one(refused, kind, wrong, meant):
    with refused(f"{kind.__name__}.from_dict with the setting {wrong}", ValueError,
                 match=rf"{kind.__name__} has no setting '{wrong}' \(did you mean '{meant}'\?\)"):
        kind.from_dict({wrong: 1})


def test_an_unknown_setting_like_no_other_is_refused_with_all_that_are_known(refused):
    with refused("ModelConfig.from_dict with the setting zzz", ValueError) as caught:
        ModelConfig.from_dict({"zzz": 1})
    assert "'zzz'" in str(caught.value) and "did you mean" not in str(caught.value)
    assert all(field.name in str(caught.value) for field in dataclasses.fields(ModelConfig))


@pytest.mark.parametrize("kind", [ModelConfig, TrainConfig])
def test_a_configuration_survives_being_a_dict(kind):
    config = kind.from_dict(dataclasses.asdict(kind()))
    assert config == kind()


@pytest.mark.parametrize("config", [ModelConfig(), TrainConfig()])
def test_a_configuration_cannot_be_changed(config):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, dataclasses.fields(config)[0].name, 2)


def test_from_dict_checks_the_values_too():
    assert "is 0." in fails(lambda: ModelConfig.from_dict({"num_blocks": 0}))


def test_the_papers_preset_has_the_papers_settings():
    model, training = PRESETS["baseline", "li2023"]
    assert (model.hidden_size, model.num_blocks, model.num_heads, model.max_length) == (128, 4, 4, 50)
    assert (model.dropout, model.embedding_dropout, model.embedding_std) == (0.1, 0.3, 1.0)
    assert (model.num_diffusion_steps, model.noise_schedule) == (32, "truncated_linear")
    assert model.lambda_uncertainty == 0.001
    assert (training.epochs, training.batch_size, training.learning_rate, training.weight_decay) == (500, 512, 1e-3, 0)
    assert (training.lr_step, training.lr_gamma, training.eval_every, training.patience) == (100, 0.1, 20, 5)
    assert training.seed == 1997
