"""Packets: what goes in comes out, cut-outs decode, files repeat."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.wcs import WCS

from pipeline import alerts, diaobject
from pipeline.alerts.avro import encode
from pipeline.alerts.config import Config as AlertConfig
from pipeline.alerts.cutouts import Cutter, psf_images
from pipeline.errors import FileFormatError, InputError
from pipeline.exposure import Difference, Exposure, GridPsf, MatchingKernel, VisitInfo
from pipeline.ids import pack
from pipeline.masks import bits
from pipeline.psfphot import SplinePsf, forced_flux
from pipeline.schema import (
    DIA_FORCED_SOURCE,
    DIA_OBJECT,
    DIA_SOURCE,
    MPC_ORBITS,
    SS_SOURCE,
    TABLES,
    Table,
    to_numpy,
)

T0 = 57071.25
SHAPE = (300, 260)
VISIT, DETECTOR = 410_999, 25


def tan(scale: float = 0.263) -> WCS:
    """Rotated and flipped like a DECam CCD, so that no axis is where one expects it."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [155.0, -6.0]
    wcs.wcs.crpix = [100.0, 150.0]
    a = np.radians(95.0)
    flip = np.diag([-1.0, 1.0])
    wcs.wcs.cd = flip @ np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) * scale / 3600
    wcs.wcs.set()
    return wcs


def gaussian_psf(sigma: float = 1.8, side: int = 31) -> GridPsf:
    u = np.arange(side) - side // 2
    stamp = np.exp(-0.5 * (u[:, None] ** 2 + u**2) / sigma**2)
    return GridPsf((stamp / stamp.sum())[None, None], np.zeros(1), np.zeros(1))


def exposure(rng: np.random.Generator, noise: float = 10.0, **changes: Any) -> Exposure:
    info = VisitInfo(VISIT, DETECTOR, "g", 86.0, T0)
    image = rng.normal(0, noise, SHAPE).astype(np.float32)
    variance = np.full(SHAPE, noise**2, np.float32)
    mask = np.zeros(SHAPE, np.uint32)
    provenance = {"SCIID": "410999_25", "RUNID": "test"}
    made = Exposure(
        image, variance, mask, info, tan(), gaussian_psf(), unit="nJy", provenance=provenance
    )
    return made.replace(**changes)


def difference(made: Exposure) -> Difference:
    kernel = MatchingKernel(
        np.ones((1, 1, 1)), np.ones((1, 1)), 0, SHAPE, np.zeros(1), 1.0, np.zeros((0, 4))
    )
    return Difference(made, np.zeros(SHAPE, np.float32), made.variance, kernel)


def rows(x: Any, y: Any, visit: int = VISIT, day: float = 0.0, **columns: Any) -> pa.Table:
    n = len(x)
    ra, dec = tan().all_pix2world(x, y, 0)
    ids = np.array([pack(visit, DETECTOR, k + 1) for k in range(n)])
    flux = {name: np.full(n, 900.0) for name in ("psfFlux", "apFlux")}
    error = {name: np.full(n, 40.0) for name in ("psfFluxErr", "apFluxErr")}
    default = {"bboxSize": 21, "reliability": 0.9}
    return DIA_SOURCE.to_arrow(
        {"diaSourceId": ids, "ra": ra, "dec": dec, "x": x, "y": y} | flux | error | columns,
        visit=visit, detector=DETECTOR, midpointMjdTai=T0 + day, raErr=3e-5, decErr=3e-5,
        ra_dec_Cov=0.0, psfNdata=100, trailNdata=0, dipoleNdata=0, band="g",
        timeProcessedMjdTai=T0, **{k: v for k, v in default.items() if k not in columns},
    )  # fmt: skip


