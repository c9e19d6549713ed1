"""Studies of whole frames: the ledger adds up, nothing else changes, a killed study goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

import harness.study.engine as study_engine
import harness.study.run as study_run
from harness.catalog import connect
from harness.cli.main import execute
from harness.plan import Selection
from harness.settings import Settings
from harness.study.completeness import fit
from harness.study.design import StudyDesign
from harness.study.engine import Engine, Painting, PaintingResult
from harness.study.figures import figures
from harness.study.report import render_study
from harness.study.run import run_study
from harness.study.sample import Sample
from harness.study.store import Study
from harness.study.summary import summarise
from harness.workspace import Workspace
from pipeline import io
from pipeline.diasource.reliability import model
from pipeline.psfphot import flux_noise
from pipeline.schema import to_numpy

DESIGN = StudyDesign(sources=40, realisations=2, negative=0.1, hosted=0.2, snr=(3.0, 60.0))


def digest(root: Path) -> dict[str, str]:
    aside = {"studies", ".lock"}
    files = sorted(p for p in root.rglob("*") if p.is_file() and not aside & {*p.parts})
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="session")
def study(space: Workspace) -> Study:
    before = digest(space.root)
    result = run_study(space.root, DESIGN, quiet=True)
    assert digest(space.root) == before, "a study changed the campaign"
    return result


def test_every_injection_has_one_outcome(study: Study) -> None:
    rows = study.rows()
    assert rows.num_rows == 40 * 2 * 2
    assert len(set(rows["injectionId"].to_pylist())) == rows.num_rows
    outcome = np.array(rows["outcome"].to_pylist())
    assert set(outcome) <= {"alerted", "detected", "lost", "masked", "not_placed"}
    detected, placed = to_numpy(rows, "detected"), to_numpy(rows, "placed")
    np.testing.assert_array_equal(np.isin(outcome, ["alerted", "detected"]), detected)
    assert np.isin(outcome[~placed], ["masked", "not_placed"]).all()
    assert not np.isin(outcome[placed], ["not_placed"]).any()
    lost = rows.filter(outcome == "lost")
    assert lost.num_rows > 5
    assert all(lost["rule"].to_pylist())
    assert all(b is not None for b in lost["bound"].to_pylist())


def test_sources_on_a_mask_are_not_lost(study: Study) -> None:
    rows = study.rows()
    x = to_numpy(rows, "x")
    on_column = (x > 299) & (x < 302)
    outcomes = set(np.array(rows["outcome"].to_pylist())[on_column])
    assert outcomes <= {"masked", "not_placed"}
    assert (np.array(rows["outcome"].to_pylist()) == "masked").any()


def test_bright_ones_are_found_with_their_flux(study: Study) -> None:
    rows = study.rows()
    bright = to_numpy(rows, "placed") & (np.abs(to_numpy(rows, "trueSnr")) > 8)
    assert to_numpy(rows, "detected")[bright].mean() > 0.97
    found = bright & to_numpy(rows, "detected")
    pull = ((to_numpy(rows, "psfFlux") - to_numpy(rows, "flux")) / to_numpy(rows, "psfFluxErr"))[
        found
    ]
    n = len(pull)
    assert abs(np.median(pull)) < 4 * 1.25 / np.sqrt(n)
    assert np.std(pull) == pytest.approx(1.0, abs=4 / np.sqrt(2 * n))
    np.testing.assert_array_equal(
        np.sign(to_numpy(rows, "psfFlux")[found]), np.sign(to_numpy(rows, "trueSnr")[found])
    )


def test_true_snr_is_the_score_without_its_noise(space: Workspace, study: Study) -> None:
    rows = study.rows()
    found = to_numpy(rows, "detected") & (np.abs(to_numpy(rows, "trueSnr")) > 15)
    found &= to_numpy(rows, "flux") > 0
    ratio = (to_numpy(rows, "snr") / to_numpy(rows, "trueSnr"))[found]
    assert np.median(ratio) == pytest.approx(0.985, abs=0.03)  # the peak is off the centre
    difference = io.read_difference(space.difference(1, 2))
    x, y = np.array([100.0]), np.array([120.0])
    psf = difference.exposure.psf
    assert psf is not None
    stamp = psf.at(100.0, 120.0)
    level = np.median(difference.null_variance[110:131, 90:111])
    assert flux_noise(psf, difference.null_variance, x, y)[0] == pytest.approx(
        np.sqrt(level / (stamp**2).sum()), rel=0.05
    )


def test_tables_are_in_duckdb(study: Study) -> None:
    connection = connect(study.folder / "study.duckdb", read_only=True)
    counts = dict(
        connection.execute(
            "select outcome, count(*) from injection join injection_outcome "
            "using (studyId, injectionId) group by 1"
        ).fetchall()
    )
    connection.close()
    assert sum(counts.values()) == 160


def test_the_same_study_is_the_same(space: Workspace, study: Study, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(space.root, copy, ignore=shutil.ignore_patterns("studies"))
    again = run_study(copy, DESIGN, quiet=True)
    assert again.folder.name == study.folder.name
    for name in ("injection", "injection_outcome", "recovery", "detection"):
        assert again.table(name).equals(study.table(name))


def test_another_classifier_makes_another_study(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(*overrides: str) -> str:
        settings = Settings.load(space.config, overrides)
        return study_run._Plan(space, DESIGN, settings, "local", {}, {}).key

    unclassified = key("diasource.classify=false")
    before, other = key(), replace(model(), curve=np.array([1.0, 0.5]))
    monkeypatch.setattr(study_run, "classifier", lambda: other)
    assert len({before, key(), unclassified}) == 3
    assert key("diasource.classify=false") == unclassified


def test_a_killed_study_goes_on(
    space: Workspace, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(space.root, copy, ignore=shutil.ignore_patterns("studies"))
    done: list[str] = []
    perform = Painting.perform

    def killed(self: Painting, attempt: int = 1) -> PaintingResult:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(self.name)
        return perform(self, attempt)

    monkeypatch.setattr(Painting, "perform", killed)
    with pytest.raises(KeyboardInterrupt):
        run_study(copy, DESIGN, quiet=True)
    (folder,) = (copy / "studies").iterdir()
    assert not (folder / "study.json").exists()
    (folder / ".injection.parquet.1.part").write_bytes(b"half")
    monkeypatch.setattr(Painting, "perform", perform)
    again = run_study(copy, DESIGN, quiet=True)
    assert not list(folder.rglob("*.part"))
    assert again.rows().equals(study.rows())


def test_the_local_engine_agrees(space: Workspace) -> None:
    """With few sources, which do not move the kernel and the background of the image."""
    design = DESIGN.model_copy(update={"sources": 8})
    engines: tuple[Engine, ...] = ("frame", "local")
    frame, local = (run_study(space.root, design, engine=e, quiet=True) for e in engines)
    assert local.folder != frame.folder
    a, b = frame.rows(), local.rows()
    for name in ("x", "y", "flux", "trueSnr", "kind", "placed"):
        assert a[name].equals(b[name])
    outcome = [np.array(rows["outcome"].to_pylist()) for rows in (a, b)]
    assert np.mean(outcome[0] == outcome[1]) > 0.96
    both = to_numpy(a, "detected") & to_numpy(b, "detected")
    flux = [to_numpy(rows, "psfFlux")[both] for rows in (a, b)]
    assert abs(np.median(flux[1] / flux[0] - 1)) < 0.003


def test_what_is_kept_of_an_image_changes_nothing(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second realisation rests on what the first one read and solved."""

    class Forgetful(dict):  # type: ignore[type-arg]
        def get(self, key: object, default: object = None) -> object:
            return default

    design, one = DESIGN.model_copy(update={"sources": 12}), Selection(visits=frozenset({1}))
    kept = run_study(space.root, design, engine="local", selection=one, name="kept", quiet=True)
    monkeypatch.setattr(study_engine, "_kept", Forgetful())
    anew = run_study(space.root, design, engine="local", selection=one, name="anew", quiet=True)
    for name in ("recovery", "detection", "painting"):
        assert kept.table(name).equals(anew.table(name)), name


