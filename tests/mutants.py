"""Faults planted in the module one at a time, and whether its tests see them: `make mutants`.

The faults are cosmic-ray's and those of PLANTED. Each is written into a copy of this checkout, where the tests of the
module then run until one fails, first those that execute the line, the quickest of them first. A fault that they all
let pass is a survivor: MUTANTS.md lists each with the reason why it stays. Every run of the tests is a fork of this
process, which has imported what they need but diffurec, so that a fault costs about a second and not ten.

python tests/mutants.py [module ...] [--sample N] [--survivors] [--out FILE]
"""

import argparse
import difflib
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):         # before torch is loaded: no thread is lost by forking
    os.environ[name] = "1"
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"          # nbval's takes longer than most faults

import conftest  # noqa: F401, E402  where the published data sets are
import coverage  # noqa: E402
import pytest  # noqa: E402
from cosmic_ray.mutating import mutate_code  # noqa: E402
from cosmic_ray.plugins import get_operator  # noqa: E402

REPOSITORY = Path(__file__).resolve().parent.parent
REPORT = REPOSITORY / "tests" / "MUTANTS.md"
ASKED = 0.95

# Which tests concern which module.
TESTS = {
    "paper/diffusion": ["diffusion", "extensions"],
    "paper/approximator": ["model", "extensions", "causal", "fast"],
    "paper/diffurec": ["model", "extensions", "causal", "fast"],
    "fast/catalogue": ["fast"],
    "fast/forms": ["fast", "causal", "model"],
    "fast/processor": ["fast"],
    "data/splits": ["splits"],
    "data/catalogue": ["ids", "saved"],
    "data/histories": ["model"],
    "evaluation/comparing": ["metrics"],
    "evaluation/metrics": ["metrics"],
    "evaluation/ranking": ["evaluation", "metrics"],
    "evaluation/numbering": ["ids"],
    "evaluation/recommending": ["model", "extensions", "ids"],
    "training/loop": ["training"],
}

# Of cosmic-ray's operators one or two for each thing that can be wrong. Left out, because nothing but a TypeError would
# come of them, which any test sees: the other nine replacements of each binary operator (a shifted or masked float), and
# the comparisons by `is` and with the sides that no boundary has.
OPERATORS = [
    *(f"ReplaceBinaryOperator_{change}" for change in (
        "Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_Mul", "Pow_Mul", "LShift_RShift",
        "RShift_LShift", "BitAnd_BitOr", "BitOr_BitAnd",
    )),
    *(f"ReplaceComparisonOperator_{change}" for change in (
        "Eq_NotEq", "NotEq_Eq", "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt", "Is_IsNot",
        "IsNot_Is",
    )),
    "ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Invert", "ReplaceUnaryOperator_Delete_Not",
    "AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ExceptionReplacer", "NumberReplacer", "RemoveDecorator",
    "ZeroIterationForLoop",
]

# Lines whose faults change no result: (pattern, reason).
LEFT_OUT = [
    (r"^@(fast_matmul|kept_memory)\(\)|^@functools\.cache|with kept_memory", "speed alone"),
    (r"mallopt|malloc_trim|M_TRIM_THRESHOLD|sys\.platform", "glibc's memory: speed alone"),
    (r"batch=max\(1, 10_000_000", "resamples at a time: memory alone"),
    (r"stacklevel|simplefilter", "where a warning points to"),
    (r"set_to_none|fused=True|^CHECK_EVERY|len\(spans\) == 1", "speed or memory alone"),
    (r"^@property$|^def predict\(self, histories: torch\.Tensor, \*, generator", "of a protocol: types alone"),
    (r"persistent=False", "whether a constant is in the file; a test of the files' format"),
]

