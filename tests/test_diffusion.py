"""The diffusion: noise schedules, q_sample, the posterior against Bayes' rule, respaced steps, the reverse process."""

import math

import numpy as np
import pytest
import torch

from diffurec import NOISE_SCHEDULES, GaussianDiffusion

SIZES = [1, 2, 5, 19, 20, 21, 32, 100, 1000]
every_schedule = pytest.mark.parametrize("name", NOISE_SCHEDULES)
every_size = pytest.mark.parametrize("num_steps", SIZES)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# Schedules

def test_the_five_schedules_are_offered():
    assert set(NOISE_SCHEDULES) == {"truncated_linear", "linear", "cosine", "sqrt", "truncated_cosine"}


@every_schedule
@every_size
def test_every_beta_lies_in_0_to_1(name, num_steps):
    betas = GaussianDiffusion(num_steps, name).betas
    assert betas.shape == (num_steps,)
    assert ((betas > 0) & (betas <= 1)).all()


@every_schedule
@every_size
def test_alphas_cumprod_falls_strictly_from_below_1_and_stays_above_0(name, num_steps):
    alphas_cumprod = GaussianDiffusion(num_steps, name).alphas_cumprod
    assert alphas_cumprod.shape == (num_steps,)
    assert alphas_cumprod[0] < 1 and alphas_cumprod[-1] > 0
    assert (alphas_cumprod.diff() < 0).all()


@every_schedule
@every_size
def test_alphas_cumprod_is_the_running_product_of_1_minus_beta(name, num_steps):
    diffusion = GaussianDiffusion(num_steps, name)
    product, expected = 1.0, []
    for beta in NOISE_SCHEDULES[name](num_steps):
        product *= 1 - beta
        expected.append(product)
    np.testing.assert_allclose(diffusion.alphas_cumprod, expected, rtol=1e-6)
    np.testing.assert_allclose(diffusion.betas, NOISE_SCHEDULES[name](num_steps), rtol=1e-6)


def test_truncated_linear_at_32_steps_is_that_of_the_paper():
    diffusion = GaussianDiffusion(32, "truncated_linear")
    assert diffusion.betas[0].item() == pytest.approx(0.0131, abs=5e-5)
    assert diffusion.betas[-1].item() == pytest.approx(0.635, abs=5e-4)
    assert diffusion.alphas_cumprod[-1].item() == pytest.approx(1e-6, rel=0.05)


def test_truncated_linear_with_32_steps_is_the_default():
    diffusion = GaussianDiffusion()
    torch.testing.assert_close(diffusion.betas, GaussianDiffusion(32, "truncated_linear").betas, rtol=0, atol=0)


@every_size
def test_truncated_linear_follows_the_released_formula(num_steps):
    """beta runs evenly from 0.1 / T + 0.01 to 20 / T + 0.01; where that would exceed 1, to 1 / T + 0.01."""
    first, last = 0.1 / num_steps + 0.01, 20 / num_steps + 0.01
    if last > 1:
        last = 1 / num_steps + 0.01
    steps = max(num_steps - 1, 1)
    expected = [first + (last - first) * i / steps for i in range(num_steps)]
    np.testing.assert_allclose(NOISE_SCHEDULES["truncated_linear"](num_steps), expected, rtol=1e-12)


def test_linear_at_1000_steps_is_that_of_ho_et_al():
    betas = NOISE_SCHEDULES["linear"](1000)
    np.testing.assert_allclose(betas, [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)], rtol=1e-12)


@pytest.mark.parametrize("num_steps", [21, 32, 100])
def test_linear_at_fewer_steps_is_stretched_so_that_the_sum_of_betas_stays(num_steps):
    """T betas, each 1000/T times as large: their sum is 1000 times the mean of 0.0001 and 0.02 at every T."""
    assert NOISE_SCHEDULES["linear"](num_steps).sum() == pytest.approx(1000 * (0.0001 + 0.02) / 2)


