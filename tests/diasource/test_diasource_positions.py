"""Fluxes forced at the centroid of a faint change on a star: low, and known to be."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from pipeline import diasource


def test_errors_of_forced_fluxes_hold_what_the_centroid_misses(lab: ModuleType) -> None:
    rng = np.random.default_rng(8301)
    star = lab.Star()
    template, variance = lab.blank((800, 800), rng)
    science, _ = lab.blank((800, 800), rng)
    at = lab.grid(template.shape, 40, rng)
    beneath = np.full(len(at), 400.0) * star.sigma_flux()
    change = lab.log_uniform(9.0, 14.0, len(at), rng) * star.sigma_flux()
    for image, flux in ((template, beneath), (science, beneath + change)):
        for (x, y), f in zip(at, flux, strict=True):
            ix, iy, h = round(x), round(y), lab.SIDE // 2
            box = np.s_[iy - h : iy + h + 1, ix - h : ix + h + 1]
            image[box] += star.stamp(x - ix, y - iy) * f / star.norm()
    world = lab.Scene(
        lab.difference((science - template) / np.sqrt(2.0), variance, star),
        lab.exposure(science, variance, star),
        lab.exposure(template, variance, star),
    )
    config = diasource.Config(sub_random=0, sky_sources=0)

    table = diasource.run(world.difference, world.science, world.template, config).sources
    found, rows = lab.match(table, at)

    flux, error = (table[n].to_numpy()[rows] for n in ("templateFlux", "templateFluxErr"))
    pull = (flux - beneath[found]) / error
    assert len(found) > 300
    assert np.median(flux / beneath[found]) < 0.995
    assert 0.8 < np.sqrt(np.mean(pull**2)) < 1.2
    assert (error / star.sigma_flux()).min() > 2.0
