"""The extensions of DiffuRecSys, each against its formula, and off by default; presets, ensembles, ReLU and bfloat16."""

import inspect
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import test_model
import torch
from test_model import NO_LAMBDA, NUM_ITEMS, QUICK, SMALL, Plain, fails, inputs_of, make_model, seeded, some_histories
from test_model import padded_batch  # noqa: F401  a fixture
from test_training import assert_same_run, new_model, run, tiny_data, without_times

from diffurec import (
    PRESETS, Dataset, DiffuRec, DiffuRecSys, ModelConfig, TrainConfig, configure_run, evaluate, load_model, rank_targets,
    stream_seed,
)
from diffurec.fast import catalogue

READINGS = ("constant", "shared", "elementwise")
OFFSET_NOISES = ("none", *READINGS)
CROSS = replace(SMALL, cross_attention=True)
LOUD = replace(QUICK, lambda_uncertainty=1.0)       # lambda of order 1: noise, steps and targets have a say


def offset(reading, strength=0.7, base=QUICK):
    return replace(base, offset_noise=reading, offset_strength=strength)


# Offset noise

@pytest.mark.parametrize("reading", OFFSET_NOISES)
def test_offset_noise_gives_x_s_the_closed_forms_mean_and_covariance(reading):
    """N = 200,000 draws of d = 3 through q_sample; r = 0.7, seed 0.

    Bound: 5 standard errors of the closed form's Gaussian, 5.7e-7 a check by chance. Those of a covariance are 0.2 to
    0.3 % of a variance, and the readings differ by 49 % (r^2) of it or, in the mean, by 0.7 of a deviation. An error of
    4 % in r fails.
    """
    n, d, t, r = 200_000, 3, 15, 0.7
    diffusion = make_model(offset(reading, r, base=SMALL)).diffusion
    x_start = torch.tensor([-2.0, 0.3, 1.0])
    noise = diffusion.draw_noise((n, d), seeded(0))
    samples = diffusion.q_sample(x_start.expand(n, d), torch.full((n,), t), noise).double()
    product = diffusion.alphas_cumprod[t].double()
    identity, ones = torch.eye(d, dtype=torch.float64), torch.ones(d, d, dtype=torch.float64)
    shift = {"constant": r}.get(reading, 0)
    shape = {"shared": identity + r ** 2 * ones, "elementwise": (1 + r ** 2) * identity}.get(reading, identity)
    mean, covariance = product.sqrt() * x_start + (1 - product).sqrt() * shift, (1 - product) * shape
    variance = covariance.diag()
    mean_error = (variance / n).sqrt()
    covariance_error = ((variance.outer(variance) + covariance ** 2) / (n - 1)).sqrt()
    assert ((samples.mean(0) - mean).abs() < 5 * mean_error).all()
    assert ((samples.T.cov() - covariance).abs() < 5 * covariance_error).all()


def test_shared_noise_moves_all_dimensions_of_an_example_alike_and_each_example_on_its_own():
    draw = lambda reading: make_model(offset(reading)).diffusion.draw_noise((50, 16), seeded(0))  # noqa: E731
    moved = draw("shared") - draw("none")
    torch.testing.assert_close(moved, moved[:, :1].expand(50, 16), rtol=0, atol=1e-6)
    assert len(set(moved[:, 0].tolist())) == 50


@pytest.mark.parametrize("reading, strength", [("none", 0.7), *((reading, 0) for reading in OFFSET_NOISES)])
def test_without_strength_the_noise_is_plain_and_nothing_more_is_drawn(reading, strength):
    expected, found = seeded(3), seeded(3)
    plain = torch.randn(6, 16, generator=expected)
    assert torch.equal(make_model(offset(reading, strength)).diffusion.draw_noise((6, 16), found), plain)
    assert torch.equal(found.get_state(), expected.get_state())


