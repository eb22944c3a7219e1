"""Settings of the model and of its training, as frozen dataclasses that refuse unknown keys."""

import difflib
import math
from dataclasses import dataclass, fields

from .diffusion import NOISE_SCHEDULES


class Config:
    """What both configurations share: building from a mapping that may come from a file or a notebook."""

    @classmethod
    def from_dict(cls, settings):
        """The configuration holding `settings`; ValueError on a key that is not a setting."""
        known = [f.name for f in fields(cls)]
        for key in settings:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise ValueError(f"{cls.__name__} has no setting {key!r}{hint}; it knows {', '.join(known)}.")
        return cls(**settings)

    def _require(self, condition, name, rule):
        if not condition:
            raise ValueError(f"{name} must be {rule}, but it is {getattr(self, name)!r}.")

    def _require_whole(self, names, least=1):
        for name in names:
            value = getattr(self, name)
            self._require(type(value) is int and value >= least, name, f"a whole number of at least {least}")

    def _require_real(self, names, condition, rule):
        for name in names:
            value = getattr(self, name)
            real = type(value) in (int, float) and math.isfinite(value)         # neither a string nor a bool
            self._require(real and condition(value), name, f"a finite number {rule}")


@dataclass(frozen=True)
class ModelConfig(Config):
    """DiffuRec's architecture and diffusion (Li et al. 2023); the defaults are its settings but for `embedding_std`.

    The released code draws item embeddings with standard deviation 1, so that the loss starts at 40-50 and many
    epochs go into undoing it. 0.1 starts near ln(num_items) and trains well.
    """

    hidden_size: int = 128            # d, the width of items, histories and steps
    num_blocks: int = 4               # Transformer blocks of the Approximator
    num_heads: int = 4                # attention heads; must divide hidden_size
    max_length: int = 50              # L: a history is cut to its latest L items
    dropout: float = 0.1              # after each sublayer
    embedding_dropout: float = 0.3    # on the history's embeddings, before their LayerNorm
    embedding_std: float = 0.1        # standard deviation of the initial item embeddings
    num_diffusion_steps: int = 32     # T
    noise_schedule: str = "truncated_linear"
    lambda_uncertainty: float = 0.001  # delta: mean and standard deviation of lambda

    def __post_init__(self):
        self._require_whole(("hidden_size", "num_blocks", "num_heads", "max_length", "num_diffusion_steps"))
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size must be divisible by num_heads, but {self.hidden_size} is not divisible by "
                f"{self.num_heads}."
            )
        self._require(self.hidden_size % 2 == 0, "hidden_size", "even (half sines, half cosines in the step embedding)")
        self._require_real(("dropout", "embedding_dropout"), lambda value: 0 <= value < 1, "of at least 0 and below 1")
        self._require_real(("embedding_std",), lambda value: value > 0, "above 0")
        self._require_real(("lambda_uncertainty",), lambda value: value >= 0, "of at least 0")
        self._require(
            self.noise_schedule in list(NOISE_SCHEDULES), "noise_schedule", f"one of {', '.join(NOISE_SCHEDULES)}"
        )


@dataclass(frozen=True)
class TrainConfig(Config):
    """How a model is trained; the defaults are the settings of Li et al. 2023 but for `epochs`, which is theirs at most."""

    epochs: int = 500
    batch_size: int = 512             # examples of a step, over all processes together
    learning_rate: float = 1e-3       # Adam
    weight_decay: float = 0.0         # Adam's L2 term
    lr_step: int = 100                # StepLR: every `lr_step` epochs ...
    lr_gamma: float = 0.1             # ... the learning rate is multiplied by this
    grad_clip: float | None = None    # largest gradient norm; None does not clip
    eval_every: int = 20              # epochs between two validations
    eval_num_steps: int | None = None  # reverse steps of a validation; None takes all T
    patience: int = 5                 # validations without a better NDCG@10 before training stops
    seed: int = 0
    device: str = "auto"              # "auto" takes CUDA where there is one

    def __post_init__(self):
        self._require_whole(("epochs", "batch_size", "lr_step", "eval_every", "patience"))
        self._require_whole(("seed",), least=0)
        self._require_real(("learning_rate", "lr_gamma"), lambda value: value > 0, "above 0")
        self._require_real(("weight_decay",), lambda value: value >= 0, "of at least 0")
        if self.grad_clip is not None:
            self._require_real(("grad_clip",), lambda value: value > 0, "above 0, or None for no clipping")
        if self.eval_num_steps is not None:
            self._require_whole(("eval_num_steps",))


# DiffuRec as its authors train it, initial embeddings included; validation every 20 epochs, patience 5.
PRESETS = {
    "diffurec-paper": (ModelConfig(embedding_std=1.0), TrainConfig(seed=1997)),
}
