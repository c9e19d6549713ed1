"""Making a product again from its own provenance cards.

The cards name the inputs and their hashes, the configuration, the versions and the run.  The run's
configuration is kept in ``logs/``; with it the same order is given to the same worker code, in
a folder of its own, and the two files are compared HDU by HDU.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from harness.catalog import Catalog
from harness.execute.book import Book
from harness.execute.campaign import Campaign
from harness.execute.orders import DifferenceOrder, Order, TemplateOrder, VisitImageOrder
from harness.execute.work import cards_of, perform
from harness.ledger import DONE
from harness.plan import Selection
from harness.progress import ProgressDisplay
from harness.settings import Settings
from harness.software import software_version
from harness.standalone import RECIPE, recreate
from harness.workspace import Workspace
from pipeline import io
from pipeline.errors import ConfigError, UnitError

__all__ = ["RerunResult", "compare_fits", "rerun_product"]

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
    settings = _settings_of(space, str(header.get("RUNID", "")))
    with tempfile.TemporaryDirectory(prefix="nightjar-rerun-") as folder:
        order = _order(space, settings, product, header)
        result = RerunResult(changed=_changes(order, header))
        made = _perform(order, product, Path(folder))
        result.differences = compare_fits(product, made)
        if output is not None:
            shutil.copyfile(made, output)
    return result


def _rerun_standalone(product: Path, header: dict[str, Any], output: Path | None) -> RerunResult:
    """Make a difference of ``nightjar subtract`` again; a changed input is an error by name."""
    made = recreate(io.read_difference(product))
    now = made.exposure.provenance
    result = RerunResult(
        changed=[
            f"{what} ({card}) {header.get(card)} → {now[card]}"
            for card, what in _MEANING.items()
            if card in now and str(now[card]) != str(header.get(card))
        ]
    )
    with tempfile.TemporaryDirectory(prefix="nightjar-rerun-") as folder:
        path = Path(folder) / product.name
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


def _settings_of(space: Workspace, run: str) -> Settings:
    """Return the configuration of a run, or the present one where it was not kept."""
    kept = space.logs / "config" / f"{run}.toml"
    return Settings.load(kept if kept.is_file() else space.config)


def _order(space: Workspace, settings: Settings, product: Path, header: dict[str, Any]) -> Order:
    """Return the order that the campaign would give for this file now."""
    with Catalog(space.catalog, read_only=True) as catalog:
        book = Book(space, settings, catalog, "")
        cards: dict[str, str] = {k: str(header[k]) for k in _OF_THE_RUN if k in header}
        campaign = Campaign(book, None, ProgressDisplay(None), None, Selection(), cards)
        for order in campaign.image_orders():
            if product in [p.resolve() for p in order.products]:
                return order
    raise ConfigError(
        "is not part of the campaign's plan any more", path=product, hint="nightjar run --dry-run"
    )


def _changes(order: Order, header: dict[str, Any]) -> list[str]:
    """Compare the recorded provenance with what is there now."""
    now = {**cards_of(order), **_input_cards(order), "SOFTVER": software_version()}
    return [
        f"{what} ({card}) {header.get(card)} → {now[card]}"
        for card, what in _MEANING.items()
        if card in now and str(now[card]) != str(header.get(card))
    ]


def _input_cards(order: Order) -> dict[str, str]:
    if isinstance(order, VisitImageOrder):
        return {"SCIHASH": order.input_sha256}
    if isinstance(order, DifferenceOrder):
        return {
            "SCIHASH": order.science_sha256,
            "TMPLHASH": order.template_sha256,
            "TMPLID": order.template_name,
        }
    return {}


def _perform(order: Order, product: Path, folder: Path) -> Path:
    """Give the order to a worker that writes into another folder."""
    away = Workspace(folder)
    for name in ("raw", "calib", "refcat", "ephemerides"):
        (folder / name).symlink_to(order.space.root.resolve() / name)
    made = folder / product.relative_to(order.space.root.resolve())
    if isinstance(order, DifferenceOrder):
        for source, target in (
            (order.space.visit_image(*order.unit), away.visit_image(*order.unit)),
            (order.space.template(order.template_name), away.template(order.template_name)),
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.resolve())
    changes: dict[str, Any] = {"space": away}
    if isinstance(order, TemplateOrder):
        changes["products"] = (made,)
    outcome = perform(replace(order, **changes))
    if outcome.status != DONE:
        trouble = outcome.trouble
        raise UnitError(f"cannot be made again: {trouble.message if trouble else '?'}")
    return made


def compare_fits(old: Path, new: Path) -> list[str]:
    """Compare two FITS files bit for bit, but for dates, checksums and run ids.

    Returns
    -------
    list of str
        One line per difference; empty when they are the same.
    """
    with fits.open(old, memmap=False) as a, fits.open(new, memmap=False) as b:
        names_a, names_b = [h.name for h in a], [h.name for h in b]
        if names_a != names_b:
            return [f"HDUs {names_a} became {names_b}"]
        return [line for x, y in zip(a, b, strict=True) for line in _compare_hdu(x, y)]


def _compare_hdu(old: Any, new: Any) -> list[str]:
    lines = _compare_cards(old.name, _cards(old), _cards(new))
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


def _compare_cards(name: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    lines = [
        f"{name} card {key}: {old.get(key)!r} became {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    more = [f"{name}: {len(lines) - _MOST_CARDS} more cards"] if len(lines) > _MOST_CARDS else []
    return lines[:_MOST_CARDS] + more


def _cards(hdu: Any) -> dict[str, Any]:
    return {
        card.keyword: card.value
        for card in hdu.header.cards
        if card.keyword not in _VOLATILE and card.keyword not in _STRUCTURE
    }