@pytest.mark.parametrize("num_steps", [5, 32, 1000])
def test_cosine_follows_its_alpha_bar_but_for_the_capped_last_step(num_steps):
    def f(u):
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    expected = [f((s + 1) / num_steps) / f(0) for s in range(num_steps - 1)]
    found = np.cumprod(1 - NOISE_SCHEDULES["cosine"](num_steps))
    np.testing.assert_allclose(found[:-1], expected, rtol=1e-9)
    assert NOISE_SCHEDULES["cosine"](num_steps)[-1] == 0.999


@pytest.mark.parametrize("num_steps", [5, 32, 1000])
def test_sqrt_follows_its_alpha_bar_but_for_the_capped_last_step(num_steps):
    expected = [(1 - math.sqrt((s + 1) / num_steps + 1e-4)) / 0.99 for s in range(num_steps - 1)]
    found = np.cumprod(1 - NOISE_SCHEDULES["sqrt"](num_steps))
    np.testing.assert_allclose(found[:-1], expected, rtol=1e-9)
    assert NOISE_SCHEDULES["sqrt"](num_steps)[-1] == 0.999


@pytest.mark.parametrize("num_steps", [1, 2, 5, 32, 1000])
def test_truncated_cosine_is_its_alpha_bar_one_step_late(num_steps):
    """A_s = alpha_bar((s - 1) / T): the schedule starts at alpha_bar(0) < 1 and stops before alpha_bar(1) = 0."""
    expected = [math.cos((t / num_steps + 0.1) / 1.1 * math.pi / 2) ** 2 for t in range(num_steps)]
    np.testing.assert_allclose(np.cumprod(1 - NOISE_SCHEDULES["truncated_cosine"](num_steps)), expected, rtol=1e-9)


def test_a_schedule_that_leaves_0_to_1_is_refused(monkeypatch, refused):
    monkeypatch.setitem(NOISE_SCHEDULES, "steep", lambda num_steps: np.linspace(0.5, 1.5, num_steps))
    with refused("a schedule outside (0, 1]", ValueError, match=r"steep schedule leaves \(0, 1\] at 4 steps"):
        GaussianDiffusion(4, "steep")


@pytest.mark.parametrize("first, refused", [(1e-9, False), (1.0, False), (0.0, True), (-0.5, True), (1.0001, True)])
def test_a_beta_may_be_1_and_must_be_above_0(monkeypatch, first, refused):
    monkeypatch.setitem(NOISE_SCHEDULES, "given", lambda num_steps: np.array([first, 0.5]))
    if refused:
        with pytest.raises(ValueError, match=r"given schedule leaves \(0, 1\] at 2 steps"):
            GaussianDiffusion(2, "given")
    else:
        assert GaussianDiffusion(2, "given").betas[0].item() == pytest.approx(first)


def test_the_schedule_is_not_part_of_the_saved_weights():
    assert not GaussianDiffusion().state_dict()


# The forward process

@pytest.mark.parametrize("t", [0, 7, 15, 31])
def test_q_sample_has_the_closed_forms_mean_and_variance(t):
    # 4 x 50,000 draws. Bound: 5 standard errors of the mean and of the variance (5.7e-7 a check by chance; the seed is
    # fixed). A standard error is about 0.3 % of the deviation, so an error of 2 % in a coefficient fails.
    diffusion, n = GaussianDiffusion(), 50_000
    x_start = torch.tensor([-2.0, -0.5, 0.3, 3.0]).expand(n, 4)
    noise = torch.randn(n, 4, generator=seeded(t))
    samples = diffusion.q_sample(x_start, torch.full((n,), t), noise).double()
    product = np.prod(1 - NOISE_SCHEDULES["truncated_linear"](32)[:t + 1])
    mean, variance = math.sqrt(product) * x_start[0].double(), 1 - product
    assert ((samples.mean(0) - mean).abs() < 5 * math.sqrt(variance / n)).all()
    assert ((samples.var(0) / variance - 1).abs() < 5 * math.sqrt(2 / (n - 1))).all()


