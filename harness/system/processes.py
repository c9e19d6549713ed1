"""Pools of worker processes, forked from one clean server that has the libraries loaded."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Never

from harness.system.memory import keep_memory
from harness.system.threads import one_thread

__all__ = [
    "Terminated",
    "end_pool",
    "heeded_termination",
    "initialise_worker",
    "new_pool",
    "running_pool",
    "server",
]

_PRELOAD = [
    "harness.tasks",
    "harness.verify.sampling",
    # What tasks load at their first use, lest every worker load it anew.
    "pipeline.alerts.container",
    "pipeline.alerts.cutouts",
    "pipeline.alerts.run",
    "pipeline.calibrate.alignment",
    "pipeline.calibrate.run",
    "pipeline.diaobject.bodies",
    "pipeline.diaobject.force",
    "pipeline.diaobject.run",
    "pipeline.diasource.run",
    "pipeline.io.calibrations",
    "pipeline.io.external",
    "pipeline.io.orbits",
    "pipeline.io.products",
    "pipeline.io.raw",
    "pipeline.io.refcat",
    "pipeline.isr.run",
    "pipeline.quantise",
    "pipeline.subtract.alard_lupton",
    "pipeline.subtract.run",
    "pipeline.template.patch",
    "pipeline.template.run",
    "pipeline.template.warp",
    "pyarrow.parquet",
]


def new_pool(processes: int) -> ProcessPoolExecutor:
    """Make a pool whose workers start at once, ignore Ctrl-C and end with their coordinator.

    Parameters
    ----------
    processes : int
        How many.

    Returns
    -------
    ProcessPoolExecutor
        The server behind it serves every pool of this process: loading the libraries takes
        seconds, and is done once.
    """
    return ProcessPoolExecutor(processes, mp_context=server(), initializer=initialise_worker)


def end_pool(pool: ProcessPoolExecutor) -> None:
    """End the workers at once, whatever they are doing, and give up what still waits.

    Parameters
    ----------
    pool : ProcessPoolExecutor
        The pool.
    """
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(timeout=5)


@contextmanager
def running_pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Make a pool that ends with a block: orderly, or at once after an exception.

    Parameters
    ----------
    processes : int
        How many.

    Yields
    ------
    ProcessPoolExecutor
        The pool.
    """
    pool = new_pool(processes)
    try:
        yield pool
    except BaseException:
        end_pool(pool)
        raise
    pool.shutdown()


class Terminated(KeyboardInterrupt):
    """A polite request to end (SIGTERM): it does what Ctrl-C does, with an exit code of its own."""

    exit_code = 128 + signal.SIGTERM


@contextmanager
def heeded_termination() -> Iterator[None]:
    """Raise `Terminated` on a polite request to end (SIGTERM)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _terminate(_number: int, _frame: FrameType | None) -> Never:
    raise Terminated


def server() -> ForkServerContext:
    """Start the server, if need be, and return the context that makes processes from it.

    Returns
    -------
    multiprocessing.context.ForkServerContext
        With the libraries loaded.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    # The server is deaf to Ctrl-C, also while it loads the libraries.
    with _deaf_to_interrupts():
        forkserver.ensure_running()
    return context


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # which has the signals
        return
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def initialise_worker() -> None:
    """Prepare a process for work: one thread, deaf to Ctrl-C, gone when its coordinator is."""
    one_thread().__enter__()  # to its end
    keep_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    coordinator = multiprocessing.parent_process()
    if coordinator is not None:
        threading.Thread(target=_follow, args=(coordinator,), daemon=True).start()


def _follow(coordinator: BaseProcess) -> None:
    """End with the coordinator.

    The server that forked us cannot tell: it ends after its last worker does.
    """
    coordinator.join()
    os._exit(1)
