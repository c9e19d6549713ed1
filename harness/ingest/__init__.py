"""Exposures taken by a real telescope: registered, with the reference stars they need."""

from harness.ingest.run import IngestResult, ingest_files

__all__ = ["IngestResult", "ingest_files"]
