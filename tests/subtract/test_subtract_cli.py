"""``nightjar subtract`` and ``nightjar rerun`` on files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from harness.cli.main import execute
from pipeline import io
from tests.subtract.conftest import draw

SIZE = 320


def header(shift: float = 0.0, ra: float = 150.0) -> fits.Header:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, 2.0]
    wcs.wcs.crpix = [SIZE / 2 + shift, SIZE / 2]
    wcs.wcs.cdelt = [-0.263 / 3600, 0.263 / 3600]
    cards = wcs.to_header()
    cards["GAIN"], cards["SATURATE"] = 4.0, 60000.0
    return cards


Write = Callable[..., dict[str, Path]]


@pytest.fixture
def write(tmp_path, make_scene) -> Write:
    """Write a pair, its planes in files of their own."""

    def pair(**scene) -> dict[str, Path]:
        made = make_scene(
            **{"shape": (SIZE, SIZE), "stars": 60, "transients": 6, "noise": (10.0, 5.0), **scene}
        )
        files = {}
        for name, e in (("science", made.science), ("template", made.template)):
            for kind, plane in (("", e.image), ("_var", e.variance), ("_mask", e.mask)):
                data = plane if plane.dtype.kind == "f" else plane.astype(np.int16)
                files[name + kind] = tmp_path / f"{name}{kind}.fits"
                fits.writeto(files[name + kind], data, header(), overwrite=True)
        return files

    return pair


def arguments(files: dict[str, Path], *more: str) -> list[str]:
    planes = [
        f"--{name}-{word}={files[f'{name}_{kind}']}"
        for name in ("science", "template")
        for word, kind in (("variance", "var"), ("mask", "mask"))
    ]
    out = files["science"].parent / "out"
    return ["subtract", str(files["science"]), str(files["template"]), "-o", str(out), *planes,
            *more]  # fmt: skip


def edit(path: Path, change: Callable[[np.ndarray], None]) -> None:
    with fits.open(path, mode="update") as hdus:
        change(hdus[0].data)


class TestFiles:
    def test_separate_planes(self, write, capsys):
        files = write()
        assert execute(arguments(files, "--psf-grid")) == 0
        text = capsys.readouterr().out
        out = files["science"].parent / "out"
        with fits.open(out / "difference.fits") as hdus:
            names = {hdu.name for hdu in hdus}
        assert {"IMAGE", "VARIANCE", "MASK", "SCORE", "PSF", "KERNEL"} <= names
        found = pq.read_table(out / "detections.parquet")
        assert len(found) >= 5
        assert "template    " in text
        assert len(text.splitlines()) < 25
        with fits.open(out / "psf_grid.fits") as hdus:
            assert hdus[0].data.sum((2, 3)) == pytest.approx(1.0)

    @pytest.mark.parametrize("number", [-32, 1e300])
    def test_number_that_no_identifier_holds_is_none(self, write, tmp_path, number):
        files = write()
        with fits.open(files["science"], mode="update") as hdus:
            hdus[0].header["VISIT"] = number
            hdus[0].header["CCDNUM"] = number
        assert execute(arguments(files)) == 0
        product = io.read_difference(tmp_path / "out" / "difference.fits")
        assert (product.exposure.info.visit, product.exposure.info.detector) == (0, 0)

    def test_without_detection(self, write, capsys):
        files = write()
        assert execute(arguments(files, "--no-detect")) == 0
        out = files["science"].parent / "out"
        assert [p.name for p in out.iterdir()] == ["difference.fits"]
        assert "detections  not looked for" in capsys.readouterr().out

    def test_one_file_with_extensions_gives_the_same_pixels(self, write, tmp_path, capsys):
        files = write()
        assert execute(arguments(files)) == 0
        first = io.read_difference(tmp_path / "out" / "difference.fits")
        for name in ("science", "template"):
            planes = [fits.getdata(files[name + kind]) for kind in ("", "_var", "_mask")]
            hdus = [
                fits.ImageHDU(p, header(), name=n)
                for p, n in zip(planes, ("SCI", "VAR", "DQ"), strict=True)
            ]
            fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / f"{name}_mef.fits")
        command = ["subtract", str(tmp_path / "science_mef.fits"),
                   str(tmp_path / "template_mef.fits"), "-o", str(tmp_path / "mef")]  # fmt: skip
        assert execute(command) == 0
        second = io.read_difference(tmp_path / "mef" / "difference.fits")
        assert np.array_equal(first.exposure.image, second.exposure.image, equal_nan=True)

    def test_what_is_missing_is_estimated_and_said(self, write, tmp_path, capsys):
        files = write(transients=0)
        command = ["subtract", str(files["science"]), str(files["template"]),
                   "-o", str(tmp_path / "out"), "--json"]  # fmt: skip
        assert execute(command) == 0
        document = json.loads(capsys.readouterr().out)
        notes = " ".join(document["notes"])
        assert "no variance" in notes
        assert "no mask" in notes
        assert "PSF of order" in notes
        assert document["metrics"]["pixelStd"] == pytest.approx(1.0, abs=0.1)

    def test_padding_is_no_measure_of_noise(self, write, tmp_path, capsys):
        files = write(transients=0)
        for name in ("science", "template"):
            edit(files[name], lambda data: data.__setitem__(np.s_[:128, :128], 0.0))
        command = ["subtract", str(files["science"]), str(files["template"]),
                   "-o", str(tmp_path / "out"), "--json"]  # fmt: skip
        assert execute(command) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["metrics"]["pixelStd"] == pytest.approx(1.0, abs=0.1)

    def test_a_crowded_field_is_not_taken_for_noise(self, write, tmp_path, capsys):
        files = write(transients=0)
        rng = np.random.default_rng(5)
        x, y = rng.uniform(0, SIZE, (2, 8000))
        flux = 10 ** rng.uniform(2.3, 3.3, 8000)
        for name, scale, sigma in (("science", 0.8, 2.0), ("template", 1.0, 1.6)):
            faint = draw((SIZE, SIZE), x, y, scale * flux, sigma)
            faint += rng.normal(size=faint.shape) * np.sqrt(faint * (1.0 if sigma > 1.8 else 0.2))
            image = fits.getdata(files[name]) + faint
            cards = header()
            cards["GAIN"] = 1.0 if name == "science" else 5.0
            fits.writeto(files[name], image.astype(np.float32), cards, overwrite=True)
        command = ["subtract", str(files["science"]), str(files["template"]),
                   "-o", str(tmp_path / "out"), "--json"]  # fmt: skip
        assert execute(command) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["metrics"]["pixelStd"] == pytest.approx(1.0, abs=0.06)
        assert document["metrics"]["scoreStd"] == pytest.approx(1.0, abs=0.15)
        assert sum("estimated sky noise corrected" in note for note in document["notes"]) <= 1
        assert execute(["rerun", str(tmp_path / "out" / "difference.fits")]) == 0
        assert "identical" in capsys.readouterr().out

    def test_template_is_resampled_where_coordinates_ask_for_it(self, write, tmp_path, capsys):
        files = write(transients=0)
        fits.writeto(files["template"], np.roll(fits.getdata(files["template"]), 3, 1),
                     header(3.0), overwrite=True)  # fmt: skip
        assert execute(arguments(files, "--json")) == 0
        document = json.loads(capsys.readouterr().out)
        assert any("resampled" in note for note in document["notes"])
        assert document["metrics"]["starChi2Mean"] < 1.5


class TestDetections:
    def test_fluxes_and_their_errors_know_no_sky(self, write, tmp_path, capsys):
        """A star's residual is a share of its light, of which the sky is none."""
        files, found = write(), []
        for sky in (0.0, 2000.0):
            for name in ("science", "template"):
                edit(files[name], lambda data, sky=sky: data.__iadd__(np.float32(sky)))
            assert execute(arguments(files)) == 0
            found.append(pq.read_table(tmp_path / "out" / "detections.parquet").to_pydict())
        dark, bright = (
            {
                k: np.array(t[k])[:6]
                for k in ("x", "psfFlux", "psfFluxErr", "templateFlux", "scienceFlux")
            }
            for t in found
        )
        assert bright["psfFluxErr"] == pytest.approx(dark["psfFluxErr"], rel=0.02)
        for name in ("templateFlux", "scienceFlux"):
            assert bright[name] == pytest.approx(dark[name], abs=150.0)  # one error
        assert np.abs(dark["templateFlux"]) == pytest.approx(0.0, abs=200.0)

    def test_satellite_is_flagged_masked_and_said(self, write, tmp_path, capsys):
        files = write(transients=0)
        rows, columns = np.mgrid[:SIZE, :SIZE]
        across = (rows - 60.0 - 0.6 * columns) / np.hypot(1.0, 0.6)
        trail = 15.0 * np.exp(-0.5 * (across / 2.2) ** 2)
        edit(files["science"], lambda data: data.__iadd__(trail.astype(np.float32)))
        assert execute(arguments(files, "--json")) == 0
        notes = json.loads(capsys.readouterr().out)["notes"]
        found = pq.read_table(tmp_path / "out" / "detections.parquet").to_pydict()
        pieces = [s and not below for s, below in
                  zip(found["isStreak"], found["isSubThreshold"], strict=True)]  # fmt: skip
        assert f"satellite trail: {sum(pieces)} detections on it, isStreak" in notes
        assert all(s or b for s, b in zip(pieces, found["isSubThreshold"], strict=True))
        product = tmp_path / "out" / "difference.fits"
        made = io.read_difference(product).exposure
        inside = np.s_[20:-20, 20:-20]
        assert made.has("STREAK")[inside][np.abs(across[inside]) < 1.0].mean() > 0.9
        assert execute(["rerun", str(product)]) == 0
        assert "identical" in capsys.readouterr().out


