"""Pixel loops are compiled once, and loaded without the compiler afterwards."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

_LOOP = """
import numpy as np
from pipeline.compiled import compiled

@compiled
def cumulated(values, factor):
    if np.median(values) < 0:
        raise ValueError("median below zero")
    out = np.empty(len(values), np.float32)
    total = np.float32(0.0)
    for k in range(len(values)):
        total += factor * np.sqrt(values[k])
        out[k] = total
    return out
"""

_CALL = """
import sys
import numpy as np
from loop import cumulated
values = cumulated(np.arange(4, dtype=np.float32), np.float32(2.0))
print(values.sum(), "numba.np.arraymath" in sys.modules)
try:
    cumulated(-np.ones(3, dtype=np.float32), np.float32(2.0))
except ValueError as err:
    print(str(err).replace(" ", "-"))
print(cumulated(np.arange(4), 2)[1])
"""


def test_second_process_loads_machine_code_without_the_compiler(tmp_path: Path) -> None:
    (tmp_path / "loop.py").write_text(_LOOP)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": path}
    environment.pop("NUMBA_DISABLE_JIT", None)
    environment.pop("NUMBA_BOUNDSCHECK", None)
    said = [
        subprocess.run(
            [sys.executable, "-c", _CALL],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        for _ in range(2)
    ]
    total = 2.0 * sum((1.0, 1.0 + 2**0.5, 1.0 + 2**0.5 + 3**0.5))
    for value, _, message, other_types in said:
        assert message == "median-below-zero"
        assert abs(float(value) - total) < 1e-5
        assert float(other_types) == 2.0  # new types are compiled as ever
    assert [compiler for _, compiler, _, _ in said] == ["True", "False"]


_BEYOND = """
import numpy as np
from pipeline.compiled import compiled

@compiled
def beyond(values, k):
    return values[k]
"""

_CALL_BEYOND = """
import numpy as np
from loop import beyond
try:
    beyond(np.arange(100.0)[:4], 7)
    print("read")
except IndexError:
    print("refused")
"""


def test_code_with_checks_of_bounds_is_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "loop.py").write_text(_BEYOND)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": path}
    environment.pop("NUMBA_DISABLE_JIT", None)
    said = [
        subprocess.run(
            [sys.executable, "-c", _CALL_BEYOND],
            env=environment | {"NUMBA_BOUNDSCHECK": checked},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        for checked in ("0", "1", "0", "1")
    ]

    assert said == [["read"], ["refused"]] * 2


def test_private_parts_of_numba_are_there_in_the_range_of_versions() -> None:
    from numba.core import environment
    from numba.core.caching import FunctionCache
    from numba.core.runtime.nrt import rtsys

    for owner, name in (
        (environment, "lookup_environment"),
        (environment, "_rebuild_env"),
        (environment.Environment, "_memo"),
        (FunctionCache, "_load_overload"),
        (FunctionCache, "_index_key"),
        (FunctionCache, "_guard_against_spurious_io_errors"),
        (rtsys, "initialize"),
    ):
        assert hasattr(owner, name), name
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (numba,) = [d for d in project["dependencies"] if d.startswith("numba")]
    assert "<" in numba  # a new version is tried before it is allowed
