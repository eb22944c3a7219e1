"""How fast: against the plain form, as the sizes grow, and to the published accuracy. `make bench` runs all of it.

    python benchmarks/bench.py [rates] [growth] [learning] [accuracy] [forms] [--out reports/benchmark]

rates     training and evaluation on amazon-beauty and ml-1m against the paper's plain form, and the share of the
          peak of products
growth    time of a step and peak memory (on a CPU: Linux only) for histories, catalogues and batches of growing size
learning  validation by epoch with batches sorted by length, with random ones, and with sorted ones in bfloat16: a small model
          on amazon-toys, three seeds
accuracy  minutes of training to a test NDCG@10, on the Amazon data sets the published one, three seeds; what 1 reverse step
          instead of 32, and bfloat16, do to the trained models' metrics
forms     every prefix alone or at once, attention="bidirectional" or "causal": targets a second, and growth of the causal form

Settings of Li et al. 2023 where nothing else is said: L = 50, d = 128, 4 blocks, batch 512, 32 reverse steps; the causal form
takes batches of 1,600 targets. The sides take turns, each in a process of its own, so that none has another's memory, threads
or settings; medians and the range of the rounds are shown. Each part adds what it measured to benchmark.json and draws
benchmark.png anew.
"""

import argparse
import contextlib
import json
import math
import multiprocessing
import platform
import re
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from diffurec import (
    DiffuRec, ModelConfig, TrainConfig, compare, expected_ranks, leave_one_out, length_batches, load_dataset, mean_metrics,
    rank_targets, train,
)
from diffurec.data import training_windows
from diffurec.base.files import write_atomically
from diffurec.fast import chosen_forms, fast_matmul, install, kept_memory
from diffurec.training import choose_device, loop

BATCH = 512
TARGETS = 1600      # of a batch in the causal form
ROUNDS = 3
WARM_UP = 100  # batches before the reverse steps are compared
DATASETS = {"amazon-beauty": 40, "ml-1m": 12}      # batches of a round: those of ml-1m are all of L = 50
PLAIN = ("plain, torch's GELU", "plain, GELU by formula")       # the paper's room, and with GELU as the released code has it
GROWTH = [
    *({"what": "history length", "length": n, "num_items": 12_000, "batch": BATCH} for n in (10, 25, 50, 100, 200)),
    *({"what": "catalogue", "length": 10, "num_items": n, "batch": BATCH} for n in (10_000, 100_000, 1_000_000)),
    *({"what": "batch", "length": 10, "num_items": 12_000, "batch": n} for n in (128, 512, 2048)),
]
CAUSAL_GROWTH = [
    {"what": f"causal, {what}", "attention": "causal", "length": length, "num_items": num_items, "batch": targets // length}
    for what, length, num_items, targets in (
        *(("history length", n, 12_000, TARGETS) for n in (50, 100, 200)),
        *(("catalogue", 50, n, TARGETS) for n in (10_000, 100_000, 1_000_000)),
        *(("targets", 50, 12_000, n) for n in (400, 1600, 6400)),
    )
]
FORMS = {"every prefix alone": "ours, float32", "every prefix at once": "ours, causal, float32"}
# The model and the protocol are those of Li et al. 2023; the initial scale, 0.1, and the learning rate, which falls to a
# tenth after lr_step epochs, are not: the best of what was tried by validation, on amazon-toys with seed 0.
ACCURACY = [
    {"dataset": "amazon-toys", "wanted": 4.77, "model": {}, "training": {"epochs": 17, "lr_step": 14, "eval_every": 4}},
    {"dataset": "amazon-beauty", "wanted": 4.75, "model": {}, "training": {"epochs": 18, "lr_step": 15, "eval_every": 4}},
    # What others' reruns of the released code reach
    {"dataset": "ml-1m", "wanted": 13.04, "model": {"attention": "causal", "embedding_dropout": 0.1}, "training": {
        "batch_size": TARGETS, "learning_rate": 2e-3, "lr_step": 1, "lr_gamma": 0.85, "epochs": 16, "eval_every": 1}},
]
SEEDS = (0, 1, 2)
LEARNING_SEEDS, LEARNING_EPOCHS = range(3), 8
COLOURS = ("#0072b2", "#d55e00", "#009e73")


def has_bfloat16():
    return torch.cuda.is_available() or chosen_forms()["bfloat16"]               # what is emulated is not measured


@contextlib.contextmanager
def fast_settings():
    """What `train` and `rank_targets` set while they run."""
    with fast_matmul(), kept_memory():
        yield


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(function, device, repeats):
    times = []
    for _ in range(repeats):
        wait(device)
        start = time.perf_counter()
        function()
        wait(device)
        times.append(time.perf_counter() - start)
    return times


def describe_machine():
    device = choose_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.cpu.get_capabilities().get("cpu_name", "")
    return {
        "device": device.type, "name": name or platform.processor(), "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "forms": ", ".join(name for name, chosen in chosen_forms().items() if chosen) or "none",
        "torch": torch.__version__, "python": platform.python_version(),
    }


# ---- rates ----

class GELUByFormula(nn.Module):
    def forward(self, x):
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))


