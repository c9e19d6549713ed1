"""Declarative test cases; see `harness.verify`."""
