"""The encoder against astropy's decoder, on everything that can be an integer."""

from io import BytesIO

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.io import hdus, rice


def _back(rows, spoilt=slice(0, 0)):
    """Encode as products are and decode with astropy; some bytes may be lost in between."""
    heap, offsets = rice.encode(rows)
    heap[spoilt] = 0
    layout = [
        *hdus._table_cards("X", rows.shape, offsets, 32), *hdus._rice_cards(4, (1, rows.shape[1])),
    ]  # fmt: skip
    file = hdus.primary_hdu(hdus.cards([])) + hdus._tiled_table(
        layout, heap.tobytes(), offsets, fits.Header()
    )
    with fits.open(BytesIO(file), do_not_scale_image_data=True) as opened:
        return hdus.read_pixels(opened[1])


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
    with fits.open(tmp_path / "a.fits", do_not_scale_image_data=True) as opened:
        np.testing.assert_array_equal(hdus.read_pixels(opened[1]), rows)


@pytest.mark.parametrize("tile", [(1, 333), (7, 50), (32, 64), (40, 333)])
@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_restored_by_our_decoder_bit_for_bit(tile, dtype):
    """Noise, constants, raw blocks and extremes, in tiles that do not fit the image."""
    rng = np.random.default_rng(5)
    limits = np.iinfo(dtype)
    rows = rng.normal(100, 30, (40, 333)).astype(dtype)
    rows[10:20], rows[20] = 7, limits.min
    rows[30:] = rng.integers(limits.min, limits.max, (10, 333), dtype, endpoint=True)
    file = BytesIO()
    hdu = fits.CompImageHDU(rows, compression_type="RICE_1", tile_shape=tile)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(file)
    with fits.open(BytesIO(file.getvalue()), do_not_scale_image_data=True) as opened:
        found = hdus._restored(opened[1])
        assert found is not None
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, rows)
        np.testing.assert_array_equal(opened[1].data, rows)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_damaged_tiles_are_refused_or_restored_as_something(seed, number):
    """No bytes whatever make the decoder read or write beyond its arrays."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 50, (3, 100)).astype(np.int32)
    heap, offsets = rice.encode(rows)
    heap[rng.integers(0, heap.size, number)] = rng.integers(0, 256, number)
    starts, lengths = offsets[:-1].copy(), np.diff(offsets)
    guarded = np.full((5, 100), 12345, np.int32)
    rice.decode(heap, starts, lengths, guarded[1:4], (1, 100), 4)
    assert (guarded[[0, 4]] == 12345).all()
    lengths[1] += rng.integers(1, 5)
    assert not rice.decode(heap, starts, lengths, guarded[1:4], (1, 100), 4)
    assert not rice.decode(heap, starts + heap.size, lengths, guarded[1:4], (1, 100), 4)


@pytest.mark.parametrize("shape", [(100, 150), (32, 64), (31, 65), (5, 7)])
def test_tiles_of_a_plane_are_those_of_astropy(tmp_path, shape):
    pixels = np.random.default_rng(2).normal(0, 9, shape).round().astype(np.float32)
    (tmp_path / "a.fits").write_bytes(
        hdus.primary_hdu(hdus.cards([])) + hdus.compressed_hdu("X", pixels, None, 1.0)
    )
    with fits.open(tmp_path / "a.fits", do_not_scale_image_data=True) as opened:
        np.testing.assert_array_equal(hdus.read_pixels(opened[1]), pixels)
    with fits.open(tmp_path / "a.fits") as opened:
        np.testing.assert_array_equal(opened[1].data, pixels)


def test_only_tiles_round_places_are_read(tmp_path):
    """Every pixel within reach is there, on the image, at its edges and beyond them."""
    pixels = 1.0 + np.arange(200 * 300, dtype=np.float32).reshape(200, 300)
    (tmp_path / "a.fits").write_bytes(
        hdus.primary_hdu(hdus.cards([])) + hdus.compressed_hdu("X", pixels, None, 1.0)
    )
    x = np.array([70.4, 0.0, 299.0, 305.0, 1e9, np.nan, -40.0])
    y = np.array([95.6, 0.0, 199.0, 100.0, 10.0, 10.0, 10.0])
    with fits.open(tmp_path / "a.fits", do_not_scale_image_data=True) as opened:
        found = hdus.read_pixels(opened[1], hdus.Places(x, y, 12.0))
        assert not hdus.read_pixels(opened[1], hdus.Places(x[:0], y[:0], 12.0)).any()
    rows, columns = np.indices(pixels.shape)
    for k in range(4):
        near = (abs(columns - np.rint(x[k])) <= 12) & (abs(rows - np.rint(y[k])) <= 12)
        np.testing.assert_array_equal(found[near], pixels[near])
    assert np.isin(found[found != 0], pixels).all()
    assert np.count_nonzero(found) == 5 * 32 * 64 + 3 * 32 * 44 + 8 * 44


def test_pixels_without_a_value_are_the_same_nan_as_before(tmp_path):
    pixels = np.array([[1.5, np.nan, -0.0, np.inf]], np.float32)
    (tmp_path / "a.fits").write_bytes(
        hdus.primary_hdu(hdus.cards([])) + hdus.compressed_hdu("X", pixels, None, 0.5)
    )
    with fits.open(tmp_path / "a.fits", do_not_scale_image_data=True) as opened:
        found = hdus.read_pixels(opened[1])
    expected = np.array([[1.5, np.nan, 0.0, np.nan]], np.float32)
    assert found.tobytes() == expected.tobytes()


def test_damage_is_noticed():
    rows = np.random.default_rng(1).normal(0, 50, (30, 200)).astype(np.int32)
    assert np.array_equal(_back(rows), rows)
    with pytest.raises(OSError, match="compressed pixels are damaged"):
        _back(rows, slice(1000, 1400))


@pytest.mark.parametrize("kind", ["GZIP_1", "GZIP_2", "RICE_1", "HCOMPRESS_1"])
def test_other_tilings_and_algorithms_are_read_too(tmp_path, kind):
    rows = np.random.default_rng(3).normal(1000, 5, (96, 128)).astype(np.int32)
    hdu = fits.CompImageHDU(rows, compression_type=kind, tile_shape=(32, 64))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", do_not_scale_image_data=True) as opened:
        np.testing.assert_array_equal(hdus.read_pixels(opened[1]), rows)


def _mask():
    random = np.random.default_rng(5)
    return (1 << random.integers(0, 23, (200, 96))).astype(np.uint32)


def _deflated(mask, spoiled=slice(0, 0)):
    packed = bytearray(hdus.primary_hdu(fits.Header()) + hdus.compressed_hdu("MASK", mask))
    packed[spoiled] = bytes(len(packed[spoiled]))
    return fits.open(BytesIO(bytes(packed)), do_not_scale_image_data=True)


def test_a_mask_is_inflated_where_it_is_wanted():
    mask = _mask()
    with _deflated(mask) as opened:
        assert np.array_equal(hdus.read_pixels(opened[1]).view(np.uint32), mask)
        near = hdus.Places(np.array([3.0]), np.array([100.0]), 12.0)
        part = hdus.read_pixels(opened[1], near).view(np.uint32)
    assert np.array_equal(part[64:128], mask[64:128])
    assert not part[:64].any()
    assert not part[128:].any()


def test_damage_of_a_mask_is_noticed():
    with (
        _deflated(_mask(), slice(-6000, -4000)) as opened,
        pytest.raises(OSError, match="compressed pixels are damaged"),
    ):
        hdus.read_pixels(opened[1])
