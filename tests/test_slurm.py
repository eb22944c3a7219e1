"""The engine of a Slurm cluster: what it refuses, and what it does on a real Slurm of one node, started here."""

import getpass
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

import test_experiments
from diffurec.lab import run as one_run, slurm
from test_experiments import read_until, report_of, stand_in

lab, said = test_experiments.lab, test_experiments.said     # fixtures
PROGRAMS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}     # Debian packages
PATHS = os.environ["PATH"] + ":/usr/sbin"
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP
"""
DRIVER = """\
import sys
from pathlib import Path
from test_slurm import command, stand_in_too
stand_in_too(Path(sys.argv[1]))
sys.exit(command.main(["run", *sys.argv[2:]]))
"""
command = test_experiments.command


class StubJob(slurm.Job):
    """A job with the stubs of the launcher's tests."""

    def __call__(self):
        stand_in(self.run.out.parent)
        return super().__call__()


def stand_in_too(root, put=setattr):
    stand_in(root, put)
    put(slurm, "Job", StubJob)
    put(slurm, "POLL", 1)


@pytest.fixture(scope="module")
def cluster():
    """A Slurm of one node with four processors, found by SLURM_CONF; nothing of it is left afterwards."""
    if missing := {package for program, package in PROGRAMS.items() if not shutil.which(program, path=PATHS)}:
        pytest.skip(f"no Slurm here: as root, apt-get install {' '.join(sorted(missing))}")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))        # a short path, because a socket's has at most 107 characters
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "slurm.conf").write_text(CONFIGURATION.format(
        host=socket.gethostname(), ports=[s.getsockname()[1] for s in sockets], user=getpass.getuser(), folder=folder))
    for one in sockets:
        one.close()
    patch = pytest.MonkeyPatch()
    patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket",
              *(f"--{name}-file={folder}/{name}" for name in ("key", "pid", "log", "seed"))]
    servers = []
    try:
        for program in (munged, ["slurmctld", "-D"], ["slurmd", "-D"]):
            with open(folder / f"{program[0]}.out", "w") as file:
                servers.append(subprocess.Popen(program, stdout=file, stderr=file, env=os.environ | {"PATH": PATHS}))
            wait_until(lambda: (folder / "munge.socket").exists())
        wait_until(lambda: "idle" in asked("sinfo", "--noheader", "--format=%t"))
        yield folder
        asked("scancel", "--me")
        wait_until(lambda: not jobs())
    except AssertionError as error:
        logs = "".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.out"))
        raise AssertionError(f"The Slurm of the test fails: {logs}") from error
    finally:
        for server in reversed(servers):
            server.terminate()
            server.wait(timeout=60)
        for process in psutil.process_iter(["environ"]):
            if (process.info["environ"] or {}).get("SLURM_CONF") == str(folder / "slurm.conf") and process.pid != os.getpid():
                process.kill()
        patch.undo()
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.2)


def asked(*arguments):
    """What a program of Slurm prints."""
    return subprocess.run(arguments, capture_output=True, text=True).stdout


def jobs():
    """The jobs that wait or run: their ids, each with its state."""
    return dict(line.split() for line in asked("squeue", "--noheader", "--array", "--format=%i %T").splitlines())


def let_start(job):
    """Shortens the two minutes for which Slurm holds back a job that was queued again."""
    wait_until(lambda: jobs().get(job) == "PENDING")
    asked("scontrol", "update", f"jobid={job}", "starttime=now+4")      # at once, and what ended it before can hit it still


@pytest.fixture
def grid(lab, cluster, monkeypatch):
    """The laboratory with jobs in the place of local runs: run(*more) launches here, start(*more) in its own process."""
    stand_in_too(lab.root, monkeypatch.setattr)
    here = Path(__file__).resolve().parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(here), str(here.parent)]))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(test_experiments, "DRIVER", DRIVER)
    engine = ["grid", "--engine", "slurm", "--slurm", "time=3"]
    lab.launch, lab.begin = (lambda *more: lab.run(*engine, *more)), (lambda *more: lab.start(*engine, *more))
    lab.record = lambda: json.loads((lab.root / "runs/reports/.slurm/jobs.json").read_text())
    yield lab
    asked("scancel", "--me")
    wait_until(lambda: not jobs())


