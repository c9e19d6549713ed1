"""Worker processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.system import memory

_COORDINATOR = """
import os, time
from harness.system.processes import new_pool

if __name__ == "__main__":
    with new_pool(2) as pool:
        pids = {f.result() for f in [pool.submit(os.getpid) for _ in range(20)]}
        print(*pids, os.getppid(), flush=True)
        pool.submit(time.sleep, 60).result()
"""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii").split()[2]


def test_workers_end_with_their_coordinator(tmp_path: Path) -> None:
    script = tmp_path / "coordinator.py"
    script.write_text(_COORDINATOR, encoding="utf-8")
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": root},
    ) as coordinator:  # fmt: skip
        assert coordinator.stdout is not None
        *workers, parent = map(int, coordinator.stdout.readline().split())
        assert parent == os.getpid()
        assert workers
        assert all(_alive(pid) for pid in workers)
        coordinator.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if _alive(pid)]


def test_memory_is_given_back_when_a_process_turns_to_other_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = []
    monkeypatch.setattr(memory, "give_back_memory", lambda: given.append(True))
    monkeypatch.setattr(memory, "_doing", "")
    counts = []
    for work in ("visit_image", "visit_image", "difference", "difference", "visit_image"):
        memory.turn_to(work)
        counts.append(len(given))
    assert counts == [1, 1, 2, 2, 3]
