"""Trained models as files: out of a checkpoint, and in the layout of the Hugging Face Hub, there and back."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from .. import __version__
from ..base import distributed
from ..base.files import write_atomically
from ..data.catalogue import Catalogue
from ..data.dataset import Dataset
from ..data.splits import Split
from ..evaluation import evaluate
from ..evaluation.numbering import as_numbered_by
from ..fast import install
from ..paper import ModelConfig, SequenceModel, build_model
from .checkpoint import Checkpoint, CheckpointError, shapes, trained_with

FORMAT = 1      # of an exported model
FILES = {"best": "model.safetensors", "items": "items.json"}
SPLITS: tuple[Split, ...] = ("validation", "test")


def load_model(directory: str | Path, device: str | torch.device = "cpu") -> SequenceModel:
    """The trained model of a checkpoint directory, with its best weights, or of one of `export`; in evaluation mode.

    It knows the items of its data: `model.catalogue.ids` and `.titles`, by number, where the data had them. So `evaluate`
    matches other data by their ids or refuses them, and `recommend_ids` speaks in ids. Of a checkpoint made before ids
    were kept, `model.catalogue.known` is False unless its data had none, and `recommend_ids` says so.
    CheckpointError when there is no checkpoint, no validation yet, or a file is damaged; ValueError for a device that is
    not to be had.
    """
    device, checkpoint = distributed.choose_device(device), Checkpoint(directory)
    if not checkpoint.exists and _is_file(checkpoint.directory / "config.json"):
        return _exported(checkpoint).to(device)
    state = checkpoint.read_state()
    while True:
        config, training = checkpoint.configurations(state)
        if not state["best_epoch"]:
            raise CheckpointError(
                f"The run in {directory} is sound, but after {len(state['log'])} epochs it has not come to its first "
                f"validation, which comes every {training.eval_every} epochs: go on with train(..., checkpoint=..., "
                "resume=True), then load it."
            )
        try:
            weights = _weights(checkpoint, state["num_items"], config)
            break
        except CheckpointError:
            before, state = state, checkpoint.read_state()                      # a training there may have gone on
            if state == before:
                raise
    settings = trained_with(state["train"], state["best_epoch"])
    return _made_of(weights, config, checkpoint.read_items(state), settings).to(device)


def export(
    model: SequenceModel, data: Dataset, directory: str | Path, seed: int = 0, **sampling: Any
) -> dict[str, dict[str, float]]:
    """Writes a trained model in the layout of the Hugging Face Hub; returns {"validation": metrics, "test": metrics}.

    model.safetensors has the weights, config.json the settings, items.json the ids and titles, README.md is the model card
    with the data, the settings and the metrics, which `evaluate` computes here; seed and sampling (num_steps, ...) go to it.
    `load_model(directory)` reads it back. Whether ids and titles may be given away is a matter of the data's licence.

    ValueError for a model without weights and for data that it cannot be evaluated on. CheckpointError when the directory
    cannot be written, or has one of these files or a run already.
    """
    if not isinstance(model, SequenceModel):
        raise ValueError(f"A {type(model).__name__} has no weights to export; give a DiffuRec, a SASRec or a GRU4Rec.")
    checkpoint, numbered = Checkpoint(directory), as_numbered_by(model, data)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    checkpoint.prepare(2 * sum(tensor.nbytes for tensor in weights.values()))
    for name in (*FILES.values(), "config.json", "README.md", "state.json"):
        if (checkpoint.directory / name).exists():
            raise CheckpointError(f"{directory} holds a {name} already; export into another directory.")
    metrics: dict[str, dict[str, float]] = {split: evaluate(model, data, split, seed, **sampling) for split in SPLITS}
    items = model.catalogue if model.catalogue and model.catalogue.known else numbered.catalogue
    described = {"name": data.name, "checksum": data.checksum, "users": data.num_users, "items": data.num_items,
                 "interactions": len(data.items)}
    config = {
        "library": "diffurec", "version": __version__, "format": FORMAT, "num_items": items.num_items,
        "numbering": items.numbering, "model": asdict(model.config), "training": model.trained_with, "data": described,
        "evaluation": {"seed": seed, **sampling}, "metrics": metrics,
    }
    contents = {FILES["best"]: save(weights, {"format": "pt"}), FILES["items"]: items.to_json(),
                "README.md": _card(type(model).__name__, config, items).encode(),
                "config.json": json.dumps(config, indent=1).encode()}            # last: what load_model looks for
    try:
        for name, content in contents.items():
            write_atomically(checkpoint.directory / name, content)
    except OSError as error:
        raise CheckpointError(f"Cannot write the model to {directory} ({error.strerror}); make room there.") from error
    return metrics


def _exported(checkpoint: Checkpoint) -> SequenceModel:
    """The model that `export` wrote."""
    from ..base.records import fault
    from .state import Exported

    try:
        config = json.loads((checkpoint.directory / "config.json").read_bytes())
        Exported.model_validate(config)
        if config["library"] != "diffurec" or config["format"] != FORMAT:
            raise ValueError(f"it is of {config['library']}, format {config['format']}, and not of diffurec, format {FORMAT}")
        settings = ModelConfig.from_dict(config["model"])
    except (OSError, ValueError, TypeError, RecursionError, MemoryError) as error:
        reason = fault(error) if isinstance(error, ValueError) else error
        raise checkpoint.damaged("config.json", reason) from error
    checkpoint.files = FILES
    weights = _weights(checkpoint, config["num_items"], settings)
    return _made_of(weights, settings, checkpoint.read_items(config), config["training"])


def _weights(checkpoint: Checkpoint, num_items: int, config: ModelConfig) -> dict[str, torch.Tensor]:
    with torch.device("meta"):                                                  # shapes alone, before anything is made
        wanted = shapes(build_model(num_items, config))
    return checkpoint.read_tensors("best", wanted)


def _made_of(
    weights: Mapping[str, torch.Tensor], config: ModelConfig, items: Catalogue, settings: dict[str, Any] | None
) -> SequenceModel:
    with torch.random.fork_rng(devices=[]):                                      # its initial weights are not kept
        model = build_model(items.num_items, config)
    model.load_state_dict(weights)
    model.catalogue, model.trained_with = items, settings
    return install(model.eval())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):       # a name that is too long, or has a NUL
        return False


def _card(network: str, config: dict[str, Any], items: Catalogue) -> str:
    """README.md: YAML for the Hub, of which JSON is a part, then Markdown for people."""
    data, metrics = config["data"], config["metrics"]
    name = " ".join(data["name"].split())
    results = [{"task": {"type": "sequential-recommendation"}, "dataset": {"name": name, "type": name, "split": split},
                "metrics": [{"type": metric, "value": value} for metric, value in metrics[split].items()]} for split in SPLITS]
    rows = [f"| {metric} | {metrics['validation'][metric]:.4f} | {metrics['test'][metric]:.4f} |" for metric in metrics["test"]]
    settings = {"model": config["model"], "training": config["training"], "evaluation": config["evaluation"]}
    return "\n".join([
        "---", "library_name: diffurec", f"tags: {json.dumps(['sequential-recommendation', config['model']['network']])}",
        f"model-index: {json.dumps([{'name': network, 'results': results}])}", "---", "",
        f"# {network} on {name}", "",
        f"It predicts the next of {items.num_items:,} items from a user's history. Made by diffurec {config['version']}.", "",
        "```python", "from diffurec import load_model", "",
        'model = load_model("this folder")',
        f"model.recommend_ids([[{items.id(1)!r}]], k=5, seed=0)     # user, rank, item{', title' * bool(items.titles)}, score",
        "vectors = model.item_embedding.weight[1:].detach().numpy()    # row i: the item model.catalogue.id(i + 1)", "```", "",
        "## Data", "",
        f"{name}: {data['users']:,} users, {data['items']:,} items, {data['interactions']:,} interactions, checksum "
        f"`{data['checksum']}`.", "",
        "## Metrics", "",
        "Each user's last item (test) and the one before (validation) ranked among all items: fractions, means over users.", "",
        "| | validation | test |", "|---|---|---|", *rows, "",
        "## Settings", "", "```json", json.dumps(settings, indent=1), "```", ""])
