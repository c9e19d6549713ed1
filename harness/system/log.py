"""Structured logs: one JSON object per line, with run, visit, detector and stage.

Libraries log through the standard `logging` module.  Workers collect their records and hand
them to the coordinator with their result; only the coordinator writes the file, so lines never
interleave.  What a person sees on the screen is a rendering of the same records.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

__all__ = ["Collector", "Logbook", "collecting"]

Record = dict[str, Any]

_OURS = ("pipeline", "harness", "sims", "py.warnings")


class Collector(logging.Handler):
    """Keeps records as plain dictionaries, each with the context it was made in.

    Attributes
    ----------
    records : list of dict
        What was logged, in order.
    context : dict
        Merged into every record: visit, detector, stage.
    """

    def __init__(self, **context: object) -> None:
        super().__init__(logging.INFO)
        self.records: list[Record] = []
        self.context = context

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        entry = {
            "time": _iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self.context,
        }
        if record.exc_info and record.exc_info[1] is not None:
            entry["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        self.records.append(entry)


@contextlib.contextmanager
def collecting(**context: object) -> Iterator[Collector]:
    """Collect everything logged or warned of inside the block.

    Parameters
    ----------
    **context
        Keys that every record shall carry.

    Yields
    ------
    Collector
        Change its ``context`` when the stage changes.
    """
    collector = Collector(**context)
    loggers = [logging.getLogger(name) for name in _OURS]
    levels = [(logger, logger.level, logger.propagate) for logger in loggers]
    with warnings.catch_warnings(record=False):
        warnings.simplefilter("default")
        logging.captureWarnings(True)
        for logger in loggers:
            logger.addHandler(collector)
            logger.setLevel(logging.INFO)
            logger.propagate = False
        try:
            yield collector
        finally:
            logging.captureWarnings(False)
            for logger, level, propagate in levels:
                logger.removeHandler(collector)
                logger.setLevel(level)
                logger.propagate = propagate


class Logbook:
    """The log file of one invocation of the command.

    Parameters
    ----------
    path : Path
        Lines are appended; the file is flushed after each batch.
    **context
        Keys that every line carries (the run).
    """

    def __init__(self, path: Path, **context: object) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("a", encoding="utf-8")
        self._context = context

    def __enter__(self) -> Logbook:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, records: list[Record]) -> None:
        """Append records."""
        for record in records:
            self._file.write(json.dumps({**self._context, **record}, default=str) + "\n")
        self._file.flush()

    def note(self, level: str, message: str, details: Mapping[str, object] | None = None) -> None:
        """Append one line of the coordinator's own."""
        line = {"time": _iso(time.time()), "level": level, "logger": "harness", "message": message}
        self.write([{**line, **(details or {})}])


def _iso(seconds: float) -> str:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{stamp}.{int(seconds % 1 * 1000):03d}Z"
