from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

import pipeline.camera
from pipeline.camera import Camera, Section
from pipeline.errors import ConfigError

CAMERAS = ["decam", "testcam", "lsstlike"]


@pytest.mark.parametrize("name", CAMERAS)
def test_amplifiers_tile_the_trimmed_image(name: str) -> None:
    for detector in Camera.load(name).detectors.values():
        count = np.zeros(detector.shape, int)
        for amp in detector.amplifiers:
            assert amp.data.shape == amp.trimmed.shape
            count[amp.trimmed.slices] += 1

        assert (count == 1).all()


@pytest.mark.parametrize("name", CAMERAS)
def test_raw_sections_are_inside_and_apart(name: str) -> None:
    for detector in Camera.load(name).detectors.values():
        count = np.zeros(detector.raw_shape, int)
        for amp in detector.amplifiers:
            for section in (amp.data, amp.overscan):
                count[section.slices] += 1
                assert count[section.slices].shape == section.shape

        assert count.max() == 1


@pytest.mark.parametrize("name", CAMERAS)
def test_crosstalk_names_known_amplifiers(name: str) -> None:
    camera = Camera.load(name)
    entries = [c for d in camera.detectors.values() for c in d.crosstalk]

    assert entries
    for c in entries:
        assert camera.detector(c.victim).amplifier(c.victim_amp)
        assert camera.detector(c.source).amplifier(c.source_amp)


def test_decam_as_it_is() -> None:
    decam = Camera.load("decam")
    s4, n4 = decam.detector(28), decam.detector(35)

    assert len(decam.detectors) == 62
    assert [d.number for d in decam.detectors.values() if d.status == "dead"] == [2, 61]
    assert (s4.name, n4.name) == ("S4", "N4")
    assert s4.amplifier("A").data.fits == "[1081:2104,51:4146]"
    assert n4.amplifier("A").data.fits == "[57:1080,1:4096]"
    assert s4.amplifier("A").at_top
    assert not n4.amplifier("A").at_top
    assert sum(len(d.crosstalk) for d in decam.detectors.values()) == 249
    # Crosstalk never crosses from the S to the N half.
    assert all(
        (c.victim <= 31) == (c.source <= 31) for d in decam.detectors.values() for c in d.crosstalk
    )


def test_unknown_camera_and_detector() -> None:
    with pytest.raises(ConfigError, match=r"unknown camera 'nocam'; expected .*decam"):
        Camera.load("nocam")
    with pytest.raises(ConfigError, match="camera decam has no detector 63"):
        Camera.load("decam").detector(63)


def test_section_round_trip() -> None:
    assert Section.parse("[57:1080,1:4096]").fits == "[57:1080,1:4096]"
    with pytest.raises(ConfigError, match="not a section"):
        Section.parse("57:1080")


def test_a_short_table_can_stand_in_the_definition(tmp_path: Path) -> None:
    named = Path(pipeline.camera.__file__).with_name("testcam.toml")
    text = named.read_text().replace('name = "testcam"', 'name = "inline"')
    for table in ("detectors", "amplifiers"):
        path = named.parent / "data" / f"testcam_{table}.csv"
        with path.open(newline="") as stream:
            rows = [
                "{ " + ", ".join(f'{k} = "{v}"' for k, v in row.items()) + " }"
                for row in csv.DictReader(stream)
            ]
        text = text.replace(
            f'{table} = "data/testcam_{table}.csv"', f"{table} = [{', '.join(rows)}]"
        )
    text = re.sub(r'(crosstalk|linearity|defects) = "data/.*"\n', "", text)
    (tmp_path / "inline.toml").write_text(text)

    detector = Camera.load(str(tmp_path / "inline.toml")).detector(2)
    same = Camera.load("testcam").detector(2)

    assert [a.gain for a in detector.amplifiers] == [a.gain for a in same.amplifiers]
    assert (detector.x_mm, detector.status, detector.defects) == (same.x_mm, same.status, ())
