"""HiTS 2015 as it is published: found, verified, listed, and processed like what was simulated."""

from __future__ import annotations

import csv
import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.catalog import Catalog
from harness.cli.main import execute
from harness.ingest import published
from harness.ingest.hits import ingest_hits
from harness.ingest.layout import survey
from harness.settings import Settings
from harness.workspace import Workspace
from pipeline import io
from pipeline.camera import Camera
from pipeline.htm import trixel
from pipeline.sphere import unit_vectors
from sims.layout import write_hits2015
from sims.schedule import hits2015

TEMPLATES = (410985, 411035, 411069)
RAW = "raw/c4d_150218_0706*"  # of visit 411420
ARCHIVE_NAME = "c4d_150218_070619_ori.fits.fz"  # a simulation rounds the times of readout
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 402796800\n"


@pytest.fixture(scope="module")
def folder(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy of HiTS with the two small detectors of `tiny`."""
    target = tmp_path_factory.mktemp("hits") / "hits2015"
    write_hits2015(simulated, "tiny", target)
    return target


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "hits2015"))


def ingest(folder: Path, root: Path, *more: str) -> int:
    camera = str(folder / "camera" / "testcam.toml")
    if not root.exists():
        assert execute(["init", str(root), "--camera", camera]) == 0
    arguments = ["--hits2015", str(folder), "--camera", camera, "--unverified", *more]
    return execute(["ingest", str(root), *arguments])


def templates() -> list[str]:
    return [word for visit in TEMPLATES for word in ("--template", str(visit))]


def test_frames_get_the_calibrations_of_the_nearest_night(folder: Path, tmp_path: Path) -> None:
    assert ingest(folder, tmp_path / "w", *templates()) == 0
    space = Workspace(tmp_path / "w")
    frames = io.read_parquet(space.frames).to_pylist()

    assert len(frames) == 14
    nights = {
        f["visit"]: [re.findall(r"_calib_(\d{8})", f[k])[0] for k in ("bias", "flat")]
        for f in frames
    }
    assert nights.pop(419802) == ["20150313"] * 2
    assert set(map(tuple, nights.values())) == {("20150217", "20150217")}
    roles = {v["visit"]: v["role"] for v in io.read_parquet(space.exposures).to_pylist()}
    assert {v for v, role in roles.items() if role == "template"} == set(TEMPLATES)
    assert set(roles.values()) == {"template", "science"}


def test_calibrations_stars_and_defects_are_those_of_the_simulation(
    folder: Path, simulated: Path, tmp_path: Path
) -> None:
    assert ingest(folder, tmp_path / "w") == 0
    space, native = Workspace(tmp_path / "w"), Workspace(simulated)
    settings = Settings.load(space.config)
    camera = Camera.load(space.camera(settings.campaign.camera))
    frame = io.read_parquet(space.frames).to_pylist()[0]

    for number in (1, 2):
        bias = io.read_bias(frame["bias"], camera, number)
        assert np.array_equal(bias, io.read_bias(native.bias(number), camera, number))
        flat = io.read_flat(frame["flat"], camera, number)
        expected = io.read_flat(native.flat("g", number), camera, number)
        assert np.allclose(flat, expected, rtol=0, atol=1e-6)
        own = Camera.load(native.camera("testcam")).detector(number)
        assert set(camera.detector(number).defects) == set(own.defects)
    assert settings.calibrate.photometric_system == "ps1-decam"
    stars, known = (io.read_parquet(s.refcat).sort_by("objectId") for s in (space, native))
    assert stars["objectId"].equals(known["objectId"])
    for name, step in (("ra", 1e-12), ("dec", 1e-12), ("pmRa", 1e-3), ("raErr", 1e-4)):
        assert np.allclose(stars[name].to_numpy(), known[name].to_numpy(), rtol=0, atol=step)
    g, r, own = (-2.5 * np.log10(c.to_numpy().astype(float)) for c in (
        stars["gFlux"], stars["rFlux"], known["gFlux"],
    ))  # fmt: skip
    term = camera.passbands.colour_terms["ps1-decam"]["g"]
    assert np.allclose(g + term.c0 + term.c1 * (g - r) + term.c2 * (g - r) ** 2, own, atol=1e-5)
    assert np.abs(g - own).max() > 0.02


def test_a_flat_in_electrons_is_left_as_it_is(folder: Path) -> None:
    camera = Camera.load(folder / "camera" / "testcam.toml")
    path = next(folder.rglob("cpFlat*.fits"))
    flat = io.read_flat(path, camera, 1)
    with io.open_fits(path) as hdus:
        hdu = next(h for h in hdus if h.header.get("CCDNUM") == 1)
        hdu.data = flat * np.float32(3.0)
        hdus.writeto(path.parent / "electrons.fits")
    assert np.allclose(io.read_flat(path.parent / "electrons.fits", camera, 1), flat, atol=1e-6)
    (path.parent / "electrons.fits").unlink()


def test_files_that_were_not_fetched_are_explained(copy: Path, tmp_path: Path) -> None:
    next((copy / "raw").glob("c4d_150218_0706*")).unlink()
    (copy / "raw" / "c4d_150218_070619_ori.fits.fz").write_bytes(POINTER)
    assert execute(["init", str(tmp_path / "w"), "--camera", "decam"]) == 0
    camera = str(copy / "camera" / "testcam.toml")
    result = ingest_hits(Workspace(tmp_path / "w"), copy, camera=camera, unverified=True)

    assert not result.problems
    assert (
        f"1 files are Git LFS pointers, not the files themselves: run `git lfs pull` in {copy}"
        in (result.notes)
    )
    states = Counter(unit["state"] for unit in result.units)
    assert states == {"absent": 77 * 59, "pointer": 59, "lost": 6 * 59}
    with (tmp_path / "w" / "raw" / "ldm533.csv").open(newline="") as stream:
        assert Counter(row["state"] for row in csv.DictReader(stream)) == states


def publish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Have the files of a folder count as published; return their SHA-256 by name."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    copies = {name: [("sha256", digest, "here")] for name, digest in digests.items()}
    monkeypatch.setattr(published, "_copies", lambda: copies)
    return digests


def registered(root: Path) -> dict[tuple[int, int], str | None]:
    rows = io.read_parquet(root / "raw" / "frames.parquet").to_pylist()
    return {(row["visit"], row["detector"]): row["problem"] for row in rows}


def test_files_that_are_not_the_published_ones_cost_their_units(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = publish(copy, monkeypatch)
    camera, space = str(copy / "camera" / "testcam.toml"), Workspace(tmp_path / "w")
    assert execute(["init", str(space.root), "--camera", "decam"]) == 0
    good = ingest_hits(space, copy, camera=camera, dry_run=True)
    raw = next(copy.glob(RAW))
    bias = next(copy.rglob("cpBias*20150313*.fits"))
    for path in (raw, bias):
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
    bad = ingest_hits(space, copy, camera=camera)

    assert good.problems == good.faults == []
    assert "15 files are those of here" in good.notes
    assert bad.problems == []
    assert len(bad.faults) == 2
    for path, fault in zip((raw, bias), sorted(bad.faults, key=str.__len__), strict=True):
        assert fault.startswith(f"{path}: is not the published file: its sha256 is ")
        assert fault.endswith(f"expected sha256 {digests[path.name]} (here) "
                              "(fetch it again, or give --unverified)")  # fmt: skip
    found = registered(space.root)
    assert len(found) == 14
    assert {unit[0] for unit, problem in found.items() if problem} == {411420, 419802}
    again = ingest_hits(space, copy, camera=camera, unverified=True)
    assert again.faults == []
    assert set(registered(space.root).values()) == {None}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def _page(path: Path) -> None:
    path.write_bytes(b"<!DOCTYPE html><html><body>404</body></html>")


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


DAMAGED = {  # the file, and the units that need it
    RAW: {(411420, 1), (411420, 2)},
    "preloaded/DECam/calib/curated/20150105T000000Z/defects/*": "a detector",
    "preloaded/refcats/DM-28636/gaia*/*": "all",
}


@pytest.mark.parametrize("damage", [_cut, _page, _emptied])
@pytest.mark.parametrize("which", DAMAGED)
def test_a_file_that_cannot_be_read_costs_its_units_and_the_rest_goes_on(
    copy: Path, tmp_path: Path, which: str, damage: Callable[[Path], None]
) -> None:
    path = min(copy.glob(which))
    if which == RAW:  # what it should hold is known by its name
        path = path.rename(path.with_name(ARCHIVE_NAME))
    damage(path)
    assert ingest(copy, tmp_path / "w", *templates()) == 1
    found = registered(tmp_path / "w")

    assert len(found) == 14
    lost = {unit for unit, problem in found.items() if problem}
    expected = DAMAGED[which]
    if expected == "a detector":
        (detector,) = {unit[1] for unit in lost}
        expected = {unit for unit in found if unit[1] == detector}
    assert lost == (found.keys() if expected == "all" else expected)
    assert all(str(path) in (found[unit] or "") for unit in lost)
    with (tmp_path / "w" / "raw" / "ldm533.csv").open(newline="") as stream:
        states = {(int(r["visit"]), int(r["detector"])): r["state"] for r in csv.DictReader(stream)}
    assert all(states[u] == "damaged" for u in lost if u in states)


def test_a_damaged_copy_beside_a_good_one_costs_nothing(copy: Path, tmp_path: Path) -> None:
    (copy / "again").mkdir()
    _page(copy / "again" / ARCHIVE_NAME)
    (copy / "again" / "c4d_159918_070619_zci.fits.fz").write_bytes(b"")
    assert ingest(copy, tmp_path / "w") == 1
    assert set(registered(tmp_path / "w").values()) == {None}


@pytest.mark.slow
def test_what_needs_a_damaged_file_fails_with_it_when_run(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(copy, monkeypatch)
    bias = next(copy.rglob("cpBias*20150313*.fits"))
    bias.write_bytes(bias.read_bytes()[:-1] + b"\1")
    camera, root = str(copy / "camera" / "testcam.toml"), tmp_path / "w"
    assert execute(["init", str(root), "--camera", camera]) == 0
    assert execute(["ingest", str(root), "--hits2015", str(copy), "--camera", camera]) == 1
    chosen = ["--visit", "411420", "--visit", "419802", "--detector", "1"]
    assert execute(["run", str(root), "-q", "-j", "1", *chosen]) == 1
    with Catalog(root / "catalog.duckdb", read_only=True) as catalog:
        rows = catalog.fetch("SELECT visit, status, cause, message FROM unit WHERE stage = 'isr'")
    assert [visit for visit, status, *_ in rows if status == "done"] == [411420]
    ((visit, cause, message),) = [(v, c, m) for v, status, c, m in rows if status == "failed"]
    assert (visit, cause) == (419802, "BAD_INPUT")
    assert message.startswith(f"{bias}: is not the published file")


def test_a_template_visit_that_is_not_there_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ingest(folder, tmp_path / "w", "--template", "410915") == 2
    assert "template visit 410915 is not there: give one of 410985" in capsys.readouterr().err


def test_a_folder_without_hits_and_a_command_without_files_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["init", str(tmp_path / "w")]) == 0
    assert execute(["ingest", str(tmp_path / "w"), "--hits2015", str(tmp_path)]) == 2
    assert "holds no raw exposure" in capsys.readouterr().err
    assert execute(["ingest", str(tmp_path / "w")]) == 2
    assert "give FILES or --hits2015 DIR" in capsys.readouterr().err


def test_the_units_are_those_of_ldm_533() -> None:
    units = published.ldm533()

    assert len(set(units)) == 84 * 59
    assert Counter(u.field for u in units) == dict.fromkeys(
        ("Blind15A_26", "Blind15A_40", "Blind15A_42"), 28 * 59
    )
    scheduled = {v.number for f in {u.field for u in units} for v in hits2015(f, "g")}
    assert {u.visit for u in units} == scheduled
    assert {u.detector for u in units} == {*range(3, 61), 62}


def test_names_of_published_files_are_understood(tmp_path: Path) -> None:
    with (Path(published.__file__).parent / "data" / "decam_lfs_manifest.csv").open() as stream:
        rows = [r for r in csv.DictReader(stream) if "ap_verify" in r["repo"]]
    for row in rows:
        path = tmp_path / row["repo"] / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    layout = survey(tmp_path)

    assert len(layout.raw) == 87
    assert len(layout.bias) == 9
    assert {band for band, _ in layout.flats} == {"g"}
    assert len(layout.flats) == 9
    assert len(layout.coadds) == 10 + 146
    assert [len(s) for s in (*layout.positions.values(), *layout.fluxes.values())] == [157, 157]


def test_shards_of_the_fields_are_those_that_were_published() -> None:
    with (Path(published.__file__).parent / "data" / "decam_lfs_manifest.csv").open() as stream:
        names = stream.read()
    known = set(map(int, re.findall(r"ps1_pv3_3pi_20170110_(\d+)_refcats", names)))
    visits = [v for f in ("Blind15A_26", "Blind15A_40", "Blind15A_42") for v in hits2015(f, "g")]
    rng = np.random.default_rng(5)
    ra, dec = (np.array([getattr(v, n) for v in visits]) for n in ("ra", "dec"))
    east, north = rng.uniform(-0.7, 0.7, (2, 50, 1))
    found = trixel(unit_vectors((ra + east).ravel(), (dec + north).ravel()), 7)

    assert len(known) == 157
    assert set(found.tolist()) <= known


@pytest.mark.slow
def test_the_campaign_is_that_of_the_simulated_workspace(
    folder: Path, campaign: Path, tmp_path: Path
) -> None:
    assert ingest(folder, tmp_path / "w", *templates()) == 0
    assert execute(["run", str(tmp_path / "w"), "-q", "-j", "1", "--detector", "1"]) == 0
    space, native = Workspace(tmp_path / "w"), Workspace(campaign)

    for visit in (*TEMPLATES, 411420, 411772, 412568, 419802):
        ours, theirs = (io.read_exposure(s.visit_image(visit, 1)) for s in (space, native))
        assert (ours.mask != theirs.mask).sum() <= 2
        assert ours.photo_calib is not None
        assert theirs.photo_calib is not None
        a, b = (e.image / e.photo_calib.njy_per_electron for e in (ours, theirs))
        noise = np.sqrt(np.nanmedian(theirs.variance)) / theirs.photo_calib.njy_per_electron
        assert np.nanmax(np.abs(a - b)[ours.mask == 0]) < 0.1 * noise  # steps of a sixteenth
        difference = ours.photo_calib.zero_point - theirs.photo_calib.zero_point
        assert abs(difference) < 2.0 * theirs.photo_calib.zero_point_err  # other standards
    with Catalog(space.catalog, read_only=True) as catalog:
        found = catalog.value("SELECT count(*) FROM DiaSource WHERE detector = 1")
    with Catalog(native.catalog, read_only=True) as catalog:
        expected = catalog.value("SELECT count(*) FROM DiaSource WHERE detector = 1")
    assert abs(found - expected) <= 0.03 * expected
