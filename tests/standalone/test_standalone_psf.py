"""Stars of strangers' images: which are stars, how much light they have, what is none."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from harness.standalone import verdict, write_psf_grid
from harness.standalone.estimate import (
    enclosed_flux,
    flattened,
    normalised_psf,
    psf_of,
    saturation_of,
    without_cosmic_rays,
)
from pipeline.calibrate.psfmodel import find_sources
from pipeline.calibrate.stars import sharpest_ridge, star_size
from pipeline.errors import FileFormatError, PsfError
from pipeline.exposure import Exposure, GridPsf, PolynomialPsf, VisitInfo
from pipeline.io.noise import checked_gain
from pipeline.io.planes import Planes, read_planes
from pipeline.io.psfs import read_psf
from pipeline.masks import bits
from pipeline.psfphot import fwhm, hollow

SHAPE = (300, 320)
BETA = 3.3


def moffat(dx, dy, width, beta=BETA):
    """Unit flux over the plane."""
    a2 = (width / 2) ** 2 / (2 ** (1 / beta) - 1)
    return (1 + (dx**2 + dy**2) / a2) ** -beta * (beta - 1) / (np.pi * a2)


def stamp(width, half=20, fine=5):
    """Moffat star integrated over pixels."""
    at = (np.arange((2 * half + 1) * fine) - fine // 2) / fine - half
    fine_stamp = moffat(at[:, None], at, width)
    return fine_stamp.reshape(2 * half + 1, fine, 2 * half + 1, fine).mean((1, 3))


def image_of(stars, width, *, galaxies=(), seed=1, sky=500.0, gain=2.0):
    """Exposure of Moffat stars ``(x, y, flux)`` and wider galaxies ``(x, y, flux, width)``."""
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]]
    light = np.zeros(SHAPE)
    for x, y, flux in stars:
        light += flux * moffat(u - x, v - y, width)
    for x, y, flux, own in galaxies:
        light += flux * moffat(u - x, v - y, own, 2.5)
    image = np.random.default_rng(seed).poisson((light + sky) * gain) / gain
    info = VisitInfo(
        visit=1, detector=1, band="r", exptime=1.0, midpoint_mjd_tai=57000.0, gain=gain
    )
    variance = (light + sky) / gain
    return Exposure(
        image=image.astype(np.float32), variance=variance.astype(np.float32),
        mask=np.zeros(SHAPE, np.uint32), info=info, unit="adu",
    )  # fmt: skip


def places(n, seed, flux):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(15, SHAPE[1] - 15, n), rng.uniform(15, SHAPE[0] - 15, n)
    return np.stack([x, y, 10 ** rng.uniform(*flux, n)], axis=1)


def true_peak(width):
    """Peak of a star of unit total flux, whose pixels are samples as in `image_of`."""
    return moffat(0.0, 0.0, width)


def test_sharpest_ridge_is_that_of_the_stars():
    rng = np.random.default_rng(1)
    stars, galaxies = 1.9 * (1 + 0.01 * rng.normal(size=9)), rng.uniform(2.2, 2.9, 40)
    both = np.concatenate([stars, galaxies])
    assert star_size(both) > 2.2
    assert sharpest_ridge(both, star_size(both)) == pytest.approx(1.9, rel=0.01)
    many = 1.9 * (1 + 0.02 * rng.normal(size=200))
    assert np.isnan(sharpest_ridge(many, star_size(many)))
    assert np.isnan(sharpest_ridge(np.zeros(0), 1.9))


@pytest.mark.parametrize("n_galaxies", [0, 36])
def test_psf_is_that_of_the_stars_where_galaxies_outnumber_them(n_galaxies):
    galaxies = places(n_galaxies, 3, (3.6, 4.6))
    widths = np.random.default_rng(4).uniform(5.0, 7.0, n_galaxies)
    made = image_of(places(18, 2, (3.7, 4.7)), 4.0, galaxies=[*map(tuple, np.c_[galaxies, widths])])
    psf, share, judged = psf_of(made, [])
    peak = share * psf.at(SHAPE[1] / 2, SHAPE[0] / 2).max()
    assert peak == pytest.approx(true_peak(4.0), rel=0.04 if n_galaxies else 0.02)
    assert not judged["psfChi2"] > 1.25


def test_light_of_neighbours_in_the_rims_is_not_taken_for_sky():
    made = image_of(places(110, 5, (3.6, 4.7)), 4.0)
    psf, share, _ = psf_of(made, [])
    peak = share * psf.at(SHAPE[1] / 2, SHAPE[0] / 2).max()
    assert peak == pytest.approx(true_peak(4.0), rel=0.02)


def test_neighbours_without_a_peak_of_their_own_are_no_wing_of_the_stars():
    """On the slope of a star ten times brighter, two widths away, there is no maximum."""
    v, u = (a.ravel() for a in np.mgrid[22:300:46, 22:320:46])
    rng = np.random.default_rng(9)
    angle, far = rng.uniform(0, 2 * np.pi, len(u)), rng.uniform(10, 13, len(u))
    flux = 10 ** rng.uniform(3.8, 4.8, len(u))
    beside = np.stack([u + far * np.cos(angle), v + far * np.sin(angle), 0.08 * flux], axis=1)
    made = image_of(np.concatenate([np.stack([u, v, flux], axis=1), beside]), 6.0)
    psf, share, _ = psf_of(made, [])
    peak = share * psf.at(SHAPE[1] / 2, SHAPE[0] / 2).max()
    assert peak == pytest.approx(true_peak(6.0), rel=0.02)


@pytest.mark.parametrize("width", [3.0, 6.0, 12.0, 20.0])
@pytest.mark.parametrize("few", [False, True])
def test_flux_is_total_at_any_seeing(width, few):
    cut = stamp(width)
    r = np.hypot(*(np.mgrid[:41, :41] - 20))
    inside = cut[r <= 12].sum()
    psf = PolynomialPsf((cut / inside)[None], 0, SHAPE)
    assert enclosed_flux(psf, SHAPE, few=few) == pytest.approx(inside, rel=0.015 if few else 0.01)


def test_fluxes_that_hang_on_a_sky_few_stars_tell_are_not_good():
    judged = [
        psf_of(image_of(places(n, seed, flux), 4.0), [])[2]
        for n, seed, flux in ((20, 2, (3.2, 3.9)), (60, 4, (3.7, 4.7)))
    ]
    assert judged[0]["psfSkyErr"] > 0.02 > 0.01 > judged[1]["psfSkyErr"] > 0
    assert [verdict(j).word for j in judged] == ["usable", "good"]
    assert "sky under PSF stars" in verdict(judged[0]).reasons[0]


def test_error_of_fluxes_is_that_of_stars_drawn_anew():
    true = stamp(4.0)
    true /= true[np.hypot(*(np.mgrid[:41, :41] - 20)) <= 12].sum()
    pulls = []
    for seed in range(12):
        psf, _, judged = psf_of(image_of(places(24, 100 + seed, (3.5, 4.3)), 4.0, seed=seed), [])
        p = psf.at(SHAPE[1] / 2, SHAPE[0] / 2)
        pulls.append(((p * true).sum() / (p**2).sum() - 1.0) / judged["psfFluxErr"])
    assert 0.6 < np.sqrt(np.mean(np.square(pulls))) < 1.6  # 1 ± 0.2, and stars as faint make a bias


def test_stars_with_light_of_others_in_their_rims_make_fluxes_unsure():
    y, x = (a.ravel() for a in np.mgrid[40:280:66, 35:300:60])
    rng = np.random.default_rng(8)
    flux = 10 ** rng.uniform(4.9, 5.3, 20)
    stars = np.stack([x + rng.uniform(-1, 1, 20), y, flux], axis=1)
    some = np.arange(20) % 3 == 0
    rims = np.stack([x + 9.0, y + 4.0, 0.15 * flux, rng.uniform(7, 9, 20)], axis=1)[some]
    alone, beside = (
        np.sqrt(judged["psfFluxErr"] ** 2 - judged["psfSkyErr"] ** 2)
        for judged in (psf_of(image_of(stars, 4.0, galaxies=g), [])[2] for g in ([], rims))
    )
    assert beside > 2.0 * alone
    assert verdict({"psfFluxErr": 0.0077}).reasons == (
        "PSF stars are few or unlike: fluxes unsure by 0.8%",
    )


def test_image_without_a_star_is_named_with_what_may_hide_them():
    empty = image_of([], 4.0)
    empty.mask[:50] |= bits("CR", "INTRP")
    with pytest.raises(PsfError, match=r"the template has no star .* taken for cosmic rays"):
        psf_of(empty, [], "template")
    empty.mask[:100] |= bits("BAD")
    with pytest.raises(PsfError, match="--mask-bits"):
        psf_of(empty, [], "template")


def test_undersampled_stars_are_not_good():
    assert verdict({"starFwhm": 1.8}).reasons == ("stars of 1.8 pixels are undersampled",)
    assert verdict({"starFwhm": 2.5}).word == "good"


def test_light_that_is_mostly_beyond_the_radius_is_guessed():
    assert verdict({"enclosed": 0.46}).reasons == (
        "46% of the light within 12 pixels, the rest guessed",
    )
    assert verdict({"enclosed": 0.93}).word == "good"


def test_flux_of_a_ring_is_finite():
    """A defocused star is dark, and by noise negative, in its middle."""
    r = np.hypot(*(np.mgrid[:41, :41] - 20))
    cut = np.exp(-0.5 * ((r - 6.0) / 1.0) ** 2)
    cut[20, 20] = -0.05 * cut.max()
    psf = PolynomialPsf((cut / cut[r <= 12].sum())[None], 0, SHAPE)
    for few in (False, True):
        assert enclosed_flux(psf, SHAPE, few=few) == pytest.approx(1.0, abs=1e-3)  # no wing at all


def rings_of(stars, radius=5.5):
    """Exposure of stars out of focus ``(x, y, flux)``, rings with a width of a pixel."""
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]]
    light = np.zeros(SHAPE)
    for x, y, flux in stars:
        ring = np.exp(-0.5 * (np.hypot(u - x, v - y) - radius) ** 2)
        light += flux * ring / ring.sum()
    made = image_of([], 3.0)
    rng = np.random.default_rng(3)
    image = made.image + rng.poisson(2.0 * light) / 2.0
    return made.replace(
        image=image.astype(np.float32), variance=(made.variance + light / 2.0).astype(np.float32)
    )


def test_stars_out_of_focus_are_sources_not_cosmic_rays():
    stars = np.array([[x, y, 4e4] for x in range(30, 310, 50) for y in range(30, 290, 50)])
    stars += np.random.default_rng(9).uniform(-8, 8, stars.shape) * (1, 1, 3e3)
    made = rings_of(stars)
    found = find_sources(flattened(made))
    assert found.hollow
    at = np.stack([found.moments.x, found.moments.y], axis=1)
    apart = np.hypot(*(stars[:, None, :2] - at[None]).transpose(2, 0, 1)).min(axis=1)
    assert np.median(apart) < 0.15  # the noise of a first moment
    assert apart.max() < 1.0  # rims are 5.5 pixels away
    notes: list[str] = []
    assert without_cosmic_rays(made, notes) is made
    assert notes == ["cosmic rays not looked for: stars are rings, out of focus"]
    psf, share, _ = psf_of(made, notes)
    assert hollow(psf.at(160, 150))
    assert share == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("n", [30, 1500])
def test_stars_in_a_crowd_are_not_rings(n):
    made = image_of(places(n, 8, (3.0, 4.5)), 3.5)
    assert not find_sources(flattened(made)).hollow
    assert not hollow(stamp(3.5))


def test_cosmic_rays_are_marked_and_stars_are_not():
    stars = places(25, 6, (3.7, 4.7))
    made = image_of(stars, 3.5)
    hits = np.random.default_rng(7).integers(10, 290, (40, 2))
    image = made.image.copy()
    image[hits[:, 0], hits[:, 1]] += 1500.0
    notes: list[str] = []
    clean = without_cosmic_rays(made.replace(image=image), notes)
    marked = (clean.mask & bits("CR")) != 0
    assert marked[hits[:, 0], hits[:, 1]].mean() > 0.9
    assert not marked[stars[:, 1].astype(int), stars[:, 0].astype(int)].any()
    assert clean.image[hits[:, 0], hits[:, 1]].max() < 1200.0 + made.image.max()
    assert "cosmic rays" in notes[0]


def test_gain_that_cannot_be_is_replaced_and_one_that_can_is_kept():
    made = image_of(places(5, 8, (3.7, 4.7)), 4.0).image / 65535.0
    none = np.zeros(SHAPE, bool)
    gain, note = checked_gain(made, none, 2.0)
    assert gain == pytest.approx(2.0 * 65535.0, rel=0.1)
    assert note is not None
    assert note.endswith("used")
    assert checked_gain(made, none, 2.0 * 65535.0) == (2.0 * 65535.0, None)
    kept, note = checked_gain(made, none, 100.0 * 65535.0)
    assert kept == 100.0 * 65535.0
    assert note is not None


def test_saturation_is_the_plateau_where_no_card_tells(tmp_path):
    made = image_of(places(5, 8, (3.7, 4.7)), 4.0).image
    for name, data in (("whole", made), ("clipped", np.minimum(made, 800.0))):
        fits.writeto(tmp_path / f"{name}.fits", data)
        planes, notes = Planes(tmp_path / f"{name}.fits"), list[str]()
        level = saturation_of(planes, read_planes(planes), notes)
        assert level == (800.0 if name == "clipped" else np.inf)
        assert bool(notes) == (name == "clipped")


def psfex(path, sample=0.5, side=51):
    """Model of PSFEx whose width grows along x: P0 + u P1."""
    at = (np.arange(side) - side // 2) * sample
    first, second = (np.exp(-0.5 * (at[:, None] ** 2 + at**2) / s**2) for s in (1.8, 2.4))
    first, second = first / first.sum(), second / second.sum()
    planes = np.stack([(first + second) / 2, (second - first) / 2, 0 * first])
    column = fits.Column(
        "PSF_MASK", f"{planes.size}E", dim=f"({side},{side},3)", array=planes[None]
    )
    table = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    table.header.update(
        POLNAXIS=2, POLNAME1="X_IMAGE", POLNAME2="Y_IMAGE", POLZERO1=160.5, POLZERO2=150.5,
        POLSCAL1=159.5, POLSCAL2=149.5, POLDEG1=1, PSF_SAMP=sample,
    )  # fmt: skip
    table.writeto(path)


class TestGivenPsf:
    def test_psfex_model_varies_as_it_says(self, tmp_path):
        psfex(tmp_path / "x.psf")
        psf = read_psf(tmp_path / "x.psf", SHAPE)
        for x, sigma in ((0.0, 1.8), (SHAPE[1] - 1.0, 2.4)):
            cut = psf.at(x, 100.0)
            assert cut.sum() == pytest.approx(1.0, abs=2e-3)
            assert fwhm(cut) == pytest.approx(2.3548 * sigma, rel=5e-3)
            assert np.unravel_index(cut.argmax(), cut.shape) == (20, 20)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("POLDEG1", "x"),
            ("POLNAXIS", 1j),
            ("POLZERO1", "x"),
            ("POLSCAL2", 0.0),
            ("PSF_SAMP", -1),
        ],
    )
    def test_psfex_number_that_is_none_is_named(self, tmp_path, key, value):
        psfex(tmp_path / "x.psf")
        fits.setval(tmp_path / "x.psf", key, value=value, ext=1)
        with pytest.raises(FileFormatError, match=key):
            read_psf(tmp_path / "x.psf", SHAPE)

    @pytest.mark.parametrize("side", [31, 32])
    def test_single_stamp_is_centred(self, tmp_path, side):
        at = np.arange(side) - (side - 1) / 2 - 0.3
        fits.writeto(tmp_path / "p.fits", np.exp(-0.5 * (at[:, None] ** 2 + at**2) / 4.0))
        cut = read_psf(tmp_path / "p.fits", SHAPE).at(5.0, 5.0)
        v, u = np.mgrid[-20:21, -20:21]
        assert (cut * u).sum() == pytest.approx(0.0, abs=0.01)
        assert (cut * v).sum() == pytest.approx(0.0, abs=0.01)
        assert cut.sum() == pytest.approx(1.0, abs=2e-3)

    def test_grid_that_psf_grid_writes_comes_back(self, tmp_path):
        cube = np.stack([stamp(w) / stamp(w).sum() for w in (3.0, 5.0)])[None]
        psf = GridPsf(cube, np.array([0.0, 300.0]), np.zeros(1))
        write_psf_grid(tmp_path / "g.fits", psf, SHAPE)
        found, share = normalised_psf(read_psf(tmp_path / "g.fits", SHAPE))
        r = np.hypot(*(np.mgrid[:41, :41] - 20))
        assert share == pytest.approx(cube[0][:, r <= 12].sum(axis=1).mean())
        assert found.at(150.0, 9.0)[r <= 12].sum() == pytest.approx(1.0)

    def test_what_is_none_is_refused_in_one_line(self, tmp_path):
        fits.writeto(tmp_path / "zero.fits", np.zeros((21, 21)))
        with pytest.raises(FileFormatError, match="no light"):
            read_psf(tmp_path / "zero.fits", SHAPE)
        fits.writeto(tmp_path / "cube.fits", np.ones((3, 21, 21)))
        with pytest.raises(FileFormatError, match="no point spread function"):
            read_psf(tmp_path / "cube.fits", SHAPE)