@pytest.mark.parametrize("reading", OFFSET_NOISES)
def test_the_generator_decides_the_noise_and_the_global_random_numbers_stay_untouched(reading):
    diffusion, before = make_model(offset(reading)).diffusion, torch.get_rng_state()
    draw = lambda seed: diffusion.draw_noise((4, 16), seeded(seed))  # noqa: E731
    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num_steps", [None, 1])
@pytest.mark.parametrize("reading", READINGS)
def test_the_reverse_process_draws_plain_noise_whatever_the_setting(reading, num_steps):
    """With lambda of order 1, other draws at any step would show; the generators end alike too."""
    histories, generators = some_histories(3, 4), [seeded(5), seeded(5)]
    plain, moved = (
        make_model(config).predict(histories, num_steps, generator)
        for config, generator in zip((LOUD, offset(reading, base=LOUD)), generators)
    )
    assert torch.equal(plain, moved)
    assert torch.equal(*(generator.get_state() for generator in generators))


@pytest.mark.parametrize("reading", READINGS)
def test_training_draws_offset_noise_and_with_strength_0_is_the_baseline_bit_for_bit(reading):
    plain = run(epochs=2)
    silent = run(epochs=2, model=new_model(offset_noise=reading, offset_strength=0))
    assert_same_run(silent, plain)
    moved = run(epochs=2, model=new_model(offset_noise=reading, offset_strength=0.7))
    assert without_times(moved[0]) != without_times(plain[0])


# Cross-attention

class PlainCross(Plain):
    """z_i = e_i + MHA(query l_i (x_s + d_s), keys and values e_1..e_n), one position, one head, one key at a time."""

    def x_start(self, history, x_t, step, lambda_):
        e = self.layer_norm("history_norm", self.weights["item_embedding.weight"][history])
        d, width = self.config.hidden_size, self.config.hidden_size // self.config.num_heads
        step_embedding, added = self.step_embedding(step), []
        for position in range(len(history)):
            query = self.linear("cross_attention.query", lambda_[position].double() * (x_t.double() + step_embedding))
            answer = torch.zeros(d, dtype=torch.float64)
            for start in range(0, d, width):
                powers, values = [], []
                for item in e:
                    key_value = self.linear("cross_attention.key_value", item)
                    own = range(start, start + width)
                    powers.append(math.exp(sum(float(query[i] * key_value[i]) for i in own) / math.sqrt(width)))
                    values.append(key_value[d + start:d + start + width])
                for power, value in zip(powers, values):
                    answer[start:start + width] += power / sum(powers) * value
            added.append(self.linear("cross_attention.out", answer))
        # The baseline adds lambda * (x + step): made to add what cross-attention adds, it goes on as it does.
        return super().x_start(history, 1 - step_embedding, step, torch.stack(added))


@pytest.mark.parametrize("num_heads", [1, 4])
@pytest.mark.parametrize("length, lambda_scale", [(1, 1.0), (4, 0.001), (4, 1.0)])
def test_cross_attention_is_its_formula(num_heads, length, lambda_scale):
    """Step 0, whose angle float32 knows exactly, and step 1; float32 against float64."""
    model = make_model(replace(CROSS, num_heads=num_heads))
    histories = some_histories(2, length)
    x_t, _, lambda_ = inputs_of(model, histories, lambda_scale=lambda_scale)
    t = torch.tensor([0, 1])
    embedded, key_mask = model.embed_history(histories)
    plain = PlainCross(model)
    for row, found in enumerate(model.predict_x_start(embedded, key_mask, x_t, t, lambda_)):
        expected = plain.x_start(histories[row], x_t[row], int(t[row]), lambda_[row])
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_the_loss_with_cross_attention_is_that_of_its_formula():
    model, history, target = make_model(CROSS), some_histories(1, 3), torch.tensor([7])
    noise, t, lambda_ = torch.randn(1, 16, generator=seeded(3)), torch.tensor([12]), model.draw_lambda((1, 3, 16), seeded(4))
    expected = PlainCross(model).loss(history[0], 7, 12, noise[0], lambda_[0])
    assert model(history, target, t, noise, seeded(4)).item() == pytest.approx(expected, abs=2e-5)


