"""Workers of a Dask cluster: on this machine, behind an address, or as jobs of Slurm.

Dask carries the items; the rest is as on one machine.  Each thread of a Dask worker has a process
of its own that performs one item at a time, with one numerical thread and a time limit.  An item
is bound to the Dask worker it was given to: when that leaves, however it ends, the item counts as
lost and is tried elsewhere.  A cluster serves one campaign at a time.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, Self, TypeVar
from uuid import uuid4

import dask
import distributed

from harness.execute.engine import Engine
from harness.execute.executor import Work
from harness.execute.worker import Lost, Worker
from harness.execute.worker_wait import WorkerWait
from harness.system.processes import server
from harness.system.software import software_version
from pipeline.errors import ConfigError

__all__ = ["ClusterExecutor", "connect", "slurm_jobs"]

R = TypeVar("R")

_LEFT = "its Dask worker left"
_CONNECT_S = 60.0
_LOCAL = "local:"


class ClusterExecutor(Engine):
    """Dask workers, each thread with a process for its items.

    Parameters
    ----------
    attempts : int
        How many workers an item may lose before it is given up.
    limit_s : float, s
        How long an item may take; 0 for any time.
    open_cluster : callable
        Returns what `distributed.Client` connects to: an address or a cluster.
    wait : WorkerWait, optional
        How long to wait for workers; for ever by default.
    """

    look_s = 1.0

    def __init__(
        self,
        attempts: int,
        limit_s: float,
        open_cluster: Callable[[ExitStack], object],
        wait: WorkerWait | None = None,
    ) -> None:
        super().__init__(attempts, wait)
        self._limit_s, self._open_cluster = limit_s, open_cluster
        self._software = software_version()
        self._stack = ExitStack()
        self._threads: dict[str, int] = {}
        self._refused: dict[str, str] = {}
        self._given: dict[Future[Any], tuple[str, distributed.Future]] = {}
        self._looked = 0.0

    def __enter__(self) -> Self:
        with self._stack:
            where = self._open_cluster(self._stack)
            self._client = self._stack.enter_context(_client(where))
            self._client.run(end_items, on_error="ignore")  # of a coordinator that was killed
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self._client.cancel([task for _, task in self._given.values()])
            with suppress(OSError, TimeoutError):
                self._client.run(end_items, on_error="ignore")

    def _places(self) -> int:
        """Count the threads of the workers there are; `_submit` waits for the first."""
        if time.monotonic() - self._looked >= self.look_s:
            self._look()
        return sum(self._threads.values()) or 1

    def _look(self) -> None:
        """See which workers there are, and give up the items of those that left."""
        try:
            present, self._looked = self._client.nthreads(), time.monotonic()
            self._threads = self._accepted(present)
        except (OSError, TimeoutError) as err:
            raise ConfigError(
                f"the Dask scheduler does not answer any more: {err}",
                hint="start it and the same run again; what was done is kept",
            ) from err
        self._given = {f: given for f, given in self._given.items() if not f.done()}
        for future, (address, task) in self._given.items():
            if address not in self._threads:
                task.cancel()
                _settle(future, Lost(_LEFT))
        self._wait.look(self._threads, self._refused)

    def _accepted(self, present: dict[str, int]) -> dict[str, int]:
        """Leave out the workers that have another version of the code, or none."""
        self._refused = {a: why for a, why in self._refused.items() if a in present}
        new = [a for a in present if a not in self._threads and a not in self._refused]
        told = self._client.run(software_version, workers=new, on_error="return") if new else {}
        for address, version in told.items():
            if isinstance(version, OSError):  # it has left
                del present[address]
            elif version != self._software:
                known = f"has nightjar {version}" if isinstance(version, str) else "has no nightjar"
                self._refused[address] = known
        return {a: n for a, n in present.items() if a not in self._refused}

    def _submit(self, item: Work[R], attempt: int) -> Future[R | Lost]:
        while not self._threads:
            time.sleep(self.look_s)
            self._look()
        load = Counter(address for f, (address, _) in self._given.items() if not f.done())
        address = max(self._threads, key=lambda a: self._threads[a] - load[a])
        task = self._client.submit(
            perform_apart, item, attempt, self._limit_s, self._software,
            key=f"nightjar-{uuid4().hex}", workers=[address], allow_other_workers=False,
        )  # fmt: skip
        future: Future[R | Lost] = Future()
        self._given[future] = address, task
        task.add_done_callback(partial(_hand_over, future))
        return future


def _hand_over(future: Future[R | Lost], task: distributed.Future) -> None:
    """Take the result of a Dask task."""
    try:
        _settle(future, task.result())
    except CancelledError:
        return
    except distributed.KilledWorker:
        _settle(future, Lost(_LEFT))
    except Exception as err:
        with suppress(InvalidStateError):
            future.set_exception(err)


def _settle(future: Future[R | Lost], result: R | Lost) -> None:
    with suppress(InvalidStateError):  # given up already
        future.set_result(result)


# -- in the Dask workers -------------------------------------------------------------------------

_workers: list[Worker] = []
_idle: list[Worker] = []


def perform_apart(work: Work[R], attempt: int, limit_s: float, software: str) -> R | Lost:
    """Perform an item in a process of this Dask worker.

    Parameters
    ----------
    work : Work
        What to do.
    attempt : int
        The how manieth attempt it is.
    limit_s : float, s
        How long it may take; 0 for any time.
    software : str
        Version of the coordinator's code, which must be that of this one.

    Returns
    -------
    object or Lost
        The result, or how the process died.
    """
    if software != software_version():
        raise ConfigError(
            f"a Dask worker has nightjar {software_version()}, the coordinator {software}",
            hint="install the same version in both places",
        )
    multiprocessing.current_process().daemon = False  # those of a nanny may have no children
    server()
    if not _idle:
        _workers.append(Worker())
        _idle.append(_workers[-1])
    worker = _idle.pop()
    try:
        return worker.perform(work, attempt, limit_s)
    finally:
        _idle.append(worker)


def end_items() -> None:
    """End what the processes of this Dask worker are doing."""
    for worker in _workers:
        worker.interrupt()


# -- clusters ------------------------------------------------------------------------------------


def connect(address: str) -> Callable[[ExitStack], object]:
    """Use the cluster of a scheduler, or make one here.

    Parameters
    ----------
    address : str
        Such as ``tcp://host:8786``, or ``local:N`` for N workers on this machine.

    Returns
    -------
    callable
        Opens it, for `ClusterExecutor`.

    Raises
    ------
    ConfigError
        For ``local:`` without a number.
    """
    if not address.startswith(_LOCAL):
        return lambda _: address
    number = address.removeprefix(_LOCAL)
    if not (number.isascii() and number.isdigit() and int(number)):
        raise ConfigError("is no Dask cluster", key=address, expected="local:N or tcp://HOST:PORT")
    return partial(_local_cluster, int(number))


def _local_cluster(workers: int, stack: ExitStack) -> object:
    cluster = distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, memory_limit=0,
        host="127.0.0.1", dashboard_address="127.0.0.1:0",
    )  # fmt: skip
    stack.enter_context(cluster)
    cluster.adapt(minimum=workers, maximum=workers, interval="5s")  # others for those that die
    return cluster


def slurm_jobs(jobs: int, options: tuple[str, ...]) -> Callable[[ExitStack], object]:
    """Use jobs of Slurm, one worker each, and others in the place of those that end.

    Parameters
    ----------
    jobs : int
        How many.
    options : tuple of str
        Of ``sbatch``, such as ``--time=01:00:00``.

    Returns
    -------
    callable
        Opens it, for `ClusterExecutor`.
    """
    return partial(_slurm_cluster, jobs, options)


def _slurm_cluster(jobs: int, options: tuple[str, ...], stack: ExitStack) -> object:
    from dask_jobqueue import SLURMCluster

    cluster = SLURMCluster(
        cores=1, processes=1, memory="3GB", job_name="nightjar",
        job_directives_skip=["--mem", "-t "], job_extra_directives=list(options),
        scheduler_options={"dashboard_address": ":0"},
    )  # fmt: skip
    stack.enter_context(cluster)
    cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs, interval="5s")
    return cluster


def _client(where: object) -> distributed.Client:
    dask.config.set({"distributed.comm.timeouts.connect": _CONNECT_S})
    try:
        return distributed.Client(where, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as err:
        raise ConfigError(
            f"no Dask scheduler answers: {err}", key=str(where),
            hint="start one with: dask scheduler",
        ) from err  # fmt: skip
