"""Settings of the model as a frozen dataclass that refuses unknown keys, and the variants of [2]."""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Literal, Self, get_args

from ..base.checks import whole

NoiseSchedule = Literal["truncated_linear", "linear", "cosine", "sqrt", "truncated_cosine"]
AttentionForm = Literal["bidirectional", "causal"]
Network = Literal["diffurec", "sasrec", "gru4rec"]
OffsetNoise = Literal["none", "constant", "shared", "elementwise"]  # readings of it: `GaussianDiffusion.draw_noise`
Activation = Literal["gelu", "relu"]
Precision = Literal["float32", "bfloat16"]  # bfloat16: products in 16 bits by torch.autocast; weights and sums stay in 32
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class Config:
    """What both configurations share: building from a mapping that may come from a file or a notebook."""

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """The configuration holding `settings`; ValueError on a key that is not a setting."""
        known = [f.name for f in fields(cls)]
        for key in settings:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise ValueError(f"{cls.__name__} has no setting {key!r}{hint}; it knows {', '.join(known)}.")
        return cls(**settings)

    def _require(self, condition: bool, name: str, rule: str) -> None:
        if not condition:
            raise ValueError(f"{name} must be {rule}, but it is {getattr(self, name)!r}.")

    def _require_choice(self, name: str, choices: Iterable[str]) -> None:
        self._require(getattr(self, name) in list(choices), name, f"one of {', '.join(choices)}")

    # Numbers become Python's own: numpy's would fail when a checkpoint writes them, after an epoch.
    def _require_whole(self, names: Iterable[str], least: int = 1, most: int | None = None) -> None:
        for name in names:
            object.__setattr__(self, name, whole(getattr(self, name), name, least, most))

    def _require_real(self, names: Iterable[str], condition: Callable[[float], bool], rule: str) -> None:
        for name in names:
            value = getattr(self, name)
            real = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
            self._require(real and condition(value), name, f"a finite number {rule}")
            object.__setattr__(self, name, value if type(value) is int else float(value))


@dataclass(frozen=True)
class ModelConfig(Config):
    """DiffuRec's architecture and diffusion [1]; the defaults are its settings but for `embedding_std`. Those of the
    diffusion say nothing to another `network`.

    The released code draws item embeddings with standard deviation 1, so that the loss starts above 50 on amazon-beauty
    (notebook 13) and many epochs go into undoing it. 0.1 starts near ln(num_items) and trains well.
    """

    hidden_size: int = 128            # d, the width of items, histories and steps
    num_blocks: int = 4               # Transformer blocks of the Approximator
    num_heads: int = 4                # attention heads; must divide hidden_size
    max_length: int = 50              # L: a history is cut to its latest L items
    dropout: float = 0.1              # after each sublayer
    dropout_everywhere: bool = False  # also where the released code has it: see `Block`
    embedding_dropout: float = 0.3    # on the history's embeddings, before their LayerNorm
    embedding_std: float = 0.1        # standard deviation of the initial item embeddings
    num_diffusion_steps: int = 32     # T
    noise_schedule: NoiseSchedule = "truncated_linear"
    lambda_uncertainty: float = 0.001  # delta: mean and standard deviation of lambda
    activation: Activation = "gelu"   # of the feed-forward: "gelu" (by tanh) or "relu"
    # "causal": a position sees itself and earlier ones, so that one pass trains every prefix of a history [3]
    attention: AttentionForm = "bidirectional"
    network: Network = "diffurec"     # or "sasrec", "gru4rec", which read from left to right: see rivals.py
    # The extensions of DiffuRecSys [2], off by default
    cross_attention: bool = False     # instead of the sum (eq. 16)
    offset_noise: OffsetNoise = "none"  # or "constant" (eq. 17), "shared", "elementwise"
    offset_strength: float = 0.1

    def __post_init__(self) -> None:
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
        for name in ("cross_attention", "dropout_everywhere"):
            self._require(type(getattr(self, name)) is bool, name, "True or False")
        self._require_choice("noise_schedule", get_args(NoiseSchedule))
        self._require_choice("network", get_args(Network))
        self._require_choice("attention", get_args(AttentionForm))
        self._require_choice("offset_noise", get_args(OffsetNoise))
        self._require_choice("activation", get_args(Activation))
        if self.network != "diffurec" and (
            self.attention != "causal" or self.cross_attention or self.offset_noise != "none"
        ):
            raise ValueError(f"The network {self.network!r} reads from left to right and has no diffusion: set attention to "
                             "'causal', and leave out cross_attention and offset_noise.")


Variant = Literal["baseline", "cross-attention", "offset-noise", "diffurecsys", "without-diffusion", "sasrec", "gru4rec"]
VARIANTS: dict[Variant, dict[str, Any]] = {     # those of [2]: what each adds to DiffuRec
    "baseline": {},
    "cross-attention": {"cross_attention": True},                                # V1
    "offset-noise": {"offset_noise": "constant"},
    "diffurecsys": {"cross_attention": True, "offset_noise": "constant"},        # V2
}
RIVALS: dict[Variant, dict[str, Any]] = {       # what they are compared with
    "without-diffusion": {"lambda_uncertainty": 0.0},                            # no target and no noise is heard
    "sasrec": {"network": "sasrec", "attention": "causal"},
    "gru4rec": {"network": "gru4rec", "attention": "causal"},
}
