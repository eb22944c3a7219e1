"""The fast forms against their plain ones: outputs and gradients, in float64 where rounding would hide a mistake."""

import copy
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffurec import Dataset, DiffuRec, ModelConfig, TrainConfig, evaluate, expected_ranks, fast, paper, train
from diffurec.fast import (
    Dropout, FeedForward, TanhGELU, catalogue, catalogue_cross_entropy, fast_matmul, forms, install, kept_memory, softmax,
    switched_off,
)


def value_and_gradients(function, *tensors):
    tensors = [t.detach().clone().requires_grad_() for t in tensors]
    value = function(*tensors)
    weights = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).view_as(value)  # not the same for every example
    return value.detach(), *torch.autograd.grad((value * weights).sum(), tensors)


@pytest.mark.parametrize("chunk", [1, 7, 40, 41, 100])
@pytest.mark.parametrize("scale", [0.1, 100.0])          # 100: scores of thousands, which overflow without the maximum
def test_catalogue_cross_entropy_is_cross_entropy(monkeypatch, chunk, scale):
    monkeypatch.setattr(catalogue, "ITEM_CHUNK", chunk)
    torch.manual_seed(0)
    x, items = torch.randn(9, 6, dtype=torch.float64) * scale, torch.randn(42, 6, dtype=torch.float64) * scale
    targets = torch.tensor([1, 41, 7, 8, 7, 7, 14, 15, 40])
    plain = value_and_gradients(lambda x, e: F.cross_entropy(x @ e[1:].T, targets - 1, reduction="none"), x, items)
    ours = value_and_gradients(lambda x, e: catalogue_cross_entropy(x, e, targets), x, items)
    for a, b in zip(ours, plain):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert (ours[2][0] == 0).all()                                               # nothing reaches the padding row


@pytest.mark.parametrize("chunk", [7, 100])
def test_catalogue_cross_entropy_is_never_negative(monkeypatch, chunk):
    """Its least value, where the target has nearly all of the probability: a product of its own for the target's score
    gives down to -7.6e-5 here. 2,000 examples, seed 0."""
    monkeypatch.setattr(catalogue, "ITEM_CHUNK", chunk)
    torch.manual_seed(0)
    items = torch.randn(42, 128) * 3
    targets = torch.randint(1, 42, (2_000,))
    losses = catalogue_cross_entropy(items[targets] * torch.rand(2_000, 1), items, targets)
    assert (losses >= 0).all() and (losses == 0).any()


def test_catalogue_cross_entropy_is_not_finite_where_its_input_is_not():
    x, items = torch.ones(2, 4), torch.ones(6, 4)
    x[1, 2] = torch.nan
    assert catalogue_cross_entropy(x, items, torch.tensor([1, 2])).isfinite().tolist() == [True, False]


def test_tanh_gelu_is_torchs():
    x = torch.linspace(-30, 30, 2001, dtype=torch.float64)
    plain = value_and_gradients(lambda x: F.gelu(x, approximate="tanh"), x)
    for a, b in zip(value_and_gradients(TanhGELU(), x), plain):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", [TanhGELU, torch.nn.ReLU])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.01)],
                         ids=str)
