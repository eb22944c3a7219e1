"""The Gaussian diffusion behind DiffuRec: noise schedules, q_sample, the posterior and its respaced steps.

T      steps of noise, num_steps              x_0  the target's embedding, x_start, [B, d]
s      a step, 1..T; in tensors t = s - 1     x_s  it after s steps of noise, x_t, [B, d]
b_s    variance that step s adds, betas [T]   eps  ~ N(0, I), [B, d], moved by offset noise if that is on
a_s    1 - b_s                                r    strength of the offset noise
A_s    a_1 ... a_s, alphas_cumprod [T]
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..base.checks import whole
from .config import NoiseSchedule, OffsetNoise


def _betas_from_alpha_bar(alpha_bar: Callable[[float], float], num_steps: int, max_beta: float = 0.999) -> np.ndarray:
    """betas whose cumulative product of (1 - beta) follows alpha_bar(u), u in 0..1 (Nichol & Dhariwal 2021)."""
    u = np.arange(num_steps + 1) / num_steps                                     # [T + 1], from 0 to 1
    survival = np.array([alpha_bar(x) for x in u])                               # [T + 1], how much signal is left
    return np.minimum(1 - survival[1:] / survival[:-1], max_beta)                # below 1: with b_T = 1 nothing would be left


def linear(num_steps: int) -> np.ndarray:
    """beta from 0.0001 to 0.02 at T = 1000 (Ho et al. 2020), stretched to any T; kept at most 0.999."""
    scale = 1000 / num_steps
    return np.minimum(np.linspace(scale * 0.0001, scale * 0.02, num_steps), 0.999)


def truncated_linear(num_steps: int) -> np.ndarray:
    """DiffuRec's schedule: linear, raised by 0.01; an end above 1 (T < 21) is lowered to scale * 0.001 + 0.01."""
    scale = 1000 / num_steps
    start, end = scale * 0.0001 + 0.01, scale * 0.02 + 0.01                      # at T = 32: from 0.0131 to 0.635
    if end > 1:
        end = scale * 0.001 + 0.01
    return np.linspace(start, end, num_steps)


def cosine(num_steps: int) -> np.ndarray:
    """alpha_bar(u) = cos^2((u + 0.008) / 1.008 * pi / 2) (Nichol & Dhariwal 2021)."""
    return _betas_from_alpha_bar(lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2, num_steps)


def sqrt(num_steps: int) -> np.ndarray:
    """alpha_bar(u) = 1 - sqrt(u + 0.0001) (Diffusion-LM, Li et al. 2022)."""
    return _betas_from_alpha_bar(lambda u: 1 - math.sqrt(u + 0.0001), num_steps)


def truncated_cosine(num_steps: int) -> np.ndarray:
    """The cosine schedule with offset 0.1, one step later: the first beta takes what alpha_bar(0) lacks to 1."""
    def alpha_bar(u: float) -> float:
        return math.cos((u + 0.1) / 1.1 * math.pi / 2) ** 2

    shifted = _betas_from_alpha_bar(alpha_bar, num_steps)[:-1]                   # [T - 1]
    return np.concatenate([[1 - alpha_bar(0)], shifted])


NOISE_SCHEDULES: dict[str, Callable[[int], np.ndarray]] = {
    f.__name__: f for f in (truncated_linear, linear, cosine, sqrt, truncated_cosine)
}