# Faults that no operator makes: (module, what is there, what is put there).
PLANTED = [
    ("paper/diffurec", "self.history_norm(self.history_dropout(self.item_embedding(histories)))",
     "self.history_dropout(self.history_norm(self.item_embedding(histories)))"),
    ("training/loop", "(loss * world).backward()", "loss.backward()"),
    ("training/loop", "stream_seed(config.seed, epoch, 2, rank)", "stream_seed(config.seed, 0, 2, 0)"),
    ("training/loop", "stream_seed(config.seed, epoch, 2, rank)", "stream_seed(config.seed, epoch, 2, 0)"),
    ("training/loop", "stream_seed(config.seed, epoch, 0)", "stream_seed(config.seed, 0, 0)"),
    ("training/loop", "stream_seed(config.seed, epoch, 1)", "stream_seed(config.seed, 0, 1)"),
    ("training/loop", "        run.optimizer.zero_grad(set_to_none=True)\n", ""),
    ("training/loop", "    model.train()\n", ""),
    ("training/loop", "        self.scheduler.step()\n        history, improved", "        history, improved"),
    ("training/loop", "t.detach().clone() for name, t in self.model", "t for name, t in self.model"),
    ("paper/diffusion", "self._alphas_cumprod = alphas_cumprod ", "self._alphas_cumprod = self.alphas_cumprod.numpy() "),
    ("evaluation/ranking", "        model.eval()\n", "        pass\n"),
    ("evaluation/ranking", "        model.train(training)\n", "        pass\n"),
    ("paper/approximator", "self.attention_norm(x)", "x"),
    ("paper/approximator", "self.feed_forward(self.feed_forward_norm(x))", "self.feed_forward(x)"),
    ("fast/forms", "x + self.dropout(self.attention(queries, memory, key_mask))",
     "x + self.attention(queries, memory, key_mask)"),
    ("fast/forms", "self.dropout(last(z, key_mask, **only)[:, -1])", "last(z, key_mask, **only)[:, -1]"),
    ("paper/approximator", "[angles.cos(), angles.sin()]", "[angles.sin(), angles.cos()]"),
    ("paper/diffurec", "embedded + self.cross_dropout(", "self.cross_dropout("),
]


def code(line):
    """A line without its comment."""
    return re.sub(r"  +#.*", "", line).strip()


class Mutant:
    def __init__(self, module, name, source, mutated):
        self.module, self.name, self.source, self.mutated = module, name, source, mutated
        old, new = source.splitlines(), mutated.splitlines()
        _, i, end, j, until = next(
            change for change in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if change[0] != "equal"
        )
        self.lines = range(i + 1, max(end, i + 1) + 1)
        self.old, self.new = (" ".join(code(line) for line in part).strip() for part in (old[i:end], new[j:until]))

    @property
    def change(self):
        return f"`{self.old}` → `{self.new or 'nothing'}`"


def mutants_of(module, source):
    """All mutants of a module's source, but those of the lines left out."""
    found = [Mutant(module, f"planted {i}", source, source.replace(old, new, 1))
             for i, (where, old, new) in enumerate(PLANTED) if where == module and in_source(old, source, module)]
    for name in OPERATORS:
        occurrence = 0
        while (mutated := mutate_code(source, get_operator(f"core/{name}")(), occurrence)) is not None:
            if mutated != source:
                found.append(Mutant(module, f"{name} {occurrence}", source, mutated))
            occurrence += 1
    return [m for m in found if not any(re.search(pattern, m.old) for pattern, _ in LEFT_OUT)]


def in_source(old, source, module):
    if old not in source:
        sys.exit(f"PLANTED names a line that diffurec/{module}.py no longer has; change it here too: {old.strip()}")
    return True


class Order:
    """A pytest plugin: the tests by how near they are to the fault, then by time; how long each took."""

    def __init__(self, near=(), seconds=None):
        self.near, self.seconds, self.measured = set(near), seconds or {}, Counter()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        items.sort(key=lambda item: (item.originalname not in self.near, self.seconds.get(item.nodeid, 0)))

    def pytest_runtest_logreport(self, report):
        self.measured[report.nodeid] += report.duration


