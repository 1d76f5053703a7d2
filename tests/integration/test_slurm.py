"""The array jobs of docs/scaling.md on a SLURM of one node that is started here: killed, requeued, and whole.

Where `apt-get install slurm-wlm munge` was done; no service of the machine's own is used.
"""

import getpass
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import util
from pathlib import Path

import pytest
from commands import ROOT, TINY, command_of, free_port
from test_array_jobs import EVALUATION, count_in, rows_in, wait_for

from gdd.sampling import generator_file

PATH = f"{os.environ['PATH']}:/usr/sbin"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
MISSING = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs SLURM and MUNGE, of which {', '.join(MISSING)} are missing"),
]

# A requeued job begins once credentials would have expired; it is killed `KillWait` seconds after it is told to end.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
SlurmdPort={other_port}
AuthType=auth/munge
AuthInfo=socket={home}/munge,cred_expire=5
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
KillWait=5
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    """A cluster of one node with two CPUs, to which SLURM's commands speak."""
    host = socket.gethostname().partition(".")[0]
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))  # a socket's path must be short
        for name in ("state", "spool"):
            (home / name).mkdir()
        (home / "key").write_bytes(secrets.token_bytes(128))
        (home / "key").chmod(0o400)
        ports = {"port": free_port(), "other_port": free_port()}
        text = CONFIGURATION.format(host=host, user=getpass.getuser(), home=home, **ports)
        (home / "slurm.conf").write_text(text)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("SLURM_CONF", str(home / "slurm.conf"))
        patch.setenv("PATH", PATH)
        files = {"key-file": "key", "socket": "munge", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        munge = ["munged", "--foreground", "--force", *(f"--{flag}={home / name}" for flag, name in files.items())]
        for command in (munge, ["slurmctld", "-D"], ["slurmd", "-D"]):
            output = stack.enter_context((home / f"{command[0]}.out").open("w"))
            daemon = stack.enter_context(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
            stack.callback(daemon.terminate)
            if command is munge:
                wait_for((home / "munge").exists)
        wait_for(lambda: of_slurm("sinfo", "--noheader", "--format=%t").strip() == "idle")
        yield
        of_slurm("scancel", "--user", getpass.getuser())
        wait_for(lambda: not of_slurm("squeue", "--noheader"))


def of_slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def jobs() -> list[str]:
    """Return the tasks of array jobs that have not ended, such as 7_0."""
    return sorted(of_slurm("squeue", "--array", "--noheader", "--format=%F_%K").split())


def script(name: str, **changes: str) -> str:
    """Return an sbatch script of docs/scaling.md in which a name stands, with changes that make it small."""
    blocks = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", (ROOT / "docs/scaling.md").read_text(), re.DOTALL)
    (text,) = [block for block in blocks if name in block]
    for old, new in {" --gpus=1": "", "uv run python": sys.executable, **changes}.items():
        assert old in text or old == "uv run python"
        text = text.replace(old, new)
    return text


def submit(text: str, folder: Path) -> list[str]:
    """Submit a script in a folder, and return its tasks."""
    (folder / "job.sh").write_text(text)
    subprocess.run(["sbatch", "job.sh"], cwd=folder, check=True, capture_output=True)
    return jobs()


@pytest.mark.skipif(util.find_spec("submitit") is None, reason="needs submitit")
def test_students_of_tasks_that_are_preempted_and_requeued_are_those_of_one_process(slurm, done, tmp_path):
    flags = [*EVALUATION, "--evaluate.all_epochs", "60"]
    done("evaluate", *flags, "--run.root", tmp_path / "alone")
    folder = tmp_path / "digits/evaluate"
    line = command_of(ROOT / "evaluate.py", *flags, "--run.root", tmp_path, "--submit", "slurm", "--tasks", "2")
    line += ["--submitit.timeout_min", "60"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as begun:
        for share, kill in enumerate((["scancel", "--signal=USR2"], ["scontrol", "requeue"])):
            wait_for(lambda share=share: count_in(folder / f"share-{share}") or begun.poll() is not None)
            (task,) = [job for job in jobs() if job.endswith(f"_{share}")]
            of_slurm(*kill, task)
            assert count_in(folder / f"share-{share}") < 4
        said, _ = begun.communicate(timeout=600)
    assert begun.returncode == 0, said
    assert rows_in(folder) == rows_in(tmp_path / "alone/digits/evaluate")
    for log in (folder / "submitit").glob("*_log.out"):
        assert log.read_text().count("--share") >= 2  # each task began twice


def test_distillations_go_on_after_a_signal_and_after_a_requeue(slurm, done, tmp_path):
    flags = [*TINY, "--pretrain.steps", "150", "--run.save_every", "10000"]
    for seed in (0, 1):
        name = f"cifar10-seed{seed}"
        done("distill", *flags, "--name", name, "--seed", seed, "--run.root", tmp_path / "alone")
    words = " ".join(f"'{flag}'" for flag in flags)
    small = {"--config configs/cifar10.yaml": words, "distill.py": str(ROOT / "distill.py"), "0-4": "0-1"}
    tasks = submit(script("--requeue", **small), tmp_path)
    assert len(tasks) == 2
    for seed, kill in enumerate((["scancel", "--signal=USR1"], ["scontrol", "requeue"])):
        folder = tmp_path / f"runs/cifar10-seed{seed}"
        wait_for((folder / "pretrain/metrics.jsonl").exists)
        of_slurm(*kill, tasks[seed])
        assert not (folder / "refine").exists()
    wait_for(lambda: not jobs())
    for seed in (0, 1):
        here, alone = (root / f"cifar10-seed{seed}" for root in (tmp_path / "runs", tmp_path / "alone"))
        for stage in ("pretrain", "refine"):
            assert generator_file.load(here / stage).hash == generator_file.load(alone / stage).hash
        assert rows_in(here / "evaluate") == rows_in(alone / "evaluate")


def test_shards_go_on_after_a_requeue(slurm, done, tmp_path):
    small = {"0-9": "0-1", "uv run gdd": f"{sys.executable} -m gdd", "runs/cifar10/refine": "zoo:digits"}
    small |= {
        "--ipc 100000": "--ipc 600 --threads 1",
        "--shard-size 10000": "--shard-size 100",
        "10 *": "30 *",
        "+ 10": "+ 30",
    }
    tasks = submit(script("--shards", **small), tmp_path)
    folder = tmp_path / "cifar10-shards"
    wait_for(lambda: list(folder.glob("shard-*.tar")))
    for task in tasks:
        of_slurm("scontrol", "requeue", task)
    assert len(list(folder.glob("shard-*.tar"))) < 60
    wait_for(lambda: not jobs())
    plan = ["--format", "webdataset", "--ipc", 600, "--shard-size", 100, "--threads", 1]
    done("sample", "zoo:digits", *plan, "--out", tmp_path / "alone")
    for path in (tmp_path / "alone").glob("shard-*.tar"):
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert len(list(folder.glob("shard-*.tar"))) == 60
