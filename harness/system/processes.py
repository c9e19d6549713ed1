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

from harness.system.memory import keep_memory

__all__ = ["end_pool", "heeded_termination", "new_pool", "running_pool", "server"]

_PRELOAD = ["harness.tasks", "harness.verify.sampling"]


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
    return ProcessPoolExecutor(processes, mp_context=server(), initializer=_initialise)


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


@contextmanager
def heeded_termination() -> Iterator[None]:
    """Let a polite request to end (SIGTERM) do what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


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
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, former)
    return context


def _initialise() -> None:
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