class TestAlgorithm:
    def test_zogy_finds_the_transients_and_is_made_again(self, write, tmp_path, capsys):
        files = write(shape=(640, 640))  # stars far enough apart for a good PSF
        found = {}
        for name in ("alard_lupton", "zogy"):
            assert execute(arguments(files, "--set", f"subtract.algorithm={name}", "--json")) == 0
            document = json.loads(capsys.readouterr().out)
            assert document["metrics"]["pixelStd"] == pytest.approx(1.0, abs=0.05)
            found[name] = document["detections"]["positive"]
        # Errors of the measured PSFs stay at bright stars: zogy finds those as well.
        assert found["zogy"] >= found["alard_lupton"] >= 5
        assert execute(["rerun", str(tmp_path / "out" / "difference.fits")]) == 0
        assert "identical" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("subtract.algorithm=hotpants", "only alard_lupton, zogy"),
            ("subtract.kernel_hafl=3", "did you mean subtract.kernel_half?"),
            ("diasource.threshold=3", "expected subtract.KEY=VALUE"),
        ],
    )
    def test_what_is_unknown_is_refused_in_one_line(self, write, capsys, value, message):
        assert execute(arguments(write(), "--set", value)) == 2
        err = capsys.readouterr().err.strip()
        assert message in err
        assert len(err.splitlines()) == 1