class Scene:
    """Two earlier visits, the present one, its images, and the alerts made of them."""

    def __init__(self, x: Any, y: Any, **columns: Any) -> None:
        rng = np.random.default_rng(7)
        x, y = np.asarray(x, float), np.asarray(y, float)
        self.science, self.template = exposure(rng), exposure(rng, noise=4.0)
        self.difference = difference(exposure(rng))
        history, objects = DIA_SOURCE.empty(), DIA_OBJECT.empty()
        for k, day in enumerate((-400.0, -3.0)):
            result = diaobject.run(
                rows(x, y, VISIT - 9 + k, day), objects, history, processed_mjd_tai=T0 + day
            )
            history, objects = pa.concat_tables([history, result.sources]), result.objects
        self.result = diaobject.run(
            rows(x, y, **columns), objects, history, processed_mjd_tai=T0 + 0.001
        )
        self.history, self.forced = history, DIA_FORCED_SOURCE.empty()

    @property
    def cutouts(self) -> pa.Table:
        images = self.difference.exposure, self.science, self.template
        return alerts.cut_out(self.result.sources, *images)

    def alerts(self, **kwargs: Any) -> alerts.Result:
        return alerts.run(
            self.result.sources, self.result.objects, self.history, self.forced, self.cutouts,
            processed_mjd_tai=T0 + 0.002, **kwargs,
        )  # fmt: skip


def decoded(result: alerts.Result, tmp_path: Path) -> list[dict[str, Any]]:
    return list(alerts.read(alerts.write(tmp_path / "alerts.avro", result.packets)))


def random_table(table: Table, rng: np.random.Generator, n: int) -> pa.Table:
    """Rows of every type, with NULLs and extreme values."""
    limits = {"i64": 2**62, "i32": 2**30, "i16": 2**14}
    columns: dict[str, Any] = {}
    for column in table.columns:
        if column.dtype in limits:
            top = limits[column.dtype]
            values: list[Any] = rng.integers(-top, top, n).tolist()
        elif column.dtype[0] == "f":
            values = [float(np.float32(v)) for v in rng.normal(0, 1e6, n)]
        elif column.dtype == "bool":
            values = (rng.random(n) < 0.5).tolist()
        elif column.dtype == "str":
            values = ["x" * int(k) + "σ" for k in rng.integers(0, 90, n)]
        else:
            values = [None] * n
        if column.nullable:
            values = [v if rng.random() < 0.7 else None for v in values]
        columns[column.name] = values
    return table.to_arrow(columns)


@pytest.mark.parametrize("name", ["DiaSource", "DiaObject", "SSSource", "mpc_orbits"])
def test_encoded_rows_are_what_fastavro_reads_and_writes(name: str) -> None:
    table = random_table(TABLES[name], np.random.default_rng(4), 40)
    encoded = encode(table, TABLES[name].columns)
    kinds = {"i64": "long", "i32": "int", "i16": "int", "f64": "double", "f32": "float",
             "bool": "boolean", "str": "string", "time": "long"}  # fmt: skip
    fields = [
        {"name": c.name, "type": ["null", kinds[c.dtype]] if c.nullable else kinds[c.dtype]}
        for c in TABLES[name].columns
    ]
    schema = fastavro.parse_schema({"type": "record", "name": "row", "fields": fields})
    for k, expected in enumerate(table.to_pylist()):
        assert fastavro.schemaless_reader(BytesIO(encoded[k]), schema, None) == expected
        again = BytesIO()
        fastavro.schemaless_writer(again, schema, expected)
        assert encoded[k] == again.getvalue()


def test_an_object_has_its_fields_in_the_order_of_lssts_packets() -> None:
    """Readers that know LSST's schema 11.1 by heart decode ours, whose own record comes last."""
    fields = alerts.packet_schema()["fields"]
    assert [f["name"] for f in fields][-1] == "nightjar"
    (record,) = (f["type"][1] for f in fields if f["name"] == "diaObject")
    bands = "ugrizy"
    blocks = [
        ["psfFluxMean", "psfFluxMeanErr", "psfFluxSigma", "psfFluxNdata", "fpFluxMean",
         "fpFluxMeanErr"],
        ["scienceFluxMean", "scienceFluxMeanErr"],
        ["psfFluxMin", "psfFluxMax", "psfFluxMaxSlope", "psfFluxErrMean"],
    ]  # fmt: skip
    assert [f["name"] for f in record["fields"]] == [
        "diaObjectId", "validityStartMjdTai", "ra", "raErr", "dec", "decErr", "ra_dec_Cov",
        *(f"{b}_{name}" for block in blocks for b in bands for name in block),
        "firstDiaSourceMjdTai", "lastDiaSourceMjdTai", "nDiaSources",
    ]  # fmt: skip


