"""Inspections answered by a person: what is asked, what is shown, and how answers are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from harness.report.html import style, with_images
from harness.report.model import sheets_of
from harness.report.write import load_report
from harness.system.hashes import file_hash
from harness.verify.context import Context, Unit
from harness.verify.kinds.inspect import LEVELS, Inspect, draw, fingerprint
from harness.verify.loader import Spec
from harness.workspace import atomic, translate_os_errors
from pipeline.errors import InputError

__all__ = ["Question", "accept", "keep", "questions", "review_page"]


@dataclass(frozen=True, slots=True)
class Question:
    """An inspection of some units.

    Attributes
    ----------
    path : str
        Path of the check.
    sheet : str
        Name of the file of answers.
    text : str
        The question.
    units : tuple of Unit
        What is asked about, in order.
    images : tuple of dict
        ``caption``, ``path`` and ``sha256`` of the image of each unit, as the report has them.
    pixels : str
        SHA-256 over the products, to which the answers are bound.
    """

    path: str
    sheet: str
    text: str
    units: tuple[Unit, ...]
    images: tuple[Mapping[str, Any], ...]
    pixels: str

    def fields(self) -> list[str]:
        """Names of the fields of the form, one for each unit."""
        return [f"{self.sheet}/{u.visit}/{u.detector}" for u in self.units]


def questions(spec: Spec, context: Context, folder: Path) -> list[Question]:
    """List the inspections of a campaign with the images of its report.

    Parameters
    ----------
    spec : Spec
        Holds the inspections.
    context : Context
        The campaign.
    folder : Path
        Its newest report.

    Returns
    -------
    list of Question
        Those that have units to be looked at.

    Raises
    ------
    InputError
        If the report is of another state of the campaign, or lacks the images.
    """
    report = load_report(folder)
    judged = {part["of"]: part["sha256"] for part in report["chain"]}
    if judged.get("catalogue") != file_hash(context.space.catalog):
        raise _stale(folder, "is of another state of the catalogue")
    shown = {path: {i["caption"]: i for i in sheet} for path, sheet in sheets_of(report).items()}
    found = [
        _question(f"{case.id}/{item.id}/{check.id}", check.subject, context, shown, folder)
        for case, item, check in spec.checks()
        if isinstance(check.subject, Inspect)
    ]
    return [q for q in found if q.units]


def _question(
    path: str,
    asked: Inspect,
    context: Context,
    shown: Mapping[str, Mapping[str, Any]],
    folder: Path,
) -> Question:
    units = tuple(draw(context, asked))
    images = [shown.get(path, {}).get(u.caption) for u in units]
    if any(image is None or "sha256" not in image for image in images):
        raise _stale(folder, f"does not show every unit of {path}")
    pixels = fingerprint(context, asked.product, list(units))
    drawn = tuple(i for i in images if i is not None)
    return Question(path, asked.sheet, asked.question, units, drawn, pixels)


def _stale(folder: Path, fault: str) -> InputError:
    return InputError(
        fault, path=folder, hint="judge the campaign again with: nightjar verify WORKSPACE"
    )


def review_page(asked: Sequence[Question], folder: Path, inspector: str, action: str) -> str:
    """Write the page of questions.

    Parameters
    ----------
    asked : sequence of Question
        What is asked.
    folder : Path
        Folder of the report with the images; they are set inline.
    inspector : str
        Name that the form starts with.
    action : str
        Where the form goes.

    Returns
    -------
    str
        A complete document.
    """
    page = with_images(folder).get_template("review.html.j2")
    return page.render(
        asked=asked, levels=list(LEVELS), inspector=inspector, action=action, style=style()
    )


def accept(asked: Sequence[Question], form: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Check a filled form.

    Parameters
    ----------
    asked : sequence of Question
        What was asked.
    form : mapping of str
        ``inspector``, and an answer for each of `Question.fields`.

    Returns
    -------
    dict
        The content of the files of answers, by the name of the sheet.

    Raises
    ------
    InputError
        If a name or an answer is missing, or something was answered that was not asked.
    """
    inspector = " ".join(form.get("inspector", "").split())
    known = {"inspector", *(name for q in asked for name in q.fields())}
    if not inspector or len(inspector) > 200:
        raise InputError("the name of the inspector is missing or too long")
    if strange := sorted(form.keys() - known):
        raise InputError(f"{strange[0]!r} was not asked")
    if absent := sorted(n for n in known - {"inspector"} if form.get(n) not in LEVELS):
        raise InputError(f"{absent[0]} is unanswered", expected=" or ".join(LEVELS))
    return {
        q.sheet: {
            "inspector": inspector,
            "pixels": q.pixels,
            "evidence": [str(image["sha256"]) for image in q.images],
            "answers": [
                {"visit": u.visit, "detector": u.detector, "answer": form[name]}
                for u, name in zip(q.units, q.fields(), strict=True)
            ],
        }
        for q in asked
    }


def keep(root: Path, answers: Mapping[str, Mapping[str, Any]], utc: str) -> list[Path]:
    """Write answers where the checks look for them.

    Parameters
    ----------
    root : Path
        The workspace.
    answers : mapping
        Made by `accept`.
    utc : str
        When they were given, ISO 8601.

    Returns
    -------
    list of Path
        ``inspections/SHEET.yaml``, each.
    """
    written = []
    for sheet, content in answers.items():
        path = root / "inspections" / f"{sheet}.yaml"
        with translate_os_errors(path):
            path.parent.mkdir(exist_ok=True)
            with atomic(path) as partial, partial.open("w", encoding="utf-8") as stream:
                plain = json.loads(json.dumps({"utc": utc, **content}))
                YAML().dump(plain, stream)
        written.append(path)
    return written
