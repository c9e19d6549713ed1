"""What other tools read of a bundle: RO-Crate metadata, and an in-toto statement of the test."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.report.checksums import sums
from harness.report.diff import check_table

__all__ = ["CRATE", "STATEMENT", "crate", "statement"]

CRATE = "ro-crate-metadata.json"
"""Name of the metadata, fixed by RO-Crate."""

STATEMENT = "test-result.json"
"""Name of the statement."""

_VERSION = "https://w3id.org/ro/crate/1.1"
_CONTEXT = [f"{_VERSION}/context", {"sha256": "https://schema.org/sha256"}]
_FORMATS = {".md": "text/markdown", ".yaml": "application/yaml"}
_RESULTS = {"pass": "PASSED", "deviation": "WARNED", "partial": "WARNED"}
_TESTS = {"pass": "passedTests", "deviation": "warnedTests", "partial": "warnedTests"}


def crate(report: Mapping[str, Any], folder: Path) -> str:
    """Describe a bundle and every file of it by the RO-Crate Metadata Specification 1.1.

    Parameters
    ----------
    report : mapping
        Its ``report.json``.
    folder : Path
        The bundle, complete but for this file and what is made of it.

    Returns
    -------
    str
        JSON-LD: the data set, its files with size in bytes and SHA-256, the verification that made
        them, the campaign that it judged and the software.
    """
    files = [_file(folder, n, digest) for n, digest in sums(folder).items() if n != CRATE]
    links = [{"@id": f["@id"]} for f in files]
    graph = [
        {
            "@id": CRATE,
            "@type": "CreativeWork",
            "conformsTo": {"@id": _VERSION},
            "about": {"@id": "./"},
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": f"Test report {report['campaign']}",
            "description": f"{report['people']['title']}: verification of a campaign, with the "
            "criteria, the measurements and the evidence",
            "datePublished": report["utc"],
            "license": {"@id": "#license"},
            **({"author": {"@id": "#tester"}} if report["people"]["tester"] else {}),
            "hasPart": links,
            "mentions": {"@id": "#verification"},
        },
        *files,
        *_context_of(report, links),
    ]
    return _text({"@context": _CONTEXT, "@graph": graph})


def _file(folder: Path, name: str, digest: str) -> dict[str, Any]:
    known = _FORMATS.get(Path(name).suffix) or mimetypes.guess_type(name)[0]
    return {
        "@id": quote(name),
        "@type": "File",
        "name": name,
        "contentSize": str((folder / name).stat().st_size),
        "encodingFormat": known or "application/octet-stream",
        "sha256": digest,
    }


def _context_of(report: Mapping[str, Any], links: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Describe what is not a file of the bundle."""
    tester = report["people"]["tester"]
    return [
        *([{"@id": "#tester", "@type": "Person", "name": tester}] if tester else []),
        {
            "@id": "#license",
            "@type": "CreativeWork",
            "name": "The test cases are under BSD-3-Clause; the rest is its makers' to license",
        },
        {
            "@id": "#verification",
            "@type": "CreateAction",
            "name": "nightjar verify",
            "endTime": report["utc"],
            "actionStatus": {"@id": "http://schema.org/CompletedActionStatus"},
            "description": f"verdict {report['verdict']}, exit status {report['exit_code']}",
            "instrument": {"@id": "#nightjar"},
            "object": {"@id": "#catalogue"},
            "result": links,
        },
        {
            "@id": "#nightjar",
            "@type": "SoftwareApplication",
            "name": "Nightjar",
            "version": report["environment"]["software"],
        },
        {
            "@id": "#catalogue",
            "@type": "CreativeWork",  # no data set: it is not in the bundle
            "name": f"Catalogue of the campaign {report['environment']['workspace']}",
            "sha256": _catalogue(report),
        },
    ]


def statement(report: Mapping[str, Any], folder: Path) -> str:
    """State a report's outcome as an in-toto attestation of the type test-result, version 0.1.

    The subject is the catalogue, which holds the hashes of all products; the configuration are the
    case files.  What was not run has not passed, and counts as failed.

    Parameters
    ----------
    report : mapping
        Its ``report.json``.
    folder : Path
        The bundle, with its ``cases``.

    Returns
    -------
    str
        JSON.

    References
    ----------
    in-toto attestation framework, Statement v1 and predicate test-result v0.1.
    """
    tests: dict[str, list[str]] = {"passedTests": [], "warnedTests": [], "failedTests": []}
    for path, check in check_table(report).items():
        if check["verdict"] != "not_applicable":
            outcome = _TESTS.get(check["verdict"], "failedTests")
            kind = outcome if check["counts"] or outcome == "passedTests" else "warnedTests"
            tests[kind].append(path)
    hashes = {n: d for n, d in sums(folder).items() if n.startswith("cases/")}
    predicate: dict[str, Any] = {
        "result": _RESULTS.get(report["verdict"], "FAILED"),
        "configuration": [{"name": n, "digest": {"sha256": d}} for n, d in hashes.items()],
    }
    return _text(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "catalog.duckdb", "digest": {"sha256": _catalogue(report)}}],
            "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
            "predicate": predicate | tests,
        }
    )


def _catalogue(report: Mapping[str, Any]) -> str:
    return next((str(p["sha256"]) for p in report["chain"] if p["of"] == "catalogue"), "")


def _text(content: object) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