@pytest.mark.parametrize("reading, shape", [("constant", None), ("shared", (2, 3, 1)), ("elementwise", (2, 3, 4))])
def test_offset_noise_is_the_plain_noise_and_what_is_drawn_after_it(reading, shape):
    generator = seeded(0)
    expected = torch.randn(2, 3, 4, generator=generator)
    expected = expected + 0.5 * (torch.randn(shape, generator=generator) if shape else 1)
    found = GaussianDiffusion(4, offset_noise=reading, offset_strength=0.5).draw_noise((2, 3, 4), seeded(0))
    assert torch.equal(found, expected)


def test_offset_noise_is_off_and_of_strength_a_tenth_unless_said_otherwise():
    plain = torch.randn(2, 3, generator=seeded(0))
    assert torch.equal(GaussianDiffusion().draw_noise((2, 3), seeded(0)), plain)
    assert torch.equal(GaussianDiffusion(offset_noise="constant").draw_noise((2, 3), seeded(0)), plain + 0.1)


@pytest.mark.parametrize("name", NOISE_SCHEDULES)
@pytest.mark.parametrize("num_steps", [32, 1000])
def test_q_sample_has_all_digits_of_the_noise_at_the_first_steps(name, num_steps):
    """1 - A_s from a rounded A_s is 2.6e-4 off at cosine, T = 1000. float32 has 6e-8."""
    process = GaussianDiffusion(num_steps, name)
    t = torch.arange(num_steps)
    ones, zeros = torch.ones(num_steps, 1), torch.zeros(num_steps, 1)
    survival = np.cumprod(1 - NOISE_SCHEDULES[name](num_steps))
    for found, expected in ((process.q_sample(ones, t, zeros), survival), (process.q_sample(zeros, t, ones), 1 - survival)):
        np.testing.assert_allclose(found.squeeze(1).numpy(), np.sqrt(expected), rtol=2e-7)


def test_q_sample_takes_the_step_of_each_row():
    diffusion = GaussianDiffusion()
    x_start, noise = torch.randn(32, 3, generator=seeded(0)), torch.randn(32, 3, generator=seeded(1))
    t = torch.arange(32).flip(0)
    together = diffusion.q_sample(x_start, t, noise)
    for row in range(32):
        alone = diffusion.q_sample(x_start[row:row + 1], t[row:row + 1], noise[row:row + 1])
        torch.testing.assert_close(together[row:row + 1], alone)


@every_schedule
@pytest.mark.parametrize("num_steps", [5, 32, 100])
def test_q_sample_is_the_composition_of_the_single_steps(name, num_steps):
    """x_s = sqrt(1 - b_s) x_{s-1} + sqrt(b_s) eps, s times over, has q_sample's mean and variance at every s."""
    diffusion = GaussianDiffusion(num_steps, name)
    scale, variance = 1.0, 0.0                                      # of x_s given x_0 = 1, carried from step to step
    for t, beta in enumerate(NOISE_SCHEDULES[name](num_steps)):
        scale, variance = math.sqrt(1 - beta) * scale, (1 - beta) * variance + beta
        one, zero, step = torch.ones(1, 1), torch.zeros(1, 1), torch.tensor([t])
        assert diffusion.q_sample(one, step, zero).item() == pytest.approx(scale, rel=1e-5)
        # 1 - A_s is taken in float32, where a number near 1 is known to 6e-8.
        assert diffusion.q_sample(zero, step, one).item() ** 2 == pytest.approx(variance, rel=1e-5, abs=1.2e-7)


# The posterior

PAIRS = [(1, 0), (2, 1), (16, 15), (31, 30), (10, 3), (31, 0), (31, 16), (5, 0), (20, 2)]


