"""Assertions on packets: good ones pass, and every planted defect is caught by its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from harness.verify.alerts import Check, check
from harness.verify.alerts.assertion import View
from pipeline import alerts, diaobject
from pipeline.exposure import Difference, Exposure, GridPsf, MatchingKernel, VisitInfo
from pipeline.ids import pack
from pipeline.schema import DIA_OBJECT, DIA_SOURCE, MPC_ORBITS, SS_EPHEMERIS

T0 = 57071.25
SHAPE = (300, 260)
SCHEMA = fastavro.parse_schema(alerts.packet_schema())


@pytest.fixture(scope="module")
def packets() -> list[dict[str, Any]]:
    """Two objects of four visits in two bands, and an asteroid, as decoded packets."""
    rng = np.random.default_rng(3)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150, -6], [100, 150]
    wcs.wcs.cd = np.array([[0.1, 0.9], [0.9, -0.1]]) * 0.263 / 3600
    x, y = np.array([60.2, 130.7, 200.4]), np.array([70.4, 150.3, 220.9])
    objects, history = DIA_OBJECT.empty(), DIA_SOURCE.empty()
    ephemeris = moving_body(wcs, x[2], y[2])
    for k, (day, band) in enumerate(((-30.0, "g"), (-20.0, "r"), (-10.0, "r"), (0.0, "g"))):
        n = 3 if k == 3 else 2
        ra, dec = wcs.all_pix2world(x[:n] + rng.normal(0, 0.3, n), y[:n] + rng.normal(0, 0.3, n), 0)
        flux = rng.normal(900, 100, n)
        sources = DIA_SOURCE.to_arrow(
            {"diaSourceId": [pack(500 + k, 25, s + 1) for s in range(n)], "ra": ra, "dec": dec,
             "x": x[:n], "y": y[:n], "psfFlux": flux, "apFlux": flux + 20},
            visit=500 + k, detector=25, midpointMjdTai=T0 + day, raErr=0.08 / 3600,
            decErr=0.08 / 3600, ra_dec_Cov=0.0, psfNdata=100, trailNdata=90, dipoleNdata=90,
            psfFluxErr=40.0, apFluxErr=60.0, psfLnL=-50.0, snr=22.0, isNegative=False, band=band,
            pixelFlags_injected=False,
            reliability=0.9, timeProcessedMjdTai=T0 + day + 1e-3, bboxSize=21, dipoleFluxDiff=3.0,
            trailFlux=880.0, trailFluxErr=45.0, trailLength=0.3, trailLengthErr=0.1,
            trailAngleErr=20.0, trailChi2=95.0,
        )  # fmt: skip
        result = diaobject.run(
            sources, objects, history, ephemeris, processed_mjd_tai=T0 + day + 0.01
        )
        objects = result.objects
        history = history if k == 3 else pa.concat_tables([history, result.sources])
    noise = rng.normal(0, 10, SHAPE)

    def made(image: Any) -> Exposure:
        u = np.arange(31) - 15
        stamp = np.exp(-0.5 * (u[:, None] ** 2 + u**2) / 1.9**2)
        psf = GridPsf((stamp / stamp.sum())[None, None], np.zeros(1), np.zeros(1))
        variance, mask = np.full(SHAPE, 100, np.float32), np.zeros(SHAPE, np.uint32)
        info = VisitInfo(503, 25, "g", 86.0, T0)
        return Exposure(np.float32(image), variance, mask, info, wcs, psf, unit="nJy")

    kernel = MatchingKernel(
        np.ones((1, 1, 1)), np.ones((1, 1)), 0, SHAPE, np.zeros(1), 1.0, np.zeros((0, 4))
    )
    template = made(rng.normal(0, 4, SHAPE))
    science, subtracted = made(noise), made(noise - template.image)
    difference = Difference(subtracted, np.zeros(SHAPE, np.float32), science.variance, kernel)
    forced = diaobject.force(objects, replace(difference), science, processed_mjd_tai=T0)
    limits = alerts.NOISE_LIMIT.to_arrow(
        {"diaObjectId": objects["diaObjectId"]}, visit=499, detector=25, band="r",
        midpointMjdTai=T0 - 40.0, limit=300.0,
    )  # fmt: skip
    orbits = MPC_ORBITS.to_arrow(
        {"id": [1, 2], "designation": ["2004 JQ12", "2004 JQ13"]},
        a=2.6,
        packed_primary_provisional_designation="",
        unpacked_primary_provisional_designation="",
    )
    made_alerts = alerts.run(
        result.sources,
        objects,
        history,
        forced,
        alerts.cut_out(result.sources, difference.exposure, science, template),
        surroundings=alerts.Surroundings(
            ss_sources=result.ss_sources, limits=limits, orbits=orbits
        ),
        processed_mjd_tai=T0 + 1,
    )
    raw = container([p.payload for p in made_alerts.packets])
    return list(fastavro.reader(BytesIO(raw)))


def moving_body(wcs: WCS, x: float, y: float) -> pa.Table:
    hours = np.arange(-4, 5)
    ra, dec = wcs.all_pix2world(x + 100.0 * hours, np.full(9, y), 0)
    return SS_EPHEMERIS.to_arrow(
        {"mjdTai": T0 + hours / 24, "ra": ra, "dec": dec}, ssObjectId=77, designation="2004 JQ12",
        vMag=20.0, heliocentricDistance=2.6, topocentricDistance=1.7, phaseAngle=9.0,
    )  # fmt: skip


def container(payloads: list[bytes]) -> bytes:
    stream = BytesIO()
    records = [fastavro.schemaless_reader(BytesIO(p), SCHEMA, None) for p in payloads]
    fastavro.writer(stream, SCHEMA, records)
    return stream.getvalue()


def judged(packets: list[dict[str, Any]], path: Path) -> Check:
    with path.open("wb") as stream:
        fastavro.writer(stream, SCHEMA, packets)
    return check(path)


def failing(checked: Check) -> set[str]:
    return {a.id for a in checked if a.failed}


def test_good_packets_pass_everything(packets: list[dict[str, Any]], tmp_path: Path) -> None:
    checked = judged(packets, tmp_path / "good.avro")
    assert checked.alerts == 3
    assert failing(checked) == set()
    not_run = {a.id for a in checked if a.verdict == "not_run"}
    assert not_run == {"flags-imply-general", "forced-agrees-with-detected"}
    shape = checked.as_dict()
    assert set(shape) == {"file", "alerts", "assertions"}
    assert set(shape["assertions"][0]) == {"id", "verdict", "tested", "failed", "worst"}


def hdus_of(packet: dict[str, Any], name: str, change: Callable[[fits.HDUList], None]) -> None:
    hdus = fits.open(BytesIO(packet[name]))
    change(hdus)
    stream = BytesIO()
    hdus.writeto(stream)
    packet[name] = stream.getvalue()


def mirror(packet: dict[str, Any]) -> None:
    hdus_of(packet, "cutoutDifference", lambda h: setattr(h[0], "data", h[0].data[:, ::-1].copy()))


def drop_mask(packet: dict[str, Any]) -> None:
    hdus_of(packet, "cutoutScience", lambda h: h.pop("MASK"))


def shift_wcs(packet: dict[str, Any]) -> None:
    hdus_of(packet, "cutoutScience", lambda h: h[0].header.set("CRPIX1", 29.0))


def long_header(packet: dict[str, Any]) -> None:
    def add(hdus: fits.HDUList) -> None:
        for k in range(30):
            hdus[0].header[f"EXTRA{k}"] = k

    hdus_of(packet, "cutoutTemplate", add)


def double_psf(packet: dict[str, Any]) -> None:
    hdus_of(
        packet, "cutoutTemplate", lambda h: setattr(h["PSFIMAGE"], "data", h["PSFIMAGE"].data * 2)
    )


def setter(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(packet: dict[str, Any]) -> None:
        target = packet
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return change


def repeat_visit(packet: dict[str, Any]) -> None:
    packet["prvDiaSources"][1]["visit"] = packet["prvDiaSources"][0]["visit"]


def reverse_history(packet: dict[str, Any]) -> None:
    packet["prvDiaSources"].reverse()


def freeze_error(packet: dict[str, Any]) -> None:
    packet["diaObject"]["raErr"] = packet["diaSource"]["raErr"] * 2.0


def future(packet: dict[str, Any]) -> None:
    packet["prvDiaSources"][-1]["midpointMjdTai"] = packet["diaSource"]["midpointMjdTai"] + 0.5


DEFECTS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "flipped cut-out": (mirror, "cutouts-same-sky"),
    "no mask": (drop_mask, "cutouts-mask"),
    "shifted coordinates": (shift_wcs, "cutouts-wcs"),
    "long header": (long_header, "cutouts-one-block-header"),
    "PSF of sum two": (double_psf, "cutouts-psf"),
    "absent cut-out": (setter("cutoutScience", value=None), "cutouts-present"),
    "not a FITS file": (setter("cutoutScience", value=b"nothing"), "cutouts-decode"),
    "constant count": (setter("diaObject", "nDiaSources", value=1), "count-of-sources"),
    "frozen error": (freeze_error, "position-error-of-mean"),
    "moved object": (setter("diaObject", "dec", value=-6.0), "position-is-mean"),
    "statistics": (setter("diaObject", "g_psfFluxMean", value=7.0), "statistics-recomputed"),
    "other band": (setter("diaObject", "r_psfFluxSigma", value=7.0), "statistics-all-bands"),
    "no epochs": (setter("diaObject", "firstDiaSourceMjdTai", value=None), "first-and-last-epoch"),
    "two in a visit": (repeat_visit, "one-source-per-visit"),
    "history reversed": (reverse_history, "history-ordered"),
    "look-ahead": (future, "history-no-look-ahead"),
    "NaN": (setter("diaSource", "apFluxErr", value=float("nan")), "fluxes-finite"),
    "orphan": (setter("diaSource", "diaObjectId", value=None), "one-identity"),
    "other object": (setter("diaObject", "diaObjectId", value=5), "counterpart-present"),
    "wrong sign": (setter("diaSource", "isNegative", value=True), "sign-consistent"),
    "below threshold": (setter("diaSource", "snr", value=4.2), "snr-above-threshold"),
    "synthetic": (setter("diaSource", "pixelFlags_injected", value=True), "not-synthetic"),
    "trail error": (setter("diaSource", "trailFluxErr", value=0.8), "trail-errors-plausible"),
    "constant lobes": (setter("diaSource", "dipoleFluxDiff", value=0.0), "dipole-lobes-free"),
    "limit of a measured visit": (
        setter("nightjar", "noiseLimits", 0, "visit", value=501), "limits-unmeasured"
    ),
    "flag alone": (setter("diaSource", "psfFlux_flag_edge", value=True), "flags-imply-general"),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFECTS)
def test_every_defect_is_caught_by_its_assertion(
    name: str, packets: list[dict[str, Any]], tmp_path: Path
) -> None:
    change, expected = DEFECTS[name]
    harmed = copy.deepcopy(packets[:1])
    change(harmed[0])
    checked = judged(harmed, tmp_path / "harmed.avro")
    assert expected in failing(checked)
    found = next(a for a in checked if a.id == expected)
    assert found.worst.startswith(str(packets[0]["diaSourceId"]))


def test_an_orbit_of_another_body_is_caught(packets: list[dict[str, Any]], tmp_path: Path) -> None:
    harmed = copy.deepcopy([p for p in packets if p["ssSource"]])
    assert [p["mpc_orbits"]["designation"] for p in harmed] == ["2004 JQ12"]
    harmed[0]["mpc_orbits"]["designation"] = "2004 JQ13"
    assert failing(judged(harmed, tmp_path / "harmed.avro")) == {"counterpart-present"}


def test_repeated_alerts_are_noticed(packets: list[dict[str, Any]], tmp_path: Path) -> None:
    checked = judged([*packets, packets[0]], tmp_path / "twice.avro")
    assert failing(checked) == {"alert-id-unique"}


def test_wrong_units_of_the_solar_system(packets: list[dict[str, Any]], tmp_path: Path) -> None:
    harmed = copy.deepcopy(packets)
    body = harmed[2]["ssSource"]
    body["topoRange"] /= 149597870.7
    body["helio_vtot"] = (body["helio_vx"] ** 2 + 2 * body["helio_vy"] ** 2) ** 0.5
    body["ephOffset"] = 2.5
    checked = judged(harmed, tmp_path / "body.avro")
    assert failing(checked) == {
        "solar-system-plausible", "solar-system-speeds", "solar-system-offset",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("shift", "flag", "verdict"),
    [
        (0.5, None, True),
        (2.0, None, False),
        (-2.0, None, False),
        (9.0, "isDipole", None),
        (9.0, "centroid_flag", None),
    ],
)
def test_forced_flux_is_compared_where_detections_are_points(
    shift: float, flag: str | None, verdict: bool | None
) -> None:
    from harness.verify.alerts.packet_assertions import _forced_agrees

    row = {"psfFlux": 100.0, "psfFluxErr": 10.0, "isDipole": False, "centroid_flag": False}
    history = [row | {"visit": k} | ({flag: True} if flag else {}) for k in range(6)]
    forced = [{"visit": k, "psfFlux": 100.0 + 10.0 * shift} for k in range(6)]
    packet = {
        "diaSource": history[-1],
        "prvDiaSources": history[:-1],
        "prvDiaForcedSources": forced,
    }
    found = [f.holds for f in _forced_agrees(View(packet))]
    assert found == ([] if verdict is None else [verdict])


@pytest.mark.real
def test_real_packets_of_2026_show_their_known_defects(rubin_alerts: Path) -> None:
    path = rubin_alerts / "lsst_v10_0_20260306.avro"
    # Of the forced fluxes two disagree; one of them is a dipole in 93 % of its visits.
    checked = {a.id: a for a in check(path)}
    known = {
        "one-source-per-visit": 1, "dipole-lobes-free": 483, "cutouts-mask": 21,
        "position-error-of-mean": 5, "statistics-all-bands": 112, "solar-system-speeds": 4,
        "forced-agrees-with-detected": 1, "identifiers-present": 7, "first-and-last-epoch": 12,
    }  # fmt: skip
    for name, failures in known.items():
        assert checked[name].failed == failures, name
    for name in ("statistics-recomputed", "position-is-mean", "count-of-sources", "cutouts-decode"):
        assert checked[name].verdict == "pass", name
        assert checked[name].tested > 0
