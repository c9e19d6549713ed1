"""Bad designs are one clear line before anything runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.cli.main import execute
from harness.study.design import StudyDesign, load_design
from harness.study.placing import Placement, place
from harness.workspace import Workspace
from pipeline import io
from pipeline.errors import ConfigError
from pipeline.exposure import Difference
from pipeline.schema import to_numpy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sources = -3", "sources"),
        ("sources = 0", "sources"),
        ("snr = [nan, 50.0]", "snr"),
        ("snr = [50.0, 3.0]", "snr must be two rising positive numbers"),
        ("snr = [-3.0, 5.0]", "snr must be two rising positive numbers"),
        ("host_flux = [0.0, 5.0]", "host_flux"),
        ("hosted = 1.5", "hosted"),
        ("negative = 0.7\ntrails = 0.7", "negative and trails"),
        ("separaton = 10", "did you mean separation"),
        ("sources = ", "not valid TOML"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "design.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_design(path)
    assert "\n" not in str(caught.value)
    assert "design.toml" in str(caught.value)


def test_options_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "design.toml"
    path.write_text("sources = 10\nsnr = [4.0, 8.0]")
    design = load_design(path, {"sources": 20, "snr": None})
    assert (design.sources, design.snr) == (20, (4.0, 8.0))


def test_sources_concentrate_at_the_threshold() -> None:
    design = StudyDesign(snr=(3.0, 50.0), near_threshold=0.5, threshold_snr=(4.0, 8.0))
    even = 3.0 * (50.0 / 3.0) ** ((np.arange(20_000) + 0.5) / 20_000)
    moved = design.concentrated(even)
    share = np.log(8.0 / 4.0) / np.log(50.0 / 3.0)
    assert np.mean((moved >= 4.0) & (moved < 8.0)) == pytest.approx(0.5 + 0.5 * share, abs=1e-3)
    assert (np.diff(moved) > 0).all()
    assert (moved.min(), moved.max()) == pytest.approx((3.0, 50.0), rel=1e-3)
    np.testing.assert_array_equal(StudyDesign().concentrated(even), even)
    with pytest.raises(ValueError, match="within snr"):
        StudyDesign(snr=(5.0, 50.0), near_threshold=0.1)


def test_a_design_must_fit_the_image() -> None:
    with pytest.raises(ConfigError, match="would overlap"):
        StudyDesign(sources=5000).check((420, 420))
    with pytest.raises(ConfigError, match="off the image"):
        StudyDesign(edge=300).check((420, 420))
    StudyDesign(sources=50).check((420, 420))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sources", "100000"], "would overlap"),
        (["--snr", "5"], "LOW:HIGH"),
        (["--visit", "77"], "no difference image"),
        (["--design", "nowhere.toml"], "cannot be read"),
    ],
)
def test_nothing_runs(
    space: Workspace, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set((space.root / "studies").glob("*"))
    assert execute(["study", str(space.root), "-q", *options]) == 2
    assert words in capsys.readouterr().err
    assert set((space.root / "studies").glob("*")) == before


def test_hosts_need_a_catalogue(space: Workspace, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(space.root, copy, ignore=shutil.ignore_patterns("studies", "objects.parquet"))
    assert execute(["study", str(copy), "-q", "--hosted", "0.5", "--sources", "10"]) == 2


def test_a_place_is_not_chosen_by_its_noise(space: Workspace) -> None:
    """Products keep scores in steps; those that become zero are scores like any other."""
    science, difference = io.read_exposure(space.visit_image(1, 2)), io.read_difference(
        space.difference(1, 2)
    )  # fmt: skip
    coarse = replace(difference, score=np.round(2.0 * difference.score) / np.float32(2.0))
    assert np.mean(coarse.score == 0.0) > 0.15

    def placed(of: Difference) -> Placement:
        return place(
            StudyDesign(sources=400, hosted=0, negative=0, near_bright=0), science, of, None,
            np.empty((0, 2)), study="s", realisation=0, first_id=0, veto=of.excluded,
        )  # fmt: skip

    fine, rounded = placed(difference), placed(coarse)
    assert rounded.injections.equals(fine.injections)
    reasons = set(fine.injections["reason"].to_pylist())
    assert None in reasons
    assert not any("SCORE" in (reason or "") for reason in reasons)
    scores = fine.null_score[to_numpy(fine.injections, "placed")]
    assert abs(scores.std() - 1.0) < 0.15
