"""Reading the test specification: case files, requirements and waivers.

All problems of all files are reported at once, each with its place and, where a word looks like a
known one, a suggestion.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from harness.verify.attributes import load_matrices
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

__all__ = ["Spec", "json_schema", "load_spec"]

_M = TypeVar("_M", bound=BaseModel)


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
        SHA-256 over the files.
    criteria : mapping
        Canonical text of every check by its path ``case/item/check``: what must not change
        between pinning and judging.
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
    cases = [c for p in paths if (c := _model(documents[p], case_model(), problems))]
    known = read_yaml(folder / "requirements.yaml")
    accepted = read_yaml(folder / "waivers.yaml")
    requirements = _model(known, RequirementFile, problems)
    waivers = _model(accepted, WaiverFile, problems)
    matrices = _matrices(folder, problems)
    if not problems and requirements and waivers:
        problems += _lint(cases, list(documents.values()), requirements, known, waivers, accepted)
        problems += _unknown_matrices(cases, list(documents.values()), matrices)
    if problems or requirements is None or waivers is None:
        raise SpecError(problems)
    files = [*paths, *(folder / f"{n}.yaml" for n in ("attributes", "requirements", "waivers"))]
    ordered = tuple(sorted(cases, key=lambda c: c.id))
    return Spec(
        ordered,
        tuple(requirements.requirements),
        tuple(waivers.waivers),
        _hash(files),
        _criteria(ordered),
    )


def _matrices(folder: Path, problems: list[Problem]) -> set[str]:
    try:
        return set(load_matrices(folder))
    except SpecError as err:
        problems += err.problems
        return set()


def _unknown_matrices(
    cases: Sequence[Case], documents: Sequence[Document], known: set[str]
) -> list[Problem]:
    return [
        document.problem(("items", i, "checks", c), f"no matrix {name!r}{_closest(name, known)}")
        for case, document in zip(cases, documents, strict=True)
        for i, item in enumerate(case.items)
        for c, check in enumerate(item.checks)
        if (name := getattr(check.subject, "matrix", "")) and name not in known
    ]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a case file, for editors.

    Returns
    -------
    dict
        The schema, ready for JSON.
    """
    schema = case_model().model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _hash(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


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


def _model(document: Document, kind: type[_M], problems: list[Problem]) -> _M | None:
    problems += document.problems
    if document.value is None or not isinstance(document.value, dict):
        if document.value is not None:
            problems.append(document.problem((), "a mapping is expected"))
        return None
    try:
        return kind.model_validate(document.value)
    except ValidationError as err:
        problems += [_explain(document, kind, e) for e in err.errors()]
        return None


def _explain(document: Document, kind: type[BaseModel], error: Any) -> Problem:
    where = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        names = _names(_parent(kind, where[:-1]))
        close = difflib.get_close_matches(str(where[-1]), names, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
        return document.problem(where, f"unknown key {where[-1]!r} ({hint})", key=True)
    if error["type"] == "missing":
        return document.problem(where[:-1], f"key {where[-1]!r} is missing")
    message = str(error["msg"]).removeprefix("Value error, ")
    return document.problem(where, f"{message[0].lower()}{message[1:]}")


def _parent(kind: type[BaseModel], where: Sequence[str | int]) -> type[BaseModel]:
    """Follow a path of aliases through nested models."""
    for step in where:
        if isinstance(step, int):
            continue
        fields = {f.alias or n: f.annotation for n, f in kind.model_fields.items()}
        inner = _inner(fields.get(str(step)))
        if inner is None:
            return kind
        kind = inner
    return kind


def _inner(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((m for a in get_args(annotation) if (m := _inner(a))), None)


def _names(kind: type[BaseModel]) -> list[str]:
    return [f.alias or n for n, f in kind.model_fields.items()]


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
    for index, waiver in enumerate(waivers.waivers):
        if waiver.check not in paths:
            message = f"no check {waiver.check!r}{_closest(waiver.check, paths)}"
            problems.append(accepted.problem(("waivers", index, "check"), message))
    return problems


def _lint_case(
    case: Case, document: Document, numbers: set[str], targets: set[str], paths: set[str]
) -> list[Problem]:
    problems = _duplicates(document, "items")
    for number, target in enumerate(case.depends_on):
        if target not in targets or target.split("/")[0] == case.id:
            message = f"no such case or item {target!r}{_closest(target, targets)}"
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
