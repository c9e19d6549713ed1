"""What a word of the specification means: a case, an item, a check, a requirement or a waiver."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.verify.conditions import CONDITIONS
from harness.verify.loader import Spec
from harness.verify.metric import METRICS
from harness.verify.model import Case, Check, Item
from pipeline.errors import ConfigError

__all__ = ["Story", "explain_word", "is_word"]

Story = dict[str, dict[str, Any] | list[dict[str, Any]]]
"""Sections by title: columns with their values, or rows."""

_WORD = re.compile(r"[A-Z]{1,5}-[A-Z0-9][A-Z0-9-]*(/[a-z0-9-]+){0,2}")


def is_word(text: str) -> bool:
    """Whether a text looks like the identifier of something in the specification.

    Parameters
    ----------
    text : str
        Such as ``AG-00-15/kernel``, ``DMS-REQ-0074`` or ``W-0001``.

    Returns
    -------
    bool
        A number and a path of a folder do not.
    """
    return _WORD.fullmatch(text) is not None


def explain_word(word: str, spec: Spec, report: Mapping[str, Any] | None = None) -> Story:
    """Collect what is demanded under a name, why, and what came out last.

    Parameters
    ----------
    word : str
        Path of a case, an item or a check, or number of a requirement or a waiver.
    spec : Spec
        The specification.
    report : mapping, optional
        The newest ``report.json`` of a campaign.

    Returns
    -------
    dict
        See `Story`; sections without content are left out.

    Raises
    ------
    ConfigError
        If the specification knows no such word; the nearest one is named.
    """
    last = _last(report)
    requirements = {r.id: r for r in spec.requirements}
    waivers = {w.id: w for w in spec.waivers}
    paths = {path: (case, item, check) for path, case, item, check in _walk(spec)}
    below = {p: members for p, members in paths.items() if p == word or p.startswith(f"{word}/")}
    if word in requirements:
        story = _of_requirement(requirements[word].model_dump(), word, paths, last)
    elif word in waivers:
        content = {k: v for k, v in waivers[word].model_dump(mode="json").items() if v is not None}
        story = {"waiver": content, **_of_check(content["check"], *paths[content["check"]], spec)}
        story["last result"] = last.get(content["check"], {})
    elif word in paths:
        story = _of_check(word, *paths[word], spec)
        story["last result"] = last.get(word, {})
    elif below:
        story = _of_several(word, below, last)
    else:
        known = [*requirements, *waivers, *paths, *(c.id for c in spec.cases)]
        near = difflib.get_close_matches(word, known, 1)
        raise ConfigError(
            f"nothing in the specification is called {word!r}",
            hint=f"did you mean {near[0]}?" if near else "see: testcases/",
        )
    return {title: content for title, content in story.items() if content}


def _walk(spec: Spec) -> Iterator[tuple[str, Case, Item, Check]]:
    for case, item, check in spec.checks():
        yield f"{case.id}/{item.id}/{check.id}", case, item, check


def _last(report: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Results of a report by the path of their check."""
    names = ("verdict", "value", "stderr", "unit", "population", "reason", "sees")
    return {
        f"{case['id']}/{item['id']}/{check['id']}": {
            **{n: check[n] for n in names if check.get(n) not in (None, "")},
        }
        for case in (report or {}).get("cases", ())
        for item in case["items"]
        for check in item["checks"]
    }


def _of_requirement(
    requirement: Mapping[str, Any],
    number: str,
    paths: Mapping[str, tuple[Case, Item, Check]],
    last: Mapping[str, Mapping[str, Any]],
) -> Story:
    verifying = {p: m for p, m in paths.items() if number in m[1].requirements}
    return {
        "requirement": {k: v for k, v in requirement.items() if v},
        "verified by": _rows(verifying, last),
    }


def _of_several(
    word: str,
    below: Mapping[str, tuple[Case, Item, Check]],
    last: Mapping[str, Mapping[str, Any]],
) -> Story:
    case, item, _ = next(iter(below.values()))
    story: Story = {"case": _about_case(case)}
    if "/" in word:
        story["item"] = {"text": item.text, "requirements": ", ".join(item.requirements)}
    return {**story, "checks": _rows(below, last)}


def _about_case(case: Case) -> dict[str, Any]:
    origin = case.derived_from
    return {
        "id": case.id,
        "title": case.title,
        "version": case.version,
        "purpose": case.purpose,
        "derived from": f"{origin.document} {origin.version}, {origin.section}",
        "depends on": ", ".join(case.depends_on) or "nothing",
    }


def _of_check(path: str, case: Case, item: Item, check: Check, spec: Spec) -> Story:
    kind = check.subject
    metric = METRICS.get(getattr(kind, "metric", ""))
    waiver = next((w.id for w in spec.waivers if w.check == path), "")
    parameters = kind.model_dump(mode="json", exclude_defaults=True)
    about = {
        "path": path,
        "shows": check.text,
        "item": item.text,
        "severity": check.severity,
        "bound": check.limit.text,
        "partial": check.partial,
        "tolerance": check.tolerance,
        "unit": kind.unit or "none",
        "kind": f"{kind.name}: {(type(kind).__doc__ or '').strip().splitlines()[0]}",
        "metric": metric.summary if metric else "",
        "no subjects": check.allow_empty,
        "waiver": waiver,
    }
    return {
        "check": {k: v for k, v in about.items() if v not in ("", None)},
        "parameters": parameters,
        "applies when": {w: f"else: {CONDITIONS[w].otherwise}" for w in check.when},
        "requirements": [
            {"id": r.id, "title": r.title, "text": r.text, "reading": r.reading}
            for r in spec.requirements
            if r.id in item.requirements
        ],
        "case": _about_case(case),
    }


def _rows(
    members: Mapping[str, tuple[Case, Item, Check]], last: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    return [
        {
            "check": path,
            "bound": check.limit.text,
            "severity": check.severity,
            "shows": check.text,
            **({"last": last.get(path, {}).get("verdict", "")} if last else {}),
        }
        for path, (_, _, check) in members.items()
    ]
