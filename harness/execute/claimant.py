"""A worker that claims work through files; see `harness.execute.claims`."""

from __future__ import annotations

import json
import os
import pickle
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from harness.execute.claims import Session, heartbeat, touched
from harness.execute.worker import Lost, Worker
from harness.system.processes import server
from harness.system.software import software_version
from pipeline.errors import ConfigError

__all__ = ["Claimant"]

_LOOK_S = 0.5


class Claimant:
    """Claims items one after the other until the coordinator has ended.

    Parameters
    ----------
    queue : Path
        Folder shared with the coordinator.
    wait_s : float, s
        How long to wait for a coordinator.
    end : float, s
        No item is begun that would probably not end by then, on the monotonic clock.
    """

    def __init__(self, queue: Path, wait_s: float, end: float = float("inf")) -> None:
        self._queue, self._wait_s, self._end = queue, wait_s, end
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._worker = Worker()
        self._slowest_s = 0.0
        self._performed = 0

    def work(self) -> int:
        """Work until the coordinator has ended, or none came, or the time is over.

        Returns
        -------
        int
            Number of items performed.

        Raises
        ------
        ConfigError
            If the coordinator has another version, or others may write into the folder.
        """
        idle_since = time.monotonic()
        try:
            while self._in_time() and time.monotonic() - idle_since < self._wait_s:
                session = self._join()
                if session is None:
                    time.sleep(_LOOK_S)
                    continue
                if self._serve(session):
                    break
                idle_since = time.monotonic()
        finally:
            self._worker.close()
        return self._performed

    def _in_time(self) -> bool:
        return time.monotonic() + self._slowest_s < self._end

    def _join(self) -> Session | None:
        """Enter the session of a coordinator that is running."""
        for folder in sorted(self._queue.glob("*/"), reverse=True):
            with suppress(FileNotFoundError):  # it ends while we look
                about = json.loads((folder / "coordinator").read_text(encoding="utf-8"))
                session = Session(folder, float(about["lease_s"]), about["software"])
                unseen = session.worker(f".{self._name}")
                unseen.touch()
                try:
                    if session.alive(session.coordinator, unseen):
                        self._require_trust(session)
                        unseen.rename(session.worker(self._name))
                        return session
                finally:
                    unseen.unlink(missing_ok=True)
        return None

    def _require_trust(self, session: Session) -> None:
        status = self._queue.stat()
        if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            session.refuse(self._name, f"sees that others may write to {self._queue}")
            raise ConfigError(
                "others may write here, and what is written here is run",
                path=self._queue, expected="a folder of your own with mode 700",
            )  # fmt: skip
        if session.software != software_version():
            session.refuse(self._name, f"has nightjar {software_version()}")
            raise ConfigError(
                f"the coordinator has nightjar {session.software}, this is {software_version()}",
                path=self._queue, hint="start both with the same version",
            )  # fmt: skip

    def _serve(self, session: Session) -> bool:
        """Work for one coordinator; return whether it has ended in good order."""
        mine = session.worker(self._name)
        try:
            with heartbeat(session.lease_s, lambda: touched(mine), lambda: None):
                while self._in_time():
                    if not session.coordinator.exists():
                        return True
                    if not session.alive(session.coordinator, mine):
                        return False
                    claimed = session.claim(self._name)
                    if claimed is None:
                        time.sleep(_LOOK_S)
                    else:
                        self._perform(session, claimed)
        finally:
            mine.unlink(missing_ok=True)
        return False

    def _perform(self, session: Session, claimed: Path) -> None:
        """Perform an item; it is dropped when its claim or its coordinator is no more."""

        def wanted() -> bool:
            mine = session.worker(self._name)
            return touched(claimed) and session.alive(session.coordinator, mine)

        work, attempt, limit_s = pickle.loads(claimed.read_bytes())
        server()  # from this thread, which is that of signals
        start = time.monotonic()
        with heartbeat(session.lease_s, wanted, self._worker.interrupt):
            try:
                result = self._worker.perform(work, attempt, limit_s)
            except KeyboardInterrupt:
                session.answer(claimed, Lost("SIGTERM"))
                raise
        session.answer(claimed, result)
        self._performed += 1
        self._slowest_s = max(self._slowest_s, time.monotonic() - start)