def test_round_trip(tmp_path: Path) -> None:
    scene = Scene([60.2, 130.7, 200.0], [40.0, 150.3, 250.6])
    result = scene.alerts()
    packets = decoded(result, tmp_path)
    assert len(packets) == 3
    expected = scene.result.sources.sort_by("diaSourceId").to_pylist()
    for packet, source in zip(packets, expected, strict=True):
        assert packet["diaSourceId"] == source["diaSourceId"] == packet["nightjar"]["alertId"]
        merged = packet["diaSource"] | packet["nightjar"]["diaSource"]
        assert merged == {k: source[k] for k in merged}
        assert len(merged) == len(DIA_SOURCE.columns) - 1
        assert packet["diaObject"]["diaObjectId"] == source["diaObjectId"]
        assert packet["diaObject"]["nDiaSources"] == 3
        # of the two earlier visits one is older than a year
        assert [p["visit"] for p in packet["prvDiaSources"]] == [VISIT - 8]
        assert packet["prvDiaForcedSources"] is None
    assert result.ledger["nHistory"].to_pylist() == [1, 1, 1]
    assert result.ledger["emitted"].to_pylist() == [True] * 3


def test_cutouts_show_the_source_where_it_is(tmp_path: Path) -> None:
    x, y = np.array([60.2, 130.7]), np.array([40.0, 150.3])
    scene = Scene(x, y)
    # an L-shaped source: bright to the right, brighter above
    image = scene.science.image
    for a, b in ((60, 40), (131, 150)):
        image[b, a], image[b, a + 5], image[b + 8, a] = 1e5, 2e5, 3e5
    for k, packet in enumerate(decoded(scene.alerts(), tmp_path)):
        hdus = fits.open(BytesIO(packet["cutoutScience"]))
        assert [h.name for h in hdus] == ["PRIMARY", "UNCERT", "MASK", "PSFIMAGE"]
        data = hdus[0].data
        assert data.shape == (51, 51)
        assert (data[25, 25], data[25, 30], data[33, 25]) == (1e5, 2e5, 3e5)
        wcs = WCS(hdus[0].header)
        px, py = wcs.all_world2pix(packet["diaSource"]["ra"], packet["diaSource"]["dec"], 0)
        assert px == pytest.approx(x[k] - np.rint(x[k]) + 25, abs=2e-3)
        assert py == pytest.approx(y[k] - np.rint(y[k]) + 25, abs=2e-3)
        corner = wcs.all_pix2world([[0.0, 0.0], [50.0, 50.0]], 0)
        true = scene.science.wcs.all_pix2world(
            np.rint(x[k]) + np.array([-25.0, 25.0]), np.rint(y[k]) + np.array([-25.0, 25.0]), 0
        )
        assert np.abs(corner - np.transpose(true)).max() * 3600 < 1e-3


def test_psf_image_measures_the_flux_that_the_source_has(tmp_path: Path) -> None:
    """A model with wings beyond the stamp, whose sum is that of no aperture."""
    u = np.arange(41) - 20
    stamp = (1 + (u[:, None] ** 2 + u**2) / 3.0**2) ** -2.2
    psf = GridPsf((1.012 * stamp / stamp.sum())[None, None], np.zeros(1), np.zeros(1))
    scene, at = Scene([60.2], [40.4]), (np.array([60.2]), np.array([40.4]))
    image = np.zeros(SHAPE, np.float32)
    image[40 - 20 : 40 + 21, 60 - 20 : 60 + 21] = 5e4 * psf_images(SplinePsf.of(psf), *at, 41)[0]
    made = scene.difference.exposure.replace(image=image, psf=psf)
    scene.difference = difference(made)
    measured = forced_flux(image, made.variance, None, made.mask, psf, *at).flux[0]
    (packet,) = decoded(scene.alerts(), tmp_path)
    hdus = fits.open(BytesIO(packet["cutoutDifference"]))
    p, d = hdus["PSFIMAGE"].data.astype(float), hdus[0].data[10:41, 10:41].astype(float)
    assert p.shape == d.shape
    assert (p * d).sum() / (p * p).sum() == pytest.approx(measured, rel=3e-4)
    assert measured == pytest.approx(5e4, rel=3e-3)


