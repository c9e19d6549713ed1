"""A workspace on disk: where everything lies, and how files come into being.

``WORKSPACE/`` holds ``nightjar.toml``, the inputs (``raw calib refcat ephemerides truth``), the
products, the staging tables, ``catalog.duckdb``, the alerts, the logs and the reports.  A file is
written under a temporary name beside its place and then renamed, so that it is there whole or
not at all.  One command at a time may change a workspace, and none while others read what hangs
together in it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.system.scratch import sweep_scratch
from pipeline.atomic import UNFINISHED, translate_os_errors
from pipeline.atomic import atomic_path as atomic
from pipeline.errors import ConfigError, StorageError

__all__ = ["Workspace", "atomic", "translate_os_errors"]

_FOLDERS = (
    "raw",
    "calib",
    "refcat",
    "ephemerides",
    "products/visit_image",
    "products/template",
    "products/difference",
    "staging",
    "alerts",
    "logs",
    "reports",
)


@dataclass(frozen=True, slots=True)
class Workspace:
    """The paths of one campaign.

    Attributes
    ----------
    root : Path
        The folder.
    """

    root: Path

    @classmethod
    def create(cls, root: Path) -> Workspace:
        """Make the folders of a new workspace.

        Raises
        ------
        ConfigError
            If there is a workspace already.
        InputError
            If the folder cannot be written.
        """
        space = cls(root)
        if space.config.exists():
            raise ConfigError(
                "is a workspace already", path=root, hint="choose another folder or remove it"
            )
        with translate_os_errors(root):
            for folder in _FOLDERS:
                (root / folder).mkdir(parents=True, exist_ok=True)
        return space

    @classmethod
    def open(cls, root: Path) -> Workspace:
        """Return an existing workspace.

        Raises
        ------
        ConfigError
            If the folder is none.
        """
        space = cls(root)
        if not space.config.is_file():
            raise ConfigError(
                "is not a workspace: it has no nightjar.toml",
                path=root,
                hint=f"make one with: nightjar init {root}",
            )
        return space

    @contextmanager
    def changing(self, command: str) -> Iterator[None]:
        """Be the only one that changes the workspace during the block.

        What killed commands left half-written is removed first.  The lock goes with the process,
        however it ends.

        Parameters
        ----------
        command : str
            Who that is, for those who come meanwhile.

        Raises
        ------
        ConfigError
            If another command is at it.
        InputError
            If a file cannot be made here.
        """
        with translate_os_errors(self.root):
            for folder in _FOLDERS:
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            lock = (self.root / ".lock").open("a+", encoding="utf-8")
        with lock:
            self._take(lock, f"nightjar {command} (process {os.getpid()})")
            self.sweep()
            sweep_scratch()
            yield

    @contextmanager
    def reading(self, command: str) -> Iterator[None]:
        """See that no other command changes the workspace during the block; others may read it.

        Where there is no lock and none can be made, as on a read-only disk, nobody is kept out.

        Parameters
        ----------
        command : str
            Who that is, for the message.

        Raises
        ------
        ConfigError
            If another command changes it.
        """
        with ExitStack() as stack:
            try:
                (self.root / ".lock").touch()
                lock = stack.enter_context((self.root / ".lock").open(encoding="utf-8"))
            except OSError:
                lock = None
            if lock is not None and not _lock(lock, fcntl.LOCK_SH, self.root):
                raise _in_use(lock, self.root, f"nightjar {command} needs it as it is")
            yield

    def _take(self, lock: IO[str], name: str) -> None:
        if not _lock(lock, fcntl.LOCK_EX, self.root):
            if _lock(lock, fcntl.LOCK_SH, self.root):
                raise ConfigError(
                    "is being read by another command, which needs it as it is", path=self.root,
                    hint="wait for nightjar verify, study or rerun to end",
                )  # fmt: skip
            raise _in_use(lock, self.root, "wait for it to end")
        with translate_os_errors(self.root):
            lock.truncate(0)
            lock.write(name)
            lock.flush()

    def sweep(self) -> int:
        """Remove what a killed command left half-written; return the number of files."""
        left = [path for path in self.root.rglob(UNFINISHED) if path.is_file()]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "nightjar.toml"

    @property
    def specification(self) -> Path:
        """The specification as it was pinned before the first run."""
        return self.root / "specification.json"

    @property
    def catalog(self) -> Path:
        """The DuckDB file."""
        return self.root / "catalog.duckdb"

    @property
    def queue(self) -> Path:
        """Folder of the work that is claimed through files."""
        return self.root / "queue"

    @property
    def logs(self) -> Path:
        """Folder of the structured logs."""
        return self.root / "logs"

    def run_config(self, run: str) -> Path:
        """Return where the configuration of a run is kept, overrides included."""
        return self.logs / "config" / f"{run}.toml"

    @property
    def exposures(self) -> Path:
        """Table of the visits."""
        return self.root / "raw" / "exposures.parquet"

    @property
    def frames(self) -> Path:
        """Table of the ingested frames, one row per visit and detector."""
        return self.root / "raw" / "frames.parquet"

    @property
    def refcat(self) -> Path:
        """Reference catalogue of stars."""
        return self.root / "refcat" / "refcat.parquet"

    @property
    def objects(self) -> Path:
        """Catalogue of static objects near which alerts are placed."""
        return self.root / "refcat" / "objects.parquet"

    @property
    def ephemerides(self) -> Path:
        """Ephemerides of known solar-system objects."""
        return self.root / "ephemerides" / "ephemerides.parquet"

    @property
    def orbits(self) -> Path:
        """Orbits of solar-system objects, in the columns of the Minor Planet Center."""
        return self.root / "ephemerides" / "mpc_orbits.parquet"

    def camera(self, name: str) -> Path | str:
        """Camera definition: the workspace's own copy, else the bundled one's name."""
        own = self.root / "calib" / "camera" / f"{name}.toml"
        return own if own.is_file() else name

    def bias(self, detector: int) -> Path:
        """Master bias of a detector."""
        return self.root / "calib" / f"bias_{detector:02d}.fits"

    def flat(self, band: str, detector: int) -> Path:
        """Master flat of a band and detector."""
        return self.root / "calib" / f"flat_{band}_{detector:02d}.fits"

    def visit_image(self, visit: int, detector: int) -> Path:
        """Visit image of a unit."""
        return self.root.joinpath("products", "visit_image", f"{visit}_{detector:02d}.fits")

    def diagnosis(self, visit: int, detector: int) -> Path:
        """Visit image of a unit as far as it came before it failed."""
        return self.root / "diagnosis" / f"visit_image_{visit}_{detector:02d}.fits"

    def template(self, name: str) -> Path:
        """Template of that name."""
        return self.root / "products" / "template" / f"{name}.fits"

    def difference(self, visit: int, detector: int) -> Path:
        """Difference image of a unit."""
        return self.root.joinpath("products", "difference", f"{visit}_{detector:02d}.fits")

    def staging(self, table: str, visit: int, detector: int) -> Path:
        """Rows of one unit and table."""
        return self.root.joinpath("staging", table, f"{visit}_{detector:02d}.parquet")

    def alerts(self, visit: int, detector: int) -> Path:
        """Alert container of a unit."""
        return self.root / "alerts" / f"{visit}_{detector:02d}.avro"

    def relative(self, path: Path) -> str:
        """Path as stored in tables: relative to the root where it lies below it."""
        path = path.resolve()
        root = self.root.resolve()
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)

    def resolve(self, stored: str) -> Path:
        """Undo `relative`."""
        return self.root / stored


def _lock(file: IO[str], how: int, root: Path) -> bool:
    """Lock a file without waiting, and say whether that went."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as err:
        raise StorageError(f"cannot be locked: {err.strerror}", path=root) from err
    return True


def _in_use(lock: IO[str], root: Path, hint: str) -> ConfigError:
    lock.seek(0)
    holder = lock.read().strip() or "another command"
    return ConfigError(f"is in use by {holder}", path=root, hint=hint)