class GaussianDiffusion(nn.Module):
    """q(x_t | x_0), the posterior q(x_{t-1} | x_t, x_0) and the steps of the reverse process, on the model's device."""

    betas: Tensor
    alphas_cumprod: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor

    def __init__(
        self, num_steps: int = 32, noise_schedule: NoiseSchedule = "truncated_linear", offset_noise: OffsetNoise = "none",
        offset_strength: float = 0.1,
    ):
        super().__init__()
        self.offset_noise, self.offset_strength = offset_noise, offset_strength
        betas = NOISE_SCHEDULES[noise_schedule](num_steps)                       # [T], b_s
        alphas_cumprod = np.cumprod(1 - betas)                                   # [T], A_s
        if not ((betas > 0).all() and (betas <= 1).all()):
            raise ValueError(f"The {noise_schedule} schedule leaves (0, 1] at {num_steps} steps; take more steps.")
        self.num_steps = num_steps                                               # T
        # Buffers that follow the model to its device but are not saved: the schedule's name recreates them.
        self.register_buffer("betas", torch.tensor(betas, dtype=torch.float32), persistent=False)
        self.register_buffer("alphas_cumprod", torch.tensor(alphas_cumprod, dtype=torch.float32), persistent=False)
        # 1 - A_s from float64, because a rounded A_s near 1 leaves it few right digits.
        for name, values in (("sqrt_alphas_cumprod", alphas_cumprod), ("sqrt_one_minus_alphas_cumprod", 1 - alphas_cumprod)):
            self.register_buffer(name, torch.tensor(np.sqrt(values), dtype=torch.float32), persistent=False)
        self._alphas_cumprod = alphas_cumprod                                    # float64, for the coefficients

    def draw_noise(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """eps of the forward process, shape [..., d]: N(0, I) moved by offset noise of strength r, if that is on.

        constant: eps + r, so N(r 1, I): [2] with c = 1 and r = 0.1.
        shared: eps + r xi with one xi ~ N(0, 1) per example over all its dimensions, as in image diffusion: I + r^2 11^T.
        elementwise: eps + r xi with a xi for every element, what the released code did: N(0, (1 + r^2) I), no offset.
        With r = 0, as with "none", the draws are those of plain noise and nothing more is drawn. The reverse process
        draws plain noise always.
        """
        def randn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=self.betas.device)

        noise = randn(*shape)                                                    # eps ~ N(0, I), [..., d]
        if self.offset_noise == "none" or self.offset_strength == 0:
            return noise
        if self.offset_noise == "constant":
            return noise + self.offset_strength                                  # [2] eq. 17: N(r 1, I)
        xi = randn(*shape[:-1], 1) if self.offset_noise == "shared" else randn(*shape)
        return noise + self.offset_strength * xi

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_s = sqrt(A_s) x_0 + sqrt(1 - A_s) eps. x_start, noise: [B, d]; t: [B] in 0..T-1."""
        signal, spread = self.sqrt_alphas_cumprod[t], self.sqrt_one_minus_alphas_cumprod[t]     # [B] each
        return signal.unsqueeze(-1) * x_start + spread.unsqueeze(-1) * noise     # [2] eq. 20

    def posterior_coefficients(self, t: int, t_prev: int | None = None) -> tuple[float, float, float]:
        """(c_0, c_s, var) of q(x_{t_prev} | x_t, x_0) = N(c_0 x_0 + c_s x_t, var I); t_prev = -1 is x_0 itself.

        With the step from t_prev to t as one step, a = A_t / A_prev and b = 1 - a:
        c_0 = sqrt(A_prev) b / (1 - A_t), c_s = sqrt(a) (1 - A_prev) / (1 - A_t), var = (1 - A_prev) / (1 - A_t) b.
        """
        t_prev = t - 1 if t_prev is None else t_prev
        a_t = self._alphas_cumprod[t]                                            # A_s
        a_prev = self._alphas_cumprod[t_prev] if t_prev >= 0 else 1.0            # A_0 = 1: x_0 has no noise
        alpha = a_t / a_prev                                                     # of all that was left out in between
        beta = 1 - alpha                                                         # b
        c_start = math.sqrt(a_prev) * beta / (1 - a_t)                           # how much of x_0_hat
        c_t = math.sqrt(alpha) * (1 - a_prev) / (1 - a_t)                        # [2] prints sqrt(A_s) for its first factor
        variance = (1 - a_prev) / (1 - a_t) * beta                               # the posterior's, not b_s
        return c_start, c_t, variance

    def respaced_steps(self, num_steps: int | None = None) -> list[int]:
        """The reverse process's steps from T-1 down, `num_steps` of them evenly spaced; None takes all.

        The noisiest step is always among them: the process starts from pure noise. ValueError for anything but a
        whole number in 1..T.
        """
        num_steps = self.num_steps if num_steps is None else whole(num_steps, "num_steps", most=self.num_steps)
        return np.linspace(self.num_steps - 1, 0, num_steps).round().astype(int).tolist()

    def p_sample_loop(
        self, predict_x_start: Callable[[Tensor, Tensor], Tensor], x_t: Tensor,
        num_steps: int | None = None, generator: torch.Generator | None = None,
    ) -> Tensor:
        """Reverse process from x_T: [B, d] to x_0, where predict_x_start(x_t, t) estimates x_0 at each step.

        x_prev = c_0 x_0_hat + c_s x_t + sqrt(var) eps'; the last step has var = 0 and c_s = 0, so it returns x_0_hat.
        """
        steps = self.respaced_steps(num_steps)                                   # [T-1, ..., 0], or some of them
        for t, t_prev in zip(steps, steps[1:] + [-1]):
            x_start = predict_x_start(x_t, torch.full((len(x_t),), t, device=x_t.device))   # x_0_hat, [B, d]
            c_start, c_t, variance = self.posterior_coefficients(t, t_prev)
            x_t = c_start * x_start + c_t * x_t                                  # [2] eq. 23: the mean
            if t_prev >= 0:                                                      # no noise on x_0 itself
                noise = torch.randn(x_t.shape, generator=generator, device=x_t.device, dtype=x_t.dtype)  # [B, d]
                x_t = x_t + math.sqrt(variance) * noise                          # [2] prints the variance, without its root
        return x_t
