"""Benchmarks of speed and accuracy; see `bench.__main__`."""
