"""The verification control document: every requirement, what verified it, and what is open.

One row per requirement, item and campaign with the newest result of that campaign, after
ECSS-E-ST-10-02; nonconformances are gathered from the reports of all times, each with the first
and the last commit that showed it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.report.diff import check_table
from harness.report.write import load_report
from harness.workspace import atomic
from pipeline.errors import InputError

__all__ = [
    "Nonconformance",
    "Row",
    "Seen",
    "Vcd",
    "control",
    "histories",
    "number_with",
    "read_register",
    "write_register",
]

_FAILED = ("fail", "error")
_GOOD = ("pass", "deviation")
_LEVELS = {"LSE-29": "system", "LSE-30": "system", "LSE-61": "subsystem"}
"""Level of verification: that of the document which states the requirement."""


@dataclass(frozen=True, slots=True)
class Row:
    """One requirement, one item that verifies it, and the newest result of one campaign.

    Attributes
    ----------
    requirement, title, source, level, method, priority : str
        The requirement, the document that states it, and how it is verified at what level.
    case, item : str
        Test case with its version, and the item; empty where nothing verifies the requirement.
    campaign, report, utc, commit : str
        Which campaign, and which judgement of it; empty where there is none.
    result : str
        Verdict of the item.
    deviation : str
        Waivers that apply, with their tickets.
    nonconformance : str
        Numbers of those that are open.
    close_out : str
        ``open`` or ``closed``, for the requirement over all campaigns.
    remark : str
        Why it is deferred, or how it is read.
    """

    requirement: str
    title: str
    source: str
    level: str
    method: str
    priority: str
    case: str = ""
    item: str = ""
    campaign: str = ""
    report: str = ""
    utc: str = ""
    commit: str = ""
    result: str = ""
    deviation: str = ""
    nonconformance: str = ""
    close_out: str = "open"
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A judgement: its campaign, report, time and commit."""

    campaign: str
    report: str
    utc: str
    commit: str


@dataclass(slots=True)
class Nonconformance:
    """A check that failed in some campaign at some time.

    Attributes
    ----------
    check, text, bound : str
        Path of the check, what it shows and what it demands.
    requirements : tuple of str
        Those of its item.
    first, last : Seen
        The first and the last judgement in which it failed.
    verdict, reason : str
        Of the last one.
    state : str
        ``open``, ``accepted`` (a waiver covers it in every campaign that still shows it) or
        ``closed`` (every campaign that had it no longer shows it).
    closed : Seen, optional
        The judgement that closed it.
    number : int
        Given by `number_with`.
    """

    check: str
    text: str
    bound: str
    requirements: tuple[str, ...]
    first: Seen
    last: Seen
    verdict: str
    reason: str
    state: str = "open"
    closed: Seen | None = None
    number: int = 0

    @property
    def name(self) -> str:
        """``NC-0001``."""
        return f"NC-{self.number:04d}"


@dataclass(frozen=True, slots=True)
class Vcd:
    """The document.

    Attributes
    ----------
    rows : list of Row
        In the order of the requirements.
    nonconformances : list of Nonconformance
        By number.
    campaigns : list of Seen
        The newest judgement of each campaign.
    """

    rows: list[Row] = field(default_factory=list)
    nonconformances: list[Nonconformance] = field(default_factory=list)
    campaigns: list[Seen] = field(default_factory=list)


History = Mapping[str, Sequence[Mapping[str, Any]]]
"""Reports by campaign, oldest first."""


def histories(sources: Iterable[Path]) -> dict[str, list[dict[str, Any]]]:
    """Load the reports of campaigns.

    Parameters
    ----------
    sources : iterable of Path
        Workspaces (all reports there), folders of reports and ``report.json`` files.  Reports of
        workspaces with one name are one campaign.

    Returns
    -------
    dict of list of dict
        Reports by the name of their campaign, oldest first, each once.

    Raises
    ------
    InputError
        If a source holds no report, or a report cannot be read.
    """
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for source in sources:
        paths = _reports(source)
        if not paths:
            raise InputError("there is no report", path=source, hint="nightjar verify WORKSPACE")
        for path in paths:
            report = load_report(path)
            name = str(report["environment"]["workspace"])
            found[name][f"{report['utc']} {report['campaign']}"] = report
    return {name: [of[k] for k in sorted(of)] for name, of in sorted(found.items())}