class TestRerun:
    def test_bit_for_bit(self, write, tmp_path, capsys):
        assert execute(arguments(write())) == 0
        product = tmp_path / "out" / "difference.fits"
        assert execute(["rerun", str(product)]) == 0
        assert "identical" in capsys.readouterr().out

    @pytest.mark.parametrize("which", ["science", "template_var"])
    def test_a_changed_input_is_named(self, write, tmp_path, capsys, which):
        files = write()
        assert execute(arguments(files)) == 0
        edit(files[which], lambda data: data.__setitem__((100, 100), data[100, 100] + 1))
        assert execute(["rerun", str(tmp_path / "out" / "difference.fits")]) == 2
        assert files[which].name in capsys.readouterr().err

    def test_an_edited_product_is_noticed(self, write, tmp_path, capsys):
        assert execute(arguments(write())) == 0
        product = tmp_path / "out" / "difference.fits"
        with fits.open(product, mode="update") as hdus:
            hdus["IMAGE"].data[50, 60] += 1
        assert execute(["rerun", str(product)]) == 1
        assert "IMAGE" in capsys.readouterr().out

    def test_edited_provenance_is_noticed(self, write, tmp_path, capsys):
        assert execute(arguments(write())) == 0
        product = tmp_path / "out" / "difference.fits"
        with fits.open(product, mode="update") as hdus:
            hdus[0].header["TMPLHASH"] = "0" * 64
        assert execute(["rerun", str(product)]) == 1
        assert "TMPLHASH" in capsys.readouterr().out


