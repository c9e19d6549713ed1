"""Exposures taken by a real telescope: registered, with the reference stars they need."""

from harness.ingest.hits import HitsResult, ingest_hits
from harness.ingest.registry import IngestResult
from harness.ingest.run import ingest_files

__all__ = ["HitsResult", "IngestResult", "ingest_files", "ingest_hits"]
