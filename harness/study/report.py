"""The page of a study: one HTML file without scripts, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from harness.drawing.plots import render_plot
from harness.report.text import measured

__all__ = ["render_study"]

_STYLE = (
    "body{font:15px/1.45 sans-serif;max-width:72em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:.6em 0;display:block;overflow-x:auto}"
    "td,th{padding:.15em .8em;text-align:right;white-space:nowrap;"
    "border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}"
    ".figures{display:grid;gap:0 2em;"
    "grid-template-columns:repeat(auto-fill,minmax(min(100%,28em),1fr))}"
    "figure{margin:1.2em 0;break-inside:avoid}figcaption{color:#444}"
    "svg{width:100%;height:auto}"
)


def render_study(
    about: dict[str, Any], summary: dict[str, Any], figures: Sequence[dict[str, Any]]
) -> str:
    """Write the page.

    Parameters
    ----------
    about : dict
        `Study.about`.
    summary : dict
        From `harness.study.summary.summarise`.
    figures : sequence of dict
        From `harness.study.figures.figures`.

    Returns
    -------
    str
        A complete HTML document.
    """
    parts = [
        f"<h1>Injection study {escape(str(summary['studyId']))}</h1>",
        _headline(summary),
        '<div class="figures">', *(_figure(figure) for figure in figures), "</div>",
        "<h2>Outcomes</h2>", _table(("outcome", "n"), summary["outcomes"].items()),
        "<h2>Completeness over the noise limit</h2>", _ratios(summary),
        "<h2>Depth, and gap from the noise limit</h2>", _depths(summary),
        "<h2>Completeness over the noise limit by seeing and detector, true SNR 5 to 50</h2>",
        _table(("width of the visit's PSF over the template's", "n", "detected"),
               ((f"{r['low']} to {r['high'] or '…'}", r["n"], _interval(r["ratio"]))
                for r in summary["seeingRatio"] if r["n"])),
        _table(("detector", "n", "detected"),
               ((r["detector"], r["n"], _interval(r["ratio"])) for r in summary["detectors"])),
        "<h2>Where sources were lost</h2>",
        _table(("outcome", "stage", "rule", "n"),
               ((r["outcome"], r["stage"], r["rule"], r["n"]) for r in summary["lost"])),
        "<h2>Fluxes and positions</h2>", _fluxes(summary),
        "<h2>Detections that belong to no injection, per square degree</h2>",
        _table(("threshold", "positive", "negative", "positive, reliable", "negative, reliable"),
               ((r["threshold"], r["positive"], r["negative"], r["positiveReliable"],
                 r["negativeReliable"]) for r in summary["falseDetections"])),
        "<h2>Design</h2>", _table(("field", "value"), about["design"].items()),
    ]  # fmt: skip
    body = "\n".join(parts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>Injection study</title><style>{_STYLE}</style></head>\n<body>\n{body}\n"
        "</body></html>\n"
    )


def _headline(summary: dict[str, Any]) -> str:
    ratio, snr50, chance = (
        summary["ratioToIdeal"][0], summary["snr50"], summary["chanceMatchRate"],
    )  # fmt: skip
    found = ratio["detected"]
    return (
        f"<p><strong>{_number(found['value'])}</strong> of what the noise alone allows is detected "
        f"(95 %: {_number(found['lo'])} to {_number(found['hi'])}; {ratio['n']} point sources of "
        f"true SNR {ratio['snrLow']:g} to {ratio['snrHigh']:g} outside masks). "
        f"Half are detected at a true SNR of {_number(snr50['value'])} ({_number(snr50['lo'])} to "
        f"{_number(snr50['hi'])}); the noise limit is {_number(snr50['ideal'])}. "
        f"Matches by chance: {chance['matches']} of {chance['n']}.</p>"
    )


def _ratios(summary: dict[str, Any]) -> str:
    names = ("detected", "reliable", "alerted")
    rows = (
        (f"{r['snrLow']:g} to {r['snrHigh']:g}", r["n"],
         *(_interval(r[n]) for n in names))
        for r in summary["ratioToIdeal"]
    )  # fmt: skip
    return _table(("true SNR", "n", *names), rows)


def _interval(found: dict[str, Any]) -> str:
    values = (found["value"], found["lo"], found["hi"])
    ratio, low, high = (_number(v) if v is None else f"{v:.3f}" for v in values)
    return f"{ratio} ({low} to {high})"


def _depths(summary: dict[str, Any]) -> str:
    rows = (
        (sample, stage, *(_depth(curve[stage][d]) for d in ("m80", "m50", "m20")))
        for sample, curve in summary["curves"].items()
        for stage in ("detected", "reliable", "alerted")
    )
    head = [f"{share} / mag (gap)" for share in ("m80", "m50", "m20")]
    return _table(("sources", "stage", *head), rows)


def _depth(depth: dict[str, Any]) -> str:
    gap = depth["gap"]
    return f"{measured(depth['value'], depth['error'])} ({'–' if gap is None else f'{gap:.3f}'})"


_FLUXES = (
    ("n", "n"), ("bias", "median bias"), ("biasError", "error"),
    ("biasBeyondFit", "beyond a free position"), ("biasBeyondFitError", "error"),
    ("biasBright", "above SNR 20"), ("biasBrightError", "error"), ("pullWidth", "pull width"),
    ("pullWidthError", "error"), ("response", "bias of the measurement"),
    ("responseError", "error"), ("sceneScore", "score without the source"),
    ("sceneScoreError", "error"),
)  # fmt: skip


def _fluxes(summary: dict[str, Any]) -> str:
    hosts = zip(
        ("faint hosts", "middle hosts", "bright hosts"), summary["hostBrightness"], strict=False
    )
    rows = (
        (name, *(f[key] for key, _ in _FLUXES)) for name, f in (*summary["flux"].items(), *hosts)
    )
    table = _table(("sources", *(words for _, words in _FLUXES)), rows)
    p = summary["position"]
    return table + (
        f"<p>Positions above a true SNR of 20: {_number(p['rms'])}″ per axis ({p['n']} sources), "
        f"pull width {_number(p['pullWidth'])}.</p>"
    )


def _figure(figure: dict[str, Any]) -> str:
    caption = escape(figure["title"])
    return f"<figure>{render_plot(figure)}<figcaption>{caption}</figcaption></figure>"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(h)}</th>" for h in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{_number(v)}</td>" for v in row) + "</tr>" for row in rows]
    return "<table>" + "".join(lines) + "</table>"


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
