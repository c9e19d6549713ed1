"""The codec against astropy's, and against itself on everything that can be an integer."""

from io import BytesIO

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.io import rice
from pipeline.io.hdus import read_pixels


def _back(rows):
    heap, offsets = rice.encode(rows)
    return rice.decode(heap, offsets[:-1], np.diff(offsets), rows.shape[1], 4, 32)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.int32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=70),
        elements=st.one_of(st.integers(-3, 3), st.integers(-(2**31), 2**31 - 1)),
    )
)
def test_every_image_survives(rows):
    np.testing.assert_array_equal(_back(rows), rows)


@pytest.mark.parametrize("width", [0.0, 0.3, 20.0, 1e5, 1e8])
def test_noise_takes_as_few_bytes_as_with_astropy(width):
    rng = np.random.default_rng(3)
    rows = rng.normal(0, width, (64, 500)).clip(-2e9, 2e9).astype(np.int32)
    np.testing.assert_array_equal(_back(rows), rows)
    heap, _ = rice.encode(rows)
    buffer = BytesIO()
    fits.CompImageHDU(rows, compression_type="RICE_1").writeto(buffer)
    assert heap.size <= len(buffer.getvalue()) - 2880


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32])
def test_files_of_astropy_are_read(tmp_path, dtype):
    rng = np.random.default_rng(3)
    limits = np.iinfo(dtype)
    rows = rng.integers(limits.min, limits.max, (40, 333), dtype, endpoint=True)
    rows[:20] = rng.normal(100, 5, (20, 333)).astype(dtype)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(rows, compression_type="RICE_1")]).writeto(
        tmp_path / "a.fits"
    )
    with fits.open(tmp_path / "a.fits", disable_image_compression=True) as hdus:
        np.testing.assert_array_equal(read_pixels(hdus[1]), rows)


def test_damage_is_noticed():
    rows = np.random.default_rng(1).normal(0, 50, (30, 200)).astype(np.int32)
    heap, offsets = rice.encode(rows)
    broken = np.diff(offsets)
    broken[7] //= 2
    with pytest.raises(OSError, match="row 7 is damaged"):
        rice.decode(heap, offsets[:-1], broken, 200, 4, 32)
    with pytest.raises(OSError, match="damaged"):
        rice.decode(heap[:1000], offsets[:-1], np.diff(offsets), 200, 4, 32)


@pytest.mark.parametrize("kind", ["GZIP_1", "GZIP_2", "RICE_1", "HCOMPRESS_1"])
def test_other_tilings_and_algorithms_are_read_too(tmp_path, kind):
    rows = np.random.default_rng(3).normal(1000, 5, (96, 128)).astype(np.int32)
    hdu = fits.CompImageHDU(rows, compression_type=kind, tile_shape=(32, 64))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", disable_image_compression=True) as hdus:
        np.testing.assert_array_equal(read_pixels(hdus[1]), rows)