@pytest.mark.parametrize("negative", [0, 1])
def test_the_curve_of_white_noise_is_the_ideal_one(space: Workspace, negative: int) -> None:
    """Detection, not only its formula: χ² of the counts over bins of true SNR."""
    design = StudyDesign(sources=60, realisations=6, seed=11, near_threshold=0.7,
                         hosted=0, negative=negative, near_bright=0)  # fmt: skip
    rows = Sample(run_study(space.root, design, engine="local", quiet=True).rows())
    points = rows.where(rows.placed()) if negative else rows.points()
    found, ideal = points.flags("detected"), points.numbers("idealFraction")
    number = np.digitize(points.snr, [4.0, 4.5, 5.0, 5.5, 6.0, 7.0])
    seen, meant, variance = (
        np.bincount(number, values) for values in (found, ideal, ideal * (1 - ideal))
    )
    assert len(points) > 500
    assert chi2.sf(np.sum((seen - meant) ** 2 / (variance + 0.1)), len(seen)) > 0.01
    middle, error = fit(points.snr, found).at(0.5)
    assert abs(middle - (4.96 if negative else 4.85)) < 0.10 + 2 * error


def test_the_score_of_what_has_gone_is_that_of_noise_with_its_photons(space: Workspace) -> None:
    """Signal over noise of a source of the template: its photons are expected on both images."""
    design = StudyDesign(sources=60, realisations=2, seed=5, snr=(15, 50), hosted=0, negative=0.5,
                         near_bright=0)  # fmt: skip
    rows = run_study(space.root, design, engine="local", quiet=True).rows()
    gone = np.array(rows["kind"].to_pylist()) == "template_only"
    found = to_numpy(rows, "detected")
    ratio = np.abs(to_numpy(rows, "snr") / to_numpy(rows, "trueSnr"))
    snr = np.abs(to_numpy(rows, "trueSnr"))
    # a Gaussian in the sky of conftest: Σ P³ / Σ P² = 1 / (3 π σ²)
    psf_sigma, sky, inputs = 1.8, 400.0, 8
    noise = sky * (1 + 1 / inputs)
    flux = snr * np.sqrt(4 * np.pi * psf_sigma**2 * noise)
    expected = 1 / np.sqrt(1 + flux / noise / (3 * np.pi * psf_sigma**2))
    few, new = gone & found & (snr < 30), ~gone & found
    assert np.median(ratio[new]) == pytest.approx(1.0, abs=0.03)
    assert np.median((ratio / expected)[few]) == pytest.approx(1.0, abs=0.05)
    assert np.median(ratio[few]) < 0.95


