"""``nightjar explain``: the history of a unit or a source, or a term of the specification."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Json, emit, show_table

if TYPE_CHECKING:
    from harness.alerts.place import Place
    from harness.catalog import Catalog

__all__ = ["explain"]

_UNIT = """SELECT stage, status, cause, message, notes, attempts, round(wallS, 2) AS wallS,
  round(cpuS, 2) AS cpuS, round(peakRssMiB) AS peakRssMiB, inputHash, configHash, stageVersion
FROM unit WHERE visit = ? AND detector = ?"""
_FATES = """SELECT coalesce(rule, 'accepted') AS rule, count(*) AS peaks,
  round(min(abs(snr)), 2) AS least_snr, round(max(abs(snr)), 2) AS largest_snr,
  any_value(bound) AS bound
FROM candidate WHERE visit = ? AND detector = ? GROUP BY 1 ORDER BY peaks DESC"""

_SIDE = 31
"""Side of a stamp in the terminal, pixels."""


def explain(
    where: Annotated[
        str,
        typer.Argument(metavar="[WORKSPACE]", help="Folder of the campaign.", show_default=False),
    ],
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="VISIT|ID|WORD",
            help="Visit, id of a source, object or candidate, or the name of a case, item, check, "
            "requirement or waiver.",
        ),
    ] = None,
    detector: Annotated[
        int | None, typer.Argument(metavar="[DETECTOR]", help="Detector, to explain a unit.")
    ] = None,
    testcases: Annotated[
        Path | None,
        typer.Option("--testcases", help="Folder of case files.", show_default="those of Nightjar"),
    ] = None,
    stamps: Annotated[
        Path | None,
        typer.Option(
            "--stamps", metavar="FOLDER", help="Write what the id shows there as PNG files."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the history of a unit or of a source, or what a word of the specification demands.

    Of a unit (WORKSPACE VISIT DETECTOR): every stage with its cause, notes and cost, its inputs,
    and which rule stopped how many peaks.  Of an id (WORKSPACE ID): where it stands, what it
    became, why it was alerted or not, and its science image, template and difference (of an object:
    those of its strongest source).  Of a case, item, check, requirement or waiver
    (AG-00-15/kernel, DMS-REQ-0074, W-0001): what is measured, the bound, when it applies, the
    requirements behind it and, with a WORKSPACE, what came out last.
    """
    from harness.verify.explain import is_word

    word = where if subject is None else subject
    place = None
    if is_word(word) and detector is None:
        document = _word(word, None if subject is None else Path(where), testcases)
    else:
        document, place = _campaign(Path(where), subject, detector)
    if as_json:
        emit(document)
    else:
        _show(document)
    if place is not None and (stamps is not None or not as_json):
        _show_place(Path(where), place, stamps, in_terminal=not as_json)


def _word(word: str, workspace: Path | None, testcases: Path | None) -> dict[str, Any]:
    from harness.report.write import latest_report
    from harness.verify.explain import explain_word
    from harness.verify.loader import load_spec
    from harness.verify.paths import TESTCASES
    from harness.workspace import Workspace

    report = latest_report(Workspace.open(workspace)) if workspace is not None else None
    return explain_word(word, load_spec(testcases or TESTCASES), report)


def _campaign(
    workspace: Path, subject: str | None, detector: int | None
) -> tuple[dict[str, Any], Place | None]:
    from harness.catalog import Catalog
    from harness.workspace import Workspace
    from pipeline.errors import ConfigError

    if subject is None or not subject.isdecimal():
        raise ConfigError(
            f"cannot explain {subject or str(workspace)!r}",
            expected="a visit, an id, or a case, check, requirement or waiver such as AG-00-15",
        )
    space, number = Workspace.open(workspace), int(subject)
    with Catalog(space.catalog, read_only=True) as catalog:
        if detector is not None:
            document, place = _unit(catalog, number, detector), None
        else:
            document = _source(catalog, number)
            place = _place(catalog, number)
    if not any(document.values()):
        what = f"unit {number} {detector}" if detector is not None else f"id {number}"
        raise ConfigError(f"nothing is known of {what}", path=workspace)
    return document, place