class Side:
    """One side of a comparison in its own process: a model, its optimiser, and the examples of a data set."""

    def __init__(self, dataset, name, split):
        data = load_dataset(dataset)
        self.device = choose_device("auto")
        self.plain, self.split, self.count = name in PLAIN, split, DATASETS[dataset]
        self.precision = "bfloat16" if "bfloat16" in name else "float32"
        torch.manual_seed(0)
        self.causal = "causal" in name
        form = "causal" if self.causal else "bidirectional"
        self.model = DiffuRec(data.num_items, ModelConfig(attention=form)).to(self.device)
        if not self.plain:
            install(self.model)
        elif "formula" in name:
            for block in self.model.approximator.blocks:
                block.feed_forward[1] = GELUByFormula()
        self.model.train(split == "train")
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=not self.plain)
        examples = leave_one_out(data, split, self.model.max_length)
        self.lengths, self.examples = examples.lengths, examples.to(self.device)
        order = torch.Generator().manual_seed(0)
        self.random = torch.randperm(len(examples), generator=order)
        self.gather, sizes = self.examples.gather, None
        if self.causal:
            windows = training_windows(data, self.model.max_length, order)
            self.gather, self.lengths = windows.to(self.device).gather_windows, windows.lengths
            sizes = self.lengths
        self.sorted = length_batches(self.lengths, TARGETS if self.causal else BATCH, order, sizes=sizes)

    def batches(self, round_):
        """Plain: a random batch, all of L. Ours: batches of all lengths, each cut to its longest."""
        if self.plain:
            return [(self.random[round_ * BATCH:(round_ + 1) * BATCH], self.model.max_length)]
        return [(index, int(self.lengths[index].max())) for index in self.sorted[round_::ROUNDS][:self.count]]

    def train_step(self, histories, targets):
        t = torch.randint(self.model.diffusion.num_steps, targets.shape, device=self.device)
        noise = torch.randn(*targets.shape, self.model.config.hidden_size, device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            loss = self.model(histories, targets, t, noise)
        self.optimizer.zero_grad()
        loss.mean().backward()
        self.optimizer.step()

    @torch.no_grad()
    def rank(self, histories, targets, num_steps=None):
        prediction = self.model.predict(histories, num_steps, precision=self.precision)
        if not self.plain:
            return expected_ranks(self.model, prediction, targets)
        order = self.model.score_items(prediction, 1, self.model.num_items + 1).argsort(dim=1, descending=True)
        return (order == (targets - 1).unsqueeze(1)).int().argmax(dim=1) + 1     # by a sort of all scores

    def run(self, round_, num_steps=None):
        """(examples, seconds, floating-point operations of products or, but for our training, None) of a round."""
        step = self.train_step if self.split == "train" else partial(self.rank, num_steps=num_steps)
        batches = [(*self.gather(i.to(self.device), n),) for i, n in self.batches(round_)]
        if not round_:
            step(*batches[0])                                                    # not measured: what is made at first use
        seconds = sum(seconds_of(lambda: [step(*batch) for batch in batches], self.device, 1))
        size = sum(int(targets.count_nonzero()) for _, targets in batches)
        if self.plain or self.split != "train":
            return size, seconds, None
        part = batches[::10]                                                     # operations of one in ten, and so of all
        with FlopCounterMode(display=False) as counter:
            for batch in part:
                step(*batch)
        places = [sum(histories.numel() for histories, _ in some) for some in (batches, part)]
        return size, seconds, counter.get_total_flops() * places[0] / places[1]


def serve(connection, *arguments):
    side = Side(*arguments)
    with contextlib.nullcontext() if side.plain else fast_settings():
        while (request := connection.recv()) is not None:
            connection.send(side.run(*request))


def start_side(*arguments):
    ours, theirs = SPAWN.Pipe()
    SPAWN.Process(target=serve, args=(theirs, *arguments), daemon=True).start()
    return ours


def compare_sides(dataset, split, sides, rounds=ROUNDS):
    """Rounds of all sides in turn. {label: {"rate": [..] a second, "flops": [..] a second}}; sides: {label: (name, steps)}."""
    names = {name for name, _ in sides.values()}
    processes = {name: start_side(dataset, name, split) for name in names}
    found = {label: {"rate": [], "flops": []} for label in sides}
    for round_ in range(rounds):
        for label, (name, num_steps) in sides.items():
            processes[name].send((round_, num_steps))
            size, seconds, operations = processes[name].recv()
            found[label]["rate"].append(size / seconds)
            if operations:
                found[label]["flops"].append(operations / seconds)
    for process in processes.values():
        process.send(None)
    return found


def product_peak():
    """Operations a second of a large float32 product, by torch's default and as the fast form computes it: medians of 9."""
    device = choose_device("auto")
    a, b = torch.randn(2, 2048, 2048, device=device).unbind(0)
    a @ b
    default = statistics.median(seconds_of(lambda: a @ b, device, 9))
    with fast_matmul():
        a @ b
        fast = statistics.median(seconds_of(lambda: a @ b, device, 9))
    return {"default": 2 * 2048**3 / default, "fast": 2 * 2048**3 / fast}


@fast_settings()
def fewest_steps(dataset):
    """The fewest reverse steps whose test HR@10 and NDCG@10 differ from those of all 32 by an interval with 0 in it.

    Of a model trained for WARM_UP batches only. 95 % intervals of paired differences over users.
    """
    data = load_dataset(dataset)
    side = Side(dataset, "ours, float32", "train")
    for index in side.sorted[:WARM_UP]:
        side.train_step(*side.gather(index.to(side.device), int(side.lengths[index].max())))
    everything = rank_targets(side.model, data)
    for num_steps in (1, 2, 4, 8, 16, 32):
        differences = compare(rank_targets(side.model, data, num_steps=num_steps), everything)
        if all(differences[metric][1] <= 0 <= differences[metric][2] for metric in ("HR@10", "NDCG@10")):
            return {"num_steps": num_steps, **{m: differences[m] for m in ("HR@10", "NDCG@10")}}


def measure_rates(keep):
    found = {"peak": product_peak()}
    print(f"  product of 2048 x 2048: {found['peak']['default'] / 1e9:,.0f} GFLOP/s by torch's default, "
          f"{found['peak']['fast'] / 1e9:,.0f} by oneDNN in float32", flush=True)
    for dataset in DATASETS:
        steps = fewest_steps(dataset)
        ours = {"ours, float32": ("ours, float32", None)}
        both = {**{name: (name, None) for name in PLAIN}, **ours}
        low = {"ours, bfloat16": ("ours, bfloat16", None)} if has_bfloat16() else {}
        few = {f"ours, {steps['num_steps']} step": ("ours, float32", steps["num_steps"])}
        found[dataset] = {
            "training, examples": compare_sides(dataset, "train", both | low),
            "evaluation, users": compare_sides(dataset, "test", both | low | few),
            "fewest steps": steps,
        }
        show_rates(dataset, found[dataset], found["peak"])
        keep(rates=found)


def ratios(sides, label, base):
    """Median, least and largest of the rounds' ratios."""
    each = [a / b for a, b in zip(sides[label]["rate"], sides[base]["rate"])]
    return statistics.median(each), min(each), max(each)


def show_rates(dataset, found, peak):
    for what in ("training, examples", "evaluation, users"):
        print(f"  {dataset}, {what} a second (median of {ROUNDS}, least to largest)")
        for label, side in found[what].items():
            rate = side["rate"]
            line = f"    {label:24} {statistics.median(rate):9,.0f}  ({min(rate):,.0f} to {max(rate):,.0f})"
            if label not in PLAIN:
                line += "  " + "; ".join(
                    "{:.1f} ({:.1f} to {:.1f}) times {}".format(*ratios(found[what], label, b), b) for b in PLAIN)
            if side["flops"]:
                flops = statistics.median(side["flops"])
                line += f"; {flops / 1e9:,.0f} GFLOP/s, {flops / peak['fast']:.0%} of the peak"
                line += f" ({flops / peak['default']:.0%} of the default's)"
            print(line, flush=True)
    few = found["fewest steps"]
    print(f"    {few['num_steps']} step against 32, after {WARM_UP} batches: " + ", ".join(
        "{} {:+.4f} [{:+.4f}, {:+.4f}]".format(m, *few[m]) for m in ("HR@10", "NDCG@10")), flush=True)


# ---- growth ----

@fast_settings()
def probe(length, num_items, batch, what, attention="bidirectional"):
    """Seconds of a training step and of recommending to `batch` users, and the process's peak memory after each, in MiB."""
    device = choose_device("auto")
    torch.manual_seed(0)
    model = install(DiffuRec(num_items, ModelConfig(max_length=length, attention=attention)).to(device))
    histories = torch.randint(1, num_items + 1, (batch, length), device=device)
    shape = (batch, length) if attention == "causal" else (batch,)
    targets = torch.randint(1, num_items + 1, shape, device=device)
    model.recommend(histories, num_steps=1)
    recommend = seconds_of(lambda: model.recommend(histories, num_steps=1), device, 3)
    after_recommend = peak_memory(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step():
        t = torch.randint(model.diffusion.num_steps, shape, device=device)
        noise = torch.randn(*shape, model.config.hidden_size, device=device)
        optimizer.zero_grad()
        model(histories, targets, t, noise).mean().backward()
        optimizer.step()

    step()
    training = seconds_of(step, device, 5)
    return {"recommend": recommend, "recommend MiB": after_recommend, "training": training, "training MiB": peak_memory(device)}


def peak_memory(device):
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # Not ru_maxrss, which is never less than what the process that started this one had.
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**10


def measure_growth(cases):
    found = []
    for sizes in cases:
        with ProcessPoolExecutor(1, mp_context=SPAWN) as fresh:                  # so that the peak is this one's
            result = {**sizes, **fresh.submit(probe, **sizes).result()}
        found.append(result)
        print("  {what}: L = {length}, {num_items:,} items, batch {batch}: ".format(**result)
              + "; ".join(f"{kind} {statistics.median(result[kind]) * 1e3:,.0f} ms ({min(result[kind]) * 1e3:,.0f} to "
                          f"{max(result[kind]) * 1e3:,.0f}), peak {result[f'{kind} MiB']:,.0f} MiB"
                          for kind in ("training", "recommend")), flush=True)
    return found


# ---- learning ----

def learn(window, precision, seed):
    """Validation NDCG@10 after each epoch. Batches are sorted by length within windows of `window` batches; 1: random ones."""
    loop.length_batches = partial(length_batches, window=window)    # of this process
    data = load_dataset("amazon-toys")
    torch.manual_seed(seed)
    model = DiffuRec(data.num_items, ModelConfig(hidden_size=64, num_blocks=2, max_length=10))
    config = TrainConfig(
        seed=seed, precision=precision, epochs=LEARNING_EPOCHS, eval_every=1, eval_num_steps=1, patience=LEARNING_EPOCHS
    )
    return [entry["validation"]["NDCG@10"] for entry in train(model, data, config, log=None).log]


def measure_learning():
    ways = {"sorted": (64, "float32"), "random": (1, "float32"), "sorted, bfloat16": (64, "bfloat16")}
    if not has_bfloat16():
        del ways["sorted, bfloat16"]
    found = {name: [] for name in ways}
    for seed in LEARNING_SEEDS:
        for name, (window, precision) in ways.items():
            with ProcessPoolExecutor(1, mp_context=SPAWN) as fresh:
                found[name].append(fresh.submit(learn, window, precision, seed).result())
    for epoch in (LEARNING_EPOCHS // 2, LEARNING_EPOCHS):
        ndcg = {name: [100 * curve[epoch - 1] for curve in curves] for name, curves in found.items()}
        for name, values in ndcg.items():
            apart = [a - b for a, b in zip(values, ndcg["sorted"])]
            print(f"  epoch {epoch}, validation NDCG@10, {name}: "
                  f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} "
                  f"over {len(values)} seeds; less sorted {statistics.mean(apart):+.2f} ± {statistics.stdev(apart):.2f}",
                  flush=True)
    return found


# ---- accuracy ----

def measure_accuracy(recipe, precision, seed):
    """One training: its minutes, validations included, and the test metrics of the weights that validation chose.

    differences: of the test metrics with 1 reverse step, and in bfloat16, from those with 32 in float32, paired over users.
    """
    dataset, data = recipe["dataset"], load_dataset(recipe["dataset"])
    config = TrainConfig(seed=seed, precision=precision, eval_num_steps=1, **recipe["training"])
    torch.manual_seed(seed)
    model = DiffuRec(data.num_items, ModelConfig(**recipe["model"]))
    start = time.perf_counter()
    history = train(model, data, config, log=lambda line: print(f"    {line}", flush=True))
    minutes = (time.perf_counter() - start) / 60
    ranks = rank_targets(model, data)
    test = mean_metrics(ranks)
    print(f"  {dataset}, {precision}, seed {seed}: {minutes:.1f} min, test NDCG@10 {100 * test['NDCG@10']:.2f} "
          f"(wanted {recipe['wanted']}), HR@10 {100 * test['HR@10']:.2f}", flush=True)
    other = {"1 step": {"num_steps": 1}, **({"bfloat16": {"precision": "bfloat16"}} if has_bfloat16() else {})}
    differences = {}
    for name, sampling in other.items():
        found = compare(rank_targets(model, data, **sampling), ranks)
        differences[name] = {metric: found[metric] for metric in ("HR@10", "NDCG@10")}
        print(f"    evaluation, {name}: " + ", ".join("{} {:+.4f} [{:+.4f}, {:+.4f}]".format(m, *d)
                                                     for m, d in differences[name].items()), flush=True)
    curve = [(e["epoch"], e["validation"]["NDCG@10"]) for e in history.log if e["validation"]]
    return {"minutes": minutes, "best_epoch": history.best_epoch, "validation": curve, "test": test, "differences": differences}


def measure_accuracies(keep):
    """{"data set, precision": {seed: what measure_accuracy found}}."""
    precision, found = "bfloat16" if has_bfloat16() else "float32", {}
    for recipe in ACCURACY:
        name = f"{recipe['dataset']}, {precision}"
        seeds = found[name] = {}
        for seed in SEEDS:
            with ProcessPoolExecutor(1, mp_context=SPAWN) as fresh:
                seeds[str(seed)] = fresh.submit(measure_accuracy, recipe, precision, seed).result()
            keep(accuracy=found)
        minutes, ndcg = ([run["minutes"] for run in seeds.values()], [100 * run["test"]["NDCG@10"] for run in seeds.values()])
        print(f"  {name}: medians of {len(seeds)} seeds {statistics.median(minutes):.1f} min, test NDCG@10 "
              f"{statistics.median(ndcg):.2f}; {statistics.mean(ndcg):.2f} ± {statistics.stdev(ndcg):.2f}", flush=True)


# ---- forms ----

def measure_forms(keep):
    found = {"rates": {}}
    for dataset in DATASETS:
        sides = {label: (name, None) for label, name in FORMS.items()}
        if has_bfloat16():
            sides |= {f"{label}, bfloat16": (name.replace("float32", "bfloat16"), None) for label, name in FORMS.items()}
        rates = compare_sides(dataset, "train", sides)
        targets = len(leave_one_out(load_dataset(dataset), "train", 1))
        found["rates"][dataset] = {"targets": targets, "sides": rates}
        alone = next(iter(FORMS))
        print(f"  {dataset}, {targets:,} targets an epoch")
        for label, side in rates.items():
            print(f"    {label:32} {targets / statistics.median(side['rate']) / 60:6.1f} min an epoch, "
                  "{:.1f} ({:.1f} to {:.1f}) times the rate of {}".format(*ratios(rates, label, alone), alone), flush=True)
        keep(forms=found)
    found["growth"] = measure_growth(CAUSAL_GROWTH)
    keep(forms=found)


# ---- what was measured ----

def draw(results, path):
    fig, panels = plt.subplot_mosaic(
        [["rates", "learning", "accuracy"], ["length", "num_items", "batch"]], figsize=(14, 8), layout="constrained"
    )
    learning, accuracy = panels["learning"], panels["accuracy"]
    if "rates" in results:
        draw_rates(panels["rates"], results["rates"])
    for size, what in (("length", "history length"), ("num_items", "catalogue"), ("batch", "batch")):
        draw_growth(panels[size], [r for r in results.get("growth", []) if r["what"] == what], what, size)
    for (name, curves), colour in zip(results.get("learning", {}).items(), COLOURS):
        for number, curve in enumerate(curves):
            learning.plot(range(1, len(curve) + 1), 100 * np.array(curve), color=colour, label=("_" if number else "") + name)
    learning.set(xlabel="epoch", ylabel="validation NDCG@10, %", title="Batches sorted by length and random; bfloat16")
    if results.get("learning"):
        learning.legend(fontsize=7)
    for (name, seeds), colour in zip(results.get("accuracy", {}).items(), COLOURS):
        for seed, run in seeds.items():
            epochs, values = zip(*run["validation"])
            minutes = np.array(epochs) / epochs[-1] * run["minutes"]
            once = name if seed == "0" else "_"                                  # a label that starts so is not shown
            accuracy.plot(minutes, 100 * np.array(values), color=colour, linewidth=1, label=f"{once}, validation")
            accuracy.plot(run["minutes"], 100 * run["test"]["NDCG@10"], "*", color=colour, label=f"{once}, test")
        wanted = next(recipe["wanted"] for recipe in ACCURACY if recipe["dataset"] == name.split(",")[0])
        accuracy.axhline(wanted, color=colour, linestyle=":", linewidth=1)
    accuracy.set(xlabel="minutes of training", ylabel="NDCG@10, %", title="To the published test NDCG@10 (dotted)")
    if results.get("accuracy"):
        accuracy.legend(fontsize=7)
    for axes in fig.axes:
        if not axes.has_data():
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center")
            axes.set(xticks=[], yticks=[])
    fig.savefig(path, dpi=100)
    plt.close(fig)


def draw_rates(axes, found):
    base, *_ = PLAIN
    for dataset, colour in zip([d for d in DATASETS if d in found], COLOURS):
        bars = {
            f"{dataset}, {what.split(',')[0]}, {label.removeprefix('ours, ')}": ratios(found[dataset][what], label, base)
            for what in ("training, examples", "evaluation, users") for label in found[dataset][what] if label not in PLAIN
        }
        middle, low, high = np.array(list(bars.values())).T
        axes.barh(list(bars), middle, xerr=[middle - low, high - middle], color=colour)
    axes.set(xscale="log", xlim=(1, None), xlabel="times the rate of the plain form, log scale", title="Against the plain form")
    axes.tick_params(axis="y", labelsize=7)
    axes.invert_yaxis()


def draw_growth(axes, found, what, size):
    if found:
        sizes = [r[size] for r in found]
        for kind, colour in zip(("training", "recommend"), COLOURS):
            axes.loglog(sizes, [statistics.median(r[kind]) for r in found], "o-", color=colour, label=f"{kind}, s")
            axes.loglog(sizes, [r[f"{kind} MiB"] / 1024 for r in found], "s--", color=colour, label=f"{kind}, peak GiB")
        axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
        axes.set_xticks([], minor=True)
        axes.legend(fontsize=7)
    axes.set(xlabel=what, ylabel="s, GiB", title=f"A step as the {what} grows")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="rates|growth|learning|accuracy|forms")
    parser.add_argument("--out", type=Path, default=Path("reports/benchmark"))
    arguments = parser.parse_args()
    known = ("rates", "growth", "learning", "accuracy", "forms")
    for part in arguments.parts:
        if part not in known:
            parser.error(f"there is no part {part!r}; the parts are {', '.join(known)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "benchmark.json"
    results = json.loads(file.read_text()) if file.exists() else {}

    def keep(**found):
        results.update(found)
        results.setdefault("machines", {}).update(dict.fromkeys(found, describe_machine()))
        write_atomically(file, json.dumps(results, indent=1).encode())
        draw(results, arguments.out / "benchmark.png")

    print(", ".join(f"{key} {value}" for key, value in describe_machine().items()), flush=True)
    for part in arguments.parts or known:
        print(f"{part}:", flush=True)
        if part == "rates":
            measure_rates(keep)
        elif part == "growth":
            keep(growth=measure_growth(GROWTH))
        elif part == "learning":
            keep(learning=measure_learning())
        elif part == "forms":
            measure_forms(keep)
        else:
            measure_accuracies(keep)


SPAWN = multiprocessing.get_context("spawn")
if __name__ == "__main__":
    main()