def test_psf_image_has_unit_sum_and_the_sources_phase(tmp_path: Path) -> None:
    scene = Scene([60.2], [40.4])
    (packet,) = decoded(scene.alerts(), tmp_path)
    stamp = fits.open(BytesIO(packet["cutoutDifference"]))["PSFIMAGE"].data.astype(float)
    middle = stamp.shape[0] // 2
    u = np.arange(stamp.shape[0]) - middle
    assert stamp.sum() == pytest.approx(1.0, abs=1e-6)
    assert (stamp * u).sum() == pytest.approx(0.2, abs=2e-3)
    assert (stamp * u[:, None]).sum() == pytest.approx(0.4, abs=2e-3)


def test_cutouts_read_as_ccddata(tmp_path: Path) -> None:
    (packet,) = decoded(Scene([60.2], [40.4]).alerts(), tmp_path)
    ccd = CCDData.read(BytesIO(packet["cutoutTemplate"]))
    assert ccd.unit == "nJy"
    assert ccd.uncertainty.array.shape == (51, 51)
    assert np.median(ccd.uncertainty.array) == pytest.approx(16.0)
    assert ccd.psf.shape == (31, 31)
    assert ccd.wcs is not None


def test_first_block_alone_suffices(tmp_path: Path) -> None:
    """One consumer parses 2880 bytes by hand and takes the pixels from there on."""
    scene = Scene([60.2, 10.0], [40.4, 280.0], bboxSize=[21, 80])
    for packet, side in zip(decoded(scene.alerts(), tmp_path), (51, 80), strict=True):
        for name in ("cutoutDifference", "cutoutScience", "cutoutTemplate"):
            raw = packet[name]
            cards = [raw[k : k + 80].decode("ascii") for k in range(0, 2880, 80)]
            names = [card[:8].strip() for card in cards]
            assert names.index("END") <= 35
            values = {n: c[10:30].strip() for n, c in zip(names, cards, strict=True)}
            assert (values["BITPIX"], values["NAXIS1"]) == ("-32", str(side))
            assert names.index("NAXIS1") + 1 == names.index("NAXIS2")
            pixels = np.frombuffer(raw[2880 : 2880 + 4 * side * side], ">f4")
            opened = fits.open(BytesIO(raw))[0].data
            assert np.array_equal(pixels.reshape(side, side), opened, equal_nan=True)


@pytest.mark.parametrize("first", [21, 30])
def test_files_of_every_size_are_what_astropy_writes(first: int) -> None:
    made, at = exposure(np.random.default_rng(5)), (np.array([100.0]), np.array([120.0]))
    number = np.array([7])
    cutter = Cutter(made, "science", AlertConfig())
    cutter.cut(number, *at, np.array([first]))  # whose headers the others are made from
    for side in (11, 12, 27, 30, 51, 99, 100):
        (raw,) = cutter.cut(number, *at, np.array([side]))
        stream = BytesIO()
        with fits.open(BytesIO(raw)) as hdus:
            hdus.writeto(stream, output_verify="exception")
            assert [h.shape for h in hdus[:3]] == [(side, side)] * 3
            assert hdus[0].header["CRPIX1"] == hdus[0].header["CRPIX2"] == side // 2 + 1
        assert raw == stream.getvalue()
        (alone,) = Cutter(made, "science", AlertConfig()).cut(number, *at, np.array([side]))
        assert raw == alone


def test_edges_are_padded_and_say_so(tmp_path: Path) -> None:
    (packet,) = decoded(Scene([3.0], [290.0]).alerts(), tmp_path)
    hdus = fits.open(BytesIO(packet["cutoutScience"]))
    off = np.zeros((51, 51), bool)
    off[:, :22] = True
    off[SHAPE[0] - (290 - 25) :] = True
    assert np.array_equal((hdus["MASK"].data & int(bits("NO_DATA"))) != 0, off)
    assert np.array_equal(np.isnan(hdus[0].data), off)
    header = hdus["MASK"].header
    assert header["MP_NO_DATA"] == 6
    assert header["SCIID"] == "410999_25"