# Without a cluster

@pytest.fixture
def programs(tmp_path, monkeypatch):
    """programs(squeue="...", sbatch="..."): shell scripts that are found in the place of Slurm's programs, and no others."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(shutil, "which", lambda name, which=shutil.which: which(name, path=str(tmp_path / "bin")))
    monkeypatch.setattr(slurm, "POLL", 1)

    def write(**scripts):
        for name, text in {"srun": "", **scripts}.items():
            path = tmp_path / "bin" / name
            path.write_text(f"#!/bin/sh\ncd '{tmp_path}'\n{text}\n")
            path.chmod(0o755)

    return write


SUBMITS = "echo x >> submitted; echo Submitted batch job 7"


@pytest.mark.parametrize("arguments, part", [
    (["--slurm", "partition=gpu", "time=60"], "add --engine slurm, or leave them out."),
    (["--no-wait"], "add --engine slurm, or leave them out."),
    (["--engine", "slurm"], "time is missing; give each job a whole number of minutes from 3 on"),
    *((["--engine", "slurm", "--slurm", f"time={time}"], f"time is {time}; give") for time in ("2", "-5", "1-00:00:00", "1.5")),
    (["--engine", "slurm", "--slurm", "time"], "'time'; write KEY=VALUE"),
    (["--engine", "slurm", "--slurm", "time=60", "--slurm", "=gpu"], "'=gpu'; write KEY=VALUE"),
    (["--engine", "slurm", "--slurm", "time=60", "partition="], "'partition='; write KEY=VALUE"),
    (["--engine", "slurm", "--slurm", "time=60", "output=log"], "output is set by the launcher; leave it out."),
    (["--engine", "slurm", "--slurm", "time=60", "--jobs", "0"], "--jobs is 0"),
    (["--engine", "slurm", "--slurm", "time=60", "--device", "abacus"], "There is no device 'abacus'"),
])
def test_settings_that_cannot_be_are_refused_before_anything_is_submitted(lab, programs, tmp_path, said, arguments, part):
    programs(sbatch=SUBMITS, squeue="")
    lab.write("grid", "")
    assert lab.run("grid", *arguments) == 2
    line = said(" ".join(arguments))
    assert part in line and line.count("\n") == 1
    assert not (tmp_path / "submitted").exists() and not (lab.root / "runs").exists()


def test_what_is_not_there_is_named(lab, programs, monkeypatch, said):
    lab.write("grid", "")
    with_slurm = ["--engine", "slurm", "--slurm", "time=60"]
    assert lab.run("grid", *with_slurm) == 2
    assert "needs sbatch, which is not on this machine" in said("--engine slurm where there is no Slurm")
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.delitem(sys.modules, "diffurec.lab.slurm")
    monkeypatch.delattr("diffurec.lab.slurm")
    assert lab.run("grid", *with_slurm) == 2
    assert said("--engine slurm without its package") == (
        "--engine slurm needs the package submitit, which is not installed: pip install 'diffurec[slurm]'.\n")


def test_what_sbatch_and_squeue_refuse_is_said_in_a_sentence_and_nothing_is_recorded(lab, programs, tmp_path, said):
    refuses = """echo 'sbatch: error: invalid partition specified: {0}
