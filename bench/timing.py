"""How the benchmarks take time."""

import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cost", "cpu", "timed"]


@dataclass
class Cost:
    """Wall and CPU seconds and peak memory, MiB, of a program."""

    wall: float
    cpu: float
    peak: float


def cpu(function, repeats=5):
    """CPU seconds of the best of some calls in a warm process."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def timed(command: list[str], folder: Path, runs: int = 2) -> Cost:
    """Cost of the last of some runs of a program in a folder, which is on its path.

    Raises
    ------
    RuntimeError
        If the program fails; the end of its errors is the message.
    """
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join([str(folder), os.environ.get("PATH", "")])
    env = {**os.environ, "PYTHONPATH": root, "PATH": path}
    probe = ("import resource,subprocess,sys;"
             "r=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL).returncode;"
             "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss);"
             "sys.exit(r)")  # fmt: skip
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-c", probe, *command], cwd=folder, env=env,
                              capture_output=True, text=True, check=False)  # fmt: skip
        wall = time.monotonic() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise RuntimeError(f"{Path(command[0]).name}: {done.stderr.strip()[-300:]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, used, float(done.stdout) / 1024)
