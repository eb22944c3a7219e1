"""Settings of the model and of its training, as frozen dataclasses that refuse unknown keys."""

import difflib
import math
from dataclasses import dataclass, fields, replace
from numbers import Real

from .checks import whole
from .diffusion import NOISE_SCHEDULES, OFFSET_NOISES

PRECISIONS = ("float32", "bfloat16")  # bfloat16: products in 16 bits by torch.autocast; weights and sums stay in 32


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

    def _require_choice(self, name, choices):
        self._require(getattr(self, name) in list(choices), name, f"one of {', '.join(choices)}")

    # Numbers become Python's own: numpy's would fail when a checkpoint writes them, after an epoch.
    def _require_whole(self, names, least=1, most=None):
        for name in names:
            object.__setattr__(self, name, whole(getattr(self, name), name, least, most))

    def _require_real(self, names, condition, rule):
        for name in names:
            value = getattr(self, name)
            real = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
            self._require(real and condition(value), name, f"a finite number {rule}")
            object.__setattr__(self, name, value if type(value) is int else float(value))


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
    activation: str = "gelu"          # of the feed-forward: "gelu" (by tanh) or "relu"
    # The extensions of DiffuRecSys (Zolghadr et al. 2024), off by default
    cross_attention: bool = False     # instead of the sum (eq. 16)
    offset_noise: str = "none"        # or "constant" (eq. 17), "shared", "elementwise"
    offset_strength: float = 0.1

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
        self._require_real(("offset_strength",), lambda value: value >= 0, "of at least 0")
        self._require(type(self.cross_attention) is bool, "cross_attention", "True or False")
        self._require_choice("noise_schedule", NOISE_SCHEDULES)
        self._require_choice("offset_noise", OFFSET_NOISES)
        self._require_choice("activation", ("gelu", "relu"))


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
    precision: str = "float32"        # of the forward pass in training; see PRECISIONS

    def __post_init__(self):
        self._require_whole(("epochs", "batch_size", "lr_step", "eval_every", "patience"))
        self._require_whole(("seed",), least=0, most=2**64 - 1)                 # what torch.manual_seed takes
        self._require_real(("learning_rate", "lr_gamma"), lambda value: value > 0, "above 0")
        self._require_real(("weight_decay",), lambda value: value >= 0, "of at least 0")
        if self.grad_clip is not None:
            self._require_real(("grad_clip",), lambda value: value > 0, "above 0, or None for no clipping")
        if self.eval_num_steps is not None:
            self._require_whole(("eval_num_steps",))
        self._require_choice("precision", PRECISIONS)


# What each variant adds to DiffuRec, and the settings it can be run with. Zolghadr et al. train with the settings of their
# text; their code has hidden_size 256, batch 512 and GELU. Every how many epochs they validate only the code says.
VARIANTS = {
    "baseline": {},
    "cross-attention": {"cross_attention": True},                                  # V1
    "offset-noise": {"offset_noise": "constant"},
    "diffurecsys": {"cross_attention": True, "offset_noise": "constant"},          # V2
}
SETTINGS = {
    "li2023": (ModelConfig(embedding_std=1.0), TrainConfig(seed=1997)),
    "zolghadr2024": (
        ModelConfig(max_length=100, embedding_std=1.0, activation="relu"),
        TrainConfig(epochs=41, batch_size=1024, weight_decay=1e-4, lr_step=30, eval_every=8),
    ),
    "laptop": (
        ModelConfig(hidden_size=64, num_blocks=2, max_length=20), TrainConfig(epochs=4, eval_every=1, eval_num_steps=1)
    ),
}
PRESETS = {
    (variant, name): (replace(model, **changes), training)
    for variant, changes in VARIANTS.items() for name, (model, training) in SETTINGS.items()
}


def configure_run(parameters):
    """(ModelConfig, TrainConfig) of a run: its variant at its settings, with every other setting that is not None.

    parameters: a mapping with "variant", "settings" and any of the settings of both classes; what else it holds is left
    alone. ValueError for a variant, settings or a value that is not to be had.
    """
    for name, known in (("variant", VARIANTS), ("settings", SETTINGS)):
        if parameters[name] not in list(known):
            raise ValueError(f"There is no {name} {parameters[name]!r}; take one of {', '.join(known)}.")
    return tuple(
        replace(config, **{f.name: parameters[f.name] for f in fields(config) if parameters.get(f.name) is not None})
        for config in PRESETS[parameters["variant"], parameters["settings"]]
    )
