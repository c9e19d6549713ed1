"""Whole studies against a planted regression that no setting can make."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.study.compare import compare
from harness.study.design import StudyDesign
from harness.study.run import run_study
from pipeline.exposure import Difference
from pipeline.subtract.fixed import FixedSubtraction
from tests.study.conftest import build

DESIGN = StudyDesign(sources=70, realisations=2, near_threshold=0.9, threshold_snr=(4.5, 6.5),
                     hosted=0, negative=0, near_bright=0)  # fmt: skip


def overestimate(difference: Difference) -> Difference:
    """Take the variance of a difference for 1.1 times what it is."""
    image, factor = difference.exposure, np.float32(1.1)
    return replace(
        difference,
        exposure=image.replace(variance=factor * image.variance),
        null_variance=factor * difference.null_variance,
        score=difference.score / np.sqrt(factor),
    )


@pytest.mark.slow
def test_a_wrong_variance_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The PSF of the visits widens by 0.3 pixels over the image."""
    root = build(tmp_path / "varying", tilt=0.3).root
    a = run_study(root, DESIGN, engine="local", quiet=True)
    right = FixedSubtraction.run
    monkeypatch.setattr(FixedSubtraction, "run", lambda *args: overestimate(right(*args)))
    b = run_study(root, DESIGN, name="overestimated", engine="local", quiet=True)
    found = compare(a.rows(), b.rows(), (a.table("detection"), b.table("detection")))
    assert {c.name: c.verdict for c in found}["detected"] == "worse"
