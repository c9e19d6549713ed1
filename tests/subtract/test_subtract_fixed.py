"""With fixed kernel and noise a difference is that of the campaign plus the filtered sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline import subtract
from pipeline.errors import ConfigError
from pipeline.exposure import Difference, Exposure
from pipeline.subtract.config import Config
from pipeline.subtract.fixed import FixedSubtraction
from tests.subtract.conftest import draw

FLUX = 2500.0


def painted(image: Exposure, x: float, y: float, sigma: float) -> Exposure:
    light = draw(image.shape, [x], [y], [FLUX], sigma).astype(np.float32)
    return image.replace(image=image.image + light, variance=image.variance + light)


def equal(one: Difference, other: Difference) -> None:
    for a, b in (
        (one.exposure.image, other.exposure.image),
        (one.exposure.variance, other.exposure.variance),
        (one.exposure.mask, other.exposure.mask),
        (one.score, other.score),
        (one.null_variance, other.null_variance),
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"science_sigma": 1.6, "template_sigma": 2.0},  # the science image is convolved
        {"smooth": np.outer([1, 2, 1], [1, 2, 1])},  # noise is measured
    ],
)
def test_without_sources_it_is_the_same_difference(
    make_scene: Callable[..., Any], case: dict[str, Any]
) -> None:
    scene = make_scene(**case)
    plain = subtract.run(scene.science, scene.template)
    fixed = FixedSubtraction.of(scene.science, scene.template)
    equal(fixed.run(scene.science, scene.template), plain)


def test_sources_add_up(make_scene: Callable[..., Any]) -> None:
    scene = make_scene()
    fixed = FixedSubtraction.of(scene.science, scene.template)
    plain = fixed.run(scene.science, scene.template).exposure.image
    places = ((150.3, 200.8), (330.0, 260.5))
    one, other = (
        fixed.run(painted(scene.science, *p, 2.0), scene.template).exposure.image for p in places
    )
    both = painted(painted(scene.science, *places[0], 2.0), *places[1], 2.0)
    together = fixed.run(both, scene.template).exposure.image
    np.testing.assert_allclose(together - plain, (one - plain) + (other - plain), atol=0.05)
    for (x, y), image in zip(places, (one, other), strict=True):
        near = np.s_[int(y) - 20 : int(y) + 21, int(x) - 20 : int(x) + 21]
        assert (image - plain)[near].sum() == pytest.approx(FLUX, rel=0.003)
        away = (image - plain)[20:100, 20:100]
        assert np.abs(away).max() < 0.01


def test_sources_do_not_move_the_sky(make_scene: Callable[..., Any]) -> None:
    scene = make_scene()
    fixed = FixedSubtraction.of(scene.science, scene.template)
    plain = fixed.run(scene.science, scene.template).exposure.image
    image = scene.science
    for x in range(40, 360, 20):
        for y in range(160, 360, 20):
            image = painted(image, float(x), float(y), 2.0)
    changed = fixed.run(image, scene.template).exposure.image - plain
    assert np.abs(changed[20:100, 20:100]).max() < 0.01


def test_a_source_of_the_template_is_negative(make_scene: Callable[..., Any]) -> None:
    scene = make_scene()
    fixed = FixedSubtraction.of(scene.science, scene.template)
    plain = fixed.run(scene.science, scene.template)
    faded = fixed.run(scene.science, painted(scene.template, 200.0, 180.0, 1.6))
    flux = (faded.exposure.image - plain.exposure.image)[150:211, 170:231].sum()
    ratio = float(plain.kernel.sum_at([200.0], [180.0])[0])
    assert flux == pytest.approx(-ratio * FLUX, rel=0.005)


def test_other_algorithms_have_no_kernel_to_fix(make_scene: Callable[..., Any]) -> None:
    scene = make_scene()
    with pytest.raises(ConfigError, match="no kernel that could be fixed"):
        FixedSubtraction.of(scene.science, scene.template, Config(algorithm="zogy"))