BASELINE_WEIGHTS = {
    "item_embedding.weight", *(
        f"{layer}.{kind}" for kind in ("weight", "bias") for layer in (
            "history_norm", "step_embedding.mlp.0", "step_embedding.mlp.2", "approximator.norm", *(
                f"approximator.blocks.{block}.{part}" for block in range(SMALL.num_blocks) for part in (
                    "attention_norm", "attention.query", "attention.key_value", "attention.out", "feed_forward_norm",
                    "feed_forward.0", "feed_forward.2",
                )
            )
        )
    )
}
CROSS_WEIGHTS = {f"cross_attention.{part}.{kind}" for part in ("query", "key_value", "out") for kind in ("weight", "bias")}


def fresh_weights(kind, config, seed=3):
    torch.manual_seed(seed)
    return kind(NUM_ITEMS, config).state_dict()


def test_by_default_there_is_no_weight_of_an_extension():
    assert ModelConfig().cross_attention is False and ModelConfig().offset_noise == "none"
    assert set(fresh_weights(DiffuRec, SMALL)) == BASELINE_WEIGHTS


def test_the_weights_shared_with_the_baseline_start_alike():
    """What is compared is what the same torch.manual_seed draws; a layer made earlier would shift all that follow."""
    plain, crossed = fresh_weights(DiffuRec, SMALL), fresh_weights(DiffuRec, CROSS)
    assert set(crossed) == BASELINE_WEIGHTS | CROSS_WEIGHTS
    assert all(torch.equal(plain[name], crossed[name]) for name in BASELINE_WEIGHTS)


@pytest.mark.parametrize("claim, arguments", [
    *((test_model.test_left_padding_does_not_change_x_0_hat, {"width": width}) for width in (1, 5)),
    (test_model.test_left_padding_does_not_change_the_loss, {"width": 7}),
    (test_model.test_left_padding_does_not_change_the_ranking, {"width": 7}),
    (test_model.test_a_short_history_beside_a_long_one_is_ranked_as_if_alone, {}),
    (test_model.test_the_order_of_all_but_the_last_item_does_not_matter, {}),
    (test_model.test_the_order_of_all_but_the_last_item_does_not_matter_to_a_recommendation, {}),
    (test_model.test_another_last_item_changes_x_0_hat, {}),
    (test_model.test_every_item_of_the_history_counts, {}),
    (test_model.test_the_padding_gets_no_gradient, {}),
    (test_model.test_the_gradients_are_finite_with_padding, {}),
    (test_model.test_without_dropout_training_and_evaluation_are_the_same, {}),
    (test_model.test_with_a_generator_the_global_random_numbers_stay_untouched, {}),
], ids=lambda part: getattr(part, "__name__", None) or str(part))
def test_what_holds_for_the_sum_holds_for_cross_attention(claim, arguments, monkeypatch, request):
    """The baseline's own test, run on models with cross-attention; it still counts how many of them it was given."""
    made = []

    def make_crossed_model(config=SMALL, **options):
        made.append(make_model(replace(config, cross_attention=True), **options))
        return made[-1]

    monkeypatch.setattr(test_model, "make_model", make_crossed_model)
    fixtures = [name for name in inspect.signature(claim).parameters if name not in arguments]
    claim(**arguments, **{name: request.getfixturevalue(name) for name in fixtures})
    assert made


def test_the_noisy_target_has_a_say_through_lambda_alone():
    histories = some_histories(2, 4)

    def two_answers(config):
        model = make_model(replace(config, cross_attention=True))
        embedded, key_mask = model.embed_history(histories)
        lambda_ = model.draw_lambda(embedded.shape, seeded(4))
        for seed in (1, 2):
            x_t, t, _ = inputs_of(model, histories, seed=seed)
            yield model.predict_x_start(embedded, key_mask, x_t, t, lambda_)

    assert torch.equal(*two_answers(NO_LAMBDA))
    one, other = two_answers(LOUD)
    assert (one - other).abs().max() > 1e-2


