"""Work for the tests of engines; it imports next to nothing, so that a limit of time is its own."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cube:
    """Work that leaves a mark at each attempt, and dies at the first `deaths` of them."""

    number: int
    folder: Path
    deaths: int = 0
    how: str = "exit"

    def perform(self, attempt: int = 1) -> tuple[int, int]:
        before = marks(self.folder, self.number)
        (self.folder / f"{self.number}.{before}.{os.getpid()}").touch()
        if before < self.deaths:
            if self.how == "hang":
                time.sleep(600)
            elif self.how == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(1)
        return self.number, self.number**3

    def lost(self, attempts: int, how: str) -> tuple[int, int]:
        assert how == ("exit code 1" if self.how == "exit" else "TIMEOUT")
        return self.number, -attempts


def marks(folder: Path, number: int) -> int:
    return len(list(folder.glob(f"{number}.*")))
