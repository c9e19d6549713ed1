"""Conditions under which a check has a meaning; otherwise it is not applicable, by rule.

Each condition is a question about the campaign and the sentence printed when the answer is no.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.verify.context import Context

__all__ = ["CONDITIONS", "Condition"]


@dataclass(frozen=True, slots=True)
class Condition:
    """A question about the campaign.

    Attributes
    ----------
    holds : callable
        Answers it.
    otherwise : str
        Printed when the answer is no.
    promised : callable, optional
        Whether the campaign promised what the answer rests on; where it did, the answer no means
        that something was taken away, and the check is not run instead of not applicable.
    """

    holds: Callable[[Context], bool]
    otherwise: str
    promised: Callable[[Context], bool] | None = None

    def broken(self, context: Context) -> bool:
        """Whether it does not hold although the campaign promised that it would."""
        return self.promised is not None and self.promised(context) and not self.holds(context)


def _truth(context: Context) -> bool:
    return (context.space.root / "truth" / "visits.parquet").is_file()


def _simulated(context: Context) -> bool:
    return bool(context.profile)


def _artefacts(context: Context) -> bool:
    return any((context.space.root / "truth" / "artefacts").glob("*.fits"))


def _span(days: float) -> Callable[[Context], bool]:
    def holds(context: Context) -> bool:
        sql = "select max(midpointMjdTai) - min(midpointMjdTai) from DiaSource"
        return (context.scalar(sql) or 0.0) >= days

    return holds


def _bands(context: Context) -> bool:
    return (context.scalar("select count(distinct band) from DiaSource") or 0) > 1


def _calibrated(context: Context) -> bool:
    sql = "select count(*) from visit_image where zeroPoint is not null"
    return (context.scalar(sql) or 0) > 0


def _injections(context: Context) -> bool:
    return "injection" in context.columns and bool(context.scalar("select count(*) from injection"))


def _decam(context: Context) -> bool:
    return context.camera_name == "decam"


def _raw(context: Context) -> bool:
    return any(f.kind == "raw" and f.path.is_file() for f in context.frames.values())


def _scheduler(_: Context) -> bool:
    return any(shutil.which(name) for name in ("srun", "condor_submit", "qsub"))


CONDITIONS: dict[str, Condition] = {
    "truth": Condition(_truth, "these pixels were not simulated: there is no truth", _simulated),
    "no_truth": Condition(
        lambda c: not _truth(c) and not _simulated(c),
        "there is truth: the exact check stands beside this proxy",
    ),
    "artefacts": Condition(_artefacts, "there is no map of the true artefacts", _simulated),
    "raw": Condition(_raw, "the exposures came with the instrument signature removed", _simulated),
    "refcat": Condition(
        lambda c: c.space.refcat.is_file(), "there is no reference catalogue", _simulated
    ),
    "objects": Condition(
        lambda c: c.space.objects.is_file(), "there is no catalogue of static objects"
    ),
    "ephemerides": Condition(
        lambda c: c.space.ephemerides.is_file(),
        "there are no ephemerides of known objects",
        _simulated,
    ),
    "calibrated": Condition(_calibrated, "no image has a zero point: fluxes stay instrumental"),
    "decam": Condition(_decam, "the published numbers are of another camera"),
    "injections": Condition(_injections, "no synthetic sources were injected"),
    "half_year": Condition(_span(182.6), "the campaign spans less than half a year"),
    "one_year": Condition(_span(365.0), "the campaign spans less than a year"),
    "two_bands": Condition(_bands, "the campaign has one band only"),
    "native": Condition(
        lambda c: not c.foreign, "the products were made elsewhere, by other conventions"
    ),
    "scheduler": Condition(_scheduler, "there is no batch scheduler here"),
}
"""Every condition by the word used in case files."""