def test_what_cross_attention_adds_goes_through_dropout_in_training_only(padded_batch):  # noqa: F811
    model = make_model(replace(CROSS, dropout=0.5, embedding_dropout=0.0))
    embedded, key_mask = model.embed_history(padded_batch[0])
    x_t, t, lambda_ = inputs_of(model, padded_batch[0])
    torch.manual_seed(0)
    evaluated, again = (model.item_distributions(embedded, key_mask, x_t, t, lambda_) - embedded for _ in range(2))
    trained = model.train().item_distributions(embedded, key_mask, x_t, t, lambda_) - embedded
    assert torch.equal(evaluated, again)
    dropped = (trained.abs() < 1e-6)
    # 192 elements, each dropped with probability 1/2: 96, and 5 standard deviations are 35.
    assert abs(int(dropped.sum()) - 96) < 35
    torch.testing.assert_close(trained[~dropped], 2 * evaluated[~dropped], rtol=0, atol=1e-5)


@pytest.fixture
def attended(padded_batch):  # noqa: F811
    """A loud model, a batch with padding, its noisy targets, and the weights of cross-attention."""
    model, histories = make_model(replace(LOUD, cross_attention=True)), padded_batch[0]
    x_t, t, _ = inputs_of(model, histories)
    return model, histories, x_t, t, model.cross_attention_weights(histories, x_t, t, seeded(4))


def test_the_weights_of_cross_attention_add_up_to_1_and_are_0_on_padding(attended):
    _, histories, _, _, weights = attended
    assert weights.shape == (3, 4, 4, 4) and not weights.requires_grad
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4, 4), rtol=0, atol=1e-6)
    padding = (histories == 0)[:, None, None, :].expand_as(weights)
    assert not weights[padding].any()
    assert (weights[~padding] > 0).all() and weights[2].std(-1).min() > 1e-3         # neither hidden nor uniform


def test_the_weights_of_cross_attention_are_those_its_output_is_made_with(attended):
    model, histories, x_t, t, weights = attended
    embedded, key_mask = model.embed_history(histories)
    lambda_ = model.draw_lambda(embedded.shape, seeded(4))
    values = model.cross_attention.key_value(embedded)[..., 16:]
    heads = [weights[:, head] @ values[..., 4 * head:4 * head + 4] for head in range(4)]
    expected = model.cross_attention.out(torch.cat(heads, dim=-1))
    found = model.item_distributions(embedded, key_mask, x_t, t, lambda_) - embedded
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_model_without_cross_attention_has_no_weights_to_show(told, padded_batch):  # noqa: F811
    histories, _, t, x_t = padded_batch
    message = fails(lambda: make_model(QUICK).cross_attention_weights(histories, x_t, t))
    told("cross_attention_weights of a model without cross-attention", message)
    assert "no cross-attention" in message


@pytest.mark.parametrize("config", [SMALL, CROSS, replace(CROSS, activation="relu")], ids=["sum", "cross", "relu"])
def test_every_weight_learns_but_the_keys_biases_which_cannot(config, padded_batch):  # noqa: F811
    """Every row of every weight has a gradient, in float64 at the papers' delta of 0.001; the least is about 1e-8.

    A key's bias adds q . b to all scores of a query alike, which the softmax takes away again: its gradient is 0 by
    mathematics, about 1e-17 by rounding. A hidden unit of a ReLU may rest for a whole batch: of those, 3 of 4 must learn.
    """
    model = make_model(config).double()
    histories, targets, t, noise = padded_batch
    model(histories, targets, t, noise.double(), seeded(1)).mean().backward()
    for name, parameter in model.named_parameters():
        rows = parameter.grad.abs().reshape(len(parameter), -1).amax(1)
        if name.endswith("key_value.bias"):
            assert rows[:16].max() < 1e-15, name
            rows = rows[16:]
        elif name == "item_embedding.weight":                                       # the padding's is 0
            rows = rows[1:]
        least = 0.75 if config.activation == "relu" and "feed_forward.0" in name else 1
        assert (rows > 1e-9).double().mean() >= least, (name, rows.min())