@every_schedule
@pytest.mark.parametrize("t, t_prev", PAIRS)
def test_the_posterior_is_bayes_rule(name, t, t_prev):
    """q(x_prev | x_t, x_0) is proportional to q(x_t | x_prev) q(x_prev | x_0), integrated here in one dimension."""
    betas = NOISE_SCHEDULES[name](32)
    a_prev, between = np.prod(1 - betas[:t_prev + 1]), np.prod(1 - betas[t_prev + 1:t + 1])
    grid = np.linspace(-12, 12, 48_001)                             # step 0.0005, below 1 % of every deviation here
    c_start, c_t, variance = GaussianDiffusion(32, name).posterior_coefficients(t, t_prev)
    for x_start, x_t in [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (-1.3, 0.8)]:
        prior = (grid - math.sqrt(a_prev) * x_start) ** 2 / (1 - a_prev)
        likelihood = (x_t - math.sqrt(between) * grid) ** 2 / (1 - between)
        exponent = -(prior + likelihood) / 2
        weight = np.exp(exponent - exponent.max())
        weight /= weight.sum()
        mean = (weight * grid).sum()
        assert c_start * x_start + c_t * x_t == pytest.approx(mean, abs=1e-8)
        assert variance == pytest.approx((weight * (grid - mean) ** 2).sum(), rel=1e-6)


@every_schedule
@pytest.mark.parametrize("s", [2, 3, 16, 31, 32])
def test_the_posterior_of_adjacent_steps_is_the_papers_formula(name, s):
    b = [None, *NOISE_SCHEDULES[name](32)]                           # b[s], counted from 1 as in the paper
    product = [1.0]
    for beta in b[1:]:
        product.append(product[-1] * (1 - beta))                    # product[s] = A_s
    found = GaussianDiffusion(32, name).posterior_coefficients(s - 1)
    expected = (
        math.sqrt(product[s - 1]) * b[s] / (1 - product[s]),
        math.sqrt(1 - b[s]) * (1 - product[s - 1]) / (1 - product[s]),
        (1 - product[s - 1]) / (1 - product[s]) * b[s],
    )
    assert found == pytest.approx(expected, rel=1e-9)


@every_schedule
@pytest.mark.parametrize("t", [0, 1, 16, 31])
def test_the_posterior_at_x_0_is_x_0_itself(name, t):
    assert GaussianDiffusion(32, name).posterior_coefficients(t, -1) == (1.0, 0.0, 0.0)


def test_the_step_before_t_is_the_default():
    diffusion = GaussianDiffusion()
    assert diffusion.posterior_coefficients(7) == diffusion.posterior_coefficients(7, 6)
    assert diffusion.posterior_coefficients(0) == diffusion.posterior_coefficients(0, -1)


# Respaced steps

@every_size
def test_all_steps_are_taken_by_default(num_steps):
    assert GaussianDiffusion(num_steps).respaced_steps() == list(range(num_steps - 1, -1, -1))


def test_as_many_steps_as_there_are_is_all_of_them():
    assert GaussianDiffusion(32).respaced_steps(32) == list(range(31, -1, -1))


def test_a_single_step_is_the_noisiest():
    assert GaussianDiffusion(32).respaced_steps(1) == [31]


@pytest.mark.parametrize("total", [2, 3, 32, 1000])
def test_respaced_steps_fall_strictly_from_the_noisiest_to_0(total):
    diffusion = GaussianDiffusion(total)
    for wanted in range(2, min(total, 200) + 1):
        steps = diffusion.respaced_steps(wanted)
        assert len(steps) == wanted and steps[0] == total - 1 and steps[-1] == 0
        assert all(a > b for a, b in zip(steps, steps[1:])), steps


def test_respaced_steps_are_evenly_spaced():
    """Two gaps between neighbours differ by at most one, as far as whole numbers allow."""
    for wanted in range(2, 33):
        gaps = -np.diff(GaussianDiffusion(32).respaced_steps(wanted))
        assert gaps.max() - gaps.min() <= 1, wanted


@pytest.mark.parametrize("wanted", [0, -1, 33, 1000])
def test_a_number_of_steps_out_of_range_is_refused(wanted, refused):
    with refused(f"{wanted} of 32 reverse steps", ValueError, match=rf"between 1 and 32, but it is {wanted}\."):
        GaussianDiffusion(32).respaced_steps(wanted)


