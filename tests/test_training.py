"""Training: it learns, repeats itself, survives a kill bit for bit, and stops with a sentence when it cannot go on."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import diffurec.checkpoint
from diffurec import CheckpointError, Dataset, DiffuRec, ModelConfig, TrainConfig, evaluate, load_model, train
from diffurec.training import choose_device

REPOSITORY = Path(__file__).parent.parent
SMALL = dict(hidden_size=16, num_blocks=1, num_heads=2, max_length=8)
SETTINGS = dict(epochs=4, batch_size=32, learning_rate=1e-2, eval_every=1, eval_num_steps=1)


def tiny_data(num_users=40, num_items=30, seed=0):
    """Users who walk through the catalogue, each from an item of his own: item i is always followed by i + 1."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 15, num_users)
    sequences = [(rng.integers(num_items) + np.arange(n)) % num_items + 1 for n in lengths]
    return Dataset("tiny", num_items, np.concatenate(sequences).astype(np.int32), np.concatenate([[0], lengths.cumsum()]))


def new_model(data=None, seed=0, **settings):
    torch.manual_seed(seed)
    return DiffuRec((data or tiny_data()).num_items, ModelConfig(**{**SMALL, **settings}))


def run(checkpoint=None, resume=False, log=None, data=None, model=None, **settings):
    """A small training: (history, model, test metrics)."""
    data = data or tiny_data()
    model = model or new_model(data)
    history = train(model, data, TrainConfig(**{**SETTINGS, **settings}), checkpoint=checkpoint, resume=resume, log=log)
    return history, model, evaluate(model, data, "test", num_steps=2)


def without_times(history):
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in history.log]


def assert_same_run(first, second):
    """Bit for bit: losses, validations, test metrics and weights."""
    assert without_times(first[0]) == without_times(second[0])
    assert first[2] == second[2]
    for (name, one), other in zip(first[1].state_dict().items(), second[1].state_dict().values()):
        assert torch.equal(one, other), name


def contents(directory):
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def test_learns_that_each_item_is_followed_by_the_next():
    """Chance is 5 of 30 items; seed 0. It fails if training no longer finds a rule without exceptions in 20 epochs."""
    history, _, metrics = run(data=tiny_data(num_users=200), epochs=20, patience=20, batch_size=64)
    assert history.log[-1]["loss"] < history.log[0]["loss"] / 2
    assert metrics["HR@5"] > 0.9


def test_the_same_seed_repeats_the_run_and_another_does_not():
    assert_same_run(run(seed=3), run(seed=3))
    assert without_times(run(seed=3)[0]) != without_times(run(seed=4)[0])


def test_a_run_does_not_depend_on_the_callers_random_numbers_nor_use_them_up():
    model = new_model()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = run(model=model)
    assert torch.equal(torch.rand(3), expected)
    assert_same_run(first, run(model=new_model()))


def test_the_model_ends_with_the_weights_of_the_best_validation():
    data = tiny_data()
    history, model, _ = run(data=data, epochs=6, learning_rate=0.05)
    best = max(history.log, key=lambda entry: entry["validation"]["NDCG@10"])     # the first of equals
    assert history.best_epoch == best["epoch"]
    assert evaluate(model, data, "validation", num_steps=1) == best["validation"]


def test_stops_early_after_patience_validations_without_a_better_one():
    history, *_ = run(epochs=50, learning_rate=1e-12, patience=3)
    assert len(history.log) == history.best_epoch + 3 < 50
    assert "patience" in history.finished


def test_validates_every_eval_every_epochs_and_after_the_last():
    history, *_ = run(epochs=5, eval_every=2)
    assert [entry["epoch"] for entry in history.log if entry["validation"]] == [2, 4, 5]


def test_learning_rate_falls_by_lr_gamma_every_lr_step_epochs():
    history, *_ = run(epochs=5, lr_step=2, lr_gamma=0.1)
    assert [e["learning_rate"] for e in history.log] == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4])


