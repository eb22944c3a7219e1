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
from safetensors.torch import load_file, save_file

from diffurec import (
    CheckpointError, Dataset, DiffuRec, ModelConfig, TrainConfig, evaluate, load_model, stream_seed, train,
)
from diffurec.base import files
from diffurec.data import leave_one_out, length_batches, training_windows
from diffurec.training import choose_device
from diffurec.training import loop as training

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
    return {path.name: path.read_bytes() for path in Path(directory).iterdir() if path.name != "training.lock"}


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
    data = tiny_data(num_items=200)
    history, model, _ = run(data=data, epochs=8, learning_rate=0.1)
    assert history.best_epoch < 8                                                # or nothing had to be put back
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


def test_learning_rate_goes_on_falling_after_a_resume(tmp_path):
    run(epochs=3, lr_step=2, lr_gamma=0.1, checkpoint=tmp_path)
    assert_same_run(run(epochs=5, lr_step=2, lr_gamma=0.1),
                    run(epochs=5, lr_step=2, lr_gamma=0.1, checkpoint=tmp_path, resume=True))


def test_every_epoch_and_process_has_random_numbers_of_its_own(monkeypatch):
    """The order of the batches, the steps and noise, and dropout's numbers: by what is drawn first from each stream.

    All processes share the first two in an epoch, which are of the whole batch, and have the third for themselves.
    """
    drawn = {}

    class Stop(Exception):
        pass

    def first_draws(lengths, batch_size, order, sizes):
        drawn[key] = torch.randint(10**9, (1,), generator=order).item(), torch.randint(10**9, (1,)).item()
        raise Stop

    data, model, config = tiny_data(), new_model(dropout=0.0), TrainConfig(**SETTINGS)
    examples, seeds = leave_one_out(data, "train", model.max_length), []
    monkeypatch.setattr(training, "length_batches", first_draws)
    monkeypatch.setattr(training, "stream_seed", lambda *name: seeds.append(name) or stream_seed(*name))
    for rank in (0, 1):
        monkeypatch.setattr(training.distributed, "rank", lambda: rank)
        for epoch in (1, 2, 3):
            key = rank, epoch
            with pytest.raises(Stop):
                training._train_epoch(training._Run(model, data, config, torch.device("cpu"), None), data, examples, epoch)
    assert [drawn[0, e][0] for e in (1, 2, 3)] == [drawn[1, e][0] for e in (1, 2, 3)]
    assert len({order for order, _ in drawn.values()}) == 3 and len({own for _, own in drawn.values()}) == 6
    noises = [name for name in seeds if name[2] == 1]
    assert len(set(noises)) == 3 and len(noises) == 6                             # per epoch, not per process


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


