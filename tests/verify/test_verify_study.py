"""Checks of studies: each sees the fault that it names, and says when it has too few sources."""

import json

import numpy as np
import pytest
from scipy import special

from harness.study.store import TABLES
from harness.verify.context import Context
from harness.verify.engine import judge_cases, judge_check
from harness.verify.loader import load_spec
from harness.verify.paths import TESTCASES
from harness.verify.verdict import Verdict
from pipeline import io
from tests.verify.test_verify_engine import check

SIGMA, ERROR = 100.0, 0.15  # noise of a flux, nJy, and of a position at SNR 10, pixel


def write(folder, n, *, threshold=4.85, bias=0.0, spread=1.0, host_loss=0.0, shift=0.0, spoil=None):
    """Write a study whose sources are found where SNR and noise exceed a threshold."""
    rng = np.random.default_rng(5)
    snr = 3.0 * (50.0 / 3.0) ** rng.random(n)
    noise = rng.normal(size=n)
    excess = rng.chisquare(2, n) / (2 * snr)  # that of a free position
    hosted = rng.random(n) < 0.4
    found = snr * (1.0 - host_loss * hosted) + noise >= threshold
    outcome = np.where(found, "alerted", "lost")
    where = {"visit": 2, "detector": 1}
    rows = {
        "injection": {
            "injectionId": np.arange(n), **where, "kind": "point", "flux": snr * SIGMA,
            "trueSnr": snr, "hostOffset": np.where(hosted, 1.0, np.nan),
            "hostSurfaceBrightness": np.where(hosted, 10 ** rng.uniform(2, 5, n), np.nan),
            "placed": True, "studyId": "v", "x": 1.0, "y": 1.0,
        },
        "injection_outcome": {
            "injectionId": np.arange(n), "studyId": "v", "outcome": outcome,
            "stage": np.where(found, "alerts", "diasource"), "rule": "threshold",
        },
        "recovery": {
            "injectionId": np.arange(n), "realisation": 0, "band": "g",
            "idealFraction": special.ndtr(snr - 4.85),
            "detected": found, "reliable": found, "alerted": found,
            "psfFlux": np.where(
                found, SIGMA * (snr * (1 + bias) + spread * noise + excess), np.nan
            ),
            "psfFluxErr": SIGMA,
            **{c: np.where(found, np.hypot(10 * ERROR / snr, shift) * rng.normal(size=n), np.nan)
               for c in ("dx", "dy")},
            "dxErr": 10 * ERROR / snr, "dyErr": 10 * ERROR / snr,
        },
        "detection": {
            **where, "realisation": 0, "x": 1.0, "y": 1.0, "known": False, "chance": False,
            "snr": np.concatenate([(snr + noise)[found], np.full(50, -6.0)]),
            "reliable": np.concatenate([found[found], np.arange(50) < 1]), "alerted": False,
            "injectionId": np.concatenate([np.flatnonzero(found), np.full(50, np.nan)]),
        },
        "painting": {
            **where, "realisation": [0], "area": 0.04, "pixelScale": 0.26, "fwhm": 2.5,
            "matchRadius": 2.5, "differenceSha256": "d",
        },
    }  # fmt: skip
    if spoil:
        spoil(rows)
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in TABLES.items():
        io.write_parquet(folder / f"{name}.parquet", table.to_arrow(rows[name]))
    (folder / "study.json").write_text(json.dumps({"studyId": "v"}))


@pytest.fixture
def verdicts(context):
    """Write a study and judge some checks of AG-00-35 by it."""
    case = next(c for c in load_spec(TESTCASES).cases if c.id == "AG-00-35")

    def judge(n, *paths, **faults):
        write(context.study_folder, n, **faults)
        fresh = Context(context.space, context.testcases)
        results = {}
        for path in paths:
            item, name = path.split("/")
            found = next(k for i in case.items if i.id == item for k in i.checks if k.id == name)
            results[path] = judge_check(f"{case.id}/{path}", found, fresh)
        fresh.close()
        return results

    return judge


GOOD = (
    "threshold/half", "completeness/snr-6", "completeness/snr-7", "completeness/snr-20",
    "completeness/above-6", "depth/gap50-hostless", "depth/gap80-hostless", "fluxes/bias",
    "fluxes/bias-beyond-fit", "fluxes/pull", "fluxes/pull-hosted", "positions/scatter",
    "positions/beyond-noise", "positions/bias",
)  # fmt: skip


