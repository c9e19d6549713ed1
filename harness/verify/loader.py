"""Reading the test specification: case files, requirements and waivers.

All problems of all files are reported at once, each with its place and, where a word looks like a
known one, a suggestion.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from harness.system.hashes import file_hash
from harness.verify.attributes import Matrix, load_matrices
from harness.verify.bounds import Bound
from harness.verify.documents import checked
from harness.verify.expected import Expected
from harness.verify.model import (
    Case,
    Check,
    Item,
    Requirement,
    RequirementFile,
    Waiver,
    WaiverFile,
    case_model,
)
from harness.verify.nodes import Document, Problem, SpecError, read_yaml
from harness.verify.paths import TESTCASES

__all__ = ["SCHEMAS", "Spec", "json_schema", "load_spec", "spec_files"]


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything that is demanded.

    Attributes
    ----------
    cases : tuple of Case
        By their identifiers.
    requirements : tuple of Requirement
        All that are known, covered or deferred.
    waivers : tuple of Waiver
        Accepted failures.
    hash : str
        SHA-256 over every file of the folder that a verdict can depend on.
    criteria : mapping
        Canonical text of every check by its path ``case/item/check``, and of every attribute,
        requirement and waiver by ``file/identifier``, and the SHA-256 of the other files: what must
        not change between pinning and judging.
    """

    cases: tuple[Case, ...]
    requirements: tuple[Requirement, ...]
    waivers: tuple[Waiver, ...]
    hash: str
    criteria: dict[str, str]

    def checks(self) -> Iterator[tuple[Case, Item, Check]]:
        """Walk over all checks in order."""
        for case in self.cases:
            for item in case.items:
                for check in item.checks:
                    yield case, item, check


def load_spec(folder: Path = TESTCASES) -> Spec:
    """Read a folder of case files.

    Parameters
    ----------
    folder : path-like
        Holds ``ag-*.yaml``, ``requirements.yaml`` and ``waivers.yaml``.

    Returns
    -------
    Spec
        The checked specification.

    Raises
    ------
    SpecError
        With every problem of every file.
    """
    problems: list[Problem] = []
    paths = sorted(folder.glob("ag-*.yaml"))
    if not paths:
        raise SpecError([Problem(str(folder), 1, 1, "no case files ag-*.yaml here")])
    documents = {p: read_yaml(p) for p in paths}
    cases = [c for p in paths if (c := checked(documents[p], case_model(), problems))]
    known = read_yaml(folder / "requirements.yaml")
    accepted = read_yaml(folder / "waivers.yaml")
    requirements = checked(known, RequirementFile, problems)
    waivers = checked(accepted, WaiverFile, problems)
    matrices = _matrices(folder, problems)
    if (folder / "expected.yaml").is_file():
        checked(read_yaml(folder / "expected.yaml"), Expected, problems)
    if not problems and requirements and waivers:
        problems += _lint(cases, list(documents.values()), requirements, known, waivers, accepted)
        problems += _unknown_matrices(cases, list(documents.values()), matrices)
    if problems or requirements is None or waivers is None:
        raise SpecError(problems)
    files = spec_files(folder)
    ordered = tuple(sorted(cases, key=lambda c: c.id))
    return Spec(
        ordered,
        tuple(requirements.requirements),
        tuple(waivers.waivers),
        _hash(folder, files),
        _criteria(ordered)
        | _other_criteria(matrices, requirements, waivers)
        | {f"files/{_name(folder, p)}": file_hash(p) for p in files if _is_data(folder, p)},
    )


def spec_files(folder: Path = TESTCASES) -> list[Path]:
    """Return every file of a folder that a verdict can depend on.

    Parameters
    ----------
    folder : path-like
        The folder of the specification.

    Returns
    -------
    list of Path
        In the order in which they are hashed.
    """
    return [*sorted(folder.rglob("*.yaml")), *sorted(folder.glob("demo/*"))]


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _is_data(folder: Path, path: Path) -> bool:
    """Whether a file is compared as a whole: it holds answers, not criteria."""
    return "/" in _name(folder, path) or path.name == "expected.yaml"


def _matrices(folder: Path, problems: list[Problem]) -> dict[str, Matrix]:
    try:
        return load_matrices(folder)
    except SpecError as err:
        problems += err.problems
        return {}


def _unknown_matrices(
    cases: Sequence[Case], documents: Sequence[Document], known: Collection[str]
) -> list[Problem]:
    return [
        document.problem(("items", i, "checks", c), f"no matrix {name!r}{_closest(name, known)}")
        for case, document in zip(cases, documents, strict=True)
        for i, item in enumerate(case.items)
        for c, check in enumerate(item.checks)
        if (name := getattr(check.subject, "matrix", "")) and name not in known
    ]


SCHEMAS: Mapping[str, Callable[[], type[BaseModel]]] = {
    "case": case_model,
    "requirements": lambda: RequirementFile,
    "waivers": lambda: WaiverFile,
}
"""The model of each file that has a JSON Schema beside it, ``NAME.schema.json``."""