def test_files_repeat_byte_for_byte(tmp_path: Path) -> None:
    first = alerts.write(tmp_path / "a.avro", Scene([60.2], [40.4]).alerts().packets)
    again = alerts.write(tmp_path / "b.avro", Scene([60.2], [40.4]).alerts().packets)
    assert first.read_bytes() == again.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.avro", "b.avro"]


def test_what_is_not_announced_has_its_reason() -> None:
    scene = Scene(
        [20.0, 60.0, 100.0, 140.0, 180.0, 220.0],
        [50.0] * 6,
        isSubThreshold=[True] + [False] * 5,
        psfFlux=[900.0, np.nan, 900.0, 900.0, 900.0, 900.0],
        pixelFlags_injected=[False, False, True, False, False, False],
        isDeblendParent=[False] * 3 + [True] + [False] * 2,
    )
    config = alerts.Config(reliability_min=0.5)
    result = scene.alerts(config=config)
    assert result.ledger["reason"].to_pylist() == [
        "flux not finite", "synthetic", "deblend parent", None, None,
    ]  # fmt: skip
    assert len(result.packets) == 2
    assert len(scene.alerts(config=alerts.Config(injected=True)).packets) == 3
    assert not scene.alerts(config=alerts.Config(reliability_min=0.95)).packets


def test_every_source_that_some_configuration_announces_has_cutouts() -> None:
    """Those below threshold, without a flux or parents of a blend are never announced."""
    scene = Scene(
        [20.0, 60.0, 100.0, 140.0], [50.0] * 4, isSubThreshold=[True] + [False] * 3,
        psfFlux=[900.0, np.nan, 900.0, 900.0], isDeblendParent=[False, False, True, False],
        reliability=[0.9, 0.9, 0.9, 0.01],
    )  # fmt: skip
    ids = to_numpy(scene.result.sources, "diaSourceId")
    assert scene.cutouts["diaSourceId"].to_pylist() == [ids[3]]
    every = alerts.Config(reliability_min=0.0, injected=True)
    assert [p.diaSourceId for p in scene.alerts(config=every).packets] == [ids[3]]


def test_a_source_without_cutouts_is_an_error_that_names_it() -> None:
    scene = Scene([60.0, 100.0], [50.0, 50.0])
    number = scene.result.sources["diaSourceId"].to_pylist()[1]
    with pytest.raises(InputError, match=f"no cut-outs of 1 sources, {number} the first"):
        alerts.run(
            scene.result.sources, scene.result.objects, scene.history, scene.forced,
            scene.cutouts.slice(0, 1), processed_mjd_tai=T0,
        )  # fmt: skip


def test_solar_system_alerts_carry_the_body(tmp_path: Path) -> None:
    scene = Scene([60.0], [50.0])
    sources = scene.result.sources
    number = to_numpy(sources, "diaSourceId")
    field = sources.schema.field("ssObjectId")
    at = sources.schema.get_field_index("ssObjectId")
    sources = sources.set_column(at, field, pa.array([77]))
    at = sources.schema.get_field_index("diaObjectId")
    sources = sources.set_column(at, sources.schema.field(at), pa.nulls(1, pa.int64()))
    ss = SS_SOURCE.to_arrow(
        {"diaSourceId": number}, ssObjectId=77, designation="2004 JQ12", eclLambda=1.0,
        eclBeta=2.0, galLon=3.0, galLat=4.0,
    )  # fmt: skip
    result = alerts.run(
        sources, scene.result.objects, scene.history, scene.forced, scene.cutouts,
        surroundings=alerts.Surroundings(ss_sources=ss), processed_mjd_tai=T0,
    )  # fmt: skip
    (packet,) = decoded(result, tmp_path)
    assert packet["ssSource"]["designation"] == "2004 JQ12"
    assert packet["diaObject"] is None
    assert packet["diaSource"]["diaObjectId"] is None