sbatch: error: Batch job submission failed: No.' >&2; exit 1"""
    lab.write("grid", "[axes]\nepochs = [1, 2]")
    for what, squeue, sentence in (
            ("a partition that the cluster has not", "", "sbatch refuses the jobs (invalid partition specified: {0}; Batch job "
             "submission failed: No); correct --slurm.\n"),
            ("a cluster that does not answer", "echo 'Unable to contact slurm controller' >&2; exit 1", "squeue does not say "
             "which jobs there are (Unable to contact slurm controller); launch again when it does.\n")):
        programs(sbatch=refuses, squeue=squeue)
        assert lab.run("grid", "--engine", "slurm", "--slurm", "time=60", "partition={0}") == 2
        assert said(f"--engine slurm: {what}") == sentence
    assert [path.name for path in tmp_path.rglob("jobs.json")] == []
    (lab.root / "runs/reports/.slurm/jobs.json").write_text("{")
    programs(sbatch=SUBMITS, squeue="")
    assert lab.run("grid", "--engine", "slurm", "--slurm", "time=60") == 2
    assert "jobs.json is damaged" in said("--engine slurm: a damaged record of the jobs")
    assert not (tmp_path / "submitted").exists()


def test_what_sbatch_is_given_and_what_is_said_of_waiting_jobs(lab, programs, tmp_path, capsys):
    programs(sbatch=f"cp \"$1\" given; {SUBMITS}", squeue="")
    lab.write("grid", "[axes]\nepochs = [1, 2, 3]")
    settings = ["--engine", "slurm", "--slurm", "time=60", "gpus-per-node=1", "--slurm", "mem=16G", "exclusive=user",
                "--device", "cuda:99"]          # the node may have it
    assert lab.run("grid", *settings, "--jobs", "2", "--no-wait") == 0
    given = {line[8:] for line in (tmp_path / "given").read_text().splitlines() if line.startswith("#SBATCH")}
    assert given >= {"--time=60", "--array=0-2%2", "--gpus-per-node=1", "--mem=16G", "--exclusive=user", "--job-name=grid",
                     "--requeue", "--signal=B:USR2@90"}
    assert not [option for option in given if "wckey" in option]
    said = capsys.readouterr().out
    assert "3 queued as job 7, which goes on without this launch: `squeue --job 7` shows it, `scancel 7` ends it.\n" in said
    assert f"`diffurec report grid --out '{lab.out}'` makes the report.\n" in said and "in all" not in said

    waiting = "".join(f"7_{i}|PENDING|{why}\n" for i, why in enumerate(("Priority", "None", "Resources")))
    programs(sbatch=SUBMITS, squeue="""
        n=$(($(cat n 2> /dev/null) + 1)); echo $n > n
        case $n in 1|2) cat jobs ;; 3) exit 1 ;; 4) cat jobs; echo '8_0|RUNNING|None' ;; esac""")
    (tmp_path / "jobs").write_text(waiting)
    assert lab.run("grid", *settings, "--jobs", "2") == 1
    said = capsys.readouterr().out
    assert "3 queued or running from an earlier launch.\n" in said and said.count(" wait in the queue") == 1
    assert "3 wait in the queue (Priority, Resources).\n" in said
    log = lab.root / "runs" / "reports" / ".slurm"
    assert f"epochs-1: FAILED. Job 7_0 left no log: it was cancelled in the queue, or its node does not see {log}.\n" in said
    assert "3 of 3 failed: epochs-1, epochs-2, epochs-3. The same command runs them again." in said
    assert (tmp_path / "submitted").read_text() == "x\n"


def test_only_a_job_that_comes_no_further_until_its_time_is_out_is_not_queued_again(tmp_path):
    stopped = []
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    try:
        for minutes in (3, 60):
            job = slurm.Job(SimpleNamespace(checkpoint=tmp_path), None, minutes)
            job.start, job.epochs = time.monotonic(), 1
            for epochs in (1, 2):
                (tmp_path / "state.json").write_text(json.dumps({"log": [None] * epochs}))
                if (minutes, epochs) == (3, 1):
                    with pytest.raises(SystemExit, match="It came no further in 3 minutes; give it more"):
                        job.checkpoint()
                else:
                    assert job.checkpoint().function is job
        assert len(stopped) == 4
    finally:
        signal.signal(signal.SIGTERM, before)