def test_the_feed_forward_without_gradients_is_the_one_with_them(activation, dtype, tolerance):
    """In 16 bits: outputs of about 1 and a product over 64, rounded to 8 bits in between (0.003 was seen)."""
    torch.manual_seed(0)
    layers = FeedForward(torch.nn.Linear(16, 64), activation(), torch.nn.Linear(64, 16))
    layers, x = (layers.double(), torch.randn(5, 7, 16).double()) if dtype == torch.float64 else (layers, torch.randn(5, 7, 16))
    expected = layers[2](activation()(layers[0](x)))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = layers(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("length", [1, 2, 15, 16])       # 15: the last by its formula
@pytest.mark.parametrize("scale", [1.0, 1000.0])         # 1000: e to that power overflows without the maximum
def test_softmax_is_torchs(length, scale):
    torch.manual_seed(0)
    scores = torch.randn(3, 2, length, length, dtype=torch.float64) * scale
    scores[0, :, :, : length // 2] = -math.inf           # padding
    plain = value_and_gradients(lambda x: x.softmax(-1), scores)
    for a, b in zip(value_and_gradients(softmax, scores), plain):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    # Of 16-bit scores as torch has it, but for the rounding of the result to 8 bits.
    low = scores.bfloat16()
    torch.testing.assert_close(softmax(low).float(), low.softmax(-1).float(), rtol=2**-8, atol=1e-30)


@pytest.mark.parametrize("length, formula", [(1, True), (15, True), (16, False), (40, False)])
def test_softmax_takes_its_formula_for_rows_of_under_16(monkeypatch, length, formula):
    asked, of_torch = [], torch.Tensor.softmax
    monkeypatch.setattr(torch.Tensor, "softmax", lambda scores, dim: asked.append(scores.shape) or of_torch(scores, dim))
    for others in (3, 40):
        softmax(torch.randn(others, others, length))
    assert bool(asked) is not formula


@pytest.mark.parametrize("p", [0.1, 0.3, 0.9])
def test_dropout_zeroes_a_share_of_p_and_keeps_the_mean(p):
    # 10^6 draws: 5 standard deviations are 0.0025 at p = 0.5. Seed 0; a wrong p or scale by 1 % fails.
    torch.manual_seed(0)
    x = torch.ones(1000, 1001, requires_grad=True)
    dropped = Dropout(p)(x)
    kept = dropped != 0
    assert abs(1 - kept.double().mean() - p) < 0.0025
    torch.testing.assert_close(dropped[kept], torch.full_like(dropped[kept], 1 / (1 - p)))
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped)
    neighbours = (kept[:, 1:] & kept[:, :-1]).double().mean()                    # 4 masks come from one draw
    assert abs(neighbours - (1 - p) ** 2) < 0.0025


@pytest.mark.parametrize("p", [1 - 2**-16, 1 - 2**-17, 1 - 2**-30])
def test_dropout_drops_nearly_all_where_p_is_nearly_1(p):
    """Of 10^7 about 153 stay, the least share that 16 bits know. Bound: 5 standard deviations; seed 0."""
    torch.manual_seed(0)
    kept = Dropout(p)(torch.ones(10**7)) != 0
    assert abs(int(kept.sum()) - 10**7 / 2**16) < 5 * math.sqrt(10**7 / 2**16)


def test_dropout_in_16_bits_scales_by_the_factor_and_not_by_its_rounding():
    """1/0.9 in bfloat16 is 1.1094: what is kept of 1.1 to 2 would be one bit too small for about every fifth number."""
    torch.manual_seed(0)
    x = torch.linspace(1.1, 2, 10_000).bfloat16()
    dropped = Dropout(0.1)(x)
    kept = dropped != 0
    assert torch.equal(dropped[kept], (x[kept].double() / 0.9).bfloat16())
    assert not torch.equal(dropped[kept], x[kept] * torch.tensor(1 / 0.9).bfloat16())


@pytest.mark.parametrize("numbers, draws", [(1, 1), (4, 1), (5, 2), (21, 6)])
def test_dropout_draws_once_for_four_numbers_and_not_at_all_with_p_0(numbers, draws):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert torch.equal(Dropout(0.0)(torch.ones(numbers)), torch.ones(numbers))
    assert torch.equal(torch.get_rng_state(), before)
    Dropout(0.5)(torch.ones(numbers))
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    torch.empty(draws, dtype=torch.int64).random_(-(2**63), None)
    assert torch.equal(torch.get_rng_state(), after)


def test_dropout_is_repeatable_and_off_in_evaluation():
    x, dropout = torch.randn(7, 3), Dropout(0.5)
    torch.manual_seed(3)
    first = dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first) and not torch.equal(dropout(x), first)
    assert dropout.eval()(x) is x