# DiffuRecSys

def test_diffurecsys_is_diffurec_with_both_extensions():
    model = DiffuRecSys(NUM_ITEMS, SMALL)
    assert isinstance(model, DiffuRec)
    assert model.config == replace(SMALL, cross_attention=True, offset_noise="constant")
    assert (model.diffusion.offset_noise, model.diffusion.offset_strength) == ("constant", 0.1)
    found, expected = fresh_weights(DiffuRecSys, SMALL), fresh_weights(DiffuRec, model.config)
    assert list(found) == list(expected) and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("reading", READINGS)
def test_diffurecsys_keeps_a_named_reading_of_offset_noise_and_its_strength(reading):
    config = DiffuRecSys(NUM_ITEMS, offset(reading, 0.3)).config
    assert config == replace(offset(reading, 0.3), cross_attention=True)


def test_a_checkpoint_of_diffurecsys_loads_as_the_model_it_was(tmp_path):
    trained = run(model=DiffuRecSys(NUM_ITEMS, new_model(offset_noise="shared").config), checkpoint=tmp_path, epochs=2)
    loaded = load_model(tmp_path)
    assert loaded.config == trained[1].config == DiffuRecSys(NUM_ITEMS, loaded.config).config
    assert loaded.config.cross_attention and loaded.config.offset_noise == "shared"
    assert_same_run((trained[0], loaded, evaluate(loaded, tiny_data(), "test", num_steps=2)), trained)


def test_a_run_of_diffurecsys_goes_on_where_it_stopped(tmp_path):
    """Offset noise draws twice a batch, from streams that belong to the epoch: nothing of them is in the checkpoint."""
    both = dict(cross_attention=True, offset_noise="elementwise")
    whole = run(epochs=3, model=new_model(**both))
    run(epochs=2, model=new_model(**both), checkpoint=tmp_path)
    assert_same_run(run(epochs=3, model=new_model(seed=9, **both), checkpoint=tmp_path, resume=True), whole)


def test_diffurecsys_learns_that_each_item_is_followed_by_the_next():
    """Chance is 5 of 30 items; seed 0. It fails if training no longer finds a rule without exceptions in 20 epochs."""
    data = tiny_data(num_users=200)
    _, _, metrics = run(
        data=data, model=DiffuRecSys(NUM_ITEMS, new_model().config), epochs=20, patience=20, batch_size=64, eval_every=20
    )
    assert metrics["HR@5"] > 0.9


# Presets

SAME_MODEL = dict(
    network="diffurec", attention="bidirectional", cross_attention=False, offset_noise="none",
    hidden_size=128, num_blocks=4, num_heads=4, dropout=0.1, dropout_everywhere=False, embedding_dropout=0.3,
    embedding_std=1.0, num_diffusion_steps=32, noise_schedule="truncated_linear", lambda_uncertainty=0.001, activation="gelu",
    offset_strength=0.1,
)
SAME_TRAINING = dict(
    batch_size=512, learning_rate=1e-3, weight_decay=0.0, lr_step=100, lr_gamma=0.1, grad_clip=None, eval_num_steps=None,
    patience=5, seed=0, device="auto", precision="float32",
)
EXPECTED_SETTINGS = {
    "li2023": ({**SAME_MODEL, "max_length": 50}, {**SAME_TRAINING, "epochs": 500, "eval_every": 20, "seed": 1997}),
    "zolghadr2024": (
        {**SAME_MODEL, "max_length": 100, "activation": "relu"},
        {**SAME_TRAINING, "epochs": 41, "batch_size": 1024, "weight_decay": 1e-4, "lr_step": 30, "eval_every": 8},
    ),
    "laptop": (
        {**SAME_MODEL, "hidden_size": 64, "num_blocks": 2, "max_length": 20, "embedding_std": 0.1},
        {**SAME_TRAINING, "epochs": 4, "eval_every": 1, "eval_num_steps": 1},
    ),
}
EXPECTED_EXTENSIONS = {
    "baseline": {},
    "cross-attention": dict(cross_attention=True),
    "offset-noise": dict(offset_noise="constant"),
    "diffurecsys": dict(cross_attention=True, offset_noise="constant"),
    "without-diffusion": dict(lambda_uncertainty=0.0),
    "sasrec": dict(network="sasrec", attention="causal"),
    "gru4rec": dict(network="gru4rec", attention="causal"),
}