# The reverse process

@pytest.mark.parametrize("num_steps", [1, 2, 5, 31, 32, None])
def test_a_perfect_denoiser_is_returned_exactly(num_steps):
    """Whatever the noise did before, the last step is x_0_hat, without noise and to the last bit."""
    diffusion, x_start = GaussianDiffusion(), torch.randn(6, 4, generator=seeded(1))
    x_t = torch.randn(6, 4, generator=seeded(2))
    result = diffusion.p_sample_loop(lambda x, t: x_start, x_t, num_steps, seeded(3))
    assert torch.equal(result, x_start)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 32])
def test_the_denoiser_is_asked_once_at_each_respaced_step(num_steps):
    diffusion, seen = GaussianDiffusion(), []

    def spy(x, t):
        assert x.shape == (3, 4) and t.shape == (3,)
        seen.append(t.tolist())
        return x

    diffusion.p_sample_loop(spy, torch.randn(3, 4, generator=seeded(0)), num_steps, seeded(1))
    assert seen == [[t] * 3 for t in diffusion.respaced_steps(num_steps)]


@pytest.mark.parametrize("num_steps", [1, 2, 7, 32])
def test_noise_is_drawn_once_a_step_but_for_the_last(num_steps):
    generator, other = seeded(5), seeded(5)
    GaussianDiffusion().p_sample_loop(lambda x, t: x, torch.zeros(3, 4), num_steps, generator)
    for _ in range(num_steps - 1):
        torch.randn(3, 4, generator=other)
    assert torch.equal(torch.randn(8, generator=generator), torch.randn(8, generator=other))


def test_every_step_is_the_posterior_of_that_step():
    """Over 4 respaced steps: x_prev = c_0 x_0_hat + c_s x_t + sqrt(var) eps', with eps' from the generator in turn."""
    diffusion, other, inputs = GaussianDiffusion(), seeded(5), []

    def denoiser(x, t):
        inputs.append(x.clone())
        return torch.tanh(x)

    x = torch.randn(3, 4, generator=seeded(4))
    diffusion.p_sample_loop(denoiser, x, 4, seeded(5))
    for step, (t, t_prev) in enumerate([(31, 21), (21, 10), (10, 0)]):
        torch.testing.assert_close(inputs[step], x)
        c_start, c_t, variance = diffusion.posterior_coefficients(t, t_prev)
        x = c_start * torch.tanh(x) + c_t * x + math.sqrt(variance) * torch.randn(3, 4, generator=other)
    torch.testing.assert_close(inputs[3], x)


def sample_gaussian(schedule, total, num_steps, m, s, n, seed):
    """n samples of the reverse process with the best denoiser there is for x_0 ~ N(m, s^2), and the exact
    (mean, variance) that the process has with it, carried from step to step: every step is linear in x_t."""
    diffusion = GaussianDiffusion(total, schedule)
    product = np.cumprod(1 - NOISE_SCHEDULES[schedule](total))

    def line(t):
        """E[x_0 | x_t] = intercept + slope x_t."""
        marginal = s ** 2 * product[t] + 1 - product[t]
        return m * (1 - product[t]) / marginal, s ** 2 * math.sqrt(product[t]) / marginal

    def denoiser(x, t):
        intercept, slope = line(int(t[0]))
        return intercept + slope * x

    samples = diffusion.p_sample_loop(denoiser, torch.randn(n, 1, generator=seeded(seed)), num_steps, seeded(seed + 1))
    mean, variance = 0.0, 1.0
    steps = diffusion.respaced_steps(num_steps)
    for t, t_prev in zip(steps, [*steps[1:], None]):
        intercept, slope = line(t)
        if t_prev is None:
            mean, variance = intercept + slope * mean, slope ** 2 * variance
            break
        between = product[t] / product[t_prev]
        to_start = math.sqrt(product[t_prev]) * (1 - between) / (1 - product[t])
        to_x = math.sqrt(between) * (1 - product[t_prev]) / (1 - product[t])
        noise = (1 - product[t_prev]) * (1 - between) / (1 - product[t])
        mean, variance = to_start * (intercept + slope * mean) + to_x * mean, \
            (to_start * slope + to_x) ** 2 * variance + noise
    return samples.double().squeeze(1), mean, variance


