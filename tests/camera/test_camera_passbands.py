"""What a camera's definition says band by band, and what it may not say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import pipeline.camera
from pipeline.camera import Camera
from pipeline.errors import ConfigError
from pipeline.schema import BANDS

HOME = Path(pipeline.camera.__file__).parent

Edit = Callable[[str, str], Path]


@pytest.fixture
def edited(tmp_path: Path) -> Edit:
    """A copy of the test camera in which one text is replaced."""

    def make(old: str, new: str) -> Path:
        shutil.copytree(HOME / "data", tmp_path / "data", dirs_exist_ok=True)
        text = (HOME / "testcam.toml").read_text()
        assert old in text
        path = tmp_path / "testcam.toml"
        path.write_text(text.replace(old, new, 1))
        return path

    return make


@pytest.mark.parametrize("name", [p.stem for p in HOME.glob("*.toml")])
def test_every_bundled_camera_knows_all_bands(name: str) -> None:
    passbands = Camera.load(name).passbands
    assert set(passbands.bands) == set(BANDS)
    refraction = [passbands.bands[b].refraction for b in BANDS]
    assert refraction == sorted(refraction, reverse=True)
    assert all(
        BANDS.index(t.blue) < BANDS.index(t.red)
        for t in passbands.colour_terms["ps1-decam"].values()
    )


def test_numbers_of_decam() -> None:
    decam = Camera.load("decam")
    g = decam.passbands.bands["g"]
    assert (g.zero_point, g.dark_sky, g.refraction) == (26.6, 22.0, 0.045)
    assert g.filter == "g DECam SDSS c0001 4720.0 1520.0"
    term = decam.passbands.colour_terms["ps1-decam"]["g"]
    assert (term.c0, term.c1, term.c2, term.low, term.high) == (
        0.006388, 0.045875, -0.004484, -1.0, 1.2,
    )  # fmt: skip
    assert decam.cards["INSTRUME"] == "DECam"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("zero_point = 26.6", "zero_point = 266.0", "bands.g: zero_point is not between 10 and 40"),
        ("zero_point = 26.6", 'zero_point = "x"', "bands.g.zero_point: is 'x'; expected a number"),
        ("dark_sky = 22.0", "dark_sky = nan", "bands.g.dark_sky: is nan"),
        ("refraction = 0.045", "refraction = -1.0", "bands.g: refraction is not between"),
        ("refraction = 0.045", "refracton = 0.045", "bands.g: unknown key 'refracton'"),
        (", refraction = 0.045", "", "bands.g: incomplete"),
        ("high = 1.2", "high = -2.0", "colour_terms.ps1-decam.g: low is not below high"),
        ("fiducial_seeing = 1.0", "fiducial_seeing = 0.0", "fiducial_seeing: not a seeing"),
    ],
)
def test_a_wrong_value_is_named(edited: Edit, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"testcam\.toml") as caught:
        Camera.load(edited(old, new))
    assert said in str(caught.value)


def test_a_definition_without_bands_has_those_of_its_name_or_the_generic_ones(
    edited: Edit,
) -> None:
    text = edited("testcam", "testcam").read_text()
    start, end = text.index("[bands]"), text.index("[layouts.S]")
    for name in ("testcam", "homemade"):
        path = edited("testcam", "testcam").with_name(f"{name}.toml")
        path.write_text((text[:start] + text[end:]).replace('name = "testcam"', f'name = "{name}"'))
        known = "testcam" if name == "testcam" else "generic"
        assert Camera.load(path).passbands is Camera.load(known).passbands