def test_a_name_belongs_to_one_study(space: Workspace, study: Study) -> None:
    run_study(space.root, DESIGN.model_copy(update={"realisations": 1}), name="mine", quiet=True)
    command = ["study", str(space.root), "--sources", "10", "--name", "mine", "-q"]
    assert execute(command) == 2
    assert execute([*command, "--replace"]) == 0
    replaced = Study.open(space.root / "studies" / "mine")
    assert replaced.rows().num_rows == 20
    assert len(list((replaced.folder / "units" / "recovery").iterdir())) == 2


def test_command(space: Workspace, study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["study", str(space.root), "--sources", "40", "--realisations", "2",
               "--negative", "0.1", "--hosted", "0.2", "--snr", "3:60", "--json"]  # fmt: skip
    assert execute(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["studyId"] == study.folder.name
    assert document["n"] == sum(document["outcomes"].values()) == 160


def test_answers(study: Study, space: Workspace) -> None:
    numbers = study.summary
    assert set(numbers["snr50"]) == {"value", "lo", "hi", "ideal"}
    assert numbers["n"] == sum(numbers["outcomes"].values())
    assert numbers["n"] == numbers["outcomes"]["alerted"] + sum(r["n"] for r in numbers["lost"])
    assert numbers["snr50"]["ideal"] == pytest.approx(4.85, abs=0.15)
    page = (study.folder / "report.html").read_text()
    assert page.count("<svg") >= 3
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "")
    area = sum(study.table("painting")["area"].to_pylist())
    assert area == pytest.approx(4 * 420**2 * (0.2626 / 3600) ** 2, rel=0.1)


def test_a_study_that_tells_nothing_has_a_page(study: Study) -> None:
    nothing = study.rows().slice(0, 0)
    nothings = (study.table(name).slice(0, 0) for name in ("detection", "painting"))
    numbers = summarise(nothing, *nothings, "nothing")
    assert numbers["ratioToIdeal"][0]["detected"]["value"] is None
    assert "<strong>–</strong>" in render_study(study.about, numbers, figures(nothing, numbers))


def test_efficiencies_carry_units(study: Study) -> None:
    from astropy.table import Table

    table = Table.read(study.folder / "efficiency.ecsv", format="ascii.ecsv")
    assert table["mag"].unit == "mag"
    assert table["n"].sum() <= 160
    filled = table[table["n"] > 0]
    assert np.all(filled["detectedLow"] <= filled["detected"])
    assert np.all(filled["detected"] <= filled["detectedHigh"])
    parquet = io.read_parquet(study.folder / "efficiency.parquet")
    assert parquet.column_names == table.colnames