def test_gradients_are_clipped_only_if_asked_for():
    """Adam undoes any common scale of the gradients, but not one far below its eps of 1e-8: then nothing moves."""
    start = new_model().state_dict()["item_embedding.weight"]
    moved = {clip: (run(grad_clip=clip, epochs=1)[1].item_embedding.weight - start).abs().max() for clip in (None, 1e-14)}
    assert moved[None] > 1e-3 > 1e-6 > moved[1e-14]


def test_weight_decay_pulls_weights_towards_zero():
    sizes = [run(weight_decay=decay)[1].item_embedding.weight.norm() for decay in (0.0, 1.0)]
    assert sizes[1] < sizes[0]


def test_a_line_per_epoch_is_reported():
    lines = []
    run(log=lines.append, epochs=2)
    assert len(lines) == 3
    assert lines[0].startswith("epoch 1/2  loss ") and "validation NDCG@10" in lines[0] and "left" in lines[0]


# Going on after a stop.

@pytest.mark.parametrize("eval_every", [1, 2])
def test_a_longer_run_goes_on_where_a_shorter_one_ended(tmp_path, eval_every):
    whole = run(epochs=6, eval_every=eval_every)
    run(epochs=4, eval_every=eval_every, checkpoint=tmp_path)
    assert_same_run(whole, run(epochs=6, eval_every=eval_every, checkpoint=tmp_path, resume=True, model=new_model(seed=9)))


def test_resuming_a_finished_run_trains_nothing_and_gives_its_result(tmp_path):
    whole = run(checkpoint=tmp_path)
    before = contents(tmp_path)
    assert_same_run(whole, run(checkpoint=tmp_path, resume=True, model=new_model(seed=9)))
    assert contents(tmp_path) == before


def test_early_stopping_counts_on_across_a_resume(tmp_path):
    whole = run(epochs=50, learning_rate=1e-12, patience=3)
    run(epochs=2, learning_rate=1e-12, patience=3, checkpoint=tmp_path)
    assert_same_run(whole, run(epochs=50, learning_rate=1e-12, patience=3, checkpoint=tmp_path, resume=True))


SCRIPT = """
import sys
sys.path[:0] = {path!r}
import test_training as t
t.run(checkpoint=sys.argv[1], resume=True, log=lambda line: print(line, flush=True), **t.KILLED)
"""
KILLED = dict(epochs=30, patience=30, data=tiny_data(400))


