"""Work that is claimed through files: any number of workers, no daemon, a shared folder.

The coordinator writes an item as a file into ``todo``.  A worker claims it by renaming it into
``claimed``, keeps touching it while it works, and answers with a file in ``done``.  A claim that
has not been touched for the time of a lease is lost and its item is tried again.  All times are
those of the shared folder's own clock.  Files hold pickled values: the folder must belong to the
user, and nobody else may write there.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

from harness.execute.engine import Engine
from harness.execute.executor import Work
from harness.execute.worker import Lost
from harness.execute.worker_wait import WorkerWait
from harness.system.software import software_version
from pipeline.atomic import atomic_path

__all__ = ["ClaimExecutor", "Session", "heartbeat", "touched"]

R = TypeVar("R")

_BEATS = 10.0  # signs of life in a lease
_AHEAD = 1  # items that wait for a worker


@dataclass(frozen=True, slots=True)
class Session:
    """The folder of one coordinator.

    Attributes
    ----------
    folder : Path
        Its name sorts by time.
    lease_s : float, s
        How long one may give no sign of life.
    software : str
        Version of the coordinator.
    """

    folder: Path
    lease_s: float
    software: str = ""

    @classmethod
    def create(cls, queue: Path, lease_s: float) -> Session:
        """Make a new one, where nobody else may write."""
        queue.mkdir(parents=True, exist_ok=True)
        queue.chmod(0o700)
        session = cls(queue / f"{time.time_ns():020d}-{uuid4().hex[:8]}", lease_s)
        for name in ("todo", "claimed", "done", "workers", "refused"):
            (session.folder / name).mkdir(parents=True)
        with atomic_path(session.coordinator) as partial:
            about = {"software": software_version(), "lease_s": lease_s}
            partial.write_text(json.dumps(about), encoding="utf-8")
        return session

    @property
    def coordinator(self) -> Path:
        """File that the coordinator touches; it says what the workers must know."""
        return self.folder / "coordinator"

    def worker(self, name: str) -> Path:
        """File that a worker touches."""
        return self.folder / "workers" / name

    def refuse(self, worker: str, why: str) -> None:
        """Leave word for the coordinator that a worker may not work for it."""
        with suppress(OSError), atomic_path(self.folder / "refused" / worker) as partial:
            partial.write_text(why, encoding="utf-8")

    def refusals(self) -> dict[str, str]:
        """Why workers may not work, by their names."""
        return {path.name: path.read_text(encoding="utf-8") for path in self.files("refused")}

    def files(self, kind: str) -> list[Path]:
        """Return the files of a folder, such as ``todo``, by name: the oldest first."""
        return sorted((self.folder / kind).glob("[!.]*"))

    def alive(self, path: Path, now: Path) -> bool:
        """Whether a file was touched within a lease before another."""
        try:
            return now.stat().st_mtime - path.stat().st_mtime < self.lease_s
        except FileNotFoundError:
            return False

    def offer(self, name: str, item: object) -> None:
        """Write an item to be claimed."""
        with atomic_path(self.folder / "todo" / name) as partial:
            partial.write_bytes(pickle.dumps(item))

    def claim(self, worker: str) -> Path | None:
        """Claim the oldest item that nobody else has."""
        for path in self.files("todo"):
            claimed = self.folder / "claimed" / f"{path.name}@{worker}"
            with suppress(FileNotFoundError):
                os.utime(path)
                path.rename(claimed)
                return claimed
        return None

    def answer(self, claimed: Path, result: object) -> None:
        """Write the result of a claimed item, unless it has been taken away."""
        if claimed.exists():
            with atomic_path(self.folder / "done" / item_name(claimed)) as partial:
                partial.write_bytes(pickle.dumps(result))
            claimed.unlink(missing_ok=True)

    def end(self) -> None:
        """Remove it, when its workers have left or give no sign of life."""
        now = self.folder / "ending"
        self.coordinator.unlink(missing_ok=True)
        now.touch()
        while any(self.alive(path, now) for path in self.files("workers")):
            time.sleep(0.2)
            now.touch()
        shutil.rmtree(self.folder, ignore_errors=True)


def item_name(path: Path) -> str:
    """Name of the item that a file is about.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        What precedes the name of the worker.
    """
    return path.name.partition("@")[0]


class ClaimExecutor(Engine):
    """Workers that were started by somebody else, as ``nightjar work``.

    Parameters
    ----------
    queue : Path
        Folder that all of them see.
    attempts : int
        How many workers an item may lose before it is given up.
    limit_s : float, s
        How long an item may take; 0 for any time.
    lease_s : float, s
        How long a worker may give no sign of life.
    wait : WorkerWait, optional
        How long to wait for workers; for ever by default.
    """

    look_s = 0.2

    def __init__(
        self,
        queue: Path,
        attempts: int,
        limit_s: float,
        lease_s: float,
        wait: WorkerWait | None = None,
    ) -> None:
        super().__init__(attempts, wait)
        self._queue, self._limit_s, self._lease_s = queue, limit_s, lease_s
        self._given: dict[str, Future[Any]] = {}
        self._number = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for folder in self._queue.glob("*/"):  # of a coordinator that was killed
            Session(folder, self._lease_s).end()
        self._session = session = Session.create(self._queue, self._lease_s)
        self._stack.callback(session.end)
        self._stack.enter_context(
            heartbeat(self._lease_s, lambda: touched(session.coordinator), lambda: None)
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _places(self) -> int:
        self._take_answers()
        self._withdraw_claims()
        session = self._session
        workers = session.files("workers")
        alive = [w.name for w in workers if session.alive(w, session.coordinator)]
        self._wait.look(alive, session.refusals())
        return _AHEAD + len(alive)

    def _submit(self, item: Work[R], attempt: int) -> Future[R | Lost]:
        self._number += 1
        name = f"{self._number:08d}"
        future: Future[R | Lost] = Future()
        self._given[name] = future
        self._session.offer(name, (item, attempt, self._limit_s))
        return future

    def _take_answers(self) -> None:
        for path in self._session.files("done"):
            self._settle(path, pickle.loads(path.read_bytes()))

    def _withdraw_claims(self) -> None:
        for path in self._session.files("claimed"):
            if not self._session.alive(path, self._session.coordinator):
                self._settle(path, Lost("its worker gave no sign of life"))

    def _settle(self, path: Path, result: object) -> None:
        future = self._given.pop(item_name(path), None)
        if future is not None:  # and not given up before
            future.set_result(result)
        path.unlink(missing_ok=True)


@contextmanager
def heartbeat(
    lease_s: float, beat: Callable[[], bool], otherwise: Callable[[], None]
) -> Iterator[None]:
    """Give signs of life, several in a lease, as long as they are wanted.

    Parameters
    ----------
    lease_s : float, s
        How long one may give none.
    beat : callable
        Gives one; returns whether more are wanted.
    otherwise : callable
        Called once when none are wanted any more.

    Yields
    ------
    None
        They end with the block.
    """
    stop = threading.Event()

    def live() -> None:
        while not stop.wait(lease_s / _BEATS):
            if not beat():
                otherwise()
                return

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def touched(*paths: Path) -> bool:
    """Touch files.

    Parameters
    ----------
    *paths : Path
        The files.

    Returns
    -------
    bool
        Whether all of them are there.
    """
    for path in paths:
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        except OSError:  # a file system that is ill for a moment
            continue
    return True
