"""What brokers, catalogue users and archives read with opens what we write (``make readers``).

Each of these programs is used as its documentation says; what it returns is compared with what the
campaign's files and tables hold.  A test is skipped where its program is not installed.
"""

from __future__ import annotations

import re
import warnings
from importlib import import_module, metadata
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pytest
from astropy.io import fits
from astropy.units import Unit
from ruamel.yaml import YAML

from harness.alerts.entries import alert_files, read_alerts
from harness.alerts.publish import framed
from harness.catalog import Catalog
from harness.cli.main import execute
from pipeline import alerts
from pipeline.schema import TABLES

pytestmark = pytest.mark.filterwarnings("ignore")  # of other people's programs


def needs(name: str) -> pytest.MarkDecorator:
    """Skip a test, before anything is made for it, where a distribution is not installed."""
    missing = not any(metadata.distributions(name=name))
    return pytest.mark.skipif(missing, reason=f"{name} is not installed: make readers")


LSST = 1101  # number of the schema 11.1 in LSST's registry
Packets = list[dict[str, Any]]


@pytest.fixture(scope="module")
def paths(campaign: Path) -> list[Path]:
    return alert_files([campaign])


@pytest.fixture(scope="module")
def packets(paths: list[Path]) -> Packets:
    return list(read_alerts(paths))


@pytest.fixture(scope="module")
def messages(packets: Packets) -> list[bytes]:
    """The packets as a broker delivers them: frame and bare Avro."""
    found, parsed = [], fastavro.parse_schema(alerts.packet_schema())
    for packet in packets:
        stream = BytesIO()
        fastavro.schemaless_writer(stream, parsed, packet)
        found.append(framed(LSST, stream.getvalue()))
    return found


def same(a: object, b: object) -> bool:
    """Whether both print alike, which holds for NaN, and for every bit of a number."""
    return repr(a) == repr(b)


def without_own(packet: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in packet.items() if name != "nightjar"}


@needs("lsst-alert-packet")
def test_lsst_alert_packet_reads_alerts_as_its_own_schema_11_1(
    paths: list[Path], packets: Packets
) -> None:
    module = import_module("lsst.alert.packet")
    schema = module.Schema.from_uri(module.get_schema_path("11", "1") + "/lsst.v11_1.alert.avsc")
    found: Packets = []
    for path in paths:
        with path.open("rb") as stream:
            written, records = schema.retrieve_alerts(stream)
            found += records
        assert written.definition["name"] == "nightjar.v1_1.alert"
    assert len(found) == len(packets)
    assert all(schema.validate(packet) for packet in found)
    for packet, ours in zip(found, packets, strict=True):
        assert same(packet, without_own(ours))


@needs("fink-client")
def test_fink_client_reads_alerts(paths: list[Path], packets: Packets) -> None:
    module = import_module("fink_client.avro_utils")
    found = module.AlertReader([str(path) for path in paths]).to_list()
    assert same(found, packets)


@needs("fink-client")
def test_fink_client_decodes_a_message_with_its_schema_as_key(
    messages: list[bytes], packets: Packets
) -> None:
    module = import_module("fink_client.avro_utils")
    schema = fastavro.parse_schema(alerts.packet_schema())
    for message, packet in zip(messages, packets, strict=True):
        assert same(module._decode_avro_alert(BytesIO(message[5:]), schema), packet)


@needs("pittgoogle-client")
def test_pittgoogle_client_reads_messages(messages: list[bytes], packets: Packets) -> None:
    module = import_module("pittgoogle")
    like = module.types_.PubsubMessageLike
    for message, packet in zip(messages, packets, strict=True):
        alert = module.Alert.from_msg(like(data=message), schema_name="lsst")
        assert same(dict(alert.dict), without_own(packet))
        assert alert.sourceid == packet["diaSourceId"]
        assert (alert.ra, alert.dec) == (packet["diaSource"]["ra"], packet["diaSource"]["dec"])
    frame = alert.dataframe
    assert len(frame) == 1 + sum(
        len(packets[-1][name] or []) for name in ("prvDiaSources", "prvDiaForcedSources")
    )


@needs("babamul")
def test_babamul_reads_alerts_candidates_and_cutouts(paths: list[Path], packets: Packets) -> None:
    from babamul.avro import deserialize_alert
    from babamul.raw_models import LsstCandidate

    first = deserialize_alert(paths[0].read_bytes())
    assert same(first, packets[0])
    broker = {"jd": 0.0, "magpsf": 20.0, "sigmapsf": 0.1, "diffmaglim": 24.0, "isdiffpos": True,
              "objectId": "1"}  # fmt: skip
    for packet in packets:
        candidate = LsstCandidate.model_validate(packet["diaSource"] | broker)
        assert candidate.psfFlux == packet["diaSource"]["psfFlux"]
        assert candidate.band.value == packet["diaSource"]["band"]