def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(tmp_path):
    """SIGKILL at five moments drawn with seed 0: within an epoch and a half after an epoch was reported.

    The time of an epoch is measured in the run that is killed, so that a slow machine is as good as a fast one.
    """
    whole = run(**KILLED)
    rng = random.Random(0)
    script = SCRIPT.format(path=[str(REPOSITORY), str(REPOSITORY / "tests")])
    epochs = []
    for reported in (1, 1, 2, 3, 2):
        with subprocess.Popen([sys.executable, "-c", script, tmp_path / "run"], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline().startswith("epoch ")
            start = time.perf_counter()
            for _ in range(reported - 1):
                process.stdout.readline()
            time.sleep(rng.uniform(0, 1.5) * whole[0].log[-1]["seconds"])
            process.kill()
        epochs.append(len(json.loads((tmp_path / "run" / "state.json").read_text())["log"]))
        assert process.returncode == -signal.SIGKILL, f"the run was over before the kill, after {epochs} epochs"
    assert epochs == sorted(epochs) and epochs[0] < epochs[-1] < KILLED["epochs"]
    assert_same_run(whole, run(checkpoint=tmp_path / "run", resume=True, model=new_model(seed=9), **KILLED))
    assert len(contents(tmp_path / "run")) == 3                                   # no litter of killed writes


@pytest.mark.parametrize("failing_write", range(1, 4))
def test_a_write_that_fails_keeps_the_last_good_checkpoint(tmp_path, monkeypatch, failing_write):
    """The disk fills at each of the three files of the second epoch in turn: last, best, state."""
    whole = run(learning_rate=1e-3)
    original, count = diffurec.checkpoint.os.replace, 0

    def replace(source, target):
        nonlocal count
        count += 1
        if count == 4 + failing_write:                                            # one proof of writing, three files before
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(source, target)

    monkeypatch.setattr(diffurec.checkpoint.os, "replace", replace)
    with pytest.raises(CheckpointError, match=r"epoch 2 .*No space left.*intact.*resume=True"):
        run(checkpoint=tmp_path, learning_rate=1e-3)
    assert not list(tmp_path.glob("*.partial"))
    assert evaluate(load_model(tmp_path), tiny_data(), "validation", num_steps=1) == whole[0].log[0]["validation"]
    monkeypatch.undo()
    assert_same_run(whole, run(checkpoint=tmp_path, resume=True, learning_rate=1e-3))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_epoch(tmp_path):
    model = new_model()

    def poison(line):
        if line.startswith("epoch 2/"):
            with torch.no_grad():
                model.approximator.norm.weight[0] = float("nan")

    with pytest.raises(FloatingPointError, match=r"not finite in epoch 3, batch 1;.*Lower the learning rate"):
        run(checkpoint=tmp_path, model=model, log=poison)
    assert_same_run(run(), run(checkpoint=tmp_path, resume=True))


# What does not fit.

@pytest.mark.parametrize(("change", "words"), [
    (dict(learning_rate=1.0), r"learning_rate = 0.01, not 1.0"),
    (dict(seed=1), r"seed = 0, not 1"),
    (dict(model=dict(dropout=0.2)), r"dropout = 0.1, not 0.2"),
    (dict(model=dict(hidden_size=32)), r"hidden_size = 16, not 32"),
    (dict(precision="bfloat16"), r"precision = 'float32', not 'bfloat16'"),
    (dict(model=dict(cross_attention=True)), r"cross_attention = False, not True"),
    (dict(model=dict(offset_noise="shared")), r"offset_noise = 'none', not 'shared'"),
    (dict(model=dict(offset_strength=0.2)), r"offset_strength = 0.1, not 0.2"),
    (dict(model=dict(activation="relu")), r"activation = 'gelu', not 'relu'"),
    (dict(data=tiny_data(num_items=31)), r"num_items = 30, not 31"),
    (dict(data=tiny_data(seed=1)), r"data = "),
])
def test_a_checkpoint_of_other_settings_is_refused_and_kept(tmp_path, change, words):
    run(checkpoint=tmp_path)
    before = contents(tmp_path)
    if "model" in change:
        change = {"model": new_model(**change["model"])}
    with pytest.raises(CheckpointError, match=f"{words}.*another directory"):
        run(checkpoint=tmp_path, resume=True, **change)
    assert contents(tmp_path) == before


def test_a_directory_that_holds_a_run_is_not_overwritten_without_resume(tmp_path):
    run(checkpoint=tmp_path)
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match="already holds a run; pass resume=True"):
        run(checkpoint=tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("pattern", ["last-*", "best-*", "state.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_checkpoint_is_named(tmp_path, pattern, damage):
    run(checkpoint=tmp_path)
    path, = tmp_path.glob(pattern)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.unlink()
    if (pattern, damage) == ("state.json", "missing"):
        with pytest.raises(CheckpointError, match="no checkpoint in .*state.json"):
            load_model(tmp_path)
        return
    with pytest.raises(CheckpointError, match=f"{path.name} is .*damaged.*train again"):
        run(checkpoint=tmp_path, resume=True)


def test_weights_of_another_shape_are_named(tmp_path):
    """A state.json that promises what its weights are not."""
    run(checkpoint=tmp_path)
    state = json.loads((tmp_path / "state.json").read_text())
    state["num_items"] = 31
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match=r"item_embedding.weight is \(31, 16\) there and \(32, 16\) here"):
        load_model(tmp_path)


def test_a_checkpoint_of_another_format_is_refused(tmp_path):
    run(checkpoint=tmp_path)
    state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps(state | {"format": 99}))
    with pytest.raises(CheckpointError, match="format 99, and this version reads 1"):
        load_model(tmp_path)


def test_load_model_gives_the_best_weights_in_evaluation_mode(tmp_path):
    _, model, metrics = run(checkpoint=tmp_path)
    loaded = load_model(tmp_path)
    assert not loaded.training and loaded.config == model.config
    assert evaluate(loaded, tiny_data(), "test", num_steps=2) == metrics


def test_a_directory_that_cannot_be_written_is_told_before_training(tmp_path):
    """A file in the place of a directory, since no right keeps root from writing."""
    (tmp_path / "file").write_text("mine")
    lines = []
    with pytest.raises(CheckpointError, match="Cannot write checkpoints to .*choose a directory"):
        run(checkpoint=tmp_path / "file" / "run", log=lines.append)
    assert not lines and (tmp_path / "file").read_text() == "mine"


def test_a_full_or_read_only_directory_is_told_before_training(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(diffurec.checkpoint.os, "replace", fail)
    with pytest.raises(CheckpointError, match="Cannot write checkpoints to .*Read-only file system"):
        run(checkpoint=tmp_path)
    assert not contents(tmp_path)


def test_data_of_another_size_than_the_model_are_refused():
    with pytest.raises(ValueError, match="model knows 30 items and the data set tiny has 31"):
        train(new_model(), tiny_data(num_items=31), TrainConfig(**SETTINGS))


def test_data_without_a_training_example_are_refused():
    data = Dataset("short", 30, np.array([1, 2, 3], np.int32), np.array([0, 3]))
    with pytest.raises(ValueError, match="short has no training example"):
        train(new_model(), data, TrainConfig(**SETTINGS))


@pytest.mark.parametrize(("name", "words"), [("gpu", "no device 'gpu'"), ("cuda", "no CUDA device")])
def test_a_device_that_is_not_there_is_refused(monkeypatch, name, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=words):
        choose_device(name)


def test_auto_takes_the_cpu_where_there_is_no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_trains_to_the_loss_of_the_cpu():
    """Without dropout and lambda the noise alone is random, drawn by another generator: losses agree within 5 %."""
    losses = [
        run(model=new_model(dropout=0.0, embedding_dropout=0.0, lambda_uncertainty=0.0), device=d, data=tiny_data(400))[0].log
        for d in ("cpu", "cuda")
    ]
    for cpu, cuda in zip(*losses):
        assert cuda["loss"] == pytest.approx(cpu["loss"], rel=0.05)


# Several processes.

PARALLEL = """
import atexit, json, sys
from pathlib import Path
sys.path[:0] = {path!r}
import test_training as t
from diffurec import distributed

@atexit.register            # before training registers its own, so it runs after that: the threads still there at the end
def threads():
    names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").glob("*")]
    Path(sys.argv[1], f"threads-{{rank}}").write_text("".join(names))

model = t.new_model(dropout=0.0, embedding_dropout=0.0, lambda_uncertainty=0.0)
history, model, metrics = t.run(checkpoint=sys.argv[1], model=model, data=t.tiny_data(101), device="cpu")
with open(f"{{sys.argv[1]}}/rank-{{distributed.rank()}}.json", "w") as file:
    json.dump([distributed.world_size(), history.log, metrics], file)
rank = distributed.rank()
"""


def test_two_processes_train_and_evaluate_as_one(tmp_path):
    """torchrun with gloo, the same global batches, no dropout or lambda (each process draws its own).

    Losses agree to 1e-4 relative (sums in another order, grown over four epochs), metrics to 0.02: two of 101 users may
    change sides of a cutoff. It fails if gradients are scaled by the number of processes, or examples are lost.
    """
    script = tmp_path / "script.py"
    script.write_text(PARALLEL.format(path=[str(REPOSITORY), str(REPOSITORY / "tests")]))
    results = {}
    for processes in (1, 2):
        directory = tmp_path / str(processes)
        subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1",  # no name to resolve
             f"--nproc-per-node={processes}", script, directory],
            check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},                    # pytest shows its output
        )
        results[processes] = [json.loads((directory / f"rank-{r}.json").read_text()) for r in range(processes)]
    # A gloo thread that outlives the group can abort the process ("terminate called without an active exception").
    assert not [path for path in tmp_path.glob("*/threads-*") if "gloo" in path.read_text()]
    assert len(list(tmp_path.glob("*/threads-*"))) == 3
    (_, one_log, one), = results[1]
    for world, log, metrics in results[2]:                                        # every process knows the whole
        assert world == 2
        assert [e["loss"] for e in log] == pytest.approx([e["loss"] for e in one_log], rel=1e-4)
        assert metrics == pytest.approx(one, abs=0.02)
