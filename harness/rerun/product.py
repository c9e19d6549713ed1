"""Making a product again from its own provenance cards.

The cards name the inputs and their hashes, the configuration, the versions and the run.  The run's
configuration is kept in ``logs/``; with it the same work is done again into another folder, and
the two files are compared HDU by HDU.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits

import harness.tasks
from harness.campaign.context import Context
from harness.campaign.state import RunState
from harness.campaign.task import Blocked, WorkItem
from harness.catalog import Catalog
from harness.ledger import DONE
from harness.plan import Selection
from harness.settings import Settings
from harness.standalone import RECIPE, recreate
from harness.system.scratch import scratch_folder
from harness.system.software import software_version
from harness.workspace import Workspace
from pipeline import io
from pipeline.errors import ConfigError, UnitError

__all__ = ["RerunResult", "compare_fits", "rerun_product", "settings_of_run"]

_VOLATILE = frozenset({"DATE", "CHECKSUM", "DATASUM", "ZHECKSUM", "ZDATASUM", "RUNID", "SOFTVER"})
_OF_THE_RUN = ("SOFTVER", "RUNID")
_MEANING = {
    "CONFHASH": "configuration",
    "STAGEVER": "stage versions",
    "SOFTVER": "software",
    "SCIHASH": "science input",
    "TMPLHASH": "template",
    "TMPLID": "template name",
}
_MOST_CARDS = 6
_STRUCTURE = frozenset({"COMMENT", "HISTORY", ""})


@dataclass(slots=True)
class RerunResult:
    """How the new product compares with the old one.

    Attributes
    ----------
    differences : list of str
        What is not the same, HDU by HDU.
    changed : list of str
        What has changed since the product was made: inputs, configuration, versions, software.
    """

    differences: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    @property
    def identical(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def rerun_product(product: Path, output: Path | None = None) -> RerunResult:
    """Make a product again and compare.

    Parameters
    ----------
    product : Path
        File below ``products/`` of a workspace, or a difference of ``nightjar subtract``.
    output : Path, optional
        Where to keep the new file.

    Returns
    -------
    RerunResult
        Differences, and what has changed since.

    Raises
    ------
    ConfigError
        If the file is no product of a workspace, or its unit is not planned any more.
    InputError
        If an input of a difference of ``nightjar subtract`` is gone or has changed.
    UnitError
        If the product cannot be made again at all.
    """
    product = product.resolve()
    with io.open_fits(product, expected="a product of Nightjar") as hdus:
        header = dict(hdus[0].header)
    if header.get("RECIPE") == RECIPE:
        return _rerun_standalone(product, header, output)
    space = _workspace_of(product)
    settings = settings_of_run(space, str(header.get("RUNID", "")))
    with space.reading("rerun"), scratch_folder() as folder:
        item = _item(space, settings, product, header)
        now = {**item.provenance(), **item.input_cards, "SOFTVER": software_version()}
        result = RerunResult(changed=_changes(now, header))
        made = _perform(item, product, folder)
        result.differences = compare_fits(product, made)
        if output is not None:
            shutil.copyfile(made, output)
    return result


def _rerun_standalone(product: Path, header: dict[str, Any], output: Path | None) -> RerunResult:
    """Make a difference of ``nightjar subtract`` again; a changed input is an error by name."""
    made = recreate(io.read_difference(product))
    now = made.exposure.provenance
    result = RerunResult(changed=_changes(now, header))
    with scratch_folder() as folder:
        path = folder / product.name
        io.write_difference(path, made, compress=False)
        result.differences = compare_fits(product, path)
        if output is not None:
            shutil.copyfile(path, output)
    return result


def _workspace_of(product: Path) -> Workspace:
    for parent in product.parents:
        if (parent / "nightjar.toml").is_file() and product.is_relative_to(parent / "products"):
            return Workspace.open(parent)
    raise ConfigError(
        "is not a product in a workspace", path=product, expected="WORKSPACE/products/…"
    )


def settings_of_run(space: Workspace, run: str) -> Settings:
    """Return the configuration of a run, or the present one where it was not kept.

    Parameters
    ----------
    space : Workspace
        The campaign.
    run : str
        Identifier of the run.

    Returns
    -------
    Settings
        Its configuration.
    """
    kept = space.run_config(run)
    return Settings.load(kept if kept.is_file() else space.config)


def _item(space: Workspace, settings: Settings, product: Path, header: dict[str, Any]) -> WorkItem:
    """Return the work item that the campaign would have for this file now."""
    cards = {k: str(header[k]) for k in _OF_THE_RUN if k in header}
    with Catalog(space.catalog, read_only=True) as catalog:
        state = RunState(space, settings, catalog, "")
        for item in _planned(Context(state, Selection(), cards, performing=False)):
            if product in [path.resolve() for path in item.products]:
                return item
    raise ConfigError(
        "is not part of the campaign's plan any more", path=product, hint="nightjar run --dry-run"
    )


def _planned(context: Context) -> Iterator[WorkItem]:
    """Yield every item of the plan, doing nothing."""
    for task in harness.tasks.TASKS:
        for phase in task.phases(context):
            yield from (item for item in phase.items if not isinstance(item, Blocked))


def _changes(now: Mapping[str, object], header: Mapping[str, object]) -> list[str]:
    """Compare the recorded provenance with the present one."""
    return [
        f"{what} ({card}) {header.get(card)} → {now[card]}"
        for card, what in _MEANING.items()
        if card in now and str(now[card]) != str(header.get(card))
    ]


def _perform(item: WorkItem, product: Path, folder: Path) -> Path:
    """Do the work again, with the products going to another folder."""
    outcome = replace(item, output=Workspace(folder)).perform()
    if outcome.status != DONE:
        trouble = outcome.trouble
        raise UnitError(f"cannot be made again: {trouble.message if trouble else '?'}")
    return folder / product.relative_to(item.space.root.resolve())


def compare_fits(old: Path, new: Path) -> list[str]:
    """Compare two FITS files bit for bit, but for dates, checksums and run ids.

    Parameters
    ----------
    old, new : Path
        The files.

    Returns
    -------
    list of str
        One line per difference; empty when they are the same.
    """
    with fits.open(old, memmap=False) as a, fits.open(new, memmap=False) as b:
        names_a, names_b = [h.name for h in a], [h.name for h in b]
        if names_a != names_b:
            return [f"HDUs {names_a} became {names_b}"]
        pairs = zip(a, b, _same_bytes(old, new), strict=True)
        return [line for x, y, same in pairs for line in _compare_hdu(x, y, same)]


def _same_bytes(old: Path, new: Path) -> list[bool]:
    """Whether HDUs are stored in the same words and bytes: then their pixels are the same."""
    with (
        fits.open(old, memmap=False, disable_image_compression=True) as a,
        fits.open(new, memmap=False, disable_image_compression=True) as b,
        old.open("rb") as first,
        new.open("rb") as second,
    ):
        return [
            _cards(x) == _cards(y) and _stored(x, first) == _stored(y, second)
            for x, y in zip(a, b, strict=True)
        ]


def _stored(hdu: fits.ImageHDU, stream: BinaryIO) -> bytes:
    """Bytes of the data of an HDU as they lie in the file, the heap of a table included."""
    info = hdu.fileinfo()
    stream.seek(info["datLoc"])
    return stream.read(info["datSpan"])


def _compare_hdu(old: fits.ImageHDU, new: fits.ImageHDU, same_bytes: bool) -> list[str]:
    lines = _compare_cards(old.name, _cards(old), _cards(new))
    if same_bytes:
        return lines
    if (old.data is None) != (new.data is None):
        return [*lines, f"{old.name}: data appeared or vanished"]
    if old.data is not None:
        x, y = np.asarray(old.data), np.asarray(new.data)
        if x.shape != y.shape:
            lines.append(f"{old.name}: shape {x.shape} became {y.shape}")
        elif x.tobytes() != y.tobytes():
            different = int(np.sum(~((x == y) | ((x != x) & (y != y)))))
            lines.append(f"{old.name}: {different} of {x.size} values differ")
    return lines


def _compare_cards(name: str, old: dict[str, object], new: dict[str, object]) -> list[str]:
    lines = [
        f"{name} card {key}: {old.get(key)!r} became {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    more = [f"{name}: {len(lines) - _MOST_CARDS} more cards"] if len(lines) > _MOST_CARDS else []
    return lines[:_MOST_CARDS] + more


def _cards(hdu: fits.ImageHDU) -> dict[str, object]:
    return {
        card.keyword: card.value
        for card in hdu.header.cards
        if card.keyword not in _VOLATILE and card.keyword not in _STRUCTURE
    }
