"""Progress of a campaign: a live bar on a terminal, plain lines anywhere else.

Both say how many units are done, failed and were found done already, and when the rest will be.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["ProgressDisplay", "open_progress"]

_LINE_EVERY_S = 5.0


class ProgressDisplay:
    """Counts of one phase after another, written as plain lines.

    Parameters
    ----------
    stream : text stream
        Where to write; ``None`` for nowhere.
    """

    def __init__(self, stream: IO[str] | None) -> None:
        self._stream = stream
        self._label, self._total = "", 0
        self._counts: dict[str, int] = {}
        self._start = self._last = 0.0

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to restore here."""

    def start(self, label: str, total: int) -> None:
        """Begin a phase of so many units."""
        self._label, self._total, self._counts = label, total, {}
        self._start = self._last = time.monotonic()

    def advance(self, status: str, note: str = "") -> None:
        """Count one unit; a note is shown at once, on a line of its own."""
        self._counts[status] = self._counts.get(status, 0) + 1
        if note:
            self.say(note)
        self._show()

    def finish(self) -> None:
        """End the phase."""
        if self._total:
            self._emit(f"{self._label:<12} {self.summary()} in {self._elapsed():.1f} s")

    def say(self, text: str) -> None:
        """Show a line."""
        self._emit(text)

    @property
    def done(self) -> int:
        """Units counted in this phase."""
        return sum(self._counts.values())

    def summary(self) -> str:
        """Put the counts into words."""
        return ", ".join(f"{n} {status}" for status, n in self._counts.items()) or "nothing to do"

    def eta(self) -> float | None:
        """Seconds to the end of the phase, judged by the units that took time."""
        worked = self.done - self._counts.get("cached", 0)
        if not worked:
            return None
        return self._elapsed() / worked * (self._total - self.done)

    def _elapsed(self) -> float:
        return time.monotonic() - self._start

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._last < _LINE_EVERY_S or self.done == self._total:
            return
        self._last, eta = now, self.eta()
        rest = f", {eta:.0f} s to go" if eta is not None else ""
        self._emit(f"{self._label:<12} {self.done}/{self._total} ({self.summary()}{rest})")

    def _emit(self, text: str) -> None:
        if self._stream is not None:
            try:
                self._stream.write(text + "\n")
                self._stream.flush()
            except OSError:  # nobody reads it any more; the work goes on
                self._stream = None


class _Bars(ProgressDisplay):
    """The same with one live bar per phase."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream)
        from rich.console import Console

        self._console = Console(file=stream)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressDisplay:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed

        self._progress = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            Elapsed(),
            console=self._console,
        )
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def start(self, label: str, total: int) -> None:
        super().start(label, total)
        if self._progress is not None and total:
            self._task = self._progress.add_task(label, total=total, note="")

    def finish(self) -> None:
        self._show()

    def _show(self) -> None:
        eta = self.eta()
        rest = f" · {eta:.0f} s to go" if eta is not None and self.done < self._total else ""
        if self._progress is not None and self._task is not None and self._total:
            self._progress.update(self._task, completed=self.done, note=self.summary() + rest)

    def _emit(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)


def open_progress(*, quiet: bool = False) -> ProgressDisplay:
    """Choose the display that suits standard error.

    Parameters
    ----------
    quiet : bool
        Whether to show nothing.

    Returns
    -------
    ProgressDisplay
        A bar on a terminal, lines elsewhere.
    """
    if quiet:
        return ProgressDisplay(None)
    return _Bars(sys.stderr) if sys.stderr.isatty() else ProgressDisplay(sys.stderr)
