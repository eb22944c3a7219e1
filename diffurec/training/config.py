"""Settings of the training as a frozen dataclass, and the presets: each variant at the settings of both papers."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

from ..paper.config import PRECISIONS, RIVALS, VARIANTS, Config, ModelConfig, Precision, Variant

C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class TrainConfig(Config):
    """How a model is trained; the defaults are the settings of Li et al. 2023 but for `epochs`, which is theirs at most."""

    epochs: int = 500
    batch_size: int = 512             # examples (targets) of a step, over all processes together; causal: about so many
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
    precision: Precision = "float32"  # of the forward pass in training; see PRECISIONS

    def __post_init__(self) -> None:
        self._require_whole(("epochs", "batch_size", "lr_step", "eval_every", "patience"))
        self._require_whole(("seed",), least=0, most=2**64 - 1)                 # what torch.manual_seed takes
        self._require_real(("learning_rate", "lr_gamma"), lambda value: value > 0, "above 0")
        self._require_real(("weight_decay",), lambda value: value >= 0, "of at least 0")
        if self.grad_clip is not None:
            self._require_real(("grad_clip",), lambda value: value > 0, "above 0, or None for no clipping")
        if self.eval_num_steps is not None:
            self._require_whole(("eval_num_steps",))
        self._require_choice("precision", PRECISIONS)


# Zolghadr et al. train with the settings of their text; their code has hidden_size 256, batch 512 and GELU. Every how
# many epochs they validate only the code says.
Settings = Literal["li2023", "zolghadr2024", "laptop"]
SETTINGS: dict[Settings, tuple[ModelConfig, TrainConfig]] = {
    "li2023": (ModelConfig(embedding_std=1.0), TrainConfig(seed=1997)),
    "zolghadr2024": (
        ModelConfig(max_length=100, embedding_std=1.0, activation="relu"),
        TrainConfig(epochs=41, batch_size=1024, weight_decay=1e-4, lr_step=30, eval_every=8),
    ),
    "laptop": (
        ModelConfig(hidden_size=64, num_blocks=2, max_length=20), TrainConfig(epochs=4, eval_every=1, eval_num_steps=1)
    ),
}
PRESETS: dict[tuple[Variant, Settings], tuple[ModelConfig, TrainConfig]] = {
    (variant, name): (replace(model, **changes), training)
    for variant, changes in (VARIANTS | RIVALS).items() for name, (model, training) in SETTINGS.items()
}


def configure_run(parameters: Mapping[str, Any]) -> tuple[ModelConfig, TrainConfig]:
    """(ModelConfig, TrainConfig) of a run: its variant at its settings, with every other setting that is not None.

    parameters: a mapping with "variant", "settings" and any of the settings of both classes; what else it holds is left
    alone. ValueError for a variant, settings or a value that is not to be had.
    """
    for name, known in (("variant", VARIANTS | RIVALS), ("settings", SETTINGS)):
        if parameters[name] not in list(known):
            raise ValueError(f"There is no {name} {parameters[name]!r}; take one of {', '.join(known)}.")
    def with_given(config: C) -> C:
        return replace(config, **{f.name: parameters[f.name] for f in fields(config) if parameters.get(f.name) is not None})

    model, training = PRESETS[parameters["variant"], parameters["settings"]]
    return with_given(model), with_given(training)