def test_a_good_study_passes(verdicts):
    results = verdicts(30_000, *GOOD)

    assert {p: r.verdict for p, r in results.items() if r.verdict != Verdict.PASS} == {}
    assert all(r.measurement.stderr > 0 for r in results.values())
    assert all("95 %: " in r.reason for r in results.values())


@pytest.mark.parametrize(
    ("fault", "path"),
    [
        ({"threshold": 5.3}, "threshold/half"),
        ({"threshold": 5.3}, "completeness/snr-6"),
        ({"threshold": 5.3}, "depth/gap50-hostless"),
        ({"host_loss": 0.5}, "depth/gap50-bright-hosts"),
        ({"bias": 0.01}, "fluxes/bias"),
        ({"bias": 0.01}, "fluxes/bias-beyond-fit"),
        ({"spread": 1.2}, "fluxes/pull"),
        ({"spread": 1.3}, "fluxes/pull-hosted"),
        ({"shift": 0.05}, "positions/beyond-noise"),
    ],
)
def test_a_fault_fails_the_check_that_names_it(verdicts, fault, path):
    assert verdicts(30_000, path, **fault)[path].verdict == Verdict.FAIL


def test_a_small_study_says_that_it_is_too_small(verdicts):
    results = verdicts(600, "completeness/snr-6", "depth/gap50-bright-hosts", "fluxes/bias")

    for result in results.values():
        assert result.verdict == Verdict.NOT_RUN
        assert "too few" in result.reason
        assert result.absent, "it stays out of the exit status"


def test_without_a_study_nothing_was_run(context):
    case = [c for c in load_spec(TESTCASES).cases if c.id == "AG-00-35"]
    checks = [k for i in case[0].items for k in i.checks if k.subject.name == "study"]

    for one in checks:
        result = judge_check("AG-00-35/i/c", one, context)
        assert (result.verdict, result.absent) == (Verdict.NOT_RUN, True)
        assert "nightjar study" in result.reason


@pytest.mark.parametrize(
    ("path", "spoil"),
    [
        ("ledger/one-outcome", lambda r: r["injection_outcome"].update(injectionId=7)),
        ("ledger/agreement", lambda r: r["injection_outcome"].update(outcome="alerted")),
        ("ledger/masked", lambda r: r["injection"].update(placed=False, reason="mask:SAT")),
        ("ledger/cause", lambda r: r["injection_outcome"].update(rule=None)),
    ],
)
def test_a_spoilt_ledger_is_seen(verdicts, path, spoil):
    assert verdicts(500, path)[path].verdict == Verdict.PASS
    assert verdicts(500, path, spoil=spoil)[path].verdict == Verdict.FAIL


def test_differences_made_again_are_seen(verdicts, context):
    from harness.catalog import connect
    from tests.verify.conftest import row

    path, columns = "ledger/same-images", {"visit": 2, "detector": 1, "sha256": "d"}
    values = row("difference_image", differenceImageId="2_01", **columns)
    with connect(context.space.catalog) as connection:
        names = ", ".join(f'"{n}"' for n in values)
        marks = ", ".join("?" for _ in values)
        connection.execute(
            f"insert into difference_image ({names}) values ({marks})", list(values.values())
        )
    assert verdicts(50, path)[path].verdict == Verdict.PASS
    again = verdicts(50, path, spoil=lambda r: r["painting"].update(differenceSha256="e"))[path]
    assert again.verdict == Verdict.FAIL
    assert dict(again.measurement.failing[0])["differenceSha256"] == "e"


def test_purity_at_a_stated_ratio(verdicts):
    path = "purity/nine-to-one"
    result = verdicts(30_000, path)[path]

    assert result.measurement.value == pytest.approx(1 / (1 + 9 * 0.02), rel=0.02)
    assert result.counts is False


def test_other_checks_of_evidence_from_elsewhere(context):
    got = judge_check("a/b/c", check({"study": {"quantity": "half_found"}}, bound="< 5"), context)

    assert got.verdict == Verdict.NOT_RUN
    assert judge_cases(load_spec(TESTCASES), context, only=["AG-00-35/threshold/half"])