class TestBadInput:
    def test_different_shapes_without_coordinates(self, write, capsys):
        files = write()
        for kind in ("template", "template_var", "template_mask"):
            fits.writeto(files[kind], fits.getdata(files[kind])[:300], overwrite=True)
        assert execute(arguments(files)) == 2
        assert "different shapes" in capsys.readouterr().err

    def test_no_overlap(self, write, capsys):
        files = write()
        fits.writeto(
            files["template"], fits.getdata(files["template"]), header(ra=151.0), overwrite=True
        )
        assert execute(arguments(files)) == 1
        assert "overlap" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("plane", "value", "message"),
        [
            ("science_mask", 1, "no usable pixels"),
            ("template", 5.0, "constant"),
            ("science", np.nan, "no usable pixels"),
            ("template_var", -1.0, "no usable pixels"),
        ],
    )
    def test_useless_planes(self, write, capsys, plane, value, message):
        files = write()
        edit(files[plane], lambda data: data.fill(value))
        assert execute(arguments(files)) in (1, 2)
        assert message in capsys.readouterr().err
        assert not (files["science"].parent / "out" / "difference.fits").exists()

    def test_some_negative_variances_are_masked_and_said(self, write, capsys):
        files = write()
        edit(files["science_var"], lambda data: data[200:205, 100:105].fill(-1.0))
        assert execute(arguments(files, "--json")) == 0
        document = json.loads(capsys.readouterr().out)
        assert any("25 unmasked pixels" in note for note in document["notes"])

    def test_too_few_stars(self, write, capsys):
        assert execute(arguments(write(stars=0, transients=0))) == 1
        assert capsys.readouterr().err.strip()

    def test_not_a_fits_file(self, write, capsys):
        files = write()
        files["template"].write_text("not FITS")
        assert execute(arguments(files)) == 2
        assert "template.fits" in capsys.readouterr().err


def test_everything_scales_with_the_unit_and_signs_are_counted(write, tmp_path, capsys):
    """A power of two changes no rounding: fluxes scale to the last digit, all else is the same."""
    files, found = write(), {}
    for name, unit in (("one", 1.0), ("small", 2.0**-20)):
        pair = []
        for image in ("science", "template"):
            data = fits.getdata(files[image]).astype(np.float32) * np.float32(unit)
            cards = header()
            cards["GAIN"], cards["SATURATE"] = 4.0 / unit, 60000.0 * unit
            pair.append(tmp_path / f"{image}_{name}.fits")
            fits.writeto(pair[-1], data, cards)
        out = tmp_path / name
        assert execute(["subtract", *map(str, pair), "-o", str(out), "--json"]) == 0
        counts = json.loads(capsys.readouterr().out)["detections"]
        table = pq.read_table(out / "detections.parquet")
        flux = table["psfFlux"].to_numpy() / unit
        found[name] = table["x"].to_numpy(), flux, counts
        kept = ~table["isSubThreshold"].to_numpy()
        signs = table["isNegative"].to_numpy()[kept]
        assert counts == {"positive": int((~signs).sum()), "negative": int(signs.sum())}
    np.testing.assert_array_equal(found["one"][0], found["small"][0])
    np.testing.assert_allclose(found["one"][1], found["small"][1], rtol=1e-6)