def run_tests(copy, module, order, log, limit, cover=None):
    """Whether the tests pass in the copy, in a fork of this process; None after `limit` seconds."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.chdir(copy)
        resource.setrlimit(resource.RLIMIT_AS, (24 << 30, 24 << 30))
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1), os.dup2(output, 2)
        code = 1
        try:
            with cover.collect() if cover else open(os.devnull):
                files = [f"tests/test_{name}.py" for name in TESTS[module]]
                code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *files], [order])
            if cover:
                Path(f"{log}.json").write_text(json.dumps(order.measured))
        finally:
            sys.stdout.flush()
            os._exit(int(code))
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def first_run(copy, module, log):
    """The tests without a fault: (the tests that execute each line, the seconds of each test)."""
    path, data = copy / "diffurec" / f"{module}.py", copy / "first.coverage"
    data.unlink(missing_ok=True)
    cover = coverage.Coverage(data_file=data, include=[str(path)])
    cover.set_option("run:dynamic_context", "test_function")
    start = time.monotonic()
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if not run_tests(copy, module, Order(), log, 3600, cover):
        sys.exit(f"The tests of {module} fail without a fault:\n{Path(log).read_text()[-3000:]}")
    seconds = time.monotonic() - start
    measured = coverage.CoverageData(data)
    measured.read()
    [file] = measured.measured_files()
    # Written once for all that stays. A module's own would be taken for that of its next fault within the same second.
    sys.dont_write_bytecode, os.environ["PYTHONDONTWRITEBYTECODE"] = True, "1"
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        compiled.unlink()
    near = {line: {name.rpartition(".")[2] for name in names}
            for line, names in measured.contexts_by_lineno(file).items()}
    return near, json.loads(Path(f"{log}.json").read_text()), seconds


def try_module(copy, module, chosen, out):
    path, log = copy / "diffurec" / f"{module}.py", copy / "tests.log"
    near, seconds, whole = first_run(copy, module, log)
    print(f"{module}: {len(chosen)} faults; the tests take {whole:.0f} s", flush=True)
    source, results = path.read_text(), []
    path.write_text("raise RuntimeError('this copy is the one that is tested')\n")
    if run_tests(copy, module, Order(), log, 300):
        sys.exit("The tests do not import the copy: nothing would be found.")
    for mutant in chosen:
        path.write_text(mutant.mutated)
        start = time.monotonic()
        order = Order(set().union(*(near.get(line, ()) for line in mutant.lines)), seconds)
        passed = run_tests(copy, module, order, log, 20 + 3 * whole)
        path.write_text(source)
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", log.read_text(), re.M)
        by = "time" if passed is None else failed[0] if failed else "import"
        result = {"module": module, "name": mutant.name, "line": mutant.lines[0], "change": mutant.change,
                  "caught": None if passed else by, "seconds": round(time.monotonic() - start, 1)}
        results.append(result)
        with open(out, "a") as file:
            print(json.dumps(result), file=file)
        if passed:
            print(f"  survived: line {mutant.lines[0]}: {mutant.change}", flush=True)
    return results


def report(results):
    """The table of MUTANTS.md, then the survivors that it does not know; whether enough were caught."""
    known, by_module = REPORT.read_text() if REPORT.exists() else "", defaultdict(list)
    for result in results:
        by_module[result["module"]].append(result["caught"] is not None)
    print("\n| module | faults | caught | % |\n|---|---|---|---|")
    for module, caught in [*by_module.items(), ("all", sum(by_module.values(), []))]:
        print(f"| {module} | {len(caught)} | {sum(caught)} | {100 * sum(caught) / len(caught):.1f} |")
    for result in results:
        if result["caught"] is None and result["change"].replace("|", "\\|") not in known:
            print(f"not in MUTANTS.md: | {result['module']} | {result['change']} | line {result['line']} |")
    return all(sum(caught) >= ASKED * len(caught) for caught in by_module.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="module", help=f"of {', '.join(TESTS)}; without any, all")
    parser.add_argument("--sample", type=int, metavar="N", help="at most N faults of each module, the same each time")
    parser.add_argument("--survivors", action="store_true", help="only the survivors of the last time")
    parser.add_argument("--out", default=REPOSITORY / "runs" / "mutants.jsonl", help="a line for each fault")
    options = parser.parse_args()
    if unknown := set(options.modules) - set(TESTS):
        parser.error(f"there is no module {min(unknown)!r}; the modules are {', '.join(TESTS)}")
    out = Path(options.out).absolute()
    out.parent.mkdir(exist_ok=True)
    last = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    for package in ("numpy", "torch", "torch.nn.parallel", "scipy.stats", "pandas", "hypothesis", "safetensors.torch",
                    "torchmetrics.functional.retrieval", "sklearn", "pyarrow.parquet", "pydantic", "torch.distributed.nn"):
        importlib.import_module(package)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "runs", "notebooks"))
        sys.path[:0] = [str(copy)]
        os.environ["PYTHONPATH"] = str(copy)                # for the programs that the tests start
        out.write_text("")
        for module in options.modules or TESTS:
            chosen = mutants_of(module, (copy / "diffurec" / f"{module}.py").read_text())
            if options.survivors:
                survived = {(r["module"], r["change"]) for r in last if r["caught"] is None}
                chosen = [m for m in chosen if (module, m.change) in survived]
            if options.sample and options.sample < len(chosen):
                chosen = random.Random(0).sample(chosen, options.sample)
            results += try_module(copy, module, chosen, out) if chosen else []
    sys.exit(0 if report(results) else 1)


if __name__ == "__main__":
    main()