def test_fast_matmul_is_float32_and_leaves_the_setting_as_it_was():
    # bfloat16 has 8 bits: its error here is above 0.1, float32's about 1e-4. Fails too where the setting would not be restored.
    torch.manual_seed(0)
    a, b = torch.randn(2, 300, 700).unbind(0)
    before = torch.backends.mkldnn.matmul.fp32_precision
    with pytest.raises(ZeroDivisionError), fast_matmul():
        torch.testing.assert_close(a @ b.T, (a.double() @ b.T.double()).float(), rtol=0, atol=1e-3)
        1 / 0
    assert torch.backends.mkldnn.matmul.fp32_precision == before


@pytest.fixture
def processor(monkeypatch):
    """processor(capability, **found): a processor of this kind, as far as the fast forms ask."""
    def pretend(capability, **found):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
        fast.chosen_forms.cache_clear()

    yield pretend
    monkeypatch.undo()
    fast.chosen_forms.cache_clear()


@pytest.mark.parametrize(("kind", "forms"), [
    (("AVX2", {"avx2": True}), [False, False, False, True]),
    (("AVX2", {"avx512_bf16": True}), [False, False, False, True]),             # told to act as one without AVX-512
    (("AVX512", {"avx512_f": True}), [False, False, True, True]),
    (("AVX512", {"avx512_bf16": True}), [True, True, True, True]),
    (("AVX512", {"avx512_bf16": True, "amx_bf16": True}), [True, False, True, True]),
    (("DEFAULT", {}), [False, False, False, True]),                             # ARM
])
def test_the_forms_are_chosen_by_what_the_processor_has(processor, kind, forms):
    processor(kind[0], **kind[1])
    assert list(fast.chosen_forms()) == ["bfloat16", "onednn_products", "parts", "fused_gelu"]
    assert list(fast.chosen_forms().values()) == forms


@pytest.mark.parametrize("shape, parts", [((1000, 12, 3), [341, 341, 318]), ((3, 5000, 2), [1, 1, 1]), ((2, 1, 4), [2])])
def test_parts_have_4096_positions_where_they_pay(processor, shape, parts):
    rows = []
    for kind, expected in (("AVX512", parts), ("AVX2", [shape[0]])):
        processor(kind)
        x = torch.randn(shape)
        double = forms.in_parts(lambda part, nothing: rows.append(len(part)) or 2 * part, x, None)
        assert torch.equal(double, 2 * x)
        assert rows == expected
        rows.clear()


def test_a_chunk_is_65536_items():
    assert fast.item_chunks(65_536) == [(1, 65_537)]
    assert fast.item_chunks(140_000) == [(1, 65_537), (65_537, 131_073), (131_073, 140_001)]


def test_the_activation_of_the_feed_forward_is_fused_without_gradients_and_where_that_is_known(processor):
    feed_forward = FeedForward(torch.nn.Linear(3, 8), TanhGELU(), torch.nn.Linear(8, 3))
    asked = []
    feed_forward[1].register_forward_hook(lambda *_: asked.append(1))

    def fused(dtype=torch.float32, gradients=False, missing=False):
        asked.clear()
        fast.chosen_forms()["fused_gelu"] = not missing
        with torch.set_grad_enabled(gradients):
            feed_forward.to(dtype)(torch.randn(2, 3, dtype=dtype))
        return not asked

    real = fast.chosen_forms()["bfloat16"]                                       # no processor can pretend to compute in it
    for kind, found in (("AVX2", {}), ("AVX512", {"avx512_bf16": True})):
        processor(kind, **found)
        assert fused() and not fused(gradients=True) and not fused(missing=True) and not fused(torch.float64)
        if real or kind == "AVX2":
            assert fused(torch.bfloat16) is (kind == "AVX512")


def test_gelu_goes_through_the_sigmoid_on_a_cpu():
    assert TanhGELU()(torch.ones(2, requires_grad=True)).grad_fn.name() == "_TanhGELUBackward"