def test_every_variant_has_a_preset_for_every_settings_and_there_is_no_other():
    assert set(PRESETS) == {(variant, settings) for variant in EXPECTED_EXTENSIONS for settings in EXPECTED_SETTINGS}


@pytest.mark.parametrize("settings", EXPECTED_SETTINGS)
@pytest.mark.parametrize("variant", EXPECTED_EXTENSIONS)
def test_a_preset_is_the_settings_and_the_variants_extensions_and_nothing_else(variant, settings):
    """Every setting is written out here, so variants of the same settings differ in their extensions alone."""
    model, training = PRESETS[variant, settings]
    expected_model, expected_training = EXPECTED_SETTINGS[settings]
    assert asdict(model) == {**expected_model, **EXPECTED_EXTENSIONS[variant]}
    assert asdict(training) == expected_training


def configure(**parameters):
    return configure_run({"variant": "baseline", "settings": "li2023", **parameters})


@pytest.mark.parametrize("variant, settings", PRESETS)
def test_a_run_without_other_settings_is_its_preset(variant, settings):
    nothing = {name: None for kind in (ModelConfig, TrainConfig) for name in kind.__dataclass_fields__}
    assert configure(variant=variant, settings=settings) == PRESETS[variant, settings]
    assert configure(variant=variant, settings=settings, **nothing) == PRESETS[variant, settings]


def test_a_run_takes_any_setting_of_both_classes_and_leaves_other_parameters_alone():
    changes = dict(hidden_size=32, lambda_uncertainty=0, epochs=2, seed=0, grad_clip=1.0)
    model, training = configure(variant="diffurecsys", dataset="ml-100k", **changes)
    expected_model, expected_training = PRESETS["diffurecsys", "li2023"]
    assert model == replace(expected_model, hidden_size=32, lambda_uncertainty=0)
    assert training == replace(expected_training, epochs=2, seed=0, grad_clip=1.0)


def test_a_run_may_take_another_reading_than_its_variant():
    model, _ = configure(variant="diffurecsys", offset_noise="shared", cross_attention=False)
    assert (model.offset_noise, model.cross_attention) == ("shared", False)


@pytest.mark.parametrize("value", ["baselin", "", None, 3, ["baseline"]], ids=repr)
@pytest.mark.parametrize("name, known", [("variant", EXPECTED_EXTENSIONS), ("settings", EXPECTED_SETTINGS)])
def test_an_unknown_variant_or_settings_is_refused_with_all_that_are_known(told, name, known, value):
    message = fails(lambda: configure(**{name: value}))
    told(f"{name} = {value!r}", message)
    assert f"no {name} {value!r};" in message and message.endswith(", ".join(known) + ".")


@pytest.mark.parametrize("settings", [
    {"hidden_size": 0}, {"hidden_size": 30}, {"cross_attention": 1}, {"offset_noise": "offset"}, {"offset_strength": -1},
    {"activation": "tanh"}, {"attention": "sideways"}, {"network": "bert4rec"}, {"epochs": "4"}, {"precision": "float16"},
], ids=repr)
def test_a_bad_value_of_a_run_is_refused_in_a_sentence_that_names_it(told, settings):
    message = fails(lambda: configure(**settings))
    (name, value), = settings.items()
    told(f"{name} = {value!r}", message)
    assert name in message


# ReLU

class PlainReLU(Plain):
    @staticmethod
    def gelu(x):
        return x * (x > 0)


