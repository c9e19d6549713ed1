"""One unit as the metrics see it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

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