# With one

def test_an_array_with_a_run_that_fails_and_one_that_another_launch_has(grid, capfd):
    grid.write("grid", 'title = "Moods"\nreport = true\n[axes]\nmood = ["good", "raises", "fine", "held"]')
    (grid.root / "broken").touch()
    with one_run.locked(SimpleNamespace(name="held", checkpoint=grid.root / "runs" / "reports" / "held")):
        assert grid.launch() == 1
    said, errors = capfd.readouterr()
    assert errors == "" and "Moods (4 runs)\n4 queued as job " in said
    assert f"good: finished, {grid.out / 'good.html'}" in said and "held: left out, another launch is running it." in said
    log, = (grid.root / "runs" / "reports" / ".slurm").glob("*_1_0_log.out")
    failed = grid.out / "raises.failed.ipynb"
    assert f"raises: FAILED. AssertionError: last line (see {failed}) (log: {log})\n" in said
    assert "first line" in failed.read_text() and "epoch 1/2  loss 1.5\n" in log.read_text()
    assert said.endswith("1 of 4 failed: raises. The same command runs them again.\n"
                         "1 of 4 left to another launch: held.\n")
    assert report_of(grid) == "grid fine good\n"
    assert json.loads((grid.out / "good.json").read_text())["machine"] == "1"       # the threads, as the job has processors

    (grid.root / "broken").unlink()
    assert grid.launch() == 0
    said = capfd.readouterr().out
    assert "good: skipped" in said and "2 queued as job " in said and report_of(grid) == "grid fine good held raises\n"
    assert not [name for name in grid.files() if "failed" in name or "partial" in name]


def test_a_cancelled_array_leaves_nothing_half_written_and_a_second_launch_finishes_it(grid, capsys):
    grid.write("grid", 'report = true\n[axes]\nmood = ["slow-1", "slow-2"]')
    (grid.root / "hold").touch()
    process = grid.begin()
    read_until(process, "slow-1: starts", "slow-2: starts")
    wait_until(lambda: all((grid.root / f"runs/reports/slow-{i}/state.json").exists() for i in (1, 2)))
    kernels = [process for process in psutil.process_iter(["cmdline", "cwd"])
               if "ipykernel_launcher" in (process.info["cmdline"] or ()) and process.info["cwd"] == str(grid.root)]
    asked("scancel", grid.record()["slow-1"].partition("_")[0])
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert len(re.findall(r"slow-\d: FAILED\. \*\*\* JOB \d+ ON .* CANCELLED AT .* \*\*\* \(log: ", said)) == 2, said
    wait_until(lambda: not jobs())
    assert len(kernels) == 2 and psutil.wait_procs(kernels, timeout=0)[1] == []
    assert grid.files() == ["report.html", "report.ipynb"]

    (grid.root / "hold").unlink()
    assert grid.launch() == 0
    assert "2 queued as job " in capsys.readouterr().out and report_of(grid) == "grid slow-1 slow-2\n"
    assert "starts at epoch 2" in (grid.out / "slow-1.ipynb").read_text()


