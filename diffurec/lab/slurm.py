"""The engine of a Slurm cluster: each run is a job of an array, submitted by submitit, that makes this run alone.

The record of the jobs, their logs and submitit's files are in .slurm, beside the checkpoints. The launcher need not stay
up: another launch finds in the record which runs are queued or running, waits for those, and submits the others. A job
that is preempted or out of time is queued again and goes on from its checkpoint. Slurm tells its end to one process alone
(`B:`, and no srun), so that the kernel ends by `launch`, as at Ctrl-C.

Two locks keep a run from being made twice: a launch reads the queue, submits and records under one, and whatever engine
makes a run holds that run's. Both are flock. Across hosts it holds on NFS of version 3 and 4 (Linux asks the server), on
Lustre mounted with `flock`, and on CephFS; on each host for itself on NFS with `nolock` or `local_lock`, on Lustre with
`localflock`, and on BeeGFS unless tuneUseGlobalFileLocks is set. Launch on one host there, or add `--slurm
dependency=singleton`: Slurm then starts no job of an array before the grid's earlier arrays have ended. Where flock is
refused the run fails and says why; where Linux lacks it filelock warns, and a killed job leaves its run locked.
"""

import json
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterable
from contextlib import redirect_stderr
from io import StringIO
from itertools import count
from pathlib import Path

from filelock import FileLock
from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError
from submitit.helpers import Checkpointable, DelayedSubmission

from ..base.files import write_atomically
from .grids import LaunchError, Run
from .launch import launch as launch_run
from .progress import Progress, count_epochs, show
from .run import Launch, Outcome

POLL = 10       # s between two looks at the queue
EARLY = 90      # s before its end that a job is told of it; Slurm may be 60 s earlier
OURS = ("array", "error", "open_mode", "output", "signal")


class Job(Checkpointable):
    """What Slurm runs: `diffurec run GRID --only RUN`."""

    def __init__(self, run: Run, options: Namespace, minutes: int) -> None:
        self.run, self.options, self.minutes = run, options, minutes

    def __call__(self) -> int:
        self.start, self.epochs = time.monotonic(), count_epochs(self.run.checkpoint)
        os.environ.setdefault("OMP_NUM_THREADS", os.environ["SLURM_CPUS_ON_NODE"])
        code = launch_run(self.options)
        return code if code in (0, 3) else sys.exit(code)

    def checkpoint(self) -> DelayedSubmission:
        """Ends the run and returns what is to be queued again; submitit calls it at the signal."""
        signal.raise_signal(signal.SIGTERM)
        out_of_time = time.monotonic() - self.start > 60 * self.minutes - EARLY - 90
        if out_of_time and count_epochs(self.run.checkpoint) == self.epochs:
            sys.exit(f"It came no further in {self.minutes} minutes; give it more, as --slurm time=MINUTES.")
        return DelayedSubmission(self)


def read_settings(pairs: Iterable[str]) -> dict[str, str]:
    """The values of --slurm by name; LaunchError for what sbatch need not be asked about."""
    settings = {}
    for pair in pairs:
        match = re.fullmatch(r"([A-Za-z][\w-]*)=(.+)", pair)
        if not match:
            raise LaunchError(f"--slurm is given {pair!r}; write KEY=VALUE, as in time=240 or partition=gpu.")
        name = match[1].replace("-", "_")
        if name in OURS:
            raise LaunchError(f"--slurm {pair}: {match[1]} is set by the launcher; leave it out.")
        settings[name] = match[2]
    minutes = settings.get("time", "missing")
    if not (minutes.isdecimal() and int(minutes) * 60 > EARLY + 60):
        raise LaunchError(f"--slurm: time is {minutes}; give each job a whole number of minutes from 3 on, as in time=240, "
                          "and a run that needs longer is queued again and goes on.")
    if not shutil.which("sbatch"):
        raise LaunchError("--engine slurm needs sbatch, which is not on this machine; launch on one of the cluster's.")
    return settings


def finish_all(runs: list[Run], launch: Launch, options: Namespace) -> list[Outcome]:
    """Submits the runs that are not in the queue, and waits for all."""
    if not runs:
        return []
    folder = runs[0].checkpoint.parent / ".slurm"
    folder.mkdir(exist_ok=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})       # until what is submitted is recorded
    try:
        jobs = _submit(runs, options, folder)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if options.no_wait:
        report = shlex.join(["diffurec", "report", options.grid, "--out", str(options.out)])
        show(f"The same command without --no-wait waits for them; `{report}` makes the report.")
        return ["queued"] * len(runs)
    watch = Watch(jobs, folder, launch.progress)
    for second in count():
        left = [run for run in runs if run.name not in watch.outcomes]
        if not left:
            break
        if launch.kernels.stopped:
            numbers = sorted({jobs[run.name].partition("_")[0] for run in left})
            raise KeyboardInterrupt("Interrupted. The jobs go on: the same command waits for them again, and "
                                    f"`scancel {' '.join(numbers)}` ends them.")
        if second % POLL == 0:
            watch.look(left)
        time.sleep(1)
    return [watch.outcomes[run.name] for run in runs]


