"""Documents checked by models: each mistake with its place and, where a word is near, a hint."""

from __future__ import annotations

import difflib
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from harness.verify.nodes import Document, Problem, SpecError, read_yaml

__all__ = ["checked", "read_model"]

_M = TypeVar("_M", bound=BaseModel)


def read_model(path: Path, kind: type[_M]) -> _M:
    """Read a file and check it by a model.

    Parameters
    ----------
    path : path-like
        A YAML file.
    kind : type
        The model.

    Returns
    -------
    BaseModel
        The checked content.

    Raises
    ------
    SpecError
        With every problem of the file.
    """
    problems: list[Problem] = []
    content = checked(read_yaml(path), kind, problems)
    if content is None or problems:
        raise SpecError(problems)
    return content


def checked(document: Document, kind: type[_M], problems: list[Problem]) -> _M | None:
    """Check the content of a document by a model; every mistake becomes a problem.

    Parameters
    ----------
    document : Document
        What was read.
    kind : type
        The model.
    problems : list of Problem
        Those of the document and of its content are added.

    Returns
    -------
    BaseModel, optional
        None when there is a mistake.
    """
    problems += document.problems
    if not isinstance(document.value, dict):
        if not document.problems:
            problems.append(document.problem((), "a mapping is expected"))
        return None
    try:
        return kind.model_validate(document.value)
    except RecursionError:
        problems.append(document.problem((), "nested too deeply to be checked"))
        return None
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