def test_relu_is_relu_in_every_feed_forward():
    """The same weights with GELU miss the plain ReLU's answer by more than 100 times the bound."""
    histories = some_histories(2, 4)
    relu, gelu = make_model(replace(SMALL, activation="relu")), make_model(SMALL)
    x_t, t, lambda_ = inputs_of(relu, histories, lambda_scale=0.001)
    plain = PlainReLU(relu)
    expected = torch.stack([plain.x_start(h, x, int(s), l) for h, x, s, l in zip(histories, x_t, t, lambda_)])
    found, other = (m.predict_x_start(*m.embed_history(histories), x_t, t, lambda_).double() for m in (relu, gelu))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (other - expected).abs().max() > 1e-3


# Ensembles

def mean_log_probabilities(model, histories, ensemble, generator, num_steps=1):
    """The log of the mean of E softmaxes, [B, num_items] float64, by PyTorch's own functions on the whole catalogue."""
    weight = model.item_embedding.weight[1:].double()
    logs = [(model.predict(histories, num_steps, generator).double() @ weight.T).log_softmax(1) for _ in range(ensemble)]
    return torch.stack(logs).logsumexp(0) - math.log(ensemble)


@pytest.fixture(scope="module")
def loud():
    """A model whose predictions differ from draw to draw, and histories, one of them padded."""
    return make_model(LOUD), torch.nn.functional.pad(some_histories(4, 5), (1, 0))


@pytest.mark.parametrize("num_steps", [None, 1, 3])
@pytest.mark.parametrize("ensemble, k", [(1, 5), (3, 1), (3, NUM_ITEMS), (8, 5)])
def test_an_ensemble_is_the_brute_force_mean_of_its_members_distributions(loud, ensemble, k, num_steps):
    model, histories = loud
    items, scores = model.recommend(histories, k, num_steps, seeded(7), ensemble)
    expected = mean_log_probabilities(model, histories[:, 1:], ensemble, seeded(7), num_steps or 1).exp()
    probabilities, index = expected.topk(k)
    assert torch.equal(items, index + 1)
    torch.testing.assert_close(scores.double().exp(), probabilities, rtol=1e-4, atol=0)


def test_the_members_of_an_ensemble_differ_and_their_mean_is_no_single_ones(loud):
    """Else the brute force would agree with an ensemble that repeats one draw or takes the last."""
    model, histories = loud
    x_start = model.predict(histories, generator=seeded(7), ensemble=3).x_start
    assert x_start.shape == (4, 3, 16)
    assert all((x_start[:, i] - x_start[:, j]).abs().max() > 1e-2 for i, j in ((0, 1), (1, 2), (0, 2)))


def test_an_ensemble_of_one_ranks_as_the_single_step_does(loud):
    model, histories = loud
    items, scores = model.recommend(histories, NUM_ITEMS, generator=seeded(7), ensemble=1)
    expected, products = model.recommend(histories, NUM_ITEMS, num_steps=1, generator=seeded(7))
    assert torch.equal(items, expected)
    torch.testing.assert_close(scores, products.log_softmax(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 7, 29, 30, 31])
def test_an_ensemble_scores_the_catalogue_in_chunks_as_in_one(loud, monkeypatch, chunk):
    model, histories = loud
    recommend = lambda: model.recommend(histories, 6, generator=seeded(7), ensemble=3)  # noqa: E731
    items, scores = recommend()
    monkeypatch.setattr(catalogue, "ITEM_CHUNK", chunk)
    in_chunks, scores_in_chunks = recommend()
    assert torch.equal(in_chunks, items)
    torch.testing.assert_close(scores_in_chunks, scores, rtol=0, atol=1e-5)


def test_the_scores_of_an_ensemble_are_logs_of_probabilities_that_add_up_to_1(loud):
    model, histories = loud
    _, scores = model.recommend(histories, NUM_ITEMS, generator=seeded(7), ensemble=4)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(4), rtol=0, atol=1e-5)
    assert (scores.diff(dim=1) <= 0).all()