def _submit(runs: list[Run], options: Namespace, folder: Path) -> dict[str, str]:
    """Submits the runs that are not in the queue as one array; the ids of all runs' jobs, by the run's name. LaunchError."""
    settings, record = read_settings(options.slurm), folder / "jobs.json"
    minutes = int(settings.pop("time"))
    with FileLock(folder / "lock"):     # another launch may be submitting
        try:
            jobs = json.loads(record.read_bytes()) if record.exists() else {}
        except ValueError as error:
            raise LaunchError(f"{record} is damaged ({error}); cancel the grid's jobs, and remove it.") from error
        queue = _queue()
        new = [run for run in runs if jobs.get(run.name) not in queue]
        if len(new) < len(runs):
            show(f"{len(runs) - len(new)} queued or running from an earlier launch.")
        if not new:
            return jobs
        executor = SlurmExecutor(folder, max_num_timeout=sys.maxsize, python=f"exec {shlex.quote(sys.executable)}")
        executor.update_parameters(
            time=minutes, array_parallelism=options.jobs or len(new), use_srun=False, stderr_to_stdout=True, wckey=None,
            additional_parameters={"job_name": Path(options.grid).stem, "requeue": True, **settings,
                                   "signal": f"B:USR2@{EARLY}"})
        here = vars(options) | {"engine": "local", "jobs": 1, "slurm": [], "no_wait": False}
        try:
            with redirect_stderr(StringIO()):       # submitit prints what it raises
                submitted = executor.submit_array([Job(run, Namespace(**here | {"only": run.name}), minutes) for run in new])
        except FailedJobError as error:
            lines = re.findall(r"^sbatch: (?:error: )?(.+?)\.?$", str(error), re.M)
            raise LaunchError(f"sbatch refuses the jobs ({'; '.join(lines)}); correct --slurm.") from error
        jobs |= {run.name: job.job_id for run, job in zip(new, submitted)}
        write_atomically(record, json.dumps(jobs).encode())
    number = submitted[0].job_id.partition("_")[0]
    show(f"{len(new)} queued as job {number}, which goes on without this launch: `squeue --job {number}` shows it, "
         f"`scancel {number}` ends it.")
    return jobs


def _queue() -> dict[str, list[str]]:
    """State and reason of the caller's jobs that wait or run, by id; LaunchError if squeue does not tell."""
    done = subprocess.run(
        ["squeue", "--me", "--noheader", "--array", "--format=%i|%T|%r"], capture_output=True, text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")})
    if done.returncode:
        raise LaunchError(f"squeue does not say which jobs there are ({done.stderr.strip()}); launch again when it does.")
    return {job: rest for job, *rest in (line.split("|", 2) for line in done.stdout.splitlines())}


class Watch:
    """What becomes of runs whose jobs were submitted; outcomes: of those that have ended, by name."""

    def __init__(self, jobs: dict[str, str], folder: Path, progress: Progress) -> None:
        self.jobs, self.folder, self.progress = jobs, folder, progress
        self.outcomes: dict[str, Outcome] = {}
        self.states: dict[str, str] = {}        # in the queue, at the last look
        self.said_why = False

    def look(self, runs: list[Run]) -> None:
        """Looks at these runs in the queue and at what their jobs have left, and says what is new."""
        try:
            queue = _queue()
        except LaunchError:                     # it may answer the next time
            return
        for run in runs:
            job, before = self.jobs[run.name], self.states.get(run.name)
            if job not in queue:
                self.outcomes[run.name] = self._outcome(run, job)
                continue
            self.states[run.name] = state = queue[job][0]
            if state == "RUNNING" != before:
                self.progress.begin(run.name, run.checkpoint)
                show(f"{run.name}: starts as job {job}.")
            elif state == "PENDING" and before not in (None, state):
                show(f"{run.name}: queued again.")
        reasons = [queue[self.jobs[name]][1] for name, state in self.states.items() if state == "PENDING"]
        if {*reasons} - {"None"} and not self.said_why:
            show(f"{len(reasons)} wait in the queue ({', '.join(sorted({*reasons} - {'None'}))}).")
            self.said_why = True

    def _outcome(self, run: Run, job: str) -> Outcome:
        result, log = self.folder / f"{job}_0_result.pkl", self.folder / f"{job}_0_log.out"
        # Now and not before: an attempt can leave an error and be queued again, if Slurm ends its `scontrol requeue` too.
        kind, code = pickle.loads(result.read_bytes()) if result.exists() else ("none", None)
        outcome: Outcome = "failed" if kind != "success" else "left" if code else "finished"
        said = {"failed": f"FAILED. {_why(job, log)}", "left": "left out, another launch is running it.",
                "finished": f"finished, {run.file('.html')}"}
        self.states.pop(run.name, None)
        self.progress.end(run.name)
        show(f"{run.name}: {said[outcome]}\n{self.progress.times()}")
        return outcome


def _why(job: str, log: Path) -> str:
    """Why a job failed, as its log says: the run's launch, or else Slurm, or else the last line of the last attempt."""
    text = log.read_text(errors="replace").rpartition("Starting with JobEnvironment")[2] if log.exists() else ""
    for words in (r": FAILED\. (.+)", r"^slurmstepd\S*: error: (.+)", r"^(.+)"):
        if found := re.findall(words, text, re.M):
            return f"{found[-1]} (log: {log})"
    return f"Job {job} left no log: it was cancelled in the queue, or its node does not see {log.parent}."
