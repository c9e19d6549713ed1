"""One unit as the metrics see it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.report.sheets import _science
from harness.verify.sampling import Picture, Request, draw_pictures, start_measuring
from harness.verify.view import TemplateRecord, View
from harness.workspace import Workspace


def test_the_template_is_warped_with_the_campaigns_own_settings(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with space.config.open("a") as stream:
        stream.write("[template]\ncell = 16\n")
    monkeypatch.setattr("pipeline.template.warp", lambda *arguments: arguments[-1])
    view: Any = View(space.root, 1, 1, TemplateRecord())
    view.visit_image = SimpleNamespace(wcs=object(), shape=(8, 8))
    view.template = None

    assert view.warped.cell == 16
    assert view.camera.name == "testcam"


@pytest.mark.parametrize("name", ["IMAGE", "MASK", "BACKGROUND"])
def test_a_plane_is_the_same_whether_the_whole_product_was_read_or_not(space, name):
    alone, whole = (View(space.root, 2, 1, TemplateRecord()) for _ in range(2))
    assert whole.visit_image is not None

    pixels, wcs = alone.plane("visit_image", name)
    again, other = whole.plane("visit_image", name)

    assert pixels.dtype == again.dtype
    assert np.array_equal(pixels, again, equal_nan=True)
    assert wcs is other is None  # the product of this workspace has none


def test_pictures_are_the_same_beside_measurements_and_alone(space, context):
    picture = Picture(2, 1, _science)
    start_measuring(context, [Request.of("noise_ratio", {})], [picture])
    beside = draw_pictures(context, [picture])[picture]

    assert isinstance(beside, bytes)
    assert beside == _science(View(space.root, 2, 1, TemplateRecord()))
