"""The fast forms against their plain ones: outputs and gradients, in float64 where rounding would hide a mistake."""

import pytest
import torch
import torch.nn.functional as F

from diffurec import fast
from diffurec.fast import Dropout, TanhGELU, catalogue_cross_entropy, fast_matmul


def value_and_gradients(function, *tensors):
    tensors = [t.detach().clone().requires_grad_() for t in tensors]
    value = function(*tensors)
    weights = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).view_as(value)  # not the same for every example
    return value.detach(), *torch.autograd.grad((value * weights).sum(), tensors)


@pytest.mark.parametrize("chunk", [1, 7, 40, 41, 100])
@pytest.mark.parametrize("scale", [0.1, 100.0])          # 100: scores of thousands, which overflow without the maximum
def test_catalogue_cross_entropy_is_cross_entropy(monkeypatch, chunk, scale):
    monkeypatch.setattr(fast, "ITEM_CHUNK", chunk)
    torch.manual_seed(0)
    x, items = torch.randn(9, 6, dtype=torch.float64) * scale, torch.randn(42, 6, dtype=torch.float64) * scale
    targets = torch.tensor([1, 41, 7, 8, 7, 7, 14, 15, 40])
    plain = value_and_gradients(lambda x, e: F.cross_entropy(x @ e[1:].T, targets - 1, reduction="none"), x, items)
    ours = value_and_gradients(lambda x, e: catalogue_cross_entropy(x, e, targets), x, items)
    for a, b in zip(ours, plain):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert (ours[2][0] == 0).all()                                               # nothing reaches the padding row


def test_catalogue_cross_entropy_is_not_finite_where_its_input_is_not():
    x, items = torch.ones(2, 4), torch.ones(6, 4)
    x[1, 2] = torch.nan
    assert catalogue_cross_entropy(x, items, torch.tensor([1, 2])).isfinite().tolist() == [True, False]


def test_tanh_gelu_is_torchs():
    x = torch.linspace(-30, 30, 2001, dtype=torch.float64)
    plain = value_and_gradients(lambda x: F.gelu(x, approximate="tanh"), x)
    for a, b in zip(value_and_gradients(TanhGELU(), x), plain):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


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
