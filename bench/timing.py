"""How the benchmarks take time."""

import time

__all__ = ["cpu"]


def cpu(function, repeats=5):
    """CPU seconds of the best of some calls in a warm process."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)
