"""Plots and images: what they show, and that they are the same bytes every time."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib import image as files
from matplotlib.dates import num2date

from harness.drawing import images
from harness.drawing.contact import draw_unit
from harness.drawing.plots import draw_plot, render_plot
from harness.drawing.style import COLOURS, as_png, as_svg


def plot(kind: str = "curve", **changed):
    points = (
        [[1, 2, 5.0], [2, 3, 4.0]] if kind == "bars" else [[3.0, 0.5, 0.4, 0.6], [9.0, 1, 1, 1]]
    )
    return {
        "type": kind,
        "x": {"label": "a < b / s"},
        "y": {"label": "cost $ & $"},
        "series": [{"name": "one", "points": points}, {"name": "two", "points": points}],
        "marks": [{"x": 2.0, "label": "m"}, {"y": 0.5, "label": "h"}],
        **changed,
    }


@pytest.mark.parametrize("kind", ["curve", "points"])
def test_points_have_their_places_error_bars_and_labels(kind):
    (axes,) = draw_plot(plot(kind)).axes

    assert (axes.get_xlabel(), axes.get_ylabel()) == ("a < b / s", "cost $ & $")
    assert len(axes.containers) == 2
    line, caps, (bars,) = axes.containers[0]
    np.testing.assert_array_equal(line.get_xydata(), [[3.0, 0.5], [9.0, 1.0]])
    np.testing.assert_allclose(bars.get_segments(), [[[3, 0.4], [3, 0.6]], [[9, 1], [9, 1]]])
    assert len(caps) == 2
    assert (line.get_linestyle() != "None") is (kind == "curve")
    assert [t.get_text() for t in axes.texts] == ["m", "h"]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["one", "two"]


def test_series_differ_in_more_than_colour():
    (axes,) = draw_plot(plot()).axes
    first, second = (c.lines[0] for c in axes.containers)

    assert first.get_marker() != second.get_marker()
    assert first.get_linestyle() != second.get_linestyle()
    assert first.get_color() != second.get_color()


def test_bars_have_their_edges_and_heights():
    (axes,) = draw_plot(plot("bars")).axes

    assert [(b.get_x(), b.get_width(), b.get_height()) for b in axes.containers[0]] == [
        (1, 1, 5),
        (2, 1, 4),
    ]


def test_dates_are_the_calendar_days_of_the_julian_dates():
    dated = plot("points", x={"label": "date (TAI)", "date": True}, marks=[])
    dated["series"] = [{"name": "", "points": [[57071.25, 1.0], [57073.0, 2.0]]}]
    figure = draw_plot(dated)
    axes = figure.axes[0]

    first, second = (num2date(x) for x in axes.containers[0].lines[0].get_xdata())
    assert f"{first:%Y-%m-%d %H:%M}" == "2015-02-18 06:00"
    assert f"{second:%Y-%m-%d %H:%M}" == "2015-02-20 00:00"
    (above,) = axes.child_axes
    assert above.get_xlabel() == "MJD (TAI)"
    assert as_svg(figure) == render_plot(dated)
    np.testing.assert_allclose(above.get_xlim(), np.add(axes.get_xlim(), 40587.0))


@pytest.mark.parametrize("kind", ["curve", "points", "bars"])
def test_plots_are_sound_svg_and_the_same_each_time(kind):
    first, second = (render_plot(plot(kind)) for _ in range(2))
    root = ElementTree.fromstring(first)

    assert first == second
    assert "<script" not in first
    assert not list(root.iter("{http://www.w3.org/2000/svg}metadata"))


def test_plots_ignore_the_settings_of_the_machine():
    import matplotlib

    expected = render_plot(plot())
    with matplotlib.rc_context({"font.size": 30.0, "lines.linewidth": 9.0, "svg.hashsalt": None}):
        assert render_plot(plot()) == expected


def test_logarithmic_axes_have_plain_numbers():
    figure = draw_plot(plot(x={"label": "n", "log": True, "range": [3, 1000]}))
    assert as_png(figure)
    labels = [t.get_text() for t in figure.axes[0].get_xticklabels()]

    assert {"10", "30", "100", "300"} <= set(labels)


def luminance(colours: np.ndarray) -> np.ndarray:
    """Relative luminance of sRGB, WCAG 2.1."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    return linear[..., :3] @ [0.2126, 0.7152, 0.0722]


def test_differences_keep_their_sign_in_grey_and_zero_has_no_colour():
    values = np.array([-100.0, -50, -10, -3, -1, 0, 1, 3, 10, 50])
    colours = np.asarray(images.DIFFERENCE(images.significance_norm()(values)))

    assert np.all(np.diff(luminance(colours[1:])) > 0)
    np.testing.assert_array_equal(colours[0], colours[1])
    assert np.ptp(colours[5, :3]) < 0.02
    assert np.all(colours[1:5, 2] > colours[1:5, 0])  # blue below zero
    assert np.all(colours[6:, 0] > colours[6:, 2])  # orange above


def test_series_keep_apart_in_grey():
    from matplotlib.colors import to_rgb

    levels = luminance(np.array([to_rgb(c) for c in COLOURS[:3]]))

    assert np.min(np.diff(np.sort(levels))) > 0.05


