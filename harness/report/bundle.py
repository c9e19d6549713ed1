"""A report's folder as a bundle: hashes of every file, and the verdicts drawn again from it.

``SHA256SUMS`` lists every file as ``sha256sum --check`` reads it, and a signature is one of that
list (`harness.report.signature`).  `check_bundle` needs the folder
alone: it compares the files with the list, draws the conclusions again from the measurements in
``report.json`` and the specification in ``cases/``, and follows the hash chain.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from harness.report.chain import chained, digest_of
from harness.report.checksums import SIGNATURE, SUMS, listing, sums, verdict_bytes
from harness.report.crate import CRATE, STATEMENT, crate, statement
from harness.report.model import SCHEMA, conclusions, observer_of, sheets_of
from harness.report.signature import signature_fault
from harness.report.write import RENDERINGS, load_report
from harness.system.hashes import file_hash
from harness.verify.engine import conclude
from harness.verify.loader import load_spec
from harness.verify.nodes import SpecError
from pipeline.errors import InputError

__all__ = ["check_bundle", "require_untouched"]


def check_bundle(folder: Path, signers: Path | None = None) -> list[str]:
    """Judge again from a report's folder alone, and name everything that is not as it was written.

    Parameters
    ----------
    folder : Path
        Folder of the report; nothing outside it is read.
    signers : Path, optional
        Who may sign, as in ssh-keygen's ALLOWED SIGNERS; the report has to be signed then.

    Returns
    -------
    list of str
        One line per fault; empty when every byte is as written and every verdict follows.

    Raises
    ------
    InputError
        If there is no report.
    """
    report = load_report(folder)
    faults = list(_altered(folder))
    try:
        faults += _contradictions(folder, report)
    except SpecError as err:
        faults += [f"cases: {p}" for p in err.problems]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as err:
        faults.append(f"report.json: is no complete report ({type(err).__name__}: {err})")
    unsigned = signature_fault(folder, signers)
    faults += [f"{SIGNATURE}: {unsigned}"] if unsigned else []
    return list(dict.fromkeys(faults))


def require_untouched(folder: Path, *, renderings: bool = False) -> None:
    """Refuse a report whose data were changed after the judgement.

    Parameters
    ----------
    folder : Path
        Folder of the report.
    renderings : bool
        Whether the renderings and the list of hashes matter too; a signature never does, since it
        is made anew.

    Raises
    ------
    InputError
        With the first fault.
    """
    own = (SIGNATURE,) if renderings else (*RENDERINGS, SUMS, SIGNATURE)
    named = tuple(f"{n}{end}" for n in own for end in (":", "/"))
    faults = [f for f in check_bundle(folder) if not f.startswith(named)]
    if faults:
        more = f"; {len(faults) - 1} more" if len(faults) > 1 else ""
        raise InputError(
            f"is not as it was judged: {faults[0]}{more}",
            path=folder,
            hint="judge the campaign again with: nightjar verify WORKSPACE",
        )


def _altered(folder: Path) -> Iterator[str]:
    """Compare the files with the list of their hashes, and the list with its form."""
    for path in sorted(p for p in folder.rglob("*") if p.is_symlink()):
        yield f"{path.relative_to(folder).as_posix()}: is a link, not a file"
    try:
        text = (folder / SUMS).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        yield f"{SUMS}: cannot be read; the hashes of the files are not known"
        return
    listed = {name: digest for digest, _, name in (x.partition("  ") for x in text.splitlines())}
    present = sums(folder)
    for name in sorted(listed.keys() | present.keys()):
        if name not in present:
            yield f"{name}: is gone"
        elif name not in listed:
            yield f"{name}: is not in {SUMS}"
        elif listed[name] != present[name]:
            yield f"{name}: is altered: SHA-256 {present[name][:16]}, not {listed[name][:16]}"
    if text != listing(listed):
        yield f"{SUMS}: is altered; it is not in the form in which it was written"


def _contradictions(folder: Path, report: Mapping[str, Any]) -> Iterator[str]:
    """Draw the conclusions again; whatever differs is named by its place in the report."""
    if report["schema"] != SCHEMA:
        yield f"report.json: is of {report['schema']}, and this is {SCHEMA}: judge again"
        return
    spec = load_spec(folder / "cases")
    results = conclude(spec, observer_of(report), date.fromisoformat(report["today"]))
    drawn = conclusions(spec, results, sheets_of(report))
    again = json.loads(json.dumps(drawn, allow_nan=False))
    for key, value in again.items():
        for place in _differences(report.get(key), value, key):
            yield f"report.json: {place} does not follow from the measurements and the cases"
    for name in ("criteria", "verdicts"):
        stated = {part["of"]: part["sha256"] for part in report["chain"]}.get(name)
        if stated != (spec.hash if name == "criteria" else digest_of(again)):
            yield f"report.json: chain/{name} is not the hash of what is here"
    if report["chain"] != chained((p["of"], p["sha256"]) for p in report["chain"]):
        yield "report.json: chain does not hold: a link is not the hash of those before it"
    if (folder / "verdicts.json").read_bytes() != verdict_bytes(again):
        yield "verdicts.json: is not what follows from the measurements and the cases"
    for name, made in ((STATEMENT, statement), (CRATE, crate)):
        path = folder / name
        if path.is_file() and path.read_bytes() != made(report, folder).encode():
            yield f"{name}: is not what follows from report.json and the files"
    yield from _images(folder, report)


def _differences(stated: Any, again: Any, where: str) -> Iterator[str]:
    """Places at which two values differ, as deep as can be named."""
    if isinstance(stated, dict) and isinstance(again, dict):
        for key in sorted(stated.keys() | again.keys()):
            yield from _differences(stated.get(key), again.get(key), f"{where}/{key}")
    elif isinstance(stated, list) and isinstance(again, list) and len(stated) == len(again):
        for index, pair in enumerate(zip(stated, again, strict=True)):
            yield from _differences(*pair, f"{where}/{_named(pair[1], index)}")
    elif stated != again or type(stated) is not type(again):
        yield where


def _named(value: Any, index: int) -> str:
    return str(value["id"]) if isinstance(value, dict) and "id" in value else str(index)


def _images(folder: Path, report: Mapping[str, Any]) -> Iterator[str]:
    """Images whose content is not the one that the report names."""
    for image in _named_images(dict(report)):
        path = folder / str(image["path"])
        if path.is_file() and file_hash(path) != image["sha256"]:
            yield f"{image['path']}: is not the image that report.json names"


def _named_images(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        if {"path", "sha256"} <= value.keys():
            yield value
        for inner in value.values():
            yield from _named_images(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named_images(inner)