def _reports(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if (source / "report.json").is_file():
        return [source / "report.json"]
    folders = [f for f in sorted((source / "reports").glob("*")) if not f.is_symlink()]
    return [f / "report.json" for f in folders if (f / "report.json").is_file()]


def control(history: History, numbers: Mapping[str, int] | None = None) -> Vcd:
    """Draw up the document.

    Parameters
    ----------
    history : mapping
        See `histories`.
    numbers : mapping of str to int, optional
        Numbers of nonconformances that were given before, by the path of the check.

    Returns
    -------
    Vcd
        The newest report says what is demanded; each campaign's newest what came out.
    """
    newest = {name: reports[-1] for name, reports in history.items()}
    found = number_with(_nonconformances(history), numbers or {})
    demanding = max(newest.values(), key=lambda r: str(r["utc"]))
    rows: list[Row] = []
    for requirement in demanding["requirements"]:
        rows += _closed_out(list(_rows(requirement, newest, found)))
    return Vcd(rows, found, [_seen(name, r) for name, r in newest.items()])


def number_with(
    found: Iterable[Nonconformance], numbers: Mapping[str, int]
) -> list[Nonconformance]:
    """Give numbers to nonconformances: those they had, and new ones by when they were first seen.

    Parameters
    ----------
    found : iterable of Nonconformance
        Without numbers.
    numbers : mapping of str to int
        Numbers by check.

    Returns
    -------
    list of Nonconformance
        By number.
    """
    following = max(numbers.values(), default=0) + 1
    ordered = sorted(found, key=lambda n: (n.first.utc, n.check))
    for one in ordered:
        one.number = numbers.get(one.check, 0)
        if not one.number:
            one.number, following = following, following + 1
    return sorted(ordered, key=lambda n: n.number)


def read_register(path: Path) -> dict[str, int]:
    """Read the numbers that were given, empty where there is no register yet.

    Parameters
    ----------
    path : Path
        A JSON file, check to number.

    Returns
    -------
    dict of str to int
        By check.

    Raises
    ------
    InputError
        If the file is no register.
    """
    if not path.is_file():
        return {}
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))["numbers"]
        return {str(check): int(number) for check, number in numbers.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise InputError(
            "is no register of nonconformances", path=path, expected='{"numbers": {CHECK: NUMBER}}'
        ) from err


def write_register(path: Path, numbers: Mapping[str, int], found: Sequence[Nonconformance]) -> None:
    """Keep the numbers, those of checks that are not seen here too.

    Parameters
    ----------
    path : Path
        The file.
    numbers : mapping of str to int
        Those given before.
    found : sequence of Nonconformance
        Those of now.
    """
    kept = {**numbers, **{n.check: n.number for n in found}}
    ordered = dict(sorted(kept.items(), key=lambda pair: pair[1]))
    with atomic(path) as partial:
        partial.write_text(json.dumps({"numbers": ordered}, indent=1) + "\n", encoding="utf-8")


def _seen(campaign: str, report: Mapping[str, Any]) -> Seen:
    commit = str(report["environment"].get("commit", ""))
    return Seen(campaign, str(report["campaign"]), str(report["utc"]), commit)


def _nonconformances(history: History) -> list[Nonconformance]:
    """Gather every check that ever failed, and what has become of it in each campaign."""
    found: dict[str, Nonconformance] = {}
    ends: dict[str, dict[str, tuple[str, Seen]]] = defaultdict(dict)
    ordered = [(_seen(name, r), r) for name, reports in history.items() for r in reports]
    for seen, report in sorted(ordered, key=lambda pair: pair[0].utc):
        of_item = {
            f"{c['id']}/{i['id']}": tuple(i["requirements"]) for c in report["cases"]
            for i in c["items"]
        }  # fmt: skip
        for path, check in check_table(report).items():
            if check["verdict"] in _FAILED and check["counts"]:
                known = found.get(path)
                found[path] = Nonconformance(
                    path,
                    check["text"],
                    check["bound"],
                    of_item[path.rpartition("/")[0]],
                    known.first if known else seen,
                    seen,
                    check["verdict"],
                    check["reason"],
                )
                ends[path][seen.campaign] = ("open", seen)
            elif seen.campaign in ends[path]:
                ends[path][seen.campaign] = _after(check["verdict"], seen, ends[path])
    for path, one in found.items():
        _settle(one, list(ends[path].values()))
    return list(found.values())


def _after(verdict: str, seen: Seen, known: Mapping[str, tuple[str, Seen]]) -> tuple[str, Seen]:
    """State in a campaign after a judgement that did not fail: one not run settles nothing."""
    if verdict == "deviation":
        return "accepted", seen
    state, since = known[seen.campaign]
    if verdict in ("pass", "partial"):
        return ("closed", since if state == "closed" else seen)
    return state, since


def _settle(one: Nonconformance, ends: Sequence[tuple[str, Seen]]) -> None:
    states = {state for state, _ in ends}
    one.state = next(s for s in ("open", "accepted", "closed") if s in states)
    if one.state == "closed":
        one.closed = max((seen for _, seen in ends), key=lambda s: s.utc)


def _rows(
    requirement: Mapping[str, Any],
    newest: Mapping[str, Mapping[str, Any]],
    found: Sequence[Nonconformance],
) -> Iterator[Row]:
    source = str(requirement["source"])
    about = Row(
        requirement["id"],
        requirement["title"],
        source,
        _LEVELS.get(source, "component"),
        requirement["method"],
        str(requirement["priority"]),
        remark=requirement["deferred"] or requirement["reading"],
    )
    rows = [
        row
        for name, report in newest.items()
        for row in _results(about, _seen(name, report), report, found)
    ]
    yield from rows or [about]


def _results(
    about: Row, seen: Seen, report: Mapping[str, Any], found: Sequence[Nonconformance]
) -> Iterator[Row]:
    """One row per item that verifies a requirement in a report."""
    tickets = {w["id"]: w["ticket"] for w in report["waivers"]}
    for case in report["cases"]:
        for item in case["items"]:
            if about.requirement not in item["requirements"]:
                continue
            below = f"{case['id']}/{item['id']}/"
            applied = [
                c["waiver"]["id"]
                for c in item["checks"]
                if c["waiver"] and c["waiver"]["state"] == "applied"
            ]
            failing = {f"{below}{c['id']}" for c in item["checks"] if c["verdict"] in _FAILED}
            numbers = [n.name for n in found if n.check in failing]
            yield replace(
                about,
                case=f"{case['id']} {case['version']}",
                item=item["id"],
                campaign=seen.campaign,
                report=seen.report,
                utc=seen.utc,
                commit=seen.commit,
                result=item["verdict"],
                deviation=", ".join(f"{w} ({tickets.get(w, '?')})" for w in applied),
                nonconformance=", ".join(numbers),
            )


def _closed_out(rows: list[Row]) -> list[Row]:
    """Close a requirement when no result is worse than a deviation and one at least is good."""
    results = [r.result for r in rows]
    good = any(r in _GOOD for r in results)
    closed = good and all(r in (*_GOOD, "not_applicable") for r in results)
    return [replace(r, close_out="closed" if closed else "open") for r in rows]