def test_binned_is_the_mean_of_what_is_known():
    image = np.arange(48, dtype=float).reshape(6, 8)
    image[0, 0] = np.nan
    image[2:4, 2:4] = np.nan
    small = images.binned(image, 2)

    assert small[0, 0] == pytest.approx((1 + 8 + 9) / 3)
    assert np.isnan(small[1, 1])
    assert np.isfinite(small).sum() == 11


def test_the_stretch_of_light_ends_where_it_says():
    sky = np.random.default_rng(3).normal(100.0, 2.0, (80, 80))
    norm = images.light_norm(sky, noise=2.0)

    assert norm(100.0 - 6.1) == pytest.approx(0.0, abs=2e-3)
    assert norm(301.0) == pytest.approx(1.0, abs=2e-3)
    assert float(norm(110.0)) > 0.3  # five σ are well above black
    assert np.all(np.diff(norm(np.linspace(94, 300, 50))) > 0)


def panels(masked=None):
    rng = np.random.default_rng(5)
    pixels = rng.normal(0.0, 2.0, (20, 16))
    pixels[:4, :5] = np.nan
    return pixels, [
        images.light_panel("light", pixels),
        images.difference_panel("difference", pixels, noise=2.0, masked=masked),
    ]


def test_panels_stand_side_by_side_with_one_scale():
    masked = np.zeros((20, 16), bool)
    masked[10:, :] = True
    pixels, both = panels(masked)
    figure = images.draw_panels(both, corner=(100, 200), step=4)
    light, difference, scale = figure.axes

    assert [a.get_title() for a in (light, difference)] == ["light", "difference"]
    assert light.get_position().y0 == difference.get_position().y0
    assert light.get_ylabel() == "y / pixel"
    assert scale.get_ylabel() == "difference / σ"
    assert [len(a.images) for a in (light, difference)] == [1, 2]
    assert light.images[0].get_extent() == [99.5, 163.5, 199.5, 279.5]
    np.testing.assert_allclose(difference.images[0].get_array(), pixels / 2.0)
    assert np.count_nonzero(difference.images[1].get_array()[..., 3]) == masked.sum()


def test_missing_pixels_are_hatched():
    _, both = panels()
    figure = images.draw_panels(both)
    assert all(a.patch.get_hatch() for a in figure.axes[:2])
    shown = files.imread(io.BytesIO(as_png(figure)))
    height, width = shown.shape[:2]
    for box in (axes.get_position() for axes in figure.axes[:2]):
        x, y = int(box.x0 * width), int((1 - box.y0) * height)
        corner = shown[y - 30 : y - 5, x + 5 : x + 30, :3]
        assert np.mean(np.all(corner == 1.0, axis=-1)) > 0.3  # white between the lines
        assert np.min(corner) < 0.7  # and the lines


def test_images_are_the_same_bytes_each_time_and_name_no_software():
    first, second = (as_png(images.draw_panels(panels()[1])) for _ in range(2))

    assert first == second
    assert b"tEXt" not in first


def test_bare_pixels_are_squares_with_the_first_row_below():
    panel = images.difference_panel("d", np.array([[0.0, 50.0], [np.nan, -50.0]]), noise=1.0)
    shown = files.imread(io.BytesIO(images.pixels_as_png(panel, 12)))[..., :3]

    assert shown.shape == (24, 24, 3)
    low, middle, high = (np.asarray(images.DIFFERENCE(v))[:3] for v in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(shown[18, 6], middle, atol=0.01)
    np.testing.assert_allclose(shown[18, 18], high, atol=0.01)
    np.testing.assert_allclose(shown[6, 18], low, atol=0.01)
    assert len(np.unique(shown[:12, :12].reshape(-1, 3), axis=0)) == 2


def test_an_image_without_a_known_pixel_is_drawn():
    nothing = np.full((6, 6), np.nan)
    both = [images.smooth_panel("a", nothing), images.difference_panel("b", nothing)]

    assert as_png(images.draw_panels([images.light_panel("c", nothing), *both]))


def test_a_flat_background_looks_flat():
    panel = images.smooth_panel("background", np.array([[1000.0, 1000.1], [1000.2, 1000.0]]))

    assert panel.title == "background, 1000 to 1000.2"
    assert np.ptp(panel.norm(panel.pixels)) < 0.03


def test_a_unit_shows_its_detections():
    planes = {n: np.zeros((40, 60)) for n in ("science", "template", "difference", "score")}
    sources = [
        {"x": 20.0, "y": 10.0, "snr": 9.0, "reliability": 0.5, "alerted": True},
        {"x": 2.0, "y": 39.0, "snr": 6.0, "reliability": None, "alerted": False},
    ]
    figure = draw_unit(planes, sources, sources, "visit $1$")
    titled = {a.get_title(): a for a in figure.axes if a.get_title()}

    assert [len(titled[n].lines) for n in ("science", "template", "difference", "score")] == [
        0, 0, 2, 2,
    ]  # fmt: skip
    assert titled["SNR 9, reliability 0.50"].images[0].get_array().shape == (31, 31)
    assert titled["SNR 6"].images[0].get_array().mask.sum() > 31 * 13  # beyond the edges
    assert as_png(figure)