@pytest.mark.parametrize("schedule, total, num_steps", [
    ("truncated_linear", 32, None), ("truncated_linear", 32, 8), ("truncated_linear", 32, 2), ("linear", 1000, None),
    ("cosine", 100, 25), ("sqrt", 100, None),
])
def test_samples_with_the_best_denoiser_have_the_process_own_mean_and_variance(schedule, total, num_steps):
    # Bound: 5 standard errors, 20,000 samples, seed fixed. An error of 3.5 % of the standard deviation in the mean, or
    # of 5 % in the variance, fails.
    n = 20_000
    samples, mean, variance = sample_gaussian(schedule, total, num_steps, m=0.7, s=0.5, n=n, seed=11)
    assert abs(samples.mean().item() - mean) < 5 * math.sqrt(variance / n)
    assert abs(samples.var().item() / variance - 1) < 5 * math.sqrt(2 / (n - 1))


def test_with_many_steps_the_samples_are_those_of_the_data():
    """With the best denoiser and 1000 small steps, N(0.7, 0.5^2) comes back out of pure noise."""
    # A step leaves out only c_0^2 Var[x_0 | x_t], so the mean is right to sqrt(A_T) m < 0.005 and the variance is short
    # by less than 3 % at 1000 steps. Bound: 5 standard errors of 20,000 samples on top; the seed is fixed.
    n, m, s = 20_000, 0.7, 0.5
    samples, _, _ = sample_gaussian("linear", 1000, None, m, s, n, seed=13)
    assert abs(samples.mean().item() - m) < 0.005 + 5 * s / math.sqrt(n)
    assert abs(samples.var().item() / s ** 2 - 1) < 0.03 + 5 * math.sqrt(2 / (n - 1))


def test_fewer_steps_give_too_little_variance():
    """One step returns E[x_0 | x_T], about m with no spread; 32 steps spread less than the data, 1000 about as much."""
    # By the exact recursion the variances are 0, 0.70 and 0.98 of s^2; 20,000 samples know them to 0.01. The seed is
    # fixed. The mean's bound, 0.01, is 100 times what x_T can move it.
    one, few, many = [
        sample_gaussian(schedule, total, num_steps, m=0.7, s=0.5, n=20_000, seed=17)[0]
        for schedule, total, num_steps in [
            ("truncated_linear", 32, 1), ("truncated_linear", 32, 32), ("linear", 1000, None)]
    ]
    assert one.mean().item() == pytest.approx(0.7, abs=0.01)
    assert one.var() < 1e-4 < few.var() < many.var()


def test_the_generator_decides_the_result():
    diffusion, x_t = GaussianDiffusion(), torch.randn(3, 4, generator=seeded(0))
    run = lambda seed: diffusion.p_sample_loop(lambda x, t: x / 2, x_t, 8, seeded(seed))  # noqa: E731
    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_with_a_generator_the_global_random_numbers_stay_untouched():
    before = torch.get_rng_state()
    GaussianDiffusion().p_sample_loop(lambda x, t: x / 2, torch.zeros(3, 4), 8, seeded(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_starting_noise_is_not_changed_in_place():
    x_t = torch.randn(3, 4, generator=seeded(0))
    before = x_t.clone()
    GaussianDiffusion().p_sample_loop(lambda x, t: x / 2, x_t, 8, seeded(1))
    assert torch.equal(x_t, before)


def test_the_reverse_process_keeps_the_type_of_its_numbers():
    result = GaussianDiffusion().p_sample_loop(lambda x, t: x / 2, torch.zeros(3, 4, dtype=torch.float64), 8, seeded(1))
    assert result.dtype == torch.float64