def test_large_scores_neither_underflow_nor_overflow(loud):
    """Embeddings of scale 30: probabilities reach exp(-200), 0 in float32, and still have an order.

    Items that two members are equally sure of tie at log(1/4) in float32, so it is their float64 values that must be in
    order: within 1e-3, where neighbours are typically several units apart.
    """
    model, histories = make_model(LOUD), loud[1][:, 1:]
    with torch.no_grad():
        model.item_embedding.weight[1:] *= 30 / model.item_embedding.weight[1:].std()
        items, scores = model.recommend(histories, NUM_ITEMS, generator=seeded(7), ensemble=4)
        logs = mean_log_probabilities(model, histories, 4, seeded(7))
    expected = logs.sort(descending=True).values
    assert expected.min() < -200
    assert torch.equal(items.sort().values, torch.arange(1, NUM_ITEMS + 1).expand(4, -1))
    torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(logs.gather(1, items - 1), expected, rtol=1e-5, atol=1e-3)


def test_an_evaluation_takes_an_ensemble_and_its_seed_decides(loud):
    measure = lambda seed: evaluate(loud[0], tiny_data(), "test", seed, ensemble=4)  # noqa: E731
    assert measure(1) == measure(1)
    assert measure(1)["MRR"] != measure(2)["MRR"]


@pytest.mark.parametrize("chunk", [7, 30])
def test_the_rank_of_a_target_is_its_place_in_the_ensembles_recommendation(loud, monkeypatch, chunk):
    monkeypatch.setattr(catalogue, "ITEM_CHUNK", chunk)
    for target in (4, 20):
        data = Dataset("one", NUM_ITEMS, np.array([1, 2, 3, target], np.int32), np.array([0, 4]))
        (rank, _), = rank_targets(loud[0], data, seed=3, ensemble=4)
        items, _ = loud[0].recommend([[1, 2, 3]], NUM_ITEMS, generator=seeded(stream_seed(3, 0)), ensemble=4)
        assert rank == 1 + items[0].tolist().index(target)


@pytest.mark.parametrize("ensemble", [0, -1, 2.5, True, False, "4", math.nan], ids=repr)
def test_a_bad_size_of_an_ensemble_is_refused_in_a_sentence_that_names_it(loud, told, ensemble):
    for call in (
        lambda: loud[0].recommend([[1]], ensemble=ensemble), lambda: evaluate(loud[0], tiny_data(), ensemble=ensemble)
    ):
        message = fails(call)
        told("ensemble = …", message)
        assert message.startswith("ensemble must be ") and message.endswith(f"it is {ensemble!r}.")


@pytest.mark.parametrize("num_steps", [0, False, -1, 5, 2.5, "2"], ids=repr)
def test_a_bad_number_of_steps_is_refused_with_an_ensemble_too(loud, told, num_steps):
    message = fails(lambda: loud[0].recommend([[1]], num_steps=num_steps, ensemble=2))
    told("num_steps = … of 4 reverse steps, with an ensemble", message)
    assert f"is {num_steps!r}." in message


# bfloat16

@pytest.mark.parametrize("extensions", [{}, dict(cross_attention=True, offset_noise="constant")], ids=["baseline", "both"])
def test_bfloat16_trains_to_about_the_loss_of_float32_and_keeps_the_weights_in_it(extensions, tmp_path):
    """A forward pass of about three digits, seed 0: every epoch's loss within 1 % (0.1 % was measured), not bit for bit."""
    data = tiny_data(num_users=100)
    full, half = (
        run(precision=precision, data=data, model=new_model(**extensions), eval_every=4, checkpoint=tmp_path / precision)
        for precision in ("float32", "bfloat16")
    )
    losses, others = ([entry["loss"] for entry in history.log] for history in (full[0], half[0]))
    assert losses != others and losses[-1] < 0.9 * losses[0]
    assert others == pytest.approx(losses, rel=0.01)
    for model in (half[1], load_model(tmp_path / "bfloat16")):
        assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
