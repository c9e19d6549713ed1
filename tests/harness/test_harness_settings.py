from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from harness.settings import Campaign, Settings, changed_values, product_values
from harness.settings.toml import render
from pipeline.errors import ConfigError


def test_written_configuration_reads_back_equal(tmp_path: Path) -> None:
    settings = Settings(campaign=Campaign(name='a "quoted" näme', camera="testcam", seed=7))
    path = tmp_path / "nightjar.toml"
    settings.save(path)
    assert Settings.load(path) == settings
    assert render(Settings.load(path)) == path.read_text(encoding="utf-8")


def test_every_value_is_written_with_its_help(tmp_path: Path) -> None:
    text = render(Settings())
    for section in Settings.model_fields:
        assert f"[{section}]" in text
    assert "kernel_half = " in text
    assert "Half width of the matching kernel [pixel]" in text
    assert "≥ 3, ≤ 20" in text or "≥ 3" in text


def test_unknown_key_names_file_key_and_the_nearest_known_one(tmp_path: Path) -> None:
    path = tmp_path / "nightjar.toml"
    path.write_text("[subtract]\nkernel_hafl = 9\n")
    with pytest.raises(ConfigError, match=r"kernel_hafl.*did you mean subtract.kernel_half") as err:
        Settings.load(path)
    assert str(path) in str(err.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[subtract]\nkernel_half = 100\n", "subtract.kernel_half: Input should be less"),
        (
            '[diasource]\nveto = ["SAT", "SATT"]\n',
            r"diasource\.veto: unknown mask plane SATT; known are BAD, SAT, .*, UNLISTED",
        ),
        ('[diasource]\nunusable = ["sat"]\n', "diasource.unusable: unknown mask plane sat"),
        ('[calibrate]\nphotometric_system = "sdss"\n', "photometric_system: .*'natural' or"),
        (
            '[campaign]\nname = "../../x"\n',
            r"campaign\.name: must be fit for a file name.*'\.\./\.\./x'",
        ),
        ('[campaign]\nname = "a/b"\n', "fit for a file name"),
        ('[campaign]\nname = "a\\u0000"\n', "fit for a file name"),
        ('[campaign]\nname = " "\n', "fit for a file name"),
        (f'[campaign]\nname = "{"ä" * 101}"\n', "at most 200 bytes"),
        ("[subtract\n", "not valid TOML"),
        ("[subtrakt]\n", "did you mean subtract"),
    ],
)
def test_bad_values_are_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "nightjar.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as err:
        Settings.load(path)
    assert "\n" not in str(err.value)


def test_overrides_win_and_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "nightjar.toml"
    Settings().save(path)
    assert Settings.load(path, ["subtract.kernel_half=9"]).subtract.kernel_half == 9
    assert Settings.load(path, ["report.tester=Ada"]).report.tester == "Ada"
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        Settings.load(path, ["kernel_half"])


def test_only_values_that_affect_products_enter_the_hash() -> None:
    plain, other = Settings(), Settings(campaign=Campaign(seed=9))
    assert plain.section_hash("campaign") == other.section_hash("campaign")
    assert "seed" not in product_values(plain.campaign)
    named = Settings(campaign=Campaign(template_inputs=5))
    assert plain.section_hash("campaign") != named.section_hash("campaign")
    changes = changed_values(product_values(plain.campaign), product_values(named.campaign))
    assert changes == ["template_inputs 3→5"]


def test_values_of_every_type_have_a_line() -> None:
    class Part(BaseModel):
        table: dict[str, list[float]] = Field({"a b": [1e-05, 2.0]}, description="numbers")
        nothing: int | None = Field(None, description="optional", ge=1)
        word: str = Field('x"\\', description="text")

    class Whole(BaseModel):
        part: Part = Field(Part(), description="a part")

    text = render(Whole())

    assert tomllib.loads(text) == {"part": {"table": {"a b": [1e-05, 2.0]}, "word": 'x"\\'}}
    assert "# a part\n[part]\n" in text
    assert "# [p] optional (default none, ≥ 1)\n# nothing =\n" in text