def json_schema(name: str = "case") -> dict[str, Any]:
    """Return the JSON Schema of a case file, the requirements or the waivers, for editors.

    Parameters
    ----------
    name : str
        One of `SCHEMAS`.

    Returns
    -------
    dict
        The schema, ready for JSON.
    """
    schema = SCHEMAS[name]().model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _hash(folder: Path, paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(_name(folder, path).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _other_criteria(
    matrices: Mapping[str, Matrix], requirements: RequirementFile, waivers: WaiverFile
) -> dict[str, str]:
    """Canonical text of what else a verdict rests on, by ``file/identifier``."""
    parts: dict[str, BaseModel] = {
        f"attributes/{m.id}/{a.id}": a for m in matrices.values() for a in m.attributes
    }
    parts |= {f"attributes/{m.id}": m for m in matrices.values()}
    parts |= {f"requirements/{r.id}": r for r in requirements.requirements}
    parts |= {f"waivers/{w.id}": w for w in waivers.waivers}
    return {name: _canonical(part) for name, part in parts.items()}


def _canonical(part: BaseModel) -> str:
    left_out = {"attributes"} if isinstance(part, Matrix) else set()
    return json.dumps(part.model_dump(mode="json", exclude=left_out), sort_keys=True)


def _criteria(cases: Sequence[Case]) -> dict[str, str]:
    return {
        f"{case.id}/{item.id}/{check.id}": json.dumps(
            check.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"text"}),
            sort_keys=True,
        )
        for case in cases
        for item in case.items
        for check in item.checks
    }


def _lint(
    cases: Sequence[Case],
    documents: Sequence[Document],
    requirements: RequirementFile,
    known: Document,
    waivers: WaiverFile,
    accepted: Document,
) -> list[Problem]:
    """Find what no single value can show: duplicates and references that lead nowhere."""
    numbers = {r.id for r in requirements.requirements}
    paths = _criteria(cases)
    targets = {c.id for c in cases} | {f"{c.id}/{i.id}" for c in cases for i in c.items}
    problems = _duplicates(known, "requirements") + _duplicates(accepted, "waivers")
    for case, document in zip(cases, documents, strict=True):
        problems += _lint_case(case, document, numbers, targets, set(paths))
    used = {r for c in cases for i in c.items for r in i.requirements}
    for index, requirement in enumerate(requirements.requirements):
        if (requirement.id in used) == bool(requirement.deferred):
            message = (
                "is verified by an item and also deferred; drop 'deferred'"
                if requirement.deferred
                else "is verified by no item; add one or say why under 'deferred'"
            )
            problems.append(known.problem(("requirements", index), f"{requirement.id} {message}"))
    problems += _lint_waivers(cases, waivers, accepted, paths)
    return problems


def _lint_waivers(
    cases: Sequence[Case], waivers: WaiverFile, accepted: Document, paths: dict[str, str]
) -> list[Problem]:
    """Find waivers of no check, of one that has a waiver, and in another unit than the check."""
    units = {
        f"{c.id}/{i.id}/{k.id}": k.subject.unit for c in cases for i in c.items for k in i.checks
    }
    seen: set[str] = set()
    problems = []
    for index, waiver in enumerate(waivers.waivers):
        unit = Bound.parse(waiver.no_worse_than).unit
        place, message = "check", ""
        if waiver.check not in paths:
            message = f"no check {waiver.check!r}{_closest(waiver.check, paths)}"
        elif waiver.check in seen:
            message = f"{waiver.check} has a waiver already; one check has one waiver"
        elif unit != units[waiver.check]:
            place = "no_worse_than"
            message = f"is in {unit!r}; {waiver.check} is measured in {units[waiver.check]!r}"
        seen.add(waiver.check)
        if message:
            problems.append(accepted.problem(("waivers", index, place), message))
    return problems


def _lint_case(
    case: Case, document: Document, numbers: set[str], targets: set[str], paths: set[str]
) -> list[Problem]:
    problems = _duplicates(document, "items")
    for number, target in enumerate(case.depends_on):
        if target not in targets or target.split("/")[0] == case.id:
            message = f"no such case or item {target!r}{_closest(target, targets)}"
            problems.append(document.problem(("depends_on", number), message))
        elif target.split("/")[0] > case.id:
            message = f"{target} is judged after {case.id}; a case can depend on earlier ones only"
            problems.append(document.problem(("depends_on", number), message))
    for i, item in enumerate(case.items):
        problems += _duplicates(document, "items", i, "checks")
        for r, requirement in enumerate(item.requirements):
            if requirement not in numbers:
                message = f"unknown requirement {requirement!r}{_closest(requirement, numbers)}"
                problems.append(document.problem(("items", i, "requirements", r), message))
        for c, check in enumerate(item.checks):
            for reference in check.subject.references():
                if reference not in paths:
                    message = f"no check {reference!r}{_closest(reference, paths)}"
                    problems.append(document.problem(("items", i, "checks", c), message))
    return problems


def _duplicates(document: Document, *where: str | int) -> list[Problem]:
    rows = document.value
    for step in where:
        rows = rows[step]
    ids = [row["id"] for row in rows]
    return [
        document.problem((*where, n, "id"), f"duplicate id {name!r}")
        for n, name in enumerate(ids)
        if name in ids[:n]
    ]


def _closest(word: str, words: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(words), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