def _unit(catalog: Catalog, visit: int, detector: int) -> dict[str, Any]:
    from harness.tasks import in_order

    unit = (visit, detector)
    stages = in_order(catalog.rows(_UNIT, unit))
    where = "WHERE visit = ? AND detector = ?"
    return {
        "stages": stages,
        "visit_image": _filled(catalog, f"SELECT * FROM visit_image {where}", unit),
        "difference_image": _filled(catalog, f"SELECT * FROM difference_image {where}", unit),
        "template_inputs": catalog.rows(
            "SELECT i.* FROM template_input i JOIN difference_image d USING (templateId) "
            "WHERE d.visit = ? AND d.detector = ? ORDER BY i.weight DESC",
            unit,
        ),
        "peaks": catalog.rows(_FATES, unit),
        "alerts": catalog.rows(
            f"SELECT emitted, reason, count(*) AS sources FROM alert {where} GROUP BY 1, 2", unit
        ),
    }


def _source(catalog: Catalog, number: int) -> dict[str, Any]:
    by_source = "WHERE diaSourceId = ?"
    curve = (
        "SELECT midpointMjdTai, band, kind, visit, detector, psfFlux, psfFluxErr, scienceFlux "
        "FROM lightcurve WHERE diaObjectId = ? ORDER BY midpointMjdTai, kind"
    )
    return {
        "candidate": catalog.rows(
            "SELECT * FROM candidate WHERE candidateId = ? OR diaSourceId = ?", (number, number)
        ),
        "source": _filled(catalog, f"SELECT * FROM DiaSource {by_source}", (number,)),
        "alert": catalog.rows(f"SELECT * FROM alert {by_source}", (number,)),
        "solar_system": catalog.rows(f"SELECT * FROM SSSource {by_source}", (number,)),
        "object": _filled(catalog, "SELECT * FROM DiaObject WHERE diaObjectId = ?", (number,)),
        "light_curve": catalog.rows(curve, (number,)),
        "neighbours": catalog.rows(
            "SELECT * FROM DiaObject_To_Object_Match WHERE diaObjectId = ? ORDER BY dist", (number,)
        ),
    }


_PLACE = """SELECT {number}, s.visit, s.detector, s.x, s.y, coalesce(d.templateId, ''), {is_source}
FROM {table} s JOIN difference_image d ON s.visit = d.visit AND s.detector = d.detector
WHERE {where} = ? ORDER BY abs(s.snr) DESC LIMIT 1"""
_PLACES = [
    _PLACE.format(number=number, table=table, where=where, is_source=table == "DiaSource")
    for table, where, number in (
        ("DiaSource", "s.diaSourceId", "s.diaSourceId"),
        ("DiaSource", "s.diaObjectId", "s.diaSourceId"),
        ("candidate", "s.candidateId", "s.candidateId"),
    )
]


def _place(catalog: Catalog, number: int) -> Place | None:
    """Where a source is, the strongest source of an object, or a candidate, in this order."""
    from harness.alerts.place import Place

    for sql in _PLACES:
        if rows := catalog.rows(sql, (number,)):
            return Place(*rows[0].values())
    return None


def _show_place(workspace: Path, place: Place, folder: Path | None, *, in_terminal: bool) -> None:
    """Draw the stamps of a place in the terminal, and write them to a folder."""
    import sys

    from harness.alerts.cutout_files import write_stamps
    from harness.alerts.place import cutouts_of
    from harness.drawing.cutouts import read_stamps, stamps_as_text
    from harness.workspace import Workspace

    packet = cutouts_of(Workspace.open(workspace), place)
    if in_terminal:
        stamps = read_stamps(packet)
        names = ", ".join(s.name for s in stamps) or "the images are not here"
        typer.echo(f"stamps of {place.number}: {names} (north up, east left)")
        for line in stamps_as_text(stamps, _SIDE, colour=sys.stdout.isatty()) if stamps else ():
            typer.echo(line.rstrip())
    if folder is not None:
        number = write_stamps(folder, [packet])
        typer.echo(f"{number} files written to {folder}", err=not in_terminal)


def _filled(catalog: Catalog, sql: str, parameters: tuple[int, ...]) -> dict[str, Any]:
    """Return the columns of one row that are not NULL."""
    rows = catalog.rows(sql, parameters)
    return {k: v for k, v in rows[0].items() if v is not None} if rows else {}


def _show(document: dict[str, Any]) -> None:
    for title, content in document.items():
        if not content:
            continue
        typer.echo(title.replace("_", " "))
        if isinstance(content, dict):
            show_table([{"column": k, "value": v} for k, v in content.items()])
        else:
            show_table(content)
        typer.echo("")