@needs("babamul")
def test_babamul_draws_the_cutouts(packets: Packets) -> None:
    from babamul.cutouts import plot_cutouts
    from matplotlib import pyplot

    axes = plot_cutouts(packets[0], "LSST", show=False)
    drawn = [ax.get_images()[0].get_array().shape for ax in axes]
    assert drawn == [fits.getdata(BytesIO(packets[0]["cutoutScience"])).shape] * 3
    pyplot.close("all")


@needs("authlib")
def test_confluents_deserializer_reads_messages_with_the_schema_of_a_registry(
    messages: list[bytes], packets: Packets, capsys: pytest.CaptureFixture[str]
) -> None:
    module = import_module("confluent_kafka.schema_registry.avro")
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
    from confluent_kafka.serialization import MessageField, SerializationContext

    assert execute(["alerts", "schema"]) == 0
    client = SchemaRegistryClient.new_client({"url": "mock://nightjar"})
    number = client.register_schema("alerts-value", Schema(capsys.readouterr().out, "AVRO"))
    deserialize = module.AvroDeserializer(client)
    context = SerializationContext("alerts", MessageField.VALUE)
    for message, packet in zip(messages, packets, strict=True):
        assert same(deserialize(framed(number, message[5:]), context), packet)


KINDS = {"long": "i64", "int": "i32", "short": "i16", "double": "f64", "float": "f32",
         "boolean": "bool", "string": "str", "text": "str", "char": "str",
         "timestamp": "time"}  # fmt: skip
DIMENSIONLESS = re.compile(r"^[ugrizy]_H_[ugrizy]_G12_Cov$")
"""Covariances of a magnitude and a number: mag with us, mag**2 in LSST's file."""


@needs("lsst-sdm-schemas")
def test_tables_have_the_names_types_units_and_nulls_of_lssts_apdb() -> None:
    described = YAML(typ="safe").load((files("lsst.sdm.schemas") / "apdb.yaml").read_text())[
        "tables"
    ]
    theirs = {table["name"]: table["columns"] for table in described if table["name"] in TABLES}
    assert set(theirs) == {
        "DiaObject", "DiaSource", "DiaForcedSource", "DiaObject_To_Object_Match", "DiaObjectLast",
        "SSObject", "SSSource", "mpc_orbits",
    }  # fmt: skip
    units = 0
    for table, columns in theirs.items():
        ours = {column.name: column for column in TABLES[table].columns}
        for column in columns:
            own, where = ours[column["name"]], f"{table}.{column['name']}"
            assert own.dtype == KINDS[column["datatype"]], where
            assert own.nullable == column.get("nullable", True), where
            unit = column.get("fits:tunit") or column.get("ivoa:unit")
            if unit and not DIMENSIONLESS.match(own.name):
                assert Unit(own.unit) == Unit(unit), where
                units += 1
    assert units > 200


@needs("lsdb")
def test_a_hats_catalogue_is_read_by_lsdb(campaign: Path, tmp_path: Path) -> None:
    lsdb = import_module("lsdb")
    assert execute(["export", str(campaign), "DiaObject", str(tmp_path / "hats"), "--hats"]) == 0
    frame = lsdb.open_catalog(tmp_path / "hats").compute()
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        epochs = catalog.fetch("SELECT diaObjectId, count(*) FROM lightcurve GROUP BY 1")
    counts = dict(epochs)
    assert len(frame) == len(counts)
    for number, curve in zip(frame["diaObjectId"], frame["lightcurve"], strict=True):
        assert len(curve) == counts[number]


@needs("roc-validator")
@needs("rocrate")
def test_a_bundle_is_a_valid_ro_crate(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert execute(["verify", str(campaign), "--output", str(tmp_path)]) < 5
    bundle = (tmp_path / "latest").resolve()
    text = (files("rocrate") / "data" / "ro-crate.jsonld").read_text(encoding="utf-8")
    http, services = import_module("requests"), import_module("rocrate_validator.services")

    def fetched(_: object, url: str, **__: object) -> Any:
        assert url == "https://w3id.org/ro/crate/1.1/context"
        answer = http.Response()
        answer.status_code, answer.url, answer._content = 200, url, text.encode()
        answer.headers["Content-Type"] = "application/ld+json"
        return answer

    requester = import_module("rocrate_validator.utils.http").HttpRequester
    monkeypatch.setattr(requester, "get", fetched, raising=False)
    severity = import_module("rocrate_validator.models").Severity.RECOMMENDED
    found = services.validate(
        services.ValidationSettings(
            rocrate_uri=str(bundle), profile_identifier="ro-crate-1.1",
            requirement_severity=severity,
        )
    )  # fmt: skip

    wanted = {issue.check.identifier: issue.message for issue in found.get_issues()}
    # No organisation publishes a bundle, and this campaign names nobody who tests.
    assert set(wanted) <= {"ro-crate-1.1_22.2", "ro-crate-1.1_22.3"}, wanted
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crate = import_module("rocrate.rocrate").ROCrate(str(bundle))
    own = {"ro-crate-metadata.json", "SHA256SUMS"}
    names = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    assert {entity.id for entity in crate.data_entities} == names - own