def test_two_launches_submit_a_run_once_and_an_interrupted_one_leaves_the_jobs(grid, capsys):
    grid.write("grid", 'report = true\n[axes]\nmood = ["slow-1", "good"]')
    (grid.root / "hold").touch()
    both = [grid.begin("--no-wait", "--jobs", "1") for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    for line in ("2 queued as job", "2 queued or running from an earlier launch"):
        assert sum(line in text for text in said) == 1
    submitted = {*grid.record().values()}
    assert len(submitted) == 2 and {*jobs()} == submitted
    assert grid.files() == []

    third = grid.begin()
    read_until(third, "2 queued or running from an earlier", "slow-1: starts", "1 wait in the queue (JobArrayTaskLimit).")
    third.send_signal(signal.SIGINT)
    said = third.communicate(timeout=60)[0]
    number = min(submitted).partition("_")[0]
    assert third.returncode == 130
    assert said == f"Interrupted. The jobs go on: the same command waits for them again, and `scancel {number}` ends them.\n"
    assert {*jobs()} == submitted

    (grid.root / "hold").unlink()
    assert grid.launch() == 0
    assert {*grid.record().values()} == submitted and report_of(grid) == "grid good slow-1\n"


def test_a_run_out_of_time_is_queued_again_as_long_as_it_comes_further(grid):
    grid.write("grid", '[axes]\nmood = ["slow-1"]')
    (grid.root / "hold").touch()
    process = grid.begin()
    read_until(process, "slow-1: starts")
    job = grid.record()["slow-1"]
    wait_until(lambda: (grid.root / "runs/reports/slow-1/state.json").exists())
    asked("scontrol", "update", f"jobid={job}", "timelimit=2")      # now Slurm sees its end coming, within half a minute
    read_until(process, "slow-1: queued again.")
    let_start(job)
    read_until(process, "slow-1: starts")
    log, = (grid.root / "runs" / "reports" / ".slurm").glob("*_log.out")
    wait_until(lambda: log.read_text().count("starts at epoch") == 2)
    asked("scancel", "--batch", "--signal=USR2", job)               # as at its end, without an epoch more
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert (f"slow-1: FAILED. It came no further in 3 minutes; give it more, as --slurm time=MINUTES. (log: {log})\n") in said
    wait_until(lambda: not jobs())
    assert grid.files() == []


def test_runs_that_were_stopped_end_with_the_numbers_of_runs_that_were_not(cluster, tmp_path, monkeypatch):
    """The real notebook. One run is queued again by its signal, as when preempted, one by Slurm itself."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")           # sums over other numbers of threads are rounded otherwise
    draw = random.Random(0)
    rows = [f"u{user},i{(3 * user + time * draw.choice((1, 2))) % 25},{time}" for user in range(60) for time in range(8)]
    (tmp_path / "own.csv").write_text("\n".join(["user,item,timestamp", *rows]))
    parameters = {"dataset": f"{tmp_path}/own.csv", "epochs": 150, "eval_every": 50, "hidden_size": 16, "num_blocks": 1,
                  "num_steps": 2, "analysis_users": 0, "must_beat_popular": False}
    (tmp_path / "grid.toml").write_text("\n".join([
        "[parameters]", *(f"{name} = {json.dumps(value)}" for name, value in parameters.items()), "[axes]", "seed = [0, 1]"]))

    def start(out, *more):
        command = [sys.executable, "-m", "diffurec", "run", tmp_path / "grid.toml", "--out", tmp_path / out, *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def epochs(seed):
        try:
            return len(json.loads((tmp_path / "jobs" / ".runs" / f"seed-{seed}" / "state.json").read_text())["log"])
        except FileNotFoundError:
            return 0

    stopped = start("jobs", "--engine", "slurm", "--slurm", "time=10")
    wait_until(lambda: epochs(0) > 3)
    first, second = json.loads((tmp_path / "jobs/.runs/.slurm/jobs.json").read_text()).values()
    asked("scancel", "--batch", "--signal=USR2", first)
    wait_until(lambda: epochs(1) > 3)
    asked("scontrol", "requeue", second)
    assert epochs(0) < 150 and epochs(1) < 150
    local = start("local")
    for job in (first, second):
        let_start(job)
    for process in (stopped, local):
        said = process.communicate(timeout=180)[0]
        assert process.returncode == 0, said
    for seed in (0, 1):
        one, other = (json.loads((tmp_path / out / f"seed-{seed}.json").read_text()) for out in ("jobs", "local"))
        for entry in [*one["log"], *other["log"]]:
            del entry["seconds"]
        assert len(one["log"]) == 150 and one == other
        text = (tmp_path / "jobs" / f"seed-{seed}.ipynb").read_text()
        assert "epoch 1/150" not in text and "epoch 150/150" in text        # of the second attempt