def test_predictions_are_the_same_by_every_choice_of_forms(processor):
    """To rounding: parts of 4,096 positions need 342 users of 12 to be two."""
    model, _ = two_models({}, torch.float32)
    histories = some_batch(5, model.eval(), 0)[0].repeat(60, 1)
    found = []
    for kind, features in (("AVX512", {}), ("AVX2", {})):
        processor(kind, **features)
        found.append(model.predict(histories, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(*found, rtol=0, atol=2e-5)


def test_bfloat16_where_it_is_emulated_is_said_in_one_sentence(processor):
    model, _ = two_models({}, torch.float32)
    real = fast.chosen_forms()["bfloat16"]                                       # no processor can pretend to compute in it
    data = Dataset("d", NUM_ITEMS, np.tile(np.arange(1, 9), 20), np.arange(0, 161, 8))
    uses = [
        lambda: model.predict(torch.ones(1, 1, dtype=torch.long), num_steps=1, precision="bfloat16"),
        lambda: evaluate(model, data, num_steps=1, precision="bfloat16"),
        lambda: train(model, data, TrainConfig(epochs=1, precision="bfloat16", eval_num_steps=1), log=None),
    ]
    for use in uses:
        processor("AVX2")
        with pytest.warns(UserWarning, match="no products in bfloat16 .* many times as long .* take precision='float32'"):
            use()
        processor("AVX512", avx512_bf16=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if real:
                use()


def test_all_of_it_runs_on_one_device():
    """See another_device.py; one tensor or generator left on the CPU is enough to fail."""
    done = subprocess.run([sys.executable, Path(__file__).with_name("another_device.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


# ---- the whole model with the forms installed against the paper's, which the tutorial writes out ----

NUM_ITEMS = 50
VARIANTS = [{}, {"cross_attention": True}, {"activation": "relu", "num_heads": 2},
            {"attention": "causal", "cross_attention": True}, {"dropout_everywhere": True}]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))]


def two_models(changes, dtype=torch.float64, device="cpu"):
    """The same model with the fast forms and without, no dropout (its masks would differ), a lambda that lets the target be
    heard."""
    config = ModelConfig(
        hidden_size=16, num_blocks=3, max_length=12, dropout=0.0, embedding_dropout=0.0, lambda_uncertainty=0.5, **changes
    )
    torch.manual_seed(0)
    plain = DiffuRec(NUM_ITEMS, config).to(device, dtype)
    return install(copy.deepcopy(plain)), plain


def some_batch(seed, model, padding):
    """Histories of random lengths in a row of their longest plus `padding`, targets, steps, noise and lambda."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 11, (8,), generator=draw)
    width = int(lengths.max()) + padding
    histories = torch.randint(1, NUM_ITEMS + 1, (8, width), generator=draw)
    histories[torch.arange(width) < width - lengths.unsqueeze(1)] = 0
    d, dtype = model.config.hidden_size, model.item_embedding.weight.dtype
    batch = (
        histories, torch.randint(1, NUM_ITEMS + 1, (8,), generator=draw), torch.randint(32, (8,), generator=draw),
        torch.randn(8, d, generator=draw, dtype=dtype), 0.5 + 0.5 * torch.randn(8, width, d, generator=draw, dtype=dtype),
    )
    return [x.to(model.device) for x in batch]


def with_lambda(model, lambda_):
    model.draw_lambda = lambda shape, generator=None: lambda_
    return model


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("seed, padding", [(0, 0), (1, 0), (2, 2)])
def test_losses_and_gradients_are_those_of_the_plain_form(changes, dtype, tolerance, seed, padding, device):
    ours, theirs = two_models(changes, dtype, device)
    histories, targets, t, noise, lambda_ = some_batch(seed, ours, padding)
    with fast_matmul():
        found = with_lambda(ours, lambda_)(histories, targets, t, noise)
        found.mean().backward()
    expected = with_lambda(theirs, lambda_)(histories, targets, t, noise)
    expected.mean().backward()
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters()):
        # A bias of the keys moves all scores alike: its gradient is zero but for rounding, and so compared absolutely.
        scale = max(1.0, float(other.grad.abs().max()))
        torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=tolerance * scale, msg=lambda m: f"{name}: {m}")


@pytest.mark.parametrize("kind", [paper.DiffuRec, paper.DiffuRecSys, paper.SASRec, paper.GRU4Rec])
def test_install_changes_classes_alone_and_switched_off_puts_the_plain_ones_back(kind):
    model = kind(NUM_ITEMS, ModelConfig(hidden_size=8, num_blocks=2, num_heads=2))
    plain, weights = [type(m) for m in model.modules()], {n: t.clone() for n, t in model.state_dict().items()}
    assert install(install(model)) is model and isinstance(model, kind)
    found = {type(m) for m in model.modules()}
    assert found.isdisjoint(forms.FORMS) and forms.FORMS[kind] in found and forms.Dropout in found
    if issubclass(kind, paper.DiffuRec):        # it has a part of each kind
        others = {forms.DiffuRec, forms.DiffuRecSys, forms.SASRec, forms.GRU4Rec} - {forms.FORMS[kind]}
        assert set(forms.FORMS.values()) - found == others
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    with switched_off():
        assert [type(m) for m in install(model).modules()] == plain
    assert type(install(model)) is forms.FORMS[kind]


def test_what_a_user_adds_to_the_model_computes_as_before():
    """Another GELU, another nn.Sequential, a block of one's own that knows only the plain arguments."""
    class Louder(paper.Block):
        def forward(self, x, key_mask=None):
            return 2 * super().forward(x, key_mask)

    class Mine(DiffuRec):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.extra = torch.nn.Sequential(torch.nn.Linear(16, 3), torch.nn.GELU())
            self.approximator.blocks[-1].__class__ = Louder

    torch.manual_seed(0)
    model = Mine(NUM_ITEMS, ModelConfig(hidden_size=16, num_blocks=2)).double().eval()
    x, (histories, *_) = torch.randn(4, 16, dtype=torch.float64), some_batch(0, model, 1)
    expected = model.extra(x), model.predict(histories, generator=torch.Generator().manual_seed(0))
    install(model)
    assert type(model) is Mine and type(model.approximator) is forms.Approximator
    with torch.no_grad():
        assert torch.equal(model.extra(x), expected[0])
    found = model.predict(histories, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, expected[1], rtol=0, atol=1e-9)


def test_training_and_evaluation_install_the_forms_unless_they_are_switched_off():
    data = Dataset("d", NUM_ITEMS, np.tile(np.arange(1, 9), 20), np.arange(0, 161, 8))
    for use in (lambda m: evaluate(m, data, num_steps=1), lambda m: m.recommend([[1, 2]], num_steps=1),
                lambda m: train(m, data, TrainConfig(epochs=1, eval_num_steps=1), log=None)):
        _, model = two_models({}, torch.float32)
        with switched_off():
            use(model)
        assert type(model) is paper.DiffuRec
        use(model)
        assert type(model) is forms.DiffuRec


@pytest.mark.parametrize("changes", VARIANTS)
def test_padding_does_not_change_what_the_fast_form_predicts(changes):
    ours, theirs = two_models(changes)
    histories, _, t, x_t, lambda_ = some_batch(3, ours, 0)
    padded, more = F.pad(histories, (5, 0)), F.pad(lambda_, (0, 0, 5, 0))
    with torch.no_grad():
        found = ours.predict_x_start(*ours.embed_history(histories), x_t, t, lambda_)
        expected = theirs.predict_x_start(*theirs.embed_history(padded), x_t, t, more)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("changes", VARIANTS[:2])
def test_the_first_fifty_steps_of_training_are_those_of_the_plain_form(changes):
    """In float64, so that fifty steps of Adam do not blow rounding up. A wrong gradient in one weight shows within a few."""
    ours, theirs = two_models(changes)
    start = None
    optimizers = [torch.optim.Adam(m.parameters(), lr=3e-3, fused=fused) for m, fused in ((ours, True), (theirs, False))]
    for step in range(50):
        histories, targets, t, noise, lambda_ = some_batch(step % 5, ours, step % 2)
        losses = (
            with_lambda(ours, lambda_)(histories, targets, t, noise).mean(),
            with_lambda(theirs, lambda_)(histories, targets, t, noise).mean(),
        )
        for optimizer, loss in zip(optimizers, losses):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        start = losses[0].detach() if start is None else start
        torch.testing.assert_close(*losses, rtol=1e-7, atol=0)
    assert losses[0] < start - 0.5                                               # they did learn


def test_ranks_are_those_of_the_plain_form():
    ours, theirs = two_models({}, torch.float32)
    histories, targets, _, _, _ = some_batch(4, ours, 0)
    torch.manual_seed(1)
    order = (theirs.eval().predict(histories) @ theirs.item_embedding.weight[1:].T).argsort(dim=1, descending=True)
    expected = (order == (targets - 1).unsqueeze(1)).int().argmax(dim=1) + 1
    torch.manual_seed(1)
    found = expected_ranks(ours, ours.eval().predict(histories), targets)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("changes", VARIANTS[:2])
@pytest.mark.parametrize("padding", [0, 2])
def test_predictions_do_not_depend_on_how_many_are_made_at_a_time(monkeypatch, changes, padding):
    model, plain = two_models(changes)
    model.eval()
    histories = some_batch(5, model, padding)[0]
    found = [plain.eval().predict(histories, generator=torch.Generator().manual_seed(0))]
    for positions in (1 << 12, 3 * histories.shape[1], 1):                       # all 8 users at a time, 3, and 1
        monkeypatch.setattr(forms, "POSITIONS", positions)
        found.append(model.predict(histories, generator=torch.Generator().manual_seed(0)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("changes", VARIANTS[:2])
def test_predictions_in_bfloat16_are_near_those_in_float32(changes, device):
    """x_0 has elements of about 1: 8 bits through three blocks leave 0.05 (0.012 was seen); another seed moves it by 0.16."""
    model, _ = two_models(changes, torch.float32, device)
    model.eval()
    histories = some_batch(6, model, 1)[0]
    full, half = (
        model.predict(histories, generator=torch.Generator(device).manual_seed(0), precision=precision)
        for precision in ("float32", "bfloat16")
    )
    assert half.dtype == torch.float32 and not torch.equal(half, full)
    torch.testing.assert_close(half, full, rtol=0, atol=0.05)


@pytest.mark.parametrize("precision", ["bf16", "float16", "", None, 16, ["bfloat16"]], ids=repr)
def test_a_precision_that_is_none_is_refused_in_a_sentence_that_names_it(refused, precision):
    model, _ = two_models({})
    with refused("precision = …", ValueError) as error:
        model.predict(torch.ones(1, 1, dtype=torch.long), precision=precision)
    assert str(error.value) == f"precision must be one of float32, bfloat16, but it is {precision!r}."


def test_a_large_catalogue_trains_in_chunks(monkeypatch):
    """The same step whatever the chunk: the gradients of one chunk and of many differ by rounding alone."""
    grads = []
    for chunk in (1 << 16, 7):
        monkeypatch.setattr(catalogue, "ITEM_CHUNK", chunk)
        model, _ = two_models({})
        histories, targets, t, noise, lambda_ = some_batch(0, model, 0)
        with_lambda(model, lambda_)(histories, targets, t, noise).mean().backward()
        grads.append(model.item_embedding.weight.grad)
    torch.testing.assert_close(*grads, rtol=0, atol=1e-12)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_memory_is_kept_within_and_given_back_after():
    """64 MiB of float32, touched and freed: what the process holds goes down at once without, and only after, kept_memory."""
    def held():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def touch():
        torch.ones(2**24)

    touch()
    before = held()
    touch()
    assert held() < before + 32
    with kept_memory():
        touch()
        assert held() > before + 32
    assert held() < before + 32