def test_a_body_has_its_own_orbit_where_another_is_not_announced(tmp_path: Path) -> None:
    scene = Scene([60.0, 130.0, 200.0], [50.0] * 3, reliability=[0.9, 0.1, 0.9])
    sources = scene.result.sources
    number = to_numpy(sources, "diaSourceId")
    for name, values in (("ssObjectId", [76, 77, 78]), ("diaObjectId", [None] * 3)):
        at = sources.schema.get_field_index(name)
        sources = sources.set_column(at, sources.schema.field(at), pa.array(values, pa.int64()))
    names = ["2004 JQ11", "2004 JQ12", "2004 JQ13"]
    ss = SS_SOURCE.to_arrow(
        {"diaSourceId": number, "ssObjectId": np.array([76, 77, 78]), "designation": names},
        eclLambda=1.0, eclBeta=2.0, galLon=3.0, galLat=4.0,
    )  # fmt: skip
    designations = (
        "designation",
        "packed_primary_provisional_designation",
        "unpacked_primary_provisional_designation",
    )
    orbits = MPC_ORBITS.to_arrow({"id": np.arange(3)} | dict.fromkeys(designations, names))
    result = alerts.run(
        sources, scene.result.objects, scene.history, scene.forced, scene.cutouts,
        surroundings=alerts.Surroundings(ss_sources=ss, orbits=orbits), processed_mjd_tai=T0,
    )  # fmt: skip
    packets = decoded(result, tmp_path)
    for key in ("ssSource", "mpc_orbits"):
        assert [p[key]["designation"] for p in packets] == [names[0], names[2]]


def test_visits_without_measurement_are_listed_with_their_depth(tmp_path: Path) -> None:
    scene = Scene([60.0], [50.0])
    (number,) = scene.result.objects["diaObjectId"].to_pylist()
    limits = alerts.NOISE_LIMIT.to_arrow(
        {"visit": [VISIT - 8, VISIT - 3, VISIT - 4, VISIT - 7, VISIT, VISIT - 5],
         "midpointMjdTai": T0 + np.array([-3.0, -1.0, -2.0, -500.0, 0.0, -1.5]),
         "limit": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "diaObjectId": [number] * 5 + [number + 1]},
        detector=DETECTOR, band="g",
    )  # fmt: skip
    result = scene.alerts(surroundings=alerts.Surroundings(limits=limits))
    (packet,) = decoded(result, tmp_path)
    # one visit has a source, one is too old, one is the present, one shows
    # another object; the others in order of time
    found = [(row["visit"], row["limit"]) for row in packet["nightjar"]["noiseLimits"]]
    assert found == [(VISIT - 4, 3.0), (VISIT - 3, 2.0)]


def test_no_sources_give_a_valid_empty_file(tmp_path: Path) -> None:
    scene = Scene([60.0], [50.0], isSubThreshold=[True])
    result = scene.alerts()
    assert result.ledger.num_rows == 0
    assert decoded(result, tmp_path) == []


def test_damaged_files_give_one_line(tmp_path: Path) -> None:
    path = alerts.write(tmp_path / "a.avro", Scene([60.2], [40.4]).alerts().packets)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(FileFormatError, match=r"a\.avro"):
        list(alerts.read(path))
    path.write_bytes(b"SIMPLE  =")
    with pytest.raises(FileFormatError, match="Avro"):
        list(alerts.read(path))
    with pytest.raises(FileFormatError, match="nowhere"):
        list(alerts.read(tmp_path / "nowhere.avro"))


def test_a_reader_with_the_common_fields_resolves_our_packets(tmp_path: Path) -> None:
    """A schema without our record, and with fewer fields, still reads the file."""
    path = alerts.write(tmp_path / "a.avro", Scene([60.2], [40.4]).alerts().packets)
    schema = alerts.packet_schema()
    schema["fields"] = [f for f in schema["fields"] if f["name"] != "nightjar"]
    with path.open("rb") as stream:
        (packet,) = fastavro.reader(stream, reader_schema=fastavro.parse_schema(schema))
    assert "nightjar" not in packet
    assert packet["diaSource"]["psfFlux"] == 900.0
    names = [f["name"] for f in schema["fields"]]
    assert names == [
        "diaSourceId", "observation_reason", "target_name", "diaSource", "prvDiaSources",
        "prvDiaForcedSources", "diaObject", "ssSource", "mpc_orbits", "cutoutDifference",
        "cutoutScience", "cutoutTemplate",
    ]  # fmt: skip
    count = {
        f["name"]: len(f["type"]["fields"]) for f in schema["fields"] if f["name"] == "diaSource"
    }
    assert count == {"diaSource": 102}
