"""A real Slurm of one node, where its packages are installed: jobs that end before their work."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.execute import ClaimExecutor
from tests.harness.cubes import Cube, marks

pytestmark = pytest.mark.slow

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo", "scontrol")
_PATH = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
_CONFIGURATION = """
ClusterName=nightjar
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
ReturnToService=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/jobcomp.log
KillWait=5
OverTimeLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=6000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 DefaultTime=5 State=UP
"""


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_until(condition: object, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which its commands work."""
    missing = [name for name in _PROGRAMS if not shutil.which(name, path=_PATH)]
    if missing or os.getuid() != 0:
        pytest.skip(f"no Slurm can be started: {', '.join(missing) or 'not root'}")
    folder = Path(tmp_path_factory.mktemp("slurm"))
    for name in ("state", "spool", "log"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    text = _CONFIGURATION.format(host=host, folder=folder, ports=_free_ports(2))
    (folder / "slurm.conf").write_text(text, encoding="ascii")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    environment = {**os.environ, "PATH": _PATH, "SLURM_CONF": str(folder / "slurm.conf")}
    munge = [
        "munged", "--force", "--foreground", f"--socket={folder}/munge.socket",
        f"--key-file={key}", f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log",
        f"--seed-file={folder}/munge.seed",
    ]  # fmt: skip
    with (
        _running(environment, munge),
        _running(environment, ["slurmctld", "-D"]),
        _running(environment, ["slurmd", "-D"]),
    ):
        wait_until(lambda: "idle" in _said(environment, "sinfo", "-h", "-o", "%T"), 60)
        yield environment
        subprocess.run(["scancel", "--user=root"], env=environment, check=False)
        wait_until(lambda: not _said(environment, "squeue", "-h"), 60)


class _running:  # noqa: N801
    def __init__(self, environment: dict[str, str], command: list[str]) -> None:
        self._environment, self._command = environment, command

    def __enter__(self) -> None:
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=quiet, stderr=quiet
        )

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)


def _said(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.strip()


_CLAIMANT = """#!{python}
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from harness.execute.claimant import Claimant
from harness.system.processes import heeded_termination

if __name__ == "__main__":
    with heeded_termination():
        print(Claimant(Path({queue!r}), 120.0).work())
"""


def test_a_job_array_whose_jobs_end_before_their_work(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "marks"
    folder.mkdir()
    script = tmp_path / "claimant.py"
    root = str(Path(__file__).parents[2])
    queue = tmp_path / "queue"
    script.write_text(_CLAIMANT.format(python=sys.executable, root=root, queue=str(queue)))
    items = [Cube(n, folder, *((1, "hang") if n in (1, 4) else ())) for n in range(10)]
    submit = ["sbatch", "--array=1-2", "--time=1", "--mem=400", f"--output={tmp_path}/%a.out"]

    with ClaimExecutor(queue, 3, 0.0, 30.0) as workers:
        results: dict[int, int] = {}
        thread = threading.Thread(target=lambda: results.update(workers.map(items)))
        thread.start()
        subprocess.run([*submit, str(script)], env=slurm, check=True)
        wait_until(lambda: marks(folder, 1) and marks(folder, 4), 120)  # both jobs hang
        wait_until(lambda: not _said(slurm, "squeue", "-h"), 200)  # until their time is over
        assert len(results) < 10
        subprocess.run([*submit, str(script)], env=slurm, check=True)
        thread.join(timeout=200)

    assert results == {n: n**3 for n in range(10)}
    assert [marks(folder, n) for n in range(10)] == [2 if n in (1, 4) else 1 for n in range(10)]
    states = (Path(slurm["SLURM_CONF"]).parent / "log" / "jobcomp.log").read_text()
    assert states.count("JobState=TIMEOUT") == 2


def test_jobs_started_through_dask(
    slurm: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dask_jobqueue")
    from harness.execute.cluster import ClusterExecutor, slurm_jobs

    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, slurm[name])
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "marks"
    folder.mkdir()
    items = [Cube(n, folder, *((1, "hang") if n == 1 else ())) for n in range(10)]

    with ClusterExecutor(3, 0.0, slurm_jobs(2, ("--time=5", "--mem=700"))) as workers:
        results: dict[int, int] = {}
        thread = threading.Thread(target=lambda: results.update(workers.map(items)))
        thread.start()
        wait_until(lambda: marks(folder, 1), 300)
        job = next(iter(folder.glob("1.0.*"))).suffix[1:]
        environment = Path(f"/proc/{job}/environ").read_bytes().split(b"\0")
        (number,) = [e.partition(b"=")[2].decode() for e in environment if b"SLURM_JOB_ID=" in e]
        subprocess.run(["scancel", number], env=slurm, check=True)
        thread.join(timeout=300)

    assert results == {n: n**3 for n in range(10)}
    assert [marks(folder, n) for n in range(10)] == [2 if n == 1 else 1 for n in range(10)]
    wait_until(lambda: not _said(slurm, "squeue", "-h"), 60)