@pytest.mark.parametrize(("best", "finished", "tail"), [
    (2, None, "  (best)  at most 9.8 min left"), (1, None, "  at most 9.8 min left"), (2, "All done.", "  (best)"),
])
def test_the_line_of_an_epoch(best, finished, tail):
    """The time left is the mean second of an epoch, six here, for each of the 98 that may come."""
    entry = {"epoch": 2, "loss": 1.25, "seconds": 8.0, "validation": {"NDCG@10": 0.1, "HR@10": 0.2}}
    history = training.History(log=[{"seconds": 4.0}, entry], best_epoch=best, finished=finished)
    assert training._line(entry, history, TrainConfig(epochs=100)) == (
        "epoch 2/100  loss 1.2500  8.0 s  validation NDCG@10 0.1000  HR@10 0.2000" + tail)


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_an_epoch_is_adam_on_the_mean_loss_of_each_batch(attention):
    """Replayed in a few lines: a model without dropout and with lambda = 0, which hears neither noise nor target.

    The weight decay tells whether the gradient has its right size, which Adam alone would hide.
    """
    data, config = tiny_data(), TrainConfig(**{**SETTINGS, "epochs": 1, "weight_decay": 0.1, "eval_every": 9})
    quiet = dict(dropout=0.0, embedding_dropout=0.0, lambda_uncertainty=0.0, attention=attention)
    ours, theirs = new_model(data, **quiet), new_model(data, **quiet)
    history = train(ours, data, config, log=None)

    order = torch.Generator().manual_seed(stream_seed(config.seed, 1, 0))
    examples = leave_one_out(data, "train", theirs.max_length)
    if attention == "causal":
        windows = training_windows(data, theirs.max_length, order)
        batches = length_batches(windows.lengths, config.batch_size, order, sizes=windows.lengths)
    else:
        batches = length_batches(examples.lengths, config.batch_size, order)
    adam, losses = torch.optim.Adam(theirs.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay), []
    for index in batches:
        gather = windows.gather_windows if attention == "causal" else examples.gather
        histories, targets = gather(index, theirs.max_length)
        each = theirs(histories, targets, torch.zeros_like(targets), torch.zeros(*targets.shape, 16))
        adam.zero_grad()
        each.mean().backward()
        adam.step()
        losses.append(each.detach())
    assert len(torch.cat(losses)) == len(examples) and len({len(each) for each in losses}) > 1
    assert history.log[0]["loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-4)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters()):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4, msg=lambda m: f"{name}: {m}")


# Going on after a stop.

@pytest.mark.parametrize(("shorter", "eval_every"), [(4, 1), (4, 2), (5, 2), (3, 4), (4, 3)])
@pytest.mark.parametrize("learning_rate", [1e-2, 0.3])                           # 0.3: validations that fall
def test_a_longer_run_goes_on_where_a_shorter_one_ended(tmp_path, shorter, eval_every, learning_rate):
    """The shorter run validates after its last epoch, where the longer one may not: that must not count."""
    settings = dict(eval_every=eval_every, learning_rate=learning_rate, patience=2)
    whole = run(epochs=8, **settings)
    run(epochs=shorter, checkpoint=tmp_path, **settings)
    longer = run(epochs=8, checkpoint=tmp_path, resume=True, model=new_model(seed=9), **settings)
    assert_same_run(whole, longer)
    assert whole[0].best_epoch == longer[0].best_epoch and whole[0].finished == longer[0].finished
    assert len(contents(tmp_path)) <= 5                                          # last, best, items, state, at most one before


def test_the_causal_form_resumes_to_the_same_bits(tmp_path):
    whole = run(model=new_model(attention="causal"))
    run(epochs=2, checkpoint=tmp_path, model=new_model(attention="causal"))
    assert_same_run(whole, run(checkpoint=tmp_path, resume=True, model=new_model(seed=9, attention="causal")))
    assert without_times(whole[0]) != without_times(run()[0])


def test_the_causal_form_learns_too():
    """As the other form above; about as many steps, because a batch holds as many targets."""
    data = tiny_data(num_users=200)
    _, _, metrics = run(data=data, model=new_model(data, attention="causal"), epochs=20, patience=20, batch_size=64)
    assert metrics["HR@5"] > 0.9


def test_a_run_made_longer_twice_is_the_straight_run(tmp_path):
    """Its first end validates where the others do not, its second end does not: nothing of the first stays."""
    settings = dict(eval_every=2, learning_rate=0.3, patience=9)
    for epochs in (3, 4, 7):
        longer = run(epochs=epochs, checkpoint=tmp_path, resume=True, **settings)
        assert_same_run(run(epochs=epochs, **settings), longer)


def test_a_shorter_run_than_was_trained_trains_nothing_more(tmp_path):
    run(epochs=4, checkpoint=tmp_path)
    before = contents(tmp_path)
    history, *_ = run(epochs=2, checkpoint=tmp_path, resume=True)
    assert len(history.log) == 4 and history.finished == "All 4 epochs are done."
    assert contents(tmp_path) == before


def test_a_run_stopped_early_goes_on_with_more_patience(tmp_path):
    settings = dict(epochs=12, learning_rate=0.3)
    whole = run(patience=6, **settings)
    stopped, *_ = run(patience=1, checkpoint=tmp_path, **settings)
    assert len(stopped.log) < len(whole[0].log) and "patience" in stopped.finished
    assert_same_run(whole, run(patience=6, checkpoint=tmp_path, resume=True, model=new_model(seed=9), **settings))


def test_a_run_with_frozen_parameters_resumes(tmp_path):
    def frozen(seed=0):
        model = new_model(seed=seed)
        model.step_embedding.requires_grad_(False)
        return model

    whole = run(model=frozen())
    run(epochs=2, checkpoint=tmp_path, model=frozen())
    resumed = frozen(seed=9)
    assert_same_run(whole, run(checkpoint=tmp_path, resume=True, model=resumed))
    with pytest.raises(CheckpointError, match="optimizer.*absent there"):
        run(epochs=6, checkpoint=tmp_path, resume=True)


def test_files_of_others_in_the_directory_are_left_alone(tmp_path):
    mine = {"mine.safetensors": b"mine", "best-of-all.safetensors": b"mine", "best-0099.safetensors": b"mine"}
    for name, content in mine.items():
        (tmp_path / name).write_bytes(content)
    run(checkpoint=tmp_path)
    assert {name: content for name, content in contents(tmp_path).items() if content == b"mine"} == mine


def test_a_directory_in_use_is_told_or_waited_for(tmp_path, refused):
    """Another process holds it: without resume that is told, with resume the run starts when it is free."""
    holder = ("import sys, time; from pathlib import Path; from diffurec.training.checkpoint import Checkpoint\n"
              "with Checkpoint(Path(sys.argv[1])).locked(False, print): print(flush=True); time.sleep(float(sys.argv[2]))")
    for seconds in (60, 3):
        with subprocess.Popen([sys.executable, "-c", holder, tmp_path, str(seconds)], stdout=subprocess.PIPE,
                              cwd=REPOSITORY) as process:
            process.stdout.readline()
            if seconds == 60:
                with refused("a directory in use", CheckpointError, "Another process is training in .*wait until"):
                    run(checkpoint=tmp_path)
                process.kill()
            else:
                lines = []
                assert_same_run(run(), run(checkpoint=tmp_path, resume=True, log=lines.append))
                assert lines[0].startswith("Another process is training")


def test_resuming_a_finished_run_trains_nothing_and_gives_its_result(tmp_path):
    whole = run(checkpoint=tmp_path)
    before = contents(tmp_path)
    assert_same_run(whole, run(checkpoint=tmp_path, resume=True, model=new_model(seed=9)))
    assert contents(tmp_path) == before


def test_a_finished_run_keeps_the_validation_after_its_last_epoch(tmp_path):
    whole = run(checkpoint=tmp_path, epochs=3, eval_every=2)
    again = run(checkpoint=tmp_path, epochs=3, eval_every=2, resume=True, model=new_model(seed=9))
    assert_same_run(whole, again)
    assert [entry["epoch"] for entry in again[0].log if entry["validation"]] == [2, 3]


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
            for _ in range(reported - 1):
                process.stdout.readline()
            time.sleep(rng.uniform(0, 1.5) * whole[0].log[-1]["seconds"])
            process.kill()
        epochs.append(len(json.loads((tmp_path / "run" / "state.json").read_text())["log"]))
        assert process.returncode == -signal.SIGKILL, f"the run was over before the kill, after {epochs} epochs"
    assert epochs == sorted(epochs) and epochs[0] < epochs[-1] < KILLED["epochs"]
    assert_same_run(whole, run(checkpoint=tmp_path / "run", resume=True, model=new_model(seed=9), **KILLED))
    assert len(contents(tmp_path / "run")) == 4                                   # no litter of killed writes


@pytest.mark.parametrize("failing_write", range(1, 4))
def test_a_write_that_fails_keeps_the_last_good_checkpoint(tmp_path, monkeypatch, refused, failing_write):
    """The disk fills at each of the three files of the second epoch in turn: last, best, state."""
    whole = run(learning_rate=1e-3)
    original, count = os.replace, 0

    def replace(source, target):
        nonlocal count
        count += 1
        if count == 5 + failing_write:                                            # one proof of writing, four files before
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    with refused("checkpoint: a disk that fills in training", CheckpointError, r"epoch 2 .*No space left.*intact.*resume=True"):
        run(checkpoint=tmp_path, learning_rate=1e-3)
    assert not list(tmp_path.glob("*.partial"))
    assert evaluate(load_model(tmp_path), tiny_data(), "validation", num_steps=1) == whole[0].log[0]["validation"]
    monkeypatch.undo()
    assert_same_run(whole, run(checkpoint=tmp_path, resume=True, learning_rate=1e-3))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_epoch(tmp_path, refused):
    model = new_model()

    def poison(line):
        if line.startswith("epoch 2/"):
            with torch.no_grad():
                model.approximator.norm.weight[0] = float("nan")

    with refused("a training that diverges", FloatingPointError, r"not finite in epoch 3, batch 1;.*Lower the learning rate"):
        run(checkpoint=tmp_path, model=model, log=poison)
    assert_same_run(run(), run(checkpoint=tmp_path, resume=True))


def test_the_batch_whose_loss_is_not_finite_is_the_one_that_is_named(monkeypatch):
    """All losses of an epoch are looked at together: the place among them has to be found."""
    model, calls = new_model(), []
    forward = model.forward

    def poisoned(*batch):
        calls.append(1)
        return forward(*batch) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(model, "forward", poisoned)
    with pytest.raises(FloatingPointError, match="not finite in epoch 1, batch 3;"):
        run(model=model, batch_size=16)


@pytest.mark.parametrize(("poisoned", "seen"), [(4, 4), (5, 8), (-1, 0)])
def test_losses_are_looked_at_every_few_batches_and_after_the_last(monkeypatch, poisoned, seen):
    """poisoned: the batch whose loss is not finite, -1 for the last of the epoch; seen: after how many it is noticed."""
    model, calls = new_model(), []
    batches = len(length_batches(leave_one_out(tiny_data(), "train", 8).lengths, 16))
    forward, poisoned, seen = model.forward, poisoned % (batches + 1), seen or batches
    assert batches > 8 and batches % 4
    monkeypatch.setattr(training, "CHECK_EVERY", 4)
    monkeypatch.setattr(model, "forward", lambda *batch: forward(*batch) * (
        float("nan") if calls.append(1) or len(calls) == poisoned else 1))
    with pytest.raises(FloatingPointError, match=f"batch {poisoned};"):
        run(model=model, batch_size=16)
    assert len(calls) == seen


def test_a_model_in_evaluation_mode_is_trained_as_any(tmp_path):
    assert_same_run(run(), run(model=new_model().eval()))


# What does not fit.

@pytest.mark.parametrize(("what", "change", "words"), [
    ("learning_rate", dict(learning_rate=1.0), r"learning_rate = 0.01, not 1.0"),
    ("seed", dict(seed=1), r"seed = 0, not 1"),
    ("dropout", dict(model=dict(dropout=0.2)), r"dropout = 0.1, not 0.2"),
    ("hidden_size", dict(model=dict(hidden_size=32)), r"hidden_size = 16, not 32"),
    ("precision", dict(precision="bfloat16"), r"precision = 'float32', not 'bfloat16'"),
    ("attention", dict(model=dict(attention="causal")), r"attention = 'bidirectional', not 'causal'"),
    ("cross_attention", dict(model=dict(cross_attention=True)), r"cross_attention = False, not True"),
    ("offset_noise", dict(model=dict(offset_noise="shared")), r"offset_noise = 'none', not 'shared'"),
    ("offset_strength", dict(model=dict(offset_strength=0.2)), r"offset_strength = 0.1, not 0.2"),
    ("activation", dict(model=dict(activation="relu")), r"activation = 'gelu', not 'relu'"),
    ("number of items", dict(data=tiny_data(num_items=31)), r"num_items = 30, not 31"),
    ("data set", dict(data=tiny_data(seed=1)), r"data = "),
])
def test_a_checkpoint_of_other_settings_is_refused_and_kept(tmp_path, refused, what, change, words):
    run(checkpoint=tmp_path)
    before = contents(tmp_path)
    if "model" in change:
        change = {"model": new_model(**change["model"])}
    with refused(f"resume with another {what}", CheckpointError, f"{words}.*another directory"):
        run(epochs=6, checkpoint=tmp_path, resume=True, **change)
    assert contents(tmp_path) == before


def test_a_directory_that_holds_a_run_is_not_overwritten_without_resume(tmp_path, refused):
    run(checkpoint=tmp_path)
    before = contents(tmp_path)
    with refused("a directory that holds a run, without resume", CheckpointError, "already holds a run; pass resume=True"):
        train(new_model(), tiny_data(), TrainConfig(**SETTINGS), tmp_path, log=None)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("pattern", ["last-*", "best-*", "state.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_checkpoint_is_named(tmp_path, refused, pattern, damage):
    run(checkpoint=tmp_path)
    path, = tmp_path.glob(pattern)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.unlink()
    if (pattern, damage) == ("state.json", "missing"):
        with refused("load_model on a directory without state.json", CheckpointError, "no checkpoint in .*state.json"):
            load_model(tmp_path)
        return
    before = contents(tmp_path)
    with refused(f"{pattern}: {damage}", CheckpointError, f"{path.name} is missing or damaged .*train again into another"):
        run(checkpoint=tmp_path, resume=True)
    assert contents(tmp_path) == before


def change_state(directory, change):
    path = directory / "state.json"
    state = json.loads(path.read_text())
    change(state)
    path.write_text(json.dumps(state))


HOSTILE = {
    "only a format": lambda s: [s.pop(key) for key in list(s) if key != "format"],
    "a key that is null": lambda s: s.update(num_items=None),
    "a log that is no list": lambda s: s.update(log={}),
    "a log with holes": lambda s: s["log"].append(None),
    "a best epoch that was not": lambda s: s.update(best_epoch=99),
    "a negative epoch": lambda s: s.update(best_epoch=-1),
    "an epoch with a decimal point": lambda s: s.update(best_epoch=float(s["best_epoch"])),
    "a number in quotes": lambda s: s["log"][0].update(loss="0.5"),
    "a number that is true": lambda s: s.update(bad_validations=True),
    "a best file that is null": lambda s: s["files"].update(before=None),
    "a validation without its metric": lambda s: s["log"][1].update(validation={"HR@10": 0.5}),
    "no best file": lambda s: s["files"].pop("best"),
    "a file outside the directory": lambda s: s["files"].update(last="../last-0001.safetensors"),
    "an absolute file": lambda s: s["files"].update(best="/etc/passwd"),
    "a stale file outside": lambda s: s.update(stale=["../../mine.safetensors"]),
    "an unknown key": lambda s: s.update(surprise=1),
    "an unknown setting": lambda s: s["model"].update(surprise=1),
    "a wrong setting": lambda s: s["model"].update(num_heads="two"),
    "a billion blocks": lambda s: s["model"].update(num_blocks=10**9),
    "a metric that is no number": lambda s: s.update(best_metric=float("nan")),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_state_that_is_json_and_no_state_is_one_sentence(tmp_path, refused, what):
    run(checkpoint=tmp_path)
    change_state(tmp_path, HOSTILE[what])
    before = contents(tmp_path)
    for use in (lambda: load_model(tmp_path), lambda: run(checkpoint=tmp_path, resume=True)):
        with refused(f"state.json: {what}", CheckpointError, "state.json is missing or damaged .*another dir") as refusal:
            use()
        assert len(str(refusal.value)) < 700 and "\n" not in str(refusal.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("content", ["", "[]", "null", '{"format": 1}', "[" * 100_000, '{"a":' * 100_000, "\x00",
                                     "{" + "1" * 10**6])
def test_a_state_that_is_hardly_json_is_one_sentence(tmp_path, refused, content):
    (tmp_path / "state.json").write_text(content)
    with refused(f"state.json: the text {content!r}", CheckpointError, "state.json is missing or damaged"):
        load_model(tmp_path)


TENSORS = {
    "a moment of another shape": ("last", "optimizer.0.exp_avg", lambda t: t[:1]),
    "a step that is a vector": ("last", "optimizer.0.step", lambda t: t.repeat(2)),
    "weights that are not finite": ("last", "model.history_norm.weight", lambda t: t * torch.nan),
    "best weights that are not finite": ("best", "history_norm.weight", lambda t: t * torch.inf),
    "best weights of another shape": ("best", "history_norm.weight", lambda t: t[:3]),
    "weights in 16 bits": ("best", "history_norm.weight", lambda t: t.half()),
    "a weight too many": ("last", "model.surprise", lambda t: torch.zeros(2)),
}


@pytest.mark.parametrize("what", TENSORS)
def test_tensors_are_checked_before_anything_uses_them(tmp_path, refused, what):
    which, name, change = TENSORS[what]
    run(checkpoint=tmp_path)
    path, = tmp_path.glob(f"{which}-*")
    tensors = load_file(path)
    tensors[name] = change(tensors.get(name)).contiguous()
    save_file(tensors, path)
    model, lines = new_model(seed=9), []
    start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with refused(f"tensors: {what}", CheckpointError, f"does not fit this model: {name} is|{name} is not made of finite"):
        run(epochs=6, checkpoint=tmp_path, resume=True, model=model, log=lines.append)
    assert not lines and all(torch.equal(start[key], tensor) for key, tensor in model.state_dict().items())


def test_a_run_before_its_first_validation_says_how_to_go_on(tmp_path, refused):
    class Stop(Exception):
        pass

    def stop(line):
        if line.startswith("epoch 2/"):
            raise Stop

    with pytest.raises(Stop):
        run(epochs=6, eval_every=5, checkpoint=tmp_path, log=stop)
    with refused("load_model before the first validation", CheckpointError,
                 "is sound, but after 2 epochs .* every 5 epochs: go on with .*resume=True"):
        load_model(tmp_path)
    assert_same_run(run(epochs=6, eval_every=5), run(epochs=6, eval_every=5, checkpoint=tmp_path, resume=True))


def test_load_model_on_what_is_no_directory_or_device(tmp_path, refused):
    run(checkpoint=tmp_path / "run")
    paths = {"a file": tmp_path / "run" / "state.json", "a folder that is not there": tmp_path / "nowhere",
             "a name that is too long": tmp_path / ("x" * 300)}
    for what, path in paths.items():
        with refused(f"load_model on {what}", CheckpointError, "no checkpoint in|cannot be read"):
            load_model(path)
    with refused("load_model on the device abacus", ValueError, "no device 'abacus'"):
        load_model(tmp_path / "run", device="abacus")


@pytest.mark.parametrize("changed", [dict(version="0.0.1"), dict(processes=2)])
def test_a_run_of_another_version_or_number_of_processes_is_not_mixed(tmp_path, refused, changed):
    run(checkpoint=tmp_path)
    change_state(tmp_path, lambda state: state.update(changed))
    (name, value), = changed.items()
    with refused(f"resume of a run with {name} = {value!r}", CheckpointError,
                 f"made with {name} = {value!r}, not .*another directory"):
        run(epochs=6, checkpoint=tmp_path, resume=True)
    assert load_model(tmp_path).num_items == 30


def test_weights_of_a_checkpoint_of_format_1_load_and_its_run_is_not_mixed(tmp_path):
    _, model, metrics = run(checkpoint=tmp_path)

    def older(state):
        for name in ("version", "processes", "before", "stale"):
            del state[name]
        state.update(format=1, scheduler={"last_epoch": 4})

    change_state(tmp_path, older)
    assert evaluate(load_model(tmp_path), tiny_data(), "test", num_steps=2) == metrics
    with pytest.raises(CheckpointError, match="made with version = None"):
        run(epochs=6, checkpoint=tmp_path, resume=True)


def test_a_setting_that_would_fail_late_is_refused_before_anything_is_written(tmp_path, refused):
    with refused("eval_num_steps above T", ValueError, "eval_num_steps must be a whole number between 1 and 32, but it is 33"):
        run(eval_num_steps=33, checkpoint=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for seed in (2**64, -1, 1.5):
        with refused("TrainConfig(seed=…)", ValueError, "seed must be a whole number between 0 and"):
            TrainConfig(seed=seed)


def test_numpys_numbers_are_numbers(tmp_path):
    """They would fail when the first checkpoint is written."""
    plain = run(checkpoint=tmp_path / "a")
    settings = {name: np.array([value])[0] for name, value in SETTINGS.items()}
    assert_same_run(plain, run(checkpoint=tmp_path / "b", model=new_model(hidden_size=np.int64(16), dropout=np.float64(0.1)),
                               **settings))
    assert load_model(tmp_path / "b").config == plain[1].config


def test_a_disk_without_room_for_the_run_is_told_before_training(tmp_path):
    """No file of this process may pass 100 kB; the checkpoint of the small model needs more."""
    script = ("import resource, sys; sys.path[:0] = {path!r}; import test_training as t\n"
              "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
              "t.run(checkpoint=sys.argv[1], log=print)").format(path=[str(REPOSITORY), str(REPOSITORY / "tests")])
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "run"], capture_output=True, text=True)
    assert "CheckpointError: Cannot write checkpoints to" in done.stderr and "MB left" in done.stderr
    assert "epoch 1" not in done.stdout and not contents(tmp_path / "run")


def test_weights_of_another_shape_are_named(tmp_path, refused):
    """A state.json that promises what its weights are not."""
    run(checkpoint=tmp_path)
    state = json.loads((tmp_path / "state.json").read_text())
    state["num_items"] = 31
    (tmp_path / "state.json").write_text(json.dumps(state))
    with refused("state.json: another number of items than its weights have", CheckpointError,
                 r"item_embedding.weight is \(31, 16\) there and \(32, 16\) here"):
        load_model(tmp_path)


def test_a_checkpoint_of_another_format_is_refused(tmp_path, refused):
    run(checkpoint=tmp_path)
    state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps(state | {"format": 99}))
    with refused("state.json: of format 99", CheckpointError, "format 99, and this version reads 3; train again into another"):
        load_model(tmp_path)


def test_load_model_gives_the_best_weights_in_evaluation_mode(tmp_path):
    _, model, metrics = run(checkpoint=tmp_path)
    loaded = load_model(tmp_path)
    assert not loaded.training and loaded.config == model.config
    assert evaluate(loaded, tiny_data(), "test", num_steps=2) == metrics


def test_a_directory_that_cannot_be_written_is_told_before_training(tmp_path, refused):
    """A file in the place of a directory, since no right keeps root from writing."""
    (tmp_path / "file").write_text("mine")
    lines = []
    with refused("checkpoint: a directory below a file", CheckpointError, "Cannot write checkpoints to .*choose a directory"):
        run(checkpoint=tmp_path / "file" / "run", log=lines.append)
    assert not lines and (tmp_path / "file").read_text() == "mine"


def test_a_full_or_read_only_directory_is_told_before_training(tmp_path, monkeypatch, refused):
    def fail(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files.os, "replace", fail)
    with refused("checkpoint: a directory that is read-only", CheckpointError,
                 "Cannot write checkpoints to .*Read-only file system"):
        run(checkpoint=tmp_path)
    assert not contents(tmp_path)


def test_data_of_another_size_than_the_model_are_refused(refused):
    with refused("data of another size than the model", ValueError, "model knows 30 items and the data set tiny has 31"):
        train(new_model(), tiny_data(num_items=31), TrainConfig(**SETTINGS))


def test_data_without_a_training_example_are_refused(refused):
    data = Dataset("short", 30, np.array([1, 2, 3], np.int32), np.array([0, 3]))
    with refused("data with nothing to train on", ValueError, "short has no training example"):
        train(new_model(), data, TrainConfig(**SETTINGS))


@pytest.mark.parametrize(("name", "words"), [("gpu", "no device 'gpu'"), ("cuda", "no CUDA device")])
def test_a_device_that_is_not_there_is_refused(monkeypatch, refused, name, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with refused(f"the device {name}", ValueError, words):
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
from diffurec.base import distributed

@atexit.register            # before training registers its own, so it runs after that: the threads still there at the end
def threads():
    names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").glob("*")]
    Path(sys.argv[1], f"threads-{{rank}}").write_text("".join(names))

model = t.new_model(dropout=0.0, embedding_dropout=0.0, lambda_uncertainty=0.0, attention={attention!r})
history, model, metrics = t.run(checkpoint=sys.argv[1], model=model, data=t.tiny_data(101), device="cpu", weight_decay=0.01)
with open(f"{{sys.argv[1]}}/rank-{{distributed.rank()}}.json", "w") as file:
    json.dump([distributed.world_size(), history.log, metrics], file)
rank = distributed.rank()
"""


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_two_processes_train_and_evaluate_as_one(tmp_path, attention):
    """torchrun with gloo, the same global batches, no dropout or lambda (each process draws its own).

    Losses agree to 1e-4 relative (sums in another order, grown over four epochs), metrics to 0.02: two of 101 users may
    change sides of a cutoff. It fails if gradients are scaled by the number of processes, or examples are lost: Adam undoes
    a common scale of the gradients, but not beside a weight decay, which it does not scale.
    """
    script = tmp_path / "script.py"
    script.write_text(PARALLEL.format(path=[str(REPOSITORY), str(REPOSITORY / "tests")], attention=attention))
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
