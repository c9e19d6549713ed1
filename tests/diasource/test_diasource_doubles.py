"""Close pairs are two sources, one source is not two."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline import diasource

Array = npt.NDArray[np.float64]
_QUIET = diasource.Config(sub_random=0, sky_sources=0)


def measured(
    lab: ModuleType, seed: int, shape: Any, snr: tuple[float, float], side: float = 1.0
) -> Any:
    """Places, fluxes and angles of the truth, and the rows of the result.

    The score is divided by `side` right of the middle of every source.
    """
    rng = np.random.default_rng(seed)
    image, variance = lab.blank((640, 640), rng)
    at = lab.grid(image.shape, 62, rng)
    flux = lab.log_uniform(*snr, len(at), rng) * lab.Star().sigma_flux()
    angle = rng.uniform(0.0, 2.0 * np.pi, len(at))
    lab.add(image, variance, lab.Star(), at, flux, rng, shape(angle) if shape else None)
    world = lab.scene(image, variance, lab.Star(), rng)
    for x, y in np.rint(at).astype(int):
        world.difference.score[y - 9 : y + 10, x + 1 : x + 10] /= side
    result = diasource.run(world.difference, world.science, world.template, _QUIET)
    return at, flux, angle, result


def pair(distance: float, ratio: float) -> Any:
    """Two points of a flux ratio, pixel apart."""

    def of(angle: Array) -> Any:
        half = 0.5 * distance * np.column_stack([np.cos(angle), np.sin(angle)])
        return lambda k: np.array([[*half[k], 1.0], [*-half[k], ratio]])

    return of


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_pairs_at_one_and_a_fifth_of_the_width_are_two_with_their_own_fluxes(
    lab: ModuleType, ratio: float
) -> None:
    distance = 1.2 * lab.Star().width
    at, flux, angle, result = measured(lab, 8201, pair(distance, ratio), (40.0, 150.0))
    rows = [r for r in result.sources.to_pylist() if not r["isDeblendParent"]]
    place = np.array([(r["x"], r["y"]) for r in rows])
    ratios, pulls, found = [], [], 0
    for k in range(len(at)):
        near = np.flatnonzero(np.hypot(*(place - at[k]).T) < 10.0)
        found += len(near) == 2
        half = 0.5 * distance * np.array([np.cos(angle[k]), np.sin(angle[k])])
        for side, share in ((1.0, 1.0), (-1.0, ratio)):
            if len(near) == 2:
                row = rows[near[np.argmin(np.hypot(*(place[near] - at[k] - side * half).T))]]
                ratios.append(row["psfFlux"] / (share * flux[k]))
                pulls.append((row["psfFlux"] - share * flux[k]) / row["psfFluxErr"])

    assert found >= 0.9 * len(at)
    assert np.median(ratios) == pytest.approx(1.0, abs=0.03)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.25)
    ledger = {c["diaSourceId"] for c in result.candidates.to_pylist() if c["accepted"]}
    assert ledger == {r["diaSourceId"] for r in rows}


def test_no_part_of_a_pair_is_below_the_threshold(lab: ModuleType) -> None:
    """Beside a bright star the score is divided by more on one side than on the other."""
    shape = pair(1.2 * lab.Star().width, 0.5)
    *_, result = measured(lab, 8203, shape, (40.0, 150.0), side=20.0)
    rows = [r for r in result.sources.to_pylist() if not r["isSubThreshold"]]
    assert len(rows) > 20
    assert min(abs(r["snr"]) for r in rows) >= _QUIET.threshold


def test_one_source_stays_one(lab: ModuleType) -> None:
    at, _, _, result = measured(lab, 8202, None, (20.0, 400.0))

    assert result.sources.num_rows == len(at)
