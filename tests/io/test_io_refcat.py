"""Reference catalogues of every kind end as the same table."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from pipeline import io
from pipeline.errors import FileFormatError
from pipeline.schema import OBJECT, REFCAT

RA, DEC = np.array([150.0, 359.9999, 0.25]), np.array([-2.0, 0.0, 45.5])


def _save(path, columns):
    if path.suffix == ".fits":
        Table(columns).write(path)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(pa.table(columns), path)
    else:
        pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("kind", ["parquet", "fits", "csv"])
def test_the_least_is_enough(tmp_path, kind):
    path = _save(tmp_path / f"r.{kind}", {"ra": RA, "dec": DEC, "gMag": [18.0, 20.0, np.nan]})
    table = io.read_refcat(path)
    assert table.schema.equals(REFCAT.arrow_schema)
    np.testing.assert_allclose(table["ra"].to_numpy(), RA)
    flux = table["gFlux"].to_pylist()
    np.testing.assert_allclose(flux[:2], 10 ** (0.4 * (31.4 - np.array([18.0, 20.0]))), rtol=1e-6)
    assert flux[2] is None
    assert table["pmRa"].null_count == 3
    assert table["objectId"].to_pylist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["fits", "csv", "ecsv", "vot"])
def test_compressed_table_is_what_its_name_says(tmp_path, kind):
    plain = tmp_path / f"r.{kind}"
    columns = Table({"ra": RA, "dec": DEC, "gMag": [18.0, 20.0, 19.0]})
    columns.write(plain, format={"ecsv": "ascii.ecsv", "vot": "votable"}.get(kind, kind))
    packed = tmp_path / f"r.{kind}.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert io.read_refcat(packed).equals(io.read_refcat(plain))


def test_gaia_names(tmp_path):
    columns = {
        "source_id": np.array([5, 6, 7]) + 2**60, "ra": RA, "dec": DEC, "pmra": [1.0, 2.0, 3.0],
        "ra_error": [0.1, 0.2, 0.3], "ref_epoch": [2016.0] * 3, "rFlux": [1e5, 2e5, 3e5],
    }  # fmt: skip
    table = io.read_refcat(_save(tmp_path / "gaia.fits", columns))
    assert table["objectId"].to_pylist() == [2**60 + k for k in (5, 6, 7)]
    assert table["epochMjdTai"][0].as_py() == 51544.5 + 16 * 365.25
    assert table["pmRa"].to_pylist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(("version", "flux"), [(1, 5e4), (None, 5e-5)])
def test_rubin_shards_of_both_versions(tmp_path, version, flux):
    shard = Table(
        {
            "id": np.arange(3) + 10, "coord_ra": np.radians(RA), "coord_dec": np.radians(DEC),
            "coord_raErr": np.full(3, 5.0 / 206264806.24709636), "g_flux": np.full(3, flux),
            "g_fluxErr": np.full(3, flux / 100), "epoch": np.full(3, 57000.5),
        }
    )  # fmt: skip
    if version:
        shard.meta["HIERARCH REFCAT_FORMAT_VERSION"] = version
    folder = tmp_path / "shards"
    folder.mkdir()
    for name in ("131072.fits", "131073.fits"):
        shard.write(folder / name)
    table = io.read_refcat(folder)
    assert len(table) == 6
    np.testing.assert_allclose(table["ra"].to_numpy()[:3], RA)
    np.testing.assert_allclose(table["gFlux"].to_numpy(), 5e4, rtol=1e-6)
    np.testing.assert_allclose(table["raErr"].to_numpy(), 5.0, rtol=1e-6)
    assert table["epochMjdTai"][0].as_py() == 57000.5


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"dec": DEC, "gFlux": DEC}, r"r\.csv ra: missing column; expected ra and dec"),
        ({"ra": RA, "dec": DEC, "x": DEC}, "no flux in any band"),
        ({"ra": RA, "dec": RA, "gFlux": DEC}, "row 0 has ra 150, dec 150; expected degrees"),
    ],
)
def test_what_lacks_is_said_in_one_line(tmp_path, columns, words):
    with pytest.raises(FileFormatError, match=words) as caught:
        io.read_refcat(_save(tmp_path / "r.csv", columns))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["parquet", "fits", "csv"])
def test_objects_of_every_kind(tmp_path, kind):
    columns = {"ra": RA, "dec": DEC, "objectType": ["star", "galaxy", "star"], "gMag": [20.0] * 3}
    table = io.read_objects(_save(tmp_path / f"o.{kind}", columns))
    assert table.schema.equals(OBJECT.arrow_schema)
    assert table["objectType"].to_pylist() == ["star", "galaxy", "star"]
    np.testing.assert_allclose(table["gFlux"].to_numpy(), 10 ** (0.4 * 11.4), rtol=1e-6)
    assert table["radius"].null_count == 3


def test_object_table_of_rubin(tmp_path):
    columns = {
        "objectId": np.arange(3) + 2**60, "coord_ra": RA, "coord_dec": DEC,
        "refExtendedness": [0.0, 1.0, 0.0], "g_cModelFlux": [1e3, 2e3, 3e3],
        "g_psfFlux": [1.0, 1.0, 1.0], "g_cModelFluxErr": [1.0, 2.0, 3.0],
    }  # fmt: skip
    table = io.read_objects(_save(tmp_path / "o.parquet", columns))
    assert table["objectId"].to_pylist() == [2**60, 2**60 + 1, 2**60 + 2]
    assert table["objectType"].to_pylist() == ["star", "galaxy", "star"]
    assert table["gFlux"].to_pylist() == [1e3, 2e3, 3e3]
    assert table["gFluxErr"].to_pylist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"dec": DEC, "objectType": ["star"] * 3}, r"o\.csv ra: missing column"),
        ({"ra": RA, "dec": DEC}, "objectType: missing column; expected .* star or galaxy"),
        ({"ra": RA, "dec": DEC, "objectType": ["star", "QSO", "star"]}, "row 1 .* 'QSO'"),
    ],
)
def test_objects_that_lack_something_are_refused(tmp_path, columns, words):
    with pytest.raises(FileFormatError, match=words):
        io.read_objects(_save(tmp_path / "o.csv", columns))


def test_wrong_files(tmp_path):
    (tmp_path / "r.parquet").write_text("no")
    (tmp_path / "r.txt").write_text("no")
    for name, words in (
        ("r.parquet", "not Parquet"),
        ("r.txt", "unknown kind"),
        ("r.csv", "no such file"),
    ):
        with pytest.raises(FileFormatError, match=words):
            io.read_refcat(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileFormatError, match="no catalogue here"):
        io.read_refcat(tmp_path / "empty")


def test_parquet_keeps_units_and_is_atomic(tmp_path):
    table = REFCAT.to_arrow({"objectId": [1], "ra": [2.0], "dec": [3.0]})
    for name in ("a.parquet", "b.parquet"):
        io.write_parquet(tmp_path / name, table)
    back = io.read_parquet(tmp_path / "a.parquet")
    assert back.schema.equals(REFCAT.arrow_schema, check_metadata=True)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


MAG = np.array([18.0, 19.5, 20.25])
FLUX = 10 ** (0.4 * (31.4 - MAG))
LINES = [f"{r!r}{{s}}{d!r}{{s}}{m!r}" for r, d, m in zip(RA.tolist(), DEC.tolist(), MAG.tolist(),
                                                       strict=True)]  # fmt: skip


def _text(separator, head="", names=("ra", "dec", "rMag"), blank=""):
    rows = [(separator + blank).join(names), *(x.format(s=separator + blank) for x in LINES)]
    return head + "\n".join(rows) + "\n"


def _assert_stars(table, band="r"):
    np.testing.assert_allclose(table["ra"].to_numpy(), RA, atol=1e-7)
    np.testing.assert_allclose(table["dec"].to_numpy(), DEC, atol=1e-7)
    np.testing.assert_allclose(table[f"{band}Flux"].to_numpy(), FLUX, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", _text(";")), ("a.csv", _text("\t")), ("a.tsv", _text("\t")),
        ("a.csv", _text(",", blank=" ")), ("a.csv", _text(",", head="# from an archive\n#\n")),
        ("a.csv", "\ufeff" + _text(",")), ("a.CSV", _text(",", names=("RA", "Dec", "rMag"))),
        ("a.csv", _text(",", names=("RAJ2000", "DEJ2000", "rmag"))),
        ("a.csv", _text(",", names=("raMean", "decMean", "rMeanPSFMag"))),
        ("a.csv", _text(",", names=("ra", "dec", "r"))),
        ("a.csv", _text(",", names=("ra", "dec", "psfMag_r"))),
        ("a.csv", _text(",", names=("RA_ICRS", "DE_ICRS", "r'mag"))),
        ("a.csv", _text(",", names=("raj2000", "dej2000", "r_psf"))),
        ("a.csv", _text(",", names=("RA", "DEC", "WAVG_MAG_PSF_R"))),
    ],
)  # fmt: skip
def test_text_of_archives(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    _assert_stars(io.read_refcat(path))


@pytest.mark.parametrize("name", ["a.fits", "a.vot", "a.xml", "a.ecsv"])
def test_units_of_a_table_count(tmp_path, name):
    import astropy.units as u

    table = Table({"ra": np.radians(RA) * u.rad, "dec": np.radians(DEC) * u.rad, "rMag": MAG})
    kind = {"fits": "fits", "ecsv": "ascii.ecsv"}.get(name[2:], "votable")
    table.write(tmp_path / name, format=kind)
    _assert_stars(io.read_refcat(tmp_path / name))


@pytest.mark.parametrize("name", ["a.fits", "a.vot", "a.ecsv"])
def test_units_of_fluxes_motions_and_errors_count(tmp_path, name):
    import astropy.units as u

    known = {
        "ra": RA * u.deg, "dec": DEC * u.deg, "rFlux": FLUX * 1e-3 * u.uJy,
        "ra_error": [0.001, 0.002, 0.003] * u.arcsec, "pmra": [1.0, 2.0, 3.0] * u.arcsec / u.yr,
        "Plx": [1.0, 2.0, 3.0] * u.mas,
    }  # fmt: skip
    kind = {"fits": "fits", "ecsv": "ascii.ecsv"}.get(name[2:], "votable")
    Table(known).write(tmp_path / name, format=kind)
    table = io.read_refcat(tmp_path / name)
    _assert_stars(table)
    np.testing.assert_allclose(table["raErr"].to_numpy(), [1.0, 2.0, 3.0], rtol=1e-6)
    np.testing.assert_allclose(table["pmRa"].to_numpy(), [1e3, 2e3, 3e3], rtol=1e-6)
    np.testing.assert_allclose(table["parallax"].to_numpy(), [1.0, 2.0, 3.0], rtol=1e-6)

    Table({**known, "rFlux": FLUX * u.ct}).write(tmp_path / f"b{name}", format=kind)
    with pytest.raises(FileFormatError, match=r"rFlux.*unit '(ct|count)'.*nJy"):
        io.read_refcat(tmp_path / f"b{name}")


def test_nanomaggies_with_inverse_variance(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("ra,dec,flux_r,flux_ivar_r,flux_z\n1.0,2.0,1000.0,4.0,10\n1.0,2.1,10,0,\n")
    table = io.read_refcat(path)
    # in double precision: how log10 rounds in single precision depends on the processor
    flux = table["rFlux"].to_numpy().astype(float)
    np.testing.assert_allclose(-2.5 * np.log10(flux) + 31.4, [15.0, 20.0])
    assert table["rFluxErr"].to_pylist() == [pytest.approx(0.5 * 10**3.56), None]
    assert table["zFlux"].to_pylist() == [pytest.approx(10**4.56), None]


def test_pixel_coordinates_and_redshifts_are_no_magnitudes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("ra,dec,x,y,z,rMag\n1.0,2.0,17.0,18.0,0.3,19.0\n")
    table = io.read_refcat(path)
    assert table["rFlux"].null_count == 0
    assert table["yFlux"].null_count == table["zFlux"].null_count == 1


def test_sexagesimal_places(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("ra,dec,rMag\n10:00:00.0,-00:30:00,18.0\n00:01:00,+45 30 00.0,19\n")
    table = io.read_refcat(path)
    np.testing.assert_allclose(table["ra"].to_numpy(), [150.0, 0.25], atol=1e-9)
    np.testing.assert_allclose(table["dec"].to_numpy(), [-0.5, 45.5], atol=1e-9)


def test_magnitudes_of_99_and_cells_without_anything_are_unknown(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "source_id,ra,dec,rMag,pmra\n5,1.0,2.0,99.0,\n,1.0,2.0,-99,3.5\n7,1.0,2.0,null,1\n"
        "8,1.0,2.0,20.0,2\n"
    )
    table = io.read_refcat(path)
    assert table["rFlux"].null_count == 3
    assert table["rFlux"].to_pylist()[3] == pytest.approx(10 ** (0.4 * 11.4), rel=1e-6)
    assert table["pmRa"].to_pylist() == [None, 3.5, 1.0, 2.0]
    assert table["objectId"].to_pylist() == [0, 1, 2, 3]


def test_photometry_of_gaia_becomes_that_of_sdss(tmp_path):
    """At BP - RP = 1 the polynomial is the sum of its coefficients (Gaia DR3, section 5.5.1)."""
    path = tmp_path / "a.csv"
    path.write_text(
        "source_id,ra,dec,phot_g_mean_mag,phot_bp_mean_mag,phot_rp_mean_mag,ref_epoch\n"
        "4295806720,1.0,2.0,18.0,18.5,17.5,2016.0\n4295806721,1.0,2.0,18.0,,17.5,2016.0\n"
    )
    table = io.read_refcat(path)
    magnitude = 31.4 - 2.5 * np.log10(table["rFlux"].to_pylist()[0])
    assert magnitude == pytest.approx(18.0 - (-0.09837 + 0.08592 + 0.1907 - 0.1701 + 0.02263))
    assert table["rFlux"].to_pylist()[1] is None
    assert table["objectId"].to_pylist() == [4295806720, 4295806721]


def test_colours_of_gaia_at_and_beyond_the_ends(tmp_path):
    path = tmp_path / "a.csv"
    names = "source_id,ra,dec,phot_g_mean_mag,phot_bp_mean_mag,phot_rp_mean_mag\n"
    path.write_text(names + "1,1.0,2.0,18.0,18.0,18.0\n")
    table = io.read_refcat(path)
    assert 31.4 - 2.5 * np.log10(table["rFlux"].to_pylist()[0]) == pytest.approx(18.09837)
    assert table["gFlux"].to_pylist() == [None]
    path.write_text(names + "1,1.0,2.0,18.0,17.9,18.0\n2,1.0,2.0,18.0,,18.0\n")
    with pytest.raises(FileFormatError, match=r"BP - RP is unknown or outside 0 to 3 mag"):
        io.read_refcat(path)


def test_catalogue_without_a_row_or_with_nonsense_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    for text, words in (
        ("ra,dec,rMag\n", "holds no row"),
        ("ra,dec,rMag\nhere,there,18\n", "a.csv ra"),
        ("ra,dec,rMag\n1,2,bright\n", "rMag"),
        ("ra,dec,rMag\n1,2,99\n", "no known flux"),
    ):
        path.write_text(text)
        with pytest.raises(FileFormatError, match=words):
            io.read_refcat(path)
