"""Work spread over Dask and over claims: workers may leave, the results stay the same."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.execute import ClaimExecutor, worker_wait
from harness.execute.claimant import Claimant
from harness.execute.claims import Session
from harness.execute.worker_wait import NoWorkerError, WorkerWait
from harness.system.software import software_version
from pipeline.errors import ConfigError
from tests.harness.cubes import Cube, marks

ROOT = Path(__file__).parents[2]
LEASE_S = 5.0
VERSION = re.escape(software_version())

_CLAIMANT = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from harness.execute.claimant import Claimant
from harness.system.processes import heeded_termination

if __name__ == "__main__":
    with heeded_termination():
        print(Claimant(Path({queue!r}), 60.0).work())
"""


@contextmanager
def claimants(folder: Path, number: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that claim work from ``folder/queue``."""
    script = folder / "claimant.py"
    script.write_text(_CLAIMANT.format(root=str(ROOT), queue=str(folder / "queue")))
    command = [sys.executable, str(script)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(number)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def wait_until(condition: Callable[[], bool], limit_s: float = 300.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def cubes(folder: Path, number: int, **kinds: tuple[int, str]) -> list[Cube]:
    """Items, some of which die at first: ``_3=(1, "exit")``."""
    folder.mkdir()
    return [Cube(n, folder, *kinds.get(f"_{n}", (0, "exit"))) for n in range(number)]


def test_claims_are_performed_once_and_the_workers_end_with_the_run(tmp_path: Path) -> None:
    items = cubes(tmp_path / "marks", 12)
    with claimants(tmp_path, 2) as processes:
        with ClaimExecutor(tmp_path / "queue", 3, 60.0, LEASE_S) as workers:
            results = dict(workers.map(items))
        counts = [int(process.communicate(timeout=60)[0]) for process in processes]

    assert results == {n: n**3 for n in range(12)}
    assert [marks(tmp_path / "marks", n) for n in range(12)] == [1] * 12
    assert sum(counts) == 12
    assert [process.returncode for process in processes] == [0, 0]
    assert list((tmp_path / "queue").iterdir()) == []


def test_deaths_and_limits_of_time_are_attempts(tmp_path: Path) -> None:
    items = cubes(tmp_path / "marks", 6, _1=(1, "exit"), _3=(9, "exit"), _4=(1, "stop"))
    with (
        claimants(tmp_path, 1),
        ClaimExecutor(tmp_path / "queue", 2, 3.0, LEASE_S) as workers,
    ):
        results = dict(workers.map(items))

    assert results == {n: n**3 for n in range(6)} | {3: -2}
    assert [marks(tmp_path / "marks", n) for n in range(6)] == [1, 2, 1, 2, 2, 1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_a_claim_of_a_lost_worker_is_tried_elsewhere(
    number: signal.Signals, tmp_path: Path
) -> None:
    folder = tmp_path / "marks"
    items = cubes(folder, 6, _0=(1, "hang"))
    with (
        claimants(tmp_path, 1) as first,
        ClaimExecutor(tmp_path / "queue", 2, 0.0, LEASE_S) as workers,
    ):
        results: dict[int, int] = {}
        thread = threading.Thread(target=lambda: results.update(workers.map(items)))
        thread.start()
        wait_until(lambda: marks(folder, 0) == 1)
        first[0].send_signal(number)
        with claimants(tmp_path, 1):
            thread.join(timeout=300)
        child = int(next(folder.glob("0.0.*")).suffix[1:])
        if number != signal.SIGSTOP:
            assert first[0].wait(timeout=30) == (-9 if number == signal.SIGKILL else 1)
            wait_until(lambda: not Path(f"/proc/{child}").exists(), 30)

    assert results == {n: n**3 for n in range(6)}
    assert marks(folder, 0) == 2


def test_what_a_killed_coordinator_left_is_removed(tmp_path: Path) -> None:
    queue = tmp_path / "queue"
    left = Session.create(queue, LEASE_S)
    left.offer("00000001", ("work", 1, 0.0))
    left.worker("dead").touch()
    os.utime(left.worker("dead"), (0, 0))
    with ClaimExecutor(queue, 1, 0.0, LEASE_S):
        assert not left.folder.exists()


def test_a_worker_waits_for_a_run_for_a_time(tmp_path: Path) -> None:
    silent = Session.create(tmp_path / "queue", LEASE_S)
    os.utime(silent.coordinator, (0, 0))
    assert Claimant(tmp_path / "queue", 1.0).work() == 0
    assert not silent.files("workers")


@pytest.mark.parametrize("what", ["version", "mode"])
def test_work_of_others_is_not_run(what: str, tmp_path: Path) -> None:
    queue = tmp_path / "queue"
    session = Session.create(queue, LEASE_S)
    if what == "mode":
        queue.chmod(0o770)
    else:
        session.coordinator.write_text(json.dumps({"software": "0.0.0", "lease_s": LEASE_S}))
    expected = "others may write" if what == "mode" else r"has nightjar 0\.0\.0"
    with pytest.raises(ConfigError, match=expected):
        Claimant(queue, 60.0).work()
    assert not session.files("workers")


def test_a_run_without_workers_says_so_and_ends_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_wait, "_SAY_S", 0.1)
    said: list[str] = []
    waiting = WorkerWait(1.0, said.append, "nightjar work W")
    with ClaimExecutor(tmp_path / "queue", 1, 0.0, LEASE_S, waiting) as workers:
        assert list(workers.map([])) == []
        with pytest.raises(NoWorkerError, match=r"worker_wait: no worker for 1 s.*nightjar work W"):
            list(workers.map(cubes(tmp_path / "marks", 1)))

    assert NoWorkerError.exit_code == 4
    assert len(said) == 2
    assert any("start one with: nightjar work W" in line for line in said)


def test_a_run_all_of_whose_workers_were_refused_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_wait, "_REFUSED_S", 1.0)
    monkeypatch.setattr("harness.execute.claimant.software_version", lambda: "0.0.0")
    said: list[str] = []
    refusals = []

    def claim() -> None:
        with pytest.raises(ConfigError) as caught:
            Claimant(tmp_path / "queue", 30.0).work()
        refusals.append(str(caught.value))

    thread = threading.Thread(target=claim)
    thread.start()
    waiting = WorkerWait(60.0, said.append)
    with (
        ClaimExecutor(tmp_path / "queue", 1, 0.0, LEASE_S, waiting) as workers,
        pytest.raises(ConfigError, match=r"all 1 workers .* has nightjar 0\.0\.0") as caught,
    ):
        list(workers.map(cubes(tmp_path / "marks", 1)))
    thread.join()

    assert caught.value.exit_code == 2
    assert len(refusals) == 1
    assert [line.rpartition("refused: ")[2] for line in said] == ["has nightjar 0.0.0"]


# -- Dask ----------------------------------------------------------------------------------------


def _pids(client: object) -> list[int]:
    return sorted(client.run(os.getpid).values())  # type: ignore[attr-defined]


@pytest.mark.slow
def test_dask_workers_may_die(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    from harness.execute.cluster import ClusterExecutor, connect

    folder = tmp_path / "marks"
    kinds = {"_1": (1, "exit"), "_3": (9, "exit"), "_4": (1, "stop"), "_6": (1, "hang")}
    items = cubes(folder, 10, **kinds)
    with ClusterExecutor(2, 20.0, connect("local:2")) as workers:
        results: dict[int, int] = {}
        thread = threading.Thread(target=lambda: results.update(workers.map(items)))
        thread.start()
        wait_until(lambda: marks(folder, 6) == 1)
        child = int(next(folder.glob("6.0.*")).suffix[1:])
        os.kill(_dask_worker_of(child, _pids(workers._client)), signal.SIGKILL)
        thread.join(timeout=300)
        again = dict(workers.map([Cube(20, folder)]))
        threads = list(workers.map([Cube(21, folder)]))

    assert results == {n: n**3 for n in range(10)} | {3: -2}
    assert [marks(folder, n) for n in range(10)] == [1, 2, 1, 2, 2, 1, 2, 1, 1, 1]
    assert again == {20: 8000}
    assert threads == [(21, 9261)]
    wait_until(lambda: not Path(f"/proc/{child}").exists(), 30)


def _dask_worker_of(child: int, workers: list[int]) -> int:
    """Find the Dask worker that is an ancestor of a process, through its server."""
    while child not in workers:
        stat = Path(f"/proc/{child}/stat").read_text(encoding="ascii")
        child = int(stat.rpartition(")")[2].split()[1])
    return child


def test_a_scheduler_that_is_gone_is_one_line() -> None:
    pytest.importorskip("distributed")
    from harness.execute.cluster import ClusterExecutor, connect

    class Gone:
        def nthreads(self) -> dict[str, int]:
            raise OSError("Timed out trying to connect")

    executor = ClusterExecutor(1, 0.0, connect("tcp://nowhere:8786"))
    executor._client = Gone()
    with pytest.raises(ConfigError, match=r"not answer any more.*what was done is kept"):
        list(executor.map([Cube(1, Path())]))


def test_dask_workers_of_another_version_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    from harness.execute.cluster import ClusterExecutor, connect

    monkeypatch.setattr(worker_wait, "_REFUSED_S", 0.5)
    said: list[str] = []
    with distributed.LocalCluster(
        n_workers=1,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        address = cluster.scheduler_address
        executor = ClusterExecutor(1, 20.0, connect(address), WorkerWait(60.0, said.append))
        executor._software = "0.0.0"
        with executor as workers:
            assert list(workers.map([])) == []
            with pytest.raises(ConfigError, match=f"all 1 workers .* has nightjar {VERSION}"):
                list(workers.map(cubes(tmp_path / "marks", 1)))
        cluster.scale(0)
        wait_until(lambda: not cluster.scheduler.workers)
        with (
            ClusterExecutor(1, 20.0, connect(address), WorkerWait(0.5, said.append)) as workers,
            pytest.raises(NoWorkerError, match="no worker for 1 s"),
        ):
            list(workers.map([Cube(1, tmp_path / "marks")]))

    assert len(said) == 1
    assert not marks(tmp_path / "marks", 1)


@pytest.mark.parametrize("address", ["local:", "local:0", "local:two", "local:-1"])
def test_an_address_without_workers_is_refused(address: str) -> None:
    pytest.importorskip("distributed")
    from harness.execute.cluster import connect

    with pytest.raises(ConfigError, match="expected local:N"):
        connect(address)
